//! GROUP BY with FINAL emission: a window's groups come out once, when the watermark has passed its end.
//!
//! Open windows are kept by their start; without a window there is one, which the end of the stream closes. State is
//! that of the open windows only, so in a steady stream it stays in the processor's cache.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;

use super::aggregate_spec::AggregateSpec;
use super::groups::Groups;
use super::open_windows::{OpenWindows, start_of};
use super::snapshot::{counters_batch, split_counters};
use super::{Counters, Operator, Stamp};

/// What comes out of a closed window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Final values, in the spec's output schema.
    Final,
    /// Partial states, in its state schema, for a [`super::Merger`].
    Partial,
}

/// Aggregates rows by window and key.
pub(crate) struct WindowAggregate {
    spec: Arc<AggregateSpec>,
    mode: Mode,
    state: State,
}

/// All that changes while rows pass.
#[derive(Default)]
struct State {
    windows: OpenWindows<Groups>,
    counters: Counters,
}

impl WindowAggregate {
    pub(crate) fn new(spec: Arc<AggregateSpec>, mode: Mode) -> Self {
        Self { spec, mode, state: State::default() }
    }

    fn groups_of(&mut self, start: Option<i64>) -> Result<&mut Groups> {
        self.state.windows.open(start, || Groups::try_new(&self.spec))
    }

    /// Closes the windows that end at or before the watermark, earliest first.
    fn close(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        let Some(window) = &self.spec.window else { return Ok(()) };
        while let Some((start, groups)) = self.state.windows.close(window, watermark) {
            self.state.counters.windows_closed += 1;
            output.push(emit(&self.spec, self.mode, Some(start), groups)?);
        }
        Ok(())
    }
}

fn emit(spec: &AggregateSpec, mode: Mode, start: Option<i64>, groups: Groups) -> Result<RecordBatch> {
    match mode {
        Mode::Partial => groups.into_state(spec, start),
        Mode::Final => {
            let (rows, columns) = groups.finish()?;
            spec.output(start, rows, columns)
        }
    }
}

impl Operator for WindowAggregate {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn push(&mut self, batch: &RecordBatch, stamp: Stamp, output: &mut Vec<RecordBatch>) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        if batch.num_rows() > 0 {
            let rows = spec.evaluate(batch)?;
            match &spec.window {
                None => self.groups_of(None)?.update(&rows)?,
                Some(window) => {
                    let divided = rows.by_window(window, stamp.watermark)?;
                    self.state.counters.late_rows += divided.late_rows;
                    self.state.counters.null_time_rows += divided.null_time_rows;
                    for window in divided.windows {
                        self.groups_of(window.start)?.update(&window.rows)?;
                    }
                }
            }
        }
        self.close(stamp.next_watermark, output)
    }

    fn finish(&mut self, output: &mut Vec<RecordBatch>) -> Result<()> {
        if self.spec.always_answers() && self.mode == Mode::Final && !self.state.windows.has_last() {
            output.push(self.spec.empty_answer()?);
        }
        self.state.counters.windows_closed += self.state.windows.count();
        for (start, groups) in self.state.windows.take() {
            output.push(emit(&self.spec, self.mode, start, groups)?);
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let mut snapshot = vec![counters_batch(&self.state.counters)?];
        for (start, groups) in self.state.windows.take() {
            snapshot.push(groups.into_state(&self.spec, start)?);
        }
        // Taking the states out has emptied the accumulators.
        self.restore(&snapshot)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let (counters, windows) = split_counters(snapshot)?;
        self.state = State { counters, ..State::default() };
        let spec = Arc::clone(&self.spec);
        windows.iter().try_for_each(|window| self.groups_of(start_of(window)?)?.merge(&spec, window))
    }

    fn memory(&self) -> usize {
        self.state.windows.groups().map(|groups| groups.size).sum()
    }

    fn counters(&self) -> Counters {
        Counters { windows_open: self.state.windows.count(), ..self.state.counters }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::merge_window;
    use super::super::testing::{
        Naive, Row, assert_same, assert_snapshot_law, batch, batch_lengths, common_group_by, computed_freshly,
        every_aggregate, group_by, group_of, rows, run, sorted, stamped, text, with_watermarks,
    };
    use super::*;

    /// The groups of rows, and how many rows are late.
    fn model(rows: &[Row], bound: i64, size: Option<i64>, keyed: bool) -> (BTreeMap<Vec<String>, Naive>, u64) {
        let (mut groups, mut late_rows) = (BTreeMap::<_, Naive>::new(), 0);
        if size.is_none() && !keyed {
            groups.entry(vec![]).or_default();
        }
        for (row, watermark) in with_watermarks(rows, bound) {
            match group_of(&row, watermark, size, keyed) {
                Some(group) => groups.entry(group).or_default().take(row),
                None => late_rows += 1,
            }
        }
        (groups, late_rows)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn equals_the_naive_model(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
            size in proptest::option::weighted(0.7, 1i64..60), keyed: bool,
        ) {
            let spec = common_group_by(size, keyed);
            let mut operator = WindowAggregate::new(Arc::clone(&spec), Mode::Final);
            let output = run(&mut operator, &stamped(&rows, &lengths, bound, 0, None));
            let (groups, late_rows) = model(&rows, bound, size, keyed);
            let expected = groups.into_iter().map(|(group, naive)| [group, naive.cells()].concat()).collect();
            assert_same(&spec.schema, &sorted(text(&output)), &sorted(expected));
            prop_assert_eq!(operator.counters().late_rows, late_rows);
            prop_assert_eq!(operator.counters().windows_open, 0);
        }

        #[test]
        fn windows_come_once_in_order_as_soon_as_they_close(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50, size in 1i64..60,
        ) {
            let mut operator = WindowAggregate::new(common_group_by(Some(size), true), Mode::Final);
            let (mut starts, mut output) = (vec![], vec![]);
            let start_of = |batch: &RecordBatch| text(std::slice::from_ref(batch))[0][0].parse::<i64>().ok();
            for (batch, stamp) in stamped(&rows, &lengths, bound, 0, None) {
                operator.push(&batch, stamp, &mut output).unwrap();
                prop_assert!(operator.state.windows.starts().all(|start| start + size > stamp.next_watermark));
                for batch in output.drain(..) {
                    let start = start_of(&batch);
                    prop_assert!(start.is_some_and(|start| start + size <= stamp.next_watermark));
                    starts.push(start);
                }
            }
            operator.finish(&mut output).unwrap();
            starts.extend(output.iter().map(start_of));
            let nulls = starts.iter().filter(|start| start.is_none()).count();
            let times: Vec<_> = starts.iter().flatten().collect();
            prop_assert!(times.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(nulls, usize::from(rows.iter().any(|row| row.time.is_none())));
            prop_assert!(nulls == 0 || starts.last() == Some(&None));
        }

        #[test]
        fn snapshots_change_nothing(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
            size in proptest::option::weighted(0.7, 1i64..60), keyed: bool, partial: bool,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        ) {
            let spec = common_group_by(size, keyed);
            let mode = if partial { Mode::Partial } else { Mode::Final };
            let fresh = || WindowAggregate::new(Arc::clone(&spec), mode);
            assert_snapshot_law(fresh, &stamped(&rows, &lengths, bound, 0, None), &cuts);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn snapshots_change_nothing_for_any_aggregate(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
            size in proptest::option::weighted(0.7, 20i64..200), keyed: bool,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..3),
        ) {
            let aggregates = every_aggregate();
            let filters = vec![None; aggregates.len()];
            let spec = group_by(size, keyed, aggregates, filters);
            let fresh = || WindowAggregate::new(Arc::clone(&spec), Mode::Final);
            assert_snapshot_law(fresh, &stamped(&rows, &lengths, bound, 0, None), &cuts);
        }
    }

    /// Without keys and window there is always one row, and what it holds does not depend on how it came about.
    #[test]
    fn no_rows_and_null_rows_make_one_row() {
        let null = Row { time: Some(0), key: None, value: None, price: None };
        let aggregates = every_aggregate();
        let filters = vec![None; aggregates.len()];
        let spec = group_by(None, false, aggregates, filters);
        for rows in [vec![], vec![null, null]] {
            let input = stamped(&rows, &[1], 0, 0, None);
            let arguments = spec.evaluate(&batch(&rows)).unwrap().arguments;
            let freshly =
                spec.aggregates.iter().zip(&arguments).map(|(aggregate, own)| computed_freshly(aggregate, own));
            let expected = vec![freshly.collect()];
            let mut operator = WindowAggregate::new(Arc::clone(&spec), Mode::Final);
            operator.snapshot().unwrap();
            assert_same(&spec.schema, &text(&run(&mut operator, &input)), &expected);
            let mut operator = WindowAggregate::new(Arc::clone(&spec), Mode::Final);
            assert_same(&spec.schema, &text(&run(&mut operator, &input)), &expected);
            let mut operator = WindowAggregate::new(Arc::clone(&spec), Mode::Partial);
            let partials = run(&mut operator, &input);
            assert_same(&spec.schema, &text(&[merge_window(&spec, &partials).unwrap()]), &expected);
        }
    }
}
