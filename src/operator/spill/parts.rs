//! Partial states of groups on disk, where they go when memory is short.
//!
//! They are divided by the hash of their keys, so that a window is answered a part at a time, and no more than the groups
//! of one part are in memory then.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use datafusion::common::Result;
use datafusion::execution::disk_manager::DiskManager;

use super::cold_rows::hashes_of;
use super::file::{BatchFile, BatchWriter, Place};
use crate::operator::groups::state_size;

/// Parts that groups are divided into.
pub(in crate::operator) const PARTS: usize = 32;

/// A file that state is being written to.
pub(in crate::operator) struct SpillOut(BatchWriter);

impl SpillOut {
    /// A file for what goes to disk at one time.
    ///
    /// # Errors
    /// A disk manager that has none to give.
    pub(in crate::operator) fn create(disk: &Arc<DiskManager>) -> Result<Self> {
        BatchWriter::create(disk).map(Self)
    }

    /// Writes states of groups, whose keys are their first `keys` columns.
    ///
    /// # Errors
    /// A disk that is full, or has no more for this process.
    pub(in crate::operator) fn write(&mut self, states: RecordBatch, keys: usize) -> Result<Spilled> {
        let divided = Divided::by_keys(states, keys)?;
        let mut parts = vec![];
        for part in 0..PARTS {
            if let Some(states) = divided.part(part)? {
                parts.push((part as u8, self.0.append(&states)?));
            }
        }
        parts.shrink_to_fit();
        Ok(Spilled { file: self.0.file(), parts })
    }

    /// What has been written can be read from now on; how many bytes it is.
    ///
    /// # Errors
    /// As [`SpillOut::write`].
    pub(in crate::operator) fn finish(self) -> Result<u64> {
        self.0.finish()
    }
}

/// States on disk.
#[derive(Debug)]
pub(in crate::operator) struct Spilled {
    file: BatchFile,
    /// Those that there are, in order: few where what was written had been divided before.
    parts: Vec<(u8, Place)>,
}

impl Spilled {
    /// The states of one part, if it has any.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub(in crate::operator) fn part(&self, part: usize) -> Result<Option<RecordBatch>> {
        match self.parts.binary_search_by_key(&part, |(part, _)| usize::from(*part)) {
            Ok(at) => self.file.open()?.read(&self.parts[at].1),
            Err(_) => Ok(None),
        }
    }

    /// The states of all parts.
    ///
    /// # Errors
    /// As [`Spilled::part`].
    pub(in crate::operator) fn all(&self) -> impl Iterator<Item = Result<RecordBatch>> {
        (0..PARTS).filter_map(|part| self.part(part).transpose())
    }

    /// Bytes held in memory.
    pub(in crate::operator) fn size(&self) -> usize {
        size_of::<Self>() + self.parts.capacity() * size_of::<(u8, Place)>()
    }
}

/// States in memory, divided as those on disk are.
pub(in crate::operator) struct Divided {
    states: RecordBatch,
    rows: Vec<UInt32Array>,
}

impl Divided {
    /// Divides states by their first `keys` columns.
    pub(in crate::operator) fn by_keys(states: RecordBatch, keys: usize) -> Result<Self> {
        let hashes = hashes_of(&states.columns()[..keys], states.num_rows())?;
        let mut rows = vec![vec![]; PARTS];
        for (row, hash) in (0u32..).zip(hashes) {
            rows[(hash % PARTS as u64) as usize].push(row);
        }
        Ok(Self { states, rows: rows.into_iter().map(UInt32Array::from).collect() })
    }

    /// Bytes held.
    pub(in crate::operator) fn size(&self) -> usize {
        state_size(&self.states) + self.states.num_rows() * size_of::<u32>()
    }

    /// The states as they were.
    pub(in crate::operator) fn into_states(self) -> RecordBatch {
        self.states
    }

    /// The states of one part, if it has any.
    pub(in crate::operator) fn part(&self, part: usize) -> Result<Option<RecordBatch>> {
        let rows = &self.rows[part];
        (!rows.is_empty()).then(|| Ok(take_record_batch(&self.states, rows)?)).transpose()
    }
}
