//! Output in epochs, for jobs that save themselves: staged, then saved, then visible.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::error::Result;
use object_store::ObjectStoreExt;

use crate::error::Error;

use super::Writer;
use super::files::{FileSink, PART, io_error, not_written, part_of_name};

/// Output in epochs, each as a whole: first where no reader looks, and visible when the pipeline has saved that it is
/// there. So no reader sees a row that later moves or comes again.
#[async_trait]
pub trait Epochs: Send + Sync {
    /// A job begins, which has not written anything.
    ///
    /// # Errors
    /// A place that holds output of others.
    async fn begin(&self) -> Result<()>;

    /// The name of what a pipeline writes in an epoch, always the same.
    fn file(&self, pipeline: usize, epoch: u64) -> String;

    /// A writer of a file of that name; closed, it is whole and not yet visible.
    ///
    /// # Errors
    /// Columns that the format cannot hold.
    fn staging_writer(&self, file: &str, schema: SchemaRef) -> Result<Box<dyn Writer>>;

    /// Makes a file visible. Doing it again changes nothing.
    ///
    /// # Errors
    /// A place that cannot be written.
    async fn publish(&self, file: &str) -> Result<()>;

    /// A pipeline goes on after an epoch (0 for none), whose `files` it has saved: they become visible, and what it has
    /// written since is taken away.
    ///
    /// # Errors
    /// A place that cannot be written.
    async fn recover(&self, pipeline: usize, epoch: u64, files: &[String]) -> Result<()>;
}

/// Files of epochs: `part-00003-0000000012.parquet` is what pipeline 3 gave in its 12th epoch. Staged, it has another name
/// in the same folder, which begins with a dot and says no format.
#[async_trait]
impl Epochs for FileSink {
    async fn begin(&self) -> Result<()> {
        let is_output = |name: &str| part_of_name(name).is_some_and(|(_, format)| format == self.format);
        match self.names()?.iter().find(|name| is_output(name)) {
            None => Ok(()),
            Some(name) => Err(Error::data("is output of another run")
                .in_file(format!("{}{name}", self.shown))
                .help("name an empty folder: output that is written exactly once is not mixed with other output")
                .into()),
        }
    }

    fn file(&self, pipeline: usize, epoch: u64) -> String {
        format!("{PART}{pipeline:05}-{epoch:010}.{}", self.extension())
    }

    fn staging_writer(&self, file: &str, schema: SchemaRef) -> Result<Box<dyn Writer>> {
        self.file_writer(Some(&staged(file)), &schema)
    }

    async fn publish(&self, file: &str) -> Result<()> {
        let (from, to) = (self.path.clone().join(staged(file).as_str()), self.path.clone().join(file));
        match self.store.rename(&from, &to).await {
            Err(object_store::Error::NotFound { .. }) if self.local.join(file).is_file() => Ok(()),
            renamed => renamed.map_err(|error| not_written(&format!("{}{file}", self.shown), error)),
        }
    }

    async fn recover(&self, pipeline: usize, epoch: u64, files: &[String]) -> Result<()> {
        for name in self.names()? {
            let file = unfinished(&name).unwrap_or(&name);
            let file = file.strip_prefix('.').and_then(|file| file.strip_suffix(STAGED)).unwrap_or(file);
            let of_pipeline = file.strip_prefix(PART).and_then(|rest| rest.strip_prefix(&format!("{pipeline:05}-")));
            let Some(of_epoch) = of_pipeline.and_then(|rest| rest.split('.').next()?.parse::<u64>().ok()) else {
                continue;
            };
            let is_left_over = name != file && !(name == staged(file) && files.iter().any(|known| known == file));
            if of_epoch > epoch || is_left_over {
                self.remove(&name)?;
            }
        }
        for file in files {
            self.publish(file).await?;
        }
        Ok(())
    }
}

const STAGED: &str = ".staged";

fn staged(file: &str) -> String {
    format!(".{file}{STAGED}")
}

/// The file that an upload into the local file system, which was not completed, was to become.
fn unfinished(name: &str) -> Option<&str> {
    let (file, number) = name.rsplit_once('#')?;
    (!number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())).then_some(file)
}

impl FileSink {
    /// What uploads have left that were not completed, and the file that each was to become.
    pub(super) fn unfinished(&self) -> Result<Vec<(String, String)>> {
        let file = |name: String| Some((unfinished(&name)?.to_string(), name));
        Ok(self.names()?.into_iter().filter_map(file).map(|(file, name)| (name, file)).collect())
    }

    pub(super) fn remove(&self, name: &str) -> Result<()> {
        Ok(std::fs::remove_file(self.in_folder().join(name)).map_err(|error| io_error(&self.shown, &error))?)
    }

    /// The names in the folder.
    fn names(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.in_folder()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(io_error(&self.shown, &error).into()),
        };
        let name = |entry: std::io::Result<std::fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        let names = entries.map(name).collect::<std::io::Result<_>>();
        Ok(names.map_err(|error| io_error(&self.shown, &error))?)
    }
}
