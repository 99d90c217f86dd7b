//! The latest row of each group within a batch.

const NEVER: u32 = u32::MAX;

/// Kept from batch to batch, so that a batch costs its own rows and not all groups there are.
#[derive(Default)]
pub(super) struct LatestRows(Vec<u32>);

impl LatestRows {
    /// Puts a row of a group in place of the one before it, if the batch has one.
    pub(super) fn replace(&mut self, group: usize, row: usize) -> Option<usize> {
        if group >= self.0.len() {
            self.0.resize(group + 1, NEVER);
        }
        let before = std::mem::replace(&mut self.0[group], row as u32);
        (before != NEVER).then_some(before as usize)
    }

    /// The latest row of a group, if the batch has one yet.
    pub(super) fn get(&self, group: usize) -> Option<usize> {
        self.0.get(group).filter(|row| **row != NEVER).map(|row| *row as usize)
    }

    /// The batch whose rows are of these groups is over.
    pub(super) fn forget(&mut self, groups: &[usize]) {
        groups.iter().for_each(|group| self.0[*group] = NEVER);
    }

    pub(super) fn size(&self) -> usize {
        self.0.capacity() * size_of::<u32>()
    }
}
