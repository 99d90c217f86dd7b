//! What a piece that saves itself has handed over to a merger: it counts until the windows that it is for have been given,
//! and that is saved.
//!
//! What has been handed over does not change any more, so it is saved once, and held until then: each time a piece saves
//! itself, what is new becomes a part, which later checkpoints only name, until all windows that it is for are done with.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::DiskManager;

use crate::operator::WATERMARK_MAX;
use crate::operator::aggregate_spec::AggregateSpec;
use crate::operator::groups::state_size;
use crate::operator::open_windows::{apart, joined, slice_of};
use crate::operator::spans::Spans;
use crate::operator::spill::KeptBatches;

/// When a part was saved: by which run, and in which epoch of the pipeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartId {
    pub(crate) epoch: u64,
    pub(crate) run: u64,
}

/// A part of what was handed over.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SavedPart {
    pub(crate) id: PartId,
    /// The end of the last window that it is for.
    pub(crate) last_end: i64,
    /// Rows of its partial states.
    pub(crate) rows: u64,
    /// Those; none where it was saved before.
    pub(crate) partials: Vec<RecordBatch>,
}

/// Partial states, for as long as a window that they are for is not saved.
#[derive(Debug, Default)]
pub(crate) struct HandedOver {
    /// What has been saved.
    parts: Vec<SavedPart>,
    /// What is in no part yet, each with the end of the last window that it is for.
    new: Vec<(i64, RecordBatch)>,
    /// Bytes of these.
    size: usize,
    /// Earlier ones, which went to disk when memory was short.
    on_disk: KeptBatches,
    /// Up to where it has been forgotten.
    forgotten: i64,
}

impl HandedOver {
    /// # Errors
    /// What is no partial state.
    pub(crate) fn add(&mut self, spec: &AggregateSpec, partials: &[RecordBatch]) -> Result<()> {
        for partial in apart(partials)? {
            let mut slice = slice_of(&partial)?;
            while let Some(next) = slice.and_then(|slice| spec.next_window(slice)) {
                slice = Some(next);
            }
            self.size += state_size(&partial);
            self.new.push((slice.map_or(WATERMARK_MAX, |slice| slice.next_end), partial));
        }
        Ok(())
    }

    /// Goes on from what was saved.
    pub(crate) fn restore(&mut self, parts: Vec<SavedPart>) {
        self.parts.extend(parts.into_iter().map(|part| SavedPart { partials: vec![], ..part }));
    }

    /// Forgets what is only for windows that have been given and saved.
    pub(crate) fn forget(&mut self, given: &Spans) {
        let given = given.given();
        // That moves on when somebody saves itself, and not with each window.
        if std::mem::replace(&mut self.forgotten, given) != given {
            self.parts.retain(|part| part.last_end > given);
            self.new.retain(|(last_end, _)| *last_end > given);
            self.size = self.new.iter().map(|(_, partial)| state_size(partial)).sum();
            self.on_disk.retain(|last_end| last_end > given);
        }
    }

    /// What is to be saved: the parts of before, and what is new as the part `id`.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub(crate) fn save(&mut self, id: PartId) -> Result<Vec<SavedPart>> {
        let mut saved = self.parts.clone();
        let mut partials = self.on_disk.batches().collect::<Result<Vec<_>>>()?;
        let last_ends = self.on_disk.untils().chain(self.new.iter().map(|(last_end, _)| *last_end));
        if let Some(last_end) = last_ends.max() {
            partials.extend(std::mem::take(&mut self.new).into_iter().map(|(_, partial)| partial));
            (self.on_disk, self.size) = (KeptBatches::default(), 0);
            let rows = partials.iter().map(|partial| partial.num_rows() as u64).sum();
            self.parts.push(SavedPart { id, last_end, rows, partials: vec![] });
            saved.push(SavedPart { id, last_end, rows, partials: joined(partials)? });
        }
        Ok(saved)
    }

    /// Bytes held in memory.
    pub(crate) fn size(&self) -> usize {
        self.size + self.on_disk.size()
    }

    /// Brings all that is in memory to disk; how many bytes it is there.
    ///
    /// # Errors
    /// A disk that is full, or has no more for this process.
    pub(crate) fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        self.size = 0;
        self.on_disk.add(disk, std::mem::take(&mut self.new))
    }
}
