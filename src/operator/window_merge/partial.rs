//! What a piece knows of a window.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Result;

use crate::operator::spill::{Divided, SpillOut, Spilled};
use crate::operator::states::StateRows;

/// Partial states of a piece, in memory or on disk.
#[derive(Debug, Clone)]
pub(super) enum Partial {
    InMemory(StateRows),
    /// Several windows may hold it.
    OnDisk(Arc<Spilled>),
}

impl Partial {
    /// The states that are in memory; none of those on disk.
    pub(super) fn in_memory(&self) -> Option<&StateRows> {
        match self {
            Self::InMemory(states) => Some(states),
            Self::OnDisk(_) => None,
        }
    }

    /// Bytes of states in memory.
    pub(super) fn held(&self) -> usize {
        self.in_memory().map_or(0, StateRows::size)
    }

    /// Bytes in memory of where on disk states are.
    pub(super) fn index_size(&self) -> usize {
        match self {
            Self::InMemory(_) => 0,
            Self::OnDisk(spilled) => spilled.size(),
        }
    }

    /// Brings the states to disk, if they are not there.
    pub(super) fn spill(&mut self, out: &mut SpillOut, keys: usize) -> Result<()> {
        if let Self::InMemory(states) = self {
            *self = Self::OnDisk(Arc::new(out.write(states.to_batch(), keys)?));
        }
        Ok(())
    }

    /// The states by parts of their keys.
    pub(super) fn by_parts(self, keys: usize) -> Result<PartialParts> {
        Ok(match self {
            Self::InMemory(states) => {
                PartialParts::InMemory { divided: Divided::by_keys(states.to_batch(), keys)?, _accounted: states }
            }
            Self::OnDisk(spilled) => PartialParts::OnDisk(spilled),
        })
    }
}

/// Partial states by parts of their keys.
pub(super) enum PartialParts {
    InMemory {
        divided: Divided,
        /// The merger accounts for states as long as somebody holds them.
        _accounted: StateRows,
    },
    OnDisk(Arc<Spilled>),
}

impl PartialParts {
    /// The states of a part, if there are any.
    pub(super) fn part(&self, part: usize) -> Result<Option<RecordBatch>> {
        match self {
            Self::InMemory { divided, .. } => divided.part(part),
            Self::OnDisk(spilled) => spilled.part(part),
        }
    }
}
