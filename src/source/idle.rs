//! Event time without rows. The rows of a stream say how far it is, so a window stays open as long as nothing comes after
//! its end. Where a timeout is declared and no row has come for so long, event time goes on with the clock, by all the
//! time that has passed since the last row.

use std::time::{Duration, Instant};

/// Since when no row has come.
pub(super) struct Idle {
    timeout: Duration,
    tick_ns: i64,
    since: Instant,
}

impl Idle {
    pub(super) fn new(timeout: Duration, tick_ns: i64) -> Self {
        Self { timeout, tick_ns, since: Instant::now() }
    }

    /// A row has come.
    pub(super) fn came(&mut self) {
        self.since = Instant::now();
    }

    /// How many ticks of event time have passed without a row; none before the timeout.
    pub(super) fn ticks(&self) -> Option<i64> {
        let passed = self.since.elapsed();
        (passed >= self.timeout).then(|| i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX) / self.tick_ns)
    }
}
