//! Files that are to stay as they are while they are read. Of one that does not, rows would be missing or be of two versions: it
//! is looked at before its first byte and after its last one.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};

use crate::error::Error;

use super::reader::ReaderCounts;
use super::table::StreamFile;

/// A file as it was when the stream was declared over it.
#[derive(Debug, Clone)]
pub(super) struct Version {
    name: String,
    size: u64,
    modified: DateTime<Utc>,
}

impl Version {
    pub(super) fn of(file: &StreamFile) -> Self {
        Self { name: file.name.clone(), size: file.object.size, modified: file.object.last_modified }
    }

    /// # Errors
    /// Before it is read: another file.
    pub(super) fn check_begun(&self, file: &File) -> Result<(), Error> {
        let help = "CREATE OR REPLACE STREAM … reads its footer and columns again";
        self.check(file, "has changed since the stream was created", help)
    }

    /// # Errors
    /// After it has been read: somebody has written to it. (One that was replaced or taken away has been read as it was.)
    pub(super) fn check_ended(&self, file: &File) -> Result<(), Error> {
        let help = "run the query again over files that stay as they are: write new ones elsewhere, and rename them";
        self.check(file, "has changed while it was read", help)
    }

    fn check(&self, file: &File, what: &str, help: &str) -> Result<(), Error> {
        let found = file.metadata().map_err(|error| Error::data(error.to_string()).in_file(&self.name))?;
        let modified = found.modified().ok().map(DateTime::<Utc>::from);
        match found.len() == self.size && modified.is_none_or(|modified| modified == self.modified) {
            true => Ok(()),
            false => Err(Error::data(what).in_file(&self.name).help(help)),
        }
    }
}

/// Bytes of a file, which are counted as they are read.
pub(super) struct Unchanged {
    pub(super) file: File,
    /// How many there are from here on.
    pub(super) left: u64,
    pub(super) version: Version,
    pub(super) counts: Arc<ReaderCounts>,
}

impl Read for Unchanged {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let bytes = self.file.read(&mut buffer[..most])?;
        if bytes == 0 && !buffer.is_empty() {
            self.version.check_ended(&self.file).map_err(std::io::Error::other)?;
        }
        self.left -= bytes as u64;
        self.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}
