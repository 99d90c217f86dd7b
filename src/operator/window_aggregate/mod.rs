//! GROUP BY with FINAL emission: a window's groups come out once, when the watermark has passed its end.
//!
//! What is open is kept by slice: the rows of a pane that are in the same windows. Of tumbling windows that is a
//! window. Of overlapping ones it is a part of several, so a row is aggregated once however many windows hold it, and
//! what a window costs when it closes is the groups of its panes. Without a window there is one slice, which the end of
//! the stream closes. State is that of the open windows only, so in a steady stream it stays in the processor's cache.
//!
//! Where slices have few rows, those of a batch are aggregated at once, into states that the slices share; and windows of
//! few states are brought together many at a time:
//!
//! ```text
//!   rows ─▶ by slice ─┬─ many rows each ─▶ Groups of the slice ─┐
//!                     └─ few rows each ──▶ GroupsOfMany ────────┴▶ panes ─▶ DueSlices ─┬─ many states ─▶ Groups (Blocks)
//!                                                                                └─ few states ──▶ SmallWindows
//! ```

mod closing;
mod handing;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::DiskManager;

use super::aggregate_spec::{AggregateSpec, Evaluated};
use super::blocks::Blocks;
use super::by_slice::ManySlices;
use super::due::DueSlices;
use super::groups::{Groups, GroupsOfMany};
use super::open_windows::{
    OpenWindows, Slice, Window, joined, ranges, slice_of, with_slice, with_slices, without_slice,
};
use super::pane::Pane;
use super::shared_keys::{SharedKeys, numbered};
use super::small_windows::{SmallWindows, are_enough, are_few};
use super::snapshot::{counters_batch, split_counters, without_slack};
use super::spill::SpillOut;
use super::states::{GatheredStates, SharedBatches, StateRows};
use super::{Counters, MissedRows, Operator, Stamp, WATERMARK_MAX};
use closing::Closing;
use handing::HandingOver;

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
    shared: SharedBatches,
    blocks: Option<Blocks>,
    counters: Counters,
    /// A window that is being answered a part at a time, before the others that are due.
    closing: Option<Closing>,
    /// States on disk that are handed over a part at a time.
    handing: HandingOver,
    /// Up to where windows are due, and whether the input has ended.
    due: i64,
    has_ended: bool,
}

/// What becomes of a window that has closed.
enum Answer {
    /// It is among the small ones.
    Small,
    Rows(RecordBatch),
    /// Some of it is on disk.
    InParts,
}

/// Bytes of states that are kept only because others of their batch are needed, before all are made anew.
const MOST_SLACK: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };

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
        self.with_keys(self.groups_spec().output(window, rows, columns)?)
    }

    /// Rows of the output with keys, if they are known by number so far.
    fn with_keys(&self, output: RecordBatch) -> Result<RecordBatch> {
        match &self.state.keys {
            Some(keys) => keys.with_keys(&output, self.spec.window_columns(), &self.spec.schema),
            None => Ok(output),
        }
    }

    /// Aggregates rows of many slices at once.
    fn update_many(&mut self, many: &ManySlices) -> Result<()> {
        let spec = self.groups_spec();
        let ends: Vec<usize> = many.slices.iter().map(|(_, end)| *end).collect();
        let groups = GroupsOfMany::of_rows(&spec, &many.rows, &ends)?;
        let ends = groups.ends.clone();
        let states = StateRows::all(groups.into_states(&spec)?);
        self.state.shared.add(&states);
        for ((slice, _), states) in many.slices.iter().zip(states.divide(ends)) {
            self.state.windows.open(Some(*slice), || Ok(Pane::default()))?.add(&spec, states)?;
        }
        Ok(())
    }

    /// Closes the windows that end at or before the watermark, earliest first.
    fn close(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        self.state.due = watermark;
        if self.state.closing.is_some() {
            return Ok(());
        }
        let slices = self.state.windows.due(watermark);
        match self.mode {
            _ if slices.is_empty() => Ok(()),
            // The merger keeps what later windows need.
            Mode::Partial => self.hand_over_all(slices, output),
            Mode::Final => self.answer_all(DueSlices::new(slices, watermark), output),
        }
    }

    /// Appends the states of slices, which come by the ends of windows.
    fn hand_over_all(&mut self, slices: Vec<(Slice, Pane)>, output: &mut Vec<RecordBatch>) -> Result<()> {
        let windows = slices.chunk_by(|(left, _), (right, _)| left.next_end == right.next_end);
        self.state.counters.windows_closed += windows.count() as u64;
        let spec = Arc::clone(&self.spec);
        let (mut few, mut gathered) = (vec![], GatheredStates::default());
        for mut entry in slices {
            let is_small = are_small(std::slice::from_mut(&mut entry), &spec)?;
            let (slice, pane) = entry;
            if is_small {
                gathered.add(pane.sealed.iter());
                few.push((Some(slice), gathered.len()));
            }
            if !is_small || are_enough(gathered.len()) {
                hand_over_gathered(&spec, &mut few, &mut gathered, output)?;
            }
            if !is_small {
                self.hand_over(Some(slice), pane, output)?;
            }
        }
        hand_over_gathered(&spec, &mut few, &mut gathered, output)
    }

    /// Appends the states of a slice.
    fn hand_over(&mut self, slice: Option<Slice>, mut pane: Pane, output: &mut Vec<RecordBatch>) -> Result<()> {
        pane.seal(&self.spec)?;
        match pane.spilled.is_empty() {
            true => handing::in_memory(slice, &pane, output),
            false => {
                self.state.handing.add(slice, pane);
                Ok(())
            }
        }
    }

    /// Appends the rows of windows that have closed, until there is one that is answered in parts.
    fn answer_all(&mut self, mut due: DueSlices<Pane>, output: &mut Vec<RecordBatch>) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        let (mut small, mut most_keys) = (SmallWindows::default(), 0);
        while let Some((window, at)) = due.next(&spec) {
            self.state.counters.windows_closed += 1;
            let aside = due.set_aside(&at, window.end);
            let answer = self.answer(window, &mut due.slices[at.clone()], &mut small)?;
            due.put_back(aside);
            if !matches!(answer, Answer::Small) || are_enough(small.states()) {
                most_keys = most_keys.max(self.answer_small(&mut small, output)?);
            }
            match answer {
                Answer::Small => {}
                Answer::Rows(rows) => {
                    most_keys = most_keys.max(rows.num_rows());
                    output.push(rows);
                }
                Answer::InParts => {
                    let panes = due.take(at, window.end).into_iter();
                    let panes = panes.map(|(slice, pane)| (Some(Slice { next_end: window.end, ..slice }), pane));
                    self.state.closing = Some(self.by_parts(Some(window), panes.collect())?);
                    break;
                }
            }
        }
        most_keys = most_keys.max(self.answer_small(&mut small, output)?);
        for (slice, pane) in due.rest(&spec) {
            self.keep(slice, pane)?;
        }
        self.forget_keys(most_keys)
    }

    /// Brings a window of these panes together, or puts it among the small ones.
    fn answer(&mut self, window: Window, panes: &mut [(Slice, Pane)], small: &mut SmallWindows) -> Result<Answer> {
        if let Some(groups) = self.take_whole(window, panes) {
            return self.output(Some(window), groups).map(Answer::Rows);
        }
        let spec = self.groups_spec();
        if are_small(panes, &spec)? {
            small.add(window, panes.iter().flat_map(|(_, pane)| &pane.sealed));
            return Ok(Answer::Small);
        }
        if panes.iter().any(|(_, pane)| !pane.spilled.is_empty()) {
            return Ok(Answer::InParts);
        }
        let groups = self.merge(&spec, window, panes)?;
        self.output(Some(window), groups).map(Answer::Rows)
    }

    /// Takes the groups of a window that is one slice, in no later window, and all of it as groups.
    fn take_whole(&self, window: Window, panes: &mut [(Slice, Pane)]) -> Option<Groups> {
        let [(slice, pane)] = panes else { return None };
        let stays = self.spec.window_after(*slice, window.end).is_some();
        if stays { None } else { pane.take_live() }
    }

    /// Appends the rows of small windows, and says how many keys they have.
    fn answer_small(&self, small: &mut SmallWindows, output: &mut Vec<RecordBatch>) -> Result<usize> {
        let (keys, rows) = small.take(&self.groups_spec())?;
        if let Some(rows) = rows {
            output.push(self.with_keys(rows)?);
        }
        Ok(keys)
    }

    /// Keeps a pane until a window closes that it is in.
    fn keep(&mut self, slice: Slice, pane: Pane) -> Result<()> {
        let spec = self.groups_spec();
        self.state.windows.open(Some(slice), || Ok(Pane::default()))?.append(&spec, pane)
    }

    /// Brings the states of a window's panes together.
    fn merge(&mut self, spec: &AggregateSpec, window: Window, panes: &[(Slice, Pane)]) -> Result<Groups> {
        let mut groups = Groups::try_new(spec)?;
        match &mut self.state.blocks {
            Some(blocks) => {
                let stays = |slice| self.spec.window_after(slice, window.end).is_some();
                blocks.merge(spec, window, panes, stays, &mut groups)?;
            }
            None => {
                for states in panes.iter().flat_map(|(_, pane)| &pane.sealed) {
                    groups.merge(spec, &states.to_batch())?;
                }
            }
        }
        Ok(groups)
    }

    /// A window to be answered a part of its keys at a time.
    fn by_parts(&self, window: Option<Window>, panes: Vec<(Option<Slice>, Pane)>) -> Result<Closing> {
        Closing::try_new(window, panes, self.spec.keys.len(), |states| {
            with_values(self.state.keys.as_ref(), &self.spec, states)
        })
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

    /// Makes all anew when most keys are in no window any more, or most of what slices share is of none.
    fn forget_keys(&mut self, groups: usize) -> Result<()> {
        if self.state.keys.as_mut().is_some_and(|keys| keys.are_mostly_gone(groups)) {
            self.rebuild()?;
            self.state.keys.iter_mut().for_each(SharedKeys::kept);
        }
        let shared = self.state.shared.size();
        if shared > MOST_SLACK && shared > 2 * self.state.windows.groups().map(Pane::shared).sum::<usize>() {
            self.rebuild()?;
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
                let states = with_values(self.state.keys.as_ref(), &self.spec, &states.to_batch())?;
                in_memory.push(with_slice(slice, &states)?);
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

/// Makes partial states of all that panes have in memory, and says whether that is all and is little.
fn are_small(panes: &mut [(Slice, Pane)], spec: &AggregateSpec) -> Result<bool> {
    let (mut states, mut is_in_memory) = (0, true);
    for (_, pane) in panes {
        states += pane.seal(spec)?.iter().map(StateRows::len).sum::<usize>();
        is_in_memory &= pane.spilled.is_empty();
    }
    Ok(is_in_memory && are_few(spec, states)?)
}

/// Appends the states of slices that have been gathered, each up to its end.
fn hand_over_gathered(
    spec: &AggregateSpec,
    slices: &mut Vec<(Option<Slice>, usize)>,
    gathered: &mut GatheredStates,
    output: &mut Vec<RecordBatch>,
) -> Result<()> {
    let (slices, gathered) = (std::mem::take(slices), std::mem::take(gathered));
    if !slices.is_empty() {
        output.push(with_slices(&slices, &gathered.to_batch(spec)?)?);
    }
    Ok(())
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
                    let mut divided = match spec.is_ordered {
                        true => rows.by_window(window, stamp.watermark, &mut self.missed),
                        false => rows.by_slice(window, stamp.watermark, &mut self.missed),
                    };
                    self.state.counters.add(&divided.counters);
                    if spec.has_small_states()?
                        && let Some(many) = divided.take_many()?
                    {
                        self.update_many(&many)?;
                    }
                    for slice in divided.apart()? {
                        self.live(slice.slice)?.update(&slice.rows)?;
                    }
                }
            }
        }
        self.close(stamp.next_watermark, output)
    }

    fn finish(&mut self, output: &mut Vec<RecordBatch>) -> Result<()> {
        if self.spec.owes_answer() && self.mode == Mode::Final && !self.state.windows.has_last() {
            output.push(self.spec.empty_answer()?);
        }
        self.close(WATERMARK_MAX, output)?;
        self.state.has_ended = true;
        self.close_last(output)
    }

    fn more(&mut self, output: &mut Vec<RecordBatch>) -> Result<bool> {
        if self.mode == Mode::Partial {
            return self.state.handing.next_part(output);
        }
        let Some(mut closing) = self.state.closing.take() else { return Ok(false) };
        closing.answer_part(&self.spec, output)?;
        if closing.has_more() {
            self.state.closing = Some(closing);
            return Ok(true);
        }
        let rows = closing.rows;
        for (slice, pane) in closing.into_panes(|states| self.with_numbers(states))? {
            if let Some(next) = slice.and_then(|slice| self.spec.next_window(slice)) {
                self.keep(next, pane)?;
            }
        }
        self.forget_keys(rows)?;
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
        let panes: usize = self.state.windows.groups().map(|pane| pane.size() - pane.shared()).sum();
        keys + blocks + closing + self.state.handing.size() + panes + self.state.shared.size()
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
                let states = with_values(self.state.keys.as_ref(), &self.spec, &states.to_batch())?;
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
