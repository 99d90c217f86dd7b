//! The loop of a pipeline: read → process → write.
//!
//! The chain of operators is a DataFusion plan whose leaf holds at most one batch. Polling the plan until its leaf
//! asks for more is the whole of "process": at that moment every effect of every batch read so far is in an
//! operator's state or has been given to the writer.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use datafusion::arrow::array::RecordBatch;
use datafusion::common::{Result, internal_err};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::StreamExt;

use crate::error::Error;
use crate::exec::context::{PipelineContext, task_with};
use crate::source::{Read, Reader, ReplayPlan};

use super::ledger::ledger_rows;
use super::run::LedgerPart;

/// One pipeline at work: a reader and a plan that is driven batch by batch.
pub(super) struct Pipeline {
    /// None if there is nothing to read.
    reader: Option<Reader>,
    /// What the reader reads.
    replay: Option<Arc<ReplayPlan>>,
    /// Where late rows go.
    ledger: Option<LedgerPart>,
    chain: SendableRecordBatchStream,
    context: Arc<PipelineContext>,
    /// Whether the reader has given all of its rows: a LIMIT may need fewer.
    has_ended: bool,
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.context.abandon();
    }
}

/// What the chain says when it is stepped.
enum Step {
    Output(RecordBatch),
    WantsInput,
    Ended,
}

impl Pipeline {
    /// Opens pipeline `context.index` of `plan`.
    pub(super) fn open(
        plan: &Arc<dyn ExecutionPlan>,
        replay: Option<&Arc<ReplayPlan>>,
        ledger: Option<LedgerPart>,
        context: PipelineContext,
        task: &Arc<TaskContext>,
    ) -> Result<Self> {
        let index = context.index;
        if ledger.is_none() && replay.is_some_and(|replay| replay.keeps_origin()) {
            let error = Error::sql("streamlines.late is set, and only a Job writes late rows");
            return Err(error.help("Job::new(query).await?.run(&sink).await?, or RESET streamlines.late").into());
        }
        let counts = Arc::clone(&context.metrics.reader);
        let reader = replay.map(|replay| Reader::open(replay, index, counts, Arc::clone(task))).transpose()?;
        let task = task_with(task, context);
        let context = PipelineContext::of(&task)?;
        Ok(Self {
            reader,
            replay: replay.cloned(),
            ledger,
            chain: plan.execute(index, task)?,
            context,
            has_ended: false,
        })
    }

    /// The next output batch; none at the end, or when the run was told to stop.
    pub(super) async fn next(&mut self, stopped: impl Fn() -> bool) -> Result<Option<RecordBatch>> {
        loop {
            match self.step().await? {
                Step::Output(batch) if batch.num_rows() == 0 => {}
                Step::Output(batch) => {
                    self.context.metrics.rows_out.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                    return Ok(Some(batch));
                }
                Step::WantsInput => {
                    self.settle().await?;
                    // Stopping is not the end of the data: open windows stay unanswered.
                    if stopped() {
                        return Ok(None);
                    }
                    self.read().await?;
                }
                Step::Ended => {
                    self.settle().await?;
                    self.check_all_read()?;
                    self.context.metrics.finished.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
            }
        }
    }

    /// The plan is done with the batch: its rows are accounted for, and the late ones written.
    async fn settle(&mut self) -> Result<()> {
        let late = self.context.settle()?;
        if let (Some(late), Some(part), Some(replay)) = (late, &self.ledger, &self.replay) {
            let rows = ledger_rows(late, replay, &part.schema)?;
            part.ledger.write(part.first + self.context.index, rows).await?;
        }
        Ok(())
    }

    /// At the end of the data, as many rows have been read as its files say that there are.
    ///
    /// # Errors
    /// Rows that were not read, or twice.
    fn check_all_read(&self) -> Result<()> {
        let expected = self.replay.as_ref().and_then(|replay| replay.pieces().get(self.context.index)?.rows);
        let read = self.context.metrics.rows_in.load(Ordering::Relaxed);
        match expected.filter(|expected| self.has_ended && *expected != read) {
            Some(expected) => internal_err!("{read} rows were read of {expected} that the files have"),
            None => Ok(()),
        }
    }

    async fn read(&mut self) -> Result<()> {
        let Some(reader) = &mut self.reader else {
            self.context.end();
            return Ok(());
        };
        // Files are read without waiting, so it is here that other pipelines of the same thread get their turn.
        tokio::task::consume_budget().await;
        match reader.next().await? {
            Some(Read { batch, stamp, origin }) => self.context.push(batch, stamp, origin),
            None => {
                self.has_ended = true;
                self.context.end();
            }
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<Step> {
        poll_fn(|cx| self.poll_step(cx)).await
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step>> {
        match self.chain.poll_next_unpin(cx) {
            Poll::Ready(Some(batch)) => Poll::Ready(batch.map(Step::Output)),
            Poll::Ready(None) => Poll::Ready(Ok(Step::Ended)),
            Poll::Pending if self.context.take_wants_input() => Poll::Ready(Ok(Step::WantsInput)),
            // Something else is awaited, like the table of a lookup.
            Poll::Pending => Poll::Pending,
        }
    }
}
