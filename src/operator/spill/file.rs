//! Batches in a temporary file, each in a place of its own.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::spill_file::{SpillFile, SpillWriter};

use crate::operator::snapshot::without_slack;

/// Where a batch is in its file, as an Arrow IPC stream; nowhere if it is empty.
pub(super) type Place = Range<u64>;

/// A file that batches are being written to.
pub(super) struct BatchWriter {
    file: Arc<dyn SpillFile>,
    writer: BufWriter<Box<dyn SpillWriter>>,
    length: u64,
}

/// The batches of a file, which is gone when nobody holds it.
#[derive(Clone)]
pub(super) struct BatchFile(Arc<dyn SpillFile>);

impl BatchWriter {
    /// A file for what goes to disk at one time.
    ///
    /// # Errors
    /// A disk manager that has none to give.
    pub(super) fn create(disk: &Arc<DiskManager>) -> Result<Self> {
        let file = disk.create_tmp_file("spilling the state of an operator")?;
        let writer = BufWriter::new(file.open_writer()?);
        Ok(Self { file, writer, length: 0 })
    }

    /// Writes a batch.
    ///
    /// # Errors
    /// A disk that is full, or has no more for this process.
    pub(super) fn append(&mut self, batch: &RecordBatch) -> Result<Place> {
        let start = self.length;
        let batch = without_slack(batch)?;
        let mut stream = StreamWriter::try_new(vec![], &batch.schema())?;
        stream.write(&batch)?;
        let bytes = stream.into_inner()?;
        self.writer.write_all(&bytes).map_err(DataFusionError::IoError)?;
        self.length += bytes.len() as u64;
        Ok(start..self.length)
    }

    /// The file, whose batches can be read once it is finished.
    pub(super) fn file(&self) -> BatchFile {
        BatchFile(Arc::clone(&self.file))
    }

    /// What has been written can be read from now on; how many bytes it is.
    ///
    /// # Errors
    /// As [`BatchWriter::append`].
    pub(super) fn finish(self) -> Result<u64> {
        self.writer.into_inner().map_err(|error| DataFusionError::IoError(error.into_error()))?.finish()?;
        Ok(self.length)
    }
}

impl fmt::Debug for BatchFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BatchFile").field(&self.0.path()).finish()
    }
}

impl BatchFile {
    /// The file, to read several batches from.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub(super) fn open(&self) -> Result<OpenFile> {
        let path = self.0.path().ok_or_else(|| internal_datafusion_err!("spilled state that is in no local file"))?;
        Ok(OpenFile(File::open(path).map_err(DataFusionError::IoError)?))
    }
}

/// A file that is being read.
pub(super) struct OpenFile(File);

impl OpenFile {
    /// The batch of a place; none if there is none.
    ///
    /// # Errors
    /// As [`BatchFile::open`].
    pub(super) fn read(&mut self, place: &Place) -> Result<Option<RecordBatch>> {
        if place.is_empty() {
            return Ok(None);
        }
        self.0.seek(SeekFrom::Start(place.start)).map_err(DataFusionError::IoError)?;
        let bytes = BufReader::new((&mut self.0).take(place.end - place.start));
        StreamReader::try_new(bytes, None)?.next().transpose().map_err(DataFusionError::from)
    }
}
