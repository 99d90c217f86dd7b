//! Output in epochs, for jobs that save themselves: staged, then saved, then visible.
//!
//! In an object store a staged file is an object of its own, with a name that no reader looks for, which is copied to its
//! place by the store itself and then removed. An upload in parts that is completed only after the checkpoint would
//! spare the copy, but the trait through which all stores are reached cannot take such an upload up again in
//! another process, and stores forget them after a while; a copy can be repeated as often as it takes. It bounds a file
//! by what a store copies at once: five gigabytes in S3. The name of a staged object has the number of the run in it: what
//! a run that was taken for dead still sends cannot be in the place of what its successor has staged.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::error::Result;
use object_store::ObjectStoreExt;

use crate::error::Error;

use super::Writer;
use super::file_writer::not_written;
use super::files::FileSink;
use super::folder::{PART, format_of_part, pipeline_and_number, staged, staged_file, unfinished};
use super::rolling::Names;

/// An epoch of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InEpoch {
    /// The pipeline.
    pub pipeline: usize,
    /// Its epochs are counted from 1.
    pub epoch: u64,
    /// A number for the run that writes.
    pub run: u64,
}

/// Output in epochs, each as a whole: first where no reader looks, and visible when the pipeline has saved that it is
/// there. So no reader sees a row that later moves or comes again.
#[async_trait]
pub trait Epochs: Send + Sync {
    /// A job begins, which has not written anything.
    ///
    /// # Errors
    /// A place that holds output of others.
    async fn begin(&self) -> Result<()>;

    /// A writer of what a pipeline gives in an epoch. Closed, it is whole and not yet visible, and the writer tells its files
    /// by their names: always the same ones, under which what is staged is of that run alone, where several may be at work.
    ///
    /// # Errors
    /// Columns that the format cannot hold.
    fn staging_writer(&self, epoch: InEpoch, schema: SchemaRef) -> Result<Box<dyn Writer>>;

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
/// `part-00003-0000000012.parquet.5`. Further files of an epoch are `part-00003-0000000012-002.parquet` and so on.
#[async_trait]
impl Epochs for FileSink {
    async fn begin(&self) -> Result<()> {
        match self.names().await?.iter().find(|name| format_of_part(name) == Some(self.format)) {
            None => Ok(()),
            Some(name) => Err(Error::data("is output of another run")
                .in_file(format!("{}{name}", self.shown))
                .help("name an empty folder: output that is written exactly once is not mixed with other output")
                .into()),
        }
    }

    fn staging_writer(&self, epoch: InEpoch, schema: SchemaRef) -> Result<Box<dyn Writer>> {
        self.folder_writer(self.names_in(epoch), schema)
    }

    async fn publish(&self, file: &str) -> Result<()> {
        let visible = self.visible(file);
        let (from, to) = (self.object(&staged(file))?, self.object(visible)?);
        let wrong = |error| not_written(&format!("{}{visible}", self.shown), error);
        match self.store.rename(&from, &to).await {
            Err(object_store::Error::NotFound { .. }) if self.is_there(visible).await? => Ok(()),
            renamed => renamed.map_err(wrong),
        }
    }

    async fn recover(&self, pipeline: usize, epoch: u64, files: &[String]) -> Result<()> {
        for name in self.names().await? {
            let begun = unfinished(&name).unwrap_or(&name);
            let staged = staged_file(begun);
            let file = staged.as_deref().unwrap_or(begun);
            let of_epoch = match pipeline_and_number(file) {
                Some((of_pipeline, Some(of_epoch))) if of_pipeline == pipeline => of_epoch,
                _ => continue,
            };
            let is_known = match name == file {
                // What is visible is of an epoch that was saved, and this one's is of its files.
                true => of_epoch < epoch || of_epoch == epoch && files.iter().any(|known| self.visible(known) == name),
                false => name == begun && files.iter().any(|known| known == file),
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

impl FileSink {
    /// The name under which readers find the first file that a pipeline has written in an epoch.
    pub(crate) fn name_in_epoch(&self, pipeline: usize, epoch: u64) -> String {
        format!("{PART}{pipeline:05}-{epoch:010}.{}", self.extension())
    }

    /// The names of what a pipeline writes in an epoch.
    fn names_in(&self, InEpoch { pipeline, epoch, run }: InEpoch) -> Names {
        let extension = self.extension();
        let end = if self.local.is_some() { format!(".{extension}") } else { format!(".{extension}.{run:x}") };
        Names { stem: format!("{PART}{pipeline:05}-{epoch:010}"), end }
    }

    /// The name under which readers find a file.
    pub(super) fn visible<'a>(&self, file: &'a str) -> &'a str {
        match self.local {
            Some(_) => file,
            None => file.rsplit_once('.').map_or(file, |(visible, _)| visible),
        }
    }
}
