//! How late rows are: what each bound of a watermark would cost, and which rows make others late.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::execution::TaskContext;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::error::Error;
use crate::operator::ticks;

use super::event_time::EventTime;
use super::pieces::Part;
use super::rows::{Rows, Wanted};
use super::schema::no_column;
use super::table::{StreamFile, StreamTable};

/// Rows that make others late, as many as are named.
const CULPRITS: usize = 5;

/// How late the rows of a stream are.
#[derive(Debug, Clone)]
pub struct Lateness {
    /// The event-time column.
    pub time: String,
    /// Nanoseconds of a tick of its unit.
    pub tick_ns: i64,
    /// Each sequence of rows that has a watermark of its own: a data partition, or a key.
    pub sequences: Vec<SequenceLateness>,
}

/// How late the rows of one sequence are.
#[derive(Debug, Clone)]
pub struct SequenceLateness {
    /// The files of the partition, or the key.
    pub name: String,
    /// Rows with an event time.
    pub rows: u64,
    /// Rows without one.
    pub null_times: u64,
    /// Of each row that needs a bound, the least one in ticks that keeps it from being late.
    needed: Histogram<u64>,
    /// The greatest of them, exactly, and of those that the histogram takes for one.
    greatest: u64,
    greatest_of: HashMap<u64, u64>,
    /// Bounds that were asked for, in ticks, and the rows that are late under each.
    asked: Vec<(u64, u64)>,
    /// The rows that set the watermark that most others are late by, worst first.
    pub culprits: Vec<Culprit>,
}

/// A row that makes others late.
#[derive(Debug, Clone, PartialEq)]
pub struct Culprit {
    /// Its file.
    pub file: String,
    /// Its row there, counted from 1.
    pub row: u64,
    /// Its event time.
    pub time: Option<ScalarValue>,
    /// Rows that come after it and are behind it, before a later event time comes.
    pub rows_behind: u64,
    /// How far the furthest of them is behind, in ticks.
    pub furthest: u64,
    ticks: i64,
}

impl SequenceLateness {
    fn try_new(name: String, asked: &[u64]) -> Result<Self> {
        let needed = Histogram::new(3).map_err(|error| internal_datafusion_err!("{error}"))?;
        let asked = asked.iter().map(|bound| (*bound, 0)).collect();
        let greatest_of = HashMap::new();
        Ok(Self { name, rows: 0, null_times: 0, needed, greatest: 0, greatest_of, asked, culprits: vec![] })
    }

    fn record(&mut self, needed: u64) {
        self.greatest = self.greatest.max(needed);
        // The histogram grows as it needs to, and a time of less than 2^63 ticks has a place in it.
        if self.needed.record(needed).is_err() {
            self.needed.saturating_record(needed);
        }
        let greatest = self.greatest_of.entry(self.needed.highest_equivalent(needed)).or_default();
        *greatest = needed.max(*greatest);
        self.asked.iter_mut().filter(|(bound, _)| *bound < needed).for_each(|(_, late)| *late += 1);
    }

    /// Rows that are late under a bound, in ticks. Exact for the bounds that [`SequenceLateness::bounds`] gives.
    pub fn late_rows(&self, bound: u64) -> u64 {
        match self.asked.iter().find(|(asked, _)| *asked == bound) {
            Some((_, late)) => *late,
            None if bound >= self.greatest => 0,
            None => self.needed.len() - self.needed.count_between(0, bound),
        }
    }

    /// The least bound that loses no row, in ticks.
    pub fn greatest_needed(&self) -> u64 {
        self.greatest
    }

    /// Bounds, ascending: those that were asked for, some that lose at most a tenth, a hundredth and so on of the rows,
    /// one that loses none, and, if rows are far behind all others (an event time far in the future does that), one
    /// that loses those.
    pub fn bounds(&self) -> Vec<u64> {
        let shares = [0.1, 0.01, 0.001, 0.0001];
        let bound = |share: f64| {
            // Of those that need a bound, as many may be lost as this share of all rows.
            let lost = self.rows as f64 * share / (self.needed.len() as f64).max(1.0);
            if lost >= 1.0 { 0 } else { self.needed.value_at_quantile(1.0 - lost) }
        };
        // What a row needs, and not where the histogram divides them.
        let exact = |bound: u64| self.greatest_of.get(&bound).copied().unwrap_or(bound).min(self.greatest);
        let mut bounds: Vec<u64> =
            shares.into_iter().map(bound).map(exact).chain([0, self.greatest_needed()]).collect();
        bounds.extend(self.below_gap());
        bounds.extend(self.asked.iter().map(|(bound, _)| bound));
        bounds.sort_unstable();
        bounds.dedup();
        bounds
    }

    /// What rows need that are less than a tenth as far behind as the next ones, where that is most so.
    fn below_gap(&self) -> Option<u64> {
        let mut needed: Vec<u64> = self.greatest_of.values().copied().filter(|needed| *needed > 0).collect();
        needed.sort_unstable();
        let gaps = needed.windows(2).map(|pair| (pair[1] / pair[0], pair[0]));
        gaps.max().filter(|(ratio, _)| *ratio >= 10).map(|(_, below)| below)
    }

    /// The sequences as one.
    ///
    /// # Errors
    /// None that is known of.
    pub fn all(sequences: &[Self]) -> Result<Self> {
        let asked: Vec<u64> =
            sequences.iter().take(1).flat_map(|first| &first.asked).map(|(bound, _)| *bound).collect();
        let mut all = Self::try_new("all".to_string(), &asked)?;
        for sequence in sequences {
            all.rows += sequence.rows;
            all.null_times += sequence.null_times;
            all.greatest = all.greatest.max(sequence.greatest);
            for (of, greatest) in &sequence.greatest_of {
                let all = all.greatest_of.entry(*of).or_default();
                *all = (*all).max(*greatest);
            }
            all.needed.add(&sequence.needed).map_err(|error| internal_datafusion_err!("{error}"))?;
            all.asked.iter_mut().zip(&sequence.asked).for_each(|(all, one)| all.1 += one.1);
            all.culprits.extend(sequence.culprits.iter().cloned());
        }
        all.keep_worst();
        Ok(all)
    }

    fn keep_worst(&mut self) {
        self.culprits.sort_by(|a, b| b.rows_behind.cmp(&a.rows_behind).then(b.furthest.cmp(&a.furthest)));
        self.culprits.truncate(CULPRITS);
    }
}

/// A sequence as its rows pass.
struct Sequence {
    lateness: SequenceLateness,
    /// Length of the windows that keep a row until they end, in ticks.
    size: Option<i64>,
    /// The row with the highest event time so far.
    highest: Option<Culprit>,
}

impl Sequence {
    fn try_new(name: String, question: &Question) -> Result<Self> {
        Ok(Self { lateness: SequenceLateness::try_new(name, &question.bounds)?, size: question.size, highest: None })
    }

    /// Takes the next row in.
    fn take(&mut self, time: Option<i64>, file: &str, row: u64) {
        let Some(time) = time else {
            self.lateness.null_times += 1;
            return;
        };
        self.lateness.rows += 1;
        match &mut self.highest {
            Some(highest) if time <= highest.ticks => {
                let behind = highest.ticks.abs_diff(time);
                let needed = match self.size {
                    // The window has closed if its end is at or before the watermark.
                    Some(size) => {
                        let end = i128::from(time.div_euclid(size)) * i128::from(size) + i128::from(size);
                        u64::try_from(i128::from(highest.ticks) - end + 1).unwrap_or(0)
                    }
                    None => behind,
                };
                if needed > 0 {
                    self.lateness.record(needed);
                    highest.rows_behind += 1;
                    highest.furthest = highest.furthest.max(behind);
                }
            }
            _ => {
                let next =
                    Culprit { file: file.to_string(), row, time: None, rows_behind: 0, furthest: 0, ticks: time };
                let before = self.highest.replace(next);
                self.settle(before);
            }
        }
    }

    fn settle(&mut self, highest: Option<Culprit>) {
        if let Some(culprit) = highest.filter(|culprit| culprit.rows_behind > 0) {
            self.lateness.culprits.push(culprit);
            if self.lateness.culprits.len() > 16 * CULPRITS {
                self.lateness.keep_worst();
            }
        }
    }

    fn finish(mut self, time: &EventTime) -> SequenceLateness {
        let last = self.highest.take();
        self.settle(last);
        self.lateness.keep_worst();
        self.lateness.culprits.iter_mut().for_each(|culprit| culprit.time = time.value(culprit.ticks));
        self.lateness
    }
}

/// What is asked of the rows.
#[derive(Debug, Clone)]
struct Question {
    time: EventTime,
    by: Option<usize>,
    /// Length of windows in ticks.
    size: Option<i64>,
    /// Bounds to count exactly, in ticks.
    bounds: Vec<u64>,
}

impl StreamTable {
    /// Reads the event times of all rows, and nothing else but `by`, which makes each of its values a sequence of its
    /// own instead of each data partition. With `window_ns` a row is late when its tumbling window of that length has
    /// closed, else when it is behind the watermark. Bounds that are asked for are counted exactly.
    ///
    /// # Errors
    /// Columns that are not there or hold no timestamps; rows that cannot be read.
    pub(crate) async fn lateness(
        &self,
        time: Option<&str>,
        by: Option<&str>,
        window_ns: Option<i64>,
        bounds_ns: &[i64],
        task: &Arc<TaskContext>,
    ) -> Result<Lateness> {
        self.check_reads_again()?;
        let schema = self.schema();
        let index_of = |name: &str, what: &str| schema.index_of(name).map_err(|_| no_column(name, &schema, what));
        let time = match (time, self.event_time()) {
            (Some(name), _) => EventTime::exact(index_of(name, "--time names a column")?, &schema),
            (None, Some(declared)) => declared.clone(),
            (None, None) => {
                return Err(Error::sql("the files do not say which column is the event time")
                    .help("name it: --time ts")
                    .into());
            }
        };
        let tick_ns = time.tick_ns().ok_or_else(|| {
            let error = Error::sql(format!("{} is {}, not a timestamp", time.column, time.data_type()));
            error.help("--time names a timestamp column")
        })?;
        let by = by.map(|name| index_of(name, "--by names a column")).transpose()?;
        let size = window_ns.map(|ns| (ns / tick_ns).max(1));
        // A row that is behind by a part of a tick is still within the bound.
        let bounds = bounds_ns.iter().map(|ns| ns.unsigned_abs().div_ceil(tick_ns.unsigned_abs())).collect();
        let question = Question { time, by, size, bounds };
        let mut tasks = JoinSet::new();
        for (place, files) in self.units(&question).into_iter().enumerate() {
            let (table, question, task) = (self.clone(), question.clone(), Arc::clone(task));
            tasks.spawn(async move { (place, table.lateness_of(&files, &question, &task).await) });
        }
        let mut found = tasks.join_all().await;
        found.sort_by_key(|(place, _)| *place);
        let mut sequences = vec![];
        for (_, of_partition) in found {
            sequences.extend(of_partition?);
        }
        Ok(Lateness { time: question.time.column.clone(), tick_ns, sequences })
    }

    /// Files that are read by themselves: those of each partition, or, where a key's rows may be in several, all of them.
    fn units(&self, question: &Question) -> Vec<Vec<StreamFile>> {
        let partitions = &self.inner.partitions;
        let name = question.by.map(|by| self.inner.schema.field(by).name());
        let keys = self.inner.partitioned_by.as_deref();
        match name {
            Some(name) if keys != Some(std::slice::from_ref(name)) => vec![partitions.concat()],
            _ => partitions.clone(),
        }
    }

    async fn lateness_of(
        &self,
        files: &[StreamFile],
        question: &Question,
        task: &Arc<TaskContext>,
    ) -> Result<Vec<SequenceLateness>> {
        let mut whole = Sequence::try_new(name_of(files), question)?;
        let mut keys: HashMap<String, Sequence> = HashMap::new();
        let columns: Vec<usize> = [question.time.index].into_iter().chain(question.by).collect();
        for file in files {
            let wanted = Wanted { inner: &self.inner, columns: &columns, coded: None, own: None, task, counts: None };
            let mut rows = Rows::open(file, &Part::Whole, None, &wanted).await?;
            let (mut row, mut skipped) = (0, 0);
            while let Some(batch) = rows.next(&mut skipped).await? {
                let times = ticks(batch.column(0))?;
                match batch.columns().get(1) {
                    Some(by) => take_by_key(&mut keys, &times, by, question, &file.name, row)?,
                    None => {
                        for (index, time) in times.iter().enumerate() {
                            whole.take(time, &file.name, row + index as u64 + 1);
                        }
                    }
                }
                row += batch.num_rows() as u64;
                tokio::task::consume_budget().await;
            }
        }
        let mut sequences: Vec<_> = match question.by {
            Some(_) => keys.into_values().map(|sequence| sequence.finish(&question.time)).collect(),
            None => vec![whole.finish(&question.time)],
        };
        sequences.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(sequences)
    }
}

fn take_by_key(
    keys: &mut HashMap<String, Sequence>,
    times: &Int64Array,
    by: &ArrayRef,
    question: &Question,
    file: &str,
    row: u64,
) -> Result<()> {
    let by = cast(by, &DataType::Utf8)?;
    let by = by.as_string::<i32>();
    for (index, time) in times.iter().enumerate() {
        let key = if by.is_null(index) { "NULL" } else { by.value(index) };
        let sequence = match keys.get_mut(key) {
            Some(sequence) => sequence,
            None => keys.entry(key.to_string()).or_insert(Sequence::try_new(key.to_string(), question)?),
        };
        sequence.take(time, file, row + index as u64 + 1);
    }
    Ok(())
}

fn name_of(files: &[StreamFile]) -> String {
    match files {
        [] => String::new(),
        [only] => only.name.clone(),
        [first, .., last] => format!("{} … {}", first.name, last.name),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows late by the definition of a watermark.
    fn late(times: &[Option<i64>], bound: u64, size: Option<i64>) -> u64 {
        let (mut highest, mut late) = (None::<i64>, 0);
        for time in times.iter().flatten() {
            let watermark = highest.map(|highest| highest - bound as i64);
            late += u64::from(watermark.is_some_and(|watermark| match size {
                Some(size) => time.div_euclid(size) * size + size <= watermark,
                None => *time < watermark,
            }));
            highest = highest.max(Some(*time));
        }
        late
    }

    proptest! {
        #[test]
        fn late_rows_are_those_of_the_definition(
            times in prop::collection::vec(prop::option::weighted(0.9, -60i64..60), 0..80),
            bound in 0u64..130, size in prop::option::of(1i64..20),
        ) {
            // Small times are exact; the bound that was asked for is so in any case.
            for (unit, asked) in [(1, vec![]), (1_000_000_007, vec![bound * 1_000_000_007])] {
                let mut sequence = sequence(size.map(|size| size * unit), asked);
                for (row, time) in times.iter().enumerate() {
                    sequence.take(time.map(|time| time * unit), "", row as u64 + 1);
                }
                let found = sequence.lateness.late_rows(bound * unit as u64);
                prop_assert_eq!(found, late(&times, bound, size));
                prop_assert_eq!(sequence.lateness.late_rows(sequence.lateness.greatest_needed()), 0);
            }
        }
    }

    fn sequence(size: Option<i64>, bounds: Vec<u64>) -> Sequence {
        let field = arrow::datatypes::Field::new("ts", DataType::Int64, true);
        let time = EventTime::exact(0, &Arc::new(arrow::datatypes::Schema::new(vec![field])));
        Sequence::try_new(String::new(), &Question { time, by: None, size, bounds }).unwrap()
    }
    #[test]
    fn a_row_far_ahead_is_named() {
        let mut sequence = sequence(None, vec![]);
        for (row, time) in [1, 2, 900, 3, 4, 5, 1000, 999].into_iter().enumerate() {
            sequence.take(Some(time), "f", row as u64 + 1);
        }
        let last = sequence.highest.take();
        sequence.settle(last);
        sequence.lateness.keep_worst();
        let rows: Vec<_> = sequence.lateness.culprits.iter().map(|c| (c.row, c.rows_behind, c.furthest)).collect();
        assert_eq!(rows, [(3, 3, 897), (7, 1, 1)]);
        // All but the rows behind it need no more than this.
        assert!(sequence.lateness.bounds().contains(&1));
        assert_eq!(sequence.lateness.late_rows(1), 3);
    }
}
