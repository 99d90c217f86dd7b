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
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::StreamExt;

use crate::exec::context::{PipelineContext, task_with};
use crate::source::{Reader, ReplayPlan};

/// One pipeline at work: a reader and a plan that is driven batch by batch.
pub(super) struct Pipeline {
    /// None if there is nothing to read.
    reader: Option<Reader>,
    chain: SendableRecordBatchStream,
    context: Arc<PipelineContext>,
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
        context: PipelineContext,
        task: &Arc<TaskContext>,
    ) -> Result<Self> {
        let index = context.index;
        let counts = Arc::clone(&context.metrics.reader);
        let reader = replay.map(|replay| Reader::open(replay, index, counts, Arc::clone(task))).transpose()?;
        let task = task_with(task, context);
        let context = PipelineContext::of(&task)?;
        Ok(Self { reader, chain: plan.execute(index, task)?, context })
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
                // Stopping is not the end of the data: open windows stay unanswered.
                Step::WantsInput if stopped() => return Ok(None),
                Step::WantsInput => self.read().await?,
                Step::Ended => {
                    self.context.metrics.finished.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
            }
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
            Some((batch, stamp)) => self.context.push(batch, stamp),
            None => self.context.end(),
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
