//! Waiting for what comes: longer and longer.

use std::time::Duration;

use tokio::time::sleep;

/// How long to wait before somebody looks again: at first, and at most.
const WAITS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(200)];

/// Waits longer and longer.
pub(super) struct Wait(Duration);

impl Default for Wait {
    fn default() -> Self {
        Self(WAITS[0])
    }
}

impl Wait {
    /// Something has come: the next time begins with a short while.
    pub(super) fn begin_again(&mut self) {
        *self = Self::default();
    }

    pub(super) async fn once(&mut self) {
        sleep(self.0).await;
        self.0 = (2 * self.0).min(WAITS[1]);
    }
}
