//! What bytes are read of that can be read only once: standard input, a named pipe, a connection.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;

/// Where such bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) enum Place {
    /// `-`
    StandardInput,
    /// A path that is a pipe.
    Pipe(PathBuf),
    /// `tcp://host:port`: the program connects, and reads what it is sent.
    Tcp(String),
}

impl Place {
    /// The place that a LOCATION names, if it is one.
    pub(in crate::source) fn of(location: &str) -> Option<Self> {
        if matches!(location, "-" | "/dev/stdin") {
            return Some(Self::StandardInput);
        }
        if let Some(address) = location.strip_prefix("tcp://") {
            return Some(Self::Tcp(address.trim_end_matches('/').to_string()));
        }
        let path = Path::new(location.strip_prefix("file://").unwrap_or(location));
        is_pipe(path).then(|| Self::Pipe(path.to_path_buf()))
    }

    /// Opens it, which may take as long as nobody writes.
    pub(super) fn open(&self) -> io::Result<Box<dyn Read>> {
        Ok(match self {
            Self::StandardInput => Box::new(io::stdin().lock()),
            Self::Pipe(path) => Box::new(File::open(path)?),
            Self::Tcp(address) => Box::new(TcpStream::connect(address)?),
        })
    }
}

#[cfg(unix)]
fn is_pipe(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.metadata().is_ok_and(|found| found.file_type().is_fifo())
}

#[cfg(not(unix))]
fn is_pipe(_: &Path) -> bool {
    false
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StandardInput => f.write_str("standard input"),
            Self::Pipe(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// The bytes of a stream that can be read only once.
#[derive(Debug)]
pub(in crate::source) struct Bytes {
    pub(in crate::source) place: Place,
    /// Whether they go on when one who writes them has ended.
    pub(in crate::source) follows: bool,
    /// Whether somebody reads them.
    is_read: Arc<AtomicBool>,
}

/// Standard input is the whole program's.
static STANDARD_INPUT_IS_READ: AtomicBool = AtomicBool::new(false);

impl Bytes {
    pub(in crate::source) fn new(place: Place, follows: bool) -> Self {
        // Standard input has one writer.
        let follows = follows && place != Place::StandardInput;
        Self { place, follows, is_read: Arc::default() }
    }

    /// Nobody else reads them as long as this is held.
    ///
    /// # Errors
    /// Somebody else does.
    pub(super) fn take(&self) -> Result<Taken, Error> {
        let is_taken = match self.place {
            Place::StandardInput => STANDARD_INPUT_IS_READ.swap(true, Ordering::Relaxed),
            _ => self.is_read.swap(true, Ordering::Relaxed),
        };
        match is_taken {
            false => Ok(Taken(Arc::clone(&self.is_read))),
            true => Err(Error::data("has been read, or is read by another part of the query, and comes only once")
                .in_file(self.place.to_string())
                .help("write it to a file first, and read that")),
        }
    }
}

/// Says that somebody reads the bytes.
pub(super) struct Taken(Arc<AtomicBool>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
