//! What comes while a stream is read: files that appear, or rows of what goes on.

use datafusion::common::Result;
use datafusion::execution::TaskContext;

use super::follow::{Followed, Follower};
use super::live::Live;
use super::pieces::Chunk;
use super::position::Position;
use super::replay::ReplayPlan;
use super::table::StreamFile;

/// Who looks for what is to be read next.
pub(super) enum Arrivals {
    Files(Follower),
    Live(Live),
}

impl Arrivals {
    /// What is to be read next, which may not be there yet; none when nothing comes any more.
    ///
    /// # Errors
    /// What cannot be opened, or has other columns.
    pub(super) async fn next(&mut self, plan: &ReplayPlan, task: &TaskContext) -> Result<Option<Vec<Chunk>>> {
        match self {
            Self::Files(files) => files.next(plan, task).await,
            Self::Live(live) => live.next(&plan.stream().inner).await,
        }
    }

    /// A file is begun, when so many rows of those before it have been read, up to an event time.
    pub(super) fn begin(&mut self, file: &StreamFile, rows: u64, highest: Option<i64>) {
        if let Self::Files(files) = self {
            files.begin(file, rows, highest);
        }
    }

    /// The file that was begun has been read to its end.
    pub(super) fn end(&mut self, rows: u64, highest: Option<i64>) {
        if let Self::Files(files) = self {
            files.end(rows, highest);
        }
    }

    /// Event time has gone on without rows.
    pub(super) fn idle(&mut self, highest: Option<i64>) {
        if let Self::Files(files) = self {
            files.followed.highest = highest;
        }
    }

    /// How far it has come in files that appear.
    pub(super) fn followed(&self) -> Option<&Followed> {
        match self {
            Self::Files(files) => Some(&files.followed),
            Self::Live(_) => None,
        }
    }

    /// Goes on at a position; gives of the chunks that were to be read those that still are, and how many rows need not be
    /// read again.
    ///
    /// # Errors
    /// A file that was begun is not there any more.
    pub(super) fn restore(
        &mut self,
        position: &Position,
        plan: &ReplayPlan,
        chunks: Vec<Chunk>,
    ) -> Result<(Vec<Chunk>, u64)> {
        match (self, position) {
            (Self::Files(files), Position { followed: Some(followed), .. }) => {
                Ok((files.restore(followed.clone(), plan, chunks)?, followed.rows))
            }
            (Self::Live(live), Position { text: Some(text), .. }) => {
                live.restore(text.clone());
                Ok((chunks, text.rows))
            }
            _ => Ok((chunks, 0)),
        }
    }
}
