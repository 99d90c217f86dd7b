//! Rows whose time has not come.
//!
//! Rows wait in runs, in order of arrival; a run knows its rows in order of event time and is read from its front.
//! A row is copied when it leaves, so a watermark that moves in small steps costs no more than one that leaps. Two
//! things keep runs few and full: small neighbours are joined as they arrive, as digits carry in a binary counter,
//! and a run of which more than half has left is copied down. Rows without an event time wait apart, for the end.

use arrow::array::{Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{
    concat_batches, filter_record_batch, interleave_record_batch, is_not_null, is_null, take_record_batch,
};
use datafusion::common::Result;

use crate::operator::pool::{RELEASED_ROWS_MAX, array_without_slack, bytes_of};

/// Rows of a run that is still joined with its neighbour.
const JOINED_ROWS_MAX: usize = 8192;

/// The rows that wait.
#[derive(Default)]
pub(super) struct Waiting {
    timed: Runs,
    timeless: Runs,
}

impl Waiting {
    /// Takes rows in, with their event times in ticks.
    pub(super) fn admit(&mut self, rows: RecordBatch, times: &Int64Array) -> Result<()> {
        if times.null_count() == 0 {
            return self.timed.admit(rows, times.values().to_vec());
        }
        let timeless = filter_record_batch(&rows, &is_null(times)?)?;
        let no_times = vec![0; timeless.num_rows()];
        self.timeless.admit(timeless, no_times)?;
        let timed = filter_record_batch(&rows, &is_not_null(times)?)?;
        self.timed.admit(timed, times.iter().flatten().collect())
    }

    /// Takes out the rows before `watermark`, by event time and arrival.
    pub(super) fn release(&mut self, watermark: i64) -> Result<Vec<RecordBatch>> {
        self.timed.release(|times| times.partition_point(|time| *time < watermark))
    }

    /// Takes out every row, those without an event time last.
    pub(super) fn release_all(&mut self) -> Result<Vec<RecordBatch>> {
        let mut released = self.timed.release(<[i64]>::len)?;
        released.extend(self.timeless.release(<[i64]>::len)?);
        Ok(released)
    }

    /// Every row, in an order in which they may be admitted again.
    pub(super) fn rows(&self) -> Result<Vec<RecordBatch>> {
        self.timed.0.iter().chain(&self.timeless.0).map(Run::remaining).collect()
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        self.timed.0.iter().chain(&self.timeless.0).map(Run::size).sum()
    }
}

/// Runs in order of arrival.
#[derive(Default)]
struct Runs(Vec<Run>);

/// A row that leaves.
struct Due {
    time: i64,
    run: u32,
    row: u32,
}

impl Runs {
    fn admit(&mut self, rows: RecordBatch, times: Vec<i64>) -> Result<()> {
        if rows.num_rows() > 0 {
            self.0.push(Run::new(rows, times));
        }
        while let [.., older, newer] = self.0.as_slice() {
            let (older_rows, newer_rows) = (older.waiting(), newer.waiting());
            if older_rows > 2 * newer_rows || older_rows + newer_rows > JOINED_ROWS_MAX {
                break;
            }
            let joined = Run::join(older, newer)?;
            self.0.truncate(self.0.len() - 2);
            self.0.push(joined);
        }
        Ok(())
    }

    /// Takes out rows in order. `count` tells how many of some ascending times are due.
    fn release(&mut self, count: impl Fn(&[i64]) -> usize) -> Result<Vec<RecordBatch>> {
        let mut due = vec![];
        for (run, index) in self.0.iter_mut().zip(0..) {
            run.leave(&count, |time, row| due.push(Due { time, run: index, row }));
        }
        if due.is_empty() {
            return Ok(vec![]);
        }
        // Of equal times the earlier run's come first: the sort is stable, and quick where runs follow each other.
        due.sort_by_key(|due| due.time);
        let released = due.chunks(RELEASED_ROWS_MAX).map(|due| self.gather(due)).collect();
        self.settle()?;
        released
    }

    fn gather(&self, due: &[Due]) -> Result<RecordBatch> {
        if let Some(rows) = self.lying_together(due) {
            return Ok(rows);
        }
        let batches: Vec<&RecordBatch> = self.0.iter().map(|run| &run.rows).collect();
        let places: Vec<(usize, usize)> = due.iter().map(|due| (due.run as usize, due.row as usize)).collect();
        Ok(interleave_record_batch(&batches, &places)?)
    }

    /// Rows that need not be copied, because they follow each other in one run.
    fn lying_together(&self, due: &[Due]) -> Option<RecordBatch> {
        let first = due.first()?;
        let follows = |(due, row): (&Due, u32)| due.run == first.run && due.row == row;
        let run = self.0.get(first.run as usize)?;
        due.iter().zip(first.row..).all(follows).then(|| run.rows.slice(first.row as usize, due.len()))
    }

    /// Lets go of what has left.
    fn settle(&mut self) -> Result<()> {
        self.0.retain(|run| run.waiting() > 0);
        for run in &mut self.0 {
            if run.gone > run.rows.num_rows() / 2 {
                *run = Run::new(without_slack(&run.remaining()?)?, run.remaining_times().to_vec());
            }
        }
        Ok(())
    }
}

/// Rows that arrived together, or one after the other.
struct Run {
    rows: RecordBatch,
    /// Event times, ascending.
    times: Vec<i64>,
    /// The row of each time; none where rows are in order themselves.
    order: Option<Vec<u32>>,
    /// How many have left.
    gone: usize,
    /// Bytes of the rows.
    bytes: usize,
}

impl Run {
    fn new(rows: RecordBatch, times: Vec<i64>) -> Self {
        let bytes = rows.columns().iter().map(bytes_of).sum();
        if times.is_sorted() {
            return Self { rows, times, order: None, gone: 0, bytes };
        }
        let mut pairs: Vec<(i64, u32)> = times.into_iter().zip(0..).collect();
        pairs.sort_unstable();
        let (times, order) = pairs.into_iter().unzip();
        Self { rows, times, order: Some(order), gone: 0, bytes }
    }

    fn join(older: &Self, newer: &Self) -> Result<Self> {
        let rows = concat_batches(older.rows.schema_ref(), &[older.remaining()?, newer.remaining()?])?;
        let times = [older.remaining_times(), newer.remaining_times()].concat();
        Ok(Self::new(without_slack(&rows)?, times))
    }

    fn waiting(&self) -> usize {
        self.times.len() - self.gone
    }

    fn remaining_times(&self) -> &[i64] {
        &self.times[self.gone..]
    }

    /// A copy of the rows that still wait, by event time and arrival.
    fn remaining(&self) -> Result<RecordBatch> {
        let rows = match &self.order {
            Some(order) => UInt32Array::from(order[self.gone..].to_vec()),
            None => UInt32Array::from_iter_values(self.gone as u32..self.times.len() as u32),
        };
        Ok(take_record_batch(&self.rows, &rows)?)
    }

    /// Marks rows as gone, and tells which.
    fn leave(&mut self, count: impl Fn(&[i64]) -> usize, mut tell: impl FnMut(i64, u32)) {
        let until = self.gone + count(self.remaining_times());
        for index in self.gone..until {
            let row = self.order.as_ref().map_or(index as u32, |order| order[index]);
            tell(self.times[index], row);
        }
        self.gone = until;
    }

    fn size(&self) -> usize {
        let order = self.order.as_ref().map_or(0, Vec::capacity);
        self.bytes + self.times.capacity() * size_of::<i64>() + order * size_of::<u32>()
    }
}

fn without_slack(rows: &RecordBatch) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new(rows.schema(), rows.columns().iter().map(array_without_slack).collect())?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, StringViewArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    const LONG: &str = "a text that is too long for a view to hold";

    fn admit(waiting: &mut Waiting, times: Vec<Option<i64>>) {
        let fields = vec![Field::new("ts", DataType::Int64, true), Field::new("text", DataType::Utf8View, true)];
        let times = Int64Array::from(times);
        let texts = StringViewArray::from_iter_values((0..times.len()).map(|_| LONG));
        let columns: Vec<ArrayRef> = vec![Arc::new(times.clone()), Arc::new(texts)];
        waiting.admit(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap(), &times).unwrap();
    }

    fn times(batches: &[RecordBatch]) -> Vec<Option<i64>> {
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>()).collect()
    }

    #[test]
    fn single_rows_are_joined_into_few_runs() {
        let mut waiting = Waiting::default();
        for time in (0..5000).rev() {
            admit(&mut waiting, vec![Some(time)]);
            admit(&mut waiting, vec![None]);
        }
        assert!(waiting.timed.0.len() < 16 && waiting.timeless.0.len() < 16);
        assert_eq!(times(&waiting.release(3000).unwrap()), (0..3000).map(Some).collect::<Vec<_>>());
        let rest = times(&waiting.release_all().unwrap());
        assert_eq!(rest[..2000], (3000..5000).map(Some).collect::<Vec<_>>());
        assert_eq!(rest[2000..], vec![None; 5000]);
        assert_eq!(waiting.size(), 0);
    }

    #[test]
    fn what_has_left_is_let_go() {
        let mut waiting = Waiting::default();
        admit(&mut waiting, (0..10_000).map(Some).collect());
        let before = waiting.size();
        for watermark in (0..=9_999).step_by(7) {
            waiting.release(watermark).unwrap();
        }
        assert!(waiting.size() * 100 < before, "{} of {before} bytes", waiting.size());
        assert!(waiting.timed.0[0].rows.get_array_memory_size() * 100 < before);
    }

    #[test]
    fn many_rows_leave_in_batches_of_bounded_size() {
        let mut waiting = Waiting::default();
        (0..8).for_each(|offset| admit(&mut waiting, (0..10_000).map(|row| Some(row * 8 + offset)).collect()));
        let released = waiting.release_all().unwrap();
        assert_eq!(times(&released), (0..80_000).map(Some).collect::<Vec<_>>());
        assert!(released.iter().all(|batch| batch.num_rows() <= RELEASED_ROWS_MAX));
    }

    #[test]
    fn the_last_possible_time_comes_before_no_time() {
        let mut waiting = Waiting::default();
        admit(&mut waiting, vec![None, Some(i64::MAX), Some(i64::MIN)]);
        assert_eq!(times(&waiting.release_all().unwrap()), vec![Some(i64::MIN), Some(i64::MAX), None]);
    }
}
