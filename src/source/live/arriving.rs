//! What is to be opened next of a stream whose rows come while it is read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::{Result, internal_datafusion_err};
use object_store::ObjectMeta;
use object_store::path::Path as ObjectPath;

use crate::error::Error;
use crate::source::follow::Signals;
use crate::source::pieces::{Chunk, Part, TextStart};
use crate::source::place::FilePlace;
use crate::source::position::TextPosition;
use crate::source::reader::ReaderCounts;
use crate::source::rows::Wanted;
use crate::source::table::{Coming, Inner, StreamFile};
use crate::source::wait::Wait;

use super::batches::LiveBatches;
use super::feed::Feed;
use super::handed::Handed;
use super::identity::number;
use super::place::Bytes;
use super::rows::LiveRows;
use super::tail::Tail;

/// Opens what comes, one after the other.
pub(in crate::source) struct Live {
    signals: Arc<Signals>,
    counts: Arc<ReaderCounts>,
    wait: Wait,
    has_begun: bool,
    /// The number of the file that was opened last.
    file: Option<(u64, u64)>,
    /// Where it goes on.
    begin: Option<TextPosition>,
    /// What has been opened, until somebody reads it.
    opened: Option<Opened>,
}

enum Opened {
    Text(Feed),
    Batches(LiveBatches),
}

impl Live {
    pub(in crate::source) fn new(signals: &Arc<Signals>, counts: &Arc<ReaderCounts>) -> Self {
        let (signals, counts) = (Arc::clone(signals), Arc::clone(counts));
        Self { signals, counts, wait: Wait::default(), has_begun: false, file: None, begin: None, opened: None }
    }

    /// Goes on where somebody has been.
    pub(in crate::source) fn restore(&mut self, position: TextPosition) {
        self.begin = Some(position);
    }

    /// What is to be read next, which may not be there yet; none when nothing comes any more.
    ///
    /// # Errors
    /// What cannot be opened, or is not there any more.
    pub(in crate::source) async fn next(&mut self, inner: &Inner) -> Result<Option<Vec<Chunk>>> {
        // What is there when it is to end is read before: also the file that has come in place of the one that was read.
        let ends = self.signals.is_draining();
        let is_last = match &inner.coming {
            Coming::Lines(path) => path.metadata().map_or(true, |found| self.file == Some(number(&found))),
            _ => true,
        };
        if self.signals.is_stopped() || ends && self.has_begun && is_last {
            return Ok(None);
        }
        let chunk = match &inner.coming {
            Coming::Lines(path) => self.file(path)?,
            Coming::Bytes(bytes) if self.has_begun && !bytes.follows => return Ok(None),
            Coming::Bytes(bytes) => Some(self.bytes(bytes)?),
            Coming::Batches { .. } if self.has_begun => return Ok(None),
            Coming::Batches { batches, .. } => {
                self.opened = Some(Opened::Batches(batches.take(&inner.name, &inner.schema, &self.signals)?));
                Some(chunk(&inner.name, None, None))
            }
            Coming::Nothing | Coming::Files(_) => return Ok(None),
        };
        self.has_begun |= chunk.is_some();
        if chunk.is_none() && ends {
            return Ok(None);
        }
        match chunk {
            Some(_) => self.wait.begin_again(),
            None => self.wait.once().await,
        }
        Ok(Some(chunk.into_iter().collect()))
    }

    /// The rows of what was opened.
    ///
    /// # Errors
    /// Options of a format that cannot be.
    pub(in crate::source) fn open(
        &mut self,
        file: &StreamFile,
        chunk: &Chunk,
        wanted: &Wanted<'_>,
    ) -> Result<LiveRows> {
        match self.opened.take() {
            Some(Opened::Text(feed)) => LiveRows::of_text(feed, chunk.from.unwrap_or_default(), file, wanted),
            Some(Opened::Batches(batches)) => Ok(LiveRows::Batches(batches.of_columns(wanted.columns))),
            None => Err(internal_datafusion_err!("nothing has been opened")),
        }
    }

    fn file(&mut self, path: &Path) -> Result<Option<Chunk>> {
        let (found, begin) = match self.begin.take() {
            Some(TextPosition { file: Some(file), next, highest, .. }) => {
                let holds =
                    |name: &PathBuf| file.is_at(name) && name.metadata().is_ok_and(|found| found.len() >= next.byte);
                let found = names(path).into_iter().find(holds).ok_or_else(|| lost(path, next))?;
                (found, Some((next, highest)))
            }
            // Of the next file nothing has been read.
            Some(TextPosition { highest, .. }) if path.is_file() => {
                (path.to_path_buf(), Some((TextStart::default(), highest)))
            }
            None if path.is_file() => (path.to_path_buf(), None),
            waits => {
                self.begin = waits;
                return Ok(None);
            }
        };
        let name = shown(path);
        let (from, highest) = begin.unzip();
        let byte = from.map_or(0, |from| from.byte);
        let tail = Tail::open(path, &found, byte, &self.signals, Arc::clone(&self.counts));
        let tail = tail.map_err(|error| Error::data(format!("cannot be read: {error}")).in_file(&name))?;
        self.file = tail.identity().map(|file| (file.inode, file.device));
        self.opened = Some(Opened::Text(Feed::Tail(tail)));
        Ok(Some(chunk(&name, from, highest.flatten())))
    }

    fn bytes(&mut self, bytes: &Bytes) -> Result<Chunk> {
        let handed = Handed::start(bytes, self.has_begun, &self.signals, Arc::clone(&self.counts))?;
        self.opened = Some(Opened::Text(Feed::Handed(handed)));
        Ok(chunk(&bytes.place.to_string(), None, None))
    }
}

/// The names that a file whose name was `path` may have now.
fn names(path: &Path) -> Vec<PathBuf> {
    let mut names = vec![path.to_path_buf()];
    let (folder, name) = (path.parent(), path.file_name().unwrap_or_default().to_string_lossy());
    let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    let others = entries.into_iter().flatten().flatten().filter(|entry| {
        let other = entry.file_name();
        // log.1, log-20240101, log.1.gz, which is not the file.
        other.to_string_lossy().starts_with(&*name) && *other.to_string_lossy() != *name
    });
    names.extend(others.map(|entry| entry.path()));
    names
}

fn lost(path: &Path, next: TextStart) -> Error {
    let what = format!("has been read up to byte {}, and is not there any more, or was cut off", next.byte);
    Error::data(what)
        .in_file(shown(path))
        .help("put it back, under its name or one that begins with it, or begin the job anew in another folder of checkpoints")
}

fn shown(path: &Path) -> String {
    let folder = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&folder).unwrap_or(path).display().to_string()
}

fn chunk(name: &str, from: Option<TextStart>, highest_before: Option<i64>) -> Chunk {
    let file = StreamFile {
        name: name.to_string(),
        // Nobody opens it a second time.
        place: FilePlace::Local(PathBuf::new()),
        object: ObjectMeta {
            location: ObjectPath::from(name),
            last_modified: DateTime::<Utc>::UNIX_EPOCH,
            size: 0,
            e_tag: None,
            version: None,
        },
        hive: vec![],
        compression: CompressionTypeVariant::UNCOMPRESSED,
        footer: None,
        found: Default::default(),
        parts: Default::default(),
    };
    Chunk { part: Part::Live, from, highest_before, found: Some(Arc::new(file)), ..Chunk::default() }
}
