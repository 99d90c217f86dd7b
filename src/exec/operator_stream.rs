//! A stateful operator at work: feeds it the batches that come up the plan and gives on what it makes.
//!
//! The first operator of a pipeline goes by the stamps of the source's batches. One over the results of windows goes
//! by their bounds: when the plan has done all that it can with a batch of the source, every window has come out that
//! could, and that is how far event time has come.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::checkpoint::Saved;
use crate::operator::{
    Counters, Missed, Operator, ResultTime, SavedPiece, Stamp, TimedRows, WATERMARK_MAX, WATERMARK_MIN,
    watermark_behind,
};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_err};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{DiskManager, TaskContext};
use datafusion::physical_plan::{ExecutionPlan, RecordBatchStream, SendableRecordBatchStream};
use futures::{Stream, StreamExt};

use super::context::PipelineContext;
use super::find;
use super::flight::Arrived;
use super::memory::{account, reserve};
use super::merge::Merge;
use super::operator::OperatorExec;
use super::scan::StreamScanExec;
use super::source_rows::SourceRows;

/// The output of a hosted operator.
pub(super) struct OperatorStream {
    schema: SchemaRef,
    operator: Box<dyn Operator>,
    rows: Option<SourceRows>,
    /// Rows of the source that were late for some of their windows, where a row may come several times.
    late_for_some: u64,
    follower: Option<Follower>,
    merge: Option<Merge>,
    pipeline: Arc<PipelineContext>,
    input: SendableRecordBatchStream,
    output: VecDeque<RecordBatch>,
    scratch: Vec<RecordBatch>,
    /// What the pipeline's counts have of this operator.
    counted: (Counters, usize),
    account: MemoryReservation,
    disk: Arc<DiskManager>,
    name: &'static str,
    stage: usize,
    finished: bool,
}

impl OperatorStream {
    /// Executes a node for a pipeline.
    pub(super) fn open(node: &OperatorExec, partition: usize, task: Arc<TaskContext>) -> Result<Self> {
        let (spec, pipeline) = (node.spec(), PipelineContext::of(&task)?);
        let name = spec.name();
        let wants_times = spec.forgets() || reads_endless(node.input());
        let mut operator = match spec.time().filter(|_| node.stage() == 0 && wants_times) {
            Some(time) => Box::new(TimedRows::new(spec.build()?, time)),
            None => spec.build()?,
        };
        if let Some(SourceRows::Numbered(_)) = node.rows() {
            operator.missed().want();
        }
        let (stage, mut follower) = (node.stage(), Follower::of(node));
        let mut merge = Merge::of(node, &pipeline, &task);
        if let Some(saved) = pipeline.take_restored(stage) {
            operator.restore(&saved.snapshot)?;
            follower.iter_mut().for_each(|follower| follower.reached = saved.reached);
            if let (Some(merge), Some(saved)) = (&mut merge, saved.merge) {
                merge.restore(saved);
            }
        }
        Ok(Self {
            schema: spec.schema(),
            follower,
            rows: node.rows(),
            late_for_some: operator.counters().late_partial_rows,
            merge,
            pipeline,
            account: account(&task, format!("{name}[{partition}]"), operator.can_spill()),
            disk: Arc::clone(&task.runtime_env().disk_manager),
            operator,
            input: node.input().execute(partition, task)?,
            output: VecDeque::new(),
            scratch: vec![],
            counted: (Counters::default(), 0),
            name,
            stage,
            finished: false,
        })
    }

    /// Saves the operator, if that is asked for: the plan has done all that it can with what was pushed.
    fn save(&mut self) -> Result<()> {
        if self.pipeline.wants_saved() {
            let reached = self.follower.as_ref().map_or(WATERMARK_MIN, |follower| follower.reached);
            let merge = self.save_merge()?;
            self.pipeline.save(self.stage, Saved { reached, snapshot: self.operator.snapshot()?, merge });
        }
        Ok(())
    }

    /// The rows have ended: all that is left to save is what other pipelines still need.
    fn save_end(&mut self) -> Result<()> {
        if self.pipeline.saves() {
            let merge = self.save_merge()?;
            self.pipeline.save(self.stage, Saved { reached: WATERMARK_MAX, snapshot: vec![], merge });
        }
        Ok(())
    }

    fn save_merge(&mut self) -> Result<Option<SavedPiece>> {
        let (index, part) = (self.pipeline.index, self.pipeline.part());
        self.merge.as_mut().map(|merge| merge.save(index, part)).transpose()
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let stamp = match &self.follower {
            Some(follower) => follower.stamp(self.pipeline.stamp(), follower.reached),
            None => self.pipeline.stamp(),
        };
        match self.rows {
            Some(rows) => self.account(rows, batch, stamp)?,
            None => self.operator.push(batch, stamp, &mut self.scratch)?,
        }
        self.give_on(stamp.next_watermark)
    }

    /// Pushes rows and tells what has become of each.
    fn account(&mut self, rows: SourceRows, batch: &RecordBatch, stamp: Stamp) -> Result<()> {
        let before = self.operator.counters();
        let (batch, numbers) = rows.take(batch)?;
        self.operator.push(&batch, stamp, &mut self.scratch)?;
        let arrived = Arrived::since(before, self.operator.counters(), batch.num_rows())?;
        let missed = self.operator.missed().take();
        match numbers {
            None => self.pipeline.arrived(arrived, missed),
            Some(numbers) => {
                let (arrived, missed) = Arrived::of_source(numbers.values(), &missed);
                self.late_for_some += missed.iter().filter(|missed| missed.missed == Missed::Some).count() as u64;
                self.pipeline.arrived(arrived, missed);
            }
        }
        Ok(())
    }

    /// Moves the event time of results on, if the plan has done all that it can with the source's batch. Whether there
    /// is anything to give on.
    fn advance(&mut self) -> Result<bool> {
        let Some(follower) = self.follower.as_mut().filter(|_| self.pipeline.wants_input()) else { return Ok(false) };
        let stamp = self.pipeline.stamp();
        let watermark = watermark_behind(&follower.bounds, stamp.next_watermark);
        if watermark <= follower.reached {
            return Ok(false);
        }
        let stamp = follower.stamp(stamp, watermark);
        follower.reached = watermark;
        self.operator.push(&follower.nothing, stamp, &mut self.scratch)?;
        self.give_on(watermark)?;
        let gives = !self.output.is_empty() || self.more()?;
        if gives {
            // What comes next wants its turn before the plan asks again.
            self.pipeline.take_wants_input();
        }
        Ok(gives)
    }

    fn finish(&mut self) -> Result<()> {
        self.finished = true;
        self.operator.finish(&mut self.scratch)?;
        self.give_on(WATERMARK_MAX)?;
        self.save_end()
    }

    fn give_on(&mut self, watermark: i64) -> Result<()> {
        if self.merge.is_none() {
            self.output.extend(self.scratch.drain(..));
            return self.count();
        }
        self.hand_over()?;
        while self.operator.more(&mut self.scratch)? {
            self.hand_over()?;
        }
        if let Some(merge) = &mut self.merge {
            merge.close(self.pipeline.index, watermark)?;
            self.output.extend(merge.more()?.into_iter().flatten());
        }
        self.count()
    }

    /// Hands what has been made of windows to the merger.
    fn hand_over(&mut self) -> Result<()> {
        let Some(merge) = &mut self.merge else { return Ok(()) };
        let spilled = merge.hand_over(self.pipeline.index, std::mem::take(&mut self.scratch))?;
        self.pipeline.metrics.spilled(spilled);
        Ok(())
    }

    /// Gives on more of what is due, if there is any.
    fn more(&mut self) -> Result<bool> {
        if let Some(merge) = &mut self.merge {
            let rows = merge.more()?;
            let has_more = rows.is_some();
            self.output.extend(rows.into_iter().flatten());
            return Ok(has_more);
        }
        let has_more = self.operator.more(&mut self.scratch)?;
        if has_more {
            self.output.extend(self.scratch.drain(..));
            self.count()?;
        }
        Ok(has_more)
    }

    fn count(&mut self) -> Result<()> {
        self.reserve()?;
        let (bytes, mut counters) = (self.account.size(), self.operator.counters());
        if let Some(merge) = &self.merge {
            counters.windows_closed = merge.merged;
        }
        if let Some(SourceRows::Numbered(_)) = self.rows {
            counters.late_partial_rows = self.late_for_some;
        }
        if self.follower.is_some() {
            if counters.late_rows > 0 {
                return internal_err!("{} results came after their window had closed", counters.late_rows);
            }
            // That was a row of the source once.
            counters.null_time_rows = 0;
        }
        let (before, bytes_before) = std::mem::replace(&mut self.counted, (counters, bytes));
        self.pipeline.metrics.operator((before, bytes_before), (counters, bytes));
        Ok(())
    }

    /// Accounts for what the operator holds, which goes to disk as far as there is no memory for it.
    fn reserve(&mut self) -> Result<()> {
        let name = || format!("{} of pipeline {}", self.name, self.pipeline.index);
        let spilled = reserve(&self.account, &self.disk, self.operator.as_mut(), name)?;
        self.pipeline.metrics.spilled(spilled);
        Ok(())
    }
}

/// Whether rows of a stream without an end come.
fn reads_endless(input: &Arc<dyn ExecutionPlan>) -> bool {
    find::<StreamScanExec>(input).is_some_and(|scan| scan.replay().is_endless())
}

/// How far the event time of an operator over results has come.
struct Follower {
    bounds: Vec<ResultTime>,
    reached: i64,
    /// A batch without rows: it only moves time on.
    nothing: RecordBatch,
}

impl Follower {
    fn of(node: &OperatorExec) -> Option<Self> {
        let nothing = RecordBatch::new_empty(node.input().schema());
        (node.stage() > 0).then(|| Self { bounds: node.bounds(), reached: WATERMARK_MIN, nothing })
    }

    fn stamp(&self, of_source: Stamp, next_watermark: i64) -> Stamp {
        Stamp { watermark: self.reached, next_watermark, ..of_source }
    }
}

impl Stream for OperatorStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(batch) = self.output.pop_front() {
                return Poll::Ready(Some(Ok(batch)));
            }
            match self.more() {
                Ok(true) => continue,
                Ok(false) if self.finished => return Poll::Ready(None),
                Ok(false) => {}
                Err(error) => {
                    self.finished = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
            let worked = match self.input.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(batch))) => self.push(&batch),
                Poll::Ready(Some(Err(error))) => Err(error),
                Poll::Ready(None) => self.finish(),
                Poll::Pending => match self.advance() {
                    Ok(true) => continue,
                    Ok(false) => match self.save() {
                        Ok(()) => return Poll::Pending,
                        error => error,
                    },
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = worked {
                self.finished = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl RecordBatchStream for OperatorStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
