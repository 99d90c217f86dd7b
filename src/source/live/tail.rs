//! Lines at the end of a file, as they are written: what `tail -F` does.
//!
//! A log is rotated by giving its file another name (and making a new one under the old name), or by cutting it off
//! after it has been copied. The file is read to its end first; who writes into it may go on for a moment after the
//! renaming.

use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use datafusion::common::Result;

use crate::error::Error;
use crate::source::follow::Signals;
use crate::source::reader::ReaderCounts;
use crate::source::wait::Wait;

use super::feed::Arrival;
use super::identity::{FileIdentity, HEAD_BYTES, number};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// How long a file that has another name now may be still before it counts as ended.
const STILL: Duration = Duration::from_secs(1);

/// Reads the end of a file.
pub(in crate::source) struct Tail {
    path: PathBuf,
    file: File,
    /// The next byte.
    byte: u64,
    /// The first bytes, as far as there are so many.
    head: Vec<u8>,
    signals: Arc<Signals>,
    counts: Arc<ReaderCounts>,
    wait: Wait,
    /// Since when it is known that the file has another name, and nothing has come.
    renamed: Option<Instant>,
}

impl Tail {
    /// Opens a file whose name is, or was, `path`, at this byte.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn open(
        path: &Path,
        found: &Path,
        byte: u64,
        signals: &Arc<Signals>,
        counts: Arc<ReaderCounts>,
    ) -> std::io::Result<Self> {
        let mut file = File::open(found)?;
        let mut head = vec![];
        (&mut file).take(byte.min(HEAD_BYTES as u64)).read_to_end(&mut head)?;
        file.seek(SeekFrom::Start(byte))?;
        let (wait, path, signals) = (Wait::for_lines(path), path.to_path_buf(), Arc::clone(signals));
        Ok(Self { path, file, byte, head, signals, counts, wait, renamed: None })
    }

    pub(super) fn identity(&self) -> Option<FileIdentity> {
        Some(FileIdentity::new(&self.file.metadata().ok()?, &self.head))
    }

    /// What has been written since the last time.
    pub(super) async fn next(&mut self) -> Result<Arrival> {
        // What is there when it is to end is read before.
        let ends = self.signals.is_draining();
        if let Some(text) = self.read()? {
            return Ok(Arrival::Text(text));
        }
        if ends {
            // Whoever writes to a file of another name ends with it.
            return Ok(Arrival::End { is_whole: self.is_renamed(&self.metadata()?) });
        }
        if self.has_ended()? {
            return Ok(Arrival::End { is_whole: true });
        }
        self.wait.once().await;
        Ok(Arrival::Later)
    }

    fn read(&mut self) -> Result<Option<Bytes>> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let bytes = self.file.read(&mut buffer).map_err(|error| self.unreadable(&error))?;
        if bytes == 0 {
            return Ok(None);
        }
        buffer.truncate(bytes);
        let missing = HEAD_BYTES.saturating_sub(self.head.len()).min(bytes);
        self.head.extend_from_slice(&buffer[..missing]);
        self.byte += bytes as u64;
        self.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.wait.begin_again();
        self.renamed = None;
        Ok(Some(buffer.into()))
    }

    /// Whether nothing more comes of this file, all of which has been read.
    fn has_ended(&mut self) -> Result<bool> {
        let own = self.metadata()?;
        if own.len() < self.byte {
            tracing::warn!("{}: has been cut off, and is read from its beginning", self.path.display());
            return Ok(true);
        }
        match (self.is_renamed(&own), self.renamed) {
            (false, _) => self.renamed = None,
            (true, None) => self.renamed = Some(Instant::now()),
            (true, Some(since)) => return Ok(since.elapsed() >= STILL),
        }
        Ok(false)
    }

    fn metadata(&self) -> Result<Metadata> {
        Ok(self.file.metadata().map_err(|error| self.unreadable(&error))?)
    }

    /// Whether there is another file under the old name; there may be nothing yet.
    fn is_renamed(&self, own: &Metadata) -> bool {
        self.path.metadata().is_ok_and(|found| number(&found) != number(own))
    }

    fn unreadable(&self, error: &std::io::Error) -> Error {
        Error::data(format!("cannot be read: {error}")).in_file(self.path.display().to_string())
    }
}
