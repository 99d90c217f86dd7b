//! What a folder of checkpoints holds, for a person, and how it is taken away.

use std::fs::{self, DirEntry, File};
use std::io::{Error as IoError, ErrorKind};
use std::path::Path;
use std::time::SystemTime;

use datafusion::common::Result;

use crate::error::Error;

use super::job::Fingerprint;
use super::object::Checkpoint;
use super::store::{EXTENSION, JOB, LOCK, ROWS, damaged_job, is_free, not_usable};

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

/// Reads what a folder of checkpoints holds. A job may be running on it.
///
/// # Errors
/// A folder that holds no job, or that cannot be read.
pub fn checkpoints(folder: &str) -> Result<SavedJob> {
    let job = job_of(folder)?;
    let mut checkpoints = vec![];
    for entry in pipelines_of(folder)? {
        let pipeline = number(&entry).unwrap_or_default();
        for file in entries(folder, &entry.path())? {
            // A run that goes on at the same time takes old ones away.
            if let Some(saved) = saved(pipeline, &file).map_err(|error| not_usable(folder, &error))? {
                checkpoints.push(saved);
            }
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
pub fn delete_checkpoints(folder: &str) -> Result<usize> {
    job_of(folder)?;
    let wrong = |error: IoError| not_usable(folder, &error);
    let path = Path::new(folder);
    let lock = File::options().create(true).append(true).open(path.join(LOCK)).map_err(wrong)?;
    is_free(&lock, folder)?;
    let mut deleted = 0;
    for pipeline in pipelines_of(folder)? {
        for file in entries(folder, &pipeline.path())? {
            if epoch(&file).is_some() {
                fs::remove_file(file.path()).map_err(wrong)?;
                deleted += 1;
            }
        }
        remove_empty(&pipeline.path()).map_err(wrong)?;
    }
    let rows = path.join(ROWS);
    if rows.is_dir() {
        fs::remove_dir_all(rows).map_err(wrong)?;
    }
    // The last, so that what is interrupted can be done again.
    fs::remove_file(path.join(JOB)).map_err(wrong)?;
    fs::remove_file(path.join(LOCK)).map_err(wrong)?;
    remove_empty(path).map_err(wrong)?;
    Ok(deleted)
}

fn job_of(folder: &str) -> Result<Fingerprint> {
    let path = Path::new(folder).join(JOB);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let error = Error::data("holds no checkpoints").in_file(folder);
            return Err(error.help("name the folder that --checkpoint-dir was given").into());
        }
        Err(error) => return Err(not_usable(folder, &error).into()),
    };
    Ok(Fingerprint::decode(&bytes).map_err(|error| damaged_job(&path.display().to_string(), error))?)
}

/// The folders of the pipelines.
fn pipelines_of(folder: &str) -> Result<Vec<DirEntry>> {
    let all = entries(folder, Path::new(folder))?;
    Ok(all.into_iter().filter(|entry| number(entry).is_some() && entry.path().is_dir()).collect())
}

fn entries(folder: &str, path: &Path) -> Result<Vec<DirEntry>> {
    let entries = fs::read_dir(path).and_then(Iterator::collect);
    Ok(entries.map_err(|error: IoError| not_usable(folder, &error))?)
}

/// The number of a pipeline that a folder is named after.
fn number(entry: &DirEntry) -> Option<usize> {
    entry.file_name().to_str().filter(|name| name.len() == 5)?.parse().ok()
}

fn epoch(entry: &DirEntry) -> Option<u64> {
    entry.file_name().to_str()?.strip_suffix(EXTENSION)?.parse().ok()
}

fn saved(pipeline: usize, file: &DirEntry) -> std::io::Result<Option<SavedPipeline>> {
    let Some(epoch) = epoch(file) else { return Ok(None) };
    let read = fs::read(file.path()).and_then(|bytes| Ok((bytes, file.metadata()?.modified()?)));
    let (bytes, saved_at) = match read {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let content = Checkpoint::decode(&bytes).map(|checkpoint| SavedContent {
        rows_read: checkpoint.rows_read,
        rows_out: checkpoint.rows_out,
        late_rows: checkpoint.late_rows,
        has_ended: checkpoint.has_ended,
        state_rows: checkpoint.operators.iter().map(|saved| saved.rows()).collect(),
        files: checkpoint.files,
    });
    Ok(Some(SavedPipeline { pipeline, epoch, saved_at, bytes: bytes.len() as u64, content }))
}

/// Removes a folder, unless somebody else has put something there.
fn remove_empty(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::CheckpointStore;
    use crate::checkpoint::store::tests::job;

    #[tokio::test]
    async fn a_folder_is_looked_at_and_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let (path, own) = (folder.path().join("job"), folder.path().join("job/own.txt"));
        let name = path.to_str().unwrap();
        assert!(checkpoints(name).unwrap_err().to_string().contains("holds no checkpoints"));
        let (store, _) = CheckpointStore::open(name, 3, &job("scan")).await.unwrap();
        store.begin(&job("scan")).await.unwrap();
        for epoch in 1..=2 {
            store.put(4, &Checkpoint { epoch, rows_read: 10 * epoch, ..Checkpoint::default() }).await.unwrap();
        }
        fs::write(path.join("00004/0000000001.checkpoint"), "cut").unwrap();
        fs::write(&own, "own").unwrap();
        let found = checkpoints(name).unwrap();
        assert_eq!(found.plan, ["scan"]);
        let [damaged, whole] = found.checkpoints.as_slice() else { panic!("{found:?}") };
        assert!(damaged.content.is_err());
        assert_eq!((whole.pipeline, whole.epoch, whole.content.as_ref().unwrap().rows_read), (4, 2, 20));
        assert!(delete_checkpoints(name).unwrap_err().to_string().contains("another run"));
        drop(store);
        assert_eq!(delete_checkpoints(name).unwrap(), 2);
        let left: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [own]);
    }
}
