//! How long rows take: from the moment at which each was due to that at which its effects have been written.
//!
//! A row is late from the moment at which the schedule says that it is there, whether or not anybody was ready to take
//! it: a pipeline that stands still is charged for every row that became due meanwhile (no coordinated omission).

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// The longest latency that is told apart.
const LONGEST_NS: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// The latency of rows.
#[derive(Debug, Clone)]
pub struct Latency {
    ns: Histogram<u64>,
    begun: Instant,
    ended: Instant,
}

impl Latency {
    fn new(begun: Instant) -> Option<Self> {
        let ns = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).ok()?;
        Some(Self { ns, begun, ended: begun })
    }

    /// Rows whose effects have been written.
    pub fn rows(&self) -> u64 {
        self.ns.len()
    }

    /// The latency that a share of the rows, from 0 to 1, does not exceed.
    pub fn at(&self, share: f64) -> Duration {
        Duration::from_nanos(self.ns.value_at_quantile(share))
    }

    /// The longest of all.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.ns.max())
    }

    /// Rows in a second, from when the first one was due to when the last one was written.
    pub fn rows_per_s(&self) -> f64 {
        self.rows() as f64 / self.ended.duration_since(self.begun).as_secs_f64().max(1e-9)
    }

    fn merge(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.ns.add(&other.ns);
        self.begun = self.begun.min(other.begun);
        self.ended = self.ended.max(other.ended);
    }
}

/// Where one pipeline records its rows.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Mutex<Option<Latency>>);

impl Latencies {
    /// The effects of rows have been written just now, of which the schedule that began at `begun` had each due.
    pub(super) fn record(&self, begun: Instant, due: impl Iterator<Item = Duration>) {
        let now = Instant::now();
        let passed = now.duration_since(begun);
        let mut kept = self.0.lock();
        if kept.is_none() {
            *kept = Latency::new(begun);
        }
        if let Some(latency) = kept.as_mut() {
            due.for_each(|due| latency.ns.saturating_record(passed.saturating_sub(due).as_nanos() as u64));
            latency.ended = now;
        }
    }

    /// Adds what was recorded here.
    pub(crate) fn add_to(&self, total: &mut Option<Latency>) {
        match (self.0.lock().as_ref(), total.as_mut()) {
            (Some(own), Some(total)) => total.merge(own),
            (Some(own), None) => *total = Some(own.clone()),
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_charged_to_every_row_that_was_due() {
        let latencies = Latencies::default();
        let begun = Instant::now() - Duration::from_secs(1);
        // A hundred rows, one each 10 ms, all written after a second.
        latencies.record(begun, (0..100).map(|row| Duration::from_millis(10 * row)));
        let mut total = None;
        latencies.add_to(&mut total);
        latencies.add_to(&mut total);
        let latency = total.unwrap();
        assert_eq!(latency.rows(), 200);
        assert!(latency.max() >= Duration::from_secs(1) && latency.at(0.01) < Duration::from_millis(100));
        let median = latency.at(0.5);
        assert!(median >= Duration::from_millis(490) && median < Duration::from_millis(600), "{median:?}");
        assert!(latency.rows_per_s() <= 200.0);
    }
}
