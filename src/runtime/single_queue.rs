//! The strategy `single_queue`: one task reads, one coordinator processes, one writer writes, with queues between them.
//!
//! ```text
//!   reader ─ queue ─▶ coordinator ─ queue ─▶ writer
//! ```
//!
//! Rows are handed over in units of `streamlines.handoff_rows`, and the coordinator takes a lock for each: with 1, each
//! record goes through the queue, and the lock, by itself.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::common::runtime::SpawnedTask;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use futures::stream::BoxStream;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::exec::context::PipelineContext;
use crate::operator::WATERMARK_MIN;
use crate::source::{Due, Read};

use super::chain::{Chain, Step};
use super::strategy::Strategy;
use super::work::Work;
use super::written::{Writing, when_written};

/// How many units, and how many batches of output, may wait.
pub(super) const QUEUED: usize = 64;

#[derive(Debug)]
pub(super) struct SingleQueue {
    /// Rows of a handoff.
    pub(super) handoff_rows: usize,
}

impl fmt::Display for SingleQueue {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "single_queue, handoff_rows={}", self.handoff_rows)
    }
}

impl Strategy for SingleQueue {
    fn workers(&self, _: usize) -> usize {
        1
    }

    fn handoff_rows(&self) -> Option<usize> {
        Some(self.handoff_rows)
    }

    fn rows(&self, work: Work) -> BoxStream<'static, Result<RecordBatch>> {
        let handoff_rows = self.handoff_rows;
        let mut builder = RecordBatchReceiverStreamBuilder::new(work.plan.schema(), QUEUED);
        let (writer, writing) = (builder.tx(), Arc::<Writing>::default());
        let is_timed = work.schedule.is_some();
        let told = Arc::clone(&writing);
        builder.spawn(async move {
            let (queue, handoffs) = channel(QUEUED);
            let reader = SpawnedTask::spawn(read(work.clone(), queue, handoff_rows));
            coordinate(work, handoffs, writer, &told).await?;
            reader.join_unwind().await.unwrap_or(Ok(()))
        });
        match is_timed {
            true => when_written(builder.build(), writing),
            false => builder.build(),
        }
    }
}

/// What the reader hands to the coordinator.
enum Handoff {
    /// The rows that follow are those of this pipeline.
    Begin(PipelineContext),
    /// Rows, or the end of them, and when they were due.
    Rows(Option<Read>, Option<Due>),
}

/// Reads pipeline after pipeline into the queue, until nobody takes from it any more.
async fn read(work: Work, queue: Sender<Handoff>, handoff_rows: usize) -> Result<()> {
    while let Some(context) = work.take() {
        let (mut input, mut watermark) = (work.rows(&context)?, WATERMARK_MIN);
        if queue.send(Handoff::Begin(context)).await.is_err() {
            return Ok(());
        }
        while let Some(read) = input.next().await? {
            let next_watermark = read.stamp.next_watermark;
            let mut due = input.take_due();
            for part in read.parts(handoff_rows, watermark) {
                let due = due.as_mut().map(|due| due.take(part.batch.num_rows() as u64));
                if queue.send(Handoff::Rows(Some(part), due)).await.is_err() {
                    return Ok(());
                }
            }
            watermark = next_watermark;
        }
        if work.is_stopped() || queue.send(Handoff::Rows(None, None)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Processes what comes out of the queue, one handoff at a time, and hands the output to the writer.
async fn coordinate(
    work: Work,
    mut handoffs: Receiver<Handoff>,
    writer: Sender<Result<RecordBatch>>,
    writing: &Writing,
) -> Result<()> {
    let state = Mutex::new(None::<Chain>);
    let mut sent = 0;
    while let Some(handoff) = handoffs.recv().await {
        let mut state = state.lock().await;
        match (handoff, state.as_mut()) {
            (Handoff::Begin(context), _) => *state = Some(Chain::open(&work, context)?),
            (Handoff::Rows(rows, due), Some(chain)) => {
                chain.push(rows);
                while let Step::Output(batch) = chain.step().await? {
                    sent += 1;
                    if writer.send(Ok(batch)).await.is_err() {
                        return Ok(());
                    }
                }
                if let Some(due) = due {
                    writing.processed(sent, due);
                }
            }
            (Handoff::Rows(..), None) => {}
        }
        if work.is_stopped() {
            return Ok(());
        }
    }
    Ok(())
}
