//! Reading a piece: rows with their stamps, in the order in which the operators want them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::common::Result;
use datafusion::execution::TaskContext;

use crate::operator::Stamp;

use super::follow::Signals;
use super::latency::Latencies;
use super::origin::Origin;
use super::pieces::ReadOrder;
use super::position::Position;
use super::replay::ReplayPlan;
use super::sequence::Sequence;
use super::together::Together;

/// Reads one piece of a stream.
pub(crate) enum Reader {
    Sequence(Box<Sequence>),
    Together(Together),
}

/// What a reader has seen besides the rows that it gave.
#[derive(Debug, Default)]
pub(crate) struct ReaderCounts {
    /// Rows that could not be parsed and were left out.
    pub(crate) skipped_rows: AtomicU64,
    /// Rows of an early pass over event times.
    pub(crate) early_rows: AtomicU64,
    /// Bytes of text files, as they are stored.
    pub(crate) bytes: AtomicU64,
    /// How long rows took, where they have a speed.
    pub(crate) latency: Latencies,
}

/// Rows that were read.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) batch: RecordBatch,
    pub(crate) stamp: Stamp,
    /// Where they come from, if that is wanted.
    pub(crate) origin: Option<Origin>,
    /// The event time at which they are due, if they come by it.
    pub(crate) due: Option<i64>,
}

impl Reader {
    /// Opens a piece, to be counted in `counts`. Whoever follows files goes by `signals`.
    ///
    /// # Errors
    /// There is no such piece.
    pub(crate) fn open(
        plan: &Arc<ReplayPlan>,
        piece: usize,
        counts: Arc<ReaderCounts>,
        task: Arc<TaskContext>,
        signals: &Arc<Signals>,
    ) -> Result<Self> {
        Ok(match plan.order() {
            ReadOrder::Sequence => {
                let chunks = plan.piece(piece)?.chunks.clone();
                let mut sequence = Sequence::new(plan, piece, chunks, counts, task);
                if plan.stream().is_arriving() {
                    sequence.follow(signals);
                }
                Self::Sequence(Box::new(sequence))
            }
            ReadOrder::Together | ReadOrder::Canonical => Self::Together(Together::open(plan, piece, &counts, &task)?),
        })
    }

    /// How far it has come.
    pub(crate) fn position(&self) -> Position {
        match self {
            Self::Sequence(sequence) => sequence.position(),
            // Which rows of each file they were is known only by reading.
            Self::Together(_) => Position::default(),
        }
    }

    /// Goes on where another reader of the same piece has been. Gives the number of rows that are not read again.
    ///
    /// # Errors
    /// What was begun is not there any more.
    pub(crate) fn restore(&mut self, position: &Position) -> Result<u64> {
        match self {
            Self::Sequence(sequence) => sequence.restore(position),
            Self::Together(_) => Ok(0),
        }
    }

    /// Passes over some of the first `rows` rows without reading them. Gives the number of those.
    pub(crate) fn pass_over(&mut self, rows: u64) -> u64 {
        match self {
            Self::Sequence(sequence) => sequence.pass_over(rows),
            // Which rows they are is known only by reading.
            Self::Together(_) => 0,
        }
    }

    /// The next batch with its stamp; none at the end.
    ///
    /// # Errors
    /// A file that cannot be read, named, with the row where that is known; a key in two files.
    pub(crate) async fn next(&mut self) -> Result<Option<Read>> {
        match self {
            Self::Sequence(sequence) => Ok(sequence.next().await?.map(|run| run.read)),
            Self::Together(partitions) => partitions.next().await,
        }
    }
}

impl Read {
    /// Some of the rows, with another stamp.
    pub(crate) fn slice(&self, offset: usize, length: usize, stamp: Stamp) -> Self {
        let origin = self.origin.as_ref().map(|origin| Origin {
            rows: origin.rows.slice(offset, length),
            places: origin.places.slice(offset, length),
            set_by: origin.set_by.clone(),
        });
        Self { batch: self.batch.slice(offset, length), stamp, origin, due: self.due }
    }

    /// Those rows that are true.
    ///
    /// # Errors
    /// None for as many flags as there are rows.
    pub(super) fn of_rows(self, rows: &BooleanArray) -> Result<Self> {
        let Self { batch, stamp, origin, due } = self;
        let origin = origin.map(|origin| origin.of_rows(rows)).transpose()?;
        Ok(Self { batch: filter_record_batch(&batch, rows)?, stamp, origin, due })
    }

    /// The same rows in parts of at most `rows` rows. Event time, which has come to `watermark`, goes on with the last.
    pub(crate) fn parts(self, rows: usize, watermark: i64) -> impl Iterator<Item = Self> {
        let total = self.batch.num_rows();
        (0..total.div_ceil(rows).max(1)).map(move |part| {
            let offset = part * rows;
            let length = rows.min(total - offset);
            let is_last = offset + length == total;
            let next_watermark = if is_last { self.stamp.next_watermark } else { watermark };
            self.slice(offset, length, Stamp { next_watermark, ..self.stamp })
        })
    }
}
