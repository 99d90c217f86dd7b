//! The folder of a job's checkpoints.

use std::fs::{File, TryLockError};
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::error::Error;

use super::job::Fingerprint;
use super::object::Checkpoint;

pub(super) const JOB: &str = "job.json";
pub(super) const LOCK: &str = "lock";
pub(super) const EXTENSION: &str = ".checkpoint";
/// The folder of rows for what runs where the pipelines meet.
pub(crate) const ROWS: &str = "rows";

/// The checkpoints of a job, while it runs.
pub(crate) struct CheckpointStore {
    /// The folder as the user wrote it.
    shown: String,
    store: Arc<dyn ObjectStore>,
    /// How many of each pipeline are kept.
    kept: usize,
    /// Nobody else has the folder as long as this is held.
    _lock: File,
}

impl CheckpointStore {
    /// Takes a folder for a job, which is made if it is not there. Says whether the job begins now.
    ///
    /// # Errors
    /// A folder that cannot be written, that another run has, or that holds checkpoints of another job.
    pub(crate) async fn open(folder: &str, kept: usize, job: &Fingerprint) -> Result<(Self, bool)> {
        if folder.contains("://") {
            let error = Error::data("is no local folder").in_file(folder);
            return Err(error.help("checkpoints go into a folder of this machine").into());
        }
        let wrong = |error: std::io::Error| not_usable(folder, &error);
        std::fs::create_dir_all(folder).map_err(wrong)?;
        let path = std::path::absolute(folder).map_err(wrong)?;
        let lock = File::options().create(true).append(true).open(path.join(LOCK)).map_err(wrong)?;
        is_free(&lock, folder)?;
        let store = LocalFileSystem::new_with_prefix(&path)?;
        let store = Self { shown: folder.to_string(), store: Arc::new(store), kept: kept.max(1), _lock: lock };
        let is_new = match store.store.get(&Path::from(JOB)).await {
            Ok(found) => {
                let saved = Fingerprint::decode(&found.bytes().await?);
                let saved = saved.map_err(|error| damaged_job(&format!("{folder}/{JOB}"), error))?;
                job.check(&saved, folder)?;
                false
            }
            Err(object_store::Error::NotFound { .. }) => true,
            Err(error) => return Err(store.wrong(error)),
        };
        Ok((store, is_new))
    }

    /// For how many workers the data of the job in a folder was divided; none if there is none that can be read.
    pub(crate) fn divided_for(folder: &str) -> Option<usize> {
        let bytes = std::fs::read(std::path::Path::new(folder).join(JOB)).ok()?;
        Some(Fingerprint::decode(&bytes).ok()?.divided_for)
    }

    /// Notes what the checkpoints will be of.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(crate) async fn begin(&self, job: &Fingerprint) -> Result<()> {
        self.store.put(&Path::from(JOB), job.encode().into()).await.map_err(|error| self.wrong(error))?;
        Ok(())
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
    pub(crate) async fn latest_of_all(&self, pipelines: usize) -> Result<Vec<Checkpoint>> {
        let mut all = vec![];
        for pipeline in 0..pipelines {
            all.push(self.latest(pipeline).await?.unwrap_or_default());
        }
        while let Some(pipeline) = all.iter().position(|checkpoint| !checkpoint.can_rely_on(&all)) {
            let epoch = all[pipeline].epoch;
            tracing::warn!("{}/{}: relies on one that is damaged", self.shown, path_of(pipeline, epoch));
            all[pipeline] = self.latest_before(pipeline, epoch).await?.unwrap_or_default();
        }
        Ok(all)
    }

    async fn latest_before(&self, pipeline: usize, end: u64) -> Result<Option<Checkpoint>> {
        let mut damaged = None;
        for epoch in self.epochs(pipeline).await?.into_iter().rev().filter(|epoch| *epoch < end) {
            let path = path_of(pipeline, epoch);
            let found = self.store.get(&path).await.map_err(|error| self.wrong(error))?;
            match Checkpoint::decode(&found.bytes().await.map_err(|error| self.wrong(error))?) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) => {
                    tracing::warn!("{}/{path}: {error}; the checkpoint before is used", self.shown);
                    damaged = Some(format!("{}/{path}", self.shown));
                }
            }
        }
        match damaged {
            Some(path) => Err(Error::data("is damaged, and there is no whole checkpoint before")
                .in_file(path)
                .help("remove the folder of checkpoints and the output, and run the job anew")
                .into()),
            None => Ok(None),
        }
    }

    /// Saves a checkpoint: it is there as a whole or not at all. Older ones go.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(crate) async fn put(&self, pipeline: usize, checkpoint: &Checkpoint) -> Result<usize> {
        let bytes = checkpoint.encode()?;
        let length = bytes.len();
        let path = path_of(pipeline, checkpoint.epoch);
        self.store.put(&path, bytes.into()).await.map_err(|error| self.wrong(error))?;
        for epoch in self.epochs(pipeline).await? {
            if epoch + self.kept as u64 <= checkpoint.epoch {
                self.store.delete(&path_of(pipeline, epoch)).await.map_err(|error| self.wrong(error))?;
            }
        }
        Ok(length)
    }

    /// The epochs after which a pipeline has saved itself, the first one first.
    async fn epochs(&self, pipeline: usize) -> Result<Vec<u64>> {
        let folder = Path::from(format!("{pipeline:05}"));
        let found: Vec<_> = self.store.list(Some(&folder)).try_collect().await.map_err(|error| self.wrong(error))?;
        let epoch = |path: &Path| path.filename()?.strip_suffix(EXTENSION)?.parse().ok();
        let mut epochs: Vec<u64> = found.iter().filter_map(|object| epoch(&object.location)).collect();
        epochs.sort_unstable();
        Ok(epochs)
    }

    fn wrong(&self, error: object_store::Error) -> DataFusionError {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        not_usable(&self.shown, cause).into()
    }
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
        Err(TryLockError::WouldBlock) => {
            let error = Error::data("another run goes on from these checkpoints now").in_file(folder);
            Err(error.help("wait until it has ended, or name another folder").into())
        }
        Err(TryLockError::Error(error)) => Err(not_usable(folder, &error).into()),
    }
}

pub(super) fn not_usable(folder: &str, cause: &dyn std::error::Error) -> Error {
    Error::data(format!("cannot hold checkpoints: {cause}"))
        .in_file(folder)
        .help("check that it is a folder, that it may be written to, and that the disk has room")
}

#[cfg(test)]
pub(super) mod tests {
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
        let (store, is_new) = CheckpointStore::open(name, 3, &job("scan")).await.unwrap();
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
        let open = async |plan: &str| CheckpointStore::open(name, 3, &job(plan)).await;
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
}
