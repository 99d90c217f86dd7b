//! Pipelines that save themselves, and go on from where they were when the job is run again.
//!
//! ```text
//!   worker: take a pipeline ─▶ its last checkpoint ─▶ { read → process → stage } … stage ─▶ save ─▶ make visible …
//! ```
//!
//! A pipeline's output is staged, then it saves itself together with the names of what it has staged, then that becomes
//! visible. Whenever a job is killed, one of the three is where it goes on: what was staged and not saved is taken
//! away, what was saved and not visible becomes visible. No pipeline waits for another one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use tokio::task::JoinSet;

use crate::checkpoint::{Checkpoint, CheckpointStore, Interval};
use crate::config::StreamlinesOptions;
use crate::error::Error;
use crate::exec::context::{PipelineContext, PipelineMetrics};
use crate::sink::{Epochs, Sink, Writer, Written};

use super::boundary::PipelinesExec;
use super::chain::{Chain, Step};
use super::work::{Rows, Work};

/// What the pipelines of a job share.
struct Durable {
    store: CheckpointStore,
    epochs: Arc<dyn Epochs>,
    schema: SchemaRef,
    interval: Interval,
}

/// Runs the pipelines of a plan, each from its last checkpoint on. A stop saves all of them, with their open windows.
///
/// # Errors
/// What cannot be saved; a folder that holds checkpoints of another job, or that another run has; the first failure of a
/// pipeline, which ends the others: the next run goes on from their last checkpoints.
pub(super) async fn write(
    pipelines: &PipelinesExec,
    task: &Arc<TaskContext>,
    sink: &dyn Sink,
    options: &StreamlinesOptions,
) -> Result<Written> {
    let Some(epochs) = sink.epochs() else {
        let help =
            "write into a folder: --output out/ --format parquet, or COPY (SELECT …) TO 'out/' STORED AS PARQUET";
        let output = format!("checkpoints with output to {sink:?}, which cannot be written exactly once");
        return Err(Error::sql(output).help(help).into());
    };
    pipelines.check_saves(options)?;
    let job = pipelines.fingerprint(format!("{sink:?}"));
    let (store, is_new) = CheckpointStore::open(&options.checkpoint_dir, options.checkpoints_kept, &job).await?;
    if is_new {
        epochs.begin().await?;
        store.begin(&job).await?;
    }
    let interval = Interval::parse(&options.checkpoint_interval)?;
    let durable = Arc::new(Durable { store, epochs, schema: pipelines.rows_schema(), interval });
    let mut workers = JoinSet::new();
    for worker in 0..pipelines.workers() {
        let (durable, work) = (Arc::clone(&durable), pipelines.work(worker, task));
        workers.spawn(async move { durable.work(work).await });
    }
    let mut total = Written::default();
    while let Some(ended) = workers.join_next().await {
        let written = ended.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))??;
        total.rows += written.rows;
        total.bytes += written.bytes;
    }
    Ok(total)
}

impl Durable {
    /// Runs one pipeline after the other until none is left to take.
    async fn work(&self, work: Work) -> Result<Written> {
        let mut total = Written::default();
        while let Some(context) = work.take().filter(|_| !work.is_stopped()) {
            let written = self.run(&work, context).await?;
            total.rows += written.rows;
            total.bytes += written.bytes;
        }
        Ok(total)
    }

    async fn run(&self, work: &Work, context: PipelineContext) -> Result<Written> {
        let index = context.index;
        let saved = self.store.latest(index).await?.unwrap_or_default();
        self.epochs.recover(index, saved.epoch, &saved.files).await?;
        context.metrics.restore(&saved);
        if saved.has_ended {
            return Ok(Written::default());
        }
        let mut rows = work.rows(&context)?;
        rows.pass_over(saved.rows_read).await?;
        context.restore(saved.operators);
        let metrics = Arc::clone(&context.metrics);
        let chain = Chain::open(work, context)?;
        let output = Output { index, epoch: saved.epoch + 1, writer: None, written: Written::default() };
        let mut pipeline =
            Pipeline { durable: self, chain, output, metrics, saved: Instant::now(), saved_rows: saved.rows_read };
        pipeline.run(work, &mut rows).await?;
        Ok(pipeline.output.written)
    }
}

/// A pipeline at work.
struct Pipeline<'a> {
    durable: &'a Durable,
    chain: Chain,
    output: Output,
    metrics: Arc<PipelineMetrics>,
    /// When it saved itself, and how many rows it had read then.
    saved: Instant,
    saved_rows: u64,
}

/// What it has written in this epoch.
struct Output {
    index: usize,
    epoch: u64,
    writer: Option<(String, Box<dyn Writer>)>,
    written: Written,
}

impl Pipeline<'_> {
    async fn run(&mut self, work: &Work, rows: &mut Rows) -> Result<()> {
        loop {
            match self.chain.step().await? {
                Step::Output(batch) => self.output.writer(self.durable)?.write(batch).await?,
                Step::WantsInput if work.is_stopped() => return self.save().await,
                Step::WantsInput => {
                    if self.durable.interval.is_over(self.saved.elapsed(), self.rows_read() - self.saved_rows) {
                        self.save().await?;
                    }
                    self.chain.push(rows.next().await?);
                }
                Step::Ended => return self.save().await,
            }
        }
    }

    fn rows_read(&self) -> u64 {
        self.metrics.rows_in.load(Ordering::Relaxed)
    }

    /// Ends the epoch.
    async fn save(&mut self) -> Result<()> {
        let Durable { store, epochs, .. } = self.durable;
        let files = self.output.close().await?;
        let counts = self.metrics.checkpoint();
        let operators = if counts.has_ended { vec![] } else { self.chain.save().await? };
        let checkpoint = Checkpoint { epoch: self.output.epoch, files, operators, ..counts };
        store.put(self.output.index, &checkpoint).await?;
        for file in &checkpoint.files {
            epochs.publish(file).await?;
        }
        self.output.epoch += 1;
        (self.saved, self.saved_rows) = (Instant::now(), checkpoint.rows_read);
        Ok(())
    }
}

impl Output {
    /// The writer of this epoch's file, which begins with the first rows.
    fn writer(&mut self, durable: &Durable) -> Result<&mut dyn Writer> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let file = durable.epochs.file(self.index, self.epoch);
                let writer = durable.epochs.staging_writer(&file, Arc::clone(&durable.schema))?;
                (file, writer)
            }
        };
        let (_, writer) = self.writer.insert(writer);
        Ok(writer.as_mut())
    }

    /// Stages the file of this epoch, if there is one.
    async fn close(&mut self) -> Result<Vec<String>> {
        let Some((file, mut writer)) = self.writer.take() else { return Ok(vec![]) };
        writer.finish().await?;
        let written = writer.close().await?;
        self.written.rows += written.rows;
        self.written.bytes += written.bytes;
        Ok(vec![file])
    }
}
