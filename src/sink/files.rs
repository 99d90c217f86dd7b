//! Files: one, or a folder with one for each pipeline.
//!
//! A file becomes visible when it is whole: it is uploaded in parts to a place where no reader looks, and put in its
//! place by the completion of the upload. A writer that gives up takes its parts with it. What is no regular file is
//! written through, and a link stays one. A run replaces the files of an earlier one of its format in the same folder,
//! all of them, and touches no others.

use std::fmt;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::config::TableOptions;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionConfig;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};

use crate::confinement::{self, Access};
use crate::error::Error;

use super::compression::{Compressor, compression_of, compression_of_name, suffix};
use super::encoder::{Bytes, Encoder, Medium, encoder};
use super::stream::StreamWriter;
use super::{Epochs, OutputFormat, Sink, Writer, Written};

/// Bytes of one uploaded part.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// What the names of files in a folder begin with; the pipeline's number and the format follow.
pub(super) const PART: &str = "part-";

/// Writes files into an object store, the local file system among them.
#[derive(Clone)]
pub struct FileSink {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The path as the user wrote it.
    pub(super) shown: String,
    pub(super) path: ObjectPath,
    pub(super) local: PathBuf,
    /// A pipe or a device, which is written through and never replaced.
    is_stream: bool,
    folder: bool,
    /// The outermost folder that has to be made for the output.
    new_folder: Option<PathBuf>,
    pub(super) format: OutputFormat,
    options: TableOptions,
}

impl FileSink {
    /// A local path: a file, or, if it ends in `/`, a folder in which each pipeline writes a file of its own.
    ///
    /// # Errors
    /// A path that is none; a folder where a file is to be.
    pub fn local(path: &str, format: OutputFormat) -> Result<Self> {
        let plain = path.strip_prefix("file://").unwrap_or(path);
        if plain.contains("://") {
            let error = Error::data("is no local path").in_file(path);
            return Err(error.help("COPY (SELECT …) TO writes to object stores that the session knows").into());
        }
        if plain.trim_matches('/').is_empty() {
            let error = Error::data("is no place for output").in_file(format!("'{path}'"));
            return Err(error.help("name a file, or a folder with / at its end").into());
        }
        let absolute = std::path::absolute(plain)?;
        if !path.ends_with('/') && absolute.is_dir() {
            let error = Error::data("is a folder").in_file(path);
            return Err(error
                .help(format!("name a file in it, or write {path}/ for one file from each pipeline"))
                .into());
        }
        let absolute = target(without_parents(absolute)?)?;
        let nearest = absolute.ancestors().skip(1).find(|folder| folder.exists());
        if nearest.and_then(|folder| folder.metadata().ok()).is_some_and(|folder| folder.permissions().readonly()) {
            return Err(io_error(path, &std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem)).into());
        }
        let object =
            ObjectPath::from_absolute_path(&absolute).map_err(|error| Error::data(error.to_string()).in_file(path))?;
        let is_stream = std::fs::metadata(&absolute).is_ok_and(|found| !found.is_file() && !found.is_dir());
        let folder = path.ends_with('/');
        let innermost = if folder { Some(absolute.as_path()) } else { absolute.parent() };
        Ok(Self {
            new_folder: innermost.and_then(first_new_folder),
            store: Arc::new(LocalFileSystem::new()),
            shown: path.to_string(),
            path: object,
            local: absolute,
            is_stream,
            folder,
            format,
            options: TableOptions::default(),
        })
    }

    /// The folder, or that of the file.
    pub(super) fn in_folder(&self) -> &Path {
        if self.folder { &self.local } else { self.local.parent().unwrap_or(&self.local) }
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
                if self.local.join(name).is_dir() {
                    let error = Error::data("is a folder").in_file(format!("{}{name}", self.shown));
                    return Err(error.help("a pipeline writes its file there: name another folder").into());
                }
                (self.path.clone().join(name), format!("{}{name}", self.shown))
            }
            None => (self.path.clone(), self.shown.clone()),
        };
        Ok(Box::new(FileWriter {
            store: Arc::clone(&self.store),
            path,
            shown,
            encoder,
            bytes,
            compressor: Compressor::try_new(self.compression())?,
            pending: vec![],
            upload: None,
            // A pipeline without rows leaves no file in a folder; a single file is always there.
            writes_empty: !self.folder,
            closed: false,
            written: Written::default(),
        }))
    }

    /// The same, where SQL has named the path.
    ///
    /// # Errors
    /// A place that a confined session may not write to.
    pub(crate) fn confined_by(self, config: &SessionConfig) -> Result<Self> {
        confinement::check(config, &self.local, Access::Write)?;
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
        if self.is_stream {
            let out = File::options().write(true).open(&self.local).map_err(|error| io_error(&self.shown, &error))?;
            let name = self.shown.clone();
            return Ok(Box::new(StreamWriter::try_new(Box::new(out), name, self.format, &schema, &self.options)?));
        }
        let name = self.folder.then(|| self.name_of_part(pipeline));
        self.file_writer(name.as_deref(), &schema)
    }

    fn writes_through(&self) -> bool {
        self.is_stream
    }

    fn epochs(&self) -> Option<Arc<dyn Epochs>> {
        self.folder.then(|| Arc::new(self.clone()) as _)
    }

    async fn begin_again(&self) -> Result<()> {
        if self.is_stream {
            return Ok(());
        }
        let is_own = |name: &str| match self.folder {
            true => part_of_name(name).is_some_and(|(_, format)| format == self.format),
            false => self.path.filename() == Some(name),
        };
        for (name, _) in self.unfinished()?.into_iter().filter(|(_, file)| is_own(file)) {
            self.remove(&name)?;
        }
        Ok(())
    }

    async fn aborted(&self) {
        if let Some(first) = &self.new_folder {
            remove_empty_folders(self.in_folder(), first);
        }
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

/// The first of the folders on a path that is not there yet.
fn first_new_folder(path: &Path) -> Option<PathBuf> {
    path.ancestors().take_while(|folder| !folder.exists()).last().map(Path::to_path_buf)
}

/// Removes empty folders from the innermost one up to `first`.
fn remove_empty_folders(innermost: &Path, first: &Path) {
    for folder in innermost.ancestors().take_while(|folder| folder.starts_with(first)) {
        // What somebody else has put there stays.
        if std::fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

/// The pipeline and format of a file that a run has written into a folder.
pub(super) fn part_of_name(name: &str) -> Option<(usize, OutputFormat)> {
    let (part, extension) = name.strip_prefix(PART)?.split_once('.')?;
    let extension = extension.trim_end_matches(".gz").trim_end_matches(".zst");
    let pipeline = part.split_once('-').map_or(part, |(pipeline, _)| pipeline);
    Some((pipeline.parse().ok()?, extension.parse().ok()?))
}

/// The same path without `..`, as the file system has it.
fn without_parents(path: PathBuf) -> Result<PathBuf> {
    match path.components().any(|part| part == Component::ParentDir) {
        false => Ok(path),
        true => confinement::resolved(&path)?.ok_or_else(|| {
            let error = Error::data("goes back from a folder that is not there").in_file(path.display().to_string());
            error.help("write the path without ..").into()
        }),
    }
}

/// Where the bytes of a path go: a link leads there, and stays a link.
fn target(path: PathBuf) -> Result<PathBuf> {
    if !path.is_symlink() {
        return Ok(path);
    }
    match std::fs::canonicalize(&path) {
        Ok(target) => Ok(target),
        // Nothing is there yet.
        Err(_) => Ok(path.parent().unwrap_or(Path::new("/")).join(std::fs::read_link(&path)?)),
    }
}

struct FileWriter {
    store: Arc<dyn ObjectStore>,
    path: ObjectPath,
    shown: String,
    encoder: Box<dyn Encoder>,
    bytes: Bytes,
    compressor: Compressor,
    /// Encoded bytes that are no whole part yet.
    pending: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
    writes_empty: bool,
    closed: bool,
    written: Written,
}

impl FileWriter {
    /// Takes what has been encoded, and uploads it if it is a part's worth.
    async fn upload(&mut self) -> Result<()> {
        let encoded = self.compressor.compress(self.bytes.take())?;
        self.keep(encoded);
        match self.pending.len() < PART_BYTES {
            true => Ok(()),
            false => self.upload_part().await,
        }
    }

    fn keep(&mut self, encoded: Vec<u8>) {
        self.written.bytes += encoded.len() as u64;
        match self.pending.is_empty() {
            true => self.pending = encoded,
            false => self.pending.extend_from_slice(&encoded),
        }
    }

    async fn upload_part(&mut self) -> Result<()> {
        let part = PutPayload::from(std::mem::take(&mut self.pending));
        let wrong = |error| not_written(&self.shown, error);
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(self.store.put_multipart(&self.path).await.map_err(wrong)?),
        };
        upload.put_part(part).await.map_err(wrong)
    }
}

pub(super) fn not_written(path: &str, error: object_store::Error) -> DataFusionError {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    io_error(path, cause).into()
}

pub(super) fn io_error(path: &str, cause: &dyn std::error::Error) -> Error {
    Error::data(format!("cannot be written: {cause}"))
        .in_file(path)
        .help("check that the folder is one, that it may be written to, and that the disk has room")
}

#[async_trait]
impl Writer for FileWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.encoder.write(&batch)?;
        self.written.rows += batch.num_rows() as u64;
        self.upload().await
    }

    async fn finish(&mut self) -> Result<()> {
        if self.written.rows == 0 && !self.writes_empty {
            return Ok(());
        }
        self.encoder.finish()?;
        self.upload().await?;
        let rest = self.compressor.finish()?;
        self.keep(rest);
        self.upload_part().await
    }

    async fn close(&mut self) -> Result<Written> {
        let closed = match &mut self.upload {
            Some(upload) => upload.complete().await.map(|_| ()),
            // An earlier run may have had rows here.
            None => match self.store.delete(&self.path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                deleted => deleted,
            },
        };
        closed.map_err(|error| not_written(&self.shown, error))?;
        self.closed = true;
        Ok(self.written)
    }

    /// Waits until the parts are gone: a program that is about to end would not get to it later.
    async fn abort(mut self: Box<Self>) {
        let aborted = match &mut self.upload {
            Some(_) if self.closed => self.store.delete(&self.path).await,
            Some(upload) => upload.abort().await,
            None => Ok(()),
        };
        if let Err(error) = aborted {
            tracing::warn!("{}: the unfinished file could not be removed: {error}", self.shown);
        }
    }
}
