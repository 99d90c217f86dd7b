//! What the nodes of one pipeline share: the leaf's batch, its stamp, the mergers, and counts for progress.
//!
//! The runtime makes one [`PipelineContext`] for each pipeline and puts it into the task context's session
//! configuration, where the plan's nodes find it when they are executed. Only the one task that runs the pipeline
//! touches it, so its lock is never waited for; a merger's lock is taken once for each window
//! close, and for each batch where another operator follows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::TaskContext;

use parking_lot::Mutex;

use crate::checkpoint::{Checkpoint, Saved};
use crate::operator::{Counters, Merger, MissedRow, PartId, Stamp, WATERMARK_MIN};
use crate::source::{Origin, ReaderCounts};

use super::flight::{Arrived, Flight};

/// A task context for a part of a running plan, with something for its nodes to find.
///
/// A session's functions are needed for planning only, so they are left out: copying them costs more than a batch.
pub(crate) fn task_with<T: Send + Sync + 'static>(task: &TaskContext, extension: T) -> Arc<TaskContext> {
    Arc::new(TaskContext::new(
        task.task_id(),
        task.session_id(),
        task.session_config().clone().with_extension(Arc::new(extension)),
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        Arc::clone(&task.runtime_env()),
    ))
}

/// The merger of each operator of a plan, if it has one.
pub(crate) type Mergers = Vec<Option<Arc<Mutex<Merger>>>>;

/// What the nodes of one pipeline share.
#[derive(Debug)]
pub(crate) struct PipelineContext {
    /// Which pipeline of the plan this is: the partition that its nodes are executed for.
    pub(crate) index: usize,
    leaf: Mutex<Leaf>,
    flight: Mutex<Flight>,
    saving: Mutex<Saving>,
    /// Whether operators are to save themselves when they are polled.
    wants_saved: AtomicBool,
    /// For each operator, what brings together what several pipelines know of a window, under `merge_on_close`.
    pub(crate) mergers: Mergers,
    /// Counts of this pipeline.
    pub(crate) metrics: Arc<PipelineMetrics>,
}

/// What operators save, and what they go on from, by their stages.
#[derive(Debug, Default)]
struct Saving {
    is_on: bool,
    /// What operators save of what does not change any more is a part of its own.
    part: PartId,
    saved: BTreeMap<usize, Saved>,
    restored: BTreeMap<usize, Saved>,
}

#[derive(Debug)]
struct Leaf {
    batch: Option<RecordBatch>,
    stamp: Stamp,
    /// Where its rows come from, if a ledger of late rows asks for that.
    origin: Option<Origin>,
    ended: bool,
    wants_input: bool,
}

/// Rows of a batch that missed windows, where they come from, and the watermark that they missed.
pub(crate) struct LateRows {
    pub(crate) rows: Vec<MissedRow>,
    pub(crate) origin: Origin,
    pub(crate) watermark: i64,
}

/// What the leaf has to say when it is polled.
pub(crate) enum LeafPoll {
    Batch(RecordBatch),
    Ended,
    WantsInput,
}

impl PipelineContext {
    pub(crate) fn new(index: usize, mergers: Mergers, metrics: Arc<PipelineMetrics>) -> Self {
        let stamp = Stamp::timeless(index);
        let leaf = Leaf { batch: None, stamp, origin: None, ended: false, wants_input: false };
        Self {
            index,
            leaf: Mutex::new(leaf),
            flight: Mutex::default(),
            saving: Mutex::default(),
            wants_saved: AtomicBool::new(false),
            mergers,
            metrics,
        }
    }

    /// The pipeline saves itself. This is what its operators are to go on from when they are opened, the first stage first.
    pub(crate) fn restore(&self, operators: Vec<Saved>) {
        let mut saving = self.saving.lock();
        saving.is_on = true;
        saving.restored = operators.into_iter().enumerate().collect();
    }

    /// Whether the pipeline saves itself.
    pub(super) fn saves(&self) -> bool {
        self.saving.lock().is_on
    }

    /// Under which name parts are saved next.
    pub(crate) fn part(&self) -> PartId {
        self.saving.lock().part
    }

    pub(crate) fn set_part(&self, part: PartId) {
        self.saving.lock().part = part;
    }

    /// What the operator of a stage goes on from.
    pub(super) fn take_restored(&self, stage: usize) -> Option<Saved> {
        self.saving.lock().restored.remove(&stage)
    }

    /// Asks the operators to save themselves when they are polled next.
    pub(crate) fn want_saved(&self) {
        self.wants_saved.store(true, Ordering::Relaxed);
    }

    pub(super) fn wants_saved(&self) -> bool {
        self.wants_saved.load(Ordering::Relaxed)
    }

    pub(super) fn save(&self, stage: usize, saved: Saved) {
        self.saving.lock().saved.insert(stage, saved);
    }

    /// What the operators have saved, the first stage first.
    pub(crate) fn take_saved(&self) -> Vec<Saved> {
        self.wants_saved.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.saving.lock().saved).into_values().collect()
    }

    /// The context of the pipeline that a node is executed in.
    pub(crate) fn of(task: &TaskContext) -> Result<Arc<Self>> {
        task.session_config()
            .get_extension::<Self>()
            .ok_or_else(|| internal_datafusion_err!("a stream is read outside of a pipeline"))
    }

    /// Puts a batch into the plan's leaf.
    pub(crate) fn push(&self, batch: RecordBatch, stamp: Stamp, origin: Option<Origin>) {
        self.metrics.read(batch.num_rows(), stamp);
        self.flight.lock().read += batch.num_rows() as u64;
        let mut leaf = self.leaf.lock();
        leaf.batch = Some(batch);
        leaf.stamp = stamp;
        leaf.origin = origin;
    }

    /// Counts the rows of the source that go no further, of `before` that came to a node and `after` that left it. More
    /// of them than came are found when the batch is settled.
    pub(super) fn passed(&self, before: u64, after: u64) {
        self.flight.lock().filtered += before.saturating_sub(after);
    }

    /// Counts rows of the source that have come to the end of the pipeline.
    pub(super) fn used(&self, rows: u64) {
        self.flight.lock().arrived.used += rows;
    }

    /// Counts rows of the source that have come to the operator, and takes those that missed windows.
    pub(super) fn arrived(&self, arrived: Arrived, missed: Vec<MissedRow>) {
        let mut flight = self.flight.lock();
        flight.arrived.add(arrived);
        flight.missed.extend(missed);
    }

    /// The pipeline ends before the plan has done all that it can with the batch, for a LIMIT has its rows: what came to
    /// the end was used.
    pub(crate) fn abandon(&self) {
        let Flight { filtered, arrived, .. } = std::mem::take(&mut *self.flight.lock());
        self.metrics.used_rows.fetch_add(arrived.used, Ordering::Relaxed);
        self.metrics.filtered_rows.fetch_add(filtered, Ordering::Relaxed);
    }

    /// The plan has done all that it can with the batch: what has become of its rows is counted. Gives the late ones, if
    /// it is known where they come from.
    ///
    /// # Errors
    /// Rows that are not accounted for.
    pub(crate) fn settle(&self) -> Result<Option<LateRows>> {
        let flight = std::mem::take(&mut *self.flight.lock());
        flight.check()?;
        self.metrics.settle(&flight);
        let mut leaf = self.leaf.lock();
        let watermark = leaf.stamp.watermark;
        let origin = leaf.origin.take().filter(|_| !flight.missed.is_empty());
        Ok(origin.map(|origin| LateRows { rows: flight.missed, origin, watermark }))
    }

    /// Tells the leaf that no more batches come.
    pub(crate) fn end(&self) {
        self.leaf.lock().ended = true;
    }

    /// Whether the leaf was polled with nothing to give: the plan has done all that it can.
    pub(crate) fn take_wants_input(&self) -> bool {
        std::mem::take(&mut self.leaf.lock().wants_input)
    }

    /// The same, without saying that it is known.
    pub(super) fn wants_input(&self) -> bool {
        self.leaf.lock().wants_input
    }

    /// Takes what the leaf has.
    pub(crate) fn poll_leaf(&self) -> LeafPoll {
        let mut leaf = self.leaf.lock();
        match leaf.batch.take() {
            Some(batch) => LeafPoll::Batch(batch),
            None if leaf.ended => LeafPoll::Ended,
            None => {
                leaf.wants_input = true;
                LeafPoll::WantsInput
            }
        }
    }

    /// The stamp of the batch that is in the plan now.
    pub(crate) fn stamp(&self) -> Stamp {
        self.leaf.lock().stamp
    }
}

/// Counts of one pipeline, written by its task alone and read by whoever shows progress.
#[derive(Debug)]
pub(crate) struct PipelineMetrics {
    pub(crate) rows_in: AtomicU64,
    pub(crate) rows_out: AtomicU64,
    pub(crate) reader: Arc<ReaderCounts>,
    pub(crate) used_rows: AtomicU64,
    pub(crate) filtered_rows: AtomicU64,
    pub(crate) late_rows: AtomicU64,
    pub(crate) late_partial_rows: AtomicU64,
    pub(crate) between_rows: AtomicU64,
    pub(crate) null_time_rows: AtomicU64,
    pub(crate) windows_closed: AtomicU64,
    pub(crate) windows_open: AtomicU64,
    pub(crate) forgotten_keys: AtomicU64,
    pub(crate) state_bytes: AtomicU64,
    pub(crate) spilled_bytes: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) checkpoint_bytes: AtomicU64,
    pub(crate) checkpoint_ns: AtomicU64,
    pub(crate) watermark: AtomicI64,
    pub(crate) finished: AtomicBool,
}

impl Default for PipelineMetrics {
    fn default() -> Self {
        Self {
            rows_in: AtomicU64::new(0),
            rows_out: AtomicU64::new(0),
            reader: Arc::default(),
            used_rows: AtomicU64::new(0),
            filtered_rows: AtomicU64::new(0),
            late_rows: AtomicU64::new(0),
            late_partial_rows: AtomicU64::new(0),
            between_rows: AtomicU64::new(0),
            null_time_rows: AtomicU64::new(0),
            windows_closed: AtomicU64::new(0),
            windows_open: AtomicU64::new(0),
            forgotten_keys: AtomicU64::new(0),
            state_bytes: AtomicU64::new(0),
            spilled_bytes: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            checkpoint_bytes: AtomicU64::new(0),
            checkpoint_ns: AtomicU64::new(0),
            watermark: AtomicI64::new(WATERMARK_MIN),
            finished: AtomicBool::new(false),
        }
    }
}

impl PipelineMetrics {
    /// The counts of a pipeline that goes on. What operators count they give again.
    pub(crate) fn restore(&self, checkpoint: &Checkpoint) {
        self.rows_in.store(checkpoint.rows_read, Ordering::Relaxed);
        self.rows_out.store(checkpoint.rows_out, Ordering::Relaxed);
        self.used_rows.store(checkpoint.used_rows, Ordering::Relaxed);
        self.filtered_rows.store(checkpoint.filtered_rows, Ordering::Relaxed);
        self.late_rows.store(checkpoint.late_rows, Ordering::Relaxed);
        self.between_rows.store(checkpoint.between_rows, Ordering::Relaxed);
        self.finished.store(checkpoint.has_ended, Ordering::Relaxed);
    }

    /// The counts as they are saved.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            rows_read: self.rows_in.load(Ordering::Relaxed),
            rows_out: self.rows_out.load(Ordering::Relaxed),
            used_rows: self.used_rows.load(Ordering::Relaxed),
            filtered_rows: self.filtered_rows.load(Ordering::Relaxed),
            late_rows: self.late_rows.load(Ordering::Relaxed),
            between_rows: self.between_rows.load(Ordering::Relaxed),
            has_ended: self.finished.load(Ordering::Relaxed),
            ..Checkpoint::default()
        }
    }

    fn read(&self, rows: usize, stamp: Stamp) {
        self.rows_in.fetch_add(rows as u64, Ordering::Relaxed);
        self.watermark.store(stamp.next_watermark, Ordering::Relaxed);
    }

    fn settle(&self, flight: &Flight) {
        self.used_rows.fetch_add(flight.arrived.used, Ordering::Relaxed);
        self.filtered_rows.fetch_add(flight.filtered, Ordering::Relaxed);
        self.late_rows.fetch_add(flight.arrived.late, Ordering::Relaxed);
        self.between_rows.fetch_add(flight.arrived.between, Ordering::Relaxed);
    }

    /// Notes that the pipeline has saved itself.
    pub(crate) fn saved(&self, bytes: usize, took: Duration) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.checkpoint_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.checkpoint_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Notes that so many bytes of state have gone to disk.
    pub(super) fn spilled(&self, bytes: u64) {
        self.spilled_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes over what an operator has counted and how many bytes it holds, since it was asked before.
    pub(super) fn operator(&self, before: (Counters, usize), now: (Counters, usize)) {
        let ((before, bytes_before), (now, bytes)) = (before, now);
        // Adding what is negative wraps around, and so comes out right.
        let add = |total: &AtomicU64, before: u64, now: u64| {
            total.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        };
        add(&self.late_partial_rows, before.late_partial_rows, now.late_partial_rows);
        add(&self.null_time_rows, before.null_time_rows, now.null_time_rows);
        add(&self.windows_closed, before.windows_closed, now.windows_closed);
        add(&self.windows_open, before.windows_open, now.windows_open);
        add(&self.forgotten_keys, before.forgotten_keys, now.forgotten_keys);
        add(&self.state_bytes, bytes_before as u64, bytes as u64);
    }
}
