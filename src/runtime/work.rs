//! What all strategies run: one execution of a plan's pipelines.

use std::sync::Arc;

use datafusion::common::{Result, internal_err};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;

use tokio::sync::mpsc::Receiver;

use crate::error::Error;
use crate::exec::context::PipelineContext;
use crate::exec::find;
use crate::exec::scan::StreamScanExec;
use crate::source::{Due, Pacing, Position, Read, Reader, ReplayPlan, Schedule};

use super::exchange::Exchange;
use super::run::{LedgerPart, Run, Runs};

/// The pipelines of one execution, to be taken one by one.
#[derive(Clone)]
pub(crate) struct Work {
    pub(super) run: Arc<Run>,
    pub(super) runs: Arc<Runs>,
    /// What every pipeline runs.
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) task: Arc<TaskContext>,
    /// When the rows of this worker are due, if they have a speed.
    pub(super) schedule: Option<Arc<Schedule>>,
}

impl Work {
    /// Takes the next pipeline that nobody has taken, in order of the data.
    pub(super) fn take(&self) -> Option<PipelineContext> {
        self.run.take()
    }

    /// Whether the run was told to read no more. That is not the end of the data: open windows stay unanswered.
    pub(super) fn is_stopped(&self) -> bool {
        self.runs.is_stopped()
    }

    /// What the pipelines read. Where the optimizer has found that no row can pass, there is nothing to read.
    pub(super) fn replay(&self) -> Option<&Arc<ReplayPlan>> {
        find::<StreamScanExec>(&self.plan).map(StreamScanExec::replay)
    }

    /// Where late rows go.
    ///
    /// # Errors
    /// Nobody there who would write them, though they were asked for.
    pub(super) fn ledger(&self) -> Result<Option<LedgerPart>> {
        let ledger = self.runs.ledger();
        if ledger.is_none() && self.replay().is_some_and(|replay| replay.keeps_origin() && replay.has_bound()) {
            let error = Error::sql("streamlines.late is set, and only a Job writes late rows");
            return Err(error.help("Job::new(query).await?.run(&sink).await?, or RESET streamlines.late").into());
        }
        Ok(ledger)
    }

    /// Opens the rows of a pipeline.
    pub(super) fn rows(&self, pipeline: &PipelineContext) -> Result<Rows> {
        let counts = &pipeline.metrics.reader;
        let pacing = self
            .schedule
            .as_ref()
            .zip(self.replay())
            .map(|(schedule, replay)| Pacing::new(schedule.for_piece(replay, pipeline.index), Arc::clone(counts)));
        Ok(Rows { input: self.input(pipeline)?, pacing, due: None, left: None })
    }

    fn input(&self, pipeline: &PipelineContext) -> Result<Input> {
        let Some(replay) = self.replay() else { return Ok(Input::None) };
        if replay.is_exchanged() {
            let start = || Exchange::start(replay, Arc::clone(&pipeline.metrics.reader), Arc::clone(&self.task));
            return Ok(Input::Sent(self.run.exchange(start)?.rows(pipeline.index)?));
        }
        let counts = Arc::clone(&pipeline.metrics.reader);
        Ok(Input::Read(Reader::open(replay, pipeline.index, counts, Arc::clone(&self.task), self.runs.signals())?))
    }
}

/// The rows of a pipeline, as they become due if they have a speed.
pub(super) struct Rows {
    input: Input,
    pacing: Option<Pacing>,
    /// The rows that were given last, until their effects have been written.
    due: Option<Due>,
    /// What is left of a batch of which some rows were passed over.
    left: Option<Read>,
}

impl Rows {
    /// Goes on where so many rows had been processed, and a reader had come to a position before the next one.
    ///
    /// # Errors
    /// Files that cannot be read, or that have fewer rows.
    pub(super) async fn restore(&mut self, rows: u64, position: &Position) -> Result<()> {
        let mut to_pass = rows;
        if let Input::Read(reader) = &mut self.input {
            to_pass = to_pass.saturating_sub(reader.restore(position)?);
            to_pass -= reader.pass_over(to_pass);
        }
        while to_pass > 0 {
            let Some(read) = self.input.next().await? else {
                return internal_err!("there are fewer than the {rows} rows that have been processed");
            };
            let length = read.batch.num_rows();
            match usize::try_from(to_pass) {
                Ok(passed) if passed < length => {
                    self.left = Some(read.slice(passed, length - passed, read.stamp));
                    to_pass = 0;
                }
                _ => to_pass -= length as u64,
            }
        }
        Ok(())
    }

    /// How far its reader has come.
    pub(super) fn position(&self) -> Position {
        match &self.input {
            Input::Read(reader) => reader.position(),
            Input::None | Input::Sent(_) => Position::default(),
        }
    }

    /// The next rows; none at the end, or where whoever follows files has been stopped. The effects of those before have
    /// been written, unless [`Rows::take_due`] says that somebody else knows when.
    pub(super) async fn next(&mut self) -> Result<Option<Read>> {
        let left = self.left.take();
        let Some(pacing) = &mut self.pacing else {
            return match left {
                Some(left) => Ok(Some(left)),
                None => self.input.next().await,
            };
        };
        if let Some(left) = left {
            pacing.hold(left);
        }
        if let Some(due) = self.due.take() {
            due.written();
        }
        loop {
            if let Some((read, due)) = pacing.next().await? {
                self.due = Some(due);
                return Ok(Some(read));
            }
            match self.input.next().await? {
                // It says that there are no rows yet.
                Some(read) if read.batch.num_rows() == 0 => return Ok(Some(read)),
                Some(read) => pacing.hold(read),
                None => return Ok(None),
            }
        }
    }

    /// The rows that were given last, to be recorded when their effects have been written.
    pub(super) fn take_due(&mut self) -> Option<Due> {
        self.due.take()
    }
}

/// Where the rows of a pipeline come from.
enum Input {
    /// There is nothing to read.
    None,
    /// It reads them itself.
    Read(Reader),
    /// An exchange sends them.
    Sent(Receiver<Result<Read>>),
}

impl Input {
    async fn next(&mut self) -> Result<Option<Read>> {
        // Files are read without waiting, so it is here that other pipelines of the same thread get their turn.
        tokio::task::consume_budget().await;
        match self {
            Self::None => Ok(None),
            Self::Read(reader) => reader.next().await,
            Self::Sent(channel) => channel.recv().await.transpose(),
        }
    }
}
