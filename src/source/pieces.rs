//! Dividing a stream among pipelines: whole partitions, pieces of them by row group or bytes of text, or everything in
//! one.

use std::ops::Range;
use std::sync::Arc;

use datafusion::common::parsers::CompressionTypeVariant;

use crate::operator::WATERMARK_MIN;
use crate::sql::FileFormat;

use super::bounded_watermark::less;
use super::event_time::EventTime;
use super::exact_watermark::NONE_TO_COME;
use super::footer::GroupTimes;
use super::share::Sharing;
use super::table::{Coming, Inner, StreamFile};
use super::text_parts;

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

/// What is read of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) enum Part {
    #[default]
    Whole,
    /// Consecutive row groups.
    RowGroups(Range<usize>),
    /// Consecutive ones of so many parts of a file of text.
    Text { parts: Range<usize>, of: usize },
    /// What comes while it is read.
    Live,
}

impl Part {
    /// The row groups, where there are any; none for all of them.
    pub(super) fn row_groups(&self) -> Option<Range<usize>> {
        match self {
            Self::RowGroups(groups) => Some(groups.clone()),
            Self::Whole | Self::Text { .. } | Self::Live => None,
        }
    }

    /// The part of the file's text that is before it, if it does not begin with the file.
    pub(super) fn text_before(&self) -> Option<Self> {
        match self {
            Self::Text { parts, of } if parts.start > 0 => Some(Self::Text { parts: 0..parts.start, of: *of }),
            _ => None,
        }
    }

    /// Parts of text one by one, so that early passes over the same ones are one; everything else as it is.
    pub(super) fn single(&self) -> Vec<Self> {
        match self {
            Self::Text { parts, of } => {
                parts.clone().map(|part| Self::Text { parts: part..part + 1, of: *of }).collect()
            }
            part => vec![part.clone()],
        }
    }

    /// A number for the first row of a part of text whose rows before nobody has counted: one that is above theirs.
    pub(super) fn first_place(&self) -> u64 {
        const ROWS_OF_A_PART: u64 = 1 << 28;
        match self {
            Self::Text { parts, .. } => parts.start as u64 * ROWS_OF_A_PART,
            Self::Whole | Self::RowGroups(_) | Self::Live => 0,
        }
    }

    /// Where it begins in its file, among other parts of the file.
    fn begin(&self) -> usize {
        match self {
            Self::Whole | Self::Live => 0,
            Self::RowGroups(range) | Self::Text { parts: range, .. } => range.start,
        }
    }

    /// The next part of the same file, if it is that, made one with this one.
    fn join(&mut self, next: &Self) -> bool {
        match (self, next) {
            (Self::RowGroups(range), Self::RowGroups(next))
            | (Self::Text { parts: range, .. }, Self::Text { parts: next, .. })
                if range.end == next.start =>
            {
                range.end = next.end;
                true
            }
            _ => false,
        }
    }
}

/// Where a row of text begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TextStart {
    /// In the file.
    pub(crate) byte: u64,
    /// How many rows are before it: in the file, or in the part of it that is read.
    pub(crate) rows: u64,
}

/// A file, or a part of one.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunk {
    /// The data partition.
    pub(super) partition: usize,
    /// The file of that partition.
    pub(super) file: usize,
    pub(super) part: Part,
    /// Highest event time before this chunk in its partition, as far as footers say it, if it does not follow the chunk
    /// before it.
    pub(super) highest_before: Option<i64>,
    /// Where in the text it begins, if what is before has been read earlier.
    pub(super) from: Option<TextStart>,
    /// The file itself, where it has been found while the stream was read.
    pub(super) found: Option<Arc<StreamFile>>,
}

impl Chunk {
    /// The same part by part, see [`Part::single`].
    pub(super) fn single(&self) -> impl Iterator<Item = Self> {
        self.part.single().into_iter().map(|part| Self { part, ..self.clone() })
    }

    /// Whether it comes before another one of its data partition.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.partition == other.partition && (self.file, self.part.begin()) < (other.file, other.part.begin())
    }

    /// Whether nothing is before it in its data partition.
    pub(super) fn is_first(&self) -> bool {
        self.file == 0 && self.part.begin() == 0
    }
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
    // What is in a file whose end is followed now comes with the rest.
    let partitions = if stream.coming.is_live() { &[] } else { partitions };
    let files = partitions.iter().filter_map(|&partition| stream.partitions.get(partition)).flatten();
    let chunks = partitions.iter().flat_map(|&partition| {
        let files = stream.partitions.get(partition).map_or(0, Vec::len);
        (0..files).map(move |file| Chunk { partition, file, part: Part::Whole, ..Chunk::default() })
    });
    let start_watermark = match time {
        Some(EventTime { index, bound: None, .. }) => lowest(files.clone().map(|file| {
            let groups = file.footer.as_ref()?.times(*index)?;
            lowest(groups.iter().map(|group| group.as_ref().map(lowest_of_group)))
        })),
        _ => None,
    };
    let rows: Option<u64> = files.map(|file| Some(file.footer.as_ref()?.rows.iter().sum::<u64>())).sum();
    let rows = rows.filter(|_| matches!(stream.coming, Coming::Nothing));
    Piece { start_watermark: start_watermark.unwrap_or(WATERMARK_MIN), rows, chunks: chunks.collect() }
}

/// The lowest of times that are known; none if one is not known.
fn lowest(mut times: impl Iterator<Item = Option<i64>>) -> Option<i64> {
    times.try_fold(NONE_TO_COME, |lowest, time| Some(lowest.min(time?)))
}

fn lowest_of_group(group: &GroupTimes) -> i64 {
    group.range.map_or(NONE_TO_COME, |(lowest, _)| lowest)
}

/// What a piece of a partition is made of: a row group, or a part of a file of text.
struct Group<'a> {
    file: usize,
    part: Part,
    /// Rows, where the files say so.
    rows: Option<u64>,
    /// Rows, or bytes.
    size: u64,
    times: Option<&'a GroupTimes>,
}

/// The row groups of a partition that have rows, or the parts of its files of text, `count` of them where there is text
/// enough; none if a file cannot be read but as a whole.
fn groups<'a>(
    stream: &Inner,
    files: &'a [StreamFile],
    count: usize,
    time: Option<&EventTime>,
) -> Option<Vec<Group<'a>>> {
    let total: u64 = files.iter().map(|file| file.object.size).sum();
    let mut groups = vec![];
    for (file, found) in files.iter().enumerate() {
        let Some(footer) = &found.footer else {
            if stream.format == FileFormat::Parquet || found.compression != CompressionTypeVariant::UNCOMPRESSED {
                return None;
            }
            let size = found.object.size;
            let share = (u128::from(size) * count as u128).div_ceil(u128::from(total.max(1))) as usize;
            let of = text_parts::parts(stream, found, share);
            let part = |part: usize| Part::Text { parts: part..part + 1, of };
            let group = |index| Group { file, part: part(index), rows: None, size: size / of as u64, times: None };
            groups.extend((0..of).map(group));
            continue;
        };
        let times = time.and_then(|time| footer.times(time.index));
        groups.extend(footer.rows.iter().enumerate().filter(|(_, rows)| **rows > 0).map(|(index, &rows)| {
            let times = times.and_then(|times| times.get(index)?.as_ref());
            Group { file, part: Part::RowGroups(index..index + 1), rows: Some(rows), size: rows, times }
        }));
    }
    Some(groups)
}

/// Cuts a partition into `count` pieces of about as many rows each, between row groups.
fn cut_partition(stream: &Inner, partition: usize, count: usize, time: Option<&EventTime>) -> Vec<Piece> {
    let files = stream.partitions.get(partition).map_or(&[][..], Vec::as_slice);
    let bound = time.and_then(|time| time.bound);
    let groups = groups(stream, files, count, time);
    // Without the event times before it, a piece would not know what is late: those of text are read early.
    let is_known = |group: &Group| group.times.is_some() || group.rows.is_none();
    let groups = groups.filter(|groups| bound.is_none() || groups.iter().all(is_known));
    let Some(groups) = groups.filter(|groups| count > 1 && groups.len() > 1) else {
        return vec![whole(stream, &[partition], time)];
    };
    let share = groups.iter().map(|group| group.size).sum::<u64>().div_ceil(count as u64).max(1);
    let (mut pieces, mut highest, mut size_before) = (vec![], None, 0);
    for group in groups {
        // A row group belongs to the piece in whose share its first row is.
        if pieces.len() as u64 <= size_before / share {
            let start_watermark = match (bound, time) {
                (Some(bound), _) => less(highest, bound),
                (None, Some(_)) => NONE_TO_COME,
                (None, None) => WATERMARK_MIN,
            };
            pieces.push(Piece { start_watermark, rows: group.rows.map(|_| 0), chunks: vec![] });
        }
        if let Some(piece) = pieces.last_mut() {
            if bound.is_none() {
                let lowest = group.times.map_or(WATERMARK_MIN, lowest_of_group);
                piece.start_watermark = piece.start_watermark.min(lowest);
            }
            let (part, highest_before) = (group.part, highest);
            add(piece, Chunk { partition, file: group.file, part, highest_before, ..Chunk::default() }, group.rows);
        }
        highest = highest.max(group.times.and_then(|times| times.range).map(|(_, highest)| highest));
        size_before += group.size;
    }
    pieces
}

/// Adds a part to a piece, to the chunk before it where that is the same file.
fn add(piece: &mut Piece, chunk: Chunk, rows: Option<u64>) {
    piece.rows = piece.rows.zip(rows).map(|(before, rows)| before + rows);
    let before = piece.chunks.last_mut().filter(|before| before.file == chunk.file);
    if !before.is_some_and(|before| before.part.join(&chunk.part)) {
        piece.chunks.push(chunk);
    }
}
