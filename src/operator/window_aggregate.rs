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

use super::aggregate_spec::{AggregateSpec, Evaluated};
use super::blocks::Blocks;
use super::groups::{Groups, state_size};
use super::open_windows::{OpenWindows, Slice, Window, with_slice, without_slice};
use super::shared_keys::{SharedKeys, numbered};
use super::snapshot::{counters_batch, split_counters, without_slack};
use super::{Counters, MissedRows, Operator, Stamp, WATERMARK_MAX};

/// What comes out of a closed window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Final values, in the spec's output schema.
    Final,
    /// State batches of its slices, for a [`super::Merger`].
    Partial,
}

/// Aggregates rows by window and key.
pub(crate) struct WindowAggregate {
    spec: Arc<AggregateSpec>,
    /// The same with numbers for keys, where windows share them.
    numbered: Option<Arc<AggregateSpec>>,
    mode: Mode,
    state: State,
    missed: MissedRows,
}

/// All that changes while rows pass.
#[derive(Default)]
struct State {
    keys: Option<SharedKeys>,
    windows: OpenWindows<Pane>,
    blocks: Option<Blocks>,
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
    fn seal(&mut self, spec: &AggregateSpec) -> Result<&[RecordBatch]> {
        if let Some(groups) = self.live.take() {
            self.sealed.push(groups.into_state(spec)?);
        }
        Ok(&self.sealed)
    }

    fn size(&self) -> usize {
        let sealed = self.sealed.iter().map(state_size);
        self.live.as_ref().map_or(0, |groups| groups.size) + sealed.sum::<usize>()
    }
}

impl WindowAggregate {
    pub(crate) fn new(spec: Arc<AggregateSpec>, mode: Mode) -> Self {
        let overlaps = spec.window.as_ref().is_some_and(|window| window.shape.pane().is_some());
        let shares_keys = overlaps && mode == Mode::Final && !spec.keys.is_empty();
        let numbered = shares_keys.then(|| Arc::new(numbered(&spec)));
        let mut operator = Self { spec, numbered, mode, state: State::default(), missed: MissedRows::default() };
        operator.state = operator.fresh(Counters::default());
        operator
    }

    fn fresh(&self, counters: Counters) -> State {
        let keys = self.numbered.as_ref().map(|_| SharedKeys::new(&self.spec));
        let blocks = self.spec.window.as_ref().and_then(|window| Blocks::of(&window.shape));
        State { keys, blocks, counters, ..State::default() }
    }

    /// What groups are made by.
    fn groups_spec(&self) -> Arc<AggregateSpec> {
        Arc::clone(self.numbered.as_ref().unwrap_or(&self.spec))
    }

    fn live(&mut self, slice: Option<Slice>) -> Result<&mut Groups> {
        let spec = self.groups_spec();
        self.state.windows.open(slice, || Ok(Pane::default()))?.live(&spec)
    }

    fn evaluate(&mut self, batch: &RecordBatch) -> Result<Evaluated> {
        let mut rows = self.spec.evaluate(batch)?;
        if let Some(keys) = &mut self.state.keys {
            rows.keys = vec![keys.number(&rows.keys, rows.rows)?];
        }
        Ok(rows)
    }

    /// The output of groups of a window.
    fn output(&self, window: Option<Window>, groups: Groups) -> Result<RecordBatch> {
        let (rows, columns) = groups.finish()?;
        let output = self.groups_spec().output(window, rows, columns)?;
        match &self.state.keys {
            Some(keys) => keys.with_keys(&output, self.spec.window_columns(), &self.spec.schema),
            None => Ok(output),
        }
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
                        for groups in pane.seal(&spec)? {
                            output.push(with_slice(Some(slice), groups)?);
                        }
                    }
                }
                Mode::Final => {
                    let answer = self.answer(window, slices)?;
                    self.forget_keys(answer.num_rows())?;
                    output.push(answer);
                }
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
            return self.output(Some(window), groups);
        }
        let spec = self.groups_spec();
        for (_, pane) in &mut slices {
            pane.seal(&spec)?;
        }
        let panes: Vec<_> = slices.into_iter().map(|(slice, pane)| (slice, pane.sealed)).collect();
        let groups = self.merge(&spec, window, &panes)?;
        for (slice, mut sealed) in panes {
            if let Some(next) = self.spec.next_window(slice) {
                self.state.windows.open(Some(next), || Ok(Pane::default()))?.sealed.append(&mut sealed);
            }
        }
        self.output(Some(window), groups)
    }

    /// Brings the states of a window's panes together.
    fn merge(&mut self, spec: &AggregateSpec, window: Window, panes: &[(Slice, Vec<RecordBatch>)]) -> Result<Groups> {
        let mut groups = Groups::try_new(spec)?;
        match &mut self.state.blocks {
            Some(blocks) => {
                let stays = |slice| self.spec.next_window(slice).is_some();
                blocks.merge(spec, window, panes, stays, &mut groups)?;
            }
            None => {
                for state in panes.iter().flat_map(|(_, states)| states) {
                    groups.merge(spec, state)?;
                }
            }
        }
        Ok(groups)
    }

    /// Numbers the keys anew when most of them are in no window any more.
    fn forget_keys(&mut self, groups: usize) -> Result<()> {
        if self.state.keys.as_mut().is_some_and(|keys| keys.are_mostly_gone(groups)) {
            self.snapshot()?;
            self.state.keys.iter_mut().for_each(SharedKeys::kept);
        }
        Ok(())
    }
}

impl Operator for WindowAggregate {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn push(&mut self, batch: &RecordBatch, stamp: Stamp, output: &mut Vec<RecordBatch>) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        if batch.num_rows() > 0 {
            let rows = self.evaluate(batch)?;
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
        if self.spec.has_one_group() && self.mode == Mode::Final && !self.state.windows.has_last() {
            output.push(self.spec.empty_answer()?);
        }
        self.close(WATERMARK_MAX, output)?;
        let Some(mut pane) = self.state.windows.take_last() else { return Ok(()) };
        match (self.mode, pane.live.take()) {
            (Mode::Partial, Some(groups)) => output.push(with_slice(None, &groups.into_state(&self.spec)?)?),
            (Mode::Final, Some(groups)) => output.push(self.output(None, groups)?),
            (_, None) => {}
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let (spec, schema) = (self.groups_spec(), self.spec.state_schema()?);
        let mut snapshot = vec![counters_batch(&self.state.counters)?];
        for (slice, mut pane) in self.state.windows.take() {
            for groups in pane.seal(&spec)? {
                snapshot.push(match &self.state.keys {
                    // Views that were copied many a time would have ever more buffers behind them.
                    Some(keys) => with_slice(slice, &without_slack(&keys.with_keys(groups, 0, &schema)?)?)?,
                    None => with_slice(slice, groups)?,
                });
            }
        }
        // Taking the states out has emptied the accumulators.
        self.restore(&snapshot)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let (counters, slices) = split_counters(snapshot)?;
        self.state = self.fresh(counters);
        let spec = self.groups_spec();
        for state in slices {
            let (slice, mut groups) = without_slice(state)?;
            if let Some(keys) = &mut self.state.keys {
                groups = keys.with_numbers(&groups, self.spec.keys.len(), &spec.state_schema()?)?;
            }
            self.live(slice)?.merge(&spec, &groups)?;
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        let keys = self.state.keys.as_ref().map_or(0, SharedKeys::size);
        let blocks = self.state.blocks.as_ref().map_or(0, Blocks::size);
        keys + blocks + self.state.windows.groups().map(Pane::size).sum::<usize>()
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

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use proptest::prelude::*;

    use super::super::WindowShape;
    use super::super::testing::{
        Naive, Row, assert_same, assert_snapshot_law, batch, batch_lengths, common_group_by, computed_freshly,
        every_aggregate, group_by, group_of, input_schema, or_null, overlapping_group_by, overlapping_shapes, rows,
        run, sorted, stamped, text, windows_of, with_watermarks,
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

    #[test]
    fn keys_whose_windows_have_closed_are_forgotten() {
        let shape = WindowShape::Hop { slide: 10, size: 30, offset: 0 };
        let spec = overlapping_group_by(&shape, true, true);
        let mut operator = WindowAggregate::new(spec, Mode::Final);
        let (mut output, mut most) = (vec![], 0);
        for step in 0..40i64 {
            let rows = 500;
            let columns: Vec<ArrayRef> = vec![
                Arc::new(TimestampMicrosecondArray::from(vec![step * 10; rows])),
                Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("{step} {row}")))),
                Arc::new(Int64Array::from(vec![1; rows])),
                Arc::new(Float64Array::from(vec![1.0; rows])),
            ];
            let batch = RecordBatch::try_new(input_schema(), columns).unwrap();
            let stamp = Stamp { partition: 0, watermark: step * 10, next_watermark: step * 10 };
            operator.push(&batch, stamp, &mut output).unwrap();
            most = most.max(operator.state.keys.as_ref().unwrap().len());
        }
        operator.finish(&mut output).unwrap();
        assert!(most < 8000, "{most} keys");
        let told: usize = output.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(told, 40 * 500 * 3);
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
            let partials = run(&mut operator, &input).iter().map(|state| without_slice(state).unwrap().1).collect();
            let complete = CompleteWindow { window: None, partials };
            assert_same(&spec.schema, &text(&[merge_window(&spec, &complete).unwrap()]), &expected);
        }
    }
}
