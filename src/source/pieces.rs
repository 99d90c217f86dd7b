//! Dividing a stream among pipelines: whole partitions, pieces of them by row group, or everything in one.

use std::ops::Range;

use crate::operator::WATERMARK_MIN;

use super::statistics::RowGroup;
use super::table::{Inner, StreamFile};
use super::watermark::less;

/// How a stream's data is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    /// One pipeline for each data partition.
    Partitions,
    /// Pieces of partitions, so that there is work for `at_least` pipelines where the files allow.
    Pieces { at_least: usize },
    /// One pipeline reads all partitions, one after the other.
    One,
}

/// How a scan reads a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Division {
    pub(crate) split: Split,
    /// Whether watermarks are wanted: a query without windows does without, and without reading the event time.
    pub(crate) timed: bool,
}

/// What one pipeline reads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Piece {
    /// The watermark before its first row.
    pub(crate) start_watermark: i64,
    /// Rows, where the files say so.
    pub(crate) rows: Option<u64>,
    pub(super) chunks: Vec<Chunk>,
}

/// A file, or consecutive row groups of one.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    /// The data partition.
    pub(super) partition: usize,
    /// The file of that partition.
    pub(super) file: usize,
    pub(super) row_groups: Option<Range<usize>>,
    /// Highest event time before this chunk in its partition, if it does not follow the chunk before it.
    pub(super) highest_before: Option<i64>,
}

/// Divides a stream.
pub(super) fn cut(stream: &Inner, division: Division) -> Vec<Piece> {
    let partitions = stream.partitions.len();
    match division.split {
        Split::Partitions => (0..partitions).map(|partition| whole(stream, &[partition])).collect(),
        Split::One => vec![whole(stream, &(0..partitions).collect::<Vec<_>>())],
        Split::Pieces { at_least } => {
            let of_each = at_least.div_ceil(partitions.max(1));
            (0..partitions).flat_map(|partition| cut_partition(stream, partition, of_each, division.timed)).collect()
        }
    }
}

fn whole(stream: &Inner, partitions: &[usize]) -> Piece {
    let chunks = partitions.iter().flat_map(|&partition| {
        let files = stream.partitions.get(partition).map_or(0, Vec::len);
        (0..files).map(move |file| Chunk { partition, file, row_groups: None, highest_before: None })
    });
    let rows = partitions.iter().filter_map(|&partition| stream.partitions.get(partition)).flatten().map(rows_of);
    Piece { start_watermark: WATERMARK_MIN, rows: rows.sum(), chunks: chunks.collect() }
}

fn rows_of(file: &StreamFile) -> Option<u64> {
    Some(file.row_groups.as_ref()?.iter().map(|group| group.rows).sum())
}

/// Cuts a partition into `count` pieces of about as many rows each, between row groups.
fn cut_partition(stream: &Inner, partition: usize, count: usize, timed: bool) -> Vec<Piece> {
    let files = stream.partitions.get(partition).map_or(&[][..], Vec::as_slice);
    let bound = stream.event_time.as_ref().filter(|_| timed).and_then(|time| time.bound);
    let groups: Option<Vec<(usize, usize, RowGroup)>> = files
        .iter()
        .enumerate()
        .map(|(file, found)| {
            Some(found.row_groups.as_ref()?.iter().enumerate().map(move |(i, group)| (file, i, *group)))
        })
        .collect::<Option<Vec<_>>>()
        .map(|files| files.into_iter().flatten().filter(|(_, _, group)| group.rows > 0).collect());
    // Without the event times before it, a piece would not know what is late.
    let groups = groups.filter(|groups| bound.is_none() || groups.iter().all(|(_, _, group)| group.times.is_some()));
    let Some(groups) = groups.filter(|groups| count > 1 && groups.len() > 1) else {
        return vec![whole(stream, &[partition])];
    };
    let total: u64 = groups.iter().map(|(_, _, group)| group.rows).sum();
    let share = total.div_ceil(count as u64).max(1);
    let (mut pieces, mut highest, mut rows_before) = (vec![], None, 0);
    for (file, index, group) in groups {
        // A row group belongs to the piece in whose share its first row is.
        if pieces.len() as u64 <= rows_before / share {
            pieces.push(Piece { start_watermark: less(highest, bound), rows: Some(0), chunks: vec![] });
        }
        if let Some(piece) = pieces.last_mut() {
            add(
                piece,
                Chunk { partition, file, row_groups: Some(index..index + 1), highest_before: highest },
                group.rows,
            );
        }
        highest = highest.max(group.times.map(|(_, highest)| highest));
        rows_before += group.rows;
    }
    pieces
}

/// Adds a row group to a piece, to the chunk before it where that is the same file.
fn add(piece: &mut Piece, chunk: Chunk, rows: u64) {
    piece.rows = piece.rows.map(|before| before + rows);
    match (piece.chunks.last_mut(), &chunk.row_groups) {
        (Some(Chunk { file, row_groups: Some(range), .. }), Some(next))
            if *file == chunk.file && range.end == next.start =>
        {
            range.end = next.end;
        }
        _ => piece.chunks.push(chunk),
    }
}
