//! GROUP BY with FINAL emission: a window's groups come out once, when the watermark has passed its end.
//!
//! What is open is kept by slice: the rows of a pane that are in the same windows. Of tumbling windows that is a
//! window. Of overlapping ones it is a part of several, so a row is aggregated once however many windows hold it, and
//! what a window costs when it closes is the groups of its panes. Without a window there is one slice, which the end of
//! the stream closes. State is that of the open windows only, so in a steady stream it stays in the processor's cache.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;

use super::aggregate_spec::AggregateSpec;
use super::groups::Groups;
use super::open_windows::{OpenWindows, Slice, Window, slice_of, with_slice};
use super::snapshot::{counters_batch, split_counters};
use super::{Counters, MissedRows, Operator, Stamp, WATERMARK_MAX};

/// What comes out of a closed window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Final values, in the spec's output schema.
    Final,
    /// Partial states of its slices, in its state schema, for a [`super::Merger`].
    Partial,
}

/// Aggregates rows by window and key.
pub(crate) struct WindowAggregate {
    spec: Arc<AggregateSpec>,
    mode: Mode,
    state: State,
    missed: MissedRows,
}

/// All that changes while rows pass.
#[derive(Default)]
struct State {
    windows: OpenWindows<Pane>,
    counters: Counters,
}

/// What is kept of a slice.
#[derive(Default)]
struct Pane {
    /// Groups that rows may still come to.
    live: Option<Groups>,
    /// Partial states that windows have been made of.
    sealed: Vec<RecordBatch>,
}

impl Pane {
    fn live(&mut self, spec: &AggregateSpec) -> Result<&mut Groups> {
        Ok(match &mut self.live {
            Some(groups) => groups,
            none => none.insert(Groups::try_new(spec)?),
        })
    }

    /// Everything as partial states.
    fn seal(&mut self, spec: &AggregateSpec, slice: Option<Slice>) -> Result<&[RecordBatch]> {
        if let Some(groups) = self.live.take() {
            self.sealed.push(groups.into_state(spec, slice)?);
        }
        Ok(&self.sealed)
    }

    fn size(&self) -> usize {
        let sealed = self.sealed.iter().map(RecordBatch::get_array_memory_size);
        self.live.as_ref().map_or(0, |groups| groups.size) + sealed.sum::<usize>()
    }
}

impl WindowAggregate {
    pub(crate) fn new(spec: Arc<AggregateSpec>, mode: Mode) -> Self {
        Self { spec, mode, state: State::default(), missed: MissedRows::default() }
    }

    fn live(&mut self, slice: Option<Slice>) -> Result<&mut Groups> {
        self.state.windows.open(slice, || Ok(Pane::default()))?.live(&self.spec)
    }

    /// Closes the windows that end at or before the watermark, earliest first.
    fn close(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        let Some(shape) = spec.window.as_ref().map(|window| &window.shape) else { return Ok(()) };
        while let Some((window, slices)) = self.state.windows.close(shape, watermark) {
            self.state.counters.windows_closed += 1;
            match self.mode {
                // The merger keeps what later windows need.
                Mode::Partial => {
                    for (slice, mut pane) in slices {
                        output.extend_from_slice(pane.seal(&spec, Some(slice))?);
                    }
                }
                Mode::Final => output.push(self.answer(window, slices)?),
            }
        }
        Ok(())
    }

    /// The rows of a window that has closed.
    fn answer(&mut self, window: Window, slices: Vec<(Slice, Pane)>) -> Result<RecordBatch> {
        let mut slices = slices;
        if let [(slice, pane)] = slices.as_mut_slice()
            && pane.sealed.is_empty()
            && self.spec.next_window(*slice).is_none()
            && let Some(groups) = pane.live.take()
        {
            let (rows, columns) = groups.finish()?;
            return self.spec.output(Some(window), rows, columns);
        }
        let mut groups = Groups::try_new(&self.spec)?;
        for (slice, mut pane) in slices {
            for state in pane.seal(&self.spec, Some(slice))? {
                groups.merge(&self.spec, state)?;
            }
            if let Some(next) = self.spec.next_window(slice) {
                self.state.windows.open(Some(next), || Ok(Pane::default()))?.sealed.append(&mut pane.sealed);
            }
        }
        let (rows, columns) = groups.finish()?;
        self.spec.output(Some(window), rows, columns)
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
                None => {
                    self.state.counters.used_rows += rows.rows as u64;
                    self.live(None)?.update(&rows)?;
                }
                Some(window) => {
                    let divided = match spec.keeps_whole_windows() {
                        true => rows.by_window(window, stamp.watermark, &mut self.missed)?,
                        false => rows.by_slice(window, stamp.watermark, &mut self.missed)?,
                    };
                    self.state.counters.add(&divided.counters);
                    for slice in divided.slices {
                        self.live(slice.slice)?.update(&slice.rows)?;
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
        self.close(WATERMARK_MAX, output)?;
        let Some(mut pane) = self.state.windows.take_last() else { return Ok(()) };
        match (self.mode, pane.live.take()) {
            (Mode::Partial, Some(groups)) => output.push(groups.into_state(&self.spec, None)?),
            (Mode::Final, Some(groups)) => {
                let (rows, columns) = groups.finish()?;
                output.push(self.spec.output(None, rows, columns)?);
            }
            (_, None) => {}
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let mut snapshot = vec![counters_batch(&self.state.counters)?];
        for (slice, mut pane) in self.state.windows.take() {
            pane.seal(&self.spec, slice)?;
            // States that were sealed in an earlier window still bear its end.
            let states = pane.sealed.iter().map(|state| with_slice(state, slice));
            snapshot.extend(states.collect::<Result<Vec<_>>>()?);
        }
        // Taking the states out has emptied the accumulators.
        self.restore(&snapshot)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let (counters, slices) = split_counters(snapshot)?;
        self.state = State { counters, ..State::default() };
        let spec = Arc::clone(&self.spec);
        slices.iter().try_for_each(|state| self.live(slice_of(state)?)?.merge(&spec, state))
    }

    fn memory(&self) -> usize {
        self.state.windows.groups().map(Pane::size).sum()
    }

    fn counters(&self) -> Counters {
        Counters { windows_open: self.state.windows.count(), ..self.state.counters }
    }

    fn missed(&mut self) -> &mut MissedRows {
        &mut self.missed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::testing::{
        Naive, Row, assert_same, assert_snapshot_law, batch, batch_lengths, common_group_by, computed_freshly,
        every_aggregate, group_by, group_of, or_null, overlapping_group_by, overlapping_shapes, rows, run, sorted,
        stamped, text, windows_of, with_watermarks,
    };
    use super::super::window_merge::{CompleteWindow, merge_window};
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
        fn overlapping_windows_equal_the_naive_model(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
            shape in overlapping_shapes(), keyed: bool, by_panes: bool,
        ) {
            let spec = overlapping_group_by(&shape, keyed, by_panes);
            let mut operator = WindowAggregate::new(Arc::clone(&spec), Mode::Final);
            let output = run(&mut operator, &stamped(&rows, &lengths, bound, 0, None));
            let (mut groups, mut counters) = (BTreeMap::<_, Naive>::new(), Counters::default());
            for (row, watermark) in with_watermarks(&rows, bound) {
                let windows = row.time.map_or(vec![], |time| windows_of(&shape, time));
                let open = windows.iter().filter(|(_, end)| *end > watermark);
                let columns = if shape.has_own_end() { 2 } else { 1 };
                let open: Vec<Vec<String>> =
                    open.map(|(start, end)| [start, end][..columns].iter().map(ToString::to_string).collect()).collect();
                match row.time {
                    None => counters.null_time_rows += 1,
                    Some(_) if windows.is_empty() => counters.between_rows += 1,
                    Some(_) if open.is_empty() => counters.late_rows += 1,
                    Some(_) => counters.late_partial_rows += u64::from(open.len() < windows.len()),
                }
                counters.used_rows += u64::from(row.time.is_none() || !open.is_empty());
                let nowhere = row.time.is_none().then(|| vec!["NULL".to_string(); columns]);
                for mut group in open.into_iter().chain(nowhere) {
                    group.extend(keyed.then(|| or_null(row.key)));
                    groups.entry(group).or_default().take(row);
                }
            }
            let expected = groups.into_iter().map(|(group, naive)| [group, naive.cells()].concat()).collect();
            assert_same(&spec.schema, &sorted(text(&output)), &sorted(expected));
            prop_assert_eq!(operator.counters(), Counters { windows_closed: operator.counters().windows_closed, ..counters });
        }

        #[test]
        fn overlapping_windows_survive_snapshots(
            rows in rows(40), lengths in batch_lengths(), bound in 0i64..50,
            shape in overlapping_shapes(), by_panes: bool,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let spec = overlapping_group_by(&shape, true, by_panes);
            let fresh = || WindowAggregate::new(Arc::clone(&spec), Mode::Final);
            assert_snapshot_law(fresh, &stamped(&rows, &lengths, bound, 0, None), &cuts);
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
                prop_assert!(operator.state.windows.slices().all(|slice| slice.next_end > stamp.next_watermark));
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
            let complete = CompleteWindow { window: None, partials };
            assert_same(&spec.schema, &text(&[merge_window(&spec, &complete).unwrap()]), &expected);
        }
    }
}
