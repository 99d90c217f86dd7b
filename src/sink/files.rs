//! Files: one, or a folder with one for each pipeline.
//!
//! A file becomes visible when it is whole: it is uploaded in parts to a place where no reader looks, and put in its
//! place by the completion of the upload. A writer that gives up takes its parts with it. What is no regular file is
//! written through, and a link stays one. A run replaces the files of an earlier one of its format in the same folder,
//! all of them, and touches no others.

use std::collections::HashSet;
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
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;

use crate::confinement::{self, Access};
use crate::error::Error;
use crate::store::{Policy, Remote, is_url};

use super::compression::{Compressor, compression_of, compression_of_name, suffix};
use super::encoder::{Bytes, Medium, encoder};
use super::file_writer::{FileWriter, Target, io_error};
use super::folder::{PART, format_of_part};
use super::hive::{Hive, HiveWriter};
use super::local::Local;
use super::rolling::{Names, Rolling, RollingWriter};
use super::staged::StagedWriter;
use super::stream::StreamWriter;
use super::{Epochs, OutputFormat, Sink, Writer};

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
    /// The columns by which rows are divided into folders.
    pub(super) hive: Hive,
    pub(super) rolling: Rolling,
    policy: Policy,
}

impl FileSink {
    /// A path of this machine, or a URL in a store that the session knows: a file, or, if it ends in `/`, a folder in which
    /// each pipeline writes files of its own: one, or as many as `streamlines.roll_bytes` and `roll_interval` of the session
    /// make of its rows.
    ///
    /// # Errors
    /// A path that is none; a folder where a file is to be; a store that the session does not know.
    pub fn open(path: &str, format: OutputFormat, runtime: &RuntimeEnv, config: &SessionConfig) -> Result<Self> {
        if !is_url(path) {
            return Ok(Self { rolling: Rolling::of(config)?, ..Self::local(path, format)? });
        }
        let Remote { shown, store, path: object, policy } = Remote::find(path, runtime, config)?;
        let folder = path.ends_with('/');
        if object.as_ref().is_empty() && !folder {
            let error = Error::data("is no place for output").in_file(shown);
            return Err(error.help("name an object, or a folder with / at its end").into());
        }
        let (options, hive, rolling) = (TableOptions::default(), Hive::default(), Rolling::of(config)?);
        Ok(Self { store, shown, path: object, local: None, folder, format, options, hive, rolling, policy })
    }

    /// A path of this machine; in a folder each pipeline writes one file.
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
            hive: Hive::default(),
            rolling: Rolling::default(),
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

    /// The names of what a pipeline writes in a whole run.
    fn names_of(&self, pipeline: usize) -> Names {
        Names { stem: format!("{PART}{pipeline:05}"), end: format!(".{}", self.extension()) }
    }

    pub(super) fn extension(&self) -> String {
        format!("{}{}", self.format, suffix(self.compression().0))
    }

    /// A writer of what a pipeline gives in one go, as files with these names that are staged in the folder.
    pub(super) fn folder_writer(&self, names: Names, schema: SchemaRef) -> Result<Box<dyn Writer>> {
        Ok(match self.hive.columns.is_empty() {
            true => Box::new(RollingWriter::new(self.clone(), names, String::new(), schema)),
            false => Box::new(HiveWriter::try_new(self.clone(), names, &schema)?),
        })
    }

    /// A writer of a file that is put under this name in the folder and told as that one, or of the only file.
    pub(super) fn file_writer(
        &self,
        name: Option<&str>,
        told: Option<String>,
        schema: &SchemaRef,
    ) -> Result<FileWriter> {
        let bytes = Bytes::default();
        let encoder = encoder(self.format, Medium::File, schema, &self.options, bytes.clone())?;
        let (path, shown) = match name {
            Some(name) => {
                if self.local.as_ref().is_some_and(|local| local.path.join(name).is_dir()) {
                    let error = Error::data("is a folder").in_file(format!("{}{name}", self.shown));
                    return Err(error.help("a pipeline writes its file there: name another folder").into());
                }
                (self.object(name)?, format!("{}{name}", self.shown))
            }
            None => (self.path.clone(), self.shown.clone()),
        };
        let target = Target {
            store: Arc::clone(&self.store),
            path,
            shown,
            name: told,
            is_remote: self.local.is_none(),
            part_bytes: self.policy.part_bytes,
            // A pipeline without rows leaves no file in a folder; a single file is always there.
            writes_empty: !self.folder,
        };
        let compressor = Compressor::try_new(self.compression())?;
        Ok(FileWriter::new(target, encoder, bytes, compressor))
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

impl FileSink {
    /// With rows in folders by the values of these columns, as Hive has them.
    pub(crate) fn with_hive(self, hive: Hive) -> Self {
        Self { hive, ..self }
    }

    /// With one file for each pipeline, or for each of its epochs.
    pub(crate) fn without_rolling(self) -> Self {
        Self { rolling: Rolling::default(), ..self }
    }
}

impl fmt::Debug for FileSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.shown, self.format)?;
        match self.hive.columns.is_empty() {
            true => Ok(()),
            false => write!(f, " by {}", self.hive.columns.join(", ")),
        }
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
        if !self.folder {
            return Ok(Box::new(self.file_writer(None, None, &schema)?));
        }
        let Names { stem, end } = self.names_of(pipeline);
        if self.hive.columns.is_empty() && !self.rolling.ends_files() {
            let name = format!("{stem}{end}");
            return Ok(Box::new(self.file_writer(Some(&name), Some(name.clone()), &schema)?));
        }
        // In a store what is staged ends in the number of a run.
        let end = if self.local.is_some() { end } else { format!("{end}.0") };
        let staging = self.folder_writer(Names { stem, end }, schema)?;
        Ok(Box::new(StagedWriter::new(self.clone(), staging)))
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
            true => format_of_part(name) == Some(self.format),
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

    async fn closed(&self, files: &[String]) -> Result<()> {
        if !self.folder {
            return Ok(());
        }
        let files: HashSet<&String> = files.iter().collect();
        for name in self.names().await? {
            if format_of_part(&name) == Some(self.format) && !files.contains(&name) {
                self.remove(&name).await?;
            }
        }
        Ok(())
    }
}
