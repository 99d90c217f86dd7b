//! Files: one, or a folder with one for each pipeline.
//!
//! A file becomes visible when it is whole: it is uploaded in parts to a place where no reader looks, and put in its
//! place by the completion of the upload. A writer that gives up takes its parts with it. What is no regular file is
//! written through, and a link stays one. A run replaces the files of an earlier one of its format in the same folder,
//! all of them, and touches no others.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::config::TableOptions;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionConfig;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::confinement::{self, Access};
use crate::error::Error;
use crate::store::{Policy, Remote, is_url};

use super::compression::{Compressor, compression_of, compression_of_name, suffix};
use super::encoder::{Bytes, Medium, encoder};
use super::file_writer::{FileWriter, Target, io_error, not_written};
use super::local::Local;
use super::stream::StreamWriter;
use super::{Epochs, OutputFormat, Sink, Writer};

/// What the names of files in a folder begin with; the pipeline's number and the format follow.
pub(super) const PART: &str = "part-";

/// Writes files into an object store, the local file system among them.
#[derive(Clone)]
pub struct FileSink {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The path as the user wrote it.
    pub(super) shown: String,
    pub(super) path: ObjectPath,
    /// Where that is on this machine; none in an object store.
    pub(super) local: Option<Local>,
    pub(super) folder: bool,
    pub(super) format: OutputFormat,
    options: TableOptions,
    policy: Policy,
}

impl FileSink {
    /// A path of this machine, or a URL in a store that the session knows: a file, or, if it ends in `/`, a folder in which
    /// each pipeline writes a file of its own.
    ///
    /// # Errors
    /// A path that is none; a folder where a file is to be; a store that the session does not know.
    pub fn open(path: &str, format: OutputFormat, runtime: &RuntimeEnv, config: &SessionConfig) -> Result<Self> {
        if !is_url(path) {
            return Self::local(path, format);
        }
        let Remote { shown, store, path: object, policy } = Remote::find(path, runtime, config)?;
        let folder = path.ends_with('/');
        if object.as_ref().is_empty() && !folder {
            let error = Error::data("is no place for output").in_file(shown);
            return Err(error.help("name an object, or a folder with / at its end").into());
        }
        Ok(Self { store, shown, path: object, local: None, folder, format, options: TableOptions::default(), policy })
    }

    /// A path of this machine.
    ///
    /// # Errors
    /// As [`FileSink::open`].
    pub fn local(path: &str, format: OutputFormat) -> Result<Self> {
        if is_url(path) {
            let error = Error::data("is no local path").in_file(path);
            return Err(error.help("COPY (SELECT …) TO writes to object stores that the session knows").into());
        }
        let folder = path.ends_with('/');
        let local = Local::find(path, folder)?;
        let object = ObjectPath::from_absolute_path(&local.path)
            .map_err(|error| Error::data(error.to_string()).in_file(path))?;
        Ok(Self {
            store: Arc::new(LocalFileSystem::new()),
            shown: path.to_string(),
            path: object,
            local: Some(local),
            folder,
            format,
            options: TableOptions::default(),
            policy: Policy::default(),
        })
    }

    /// The objects of a folder in an object store; none on this machine.
    pub(crate) fn remote(&self) -> Option<(&Arc<dyn ObjectStore>, &ObjectPath)> {
        self.local.is_none().then_some((&self.store, &self.path))
    }

    /// The path of a pipe or device, which is written through.
    fn stream(&self) -> Option<&Path> {
        self.local.as_ref().filter(|local| local.is_stream).map(|local| local.path.as_path())
    }

    /// As the options say, or else as the file's extension does.
    fn compression(&self) -> (CompressionTypeVariant, Option<u32>) {
        match compression_of(self.format, &self.options) {
            (CompressionTypeVariant::UNCOMPRESSED, level) if self.format.is_text() => {
                (compression_of_name(&self.shown), level)
            }
            as_said => as_said,
        }
    }

    fn name_of_part(&self, pipeline: usize) -> String {
        format!("{PART}{pipeline:05}.{}", self.extension())
    }

    pub(super) fn extension(&self) -> String {
        format!("{}{}", self.format, suffix(self.compression().0))
    }

    /// A writer of a file of this name in the folder, or of the only file.
    pub(super) fn file_writer(&self, name: Option<&str>, schema: &SchemaRef) -> Result<Box<dyn Writer>> {
        let bytes = Bytes::default();
        let encoder = encoder(self.format, Medium::File, schema, &self.options, bytes.clone())?;
        let (path, shown) = match name {
            Some(name) => {
                if self.local.as_ref().is_some_and(|local| local.path.join(name).is_dir()) {
                    let error = Error::data("is a folder").in_file(format!("{}{name}", self.shown));
                    return Err(error.help("a pipeline writes its file there: name another folder").into());
                }
                (self.path.clone().join(name), format!("{}{name}", self.shown))
            }
            None => (self.path.clone(), self.shown.clone()),
        };
        let target = Target {
            store: Arc::clone(&self.store),
            path,
            shown,
            is_remote: self.local.is_none(),
            part_bytes: self.policy.part_bytes,
            // A pipeline without rows leaves no file in a folder; a single file is always there.
            writes_empty: !self.folder,
        };
        let compressor = Compressor::try_new(self.compression())?;
        Ok(Box::new(FileWriter::new(target, encoder, bytes, compressor)))
    }

    /// The same, where SQL has named the path.
    ///
    /// # Errors
    /// A place that a confined session may not write to.
    pub(crate) fn confined_by(self, config: &SessionConfig) -> Result<Self> {
        let place = self.local.as_ref().map_or(Path::new(&self.shown), |local| local.path.as_path());
        confinement::check(config, place, Access::Write)?;
        Ok(self)
    }

    /// With these options for the files of its format.
    pub fn with_options(mut self, options: TableOptions) -> Self {
        self.options = options;
        self
    }
}

impl fmt::Debug for FileSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.shown, self.format)
    }
}

#[async_trait]
impl Sink for FileSink {
    fn per_pipeline(&self) -> bool {
        self.folder
    }

    fn writer(&self, pipeline: usize, schema: SchemaRef) -> Result<Box<dyn Writer>> {
        if let Some(path) = self.stream() {
            let out = File::options().write(true).open(path).map_err(|error| io_error(&self.shown, &error))?;
            let name = self.shown.clone();
            return Ok(Box::new(StreamWriter::try_new(Box::new(out), name, self.format, &schema, &self.options)?));
        }
        let name = self.folder.then(|| self.name_of_part(pipeline));
        self.file_writer(name.as_deref(), &schema)
    }

    fn writes_through(&self) -> bool {
        self.stream().is_some()
    }

    fn epochs(&self) -> Option<Arc<dyn Epochs>> {
        self.folder.then(|| Arc::new(self.clone()) as _)
    }

    async fn begin_again(&self) -> Result<()> {
        if self.stream().is_some() {
            return Ok(());
        }
        let is_own = |name: &str| match self.folder {
            true => part_of_name(name).is_some_and(|(_, format)| format == self.format),
            false => self.path.filename() == Some(name),
        };
        for (name, _) in self.unfinished().await?.into_iter().filter(|(_, file)| is_own(file)) {
            self.remove(&name).await?;
        }
        Ok(())
    }

    async fn aborted(&self) {
        self.local.iter().for_each(|local| local.remove_new_folders(self.folder));
    }

    async fn closed(&self, writers: usize) -> Result<()> {
        if !self.folder {
            return Ok(());
        }
        let wrong = |error| not_written(&self.shown, error);
        for object in self.store.list_with_delimiter(Some(&self.path)).await.map_err(wrong)?.objects {
            let name = object.location.filename().unwrap_or_default();
            let is_old = |part: usize| part >= writers || name != self.name_of_part(part);
            if part_of_name(name).is_some_and(|(part, format)| format == self.format && is_old(part)) {
                self.store.delete(&object.location).await.map_err(wrong)?;
            }
        }
        Ok(())
    }
}

/// The pipeline and format of a file that a run has written into a folder.
pub(super) fn part_of_name(name: &str) -> Option<(usize, OutputFormat)> {
    let (part, extension) = name.strip_prefix(PART)?.split_once('.')?;
    let extension = extension.trim_end_matches(".gz").trim_end_matches(".zst");
    let pipeline = part.split_once('-').map_or(part, |(pipeline, _)| pipeline);
    Some((pipeline.parse().ok()?, extension.parse().ok()?))
}
