//! Bytes that can be read only once, handed over by a thread that waits for them: it may wait for ever, which no task
//! should. Where nobody takes what it has read, it reads no more.

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes as Text;
use datafusion::common::Result;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use crate::error::Error;
use crate::source::follow::Signals;
use crate::source::reader::ReaderCounts;

use super::feed::Arrival;
use super::place::{Bytes, Place, Taken};

/// Bytes that the thread reads at once, and how often it does before somebody takes them.
const BUFFER_BYTES: usize = 64 * 1024;
const QUEUED: usize = 8;
/// How long nothing comes before that is said.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a connection that is lost waits before the next attempt.
const AGAIN: Duration = Duration::from_millis(500);

/// Bytes of a thread that reads.
pub(in crate::source) struct Handed {
    place: Place,
    /// Whether a connection that is lost is made again.
    is_made_again: bool,
    texts: Receiver<std::io::Result<Text>>,
    signals: Arc<Signals>,
    counts: Arc<ReaderCounts>,
    _taken: Taken,
}

impl Handed {
    /// Reads bytes in a thread of its own; where they have been read before, it waits until they are there again.
    ///
    /// # Errors
    /// Somebody else reads them; there can be no more threads.
    pub(super) fn start(bytes: &Bytes, waits: bool, signals: &Arc<Signals>, counts: Arc<ReaderCounts>) -> Result<Self> {
        let taken = bytes.take()?;
        let (queue, texts) = channel(QUEUED);
        let (place, opened) = (bytes.place.clone(), bytes.place.clone());
        std::thread::Builder::new().name("input".to_string()).spawn(move || read(&opened, waits, &queue))?;
        Ok(Self { place, is_made_again: bytes.follows, texts, signals: Arc::clone(signals), counts, _taken: taken })
    }

    /// What comes next: all that has come.
    pub(super) async fn next(&mut self) -> Result<Arrival> {
        let ends = self.signals.is_draining();
        let next = match ends {
            // What comes later is not waited for.
            true => self.texts.try_recv().ok(),
            false => match timeout(PATIENCE, self.texts.recv()).await {
                Ok(next) => next,
                Err(_) => return Ok(Arrival::Later),
            },
        };
        let Some(text) = next else { return Ok(Arrival::End { is_whole: !ends }) };
        let text = match text {
            Ok(text) => text,
            // It is made again, and what came in part may come anew.
            Err(error) if self.is_made_again && is_lost(&error) => {
                tracing::warn!("{}: {error}", self.place);
                return Ok(Arrival::End { is_whole: false });
            }
            Err(error) => return Err(self.unreadable(&error).into()),
        };
        self.counts.bytes.fetch_add(text.len() as u64, Ordering::Relaxed);
        Ok(Arrival::Text(text))
    }

    fn unreadable(&self, error: &std::io::Error) -> Error {
        let help = match self.place {
            Place::Tcp(_) => "check the address, and that somebody listens there",
            Place::StandardInput | Place::Pipe(_) => "check that it may be read",
        };
        Error::data(format!("cannot be read: {error}")).in_file(self.place.to_string()).help(help)
    }
}

fn is_lost(error: &std::io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut)
}

/// Reads to the end, or until nobody takes what was read.
fn read(place: &Place, waits: bool, queue: &Sender<std::io::Result<Text>>) {
    let mut opened = place.open();
    while waits && opened.is_err() && !queue.is_closed() {
        std::thread::sleep(AGAIN);
        opened = place.open();
    }
    let told = opened.and_then(|mut bytes| {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match bytes.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) if queue.blocking_send(Ok(Text::copy_from_slice(&buffer[..read]))).is_err() => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    });
    if let Err(error) = told {
        // Whoever has gone does not want to know.
        let _ = queue.blocking_send(Err(error));
    }
}
