//! Partial states of groups on disk, where they go when memory is short.
//!
//! They are divided by the hash of their keys, so that a window is answered a part at a time, and no more than the groups
//! of one part are in memory then. (Grace hash join, Kitsuregawa et al. 1983, does the same to its inputs.)

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::spill_file::{SpillFile, SpillWriter};

use super::groups::state_size;
use super::snapshot::without_slack;

/// Parts that groups are divided into.
pub(super) const PARTS: usize = 32;

/// Another seed than that of the tables that look groups up, whose places would be few for the keys of one part.
const SEED: u64 = 0x7370_696c;

/// A file that state is being written to, gone when nobody holds what is in it.
pub(super) struct SpillOut {
    file: Arc<dyn SpillFile>,
    writer: BufWriter<Box<dyn SpillWriter>>,
    length: u64,
}

impl SpillOut {
    /// A file for what goes to disk at one time.
    ///
    /// # Errors
    /// A disk manager that has none to give.
    pub(super) fn create(disk: &Arc<DiskManager>) -> Result<Self> {
        let file = disk.create_tmp_file("spilling the state of windows")?;
        let writer = BufWriter::new(file.open_writer()?);
        Ok(Self { file, writer, length: 0 })
    }

    /// Writes states of groups, whose keys are their first `keys` columns.
    ///
    /// # Errors
    /// A disk that is full, or has no more for this process.
    pub(super) fn write(&mut self, states: RecordBatch, keys: usize) -> Result<Spilled> {
        let divided = Divided::by_keys(states, keys)?;
        let mut parts = vec![];
        for part in 0..PARTS {
            parts.push(match divided.part(part)? {
                Some(states) => self.append(&without_slack(&states)?)?,
                None => 0..0,
            });
        }
        Ok(Spilled { file: Arc::clone(&self.file), parts })
    }

    fn append(&mut self, states: &RecordBatch) -> Result<Range<u64>> {
        let start = self.length;
        let mut stream = StreamWriter::try_new(vec![], &states.schema())?;
        stream.write(states)?;
        let bytes = stream.into_inner()?;
        self.writer.write_all(&bytes).map_err(DataFusionError::IoError)?;
        self.length += bytes.len() as u64;
        Ok(start..self.length)
    }

    /// What has been written can be read from now on; how many bytes it is.
    ///
    /// # Errors
    /// As [`SpillOut::write`].
    pub(super) fn finish(self) -> Result<u64> {
        self.writer.into_inner().map_err(|error| DataFusionError::IoError(error.into_error()))?.finish()?;
        Ok(self.length)
    }
}

/// States on disk.
pub(super) struct Spilled {
    file: Arc<dyn SpillFile>,
    /// Where each part is in the file, as an Arrow IPC stream.
    parts: Vec<Range<u64>>,
}

impl Spilled {
    /// The states of one part, if it has any.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub(super) fn part(&self, part: usize) -> Result<Option<RecordBatch>> {
        let range = &self.parts[part];
        if range.is_empty() {
            return Ok(None);
        }
        let path =
            self.file.path().ok_or_else(|| internal_datafusion_err!("spilled state that is in no local file"))?;
        let states = read(path, range).map_err(DataFusionError::IoError)?;
        StreamReader::try_new(states, None)?.next().transpose().map_err(DataFusionError::from)
    }

    /// The states of all parts.
    ///
    /// # Errors
    /// As [`Spilled::part`].
    pub(super) fn all(&self) -> impl Iterator<Item = Result<RecordBatch>> {
        (0..PARTS).filter_map(|part| self.part(part).transpose())
    }

    /// Bytes held in memory.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.parts.capacity() * size_of::<Range<u64>>()
    }
}

fn read(path: &Path, range: &Range<u64>) -> std::io::Result<impl Read> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(range.start))?;
    Ok(BufReader::new(file.take(range.end - range.start)))
}

/// States in memory, divided as those on disk are.
pub(super) struct Divided {
    states: RecordBatch,
    rows: Vec<UInt32Array>,
}

impl Divided {
    /// Divides states by their first `keys` columns.
    pub(super) fn by_keys(states: RecordBatch, keys: usize) -> Result<Self> {
        let mut hashes = vec![0; states.num_rows()];
        create_hashes(&states.columns()[..keys], &RandomState::with_seed(SEED), &mut hashes)?;
        let mut rows = vec![vec![]; PARTS];
        for (row, hash) in (0u32..).zip(hashes) {
            rows[(hash % PARTS as u64) as usize].push(row);
        }
        Ok(Self { states, rows: rows.into_iter().map(UInt32Array::from).collect() })
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        state_size(&self.states) + self.states.num_rows() * size_of::<u32>()
    }

    /// The states as they were.
    pub(super) fn into_states(self) -> RecordBatch {
        self.states
    }

    /// The states of one part, if it has any.
    pub(super) fn part(&self, part: usize) -> Result<Option<RecordBatch>> {
        let rows = &self.rows[part];
        (!rows.is_empty()).then(|| Ok(take_record_batch(&self.states, rows)?)).transpose()
    }
}
