//! Files that appear while a stream is read: each is read once, those that are found together in order of their names.
//!
//! A file is to appear whole: written under a name that begins with `.` or `_`, or in another folder, and renamed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::Result;
use datafusion::execution::TaskContext;

use crate::error::Error;

use super::files::{self, FoundFile, Search, is_stored};
use super::opening::follow_file;
use super::pieces::Chunk;
use super::replay::ReplayPlan;
use super::table::{Coming, Inner, StreamFile};
use super::wait::Wait;

/// What those who follow files are told while they do.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    stops: AtomicBool,
    drains: AtomicBool,
}

impl Signals {
    /// To read no more.
    pub(crate) fn stop(&self) {
        self.stops.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stops.load(Ordering::Relaxed)
    }

    /// To read what is there, and then to end.
    pub(crate) fn drain(&self) {
        self.drains.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drains.load(Ordering::Relaxed)
    }
}

/// How far whoever follows files has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Followed {
    /// The files that have been begun, in their order: all but the last have been read to their ends.
    pub(crate) files: Vec<String>,
    /// Size and time of the last; none if it has been read to its end, too.
    pub(crate) begun: Option<String>,
    /// Rows of those that have been read to their ends.
    pub(crate) rows: u64,
    /// The highest event time in them.
    pub(crate) highest: Option<i64>,
}

/// Follows the files of a stream.
pub(super) struct Follower {
    signals: Arc<Signals>,
    /// By their names.
    known: HashSet<String>,
    wait: Wait,
    pub(super) followed: Followed,
}

impl Follower {
    /// Follows a stream whose first files are known.
    pub(super) fn new(inner: &Inner, signals: Arc<Signals>) -> Self {
        let known = inner.partitions.iter().flatten().map(|file| file.place.name()).collect();
        let wait = match &inner.coming {
            Coming::Files(location) if is_stored(location) => Wait::for_listings(),
            Coming::Files(location) => Wait::for_files(files::folders(location)),
            _ => Wait::default(),
        };
        Self { signals, known, wait, followed: Followed::default() }
    }

    /// A file is begun, when so many rows of those before it have been read, up to an event time.
    pub(super) fn begin(&mut self, file: &StreamFile, rows: u64, highest: Option<i64>) {
        let name = file.place.name();
        // What goes on was begun before.
        if self.followed.begun.is_none() || self.followed.files.last() != Some(&name) {
            self.followed.files.push(name);
            self.end(rows, highest);
            self.followed.begun = Some(file.version());
        }
    }

    /// The file that was begun has been read to its end.
    pub(super) fn end(&mut self, rows: u64, highest: Option<i64>) {
        let Followed { begun, rows: all_rows, highest: all_highest, .. } = &mut self.followed;
        (*begun, *all_rows, *all_highest) = (None, rows, highest.max(*all_highest));
    }

    /// The next files, of which there may be none yet; none when whoever follows is to end.
    ///
    /// # Errors
    /// A folder or a file that cannot be read, or that has other columns.
    pub(super) async fn next(&mut self, plan: &ReplayPlan, task: &TaskContext) -> Result<Option<Vec<Chunk>>> {
        // What is there when it is to end is read before.
        let ends = self.signals.is_draining();
        let found = self.look(plan, task).await?;
        if !found.is_empty() {
            self.wait.begin_again();
            return Ok(Some(found));
        }
        if ends || self.signals.is_stopped() {
            return Ok(None);
        }
        self.wait.once().await;
        Ok(Some(found))
    }

    async fn look(&mut self, plan: &ReplayPlan, task: &TaskContext) -> Result<Vec<Chunk>> {
        let inner = &plan.stream().inner;
        let Coming::Files(location) = &inner.coming else { return Ok(vec![]) };
        let runtime = task.runtime_env();
        let search = Search { runtime: &runtime, config: task.session_config() };
        let found = files::find_any(location, Some(inner.format), search).await?;
        self.forget_others(&found);
        let mut chunks = vec![];
        for file in found {
            if !self.known.insert(file.place.name()) {
                continue;
            }
            let file = follow_file(inner, &file, &runtime).await?;
            let found = Some(Arc::new(file));
            chunks.push(Chunk { found, ..Chunk::default() });
        }
        Ok(chunks)
    }

    /// What has been read and taken away need not be known any more: that would be ever more names. The last one was
    /// begun, and is missed if it is not there.
    fn forget_others(&mut self, found: &[FoundFile]) {
        if self.known.len() > found.len() {
            let there: HashSet<String> = found.iter().map(|file| file.place.name()).collect();
            let last = self.followed.files.last().cloned();
            self.known.retain(|name| there.contains(name));
            self.followed.files.retain(|name| there.contains(name) || Some(name) == last.as_ref());
        }
    }

    /// Goes on after `followed`: gives the chunks that are still to be read, the one that was begun first.
    ///
    /// # Errors
    /// The file that was begun is not there any more.
    pub(super) fn restore(&mut self, followed: Followed, plan: &ReplayPlan, chunks: Vec<Chunk>) -> Result<Vec<Chunk>> {
        let (mut begun, mut left) = (None, vec![]);
        for chunk in chunks {
            let file = plan.file(&chunk)?;
            let name = file.place.name();
            match followed.files.iter().position(|known| *known == name) {
                None => left.push(chunk),
                Some(place) if place + 1 == followed.files.len() => begun = Some((file.version(), chunk)),
                Some(_) => {}
            }
        }
        let last = followed.files.last().cloned().unwrap_or_default();
        let wrong = |what: &str| {
            let error = Error::data(format!("has been read in part, and {what}")).in_file(last);
            Err(error.help("put it back, or begin the job anew in another folder of checkpoints").into())
        };
        let begun = match (&followed.begun, begun) {
            (None, _) => None,
            (Some(_), None) => return wrong("is not there any more"),
            (Some(saved), Some((version, _))) if *saved != version => return wrong("has changed since then"),
            (Some(_), Some((_, chunk))) => Some(chunk),
        };
        self.followed = followed;
        Ok(begun.into_iter().chain(left).collect())
    }
}
