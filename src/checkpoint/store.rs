//! The folder of a job's checkpoints, on this machine or in an object store.
//!
//! On this machine a lock of the file system says which run has the folder, and goes with the process that holds it. In
//! a store a lease does (`lease.rs`), and a run that has lost it may still have writes on their way. So each checkpoint
//! is put only where none is, and a run that goes on puts a first one before it touches anything else: what its
//! predecessor sends after that comes too late. Listings of stores may lag behind, so nothing that counts is listed there:
//! checkpoints are asked for by their names, from the oldest one on, which an object of its own says.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::ops::Range;
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion};
use parking_lot::Mutex;

use crate::error::Error;
use crate::operator::PartId;
use crate::store::{Remote, is_url, root, version_of};

use super::job::Fingerprint;
use super::lease::Lease;
use super::object::Checkpoint;
use super::parts::{NamedParts, parts_of, path_of_part};

pub(super) const JOB: &str = "job.json";
pub(super) const LOCK: &str = "lock";
pub(super) const EXTENSION: &str = ".checkpoint";
/// The epoch of the oldest checkpoint of a pipeline, in a store.
pub(super) const OLDEST: &str = "oldest";
/// The folder of rows for what runs where the pipelines meet.
pub(crate) const ROWS: &str = "rows";

/// The checkpoints of a job, while it runs.
pub(crate) struct CheckpointStore {
    /// The folder as the user wrote it.
    shown: String,
    store: Arc<dyn ObjectStore>,
    /// How many of each pipeline are kept.
    kept: usize,
    hold: Hold,
    /// A number for what this run writes.
    run: u64,
    /// The parts that kept checkpoints name.
    parts: Mutex<NamedParts>,
    /// The oldest one of each pipeline in a store, and the version of the object that says so.
    oldest: Mutex<HashMap<usize, (u64, Option<UpdateVersion>)>>,
}

/// What says that nobody else has the folder.
enum Hold {
    /// As long as this is open.
    Lock(#[expect(dead_code, reason = "it is held, and not used")] File),
    Lease(Lease),
}

impl CheckpointStore {
    /// Takes a folder for a job, which is made if it is not there. Says whether the job begins now.
    ///
    /// # Errors
    /// A folder that cannot be written, that another run has, or that holds checkpoints of another job.
    pub(crate) async fn open(folder: &str, kept: usize, job: &Fingerprint, task: &TaskContext) -> Result<(Self, bool)> {
        let (shown, store, hold) = match is_url(folder) {
            true => remote(Remote::find(folder, &task.runtime_env(), task.session_config())?).await?,
            false => local(folder)?,
        };
        let run = match &hold {
            Hold::Lock(_) => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
            Hold::Lease(lease) => lease.run(),
        };
        let (parts, oldest) = (Mutex::default(), Mutex::default());
        let store = Self { shown, store, kept: kept.max(1), hold, run, parts, oldest };
        match store.is_new(job).await {
            Ok(is_new) => Ok((store, is_new)),
            Err(error) => {
                store.leave().await;
                Err(error)
            }
        }
    }

    async fn is_new(&self, job: &Fingerprint) -> Result<bool> {
        let saved = self.job().await?;
        saved.iter().try_for_each(|saved| job.check(saved, &self.shown))?;
        Ok(saved.is_none())
    }

    /// The job that the checkpoints are of, if there are any.
    async fn job(&self) -> Result<Option<Fingerprint>> {
        saved_job(self.store.as_ref(), &self.shown).await
    }

    /// For how many workers the data of the job in a folder was divided; none if there is none that can be read.
    pub(crate) fn divided_for(folder: &str) -> Option<usize> {
        let folder = folder.strip_prefix("file://").unwrap_or(folder);
        let bytes = std::fs::read(std::path::Path::new(folder).join(JOB)).ok()?;
        Some(Fingerprint::decode(&bytes).ok()?.divided_for)
    }

    /// The same of a folder in a store.
    ///
    /// # Errors
    /// A store that cannot be read, or that the session does not know.
    pub(crate) async fn divided_for_in(folder: &Remote) -> Result<Option<usize>> {
        let job = saved_job(&PrefixStore::new(Arc::clone(&folder.store), folder.path.clone()), &folder.shown).await?;
        Ok(job.map(|job| job.divided_for))
    }

    /// Notes what the checkpoints will be of.
    ///
    /// # Errors
    /// A folder that cannot be written, or where another run has noted something else.
    pub(crate) async fn begin(&self, job: &Fingerprint) -> Result<()> {
        let mode = match self.hold {
            Hold::Lock(_) => PutMode::Overwrite,
            Hold::Lease(_) => PutMode::Create,
        };
        match self.store.put_opts(&Path::from(JOB), job.encode().into(), mode.into()).await {
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                Ok(self.job().await?.iter().try_for_each(|saved| job.check(saved, &self.shown))?)
            }
            put => put.map(|_| ()).map_err(|error| self.wrong(error)),
        }
    }

    /// A number for what this run writes, which no other run at the same time has.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// Whether this run still has the folder.
    ///
    /// # Errors
    /// Another one has, or may have, taken it over.
    pub(crate) fn check_held(&self) -> Result<()> {
        match &self.hold {
            Hold::Lock(_) => Ok(()),
            Hold::Lease(lease) => lease.check(),
        }
    }

    /// Leaves the folder to the next run.
    pub(crate) async fn leave(&self) {
        if let Hold::Lease(lease) = &self.hold {
            lease.leave().await;
        }
    }

    /// The last whole checkpoint of a pipeline; none if it has none yet. What is damaged is told in the log.
    ///
    /// # Errors
    /// A folder that cannot be read; checkpoints of which none is whole.
    pub(crate) async fn latest(&self, pipeline: usize) -> Result<Option<Checkpoint>> {
        self.latest_before(pipeline, u64::MAX).await
    }

    /// The last whole checkpoints of pipelines that rely on each other. Where one is damaged, those that rely on it give way
    /// to older ones, too.
    ///
    /// # Errors
    /// As [`CheckpointStore::latest`].
    pub(crate) async fn latest_of_all(&self, pipelines: Range<usize>) -> Result<Vec<Checkpoint>> {
        let (mut all, first) = (vec![], pipelines.start);
        for pipeline in pipelines {
            all.push(self.latest(pipeline).await?.unwrap_or_default());
        }
        while let Some(index) = all.iter().position(|checkpoint| !checkpoint.can_rely_on(&all)) {
            let (pipeline, epoch) = (first + index, all[index].epoch);
            tracing::warn!("{}/{}: relies on one that is damaged", self.shown, path_of(pipeline, epoch));
            all[index] = self.latest_before(pipeline, epoch).await?.unwrap_or_default();
        }
        Ok(all)
    }

    async fn latest_before(&self, pipeline: usize, end: u64) -> Result<Option<Checkpoint>> {
        let mut damaged = None;
        for epoch in self.epochs(pipeline).await?.into_iter().rev().filter(|epoch| *epoch < end) {
            let path = path_of(pipeline, epoch);
            match self.whole(pipeline, &self.read(&path).await?).await? {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) => {
                    tracing::warn!("{}/{path}: {error}; the checkpoint before is used", self.shown);
                    damaged = Some(format!("{}/{path}", self.shown));
                }
            }
        }
        match damaged {
            Some(path) => Err(no_whole_one(path).into()),
            None => Ok(None),
        }
    }

    /// A checkpoint with the parts that it names, or what is wrong with it.
    async fn whole(&self, pipeline: usize, bytes: &[u8]) -> Result<std::result::Result<Checkpoint, String>> {
        let mut checkpoint = match Checkpoint::decode(bytes) {
            Ok(checkpoint) => checkpoint,
            damaged => return Ok(damaged),
        };
        for id in checkpoint.parts() {
            let path = path_of_part(pipeline, id);
            let added = match self.store.get(&path).await {
                Err(StoreError::NotFound { .. }) => Err("it is not there".to_string()),
                found => {
                    let bytes = found.map_err(|error| self.wrong(error))?.bytes().await;
                    checkpoint.add_part(id, &bytes.map_err(|error| self.wrong(error))?)
                }
            };
            if let Err(error) = added {
                return Ok(Err(format!("its part {path}: {error}")));
            }
        }
        Ok(Ok(checkpoint))
    }

    /// What a pipeline goes on from when it was left at `last`. In a store this is saved once more: whatever a run that
    /// was taken for dead still sends of this pipeline comes too late then, and changes nothing.
    ///
    /// # Errors
    /// As [`CheckpointStore::put`].
    pub(crate) async fn fenced(&self, pipeline: usize, last: Checkpoint) -> Result<Checkpoint> {
        if last.has_ended {
            return Ok(last);
        }
        let found = self.objects(pipeline).await?;
        self.parts.lock().begin(pipeline, parts_of(&found));
        if matches!(self.hold, Hold::Lock(_)) {
            return Ok(last);
        }
        let next = Checkpoint { epoch: last.epoch + 1, ..last };
        self.put(pipeline, &next).await?;
        // What a run that was killed had left to take away.
        let (oldest, _) = self.oldest_known(pipeline);
        for epoch in self.listed(pipeline).await?.into_iter().filter(|epoch| *epoch < oldest) {
            self.delete(&path_of(pipeline, epoch)).await?;
        }
        Ok(next)
    }

    /// Saves a checkpoint: it is there as a whole or not at all. Older ones go.
    ///
    /// # Errors
    /// A folder that cannot be written, or that another run has taken over.
    pub(crate) async fn put(&self, pipeline: usize, checkpoint: &Checkpoint) -> Result<usize> {
        let part = PartId { epoch: checkpoint.epoch, run: self.run };
        let mut length = 0;
        if checkpoint.parts().contains(&part) {
            let bytes = PutPayload::from_iter(checkpoint.encode_part(part)?);
            length += bytes.content_length();
            self.store.put(&path_of_part(pipeline, part), bytes).await.map_err(|error| self.wrong(error))?;
        }
        let bytes = PutPayload::from_iter(checkpoint.encode()?);
        length += bytes.content_length();
        self.put_checkpoint(pipeline, checkpoint, bytes).await?;
        let forgotten = self.parts.lock().add(pipeline, checkpoint.parts(), self.kept);
        for part in forgotten {
            self.delete(&path_of_part(pipeline, part)).await?;
        }
        Ok(length)
    }

    async fn put_checkpoint(&self, pipeline: usize, checkpoint: &Checkpoint, bytes: PutPayload) -> Result<()> {
        let path = path_of(pipeline, checkpoint.epoch);
        if let Hold::Lease(lease) = &self.hold {
            lease.check()?;
            self.put_new(&path, bytes).await?;
            // Who has stood still meanwhile may have put it where another run had, and has taken its own away again.
            lease.check()?;
            return self.forget(pipeline, (checkpoint.epoch + 1).saturating_sub(self.kept as u64)).await;
        }
        self.store.put(&path, bytes).await.map_err(|error| self.wrong(error))?;
        for epoch in self.epochs(pipeline).await? {
            if epoch + self.kept as u64 <= checkpoint.epoch {
                self.delete(&path_of(pipeline, epoch)).await?;
            }
        }
        Ok(())
    }

    /// Puts a checkpoint where none is, or a damaged one.
    ///
    /// # Errors
    /// A whole one: another run has saved the pipeline.
    async fn put_new(&self, path: &Path, bytes: PutPayload) -> Result<()> {
        match self.store.put_opts(path, bytes.clone(), PutMode::Create.into()).await {
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
            put => return put.map(|_| ()).map_err(|error| self.wrong(error)),
        }
        let found = match self.store.get(path).await {
            // Who has put it goes on, and has taken it away since.
            Err(StoreError::NotFound { .. }) => return Err(another_run(&self.shown).into()),
            found => found.map_err(|error| self.wrong(error))?,
        };
        let version = version_of(&found.meta);
        match Checkpoint::decode(&found.bytes().await.map_err(|error| self.wrong(error))?) {
            Ok(_) => Err(another_run(&self.shown).into()),
            Err(_) => {
                let put = self.store.put_opts(path, bytes, PutMode::Update(version).into()).await;
                put.map(|_| ()).map_err(|error| self.wrong(error))
            }
        }
    }

    /// Takes away the checkpoints before `oldest`, after it has been noted which one is the oldest then.
    async fn forget(&self, pipeline: usize, oldest: u64) -> Result<()> {
        let (before, version) = self.oldest_known(pipeline);
        if oldest <= before {
            return Ok(());
        }
        // An attempt that arrives late must not set it back.
        let mode = version.map_or(PutMode::Create, PutMode::Update);
        let noted = self.store.put_opts(&oldest_of(pipeline), oldest.to_string().into(), mode.into()).await;
        let noted = match noted {
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                return Err(another_run(&self.shown).into());
            }
            noted => noted.map_err(|error| self.wrong(error))?,
        };
        self.oldest.lock().insert(pipeline, (oldest, Some(noted.into())));
        for epoch in before..oldest {
            self.delete(&path_of(pipeline, epoch)).await?;
        }
        Ok(())
    }

    fn oldest_known(&self, pipeline: usize) -> (u64, Option<UpdateVersion>) {
        self.oldest.lock().get(&pipeline).cloned().unwrap_or((1, None))
    }

    async fn delete(&self, path: &Path) -> Result<()> {
        self.store.delete(path).await.map_err(|error| self.wrong(error))
    }

    async fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let found = self.store.get(path).await.map_err(|error| self.wrong(error))?;
        Ok(found.bytes().await.map_err(|error| self.wrong(error))?.into())
    }

    /// The epochs after which a pipeline has saved itself, the first one first.
    pub(crate) async fn epochs(&self, pipeline: usize) -> Result<Vec<u64>> {
        match self.hold {
            Hold::Lock(_) => self.listed(pipeline).await,
            Hold::Lease(_) => self.asked_for(pipeline).await,
        }
    }

    async fn listed(&self, pipeline: usize) -> Result<Vec<u64>> {
        let found = self.objects(pipeline).await?;
        Ok(epochs_of(&found))
    }

    /// What is found of a pipeline.
    async fn objects(&self, pipeline: usize) -> Result<Vec<Path>> {
        let found: Vec<_> =
            self.store.list(Some(&folder_of(pipeline))).try_collect().await.map_err(|error| self.wrong(error))?;
        Ok(found.into_iter().map(|object| object.location).collect())
    }

    /// One epoch after the other has been saved, and none but the oldest are taken away.
    async fn asked_for(&self, pipeline: usize) -> Result<Vec<u64>> {
        let (oldest, version) = match self.store.get(&oldest_of(pipeline)).await {
            Ok(found) => {
                let version = version_of(&found.meta);
                let text = found.bytes().await.map_err(|error| self.wrong(error))?;
                let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
                let number = number.ok_or_else(|| no_whole_one(format!("{}/{}", self.shown, oldest_of(pipeline))))?;
                (number, Some(version))
            }
            Err(StoreError::NotFound { .. }) => (1, None),
            Err(error) => return Err(self.wrong(error)),
        };
        let mut epochs = vec![];
        for epoch in oldest.. {
            match self.store.head(&path_of(pipeline, epoch)).await {
                Ok(_) => epochs.push(epoch),
                Err(StoreError::NotFound { .. }) => break,
                Err(error) => return Err(self.wrong(error)),
            }
        }
        self.oldest.lock().insert(pipeline, (oldest, version));
        match epochs.is_empty() && oldest > 1 {
            true => Err(no_whole_one(format!("{}/{}", self.shown, path_of(pipeline, oldest))).into()),
            false => Ok(epochs),
        }
    }

    fn wrong(&self, error: StoreError) -> DataFusionError {
        not_usable(&self.shown, root(&error)).into()
    }
}

/// A folder of this machine, and its lock.
fn local(folder: &str) -> Result<(String, Arc<dyn ObjectStore>, Hold)> {
    let wrong = |error: std::io::Error| not_usable(folder, &error);
    let plain = folder.strip_prefix("file://").unwrap_or(folder);
    std::fs::create_dir_all(plain).map_err(wrong)?;
    let path = std::path::absolute(plain).map_err(wrong)?;
    let lock = File::options().create(true).append(true).open(path.join(LOCK)).map_err(wrong)?;
    is_free(&lock, folder)?;
    Ok((folder.to_string(), Arc::new(LocalFileSystem::new_with_prefix(&path)?), Hold::Lock(lock)))
}

/// A folder in a store, and its lease.
async fn remote(folder: Remote) -> Result<(String, Arc<dyn ObjectStore>, Hold)> {
    let lease = Lease::take(&folder).await?;
    Ok((folder.shown, Arc::new(PrefixStore::new(folder.store, folder.path)), Hold::Lease(lease)))
}

/// The job that the checkpoints in a folder are of, if there are any.
pub(super) async fn saved_job(store: &dyn ObjectStore, shown: &str) -> Result<Option<Fingerprint>> {
    let wrong = |error: StoreError| not_usable(shown, root(&error));
    let found = match store.get(&Path::from(JOB)).await {
        Err(StoreError::NotFound { .. }) => return Ok(None),
        found => found.map_err(wrong)?,
    };
    let job = Fingerprint::decode(&found.bytes().await.map_err(wrong)?);
    Ok(Some(job.map_err(|error| damaged_job(&format!("{shown}/{JOB}"), error))?))
}

fn folder_of(pipeline: usize) -> Path {
    Path::from(format!("{pipeline:05}"))
}

fn oldest_of(pipeline: usize) -> Path {
    folder_of(pipeline).join(OLDEST)
}

/// The epoch of a checkpoint's object.
pub(super) fn epoch_of(path: &Path) -> Option<u64> {
    path.filename()?.strip_suffix(EXTENSION)?.parse().ok()
}

/// The epochs of the checkpoints among objects, in order.
fn epochs_of(objects: &[Path]) -> Vec<u64> {
    let mut epochs: Vec<u64> = objects.iter().filter_map(epoch_of).collect();
    epochs.sort_unstable();
    epochs
}

fn no_whole_one(path: String) -> Error {
    let error = Error::data("is damaged, and there is no whole checkpoint before").in_file(path);
    error.help("remove the folder of checkpoints and the output, and run the job anew")
}

pub(super) fn another_run(folder: &str) -> Error {
    let error = Error::data("another run goes on from these checkpoints now").in_file(folder);
    error.help("wait until it has ended, or name another folder")
}

fn path_of(pipeline: usize, epoch: u64) -> Path {
    Path::from(format!("{pipeline:05}/{epoch:010}{EXTENSION}"))
}

pub(super) fn damaged_job(path: &str, error: String) -> Error {
    let error = Error::data(format!("is damaged: {error}")).in_file(path);
    error.help("remove the folder of checkpoints and the output, and run the job anew")
}

/// Takes the lock of a folder.
///
/// # Errors
/// Another run has it.
pub(super) fn is_free(lock: &File, folder: &str) -> Result<()> {
    match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(another_run(folder).into()),
        Err(TryLockError::Error(error)) => Err(not_usable(folder, &error).into()),
    }
}

pub(super) fn not_usable(folder: &str, cause: &dyn std::error::Error) -> Error {
    Error::data(format!("cannot hold checkpoints: {cause}")).in_file(folder).help(match is_url(folder) {
        true => "check that the store can be reached, and that this user may read and write there",
        false => "check that it is a folder, that it may be written to, and that the disk has room",
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use datafusion::prelude::{SessionConfig, SessionContext};
    use object_store::memory::InMemory;

    use crate::store::Policy;

    use super::*;

    pub(in crate::checkpoint) fn job(plan: &str) -> Fingerprint {
        Fingerprint {
            version: "1".to_string(),
            plan: plan.lines().map(str::to_string).collect(),
            pipelines: "2".to_string(),
            divided_for: 2,
            source: vec!["a".to_string()],
            output: "out/".to_string(),
        }
    }

    #[tokio::test]
    async fn the_last_whole_checkpoint_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str().unwrap();
        let (store, is_new) = CheckpointStore::open(name, 3, &job("scan"), &TaskContext::default()).await.unwrap();
        assert!(is_new);
        store.begin(&job("scan")).await.unwrap();
        for epoch in 1..=5 {
            store.put(7, &Checkpoint { epoch, ..Checkpoint::default() }).await.unwrap();
        }
        assert_eq!(store.epochs(7).await.unwrap(), [3, 4, 5]);
        assert_eq!(store.latest(8).await.unwrap(), None);
        assert_eq!(store.latest(7).await.unwrap().unwrap().epoch, 5);
        let file = |epoch: u64| folder.path().join(path_of(7, epoch).to_string());
        std::fs::write(file(5), "cut").unwrap();
        assert_eq!(store.latest(7).await.unwrap().unwrap().epoch, 4);
        std::fs::write(file(4), "").unwrap();
        std::fs::remove_file(file(3)).unwrap();
        assert!(store.latest(7).await.unwrap_err().to_string().contains("no whole checkpoint before"));
    }

    #[tokio::test]
    async fn a_folder_is_of_one_job_and_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str().unwrap();
        let open = async |plan: &str| CheckpointStore::open(name, 3, &job(plan), &TaskContext::default()).await;
        let (store, _) = open("scan\n filter a").await.unwrap();
        store.begin(&job("scan\n filter a")).await.unwrap();
        assert!(open("scan\n filter a").await.err().unwrap().to_string().contains("another run"));
        drop(store);
        let other = open("scan\n filter b").await.err().unwrap().to_string();
        assert!(other.contains("another job (plan then: filter a; now: filter b)"), "{other}");
        let other = open("scan").await.err().unwrap().to_string();
        assert!(other.contains("then: filter a; now: nothing more"), "{other}");
        assert!(!open("scan\n filter a").await.unwrap().1);
    }

    /// A run that was taken for dead goes on for a while, and nothing of it counts.
    #[tokio::test]
    async fn who_was_overtaken_saves_nothing() {
        let policy = Policy { lease: Duration::from_millis(60), ..Policy::default() };
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_extension(Arc::new(policy)));
        ctx.register_object_store(&url::Url::parse("s3://bucket").unwrap(), Arc::new(InMemory::new()));
        let open = async || CheckpointStore::open("s3://bucket/job", 3, &job("scan"), &ctx.task_ctx()).await;
        let (first, _) = open().await.unwrap();
        first.begin(&job("scan")).await.unwrap();
        let one = first.fenced(7, Checkpoint::default()).await.unwrap();
        assert_eq!(one.epoch, 1);
        assert!(open().await.err().unwrap().to_string().contains("another run goes on"));
        // It gives no sign of life any more, but can still reach the store.
        let Hold::Lease(lease) = &first.hold else { panic!("a lock in a store") };
        let _silence = lease.silence().await;
        let (second, is_new) = open().await.unwrap();
        assert!(!is_new && second.run() == 2);
        let last = second.latest(7).await.unwrap().unwrap();
        assert_eq!(second.fenced(7, last).await.unwrap().epoch, 2);
        let late =
            first.put_new(&path_of(7, 2), Checkpoint { epoch: 2, ..one }.encode().unwrap().concat().into()).await;
        assert!(late.unwrap_err().to_string().contains("another run"));
        assert!(first.put(7, &Checkpoint { epoch: 3, ..Checkpoint::default() }).await.is_err());
        assert_eq!(second.epochs(7).await.unwrap(), [1, 2]);
    }

    #[tokio::test]
    async fn a_damaged_checkpoint_in_a_store_is_put_again() {
        let (ctx, objects) = (SessionContext::new(), Arc::new(InMemory::new()));
        ctx.register_object_store(&url::Url::parse("s3://bucket").unwrap(), Arc::clone(&objects) as _);
        let (store, _) = CheckpointStore::open("s3://bucket/job", 2, &job("scan"), &ctx.task_ctx()).await.unwrap();
        for epoch in 1..=4 {
            store.put(0, &Checkpoint { epoch, ..Checkpoint::default() }).await.unwrap();
        }
        assert_eq!(store.epochs(0).await.unwrap(), [3, 4]);
        objects.put(&Path::from(format!("job/{}", path_of(0, 4))), "cut".into()).await.unwrap();
        let last = store.latest(0).await.unwrap().unwrap();
        assert_eq!(last.epoch, 3);
        assert_eq!(store.fenced(0, last).await.unwrap().epoch, 4);
        assert_eq!(store.latest(0).await.unwrap().unwrap().epoch, 4);
    }
}
