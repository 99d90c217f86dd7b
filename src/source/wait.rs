//! Waiting for what comes: until the file system says that something has, or, where it says nothing (another machine's folder, an
//! object store, no watch to be had), until it is time to look again, longer and longer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::ModifyKind;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long to wait before somebody looks again: at first, and at most.
const WAITS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(200)];
/// The same where each look is a listing of an object store, which takes time and is paid for.
const WAITS_FOR_LISTINGS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

/// Waits longer and longer.
pub(super) struct Wait {
    next: Duration,
    waits: [Duration; 2],
    /// What ends the waiting before its time.
    watch: Option<Watch>,
}

impl Default for Wait {
    fn default() -> Self {
        Self::of(WAITS, None)
    }
}

impl Wait {
    fn of(waits: [Duration; 2], watch: Option<Watch>) -> Self {
        Self { next: waits[0], waits, watch }
    }

    /// Waits for what listings of an object store show.
    pub(super) fn for_listings() -> Self {
        Self::of(WAITS_FOR_LISTINGS, None)
    }

    /// Waits for files that appear in some folders, and, where they are to be looked through, in those in them.
    pub(super) fn for_files(folders: Vec<(PathBuf, bool)>) -> Self {
        Self::of(WAITS, Watch::new(folders, appears))
    }

    /// Waits for what is written to the end of a file, or for another file of its name.
    pub(super) fn for_lines(path: &Path) -> Self {
        let folder = path.parent().unwrap_or(path).to_path_buf();
        let path = path.to_path_buf();
        let concerns = move |event: &Event| (grows(event) || appears(event)) && event.paths.contains(&path);
        Self::of(WAITS, Watch::new(vec![(folder, false)], concerns))
    }

    /// Something has come: the next time begins with a short while.
    pub(super) fn begin_again(&mut self) {
        self.next = self.waits[0];
    }

    pub(super) async fn once(&mut self) {
        match &self.watch {
            // That the time is over is as good as a change.
            Some(watch) => drop(timeout(self.next, watch.changed.notified()).await),
            None => tokio::time::sleep(self.next).await,
        }
        self.next = (2 * self.next).min(self.waits[1]);
    }
}

/// What the file system says of some folders. That a file is opened, or read, is no change: who looks would wake itself up.
struct Watch {
    changed: Arc<Notify>,
    /// Says so as long as it is held.
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// None where nothing can be watched.
    fn new(folders: Vec<(PathBuf, bool)>, concerns: impl Fn(&Event) -> bool + Send + 'static) -> Option<Self> {
        let changed = Arc::new(Notify::new());
        let told = Arc::clone(&changed);
        let tell = move |event: notify::Result<Event>| match event {
            Ok(event) if !concerns(&event) && !event.need_rescan() => {}
            // Of what is lost nobody knows what it was.
            Ok(_) | Err(_) => told.notify_one(),
        };
        let watched = notify::recommended_watcher(tell).and_then(|mut watcher| {
            for (folder, is_deep) in folders {
                let mode = if is_deep { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
                watcher.watch(&folder, mode)?;
            }
            Ok(watcher)
        });
        match watched {
            Ok(watcher) => Some(Self { changed, _watcher: watcher }),
            Err(error) => {
                tracing::debug!("the file system tells of no changes: {error}");
                None
            }
        }
    }
}

/// A file or a folder is there under a name that it did not have.
fn appears(event: &Event) -> bool {
    matches!(event.kind, EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(_)))
}

/// Bytes were written.
fn grows(event: &Event) -> bool {
    matches!(event.kind, EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Instant;

    use super::*;

    /// A while that a test does not wait for.
    const LONG: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(60)];

    async fn ends_soon(mut wait: Wait, change: impl FnOnce()) {
        assert!(wait.watch.is_some());
        (wait.waits, wait.next) = (LONG, LONG[0]);
        change();
        let begun = Instant::now();
        wait.once().await;
        assert!(begun.elapsed() < LONG[0] / 2, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn what_appears_or_is_written_ends_the_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("in")).unwrap();
        std::fs::write(path(".a"), "a").unwrap();
        let files = || Wait::for_files(vec![(folder.path().to_path_buf(), true)]);
        ends_soon(files(), || std::fs::rename(path(".a"), path("a")).unwrap()).await;
        ends_soon(files(), || std::fs::write(path("in/b"), "b").unwrap()).await;
        let lines = || Wait::for_lines(&path("a"));
        let append = || std::fs::OpenOptions::new().append(true).open(path("a")).unwrap().write_all(b"more").unwrap();
        ends_soon(lines(), append).await;
        ends_soon(lines(), || std::fs::rename(path("in/b"), path("a")).unwrap()).await;
    }

    #[tokio::test]
    async fn looking_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "a").unwrap();
        let mut wait = Wait::for_files(vec![(folder.path().to_path_buf(), true)]);
        std::fs::read_dir(folder.path()).unwrap().for_each(drop);
        std::fs::read(folder.path().join("a")).unwrap();
        (wait.waits, wait.next) = ([Duration::from_millis(300); 2], Duration::from_millis(300));
        let begun = Instant::now();
        wait.once().await;
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }

    #[tokio::test]
    async fn what_cannot_be_watched_is_looked_at_again_and_again() {
        let mut wait = Wait::for_files(vec![(PathBuf::from("/no/such/folder"), true)]);
        assert!(wait.watch.is_none());
        for _ in 0..4 {
            wait.once().await;
        }
        assert_eq!(wait.next, Duration::from_millis(80));
    }
}
