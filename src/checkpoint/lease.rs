//! The lease of checkpoints in an object store: which run they are of now.
//!
//! It is an object that a run puts where none is, or in place of the one that it has read, and replaces again and again as
//! long as it lives. Whoever finds one watches it: if it changes, another run lives; if it has not changed for the time of
//! a lease, that run is dead, or cannot reach the store and ends by itself. Only the watcher's own clock counts, and
//! the time between two looks at it, so clocks need not agree.
//!
//! A run that was taken for dead, and comes to life in the middle of a write, cannot do harm: it finds the next
//! checkpoint of its pipeline there already (`store.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use datafusion::common::Result;
use datafusion::common::runtime::SpawnedTask;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::store::{Remote, root, version_of};

use super::store::{another_run, not_usable};

/// The object of the lease.
pub(super) const LEASE: &str = "lease.json";

/// What the object says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    /// A number that no other run has.
    owner: u64,
    /// How many runs have had the checkpoints.
    run: u64,
    /// How often this run has said that it lives.
    beat: u64,
    /// Whether the run has ended, and left them to the next.
    is_free: bool,
}

impl Note {
    fn encode(&self) -> Vec<u8> {
        let Self { owner, run, beat, is_free } = self;
        json!({ "owner": owner, "run": run, "beat": beat, "is_free": is_free }).to_string().into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let number = |name: &str| value[name].as_u64();
        Some(Self {
            owner: number("owner")?,
            run: number("run")?,
            beat: number("beat")?,
            is_free: value["is_free"].as_bool()?,
        })
    }
}

/// A lease that this run has.
pub(super) struct Lease {
    held: Arc<Held>,
    run: u64,
    /// Says that the run lives, until this is dropped.
    _beating: SpawnedTask<()>,
}

struct Held {
    store: Arc<dyn ObjectStore>,
    path: Path,
    shown: String,
    /// How long a run that gives no sign of life has it.
    time: Duration,
    last: Mutex<(Note, UpdateVersion)>,
    /// When the last sign of life that has arrived was sent.
    sent: parking_lot::Mutex<Instant>,
    is_lost: AtomicBool,
}

impl Lease {
    /// Takes the lease of a folder of checkpoints, as soon as nobody has it.
    ///
    /// # Errors
    /// A run that has it and lives; a store that cannot be used, or that cannot put an object only where none is.
    pub(super) async fn take(folder: &Remote) -> Result<Self> {
        let (store, path) = (&folder.store, folder.path.clone().join(LEASE));
        let (before, mode) = when_free(folder, &path).await?;
        let owner = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
        let (note, sent) = (Note { owner, run: before + 1, beat: 0, is_free: false }, Instant::now());
        let version = match put(store, &path, &note, mode).await {
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                return Err(another_run(&folder.shown).into());
            }
            put => put.map_err(|error| not_usable(&folder.shown, root(&error)))?,
        };
        let held = Arc::new(Held {
            store: Arc::clone(store),
            path,
            shown: folder.shown.clone(),
            time: folder.policy.lease,
            last: Mutex::new((note, version)),
            sent: parking_lot::Mutex::new(sent),
            is_lost: AtomicBool::new(false),
        });
        let beating = SpawnedTask::spawn(Arc::clone(&held).beat());
        Ok(Self { held, run: before + 1, _beating: beating })
    }

    /// How many runs have had it, this one among them.
    pub(super) fn run(&self) -> u64 {
        self.run
    }

    /// Whether this run still has it. That it has not been heard of for most of a lease's time is as good as lost: by the
    /// time that what is written now arrives, another run may have taken over.
    ///
    /// # Errors
    /// It has not.
    pub(super) fn check(&self) -> Result<()> {
        let silent = self.held.sent.lock().elapsed();
        let what = match self.held.is_lost.load(Ordering::Relaxed) {
            true => "another run has taken these checkpoints over".to_string(),
            false if silent > self.held.time * 2 / 3 => {
                format!(
                    "the store has not answered for {silent:?}, and another run may have taken these checkpoints over"
                )
            }
            false => return Ok(()),
        };
        let help = "nothing is lost: the next run, or the other one, goes on from the last of them";
        Err(Error::data(what).in_file(&self.held.shown).help(help).into())
    }

    /// No sign of life is given as long as what this gives is held.
    #[cfg(test)]
    pub(super) async fn silence(&self) -> impl Sized + '_ {
        self.held.last.lock().await
    }

    /// Leaves the checkpoints to the next run, which need not wait then.
    pub(super) async fn leave(&self) {
        let mut last = self.held.last.lock().await;
        if let Err(error) = self.held.say(&mut last, true).await {
            tracing::warn!(
                "{}: the lease could not be given back: {error}; the next run waits for it",
                self.held.shown
            );
        }
    }

    /// Takes the lease away, when nothing is left that it is for.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub(super) async fn remove(self) -> Result<()> {
        // Nobody is to put it back.
        let last = self.held.last.lock().await;
        self.held.is_lost.store(true, Ordering::Relaxed);
        drop(last);
        let removed = self.held.store.delete(&self.held.path).await;
        Ok(removed.map_err(|error| not_usable(&self.held.shown, root(&error)))?)
    }
}

impl Held {
    /// Says again and again that the run lives.
    async fn beat(self: Arc<Self>) {
        loop {
            sleep(self.time / 6).await;
            let mut last = self.last.lock().await;
            if last.0.is_free || self.is_lost.load(Ordering::Relaxed) {
                return;
            }
            let sent = Instant::now();
            match self.say(&mut last, false).await {
                Ok(()) => *self.sent.lock() = sent,
                Err(
                    StoreError::Precondition { .. } | StoreError::NotFound { .. } | StoreError::AlreadyExists { .. },
                ) => {
                    self.is_lost.store(true, Ordering::Relaxed);
                }
                Err(error) => tracing::warn!("{}: no sign of life could be given: {}", self.shown, root(&error)),
            }
        }
    }

    async fn say(&self, last: &mut (Note, UpdateVersion), is_free: bool) -> object_store::Result<()> {
        let note = Note { beat: last.0.beat + 1, is_free, ..last.0 };
        let version = put(&self.store, &self.path, &note, PutMode::Update(last.1.clone())).await?;
        *last = (note, version);
        Ok(())
    }
}

/// Waits until nobody has a lease. Gives how many runs have had it, and how it is to be put.
///
/// # Errors
/// A run that has it and lives.
async fn when_free(folder: &Remote, path: &Path) -> Result<(u64, PutMode)> {
    let (shown, time) = (&folder.shown, folder.policy.lease);
    let mut watched: Option<(Note, Instant)> = None;
    loop {
        let Some((note, version)) = found(&folder.store, path, shown).await? else { return Ok((0, PutMode::Create)) };
        match &watched {
            _ if note.is_free => return Ok((note.run, PutMode::Update(version))),
            Some((seen, _)) if note != *seen => return Err(another_run(shown).into()),
            Some((_, since)) if since.elapsed() >= time => return Ok((note.run, PutMode::Update(version))),
            Some(_) => {}
            None => {
                tracing::warn!(
                    "{shown}: another run is here, or ended without a word: {time:?} are given it to show itself"
                );
                watched = Some((note, Instant::now()));
            }
        }
        sleep(time / 10).await;
    }
}

async fn put(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    note: &Note,
    mode: PutMode,
) -> object_store::Result<UpdateVersion> {
    let options = PutOptions { mode, ..PutOptions::default() };
    Ok(store.put_opts(path, note.encode().into(), options).await?.into())
}

async fn found(store: &Arc<dyn ObjectStore>, path: &Path, shown: &str) -> Result<Option<(Note, UpdateVersion)>> {
    let wrong = |error: StoreError| not_usable(shown, root(&error));
    let found = match store.get(path).await {
        Err(StoreError::NotFound { .. }) => return Ok(None),
        found => found.map_err(wrong)?,
    };
    let version = version_of(&found.meta);
    match Note::decode(&found.bytes().await.map_err(wrong)?) {
        Some(note) => Ok(Some((note, version))),
        None => {
            let error = Error::data("is no lease of ours").in_file(format!("{shown}/{LEASE}"));
            Err(error.help("make sure that no run is at work there, and remove it").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use crate::store::Policy;

    use super::*;

    fn folder(store: &Arc<InMemory>) -> Remote {
        let policy = Policy { lease: Duration::from_millis(120), ..Policy::default() };
        let (shown, store) = ("memory://a/job".to_string(), Arc::clone(store) as _);
        Remote { shown, store, path: Path::from("job"), policy }
    }

    #[tokio::test]
    async fn one_run_has_it_at_a_time() {
        let folder = folder(&Arc::new(InMemory::new()));
        let first = Lease::take(&folder).await.unwrap();
        let told = Lease::take(&folder).await.err().unwrap().to_string();
        assert!(told.contains("another run goes on from these checkpoints now"), "{told}");
        first.check().unwrap();
        first.leave().await;
        let second = Lease::take(&folder).await.unwrap();
        assert_eq!((first.run(), second.run()), (1, 2));
        second.remove().await.unwrap();
        assert_eq!(Lease::take(&folder).await.unwrap().run(), 1);
    }

    #[tokio::test]
    async fn that_of_a_dead_run_is_taken_over() {
        let folder = folder(&Arc::new(InMemory::new()));
        drop(Lease::take(&folder).await.unwrap());
        let begun = Instant::now();
        let second = Lease::take(&folder).await.unwrap();
        assert!(begun.elapsed() >= folder.policy.lease);
        assert_eq!(second.run(), 2);
    }

    #[tokio::test]
    async fn who_has_lost_it_is_told() {
        let store = Arc::new(InMemory::new());
        let folder = folder(&store);
        let first = Lease::take(&folder).await.unwrap();
        let other = Note { owner: 0, run: 2, beat: 0, is_free: false };
        store.put(&Path::from("job/lease.json"), other.encode().into()).await.unwrap();
        sleep(Duration::from_millis(80)).await;
        let told = first.check().unwrap_err().to_string();
        assert!(told.contains("another run has taken these checkpoints over"), "{told}");
    }

    #[test]
    fn notes_are_read_as_they_were_written() {
        let note = Note { owner: u64::MAX, run: 3, beat: 4, is_free: true };
        assert_eq!(Note::decode(&note.encode()), Some(note));
        assert_eq!(Note::decode(b"{}"), None);
    }
}
