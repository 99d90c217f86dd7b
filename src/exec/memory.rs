//! How those who hold state account for it: what there is no memory for goes to disk, and what cannot go there is an error
//! that says who holds too much.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result, resources_datafusion_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation, human_readable_size};
use datafusion::execution::{DiskManager, TaskContext};

use crate::operator::{HandedOver, Merger, Operator};

/// Who holds state.
pub(super) trait HoldsState {
    /// Bytes in memory.
    fn held(&self) -> usize;
    /// Brings some of them to disk; how many bytes it is there, none if nothing is left that can go.
    fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<u64>;
}

impl HoldsState for dyn Operator {
    fn held(&self) -> usize {
        self.memory()
    }
    fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        Operator::spill(self, disk)
    }
}

impl HoldsState for Merger {
    fn held(&self) -> usize {
        self.size()
    }
    fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        Self::spill(self, disk)
    }
}

impl HoldsState for HandedOver {
    fn held(&self) -> usize {
        self.size()
    }
    fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        Self::spill(self, disk)
    }
}

/// An account in the memory pool.
pub(super) fn account(task: &TaskContext, name: String, can_spill: bool) -> MemoryReservation {
    MemoryConsumer::new(name).with_can_spill(can_spill).register(task.memory_pool())
}

/// Accounts for what `holder` has in memory, after what there is no room for has gone to disk; how many bytes it is there.
/// `name` says in an error who it is.
///
/// # Errors
/// Too much that cannot go to disk; a disk that is full.
pub(super) fn reserve<H: HoldsState + ?Sized>(
    account: &MemoryReservation,
    disk: &Arc<DiskManager>,
    holder: &mut H,
    name: impl FnOnce() -> String,
) -> Result<u64> {
    let mut bytes = 0;
    while let Err(error) = account.try_resize(holder.held()) {
        let spilled = holder.spill(disk)?;
        if spilled == 0 {
            return Err(too_large(&name(), holder.held(), &error));
        }
        bytes += spilled;
    }
    Ok(bytes)
}

fn too_large(name: &str, held: usize, error: &DataFusionError) -> DataFusionError {
    resources_datafusion_err!(
        "{name} needs {} of state, and the memory limit leaves less: --memory-limit, or SET \
         datafusion.runtime.memory_limit, gives it more ({})",
        human_readable_size(held),
        error.strip_backtrace()
    )
}
