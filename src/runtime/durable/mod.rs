//! Pipelines that save themselves, and go on from where they were when the job is run again.
//!
//! ```text
//!   worker: take a pipeline ─▶ its last checkpoint ─▶ { read → process → stage } … stage ─▶ save ─▶ make visible …
//! ```
//!
//! A pipeline's output is staged, then it saves itself together with the names of what it has staged, then that becomes
//! visible. Whenever a job is killed, one of the three is where it goes on: what was staged and not saved is taken
//! away, what was saved and not visible becomes visible. No pipeline waits for another one.

mod group;
mod kept_rows;
mod pipeline;
mod queued;
#[cfg(test)]
mod simulation;
mod through;

use std::path::Path;
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use tokio::task::JoinSet;

use crate::checkpoint::{CheckpointStore, Fingerprint, Interval};
use crate::config::StreamlinesOptions;
use crate::confinement::{self, Access};
use crate::error::Error;
use crate::sink::{Epochs, Sink, Written};

use super::boundary::PipelinesExec;
use super::job::collect_boundaries;
use super::write::write_whole;
use group::Group;
use kept_rows::KeptRows;
use through::Through;

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
    let mut all = vec![];
    collect_boundaries(plan, &mut all);
    all.iter().try_for_each(|pipelines| pipelines.check_saves(options))?;
    let is_all = plan.is::<PipelinesExec>();
    if !is_all && all.iter().any(|pipelines| is_endless(pipelines)) {
        let what = "checkpoints with LIMIT, UNION of several streams, or what else runs where pipelines meet, over a stream that is followed";
        let help = "leave it out (a job for each stream may write into a folder of its own), or RESET streamlines.checkpoint_dir";
        return Err(Error::sql(what).help(help).into());
    }
    let job = SavedJob { all: &all, task, options };
    if let Some(epochs) = sink.epochs().filter(|_| is_all) {
        return job.write_epochs(epochs, format!("{sink:?}")).await;
    }
    if is_all && sink.writes_through() {
        let rows = all.first().map(|pipelines| pipelines.rows_schema()).unwrap_or_else(|| plan.schema());
        let through = Arc::new(Through::new(sink.writer(0, rows)?));
        job.write_epochs(Arc::clone(&through) as _, format!("{sink:?}")).await?;
        return through.close().await;
    }
    job.write_at_end(plan, sink).await
}

fn is_endless(pipelines: &PipelinesExec) -> bool {
    pipelines.scan().is_some_and(|scan| scan.replay().is_endless())
}

/// A folder of checkpoints as a path, if it is on this machine.
fn local_path(folder: &str) -> &Path {
    Path::new(folder.strip_prefix("file://").unwrap_or(folder))
}

/// A plan's pipelines, to be run as a job that saves itself: those of each of its streams.
struct SavedJob<'a> {
    all: &'a [&'a PipelinesExec],
    task: &'a Arc<TaskContext>,
    options: &'a StreamlinesOptions,
}

impl SavedJob<'_> {
    /// Runs the pipelines of the only stream, whose rows are all that there is to write.
    async fn write_epochs(&self, epochs: Arc<dyn Epochs>, output: String) -> Result<Written> {
        let (store, groups) = self.open(vec![epochs], output).await?;
        let ran = self.run(&groups).await;
        store.leave().await;
        ran
    }

    /// Runs the pipelines, whose rows are kept until all of them have ended, and then what is above them.
    async fn write_at_end(&self, plan: &Arc<dyn ExecutionPlan>, sink: &dyn Sink) -> Result<Written> {
        let kept = KeptRows::open(&self.options.checkpoint_dir, self.task)?;
        let epochs = self.all.iter().map(|_| kept.epochs()).collect::<Result<_>>()?;
        // What is done with the rows changes nothing about them.
        let (store, groups) = self.open(epochs, "rows for later".to_string()).await?;
        let written = self.run_with_tail(&store, &groups, &kept, plan, sink).await;
        store.leave().await;
        written
    }

    async fn run_with_tail(
        &self,
        store: &CheckpointStore,
        groups: &[Arc<Group>],
        kept: &KeptRows,
        plan: &Arc<dyn ExecutionPlan>,
        sink: &dyn Sink,
    ) -> Result<Written> {
        self.run(groups).await?;
        if self.all.iter().any(|pipelines| pipelines.runs().is_stopped()) {
            return Ok(Written::default());
        }
        sink.begin_again().await?;
        store.check_held()?;
        let mut rows = vec![];
        for (pipelines, group) in self.all.iter().zip(groups) {
            rows.push(kept.rows_of(pipelines, group.first(), &group.last_epochs().await?)?);
        }
        write_whole(KeptRows::under(plan, self.all, &rows)?, Arc::clone(self.task), sink, None).await
    }

    /// Takes the folder of checkpoints for the pipelines of each stream, whose output goes to its `epochs`.
    async fn open(
        &self,
        epochs: Vec<Arc<dyn Epochs>>,
        output: String,
    ) -> Result<(Arc<CheckpointStore>, Vec<Arc<Group>>)> {
        let interval = Interval::parse(&self.options.checkpoint_interval)?;
        let output = match self.options.late.as_str() {
            "" => output,
            late => format!("{output}, late rows to {late}"),
        };
        let job = Fingerprint::of_all(self.all.iter().map(|pipelines| pipelines.fingerprint()), output);
        let (folder, kept) = (&self.options.checkpoint_dir, self.options.checkpoints_kept);
        let (store, is_new) = CheckpointStore::open(folder, kept, &job, self.task).await?;
        let store = Arc::new(store);
        let (mut groups, mut first) = (vec![], 0);
        for (pipelines, epochs) in self.all.iter().zip(epochs) {
            groups.push(Arc::new(Group::new(&store, first, pipelines, epochs, interval)));
            first += pipelines.pipelines();
        }
        if is_new && let Err(error) = begin(&store, &groups, &job).await {
            store.leave().await;
            return Err(error);
        }
        Ok((store, groups))
    }

    /// Runs the pipelines, as many of each stream at once as there are workers.
    async fn run(&self, groups: &[Arc<Group>]) -> Result<Written> {
        let mut workers = JoinSet::new();
        for (pipelines, group) in self.all.iter().zip(groups) {
            let works: Vec<_> = (0..pipelines.workers()).map(|worker| pipelines.work(worker, self.task)).collect();
            if let Some(work) = works.first() {
                group.restore_mergers(&work.run).await?;
            }
            for work in works {
                let group = Arc::clone(group);
                workers.spawn(async move { group.work(work).await });
            }
        }
        let written = join(workers).await?;
        if groups.iter().all(|group| group.had_ended()) {
            self.all.iter().take(1).for_each(|pipelines| {
                pipelines.warn(
                    "this job had ended before, and read nothing now: another folder of checkpoints begins another one",
                );
            });
        }
        Ok(written)
    }
}

async fn begin(store: &CheckpointStore, groups: &[Arc<Group>], job: &Fingerprint) -> Result<()> {
    for group in groups {
        group.begin().await?;
    }
    store.begin(job).await
}

/// Waits for workers; the first failure ends all of them.
async fn join(mut workers: JoinSet<Result<Written>>) -> Result<Written> {
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
    match failed {
        Some(error) => Err(error),
        None => Ok(total),
    }
}
