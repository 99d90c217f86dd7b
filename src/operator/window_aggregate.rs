//! GROUP BY with FINAL emission: a window's groups come out once, when the watermark has passed its end.
//!
//! Open windows are kept by their start; without a window there is one, which the end of the stream closes. State is
//! that of the open windows only, so in a steady stream it stays in the processor's cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::{Result, internal_datafusion_err};

use super::aggregate_spec::AggregateSpec;
use super::groups::Groups;
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
    /// Open windows by start.
    windows: BTreeMap<i64, Groups>,
    /// The window of null event times, or the only one where there is no window. It waits for the end.
    last: Option<Groups>,
    counters: Counters,
}

impl WindowAggregate {
    pub(crate) fn try_new(spec: Arc<AggregateSpec>, mode: Mode) -> Result<Self> {
        Ok(Self { spec, mode, state: State::default() })
    }

    fn groups_of(&mut self, start: Option<i64>) -> Result<&mut Groups> {
        Ok(match start {
            Some(start) => match self.state.windows.entry(start) {
                std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
                std::collections::btree_map::Entry::Vacant(free) => free.insert(Groups::try_new(&self.spec)?),
            },
            None => match &mut self.state.last {
                Some(groups) => groups,
                none => none.insert(Groups::try_new(&self.spec)?),
            },
        })
    }

    /// Closes the windows that end at or before the watermark, earliest first.
    fn close(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        let Some(window) = &self.spec.window else { return Ok(()) };
        while let Some(first) = self.state.windows.first_entry()
            && window.is_closed(*first.key(), watermark)
        {
            let (start, groups) = first.remove_entry();
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
        while let Some((start, groups)) = self.state.windows.pop_first() {
            self.state.counters.windows_closed += 1;
            output.push(emit(&self.spec, self.mode, Some(start), groups)?);
        }
        match self.state.last.take() {
            Some(groups) => output.push(emit(&self.spec, self.mode, None, groups)?),
            None if self.spec.always_answers() && self.mode == Mode::Final => output.push(self.spec.empty_answer()?),
            None => {}
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let mut snapshot = vec![counters_batch(&self.state.counters)?];
        let windows = std::mem::take(&mut self.state.windows);
        let windows = windows.into_iter().map(|(start, groups)| (Some(start), groups));
        for (start, groups) in windows.chain(self.state.last.take().map(|groups| (None, groups))) {
            snapshot.push(groups.into_state(&self.spec, start)?);
        }
        // Taking the states out has emptied the accumulators.
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
            let start = starts.is_valid(0).then(|| starts.value(0));
            let spec = Arc::clone(&self.spec);
            self.groups_of(start)?.merge(&spec, window)?;
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
