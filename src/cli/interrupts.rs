//! Ctrl-C and SIGTERM, from the program's beginning to its end: the first one while a query runs ends the query cleanly,
//! any other one ends the program at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::INTERRUPTED;

/// How soon after a signal another one is the same.
const REPEATED: Duration = Duration::from_millis(100);

/// The next Ctrl-C from now on: one that comes before anybody awaits it is not lost. To be called on the runtime.
pub fn next() -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
    let mut pressed: Pin<Box<dyn Future<Output = io::Result<()>> + Send>> = Box::pin(pressed_or_terminated());
    // It listens from its first poll on.
    let _ = pressed.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    pressed
}

/// Ctrl-C, or the signal by which a service manager ends a program.
#[cfg(unix)]
async fn pressed_or_terminated() -> io::Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = terminated.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn pressed_or_terminated() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}

/// Listens for Ctrl-C.
#[derive(Debug, Default)]
pub struct Interrupts {
    /// Whether a query runs that has not been told to end yet.
    is_running: AtomicBool,
    pressed: Notify,
    /// When the program's time is up.
    deadline: Option<tokio::time::Instant>,
}

impl Interrupts {
    /// Begins to listen, and to count the time.
    pub fn listen(time_limit: Option<Duration>) -> Arc<Self> {
        let deadline = time_limit.map(|limit| tokio::time::Instant::now() + limit);
        let interrupts = Arc::new(Self { deadline, ..Self::default() });
        let listener = Arc::clone(&interrupts);
        let (mut pressed, mut last) = (next(), None::<Instant>);
        tokio::spawn(async move {
            while pressed.await.is_ok() {
                pressed = next();
                // Who ends a group of processes may tell each of them twice.
                let is_repeated = last.replace(Instant::now()).is_some_and(|last| last.elapsed() < REPEATED);
                if is_repeated {
                    continue;
                }
                match listener.is_running.swap(false, Ordering::Relaxed) {
                    true => listener.pressed.notify_one(),
                    false => std::process::exit(i32::from(INTERRUPTED)),
                }
            }
        });
        interrupts
    }

    /// A query begins, or has ended.
    pub fn set_running(&self, is_running: bool) {
        self.is_running.store(is_running, Ordering::Relaxed);
    }

    /// Waits until the time is up.
    pub async fn timed_out(&self) {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// Waits for Ctrl-C while a query runs.
    pub async fn pressed(&self) {
        self.pressed.notified().await;
    }
}
