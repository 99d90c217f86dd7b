//! An operator over a stream without an end, where rows without an event time would wait for ever: they are late.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::DiskManager;
use datafusion::physical_expr::PhysicalExpr;

use super::snapshot::{counters_batch, split_counters};
use super::{Counters, Missed, MissedRow, MissedRows, Operator, Stamp};

/// Gives an operator the rows that have an event time.
pub(crate) struct TimedRows {
    operator: Box<dyn Operator>,
    /// Null where the event time is.
    time: Arc<dyn PhysicalExpr>,
    left_out: u64,
    missed: MissedRows,
}

impl TimedRows {
    pub(crate) fn new(operator: Box<dyn Operator>, time: Arc<dyn PhysicalExpr>) -> Self {
        Self { operator, time, left_out: 0, missed: MissedRows::default() }
    }

    /// Which rows of a batch have no time; none if all have one.
    fn untimed(&self, batch: &RecordBatch) -> Result<Option<NullBuffer>> {
        let times = self.time.evaluate(batch)?.into_array(batch.num_rows())?;
        Ok(times.logical_nulls().filter(|nulls| nulls.null_count() > 0))
    }

    /// Notes what the rows between those without a time have missed, and these.
    fn note(&mut self, nulls: &NullBuffer, missed: Vec<MissedRow>) {
        let timed: Vec<usize> = nulls.valid_indices().collect();
        let moved = missed.into_iter().map(|missed| MissedRow { row: timed[missed.row as usize] as u32, ..missed });
        let untimed = (0..nulls.len()).filter(|row| nulls.is_null(*row));
        let untimed = untimed.map(|row| MissedRow { row: row as u32, missed: Missed::All, window: None });
        self.missed.put(moved.chain(untimed).collect());
    }
}

impl Operator for TimedRows {
    fn schema(&self) -> SchemaRef {
        self.operator.schema()
    }

    fn push(&mut self, batch: &RecordBatch, stamp: Stamp, output: &mut Vec<RecordBatch>) -> Result<()> {
        if self.missed.is_wanted() {
            self.operator.missed().want();
        }
        let Some(nulls) = self.untimed(batch)? else {
            self.operator.push(batch, stamp, output)?;
            self.missed.put(self.operator.missed().take());
            return Ok(());
        };
        self.left_out += nulls.null_count() as u64;
        let timed = filter_record_batch(batch, &BooleanArray::new(nulls.inner().clone(), None))?;
        self.operator.push(&timed, stamp, output)?;
        let missed = self.operator.missed().take();
        if self.missed.is_wanted() {
            self.note(&nulls, missed);
        }
        Ok(())
    }

    fn finish(&mut self, output: &mut Vec<RecordBatch>) -> Result<()> {
        self.operator.finish(output)
    }

    fn more(&mut self, output: &mut Vec<RecordBatch>) -> Result<bool> {
        self.operator.more(output)
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let mut snapshot = vec![counters_batch(&Counters { late_rows: self.left_out, ..Counters::default() })?];
        snapshot.extend(self.operator.snapshot()?);
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let (counters, rest) = split_counters(snapshot)?;
        self.left_out = counters.late_rows;
        self.operator.restore(rest)
    }

    fn memory(&self) -> usize {
        self.operator.memory()
    }

    fn can_spill(&self) -> bool {
        self.operator.can_spill()
    }

    fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        self.operator.spill(disk)
    }

    fn counters(&self) -> Counters {
        let counters = self.operator.counters();
        Counters {
            late_rows: counters.late_rows + self.left_out,
            null_time_rows: counters.null_time_rows + self.left_out,
            ..counters
        }
    }

    fn missed(&mut self) -> &mut MissedRows {
        &mut self.missed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{
        assert_snapshot_law, batch_lengths, column, common_group_by, rows, run, stamped, text,
    };
    use super::super::{Mode, WindowAggregate};
    use super::*;

    proptest! {
        #[test]
        fn rows_without_a_time_are_late_and_change_nothing_else(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
        ) {
            let spec = common_group_by(Some(30), true);
            let fresh = || WindowAggregate::new(Arc::clone(&spec), Mode::Final);
            let mut operator = TimedRows::new(Box::new(fresh()), column("ts"));
            operator.missed().want();
            let (mut output, mut missed) = (vec![], vec![]);
            for (batch, stamp) in stamped(&rows, &lengths, bound, 0, None) {
                operator.push(&batch, stamp, &mut output).unwrap();
                let times = batch.column(0).clone();
                missed.extend(operator.missed().take().into_iter().map(|missed| times.is_valid(missed.row as usize)));
            }
            operator.finish(&mut output).unwrap();
            let timed: Vec<_> = rows.iter().filter(|row| row.time.is_some()).copied().collect();
            let mut plain = fresh();
            let expected = run(&mut plain, &stamped(&timed, &[1], bound, 0, None));
            prop_assert_eq!(text(&output), text(&expected));
            let (late, untimed) = (plain.counters().late_rows, (rows.len() - timed.len()) as u64);
            prop_assert_eq!(operator.counters().late_rows, late + untimed);
            prop_assert_eq!(operator.counters().used_rows + late + untimed, rows.len() as u64);
            let told = |is_timed: bool| missed.iter().filter(|other| **other == is_timed).count() as u64;
            prop_assert_eq!((told(true), told(false)), (late, untimed));
        }

        #[test]
        fn snapshots_change_nothing(
            rows in rows(40), lengths in batch_lengths(), bound in 0i64..50,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let spec = common_group_by(Some(30), true);
            let fresh = || {
                TimedRows::new(Box::new(WindowAggregate::new(Arc::clone(&spec), Mode::Final)), column("ts"))
            };
            assert_snapshot_law(fresh, &stamped(&rows, &lengths, bound, 0, None), &cuts);
        }
    }
}
