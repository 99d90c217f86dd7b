//! GROUP BY with EMIT CHANGES: one output row for each input row, with the new values of its group.
//!
//! A batch is one pass for each aggregate, which updates the groups and writes the output column at once. The keys
//! of the output are the keys of the input.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int8Array, Int64Array, RecordBatch, Scalar};
use arrow::compute::cast;
use arrow::compute::kernels::numeric::add;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Result;

use super::accumulators::{RunningAggregate, running_aggregate};
use super::aggregate_spec::{AggregateSpec, Evaluated};
use super::keys::Keys;
use super::open_windows::{OpenWindows, start_of};
use super::snapshot::{counters_batch, split_counters};
use super::{Counters, Operator, Stamp};

/// Gives the running values of each group.
pub(crate) struct ChangelogAggregate {
    spec: Arc<AggregateSpec>,
    state: State,
}

/// All that changes while rows pass.
#[derive(Default)]
struct State {
    windows: OpenWindows<RunningGroups>,
    counters: Counters,
}

/// The groups of one window and their running values.
struct RunningGroups {
    keys: Keys,
    aggregates: Vec<Box<dyn RunningAggregate>>,
    size: usize,
}

impl RunningGroups {
    fn try_new(spec: &AggregateSpec) -> Result<Self> {
        let aggregates = spec.aggregates.iter().map(running_aggregate).collect::<Result<_>>()?;
        Ok(Self { keys: Keys::new(spec), aggregates, size: 0 })
    }

    /// The columns of the output rows, one for each row.
    fn update(&mut self, rows: Evaluated) -> Result<Vec<ArrayRef>> {
        self.keys.intern(&rows.keys, rows.rows)?;
        let total = self.keys.len();
        let mut columns = rows.keys.into_iter().map(one_zero).collect::<Result<Vec<_>>>()?;
        for ((aggregate, arguments), filter) in self.aggregates.iter_mut().zip(&rows.arguments).zip(&rows.filters) {
            columns.push(aggregate.update(&self.keys.groups, total, arguments, filter.as_ref())?);
        }
        self.measure();
        Ok(columns)
    }

    fn state(mut self, start: Option<i64>) -> Result<RecordBatch> {
        let rows = self.keys.len();
        let starts: ArrayRef = Arc::new(Int64Array::from_iter(std::iter::repeat_n(start, rows)));
        let mut columns = vec![starts];
        columns.extend(self.keys.emit()?);
        for aggregate in &mut self.aggregates {
            columns.extend(aggregate.state()?);
        }
        let fields = columns
            .iter()
            .enumerate()
            .map(|(index, column)| Field::new(format!("column_{index}"), column.data_type().clone(), true));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?)
    }

    fn restore(spec: &AggregateSpec, state: &RecordBatch) -> Result<Self> {
        let mut groups = Self::try_new(spec)?;
        let (keys, mut states) = state.columns()[1..].split_at(spec.keys.len());
        groups.keys.intern(keys, state.num_rows())?;
        for aggregate in &mut groups.aggregates {
            let (own, rest) = states.split_at(aggregate.state_width()?);
            aggregate.restore(own)?;
            states = rest;
        }
        groups.measure();
        Ok(groups)
    }

    fn measure(&mut self) {
        self.size = self.keys.size() + self.aggregates.iter().map(|aggregate| aggregate.size()).sum::<usize>();
    }
}

/// Zero and minus zero are one key, so changes of both bear one of them.
fn one_zero(keys: ArrayRef) -> Result<ArrayRef> {
    match keys.data_type().is_floating() {
        true => Ok(add(&keys, &Scalar::new(cast(&Int8Array::from(vec![0]), keys.data_type())?))?),
        false => Ok(keys),
    }
}

impl ChangelogAggregate {
    pub(crate) fn new(spec: Arc<AggregateSpec>) -> Self {
        Self { spec, state: State::default() }
    }

    fn change(&mut self, start: Option<i64>, rows: Evaluated) -> Result<RecordBatch> {
        let count = rows.rows;
        let groups = self.state.windows.open(start, || RunningGroups::try_new(&self.spec))?;
        let columns = groups.update(rows)?;
        self.spec.output(start, count, columns)
    }

    /// Forgets the windows that end at or before the watermark: no row can change them any more.
    fn close(&mut self, watermark: i64) {
        let Some(window) = &self.spec.window else { return };
        while self.state.windows.close(window, watermark).is_some() {
            self.state.counters.windows_closed += 1;
        }
    }
}

impl Operator for ChangelogAggregate {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn push(&mut self, batch: &RecordBatch, stamp: Stamp, output: &mut Vec<RecordBatch>) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        if batch.num_rows() > 0 {
            let rows = spec.evaluate(batch)?;
            match &spec.window {
                None => output.push(self.change(None, rows)?),
                Some(window) => {
                    let divided = rows.by_window(window, stamp.watermark)?;
                    self.state.counters.late_rows += divided.late_rows;
                    self.state.counters.null_time_rows += divided.null_time_rows;
                    for window in divided.windows {
                        output.push(self.change(window.start, window.rows)?);
                    }
                }
            }
        }
        self.close(stamp.next_watermark);
        Ok(())
    }

    fn finish(&mut self, output: &mut Vec<RecordBatch>) -> Result<()> {
        if self.spec.always_answers() && !self.state.windows.has_last() {
            output.push(self.spec.empty_answer()?);
        }
        self.state.counters.windows_closed += self.state.windows.count();
        self.state.windows = OpenWindows::default();
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let mut snapshot = vec![counters_batch(&self.state.counters)?];
        for (start, groups) in self.state.windows.take() {
            snapshot.push(groups.state(start)?);
        }
        // Taking the states out has emptied the groups.
        self.restore(&snapshot)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let (counters, windows) = split_counters(snapshot)?;
        self.state = State { counters, ..State::default() };
        for window in windows {
            self.state.windows.open(start_of(window)?, || RunningGroups::restore(&self.spec, window))?;
        }
        Ok(())
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

    use arrow::array::UInt32Array;
    use arrow::compute::take_arrays;
    use proptest::prelude::*;

    use super::super::testing::{
        Naive, Row, Text, assert_same, assert_snapshot_law, batch, batch_lengths, common_group_by, computed_freshly,
        every_aggregate, group_by, group_of, rows, run, sorted, stamped, text, with_watermarks,
    };
    use super::super::{Mode, WindowAggregate};
    use super::*;

    /// The rows of each group in order.
    fn by_group(rows: Text, group_columns: usize) -> BTreeMap<Vec<String>, Text> {
        let mut groups = BTreeMap::<_, Text>::new();
        for row in rows {
            groups.entry(row[..group_columns].to_vec()).or_default().push(row);
        }
        groups
    }

    /// For each row that is not late, its group and the rows of the group so far.
    fn prefixes(rows: &[Row], bound: i64, size: Option<i64>, keyed: bool) -> Vec<(Vec<String>, Vec<u32>)> {
        let (mut groups, mut prefixes) = (BTreeMap::<Vec<String>, Vec<u32>>::new(), vec![]);
        for (index, (row, watermark)) in with_watermarks(rows, bound).into_iter().enumerate() {
            if let Some(group) = group_of(&row, watermark, size, keyed) {
                let prefix = groups.entry(group.clone()).or_default();
                prefix.push(index as u32);
                prefixes.push((group, prefix.clone()));
            }
        }
        prefixes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn one_row_out_for_each_row_in(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
            size in proptest::option::weighted(0.7, 1i64..60), keyed: bool,
        ) {
            let spec = common_group_by(size, keyed);
            let input = stamped(&rows, &lengths, bound, 0, None);
            let group_columns = usize::from(size.is_some()) + usize::from(keyed);
            let mut operator = ChangelogAggregate::new(Arc::clone(&spec));
            let got = by_group(text(&run(&mut operator, &input)), group_columns);

            let mut expected = vec![];
            for (group, prefix) in prefixes(&rows, bound, size, keyed) {
                let mut naive = Naive::default();
                prefix.iter().for_each(|row| naive.take(rows[*row as usize]));
                expected.push([group, naive.cells()].concat());
            }
            prop_assert_eq!(operator.counters().late_rows as usize, rows.len() - expected.len());
            if expected.is_empty() && group_columns == 0 {
                expected.push(Naive::default().cells());
            }
            let expected = by_group(expected, group_columns);
            prop_assert!(got.keys().eq(expected.keys()));
            for (got, expected) in got.values().zip(expected.values()) {
                assert_same(&spec.schema, got, expected);
            }

            let mut last_rows = WindowAggregate::new(Arc::clone(&spec), Mode::Final);
            let last_rows = text(&run(&mut last_rows, &input));
            let got = got.into_values().filter_map(|mut group| group.pop()).collect();
            assert_same(&spec.schema, &sorted(got), &sorted(last_rows));
        }

        #[test]
        fn snapshots_change_nothing(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
            size in proptest::option::weighted(0.7, 1i64..60), keyed: bool,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        ) {
            let spec = common_group_by(size, keyed);
            let fresh = || ChangelogAggregate::new(Arc::clone(&spec));
            assert_snapshot_law(fresh, &stamped(&rows, &lengths, bound, 0, None), &cuts);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_aggregate_is_that_of_the_rows_so_far(
            rows in rows(40), lengths in batch_lengths(), bound in 0i64..50,
            size in proptest::option::weighted(0.7, 20i64..200), keyed: bool,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..3),
        ) {
            let aggregates = every_aggregate();
            let filters = vec![None; aggregates.len()];
            let spec = group_by(size, keyed, aggregates, filters);
            let input = stamped(&rows, &lengths, bound, 0, None);
            let fresh = || ChangelogAggregate::new(Arc::clone(&spec));
            assert_snapshot_law(fresh, &input, &cuts);

            let arguments = spec.evaluate(&batch(&rows)).unwrap().arguments;
            let mut expected = vec![];
            for (group, prefix) in prefixes(&rows, bound, size, keyed) {
                let prefix = UInt32Array::from(prefix);
                let mut cells = group;
                for (aggregate, arguments) in spec.aggregates.iter().zip(&arguments) {
                    cells.push(computed_freshly(aggregate, &take_arrays(arguments, &prefix, None).unwrap()));
                }
                expected.push(cells);
            }
            if expected.is_empty() && size.is_none() && !keyed {
                expected.push(spec.aggregates.iter().map(|aggregate| computed_freshly(aggregate, &[])).collect());
            }
            let group_columns = usize::from(size.is_some()) + usize::from(keyed);
            let got = by_group(text(&run(&mut fresh(), &input)), group_columns);
            let expected = by_group(expected, group_columns);
            prop_assert!(got.keys().eq(expected.keys()));
            for (got, expected) in got.values().zip(expected.values()) {
                assert_same(&spec.schema, got, expected);
            }
        }
    }
}
