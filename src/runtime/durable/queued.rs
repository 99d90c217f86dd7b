//! Pipelines that save themselves under the strategy `single_queue`: a task reads and another one writes, with queues between
//! them and the one that processes, which is where a pipeline saves itself.
//!
//! ```text
//!   reader ─ queue ─▶ process, save ─ queue ─▶ writer
//! ```
//!
//! Rows in the first queue have not been processed, and so are read again after a crash; what is in the second one is
//! written before its file is closed. Nobody else asks for the state, so there is no lock around it.

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{Result, internal_datafusion_err};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::operator::WATERMARK_MIN;
use crate::runtime::single_queue::QUEUED;
use crate::runtime::work::Rows;
use crate::sink::{Writer, Written};
use crate::source::{Due, Position, Read};

/// Rows of a pipeline.
pub(super) enum Input {
    /// Read by the task that processes them.
    Direct(Box<Rows>),
    /// Read by another one.
    Queued(Box<QueuedRows>),
}

impl Input {
    /// Of rows that are handed over so many at once, if they are.
    pub(super) fn new(rows: Rows, handoff_rows: Option<usize>) -> Self {
        match handoff_rows {
            None => Self::Direct(Box::new(rows)),
            Some(handoff_rows) => Self::Queued(Box::new(QueuedRows::of(rows, handoff_rows))),
        }
    }

    /// As [`Rows::next`].
    pub(super) async fn next(&mut self) -> Result<Option<Read>> {
        match self {
            Self::Direct(rows) => rows.next().await,
            Self::Queued(rows) => rows.next().await,
        }
    }

    /// Where whoever read what was given last was before it.
    pub(super) fn position(&self) -> Position {
        match self {
            Self::Direct(rows) => rows.position(),
            Self::Queued(rows) => rows.position.clone(),
        }
    }
}

/// What the reader hands over.
struct Handoff {
    read: Read,
    due: Option<Due>,
    /// Where the reader was before, with the first rows of what was read at once.
    position: Option<Position>,
}

/// Rows that another task reads.
pub(super) struct QueuedRows {
    handoffs: Receiver<Handoff>,
    /// None when it has been asked why it ended.
    reader: Option<SpawnedTask<Result<()>>>,
    /// The rows that were given last, until their effects have been written.
    due: Option<Due>,
    position: Position,
}

impl QueuedRows {
    fn of(rows: Rows, handoff_rows: usize) -> Self {
        let (queue, handoffs) = channel(QUEUED);
        let position = rows.position();
        let reader = Some(SpawnedTask::spawn(read(rows, queue, handoff_rows)));
        Self { handoffs, reader, due: None, position }
    }

    async fn next(&mut self) -> Result<Option<Read>> {
        if let Some(due) = self.due.take() {
            due.written();
        }
        if let Some(Handoff { read, due, position }) = self.handoffs.recv().await {
            self.due = due;
            if let Some(position) = position {
                self.position = position;
            }
            return Ok(Some(read));
        }
        if let Some(reader) = self.reader.take() {
            reader.join_unwind().await.map_err(|_| internal_datafusion_err!("the reader was cancelled"))??;
        }
        Ok(None)
    }
}

/// Reads into the queue, until nobody takes from it any more.
async fn read(mut rows: Rows, queue: Sender<Handoff>, handoff_rows: usize) -> Result<()> {
    let mut watermark = WATERMARK_MIN;
    while let Some(read) = rows.next().await? {
        let next_watermark = read.stamp.next_watermark;
        let mut due = rows.take_due();
        let mut position = Some(rows.position());
        for read in read.parts(handoff_rows, watermark) {
            let due = due.as_mut().map(|due| due.take(read.batch.num_rows() as u64));
            if queue.send(Handoff { read, due, position: position.take() }).await.is_err() {
                return Ok(());
            }
        }
        watermark = next_watermark;
    }
    Ok(())
}

/// A task that writes, and gives the writer back when all is written.
type WriterTask = SpawnedTask<Result<Box<dyn Writer>>>;

/// A writer in a task of its own.
pub(super) struct QueuedWriter {
    writing: Option<(Sender<RecordBatch>, WriterTask)>,
    /// The writer when all has been written.
    done: Option<Box<dyn Writer>>,
}

impl QueuedWriter {
    pub(super) fn of(mut writer: Box<dyn Writer>) -> Self {
        let (queue, mut batches) = channel(QUEUED);
        let task = SpawnedTask::spawn(async move {
            while let Some(batch) = batches.recv().await {
                writer.write(batch).await?;
            }
            Ok(writer)
        });
        Self { writing: Some((queue, task)), done: None }
    }

    /// Waits until all has been written.
    async fn drain(&mut self) -> Result<&mut Box<dyn Writer>> {
        if let Some((queue, task)) = self.writing.take() {
            drop(queue);
            let writer =
                task.join_unwind().await.map_err(|_| internal_datafusion_err!("the writer was cancelled"))??;
            self.done = Some(writer);
        }
        self.done.as_mut().ok_or_else(|| internal_datafusion_err!("a writer that has failed"))
    }
}

#[async_trait]
impl Writer for QueuedWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        match &self.writing {
            Some((queue, _)) if queue.send(batch).await.is_ok() => Ok(()),
            // It has ended, and says why.
            _ => self.drain().await.map(|_| ()),
        }
    }

    async fn finish(&mut self) -> Result<()> {
        self.drain().await?.finish().await
    }

    async fn close(&mut self) -> Result<Written> {
        self.drain().await?.close().await
    }
}
