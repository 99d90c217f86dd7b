//! What is kept of a slice: groups that rows still come to, and states that windows have been made of or that are on disk.

use arrow::array::RecordBatch;
use datafusion::common::Result;

use super::aggregate_spec::AggregateSpec;
use super::groups::{Groups, state_size};
use super::spill::Spilled;

/// The groups of a slice; their order is that of the fields.
#[derive(Default)]
pub(super) struct Pane {
    /// Partial states that went to disk when memory was short.
    pub(super) spilled: Vec<Spilled>,
    /// Partial states that windows have been made of.
    pub(super) sealed: Vec<RecordBatch>,
    /// Groups that rows may still come to.
    live: Option<Groups>,
}

impl Pane {
    pub(super) fn live(&mut self, spec: &AggregateSpec) -> Result<&mut Groups> {
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
    pub(super) fn seal(&mut self, spec: &AggregateSpec) -> Result<&[RecordBatch]> {
        if let Some(groups) = self.live.take() {
            self.sealed.push(groups.into_state(spec)?);
        }
        Ok(&self.sealed)
    }

    /// The states that are on disk.
    pub(super) fn on_disk(&self) -> impl Iterator<Item = Result<RecordBatch>> {
        self.spilled.iter().flat_map(Spilled::all)
    }

    /// Adds the states of another one, which come after these.
    pub(super) fn append(&mut self, mut other: Self) {
        self.spilled.append(&mut other.spilled);
        self.sealed.append(&mut other.sealed);
    }

    /// Bytes of groups and states in memory.
    pub(super) fn held(&self) -> usize {
        let sealed = self.sealed.iter().map(state_size);
        self.live.as_ref().map_or(0, |groups| groups.size) + sealed.sum::<usize>()
    }

    /// Bytes held, with what it takes to find what is on disk.
    pub(super) fn size(&self) -> usize {
        self.held() + self.spilled.iter().map(Spilled::size).sum::<usize>()
    }
}
