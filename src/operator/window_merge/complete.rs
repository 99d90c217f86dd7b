//! Complete windows on their way to be rows: those in memory at once, and one some of which is on disk a part of its keys
//! at a time, so that no more than the groups of one part are in memory.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use datafusion::common::Result;

use super::CompleteWindow;
use super::partial::{Partial, PartialParts};
use crate::operator::aggregate_spec::AggregateSpec;
use crate::operator::groups::Groups;
use crate::operator::open_windows::Window;
use crate::operator::small_windows::{SmallWindows, are_enough, are_few};
use crate::operator::spill::PARTS;
use crate::operator::states::StateRows;

/// Windows that are to be merged, in order.
#[derive(Default)]
pub(crate) struct CompleteWindows {
    windows: VecDeque<CompleteWindow>,
    /// The one before them, of which parts have been merged.
    parts: Option<WindowParts>,
}

struct WindowParts {
    window: Option<Window>,
    /// In the order of their pieces.
    partials: Vec<PartialParts>,
    /// The next part of its keys.
    part: usize,
}

impl CompleteWindows {
    /// Adds windows, which come after the others.
    pub(crate) fn add(&mut self, windows: VecDeque<CompleteWindow>) {
        self.windows.extend(windows);
    }

    /// Merges the partial states of the next windows, or of a part of one, into rows; none if there are no more. Without
    /// partials it is the answer to no rows at all.
    ///
    /// # Errors
    /// States that do not fit the aggregates.
    pub(crate) fn merge_next(&mut self, spec: &AggregateSpec) -> Result<Option<Vec<RecordBatch>>> {
        if let Some(parts) = &mut self.parts {
            let rows = parts.merge_next(spec)?;
            if parts.part == PARTS {
                self.parts = None;
            }
            return Ok(Some(rows.into_iter().collect()));
        }
        let is_in_memory = |window: &&CompleteWindow| window.partials.iter().all(|one| one.in_memory().is_some());
        let in_memory = self.windows.iter().take_while(is_in_memory).count();
        if in_memory > 0 {
            return merge_windows(spec, self.windows.drain(..in_memory)).map(Some);
        }
        let Some(CompleteWindow { window, partials }) = self.windows.pop_front() else { return Ok(None) };
        let by_parts = |partial: Partial| partial.by_parts(spec.keys.len());
        let partials = partials.into_iter().map(by_parts).collect::<Result<_>>()?;
        self.parts = Some(WindowParts { window, partials, part: 0 });
        Ok(Some(vec![]))
    }
}

#[cfg(test)]
impl CompleteWindows {
    /// The rows of windows, each of these states.
    pub(in crate::operator) fn rows_of_states(
        spec: &AggregateSpec,
        windows: impl IntoIterator<Item = (Option<Window>, Vec<StateRows>)>,
    ) -> Vec<RecordBatch> {
        let partials = |states: Vec<StateRows>| states.into_iter().map(Partial::InMemory).collect();
        let windows = windows.into_iter().map(|(window, states)| CompleteWindow { window, partials: partials(states) });
        Self::rows_of(spec, windows.collect())
    }

    /// The rows of windows.
    pub(in crate::operator) fn rows_of(spec: &AggregateSpec, windows: VecDeque<CompleteWindow>) -> Vec<RecordBatch> {
        let (mut all, mut rows) = (Self { windows, parts: None }, vec![]);
        while let Some(more) = all.merge_next(spec).unwrap() {
            rows.extend(more);
        }
        rows
    }
}

impl WindowParts {
    fn merge_next(&mut self, spec: &AggregateSpec) -> Result<Option<RecordBatch>> {
        let part = self.part;
        self.part += 1;
        let states = self.partials.iter().filter_map(|partial| partial.part(part).transpose());
        let states = states.collect::<Result<Vec<_>>>()?;
        if states.is_empty() {
            return Ok(None);
        }
        let mut groups = Groups::try_new(spec)?;
        states.iter().try_for_each(|states| groups.merge(spec, states))?;
        let (rows, columns) = groups.finish()?;
        spec.output(self.window, rows, columns).map(Some)
    }
}

/// Merges windows all of which are in memory.
fn merge_windows(spec: &AggregateSpec, windows: impl Iterator<Item = CompleteWindow>) -> Result<Vec<RecordBatch>> {
    let (mut output, mut small) = (vec![], SmallWindows::default());
    for CompleteWindow { window, partials } in windows {
        let states = || partials.iter().filter_map(Partial::in_memory);
        let is_small = are_few(spec, states().map(StateRows::len).sum())?;
        match window.filter(|_| is_small) {
            Some(window) => small.add(window, states()),
            None => {
                output.extend(small.take(spec)?.1);
                output.push(merge_window(spec, window, states())?);
            }
        }
        if are_enough(small.states()) {
            output.extend(small.take(spec)?.1);
        }
    }
    output.extend(small.take(spec)?.1);
    Ok(output)
}

fn merge_window<'a>(
    spec: &AggregateSpec,
    window: Option<Window>,
    partials: impl Iterator<Item = &'a StateRows>,
) -> Result<RecordBatch> {
    let mut partials = partials.peekable();
    if partials.peek().is_none() {
        return spec.empty_answer();
    }
    let mut groups = Groups::try_new(spec)?;
    for partial in partials {
        groups.merge(spec, &partial.to_batch())?;
    }
    let (rows, columns) = groups.finish()?;
    spec.output(window, rows, columns)
}
