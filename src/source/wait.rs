//! Waiting for what comes: longer and longer.

use std::time::Duration;

use tokio::time::sleep;

/// How long to wait before somebody looks again: at first, and at most.
const WAITS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(200)];

/// The same where each look is a listing of an object store, which takes time and is paid for.
const WAITS_FOR_LISTINGS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

/// Waits longer and longer.
pub(super) struct Wait {
    next: Duration,
    waits: [Duration; 2],
}

impl Default for Wait {
    fn default() -> Self {
        Self { next: WAITS[0], waits: WAITS }
    }
}

impl Wait {
    /// Waits for what listings of an object store show.
    pub(super) fn for_listings() -> Self {
        Self { next: WAITS_FOR_LISTINGS[0], waits: WAITS_FOR_LISTINGS }
    }

    /// Something has come: the next time begins with a short while.
    pub(super) fn begin_again(&mut self) {
        self.next = self.waits[0];
    }

    pub(super) async fn once(&mut self) {
        sleep(self.next).await;
        self.next = (2 * self.next).min(self.waits[1]);
    }
}
