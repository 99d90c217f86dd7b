//! Slices some of which are on disk, on their way to the merger: a part at a time, so that no more of them is in memory.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use datafusion::common::Result;

use crate::operator::open_windows::{Slice, with_slice};
use crate::operator::pane::Pane;
use crate::operator::spill::PARTS;

/// Slices that are being handed over, which have no groups that rows still come to.
#[derive(Default)]
pub(super) struct HandingOver {
    slices: VecDeque<(Option<Slice>, Pane)>,
    /// Parts of the first one that have been handed over.
    parts: usize,
}

impl HandingOver {
    pub(super) fn add(&mut self, slice: Option<Slice>, pane: Pane) {
        self.slices.push_back((slice, pane));
    }

    /// Appends the next states; whether there was anything to hand over. What is in memory of a slice comes last, for it is of
    /// later rows.
    pub(super) fn next_part(&mut self, output: &mut Vec<RecordBatch>) -> Result<bool> {
        let Some((slice, pane)) = self.slices.front() else { return Ok(false) };
        match pane.spilled.get(self.parts / PARTS) {
            Some(spilled) => {
                if let Some(states) = spilled.part(self.parts % PARTS)? {
                    output.push(with_slice(*slice, &states)?);
                }
                self.parts += 1;
            }
            None => {
                in_memory(*slice, pane, output)?;
                self.slices.pop_front();
                self.parts = 0;
            }
        }
        Ok(true)
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        self.slices.iter().map(|(_, pane)| pane.size()).sum()
    }
}

/// Appends the states of a slice that are in memory.
pub(super) fn in_memory(slice: Option<Slice>, pane: &Pane, output: &mut Vec<RecordBatch>) -> Result<()> {
    for states in &pane.sealed {
        output.push(with_slice(slice, &states.to_batch())?);
    }
    Ok(())
}
