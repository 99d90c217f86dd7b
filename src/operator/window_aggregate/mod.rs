//! GROUP BY with FINAL emission: a window's groups come out once, when the watermark has passed its end.
//!
//! What is open is kept by slice: the rows of a pane that are in the same windows. Of tumbling windows that is a
//! window. Of overlapping ones it is a part of several, so a row is aggregated once however many windows hold it, and
//! what a window costs when it closes is the groups of its panes. Without a window there is one slice, which the end of
//! the stream closes. State is that of the open windows only, so in a steady stream it stays in the processor's cache.

use std::cmp::Reverse;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::DiskManager;

use super::aggregate_spec::{AggregateSpec, Evaluated};
use super::blocks::Blocks;
use super::groups::Groups;
use super::open_windows::{OpenWindows, Slice, Window, joined, ranges, slice_of, with_slice, without_slice};
use super::pane::Pane;
use super::shared_keys::{SharedKeys, numbered};
use super::snapshot::{counters_batch, split_counters, without_slack};
use super::spill::{Divided, PARTS, SpillOut};
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
    /// A window that is being answered a part at a time, before the others that are due.
    closing: Option<Closing>,
    /// Up to where windows are due, and whether the input has ended.
    due: i64,
    has_ended: bool,
}

/// A window some of which is on disk, or what waits for the end without one.
struct Closing {
    window: Option<Window>,
    panes: Vec<(Option<Slice>, Pane)>,
    /// What each pane has in memory, by the values of keys: their numbers may change meanwhile.
    in_memory: Vec<Vec<Divided>>,
    /// The next part of its keys.
    part: usize,
    rows: usize,
}

impl Closing {
    fn size(&self) -> usize {
        let in_memory = self.in_memory.iter().flatten().map(Divided::size);
        self.panes.iter().map(|(_, pane)| pane.size()).sum::<usize>() + in_memory.sum::<usize>()
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
        self.state.due = watermark;
        while self.state.closing.is_none()
            && let Some((window, slices)) = self.state.windows.close(shape, watermark)
        {
            self.state.counters.windows_closed += 1;
            match self.mode {
                // The merger keeps what later windows need.
                Mode::Partial => {
                    for (slice, pane) in slices {
                        self.hand_over(Some(slice), pane, output)?;
                    }
                }
                Mode::Final => {
                    let before = output.len();
                    self.answer(window, slices, output)?;
                    self.forget_keys(output[before..].iter().map(RecordBatch::num_rows).sum())?;
                }
            }
        }
        Ok(())
    }

    /// Appends the states of a slice.
    fn hand_over(&self, slice: Option<Slice>, mut pane: Pane, output: &mut Vec<RecordBatch>) -> Result<()> {
        for states in pane.on_disk() {
            output.push(with_slice(slice, &states?)?);
        }
        for states in pane.seal(&self.spec)? {
            output.push(with_slice(slice, states)?);
        }
        Ok(())
    }

    /// Appends the rows of a window that has closed.
    fn answer(&mut self, window: Window, mut slices: Vec<(Slice, Pane)>, output: &mut Vec<RecordBatch>) -> Result<()> {
        if let [(slice, pane)] = slices.as_mut_slice()
            && self.spec.next_window(*slice).is_none()
            && let Some(groups) = pane.take_live()
        {
            output.push(self.output(Some(window), groups)?);
            return Ok(());
        }
        let spec = self.groups_spec();
        for (_, pane) in &mut slices {
            pane.seal(&spec)?;
        }
        if slices.iter().any(|(_, pane)| !pane.spilled.is_empty()) {
            let panes = slices.into_iter().map(|(slice, pane)| (Some(slice), pane)).collect();
            self.state.closing = Some(self.by_parts(Some(window), panes)?);
            return Ok(());
        }
        let groups = self.merge(&spec, window, &slices)?;
        output.push(self.output(Some(window), groups)?);
        for (slice, pane) in slices {
            self.keep(slice, pane)?;
        }
        Ok(())
    }

    /// Keeps a pane for the next window that it is in.
    fn keep(&mut self, slice: Slice, pane: Pane) -> Result<()> {
        if let Some(next) = self.spec.next_window(slice) {
            self.state.windows.open(Some(next), || Ok(Pane::default()))?.append(pane);
        }
        Ok(())
    }

    /// Brings the states of a window's panes together.
    fn merge(&mut self, spec: &AggregateSpec, window: Window, panes: &[(Slice, Pane)]) -> Result<Groups> {
        let mut groups = Groups::try_new(spec)?;
        match &mut self.state.blocks {
            Some(blocks) => {
                let stays = |slice| self.spec.next_window(slice).is_some();
                blocks.merge(spec, window, panes, stays, &mut groups)?;
            }
            None => {
                for state in panes.iter().flat_map(|(_, pane)| &pane.sealed) {
                    groups.merge(spec, state)?;
                }
            }
        }
        Ok(groups)
    }

    /// A window to be answered a part of its keys at a time, which are told by value then, not by number.
    fn by_parts(&self, window: Option<Window>, panes: Vec<(Option<Slice>, Pane)>) -> Result<Closing> {
        let (mut panes, mut in_memory) = (panes, vec![]);
        for (_, pane) in &mut panes {
            let sealed = std::mem::take(&mut pane.sealed).into_iter().map(|states| {
                let states = with_values(self.state.keys.as_ref(), &self.spec, &states)?;
                Divided::by_keys(states, self.spec.keys.len())
            });
            in_memory.push(sealed.collect::<Result<_>>()?);
        }
        Ok(Closing { window, panes, in_memory, part: 0, rows: 0 })
    }

    /// Appends the rows of the next part, if there are any.
    fn answer_part(&self, closing: &mut Closing, output: &mut Vec<RecordBatch>) -> Result<()> {
        let mut groups = Groups::try_new(&self.spec)?;
        for ((_, pane), in_memory) in closing.panes.iter().zip(&closing.in_memory) {
            let from_disk = pane.spilled.iter().map(|spilled| spilled.part(closing.part));
            for states in from_disk.chain(in_memory.iter().map(|divided| divided.part(closing.part))) {
                if let Some(states) = states? {
                    groups.merge(&self.spec, &states)?;
                }
            }
        }
        let (rows, columns) = groups.finish()?;
        if rows > 0 {
            output.push(self.spec.output(closing.window, rows, columns)?);
        }
        (closing.part, closing.rows) = (closing.part + 1, closing.rows + rows);
        Ok(())
    }

    /// After the last window: what has waited for the end.
    fn close_last(&mut self, output: &mut Vec<RecordBatch>) -> Result<()> {
        if self.state.closing.is_some() {
            return Ok(());
        }
        let Some(mut pane) = self.state.windows.take_last() else { return Ok(()) };
        if self.mode == Mode::Partial {
            return self.hand_over(None, pane, output);
        }
        if let Some(groups) = pane.take_live() {
            output.push(self.output(None, groups)?);
            return Ok(());
        }
        pane.seal(&self.groups_spec())?;
        self.state.closing = Some(self.by_parts(None, vec![(None, pane)])?);
        Ok(())
    }

    /// Numbers the keys anew when most of them are in no window any more.
    fn forget_keys(&mut self, groups: usize) -> Result<()> {
        if self.state.keys.as_mut().is_some_and(|keys| keys.are_mostly_gone(groups)) {
            self.rebuild()?;
            self.state.keys.iter_mut().for_each(SharedKeys::kept);
        }
        Ok(())
    }

    /// States of groups with numbers for keys, if windows share them.
    fn with_numbers(&mut self, states: RecordBatch) -> Result<RecordBatch> {
        let spec = self.groups_spec();
        match &mut self.state.keys {
            Some(keys) => keys.with_numbers(&states, self.spec.keys.len(), &spec.state_schema()?),
            None => Ok(states),
        }
    }

    /// Makes all that is in memory anew from its snapshot, which it gives: taking the states out empties the accumulators,
    /// and only keys that are needed have a number afterwards.
    fn rebuild(&mut self) -> Result<Vec<RecordBatch>> {
        let spec = self.groups_spec();
        let (mut in_memory, mut spilled) = (vec![], vec![]);
        for (slice, mut pane) in self.state.windows.take() {
            for states in pane.seal(&spec)? {
                in_memory.push(with_slice(slice, &with_values(self.state.keys.as_ref(), &self.spec, states)?)?);
            }
            spilled.push((slice, pane.spilled));
        }
        let mut snapshot = vec![counters_batch(&self.state.counters)?];
        snapshot.append(&mut joined(in_memory)?);
        let (closing, due, has_ended) = (self.state.closing.take(), self.state.due, self.state.has_ended);
        self.restore(&snapshot)?;
        self.state = State { closing, due, has_ended, ..std::mem::take(&mut self.state) };
        for (slice, spilled) in spilled.into_iter().filter(|(_, spilled)| !spilled.is_empty()) {
            self.state.windows.open(slice, || Ok(Pane::default()))?.spilled = spilled;
        }
        Ok(snapshot)
    }
}

/// States of groups with the values of their keys, which are known by number if windows share them.
fn with_values(keys: Option<&SharedKeys>, spec: &AggregateSpec, states: &RecordBatch) -> Result<RecordBatch> {
    match keys {
        // Views that were copied many a time would have ever more buffers behind them.
        Some(keys) => without_slack(&keys.with_keys(states, 0, &spec.state_schema()?)?),
        None => Ok(states.clone()),
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
        self.state.has_ended = true;
        self.close_last(output)
    }

    fn more(&mut self, output: &mut Vec<RecordBatch>) -> Result<bool> {
        let Some(mut closing) = self.state.closing.take() else { return Ok(false) };
        self.answer_part(&mut closing, output)?;
        if closing.part < PARTS {
            self.state.closing = Some(closing);
            return Ok(true);
        }
        for ((slice, mut pane), in_memory) in closing.panes.into_iter().zip(closing.in_memory) {
            let Some(slice) = slice else { continue };
            for divided in in_memory {
                pane.sealed.push(self.with_numbers(divided.into_states())?);
            }
            self.keep(slice, pane)?;
        }
        self.forget_keys(closing.rows)?;
        self.close(self.state.due, output)?;
        if self.state.has_ended {
            self.close_last(output)?;
        }
        Ok(true)
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let mut snapshot = self.rebuild()?;
        let mut from_disk = vec![];
        for (slice, pane) in self.state.windows.entries() {
            for states in pane.on_disk() {
                from_disk.push(with_slice(slice, &states?)?);
            }
        }
        // They are of earlier rows.
        snapshot.splice(1..1, joined(from_disk)?);
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let (counters, slices) = split_counters(snapshot)?;
        self.state = self.fresh(counters);
        let spec = self.groups_spec();
        for states in slices {
            let groups = self.with_numbers(without_slice(states)?.1)?;
            for range in ranges(states)? {
                let slice = slice_of(&states.slice(range.start, 1))?;
                self.live(slice)?.merge(&spec, &groups.slice(range.start, range.len()))?;
            }
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        let keys = self.state.keys.as_ref().map_or(0, SharedKeys::size);
        let blocks = self.state.blocks.as_ref().map_or(0, Blocks::size);
        let closing = self.state.closing.as_ref().map_or(0, Closing::size);
        keys + blocks + closing + self.state.windows.groups().map(Pane::size).sum::<usize>()
    }

    fn can_spill(&self) -> bool {
        !self.spec.keys.is_empty()
    }

    fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        let (spec, goal) = (self.groups_spec(), self.memory() / 2);
        // Blocks can be made of their panes again.
        self.state.blocks = self.spec.window.as_ref().and_then(|window| Blocks::of(&window.shape));
        let panes = self.state.windows.entries().map(|(_, pane)| (pane.held(), pane));
        let mut panes: Vec<_> = panes.filter(|(held, _)| *held > 0).collect();
        if panes.is_empty() || self.spec.keys.is_empty() {
            return Ok(0);
        }
        // Few large ones are read again with less effort than many small ones.
        panes.sort_by_key(|(held, _)| Reverse(*held));
        let (mut out, mut gone) = (SpillOut::create(disk)?, 0);
        for (held, pane) in panes {
            if gone > goal {
                break;
            }
            pane.seal(&spec)?;
            for states in std::mem::take(&mut pane.sealed) {
                let states = with_values(self.state.keys.as_ref(), &self.spec, &states)?;
                pane.spilled.push(out.write(states, self.spec.keys.len())?);
            }
            gone += held;
        }
        if self.state.keys.is_some() {
            self.rebuild()?;
        }
        out.finish()
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
        run, sorted, stamped, text, through_ipc, windows_of, with_watermarks,
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

    /// Output as rows of windows, in any order; partial states are brought together by slice first.
    fn folded(spec: &Arc<AggregateSpec>, mode: Mode, output: &[RecordBatch]) -> Vec<Vec<String>> {
        if mode == Mode::Final {
            return sorted(text(output));
        }
        let mut slices = BTreeMap::<_, Vec<RecordBatch>>::new();
        for states in output {
            let (slice, states) = without_slice(states).unwrap();
            slices.entry(slice).or_default().push(states);
        }
        let rows = slices.into_iter().map(|(slice, partials)| {
            let window = slice.map(|slice| Window { start: slice.pane, end: slice.next_end });
            merge_window(spec, &CompleteWindow { window, partials }).unwrap()
        });
        sorted(text(&rows.collect::<Vec<_>>()))
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
        fn what_has_gone_to_disk_comes_back(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
            shape in proptest::option::weighted(0.8, overlapping_shapes()), by_panes: bool, partial: bool,
            size in proptest::option::weighted(0.7, 1i64..60),
            spills in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
            saves in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        ) {
            let spec = match &shape {
                Some(shape) => overlapping_group_by(shape, true, by_panes),
                None => common_group_by(size, true),
            };
            let mode = if partial { Mode::Partial } else { Mode::Final };
            let input = stamped(&rows, &lengths, bound, 0, None);
            let fresh = || WindowAggregate::new(Arc::clone(&spec), mode);
            let mut whole = fresh();
            let expected = folded(&spec, mode, &run(&mut whole, &input));
            let at = |points: &[prop::sample::Index]| -> Vec<usize> {
                points.iter().map(|point| point.index(input.len() + 1)).collect()
            };
            let (spills, saves) = (at(&spills), at(&saves));
            let disk = Arc::new(DiskManager::builder().build().unwrap());
            let (mut operator, mut output) = (fresh(), vec![]);
            // What is still to come goes to disk while a window is given, too.
            let drain = |operator: &mut WindowAggregate, output: &mut Vec<RecordBatch>| {
                while operator.more(output).unwrap() {
                    if spills.len() % 2 == 0 {
                        operator.spill(&disk).unwrap();
                    }
                }
            };
            for index in 0..=input.len() {
                if spills.contains(&index) {
                    let held = operator.state.windows.entries().any(|(_, pane)| pane.held() > 0);
                    prop_assert_eq!(operator.spill(&disk).unwrap() > 0, held);
                    while operator.spill(&disk).unwrap() > 0 {}
                    prop_assert!(operator.state.windows.entries().all(|(_, pane)| pane.held() == 0));
                }
                if saves.contains(&index) {
                    let snapshot: Vec<_> = operator.snapshot().unwrap().iter().map(through_ipc).collect();
                    if index % 2 == 0 {
                        operator = fresh();
                        operator.restore(&snapshot).unwrap();
                    }
                }
                if let Some((batch, stamp)) = input.get(index) {
                    operator.push(batch, *stamp, &mut output).unwrap();
                    drain(&mut operator, &mut output);
                }
            }
            operator.finish(&mut output).unwrap();
            drain(&mut operator, &mut output);
            assert_same(&spec.schema, &folded(&spec, mode, &output), &expected);
            prop_assert_eq!(operator.counters(), whole.counters());
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
