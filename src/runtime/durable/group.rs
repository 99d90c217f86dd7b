//! The pipelines of one stream, in a job that saves itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use parking_lot::Mutex;

use crate::checkpoint::{Checkpoint, CheckpointStore, Interval};
use crate::exec::context::PipelineContext;
use crate::runtime::boundary::PipelinesExec;
use crate::runtime::chain::Chain;
use crate::runtime::run::{LedgerPart, Run};
use crate::runtime::work::Work;
use crate::sink::{Epochs, InEpoch, Writer, Written};
use crate::source::Position;

use super::pipeline::Pipeline;
use super::queued::{Input, QueuedWriter};

/// What they share.
pub(super) struct Group {
    store: Arc<CheckpointStore>,
    /// The number of the first of them among all pipelines of the job.
    first: usize,
    pipelines: usize,
    epochs: Arc<dyn Epochs>,
    /// Where late rows go.
    ledger: Option<LedgerPart>,
    schema: SchemaRef,
    interval: Interval,
    /// How many rows go at once from the task that reads to the one that processes; none if one task does both.
    handoff_rows: Option<usize>,
    /// Where pipelines rely on each other: what each goes on from.
    begins: Mutex<Vec<Checkpoint>>,
    /// Pipelines that had ended before.
    ended: AtomicUsize,
}

impl Group {
    /// The pipelines of a plan's node, which are numbered from `first` on, and write into `epochs`.
    pub(super) fn new(
        store: &Arc<CheckpointStore>,
        first: usize,
        pipelines: &PipelinesExec,
        epochs: Arc<dyn Epochs>,
        interval: Interval,
    ) -> Self {
        Self {
            store: Arc::clone(store),
            first,
            pipelines: pipelines.pipelines(),
            epochs,
            ledger: pipelines.runs().ledger(),
            schema: pipelines.rows_schema(),
            interval,
            handoff_rows: pipelines.handoff_rows(),
            begins: Mutex::default(),
            ended: AtomicUsize::new(0),
        }
    }

    pub(super) fn first(&self) -> usize {
        self.first
    }

    pub(super) fn store(&self) -> &CheckpointStore {
        &self.store
    }

    pub(super) fn interval(&self) -> Interval {
        self.interval
    }

    /// The job begins.
    ///
    /// # Errors
    /// A place that holds output of others.
    pub(super) async fn begin(&self) -> Result<()> {
        self.epochs.begin().await?;
        match self.late_epochs() {
            Some(epochs) => epochs.begin().await,
            None => Ok(()),
        }
    }

    /// Whether all of them had ended before this run.
    pub(super) fn had_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed) == self.pipelines
    }

    /// The last epoch of each of them.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub(super) async fn last_epochs(&self) -> Result<Vec<u64>> {
        let mut epochs = vec![];
        for pipeline in self.first..self.first + self.pipelines {
            epochs.push(self.store.epochs(pipeline).await?.last().copied().unwrap_or_default());
        }
        Ok(epochs)
    }

    /// A writer of what a pipeline gives in an epoch, and is to be visible after it.
    ///
    /// # Errors
    /// Columns that the format cannot hold.
    pub(super) fn writer(&self, pipeline: usize, epoch: u64) -> Result<Box<dyn Writer>> {
        let epoch = InEpoch { pipeline: self.first + pipeline, epoch, run: self.store.run() };
        let writer = self.epochs.staging_writer(epoch, Arc::clone(&self.schema))?;
        Ok(if self.handoff_rows.is_some() { Box::new(QueuedWriter::of(writer)) } else { writer })
    }

    /// Stages the late rows of a pipeline's epoch, and gives the names of their files.
    ///
    /// # Errors
    /// A place that cannot be written.
    pub(super) async fn stage_late_rows(&self, pipeline: usize) -> Result<Vec<String>> {
        match &self.ledger {
            Some(LedgerPart { ledger, first, .. }) => ledger.stage(first + pipeline).await,
            None => Ok(vec![]),
        }
    }

    /// Makes visible what a checkpoint names.
    ///
    /// # Errors
    /// A place that cannot be written.
    pub(super) async fn publish(&self, checkpoint: &Checkpoint) -> Result<()> {
        for file in &checkpoint.files {
            self.epochs.publish(file).await?;
        }
        if let Some(epochs) = self.late_epochs() {
            for file in &checkpoint.late_files {
                epochs.publish(file).await?;
            }
        }
        Ok(())
    }

    fn late_epochs(&self) -> Option<Arc<dyn Epochs>> {
        match &self.ledger {
            Some(part) => part.ledger.epochs(),
            None => None,
        }
    }

    /// Where pipelines hand over what they know of windows, all of them go on together.
    pub(super) async fn restore_mergers(&self, run: &Run) -> Result<()> {
        if run.mergers().iter().all(Option::is_none) {
            return Ok(());
        }
        run.mergers().iter().flatten().for_each(|merger| merger.lock().remember());
        let begins = self.store.latest_of_all(self.first..self.first + self.pipelines).await?;
        for (pipeline, checkpoint) in begins.iter().enumerate() {
            for (merger, saved) in run.mergers().iter().zip(&checkpoint.operators) {
                if let Some((merger, saved)) = merger.as_ref().zip(saved.merge.clone()) {
                    merger.lock().restore(pipeline, checkpoint.epoch, saved)?;
                }
            }
        }
        *self.begins.lock() = begins;
        Ok(())
    }

    /// What a pipeline goes on from.
    async fn begin_of(&self, pipeline: usize) -> Result<Checkpoint> {
        if let Some(begin) = self.begins.lock().get_mut(pipeline) {
            return Ok(std::mem::take(begin));
        }
        Ok(self.store.latest(self.first + pipeline).await?.unwrap_or_default())
    }

    /// Runs one pipeline after the other until none is left to take.
    pub(super) async fn work(&self, work: Work) -> Result<Written> {
        let mut total = Written::default();
        while let Some(context) = work.take().filter(|_| !work.is_stopped()) {
            total.add(self.pipeline(&work, context).await?);
        }
        Ok(total)
    }

    /// Where to read on. For a ledger, what ends is read again: which row has set a watermark knows only who has read it.
    fn position(&self, work: &Work, saved: Position) -> Position {
        let is_to_read_again = self.ledger.is_some() && work.replay().is_some_and(|replay| !replay.is_endless());
        if is_to_read_again { Position::default() } else { saved }
    }

    async fn pipeline(&self, work: &Work, context: PipelineContext) -> Result<Written> {
        let index = context.index;
        let number = self.first + index;
        let saved = self.store.fenced(number, self.begin_of(index).await?).await?;
        self.epochs.recover(number, saved.epoch, &saved.files).await?;
        if let (Some(epochs), Some(LedgerPart { first, .. })) = (self.late_epochs(), &self.ledger) {
            epochs.recover(first + index, saved.epoch, &saved.late_files).await?;
        }
        context.metrics.restore(&saved);
        if saved.has_ended {
            self.ended.fetch_add(1, Ordering::Relaxed);
            return Ok(Written::default());
        }
        let mut rows = work.rows(&context)?;
        rows.restore(saved.rows_read, &self.position(work, saved.position)).await?;
        context.restore(saved.operators);
        let input = Input::new(rows, self.handoff_rows);
        Pipeline::new(self, Chain::open(work, context)?, saved.epoch, saved.rows_read).run(work, input).await
    }
}
