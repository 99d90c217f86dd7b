//! Dividing a stream among pipelines: whole partitions, pieces of them by row group, or everything in one.

use std::ops::Range;

use crate::operator::WATERMARK_MIN;

use super::bounded_watermark::less;
use super::event_time::EventTime;
use super::exact_watermark::NONE_TO_COME;
use super::footer::GroupTimes;
use super::share::Sharing;
use super::table::{Inner, StreamFile};

/// How a stream's data is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    /// One pipeline for each data partition.
    Partitions,
    /// Pieces of partitions, so that there is work for `at_least` pipelines where the files allow.
    Pieces { at_least: usize },
    /// All partitions for each pipeline, of which, if there are several, each gets the rows of its own keys.
    All { pipelines: usize, order: ReadOrder, way: Sharing },
}

/// In which order a pipeline reads several partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ReadOrder {
    /// One after the other.
    Sequence,
    /// Together, batch by batch, so that event time goes on in all of them.
    Together,
    /// Together, row by row: by the highest event time up to a row of its partition, then by partition.
    Canonical,
}

/// How a scan reads a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Division {
    pub(crate) split: Split,
    /// The stream's columns by which pipelines that read all partitions share their rows.
    pub(crate) keys: Vec<usize>,
    /// The column whose watermarks are wanted: a query without windows does without, and without reading it.
    pub(crate) time: Option<usize>,
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

/// Divides a stream whose watermarks, if they are wanted, are those of `time`.
pub(super) fn cut(stream: &Inner, split: Split, time: Option<&EventTime>) -> Vec<Piece> {
    let partitions = stream.partitions.len();
    match split {
        Split::Partitions => (0..partitions).map(|partition| whole(stream, &[partition], time)).collect(),
        Split::All { pipelines, .. } => {
            let all = whole(stream, &(0..partitions).collect::<Vec<_>>(), time);
            // How many of the rows are those of one of several pipelines nobody knows.
            let rows = all.rows.filter(|_| pipelines == 1);
            vec![Piece { rows, ..all }; pipelines]
        }
        Split::Pieces { at_least } => {
            let of_each = at_least.div_ceil(partitions.max(1));
            (0..partitions).flat_map(|partition| cut_partition(stream, partition, of_each, time)).collect()
        }
    }
}

fn whole(stream: &Inner, partitions: &[usize], time: Option<&EventTime>) -> Piece {
    let files = partitions.iter().filter_map(|&partition| stream.partitions.get(partition)).flatten();
    let chunks = partitions.iter().flat_map(|&partition| {
        let files = stream.partitions.get(partition).map_or(0, Vec::len);
        (0..files).map(move |file| Chunk { partition, file, row_groups: None, highest_before: None })
    });
    let start_watermark = match time {
        Some(EventTime { index, bound: None, .. }) => lowest(files.clone().map(|file| {
            let groups = file.footer.as_ref()?.times(*index)?;
            lowest(groups.iter().map(|group| group.as_ref().map(lowest_of_group)))
        })),
        _ => None,
    };
    let rows = files.map(|file| Some(file.footer.as_ref()?.rows.iter().sum::<u64>())).sum();
    Piece { start_watermark: start_watermark.unwrap_or(WATERMARK_MIN), rows, chunks: chunks.collect() }
}

/// The lowest of times that are known; none if one is not known.
fn lowest(mut times: impl Iterator<Item = Option<i64>>) -> Option<i64> {
    times.try_fold(NONE_TO_COME, |lowest, time| Some(lowest.min(time?)))
}

fn lowest_of_group(group: &GroupTimes) -> i64 {
    group.range.map_or(NONE_TO_COME, |(lowest, _)| lowest)
}

/// A row group of a partition.
struct Group<'a> {
    file: usize,
    index: usize,
    rows: u64,
    times: Option<&'a GroupTimes>,
}

/// The row groups of a partition that have rows; none if its files have no row groups.
fn groups<'a>(files: &'a [StreamFile], time: Option<&EventTime>) -> Option<Vec<Group<'a>>> {
    let mut groups = vec![];
    for (file, found) in files.iter().enumerate() {
        let footer = found.footer.as_ref()?;
        let times = time.and_then(|time| footer.times(time.index));
        groups.extend(footer.rows.iter().enumerate().filter(|(_, rows)| **rows > 0).map(|(index, &rows)| {
            let times = times.and_then(|times| times.get(index)?.as_ref());
            Group { file, index, rows, times }
        }));
    }
    Some(groups)
}

/// Cuts a partition into `count` pieces of about as many rows each, between row groups.
fn cut_partition(stream: &Inner, partition: usize, count: usize, time: Option<&EventTime>) -> Vec<Piece> {
    let files = stream.partitions.get(partition).map_or(&[][..], Vec::as_slice);
    let bound = time.and_then(|time| time.bound);
    let groups = groups(files, time);
    // Without the event times before it, a piece would not know what is late.
    let groups = groups.filter(|groups| bound.is_none() || groups.iter().all(|group| group.times.is_some()));
    let Some(groups) = groups.filter(|groups| count > 1 && groups.len() > 1) else {
        return vec![whole(stream, &[partition], time)];
    };
    let share = groups.iter().map(|group| group.rows).sum::<u64>().div_ceil(count as u64).max(1);
    let (mut pieces, mut highest, mut rows_before) = (vec![], None, 0);
    for group in groups {
        // A row group belongs to the piece in whose share its first row is.
        if pieces.len() as u64 <= rows_before / share {
            let start_watermark = match (bound, time) {
                (Some(bound), _) => less(highest, bound),
                (None, Some(_)) => NONE_TO_COME,
                (None, None) => WATERMARK_MIN,
            };
            pieces.push(Piece { start_watermark, rows: Some(0), chunks: vec![] });
        }
        if let Some(piece) = pieces.last_mut() {
            if bound.is_none() {
                let lowest = group.times.map_or(WATERMARK_MIN, lowest_of_group);
                piece.start_watermark = piece.start_watermark.min(lowest);
            }
            let row_groups = Some(group.index..group.index + 1);
            add(piece, Chunk { partition, file: group.file, row_groups, highest_before: highest }, group.rows);
        }
        highest = highest.max(group.times.and_then(|times| times.range).map(|(_, highest)| highest));
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
