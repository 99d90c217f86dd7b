//! The heart of the engine: stateful operators as pure state machines over RecordBatches.
//!
//! ```text
//!   batch + Stamp ──▶ push ──▶ output batches, at once
//!                      │
//!                    state ◀──▶ snapshot / restore (Arrow batches)
//! ```
//!
//! An operator is synchronous and belongs to one pipeline. It knows nothing of tokio, of plans or of files. The
//! invariant that everything else rests on: when `push` returns, every effect of the batch is in the operator's
//! declared state or in the output. Nothing is withheld anywhere else.

mod accumulators;
mod aggregate_spec;
mod blocks;
mod by_slice;
mod calendar;
mod changelog_aggregate;
mod changes;
mod codes;
mod distinct_aggregate;
mod due;
mod groups;
mod key_values;
mod keys;
mod latest_rows;
mod lifetimes;
mod missed;
mod near;
mod numbers;
mod open_windows;
mod pane;
mod passes;
mod pool;
mod result_time;
mod rows_window;
mod running_groups;
mod sessions;
mod shared_keys;
mod small_windows;
mod snapshot;
mod sorted_aggregate;
mod spans;
mod spill;
mod states;
mod summary;
#[cfg(test)]
mod testing;
mod ticks;
mod timed_rows;
mod top_n;
mod window_aggregate;
mod window_merge;
mod window_shape;

pub(crate) use aggregate_spec::{AggregateSpec, Derived, Ttl, WindowSpec};
pub(crate) use calendar::{Calendar, Span, ticks_per_second};
pub(crate) use changelog_aggregate::ChangelogAggregate;
pub(crate) use changes::{ChangesSpec, OP, Often, Op, Ops};
pub(crate) use codes::{Codes, same_dictionary};
pub(crate) use distinct_aggregate::{distinct, lacks_distinct};
pub use missed::MissedRows;
pub(crate) use missed::{Missed, MissedRow};
pub(crate) use result_time::{ResultTime, watermark_behind};
pub(crate) use rows_window::{Frame, RangeBound, RowsFunction, RowsFunctionKind, RowsWindow, RowsWindowSpec};
pub(crate) use sessions::{SessionAggregate, SessionRows, SessionRowsSpec};
pub(crate) use snapshot::without_slack;
pub(crate) use sorted_aggregate::{by_arrival, sorted};
pub(crate) use spans::Spans;
pub(crate) use ticks::ticks;
pub(crate) use timed_rows::TimedRows;
pub(crate) use top_n::{ChangelogTopN, TopNSpec, WindowTopN};
pub(crate) use window_aggregate::{Mode, WindowAggregate};
pub(crate) use window_merge::{CompleteWindows, HandedOver, Merger, PartId, SavedPart, SavedPiece};
pub(crate) use window_shape::{Length, WindowShape, round_down};

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::execution::DiskManager;

/// The watermark before any row has been seen: nothing is late, no window closes.
pub const WATERMARK_MIN: i64 = i64::MIN;
/// The watermark after the last row: every window closes.
pub const WATERMARK_MAX: i64 = i64::MAX;

/// What the source says of a batch: how far its data partition's event time has come.
///
/// Both watermarks are in the unit of the event-time column. The source cuts batches so that `watermark` answers
/// "is this row late?" exactly for every row of the batch, although each row has a watermark of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The data partition or piece that the batch comes from.
    pub partition: usize,
    /// The watermark to judge the batch's rows by: a window that ends at or before it was closed before them.
    pub watermark: i64,
    /// The watermark after the batch: windows that end at or before it close now.
    pub next_watermark: i64,
}

impl Stamp {
    /// A stamp without event time: nothing is late and nothing closes before the end.
    pub fn timeless(partition: usize) -> Self {
        Self { partition, watermark: WATERMARK_MIN, next_watermark: WATERMARK_MIN }
    }
}

/// What an operator has counted since it was made or restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rows that went into a window, or into the one group of rows that there is without windows.
    pub used_rows: u64,
    /// Rows dropped because their window had closed (or, for OVER, because they were behind the watermark).
    pub late_rows: u64,
    /// Rows that were late for some of their windows, but not for all.
    pub late_partial_rows: u64,
    /// Rows that no window holds: those between hopping windows that do not touch.
    pub between_rows: u64,
    /// Rows whose event time is null.
    pub null_time_rows: u64,
    /// Windows that have closed.
    pub windows_closed: u64,
    /// Keys that were forgotten because no row had come for them for as long as state lives.
    pub forgotten_keys: u64,
    /// Windows that are open now; of overlapping ones the panes.
    pub windows_open: u64,
}

impl Counters {
    /// Adds what another part has counted.
    fn add(&mut self, other: &Self) {
        self.used_rows += other.used_rows;
        self.late_rows += other.late_rows;
        self.late_partial_rows += other.late_partial_rows;
        self.between_rows += other.between_rows;
        self.null_time_rows += other.null_time_rows;
        self.windows_closed += other.windows_closed;
        self.forgotten_keys += other.forgotten_keys;
        self.windows_open += other.windows_open;
    }
}

/// A stateful operator of one pipeline.
///
/// `snapshot` and `restore` are exact: an operator that is cut anywhere, snapshot, and restored into a fresh one
/// gives the same output from there on as one that was never cut.
pub trait Operator: Send {
    /// The schema of the output batches.
    fn schema(&self) -> SchemaRef;

    /// Takes one batch of the input schema (an empty one only moves time on) and appends what it makes to `output`, in order.
    fn push(&mut self, batch: &RecordBatch, stamp: Stamp, output: &mut Vec<RecordBatch>) -> Result<()>;

    /// The input has ended: emits everything that was waiting for more.
    fn finish(&mut self, output: &mut Vec<RecordBatch>) -> Result<()>;

    /// Makes more of what is due by what came before, and appends it: what is large comes a part at a time. Nothing is pushed
    /// until it says that there is no more.
    fn more(&mut self, _output: &mut Vec<RecordBatch>) -> Result<bool> {
        Ok(false)
    }

    /// The whole state as Arrow batches. The operator goes on afterwards as if nothing had happened, although it may
    /// rebuild its accumulators (some of DataFusion's consume their state when asked for it).
    fn snapshot(&mut self) -> Result<Vec<RecordBatch>>;

    /// Puts a snapshot into a fresh operator of the same parameters.
    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()>;

    /// Bytes of state held now.
    fn memory(&self) -> usize;

    /// Whether it can bring state to disk.
    fn can_spill(&self) -> bool {
        false
    }

    /// Brings the larger part of its state to disk; how many bytes that is there, none if nothing is left that can go.
    fn spill(&mut self, _disk: &Arc<DiskManager>) -> Result<u64> {
        Ok(0)
    }

    /// What has been counted so far. Every row that was pushed is in one of `used_rows`, `late_rows` and `between_rows`.
    fn counters(&self) -> Counters;

    /// The rows of the last batch that missed windows, if somebody wants them.
    fn missed(&mut self) -> &mut MissedRows;
}
