//! GROUP BY with EMIT CHANGES: one output row for each input row, with the new values of its group.
//!
//! A batch is one pass for each aggregate, which updates the groups and writes the output column at once. The keys
//! of the output are the keys of the input.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef};
use datafusion::common::{Result, internal_datafusion_err};

use super::accumulators::{RunningAggregate, running_aggregate};
use super::aggregate_spec::{AggregateSpec, Evaluated};
use super::groups::Keys;
use super::snapshot::{counters_batch, split_counters};
use super::{Counters, Operator, Stamp, WATERMARK_MAX};

/// Gives the running values of each group.
pub(crate) struct ChangelogAggregate {
    spec: Arc<AggregateSpec>,
    state: State,
}

/// All that changes while rows pass.
#[derive(Default)]
struct State {
    /// Open windows by start.
    windows: BTreeMap<i64, RunningGroups>,
    /// Rows without a window: of null event time, or all of them where there is no window.
    last: Option<RunningGroups>,
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
        Ok(Self { keys: Keys::try_new(spec)?, aggregates, size: 0 })
    }

    /// The columns of the output rows, one for each row.
    fn update(&mut self, rows: Evaluated) -> Result<Vec<ArrayRef>> {
        self.keys.intern(&rows.keys, rows.rows)?;
        let total = self.keys.len();
        let mut columns = rows.keys;
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

impl ChangelogAggregate {
    pub(crate) fn try_new(spec: Arc<AggregateSpec>) -> Result<Self> {
        Ok(Self { spec, state: State::default() })
    }

    fn groups_of(&mut self, start: Option<i64>) -> Result<&mut RunningGroups> {
        Ok(match start {
            Some(start) => match self.state.windows.entry(start) {
                std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
                std::collections::btree_map::Entry::Vacant(free) => free.insert(RunningGroups::try_new(&self.spec)?),
            },
            None => match &mut self.state.last {
                Some(groups) => groups,
                none => none.insert(RunningGroups::try_new(&self.spec)?),
            },
        })
    }

    fn change(&mut self, start: Option<i64>, rows: Evaluated) -> Result<RecordBatch> {
        let count = rows.rows;
        let columns = self.groups_of(start)?.update(rows)?;
        self.spec.output(start, count, columns)
    }

    /// Forgets the windows that end at or before the watermark: no row can change them any more.
    fn close(&mut self, watermark: i64) {
        let Some(window) = &self.spec.window else { return };
        while let Some(first) = self.state.windows.first_entry()
            && window.is_closed(*first.key(), watermark)
        {
            first.remove();
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
        if self.spec.always_answers() && self.state.last.is_none() {
            output.push(self.spec.empty_answer()?);
        }
        self.close(WATERMARK_MAX);
        self.state.last = None;
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let mut snapshot = vec![counters_batch(&self.state.counters)?];
        let windows = std::mem::take(&mut self.state.windows);
        let windows = windows.into_iter().map(|(start, groups)| (Some(start), groups));
        for (start, groups) in windows.chain(self.state.last.take().map(|groups| (None, groups))) {
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
            let starts = window
                .columns()
                .first()
                .and_then(|starts| starts.as_primitive_opt::<Int64Type>())
                .filter(|starts| !starts.is_empty())
                .ok_or_else(|| internal_datafusion_err!("a window's snapshot begins with its start"))?;
            let groups = RunningGroups::restore(&self.spec, window)?;
            match starts.is_valid(0) {
                true => self.state.windows.insert(starts.value(0), groups),
                false => self.state.last.replace(groups),
            };
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        self.state.windows.values().chain(&self.state.last).map(|groups| groups.size).sum()
    }

    fn counters(&self) -> Counters {
        Counters { windows_open: self.state.windows.len() as u64, ..self.state.counters }
    }
}
