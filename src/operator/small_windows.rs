//! Windows with few states, answered many at a time: groups and a batch for each of them would cost more than their rows.

use arrow::array::RecordBatch;
use datafusion::common::Result;

use super::aggregate_spec::AggregateSpec;
use super::groups::GroupsOfMany;
use super::open_windows::Window;
use super::states::{GatheredStates, StateRows};

/// Windows that have closed, in order, with the states that they are made of.
#[derive(Default)]
pub(super) struct SmallWindows {
    windows: Vec<Window>,
    states: GatheredStates,
}

/// A window or slice with more states is worked on by itself.
const FEW_STATES: usize = if cfg!(test) { 6 } else { 256 };

/// So many states (few in tests, which go both ways then) are brought together at a time.
const STATES_AT_ONCE: usize = if cfg!(test) { 16 } else { 8192 };

/// Whether so many states of a GROUP BY are little.
pub(super) fn are_few(spec: &AggregateSpec, states: usize) -> Result<bool> {
    Ok(states <= FEW_STATES && spec.has_small_states()?)
}

/// Whether so many states are enough for once.
pub(super) fn are_enough(states: usize) -> bool {
    states >= STATES_AT_ONCE
}

impl SmallWindows {
    /// Number of states.
    pub(super) fn states(&self) -> usize {
        self.states.len()
    }

    pub(super) fn add<'a>(&mut self, window: Window, states: impl Iterator<Item = &'a StateRows>) {
        self.windows.push(window);
        self.states.add(states);
    }

    /// Takes the windows out: how many keys they have, and their rows in one batch, if there are any.
    pub(super) fn take(&mut self, spec: &AggregateSpec) -> Result<(usize, Option<RecordBatch>)> {
        let Self { windows, states } = std::mem::take(self);
        if windows.is_empty() {
            return Ok((0, None));
        }
        let groups = GroupsOfMany::of_states(spec, &states.to_batch(spec)?, &states.ends)?;
        let (ends, keys) = (groups.ends.clone(), groups.distinct_keys);
        Ok((keys, Some(spec.output_of_many(&windows, &ends, groups.finish()?)?)))
    }
}
