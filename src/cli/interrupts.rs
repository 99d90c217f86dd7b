//! Ctrl-C, from the program's beginning to its end: the first one while a query runs ends the query cleanly, any other
//! one ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::INTERRUPTED;

/// Listens for Ctrl-C.
#[derive(Debug, Default)]
pub struct Interrupts {
    /// Whether a query runs that has not been told to end yet.
    is_running: AtomicBool,
    pressed: Notify,
}

impl Interrupts {
    /// Begins to listen. There is one listener, for a signal between two of them would go unheard.
    pub fn listen() -> Arc<Self> {
        let interrupts = Arc::new(Self::default());
        let listener = Arc::clone(&interrupts);
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
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

    /// Waits for Ctrl-C while a query runs.
    pub async fn pressed(&self) {
        self.pressed.notified().await;
    }
}
