//! Stamps for the rows of a piece: by a declared bound for each data partition, or exactly by what is still to come.

use std::collections::VecDeque;

use arrow::array::Array;
use datafusion::common::Result;

use crate::operator::{Stamp, WATERMARK_MIN, ticks};

use super::bounded_watermark::BoundedWatermarks;
use super::event_time::overlap;
use super::exact_watermark::ExactWatermarks;
use super::footer::Stretch;
use super::origin::{Places, RowPlace};
use super::pieces::Chunk;
use super::table::StreamFile;

/// A run of rows of a batch that one stamp judges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// First row.
    pub(super) offset: usize,
    /// Number of rows.
    pub(super) length: usize,
    /// What is known of them.
    pub(super) stamp: Stamp,
    /// The row that has set their watermark, if that is wanted.
    pub(super) set_by: Option<RowPlace>,
}

impl Segment {
    /// Rows without event time.
    pub(super) fn timeless(piece: usize, rows: usize) -> Self {
        Self { offset: 0, length: rows, stamp: Stamp::timeless(piece), set_by: None }
    }
}

/// Makes the stamps of one piece.
pub(super) enum Stamps {
    Bounded(Bounded),
    Exact(Exact),
}

impl Stamps {
    /// A chunk of the piece begins. `before` is the file before it in its data partition, if there is one, and `set_by`
    /// the row that has set the watermark with which it does.
    pub(super) fn begin(&mut self, chunk: &Chunk, file: &StreamFile, before: Option<&str>, set_by: Option<RowPlace>) {
        if let Self::Bounded(bounded) = self {
            bounded.begin(chunk, file, before, set_by);
        }
    }

    /// The highest event time so far, where watermarks follow it.
    pub(super) fn highest(&self) -> Option<i64> {
        match self {
            Self::Bounded(bounded) => bounded.watermarks.highest(),
            Self::Exact(_) => None,
        }
    }

    /// No row has come for so many ticks: event time goes on with the clock.
    pub(super) fn idle(&mut self, ticks: i64) {
        if let Self::Bounded(bounded) = self {
            bounded.watermarks.idle(ticks);
        }
    }

    /// Whether a chunk follows what was read last, so that how far event time has come is known.
    pub(super) fn continue_in(&self, chunk: &Chunk) -> bool {
        match self {
            Self::Bounded(bounded) => bounded.partition == Some(chunk.partition),
            Self::Exact(_) => true,
        }
    }

    /// All rows of the chunk have been seen.
    pub(super) fn end(&mut self) {
        if let Self::Exact(exact) = self
            && let Some(end) = exact.ends.pop_front()
        {
            exact.watermarks.pass(end);
        }
    }

    /// Cuts the next rows, given their event times, into runs with their stamps; with `places`, also with the rows that
    /// have set their watermarks.
    ///
    /// # Errors
    /// Event times that belie what is known of them.
    pub(super) fn segments(&mut self, times: &dyn Array, places: Option<&Places>) -> Result<Vec<Segment>> {
        match self {
            Self::Bounded(bounded) => bounded.segments(times, places),
            Self::Exact(exact) => {
                let stamp = exact.watermarks.stamp(times)?;
                Ok(vec![Segment { offset: 0, length: times.len(), stamp, set_by: None }])
            }
        }
    }

    /// Tells, once, that rows of a file of text are behind the watermark that the file before it left.
    pub(super) fn overlap(&mut self, times: &dyn Array) -> Result<Option<String>> {
        match self {
            Self::Bounded(bounded) => bounded.overlap(times),
            Self::Exact(_) => Ok(None),
        }
    }
}

/// Stamps by a bound, for each data partition by itself.
pub(super) struct Bounded {
    piece: usize,
    bound: i64,
    /// The last data partition of the piece, and the one that is being read.
    last_partition: Option<usize>,
    partition: Option<usize>,
    watermarks: BoundedWatermarks,
    /// The file that is being read.
    file: String,
    /// The one before it in its data partition, and the watermark that it left, as long as no row is behind that.
    follows: Option<(String, i64)>,
}

impl Bounded {
    pub(super) fn new(piece: usize, bound: i64, last_partition: Option<usize>) -> Self {
        let watermarks = BoundedWatermarks::new(piece, bound, None, None);
        Self { piece, bound, last_partition, partition: None, watermarks, file: String::new(), follows: None }
    }

    fn begin(&mut self, chunk: &Chunk, file: &StreamFile, before: Option<&str>, set_by: Option<RowPlace>) {
        self.file.clone_from(&file.name);
        let continues = self.partition.replace(chunk.partition) == Some(chunk.partition);
        if !continues {
            self.watermarks = BoundedWatermarks::new(self.piece, self.bound, chunk.highest_before, set_by);
        }
        // Where footers tell the event times, overlaps were seen when the stream was declared.
        let is_unknown = file.footer.is_none() && chunk.part.text_before().is_none();
        let before = before.filter(|_| is_unknown);
        self.follows = before.map(|before| (before.to_string(), self.watermarks.watermark()));
    }

    fn segments(&mut self, times: &dyn Array, places: Option<&Places>) -> Result<Vec<Segment>> {
        let mut segments = self.watermarks.segments(times, places)?;
        // Before the last of several partitions nothing is known of those that are still to be read.
        if self.last_partition != self.partition {
            segments.iter_mut().for_each(|segment| segment.stamp.next_watermark = WATERMARK_MIN);
        }
        Ok(segments)
    }

    fn overlap(&mut self, times: &dyn Array) -> Result<Option<String>> {
        let Some((before, watermark)) = &self.follows else { return Ok(None) };
        let is_behind = arrow::compute::min(&ticks(times)?).is_some_and(|lowest| lowest < *watermark);
        let warning = is_behind.then(|| overlap(before, &self.file));
        if is_behind {
            self.follows = None;
        }
        Ok(warning)
    }
}

/// Stamps by what is still to come of the piece.
pub(super) struct Exact {
    watermarks: ExactWatermarks,
    /// The row at which each chunk that is not read yet ends.
    ends: VecDeque<u64>,
}

impl Exact {
    /// Of the stretches of each chunk, after so many rows of the first one.
    pub(super) fn new(piece: usize, chunks: &[impl AsRef<[Stretch]>], seen: u64) -> Self {
        let mut row = 0;
        let ends = chunks.iter().map(|stretches| {
            row += stretches.as_ref().iter().map(|stretch| stretch.rows).sum::<u64>();
            row
        });
        let ends = ends.collect();
        let stretches: Vec<Stretch> = chunks.iter().flat_map(|stretches| stretches.as_ref()).copied().collect();
        let mut watermarks = ExactWatermarks::new(piece, &stretches);
        watermarks.pass(seen);
        Self { watermarks, ends }
    }
}
