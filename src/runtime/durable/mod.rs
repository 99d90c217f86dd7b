//! Pipelines that save themselves, and go on from where they were when the job is run again.
//!
//! ```text
//!   worker: take a pipeline ─▶ its last checkpoint ─▶ { read → process → stage } … stage ─▶ save ─▶ make visible …
//! ```
//!
//! A pipeline's output is staged, then it saves itself together with the names of what it has staged, then that becomes
//! visible. Whenever a job is killed, one of the three is where it goes on: what was staged and not saved is taken
//! away, what was saved and not visible becomes visible. No pipeline waits for another one.

mod kept_rows;
mod pipeline;
mod queued;
#[cfg(test)]
mod simulation;
mod through;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::checkpoint::{Checkpoint, CheckpointStore, Fingerprint, Interval};
use crate::config::StreamlinesOptions;
use crate::confinement::{self, Access};
use crate::error::Error;
use crate::exec::context::PipelineContext;
use crate::sink::{Epochs, Sink, Written};

use super::boundary::PipelinesExec;
use super::chain::Chain;
use super::job::collect_boundaries;
use super::run::Run;
use super::work::Work;
use super::write::write_whole;
use kept_rows::KeptRows;
use pipeline::Pipeline;
use queued::Input;
use through::Through;

/// What the pipelines of a job share.
struct Durable {
    store: CheckpointStore,
    /// A number for what this run writes.
    run: u64,
    epochs: Arc<dyn Epochs>,
    schema: SchemaRef,
    interval: Interval,
    /// How many rows go at once from the task that reads to the one that processes; none if one task does both.
    handoff_rows: Option<usize>,
    /// Where pipelines rely on each other: what each goes on from.
    begins: Mutex<Vec<Checkpoint>>,
    /// Pipelines that had ended before.
    ended: AtomicUsize,
}

/// Runs the pipelines of a plan, each from its last checkpoint on, and writes the plan's rows into `sink`. A stop saves
/// all pipelines, with their open windows.
///
/// Into a folder, rows come epoch by epoch. Where something runs above the pipelines, or the output is whole only at the
/// end, their rows are kept with the checkpoints until then. What goes to a terminal goes there at once.
///
/// # Errors
/// What cannot be saved; a folder that holds checkpoints of another job, or that another run has; the first failure of a
/// pipeline, which ends the others: the next run goes on from their last checkpoints.
pub(super) async fn write(
    plan: &Arc<dyn ExecutionPlan>,
    task: &Arc<TaskContext>,
    sink: &dyn Sink,
    options: &StreamlinesOptions,
) -> Result<Written> {
    confinement::check(task.session_config(), local_path(&options.checkpoint_dir), Access::Write)?;
    let pipelines = only_pipelines(plan)?;
    pipelines.check_saves(options)?;
    let is_all = plan.is::<PipelinesExec>();
    let is_endless = pipelines.scan().is_some_and(|scan| scan.replay().is_endless());
    if is_endless && !is_all {
        let what = "checkpoints with LIMIT, or what else runs where pipelines meet, over a stream that is followed";
        let help = "leave it out, or RESET streamlines.checkpoint_dir";
        return Err(Error::sql(what).help(help).into());
    }
    if let Some(epochs) = sink.epochs().filter(|_| is_all) {
        let job = Durable::open(pipelines, epochs, format!("{sink:?}"), options, task).await?;
        let ran = job.run(pipelines, task).await;
        job.store.leave().await;
        return ran;
    }
    if is_all && sink.writes_through() {
        let through = Arc::new(Through::new(sink.writer(0, pipelines.rows_schema())?));
        let job = Durable::open(pipelines, Arc::clone(&through) as _, format!("{sink:?}"), options, task).await?;
        let ran = job.run(pipelines, task).await;
        job.store.leave().await;
        ran?;
        return through.close().await;
    }
    let kept = KeptRows::of(pipelines, &options.checkpoint_dir, task)?;
    // What is done with the rows changes nothing about them.
    let job = Durable::open(pipelines, kept.epochs()?, "rows for later".to_string(), options, task).await?;
    let ran = job.run_with_tail(plan, pipelines, task, sink, &kept).await;
    job.store.leave().await;
    ran
}

/// A folder of checkpoints as a path, if it is on this machine.
fn local_path(folder: &str) -> &Path {
    Path::new(folder.strip_prefix("file://").unwrap_or(folder))
}

/// The pipelines of a plan.
///
/// # Errors
/// A plan that has several groups of them.
fn only_pipelines(plan: &Arc<dyn ExecutionPlan>) -> Result<&PipelinesExec> {
    let mut found = vec![];
    collect_boundaries(plan, &mut found);
    match found.as_slice() {
        [pipelines] => Ok(pipelines),
        _ => {
            let error = Error::sql(format!("checkpoints of a query that reads {} streams", found.len()));
            Err(error.help("run a job for each of them, or RESET streamlines.checkpoint_dir").into())
        }
    }
}

async fn begin(store: &CheckpointStore, epochs: &dyn Epochs, job: &Fingerprint) -> Result<()> {
    epochs.begin().await?;
    store.begin(job).await
}

impl Durable {
    /// Takes the folder of checkpoints for the pipelines, whose output goes to `epochs`.
    async fn open(
        pipelines: &PipelinesExec,
        epochs: Arc<dyn Epochs>,
        output: String,
        options: &StreamlinesOptions,
        task: &TaskContext,
    ) -> Result<Arc<Self>> {
        let interval = Interval::parse(&options.checkpoint_interval)?;
        let job = pipelines.fingerprint(output);
        let (folder, kept) = (&options.checkpoint_dir, options.checkpoints_kept);
        let (store, is_new) = CheckpointStore::open(folder, kept, &job, task).await?;
        if is_new && let Err(error) = begin(&store, epochs.as_ref(), &job).await {
            store.leave().await;
            return Err(error);
        }
        Ok(Arc::new(Self {
            run: store.run(),
            store,
            epochs,
            schema: pipelines.rows_schema(),
            interval,
            handoff_rows: pipelines.handoff_rows(),
            begins: Mutex::default(),
            ended: AtomicUsize::new(0),
        }))
    }

    /// Runs the pipelines, and then what is above them over the rows that they have kept.
    async fn run_with_tail(
        self: &Arc<Self>,
        plan: &Arc<dyn ExecutionPlan>,
        pipelines: &PipelinesExec,
        task: &Arc<TaskContext>,
        sink: &dyn Sink,
        kept: &KeptRows,
    ) -> Result<Written> {
        self.run(pipelines, task).await?;
        if pipelines.runs().is_stopped() {
            return Ok(Written::default());
        }
        sink.begin_again().await?;
        self.store.check_held()?;
        let mut epochs = vec![];
        for pipeline in 0..pipelines.pipelines() {
            epochs.push(self.store.epochs(pipeline).await?.last().copied().unwrap_or_default());
        }
        write_whole(kept.under(plan, &pipelines.rows_out(), &epochs)?, Arc::clone(task), sink, None).await
    }

    /// Runs the pipelines, as many at once as there are workers.
    async fn run(self: &Arc<Self>, pipelines: &PipelinesExec, task: &Arc<TaskContext>) -> Result<Written> {
        let works: Vec<Work> = (0..pipelines.workers()).map(|worker| pipelines.work(worker, task)).collect();
        if let Some(work) = works.first() {
            self.restore_mergers(&work.run).await?;
        }
        let mut workers = JoinSet::new();
        for work in works {
            let durable = Arc::clone(self);
            workers.spawn(async move { durable.work(work).await });
        }
        let mut total = Written::default();
        let mut failed = None;
        while let Some(ended) = workers.join_next().await {
            match ended.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error))).flatten() {
                Ok(written) => total.add(written),
                // None of the others is at work any more when the folder is left to the next run.
                Err(error) if failed.is_none() => {
                    failed = Some(error);
                    workers.abort_all();
                }
                Err(_) => {}
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if self.ended.load(Ordering::Relaxed) == pipelines.pipelines() {
            pipelines.warn(
                "this job had ended before, and read nothing now: another folder of checkpoints begins another one",
            );
        }
        Ok(total)
    }

    /// Where pipelines hand over what they know of windows, all of them go on together.
    async fn restore_mergers(&self, run: &Run) -> Result<()> {
        if run.mergers().iter().all(Option::is_none) {
            return Ok(());
        }
        run.mergers().iter().flatten().for_each(|merger| merger.lock().remember());
        let begins = self.store.latest_of_all(run.metrics().len()).await?;
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
        Ok(self.store.latest(pipeline).await?.unwrap_or_default())
    }

    /// Runs one pipeline after the other until none is left to take.
    async fn work(&self, work: Work) -> Result<Written> {
        let mut total = Written::default();
        while let Some(context) = work.take().filter(|_| !work.is_stopped()) {
            total.add(self.pipeline(&work, context).await?);
        }
        Ok(total)
    }

    async fn pipeline(&self, work: &Work, context: PipelineContext) -> Result<Written> {
        let index = context.index;
        let saved = self.store.fenced(index, self.begin_of(index).await?).await?;
        self.epochs.recover(index, saved.epoch, &saved.files).await?;
        context.metrics.restore(&saved);
        if saved.has_ended {
            self.ended.fetch_add(1, Ordering::Relaxed);
            return Ok(Written::default());
        }
        let mut rows = work.rows(&context)?;
        rows.restore(saved.rows_read, &saved.position).await?;
        context.restore(saved.operators);
        let input = Input::new(rows, self.handoff_rows);
        Pipeline::new(self, Chain::open(work, context)?, saved.epoch, saved.rows_read).run(work, input).await
    }
}
