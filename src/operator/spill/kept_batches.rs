//! Batches that are only kept, to be looked at now and then, each with a number that says until when.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::DiskManager;

use super::file::{BatchFile, BatchWriter, Place};

/// Batches on disk.
#[derive(Debug, Default)]
pub(in crate::operator) struct KeptBatches(Vec<(i64, BatchFile, Place)>);

impl KeptBatches {
    /// Brings batches to disk; how many bytes they are there.
    ///
    /// # Errors
    /// A disk that is full, or has no more for this process.
    pub(in crate::operator) fn add(
        &mut self,
        disk: &Arc<DiskManager>,
        batches: Vec<(i64, RecordBatch)>,
    ) -> Result<u64> {
        if batches.is_empty() {
            return Ok(0);
        }
        let mut out = BatchWriter::create(disk)?;
        for (until, batch) in batches {
            let place = out.append(&batch)?;
            self.0.push((until, out.file(), place));
        }
        out.finish()
    }

    /// The number of each of them.
    pub(in crate::operator) fn untils(&self) -> impl Iterator<Item = i64> {
        self.0.iter().map(|(until, ..)| *until)
    }

    /// Lets go of others than these.
    pub(in crate::operator) fn retain(&mut self, stays: impl Fn(i64) -> bool) {
        self.0.retain(|(until, ..)| stays(*until));
    }

    /// All of them, in the order in which they came.
    pub(in crate::operator) fn batches(&self) -> impl Iterator<Item = Result<RecordBatch>> {
        self.0.iter().filter_map(|(_, file, place)| file.open().and_then(|mut file| file.read(place)).transpose())
    }

    /// Bytes held in memory.
    pub(in crate::operator) fn size(&self) -> usize {
        self.0.capacity() * size_of::<(i64, BatchFile, Place)>()
    }
}
