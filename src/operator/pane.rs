//! What is kept of a slice: groups that rows still come to, and states that windows have been made of, that were made
//! together with those of other slices, or that are on disk.

use arrow::array::RecordBatch;
use datafusion::common::Result;

use super::aggregate_spec::AggregateSpec;
use super::groups::Groups;
use super::spill::Spilled;
use super::states::StateRows;

/// So many states become groups: what is kept must not grow with the number of batches.
const MOST_STATES: usize = if cfg!(test) { 3 } else { 8 };

/// The groups of a slice; their order is that of the fields.
#[derive(Default)]
pub(super) struct Pane {
    /// Partial states that went to disk when memory was short.
    pub(super) spilled: Vec<Spilled>,
    /// Partial states.
    pub(super) sealed: Vec<StateRows>,
    /// Groups that rows may still come to.
    live: Option<Groups>,
    /// How often something has been added.
    pub(super) changes: u64,
}

impl Pane {
    /// The groups, for rows that come to them.
    pub(super) fn live(&mut self, spec: &AggregateSpec) -> Result<&mut Groups> {
        self.changes += 1;
        Ok(match &mut self.live {
            Some(groups) => groups,
            none => none.insert(Groups::try_new(spec)?),
        })
    }

    /// Takes the groups, if there are no states besides.
    pub(super) fn take_live(&mut self) -> Option<Groups> {
        self.live.take_if(|_| self.spilled.is_empty() && self.sealed.is_empty())
    }

    /// Makes partial states of all that is in memory.
    pub(super) fn seal(&mut self, spec: &AggregateSpec) -> Result<&[StateRows]> {
        if let Some(groups) = self.live.take() {
            self.sealed.push(StateRows::all(groups.into_state(spec)?));
        }
        Ok(&self.sealed)
    }

    /// Adds states of rows that come after all others.
    pub(super) fn add(&mut self, spec: &AggregateSpec, states: StateRows) -> Result<()> {
        self.seal(spec)?;
        self.sealed.push(states);
        self.changes += 1;
        if self.sealed.len() >= MOST_STATES {
            let mut groups = Groups::try_new(spec)?;
            for states in std::mem::take(&mut self.sealed) {
                groups.merge(spec, &states.to_batch())?;
            }
            self.live = Some(groups);
        }
        Ok(())
    }

    /// The states that are on disk.
    pub(super) fn on_disk(&self) -> impl Iterator<Item = Result<RecordBatch>> {
        self.spilled.iter().flat_map(Spilled::all)
    }

    /// Adds what another one has, which comes after this.
    pub(super) fn append(&mut self, spec: &AggregateSpec, mut other: Self) -> Result<()> {
        self.seal(spec)?;
        self.spilled.append(&mut other.spilled);
        self.sealed.append(&mut other.sealed);
        (self.live, self.changes) = (other.live, self.changes + other.changes);
        Ok(())
    }

    /// Bytes of groups and states in memory.
    pub(super) fn held(&self) -> usize {
        self.live.as_ref().map_or(0, |groups| groups.size) + self.sealed.iter().map(StateRows::size).sum::<usize>()
    }

    /// Bytes of states that others keep in memory too.
    pub(super) fn shared(&self) -> usize {
        self.sealed.iter().map(StateRows::shared_size).sum()
    }

    /// Bytes held, with what it takes to find what is on disk.
    pub(super) fn size(&self) -> usize {
        self.held() + self.spilled.iter().map(Spilled::size).sum::<usize>()
    }
}
