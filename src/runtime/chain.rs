//! The chain of a pipeline's operators, driven batch by batch.
//!
//! It is a DataFusion plan whose leaf holds at most one batch. Polling the plan until its leaf asks for more is the whole
//! of "process": at that moment every effect of every batch pushed so far is in an operator's state or has come out.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use datafusion::arrow::array::RecordBatch;
use datafusion::common::{Result, internal_err};
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::StreamExt;
use sync_wrapper::SyncWrapper;

use crate::checkpoint::Saved;
use crate::error::Error;
use crate::exec::context::{PipelineContext, task_with};
use crate::source::{Read, ReplayPlan};

use super::ledger::ledger_rows;
use super::run::LedgerPart;
use super::work::Work;

/// A plan at work for one pipeline.
pub(super) struct Chain {
    plan: SyncWrapper<SendableRecordBatchStream>,
    context: Arc<PipelineContext>,
    /// What the pipeline reads; none if there is nothing to read.
    replay: Option<Arc<ReplayPlan>>,
    /// Where late rows go.
    ledger: Option<LedgerPart>,
    /// Whether all rows have been pushed: a LIMIT may need fewer.
    has_ended: bool,
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.context.abandon();
    }
}

/// What the chain says when it is stepped.
pub(super) enum Step {
    /// Rows to write.
    Output(RecordBatch),
    /// It has done all that it can with what was pushed.
    WantsInput,
    /// Nothing comes out any more.
    Ended,
}

impl Chain {
    /// The chain of a pipeline that was taken.
    pub(super) fn open(work: &Work, context: PipelineContext) -> Result<Self> {
        let index = context.index;
        let task = task_with(&work.task, context);
        Ok(Self {
            context: PipelineContext::of(&task)?,
            plan: SyncWrapper::new(work.plan.execute(index, task)?),
            replay: work.replay().cloned(),
            ledger: work.ledger()?,
            has_ended: false,
        })
    }

    /// What its nodes share.
    pub(super) fn context(&self) -> &PipelineContext {
        &self.context
    }

    /// Hands the next rows to the chain, or tells it that there are no more. It must have asked for them.
    pub(super) fn push(&mut self, read: Option<Read>) {
        match read {
            Some(Read { batch, stamp, origin, .. }) => self.context.push(batch, stamp, origin),
            None => {
                self.has_ended = true;
                self.context.end();
            }
        }
    }

    /// What the chain makes of what was pushed.
    pub(super) async fn step(&mut self) -> Result<Step> {
        loop {
            match poll_fn(|cx| self.poll_step(cx)).await? {
                Step::Output(batch) if batch.num_rows() == 0 => {}
                Step::Output(batch) => {
                    self.context.metrics.rows_out.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                    return Ok(Step::Output(batch));
                }
                Step::WantsInput => {
                    self.settle().await?;
                    return Ok(Step::WantsInput);
                }
                Step::Ended => {
                    self.settle().await?;
                    self.check_all_read()?;
                    self.context.metrics.finished.store(true, Ordering::Relaxed);
                    return Ok(Step::Ended);
                }
            }
        }
    }

    /// What the operators save. The chain must have asked for input, and done with what it was given.
    ///
    /// # Errors
    /// An operator that cannot save itself.
    pub(super) async fn save(&mut self) -> Result<Vec<Saved>> {
        self.context.want_saved();
        match poll_fn(|cx| self.poll_step(cx)).await? {
            Step::WantsInput => Ok(self.context.take_saved()),
            Step::Output(_) | Step::Ended => internal_err!("a pipeline that waits for rows gives some"),
        }
    }

    /// The same of a chain that has ended.
    pub(super) fn saved_at_end(&self) -> Vec<Saved> {
        self.context.take_saved()
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step>> {
        match self.plan.get_mut().poll_next_unpin(cx) {
            Poll::Ready(Some(batch)) => Poll::Ready(batch.map(Step::Output)),
            Poll::Ready(None) => Poll::Ready(Ok(Step::Ended)),
            Poll::Pending if self.context.take_wants_input() => Poll::Ready(Ok(Step::WantsInput)),
            // Something else is awaited, like the table of a lookup.
            Poll::Pending => Poll::Pending,
        }
    }

    /// The plan is done with the batch: its rows are accounted for, and the late ones written.
    async fn settle(&mut self) -> Result<()> {
        let late = self.context.settle()?;
        if let (Some(late), Some(part), Some(replay)) = (late, &self.ledger, &self.replay) {
            let rows = ledger_rows(late, replay, &part.schema)?;
            part.ledger.write(part.first + self.context.index, self.context.part(), rows).await?;
        }
        Ok(())
    }

    /// At the end of the data, as many rows have been read as its files say that there are.
    ///
    /// # Errors
    /// Rows that were not read, or twice.
    fn check_all_read(&self) -> Result<()> {
        let Some(replay) = &self.replay else { return Ok(()) };
        let piece = replay.pieces().get(self.context.index);
        let read = self.context.metrics.rows_in.load(Ordering::Relaxed);
        match piece.and_then(|piece| piece.rows).filter(|expected| self.has_ended && *expected != read) {
            Some(expected) => {
                let error = Error::data(format!("{expected} rows are said to be there, and {read} are"));
                let name = piece.map(|piece| replay.piece_name(piece)).unwrap_or_default();
                Err(error.in_file(name).help("the file is damaged: write it again, or leave it out of LOCATION").into())
            }
            None => Ok(()),
        }
    }
}
