//! The writer of one file.
//!
//! Encoded bytes go up in parts, and the file is there when the upload is completed. Into an object store a file that is no
//! more than one part goes by a single put when it is closed: that can be tried again as a whole, and most files
//! of epochs are small.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes as Part;
use datafusion::error::{DataFusionError, Result};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};

use crate::error::Error;
use crate::store::{is_url, root};

use super::compression::Compressor;
use super::encoder::{Bytes, Encoder};
use super::{Writer, Written};

/// Where a file goes.
pub(super) struct Target {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: Path,
    /// The path as the user wrote it.
    pub(super) shown: String,
    /// Whether that is an object store, and not this machine.
    pub(super) is_remote: bool,
    /// The name that a folder has it under.
    pub(super) name: Option<String>,
    /// Bytes of a part.
    pub(super) part_bytes: usize,
    /// Whether there is a file even if no row comes.
    pub(super) writes_empty: bool,
}

/// Writes one file.
pub(super) struct FileWriter {
    target: Target,
    encoder: Box<dyn Encoder>,
    bytes: Bytes,
    compressor: Compressor,
    /// Encoded bytes that are no whole part yet.
    pending: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
    /// Whether what is pending is the whole file, to be put when it is closed.
    is_to_put: bool,
    closed: bool,
    written: Written,
}

impl FileWriter {
    /// A writer of what `encoder` makes into `bytes`.
    pub(super) fn new(target: Target, encoder: Box<dyn Encoder>, bytes: Bytes, compressor: Compressor) -> Self {
        Self {
            target,
            encoder,
            bytes,
            compressor,
            pending: vec![],
            upload: None,
            is_to_put: false,
            closed: false,
            written: Written::default(),
        }
    }

    /// Rows, and bytes with those that are still to be encoded.
    pub(super) fn so_far(&self) -> Written {
        Written { bytes: self.written.bytes + self.encoder.buffered() as u64, rows: self.written.rows, files: vec![] }
    }

    /// Takes what has been encoded, and uploads it if it is a part's worth.
    async fn upload(&mut self) -> Result<()> {
        let encoded = self.compressor.compress(self.bytes.take())?;
        self.keep(encoded);
        let part_bytes = self.target.part_bytes;
        if self.pending.len() < part_bytes {
            return Ok(());
        }
        let mut whole = Part::from(std::mem::take(&mut self.pending));
        if !self.target.is_remote {
            return self.upload_part(whole).await;
        }
        while whole.len() >= part_bytes {
            self.upload_part(whole.split_to(part_bytes)).await?;
        }
        self.pending = whole.into();
        Ok(())
    }

    fn keep(&mut self, encoded: Vec<u8>) {
        self.written.bytes += encoded.len() as u64;
        match self.pending.is_empty() {
            true => self.pending = encoded,
            false => self.pending.extend_from_slice(&encoded),
        }
    }

    async fn upload_part(&mut self, part: Part) -> Result<()> {
        let Target { store, path, shown, .. } = &self.target;
        let wrong = |error| not_written(shown, error);
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(store.put_multipart(path).await.map_err(wrong)?),
        };
        upload.put_part(PutPayload::from(part)).await.map_err(wrong)
    }
}

pub(super) fn not_written(path: &str, error: object_store::Error) -> DataFusionError {
    io_error(path, root(&error)).into()
}

pub(super) fn io_error(path: &str, cause: &dyn std::error::Error) -> Error {
    Error::data(format!("cannot be written: {cause}")).in_file(path).help(match is_url(path) {
        true => "check that the store can be reached, and that this user may write there",
        false => "check that the folder is one, that it may be written to, and that the disk has room",
    })
}

#[async_trait]
impl Writer for FileWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.encoder.write(&batch)?;
        self.written.rows += batch.num_rows() as u64;
        self.upload().await
    }

    async fn finish(&mut self) -> Result<()> {
        if self.written.rows == 0 && !self.target.writes_empty {
            return Ok(());
        }
        self.encoder.finish()?;
        self.upload().await?;
        let rest = self.compressor.finish()?;
        self.keep(rest);
        self.is_to_put = self.target.is_remote && self.upload.is_none();
        match self.is_to_put {
            true => Ok(()),
            false => {
                let part = std::mem::take(&mut self.pending);
                self.upload_part(part.into()).await
            }
        }
    }

    async fn close(&mut self) -> Result<Written> {
        let Target { store, path, shown, name, .. } = &mut self.target;
        let closed = match &mut self.upload {
            Some(upload) => upload.complete().await.map(|_| ()),
            None if self.is_to_put => store.put(path, std::mem::take(&mut self.pending).into()).await.map(|_| ()),
            // There was no row.
            None => return Ok(std::mem::take(&mut self.written)),
        };
        closed.map_err(|error| not_written(shown, error))?;
        self.closed = true;
        self.written.files.extend(name.take());
        Ok(std::mem::take(&mut self.written))
    }

    /// Waits until the parts are gone: a program that is about to end would not get to it later.
    async fn abort(mut self: Box<Self>) {
        let Target { store, path, shown, .. } = &self.target;
        let aborted = match &mut self.upload {
            Some(_) if self.closed => store.delete(path).await,
            None if self.closed && self.is_to_put => store.delete(path).await,
            Some(upload) => upload.abort().await,
            None => Ok(()),
        };
        if let Err(error) = aborted {
            tracing::warn!("{shown}: the unfinished file could not be removed: {error}");
        }
    }
}
