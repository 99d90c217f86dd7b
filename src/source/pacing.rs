//! Rows at a speed: each becomes due by a schedule, whether or not anybody is ready for it.
//!
//! ```text
//!   Reader ─▶ what was read ─ held until due ─▶ Paced: what is due by now, in one batch ─▶ pipeline
//! ```
//!
//! A worker has one schedule over all of its pipelines, so that one that is slow, or takes its time to open a file, finds
//! all the rows that became due meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;

use crate::config::StreamlinesOptions;
use crate::error::Error;
use crate::operator::{Stamp, WATERMARK_MIN};

use super::reader::{Read, ReaderCounts};
use super::replay::ReplayPlan;

/// The runtime's timers are coarser than this; a thread sleeps through what is left.
const FINE: Duration = Duration::from_millis(2);
/// Batches of a second: event time goes on with the last row of a batch.
const BATCHES_PER_S: u64 = 100;

/// `streamlines.speed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speed {
    /// As fast as rows can be read.
    Max,
    /// So many rows in a second.
    RowsPerSecond(u64),
}

impl Speed {
    /// Reads `max`, or `1000rows/s`.
    ///
    /// # Errors
    /// Any other text.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim().to_ascii_lowercase();
        if text == "max" {
            return Ok(Self::Max);
        }
        let digits = text.strip_suffix("rows/s").map(|number| number.trim_end().replace('_', ""));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(rows @ 1..) => Ok(Self::RowsPerSecond(rows)),
            _ => {
                Err(Error::sql(format!("unknown speed '{text}'")).help("streamlines.speed is max or, say, 1000rows/s"))
            }
        }
    }

    fn of(task: &TaskContext) -> Self {
        let options = task.session_config().options().extensions.get::<StreamlinesOptions>();
        options.and_then(|options| Self::parse(&options.speed).ok()).unwrap_or(Self::Max)
    }
}

/// How many rows a batch has at most: not more than are due in a moment.
pub(super) fn batch_rows_at_most(task: &TaskContext) -> usize {
    match Speed::of(task) {
        Speed::Max => usize::MAX,
        Speed::RowsPerSecond(rows) => (rows / BATCHES_PER_S).max(1) as usize,
    }
}

/// When the rows of one worker become due: one after the other, as far apart as its share of the speed says.
#[derive(Debug)]
pub(crate) struct Schedule {
    rows_per_s: f64,
    /// How many workers share the speed.
    workers: usize,
    begun: OnceLock<Instant>,
    /// Rows that have become due and were handed on.
    handed_on: AtomicU64,
}

impl Schedule {
    /// The schedule of one of so many workers, if rows have a speed.
    pub(crate) fn of(task: &TaskContext, workers: usize) -> Option<Arc<Self>> {
        match Speed::of(task) {
            Speed::Max => None,
            Speed::RowsPerSecond(rows) => Some(Arc::new(Self::new(rows as f64 / workers.max(1) as f64, workers))),
        }
    }

    fn new(rows_per_s: f64, workers: usize) -> Self {
        Self { rows_per_s, workers, begun: OnceLock::new(), handed_on: AtomicU64::new(0) }
    }

    /// The schedule for a piece of the data. Where a worker has one piece only, it gets as much of the speed as it has of
    /// the rows, so that uneven pieces end together.
    pub(crate) fn for_piece(self: &Arc<Self>, replay: &ReplayPlan, piece: usize) -> Arc<Self> {
        let speed = self.rows_per_s * self.workers as f64;
        match replay.share_of_piece(piece, self.workers).filter(|share| *share > 0.0) {
            Some(share) => Arc::new(Self::new(speed * share, self.workers)),
            None => Arc::clone(self),
        }
    }

    /// When the first row was due: when it was first asked for.
    fn begun(&self) -> Instant {
        *self.begun.get_or_init(Instant::now)
    }

    /// When a row is due, after the first one.
    fn due_after(&self, row: u64) -> Duration {
        Duration::from_secs_f64(row as f64 / self.rows_per_s)
    }

    /// How many rows are due by now.
    fn due_by_now(&self) -> u64 {
        (self.begun().elapsed().as_secs_f64() * self.rows_per_s) as u64 + 1
    }
}

/// Rows that were handed on, to be recorded when their effects have been written.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    schedule: Arc<Schedule>,
    counts: Arc<ReaderCounts>,
    first: u64,
    rows: u64,
}

impl Due {
    /// The effects of the rows have been written just now.
    pub(crate) fn written(&self) {
        let rows = self.first..self.first + self.rows;
        self.counts.latency.record(self.schedule.begun(), rows.map(|row| self.schedule.due_after(row)));
    }

    /// Takes the first of the rows.
    pub(crate) fn take(&mut self, rows: u64) -> Self {
        let rows = rows.min(self.rows);
        let taken = Self { rows, ..self.clone() };
        self.first += rows;
        self.rows -= rows;
        taken
    }
}

/// Holds the rows of a pipeline until they are due.
pub(crate) struct Pacing {
    schedule: Arc<Schedule>,
    counts: Arc<ReaderCounts>,
    /// What was read, and how many of its rows were handed on.
    held: Option<(Read, usize)>,
    /// What event time has come to.
    watermark: i64,
}

impl Pacing {
    /// For the rows of one pipeline, to be recorded in `counts`.
    pub(crate) fn new(schedule: Arc<Schedule>, counts: Arc<ReaderCounts>) -> Self {
        Self { schedule, counts, held: None, watermark: WATERMARK_MIN }
    }

    /// Holds what was read, when nothing is held.
    pub(crate) fn hold(&mut self, read: Read) {
        self.held = Some((read, 0));
    }

    /// Waits for the next row that is held, and takes it with all others that are due; none if nothing is held.
    ///
    /// # Errors
    /// A runtime that shuts down.
    pub(crate) async fn next(&mut self) -> Result<Option<(Read, Due)>, DataFusionError> {
        let Some((read, offset)) = self.held.take() else { return Ok(None) };
        let (schedule, total) = (Arc::clone(&self.schedule), read.batch.num_rows());
        let first = schedule.handed_on.load(Ordering::Relaxed);
        wait_until(schedule.begun() + schedule.due_after(first)).await?;
        let due = schedule.due_by_now().saturating_sub(first).max(1);
        let rows = usize::try_from(due).unwrap_or(usize::MAX).min(total - offset);
        schedule.handed_on.fetch_add(rows as u64, Ordering::Relaxed);
        let is_last = offset + rows == total;
        let next_watermark = if is_last { read.stamp.next_watermark } else { self.watermark };
        let part = read.slice(offset, rows, Stamp { next_watermark, ..read.stamp });
        match is_last {
            true => self.watermark = next_watermark,
            false => self.held = Some((read, offset + rows)),
        }
        let due = Due { schedule, counts: Arc::clone(&self.counts), first, rows: rows as u64 };
        Ok(Some((part, due)))
    }
}

async fn wait_until(due: Instant) -> Result<(), DataFusionError> {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        if left > FINE {
            tokio::time::sleep(left - FINE / 2).await;
            continue;
        }
        let slept = tokio::task::spawn_blocking(move || std::thread::sleep(left)).await;
        slept.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?;
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    #[test]
    fn speeds_are_read() {
        let rows = |text: &str| Speed::parse(text).ok();
        assert_eq!(rows("MAX"), Some(Speed::Max));
        assert_eq!(rows("400000rows/s"), Some(Speed::RowsPerSecond(400_000)));
        assert_eq!(rows("1_000 rows/s"), Some(Speed::RowsPerSecond(1000)));
        for wrong in ["", "fast", "0rows/s", "-1rows/s", "1.5rows/s", "10", "rows/s"] {
            let error = Speed::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("unknown speed"), "{error}");
        }
    }

    fn read(rows: i64) -> Read {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        Read { batch, stamp: Stamp { partition: 0, watermark: 5, next_watermark: 9 }, origin: None }
    }

    #[tokio::test]
    async fn rows_come_when_they_are_due_and_not_before() {
        let (schedule, counts) = (Arc::new(Schedule::new(2000.0, 1)), Arc::new(ReaderCounts::default()));
        let mut pacing = Pacing::new(Arc::clone(&schedule), Arc::clone(&counts));
        assert!(pacing.next().await.unwrap().is_none());
        pacing.hold(read(100));
        let (mut rows, mut watermarks) = (0, vec![]);
        while let Some((part, due)) = pacing.next().await.unwrap() {
            rows += part.batch.num_rows();
            watermarks.push(part.stamp.next_watermark);
            let allowed = schedule.begun().elapsed().as_secs_f64() * 2000.0 + 1.0;
            assert!(rows as f64 <= allowed, "{rows} rows and not {allowed}");
            due.written();
        }
        assert_eq!(rows, 100);
        assert_eq!(watermarks.pop(), Some(9));
        assert!(watermarks.iter().all(|watermark| *watermark == WATERMARK_MIN) && !watermarks.is_empty());
        let mut latency = None;
        counts.latency.add_to(&mut latency);
        let latency = latency.unwrap();
        assert_eq!(latency.rows(), 100);
        assert!(latency.rows_per_s() <= 2100.0, "{}", latency.rows_per_s());
    }

    #[tokio::test]
    async fn whoever_comes_late_finds_all_that_was_due() {
        let mut pacing = Pacing::new(Arc::new(Schedule::new(1000.0, 1)), Arc::default());
        pacing.hold(read(1000));
        let (first, _) = pacing.next().await.unwrap().unwrap();
        assert_eq!(first.batch.num_rows(), 1);
        std::thread::sleep(Duration::from_millis(50));
        let (second, mut due) = pacing.next().await.unwrap().unwrap();
        assert!(second.batch.num_rows() >= 50);
        let taken = due.take(10);
        assert_eq!((taken.first, taken.rows, due.first), (1, 10, 11));
    }
}
