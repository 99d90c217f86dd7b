//! What a folder of checkpoints holds, for a person, and how it is taken away.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path as LocalPath, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::context::SessionContext;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::error::Error;
use crate::store::{Remote, is_url, root};

use super::job::Fingerprint;
use super::lease::Lease;
use super::object::Checkpoint;
use super::parts::part_of;
use super::store::{JOB, LOCK, OLDEST, ROWS, epoch_of, is_free, not_usable, saved_job};

/// A job that has saved itself.
#[derive(Debug, Clone)]
pub struct SavedJob {
    /// The version of the program.
    pub version: String,
    /// The plan that every pipeline runs, line by line.
    pub plan: Vec<String>,
    /// How many pipelines there are, and how they get their rows.
    pub pipelines: String,
    /// The files that are read, the columns and the options.
    pub source: Vec<String>,
    /// Where the rows go.
    pub output: String,
    /// Its checkpoints, by pipeline and epoch.
    pub checkpoints: Vec<SavedPipeline>,
}

/// A checkpoint of a pipeline.
#[derive(Debug, Clone)]
pub struct SavedPipeline {
    /// Which pipeline, counted from 0.
    pub pipeline: usize,
    /// How often the pipeline had saved itself, counted from 1.
    pub epoch: u64,
    /// When it was written.
    pub saved_at: SystemTime,
    /// Its size in bytes.
    pub bytes: u64,
    /// What it holds; what is wrong with it if it is damaged.
    pub content: std::result::Result<SavedContent, String>,
}

/// What a whole checkpoint holds.
#[derive(Debug, Clone, Default)]
pub struct SavedContent {
    /// Rows that the reader had given.
    pub rows_read: u64,
    /// Of text that can be read from the middle, or files that are followed: where the next run goes on.
    pub goes_on_at: Option<String>,
    /// Rows that had left the pipeline.
    pub rows_out: u64,
    /// Rows that were late.
    pub late_rows: u64,
    /// Whether the pipeline had read all of its rows.
    pub has_ended: bool,
    /// Rows of state of each operator, the first stage first.
    pub state_rows: Vec<usize>,
    /// The files that were written in the epoch.
    pub files: Vec<String>,
}

/// Reads what a folder of checkpoints holds, on this machine or, by its URL, in a store that the session knows. A job may
/// be running on it.
///
/// # Errors
/// A folder that holds no job, or that cannot be read.
pub async fn checkpoints(ctx: &SessionContext, folder: &str) -> Result<SavedJob> {
    let folder = Folder::find(ctx, folder)?;
    let job = folder.job().await?;
    let mut checkpoints = vec![];
    for object in folder.list(None).await? {
        let Some((pipeline, epoch)) = pipeline_of(&object.location).zip(epoch_of(&object.location)) else { continue };
        // A run that goes on at the same time takes old ones away.
        if let Some(content) = folder.content(&object.location).await? {
            let (saved_at, bytes) = (object.last_modified.into(), object.size);
            checkpoints.push(SavedPipeline { pipeline, epoch, saved_at, bytes, content });
        }
    }
    checkpoints.sort_by_key(|saved| (saved.pipeline, saved.epoch));
    let Fingerprint { version, plan, pipelines, source, output, .. } = job;
    Ok(SavedJob { version, plan, pipelines, source, output, checkpoints })
}

/// Takes the checkpoints of a job away, and nothing else that may be in the folder. Output that the job has written stays.
/// Gives the number of checkpoints.
///
/// # Errors
/// A folder that holds no job, on which a job is running, or that cannot be written.
pub async fn delete_checkpoints(ctx: &SessionContext, folder: &str) -> Result<usize> {
    let folder = Folder::find(ctx, folder)?;
    folder.job().await?;
    let hold = folder.take().await?;
    let objects = folder.list(None).await?;
    let is_row = |path: &Path| path.parts().next().is_some_and(|first| first.as_ref() == ROWS);
    let is_oldest = |path: &Path| pipeline_of(path).is_some() && path.filename() == Some(OLDEST);
    let saved = |path: &Path| pipeline_of(path).and(epoch_of(path)).is_some();
    let is_part = |path: &Path| pipeline_of(path).and(part_of(path)).is_some();
    let mut deleted = 0;
    for path in objects.iter().map(|object| &object.location) {
        if saved(path) || is_part(path) || is_oldest(path) || is_row(path) {
            folder.delete(path).await?;
            deleted += usize::from(saved(path));
        }
    }
    let pipelines: BTreeSet<usize> = objects.iter().filter_map(|object| pipeline_of(&object.location)).collect();
    folder.remove_folders(pipelines)?;
    // The last, so that what is interrupted can be done again.
    folder.delete(&Path::from(JOB)).await?;
    match hold {
        Hold::Lease(lease) => lease.remove().await?,
        Hold::Lock(_) => folder.remove_lock()?,
    }
    Ok(deleted)
}

/// A folder of checkpoints.
struct Folder {
    shown: String,
    store: Arc<dyn ObjectStore>,
    place: Place,
}

enum Place {
    Local(PathBuf),
    Remote(Remote),
}

/// What keeps a run out.
enum Hold {
    Lock(#[expect(dead_code, reason = "it is held, and not used")] File),
    Lease(Lease),
}

impl Folder {
    fn find(ctx: &SessionContext, folder: &str) -> Result<Self> {
        if is_url(folder) {
            let remote = Remote::find(folder, &ctx.runtime_env(), &ctx.copied_config())?;
            let store = Arc::new(PrefixStore::new(Arc::clone(&remote.store), remote.path.clone()));
            return Ok(Self { shown: remote.shown.clone(), store, place: Place::Remote(remote) });
        }
        let path = LocalPath::new(folder.strip_prefix("file://").unwrap_or(folder));
        if !path.is_dir() {
            return Err(no_job(folder).into());
        }
        let (shown, store) = (folder.to_string(), Arc::new(LocalFileSystem::new_with_prefix(path)?));
        Ok(Self { shown, store, place: Place::Local(path.to_path_buf()) })
    }

    async fn job(&self) -> Result<Fingerprint> {
        Ok(saved_job(self.store.as_ref(), &self.shown).await?.ok_or_else(|| no_job(&self.shown))?)
    }

    async fn take(&self) -> Result<Hold> {
        match &self.place {
            Place::Remote(remote) => Ok(Hold::Lease(Lease::take(remote).await?)),
            Place::Local(path) => {
                let lock = File::options().create(true).append(true).open(path.join(LOCK));
                let lock = lock.map_err(|error| not_usable(&self.shown, &error))?;
                is_free(&lock, &self.shown)?;
                Ok(Hold::Lock(lock))
            }
        }
    }

    async fn list(&self, folder: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        self.store.list(folder).try_collect().await.map_err(|error| self.wrong(&error))
    }

    /// What a checkpoint holds, or what is wrong with it; none if it is not there any more.
    async fn content(&self, path: &Path) -> Result<Option<std::result::Result<SavedContent, String>>> {
        let found = match self.store.get(path).await {
            Err(StoreError::NotFound { .. }) => return Ok(None),
            found => found.map_err(|error| self.wrong(&error))?,
        };
        let bytes = match found.bytes().await {
            Err(StoreError::NotFound { .. }) => return Ok(None),
            bytes => bytes.map_err(|error| self.wrong(&error))?,
        };
        Ok(Some(Checkpoint::decode(&bytes).map(|checkpoint| SavedContent {
            rows_read: checkpoint.rows_read,
            goes_on_at: checkpoint.position.shown().filter(|_| !checkpoint.has_ended),
            rows_out: checkpoint.rows_out,
            late_rows: checkpoint.late_rows,
            has_ended: checkpoint.has_ended,
            state_rows: checkpoint.operators.iter().map(|saved| saved.rows()).collect(),
            files: checkpoint.files,
        })))
    }

    async fn delete(&self, path: &Path) -> Result<()> {
        self.store.delete(path).await.map_err(|error| self.wrong(&error))
    }

    /// Removes the folders that a job has made on this machine.
    fn remove_folders(&self, pipelines: BTreeSet<usize>) -> Result<()> {
        let Place::Local(path) = &self.place else { return Ok(()) };
        let wrong = |error: std::io::Error| not_usable(&self.shown, &error);
        for pipeline in pipelines {
            remove_empty(&path.join(format!("{pipeline:05}"))).map_err(wrong)?;
        }
        // Uploads that were not completed are no objects.
        let rows = path.join(ROWS);
        if rows.is_dir() {
            fs::remove_dir_all(rows).map_err(wrong)?;
        }
        Ok(())
    }

    fn remove_lock(&self) -> Result<()> {
        let Place::Local(path) = &self.place else { return Ok(()) };
        let removed = fs::remove_file(path.join(LOCK)).and_then(|()| remove_empty(path));
        Ok(removed.map_err(|error| not_usable(&self.shown, &error))?)
    }

    fn wrong(&self, error: &StoreError) -> DataFusionError {
        not_usable(&self.shown, root(error)).into()
    }
}

fn no_job(folder: &str) -> Error {
    let error = Error::data("holds no checkpoints").in_file(folder);
    error.help("name the folder that --checkpoint-dir was given")
}

/// The pipeline in whose folder an object is.
fn pipeline_of(path: &Path) -> Option<usize> {
    let mut parts = path.parts();
    let (folder, _, None) = (parts.next()?, parts.next()?, parts.next()) else { return None };
    Some(folder.as_ref()).filter(|folder| folder.len() == 5)?.parse().ok()
}

/// Removes a folder, unless somebody else has put something there.
fn remove_empty(folder: &LocalPath) -> std::io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use url::Url;

    use super::*;
    use crate::checkpoint::CheckpointStore;
    use crate::checkpoint::store::tests::job;

    #[tokio::test]
    async fn a_folder_is_looked_at_and_taken_away() {
        let (folder, ctx) = (tempfile::tempdir().unwrap(), SessionContext::new());
        let (path, own) = (folder.path().join("job"), folder.path().join("job/own.txt"));
        let name = path.to_str().unwrap();
        assert!(checkpoints(&ctx, name).await.unwrap_err().to_string().contains("holds no checkpoints"));
        let (store, _) = CheckpointStore::open(name, 3, &job("scan"), &ctx.task_ctx()).await.unwrap();
        store.begin(&job("scan")).await.unwrap();
        for epoch in 1..=2 {
            store.put(4, &Checkpoint { epoch, rows_read: 10 * epoch, ..Checkpoint::default() }).await.unwrap();
        }
        fs::write(path.join("00004/0000000001.checkpoint"), "cut").unwrap();
        fs::write(&own, "own").unwrap();
        let found = checkpoints(&ctx, name).await.unwrap();
        assert_eq!(found.plan, ["scan"]);
        let [damaged, whole] = found.checkpoints.as_slice() else { panic!("{found:?}") };
        assert!(damaged.content.is_err());
        assert_eq!((whole.pipeline, whole.epoch, whole.content.as_ref().unwrap().rows_read), (4, 2, 20));
        assert!(delete_checkpoints(&ctx, name).await.unwrap_err().to_string().contains("another run"));
        drop(store);
        assert_eq!(delete_checkpoints(&ctx, name).await.unwrap(), 2);
        let left: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [own]);
    }

    #[tokio::test]
    async fn a_folder_in_a_store_too() {
        let (ctx, objects) = (SessionContext::new(), Arc::new(InMemory::new()));
        ctx.register_object_store(&Url::parse("s3://bucket").unwrap(), Arc::clone(&objects) as _);
        let name = "s3://bucket/jobs/a";
        assert!(checkpoints(&ctx, name).await.unwrap_err().to_string().contains("holds no checkpoints"));
        let (store, is_new) = CheckpointStore::open(name, 2, &job("scan"), &ctx.task_ctx()).await.unwrap();
        assert!(is_new);
        store.begin(&job("scan")).await.unwrap();
        for epoch in 1..=3 {
            store.put(4, &Checkpoint { epoch, rows_read: 10 * epoch, ..Checkpoint::default() }).await.unwrap();
        }
        let own = Path::from("jobs/a/own.txt");
        objects.put(&own, "own".into()).await.unwrap();
        let found = checkpoints(&ctx, name).await.unwrap();
        let epochs: Vec<_> = found.checkpoints.iter().map(|saved| (saved.pipeline, saved.epoch)).collect();
        assert_eq!(epochs, [(4, 2), (4, 3)]);
        store.leave().await;
        assert_eq!(delete_checkpoints(&ctx, name).await.unwrap(), 2);
        let left: Vec<_> = objects.list(None).try_collect().await.unwrap();
        assert_eq!(left.into_iter().map(|object| object.location).collect::<Vec<_>>(), [own]);
    }
}
