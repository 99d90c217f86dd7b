//! Output in epochs, for jobs that save themselves: staged, then saved, then visible.
//!
//! In an object store a staged file is an object of its own, with a name that no reader looks for, which is copied to its
//! place by the store itself and then removed. An upload in parts that is completed only after the checkpoint would
//! spare the copy, but the trait through which all stores are reached cannot take such an upload up again in
//! another process, and stores forget them after a while; a copy can be repeated as often as it takes. It bounds a file
//! by what a store copies at once: five gigabytes in S3. The name of a staged object has the number of the run in it: what
//! a run that was taken for dead still sends cannot be in the place of what its successor has staged.

use std::io::ErrorKind;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::error::Result;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::error::Error;

use super::Writer;
use super::file_writer::{io_error, not_written};
use super::files::{FileSink, PART, part_of_name};

/// Output in epochs, each as a whole: first where no reader looks, and visible when the pipeline has saved that it is
/// there. So no reader sees a row that later moves or comes again.
#[async_trait]
pub trait Epochs: Send + Sync {
    /// A job begins, which has not written anything.
    ///
    /// # Errors
    /// A place that holds output of others.
    async fn begin(&self) -> Result<()>;

    /// The name of what a pipeline writes in an epoch, always the same; what is staged under it is of that run alone, where
    /// several may be at work.
    fn file(&self, pipeline: usize, epoch: u64, run: u64) -> String;

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
/// in the same folder, which begins with a dot and says no format. In a store the names that are saved end in the run:
/// `part-00003-0000000012.parquet.5`.
#[async_trait]
impl Epochs for FileSink {
    async fn begin(&self) -> Result<()> {
        let is_output = |name: &str| part_of_name(name).is_some_and(|(_, format)| format == self.format);
        match self.names().await?.iter().find(|name| is_output(name)) {
            None => Ok(()),
            Some(name) => Err(Error::data("is output of another run")
                .in_file(format!("{}{name}", self.shown))
                .help("name an empty folder: output that is written exactly once is not mixed with other output")
                .into()),
        }
    }

    fn file(&self, pipeline: usize, epoch: u64, run: u64) -> String {
        let file = self.name_in_epoch(pipeline, epoch);
        if self.local.is_some() { file } else { format!("{file}.{run:x}") }
    }

    fn staging_writer(&self, file: &str, schema: SchemaRef) -> Result<Box<dyn Writer>> {
        self.file_writer(Some(&staged(file)), &schema)
    }

    async fn publish(&self, file: &str) -> Result<()> {
        let visible = self.visible(file);
        let (from, to) = (self.path.clone().join(staged(file).as_str()), self.path.clone().join(visible));
        let wrong = |error| not_written(&format!("{}{visible}", self.shown), error);
        match self.store.rename(&from, &to).await {
            Err(object_store::Error::NotFound { .. }) if self.is_there(&to, visible).await? => Ok(()),
            renamed => renamed.map_err(wrong),
        }
    }

    async fn recover(&self, pipeline: usize, epoch: u64, files: &[String]) -> Result<()> {
        for name in self.names().await? {
            let file = unfinished(&name).unwrap_or(&name);
            let file = file.strip_prefix('.').and_then(|file| file.strip_suffix(STAGED)).unwrap_or(file);
            let of_pipeline = file.strip_prefix(PART).and_then(|rest| rest.strip_prefix(&format!("{pipeline:05}-")));
            let Some(of_epoch) = of_pipeline.and_then(|rest| rest.split('.').next()?.parse::<u64>().ok()) else {
                continue;
            };
            let is_known = match name == file {
                // What is visible is of an epoch that was saved, and this one's is of its files.
                true => of_epoch < epoch || of_epoch == epoch && files.iter().any(|known| self.visible(known) == name),
                false => name == staged(file) && files.iter().any(|known| known == file),
            };
            if !is_known {
                self.remove(&name).await?;
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
    /// The name under which readers find what a pipeline has written in an epoch.
    pub(crate) fn name_in_epoch(&self, pipeline: usize, epoch: u64) -> String {
        format!("{PART}{pipeline:05}-{epoch:010}.{}", self.extension())
    }

    /// The name under which readers find a file.
    fn visible<'a>(&self, file: &'a str) -> &'a str {
        match self.local {
            Some(_) => file,
            None => file.rsplit_once('.').map_or(file, |(visible, _)| visible),
        }
    }

    async fn is_there(&self, path: &ObjectPath, name: &str) -> Result<bool> {
        if let Some(local) = &self.local {
            return Ok(local.path.join(name).is_file());
        }
        match self.store.head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(not_written(&self.shown, error)),
        }
    }

    /// What uploads have left that were not completed, and the file that each was to become. A store shows nobody such
    /// uploads, and removes them by its own rules.
    pub(super) async fn unfinished(&self) -> Result<Vec<(String, String)>> {
        if self.local.is_none() {
            return Ok(vec![]);
        }
        let file = |name: String| Some((unfinished(&name)?.to_string(), name));
        Ok(self.names().await?.into_iter().filter_map(file).map(|(file, name)| (name, file)).collect())
    }

    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        if let Some(local) = &self.local {
            let removed = std::fs::remove_file(local.in_folder(self.folder).join(name));
            return Ok(removed.map_err(|error| io_error(&self.shown, &error))?);
        }
        let removed = self.store.delete(&self.path.clone().join(name)).await;
        removed.map_err(|error| not_written(&self.shown, error))
    }

    /// The names in the folder.
    async fn names(&self) -> Result<Vec<String>> {
        let Some(local) = &self.local else {
            let found = self.store.list_with_delimiter(Some(&self.path)).await;
            let objects = found.map_err(|error| not_written(&self.shown, error))?.objects;
            return Ok(objects.iter().filter_map(|object| object.location.filename().map(str::to_string)).collect());
        };
        let entries = match std::fs::read_dir(local.in_folder(self.folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(io_error(&self.shown, &error).into()),
        };
        let name = |entry: std::io::Result<std::fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        let names = entries.map(name).collect::<std::io::Result<_>>();
        Ok(names.map_err(|error| io_error(&self.shown, &error))?)
    }
}
