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
/// Longer than anybody waits.
const FAR: Duration = Duration::from_secs(1 << 32);
/// Batches of a second: event time goes on with the last row of a batch.
const BATCHES_PER_S: u64 = 100;

/// `streamlines.speed`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Speed {
    /// As fast as rows can be read.
    Max,
    /// So many rows in a second.
    RowsPerSecond(u64),
    /// By event time, which goes so many times as fast as the clock.
    EventTime(f64),
}

/// How many times as fast as the clock event time may go.
const TIMES: std::ops::RangeInclusive<f64> = 1e-3..=1e9;

impl Speed {
    /// Reads `max`, `1000rows/s` or `60x`.
    ///
    /// # Errors
    /// Any other text.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim().to_ascii_lowercase();
        if text == "max" {
            return Ok(Self::Max);
        }
        let number = |unit: &str| text.strip_suffix(unit).map(|number| number.trim_end().replace('_', ""));
        let rows = number("rows/s").and_then(|rows| rows.parse().ok()).filter(|rows| *rows > 0);
        let times = number("x").and_then(|times| times.parse().ok()).filter(|times| TIMES.contains(times));
        match (rows, times) {
            (Some(rows), _) => Ok(Self::RowsPerSecond(rows)),
            (None, Some(times)) => Ok(Self::EventTime(times)),
            (None, None) => {
                let error = Error::sql(format!("unknown speed '{text}'"));
                Err(error.help("streamlines.speed is max, 1000rows/s or, so many times as fast as event time, 60x"))
            }
        }
    }

    /// Whether rows come by event time.
    pub(crate) fn goes_by_event_time(self) -> bool {
        matches!(self, Self::EventTime(_))
    }

    /// How far event time goes in a moment, in ticks of so many nanoseconds, if rows come by it: what is due in one moment comes
    /// together.
    pub(super) fn step(self, tick_ns: i64) -> Option<i64> {
        let Self::EventTime(times) = self else { return None };
        Some(((1e9 / tick_ns as f64 * times / BATCHES_PER_S as f64) as i64).max(1))
    }

    pub(super) fn of(task: &TaskContext) -> Self {
        let options = task.session_config().options().extensions.get::<StreamlinesOptions>();
        options.and_then(|options| Self::parse(&options.speed).ok()).unwrap_or(Self::Max)
    }
}

/// How many rows a batch has at most: not more than are due in a moment.
pub(super) fn batch_rows_at_most(task: &TaskContext) -> usize {
    match Speed::of(task) {
        Speed::Max | Speed::EventTime(_) => usize::MAX,
        Speed::RowsPerSecond(rows) => (rows / BATCHES_PER_S).max(1) as usize,
    }
}

/// When the rows of one worker become due.
#[derive(Debug)]
pub(crate) struct Schedule {
    pace: Pace,
    begun: OnceLock<Instant>,
}

#[derive(Debug)]
enum Pace {
    /// One row after the other, as far apart as the worker's share of the speed says.
    Rows {
        per_s: f64,
        /// How many workers share the speed.
        workers: usize,
        /// Rows that have become due and were handed on.
        handed_on: AtomicU64,
    },
    /// Each row when event time has come to it, from that of the first row on.
    EventTime { ticks_per_s: f64, first: OnceLock<i64> },
}

impl Schedule {
    /// The schedule of one of so many workers, if rows have a speed.
    pub(crate) fn of(task: &TaskContext, workers: usize, replay: Option<&ReplayPlan>) -> Option<Arc<Self>> {
        match Speed::of(task) {
            Speed::Max => None,
            Speed::RowsPerSecond(rows) => Some(Arc::new(Self::of_rows(rows as f64 / workers.max(1) as f64, workers))),
            Speed::EventTime(times) => {
                let ticks_per_s = 1e9 / replay?.event_time()?.tick_ns()? as f64 * times;
                Some(Arc::new(Self::new(Pace::EventTime { ticks_per_s, first: OnceLock::new() })))
            }
        }
    }

    fn new(pace: Pace) -> Self {
        Self { pace, begun: OnceLock::new() }
    }

    fn of_rows(per_s: f64, workers: usize) -> Self {
        Self::new(Pace::Rows { per_s, workers, handed_on: AtomicU64::new(0) })
    }

    /// The schedule for a piece of the data. Where a worker has one piece only, it gets as much of the speed as it has of
    /// the rows, so that uneven pieces end together.
    pub(crate) fn for_piece(self: &Arc<Self>, replay: &ReplayPlan, piece: usize) -> Arc<Self> {
        let Pace::Rows { per_s, workers, .. } = &self.pace else { return Arc::clone(self) };
        match replay.share_of_piece(piece, *workers).filter(|share| *share > 0.0) {
            Some(share) => Arc::new(Self::of_rows(per_s * *workers as f64 * share, *workers)),
            None => Arc::clone(self),
        }
    }

    /// When the first row was due: when it was first asked for.
    fn begun(&self) -> Instant {
        *self.begun.get_or_init(Instant::now)
    }

    /// Which of the rows that were read, so many and due at an event time, are due next, and when.
    fn next(&self, rows: usize, due: Option<i64>) -> DueRows {
        match &self.pace {
            Pace::Rows { per_s, handed_on, .. } => {
                DueRows::OneByOne { first: handed_on.load(Ordering::Relaxed), rows: rows as u64, per_s: *per_s }
            }
            Pace::EventTime { ticks_per_s, first } => {
                // Rows without a time come with those before them.
                let since = due.map_or(0, |due| due.saturating_sub(*first.get_or_init(|| due)).max(0));
                let at = Duration::try_from_secs_f64(since as f64 / ticks_per_s).unwrap_or(Duration::MAX);
                DueRows::Together { rows: rows as u64, at }
            }
        }
    }
}

/// Rows and when they are due, after the first one.
#[derive(Debug, Clone)]
enum DueRows {
    /// From the row `first` on, counted from 0.
    OneByOne {
        first: u64,
        rows: u64,
        per_s: f64,
    },
    Together {
        rows: u64,
        at: Duration,
    },
}

impl DueRows {
    fn rows(&self) -> u64 {
        match self {
            Self::OneByOne { rows, .. } | Self::Together { rows, .. } => *rows,
        }
    }

    /// When each of them is due.
    fn times(&self) -> impl Iterator<Item = Duration> + use<> {
        let (first, per_s, at) = match self {
            Self::OneByOne { first, per_s, .. } => (*first, *per_s, None),
            Self::Together { at, .. } => (0, 1.0, Some(*at)),
        };
        let due = move |row| at.unwrap_or_else(|| Duration::from_secs_f64((first + row) as f64 / per_s));
        (0..self.rows()).map(due)
    }

    /// The first of them, which are due after so long; at least one.
    fn due_after(self, passed: Duration) -> Self {
        match self {
            Self::OneByOne { first, rows, per_s } => {
                let due = (passed.as_secs_f64() * per_s) as u64 + 1;
                Self::OneByOne { first, rows: rows.min(due.saturating_sub(first).max(1)), per_s }
            }
            together => together,
        }
    }

    /// Takes the first of the rows.
    fn take(&mut self, most: u64) -> Self {
        match self {
            Self::OneByOne { first, rows, per_s } => {
                let taken = Self::OneByOne { first: *first, rows: most.min(*rows), per_s: *per_s };
                (*first, *rows) = (*first + taken.rows(), *rows - taken.rows());
                taken
            }
            Self::Together { rows, at } => {
                let taken = Self::Together { rows: most.min(*rows), at: *at };
                *rows -= taken.rows();
                taken
            }
        }
    }
}

/// Rows that were handed on, to be recorded when their effects have been written.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    schedule: Arc<Schedule>,
    counts: Arc<ReaderCounts>,
    rows: DueRows,
}

impl Due {
    /// The effects of the rows have been written just now.
    pub(crate) fn written(&self) {
        self.counts.latency.record(self.schedule.begun(), self.rows.times());
    }

    /// Takes the first of the rows.
    pub(crate) fn take(&mut self, rows: u64) -> Self {
        Self { rows: self.rows.take(rows), ..self.clone() }
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
        let next = schedule.next(total - offset, read.due);
        let first = next.times().next().unwrap_or_default();
        let begun = schedule.begun();
        wait_until(begun.checked_add(first).unwrap_or(begun + FAR)).await?;
        let due = next.due_after(begun.elapsed());
        let rows = due.rows() as usize;
        if let Pace::Rows { handed_on, .. } = &schedule.pace {
            handed_on.fetch_add(rows as u64, Ordering::Relaxed);
        }
        let is_last = offset + rows == total;
        let next_watermark = if is_last { read.stamp.next_watermark } else { self.watermark };
        let part = read.slice(offset, rows, Stamp { next_watermark, ..read.stamp });
        match is_last {
            true => self.watermark = next_watermark,
            false => self.held = Some((read, offset + rows)),
        }
        let due = Due { schedule, counts: Arc::clone(&self.counts), rows: due };
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
        assert_eq!(rows("60x"), Some(Speed::EventTime(60.0)));
        assert_eq!(rows("0.5 X"), Some(Speed::EventTime(0.5)));
        for wrong in ["", "fast", "0rows/s", "-1rows/s", "1.5rows/s", "10", "rows/s", "x", "0x", "-1x", "nanx", "1e99x"]
        {
            let error = Speed::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("unknown speed"), "{error}");
        }
    }

    fn read(rows: i64) -> Read {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        Read { batch, stamp: Stamp { partition: 0, watermark: 5, next_watermark: 9 }, origin: None, due: None }
    }

    #[tokio::test]
    async fn rows_come_when_they_are_due_and_not_before() {
        let (schedule, counts) = (Arc::new(Schedule::of_rows(2000.0, 1)), Arc::new(ReaderCounts::default()));
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
        let mut pacing = Pacing::new(Arc::new(Schedule::of_rows(1000.0, 1)), Arc::default());
        pacing.hold(read(1000));
        let (first, _) = pacing.next().await.unwrap().unwrap();
        assert_eq!(first.batch.num_rows(), 1);
        std::thread::sleep(Duration::from_millis(50));
        let (second, mut due) = pacing.next().await.unwrap().unwrap();
        assert!(second.batch.num_rows() >= 50);
        let taken = due.take(10);
        let begin = |due: &Due| due.rows.times().next().unwrap();
        assert_eq!((begin(&taken), taken.rows.rows()), (Duration::from_millis(1), 10));
        assert_eq!(begin(&due), Duration::from_millis(11));
    }

    #[tokio::test]
    async fn rows_come_when_event_time_has_come_to_them() {
        let schedule = Arc::new(Schedule::new(Pace::EventTime { ticks_per_s: 1000.0, first: OnceLock::new() }));
        let counts = Arc::new(ReaderCounts::default());
        let mut pacing = Pacing::new(Arc::clone(&schedule), Arc::clone(&counts));
        for (due, after_ms) in [(Some(500), 0), (Some(560), 60), (None, 60), (Some(450), 60), (Some(600), 100)] {
            pacing.hold(Read { due, ..read(3) });
            let (part, due) = pacing.next().await.unwrap().unwrap();
            assert_eq!((part.batch.num_rows(), part.stamp.next_watermark), (3, 9));
            let passed = schedule.begun().elapsed();
            assert!(passed >= Duration::from_millis(after_ms), "{passed:?} and not {after_ms} ms");
            due.written();
        }
        let mut latency = None;
        counts.latency.add_to(&mut latency);
        assert_eq!(latency.unwrap().rows(), 15);
    }
}
