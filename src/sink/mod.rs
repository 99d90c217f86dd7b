//! What a pipeline writes to.
//!
//! A [`Sink`] gives each pipeline a [`Writer`] of its own, so that pipelines never meet; a sink that is one file or
//! one terminal is written where the pipelines meet, with a single writer. Rows become bytes in `encoder.rs`.

mod compression;
mod encoder;
mod epochs;
mod file_writer;
mod files;
mod folder;
mod format;
mod hive;
mod local;
mod memory;
mod null;
mod parquet;
mod rolling;
mod staged;
mod stream;
mod table;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};

pub(crate) use compression::compresses;
pub use epochs::{Epochs, InEpoch};
pub use files::FileSink;
pub use format::OutputFormat;
pub(crate) use hive::Hive;
pub(crate) use memory::{MemorySink, TableSink};
pub use null::NullSink;
pub use stream::StdoutSink;

/// What one writer has written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// Bytes of the finished output.
    pub bytes: u64,
    /// The names of its files, of a writer into a folder.
    pub files: Vec<String>,
}

impl Written {
    /// Adds what has been written besides.
    pub(crate) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.files.extend(other.files);
    }
}

/// A place that rows go to.
#[async_trait]
pub trait Sink: Send + Sync + std::fmt::Debug {
    /// Whether every pipeline has a writer of its own; if not, one writer takes all rows where the pipelines meet.
    fn per_pipeline(&self) -> bool {
        false
    }

    /// The writer of one pipeline, for rows of this schema.
    ///
    /// # Errors
    /// Columns that the format cannot hold.
    fn writer(&self, pipeline: usize, schema: SchemaRef) -> Result<Box<dyn Writer>>;

    /// All writers have closed, and these are their files: the result is whole, and what an earlier run has left in the
    /// same place is taken away, so that only this run's rows are there.
    ///
    /// # Errors
    /// What cannot be taken away.
    async fn closed(&self, files: &[String]) -> Result<()> {
        let _ = files;
        Ok(())
    }

    /// The same job writes again, and nobody else does: takes away what it had not finished when it was killed.
    ///
    /// # Errors
    /// What cannot be taken away.
    async fn begin_again(&self) -> Result<()> {
        Ok(())
    }

    /// Every writer has given up: takes away what was made for them.
    async fn aborted(&self) {}

    /// Whether rows leave at once and for good, as on a terminal: where a job has to begin again, those since its last
    /// checkpoint come again.
    fn writes_through(&self) -> bool {
        false
    }

    /// The same place for output that is written exactly once, however often the job has to begin again; none if it cannot
    /// promise that.
    fn epochs(&self) -> Option<Arc<dyn Epochs>> {
        None
    }
}

/// Writes the rows of one pipeline: batches, then `finish`, then `close`; and `abort` at any point.
///
/// Every writer of a run has finished before the first is closed, so that what can fail for want of room has failed
/// while nothing is visible. Dropping a writer that was not closed leaves nothing behind that a reader could take for
/// a whole result.
#[async_trait]
pub trait Writer: Send {
    /// Writes a batch.
    async fn write(&mut self, batch: RecordBatch) -> Result<()>;

    /// Writes what is left, still without making it visible.
    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    /// Completes the output: from here on it is visible and whole.
    async fn close(&mut self) -> Result<Written>;

    /// Gives up: takes away whatever has been written, also if this writer has closed and another one could not.
    async fn abort(self: Box<Self>) {}
}

/// Whether an error only says that nobody reads the output any more, as under `| head`.
pub fn is_broken_pipe(error: &DataFusionError) -> bool {
    match error {
        DataFusionError::IoError(error) => error.kind() == std::io::ErrorKind::BrokenPipe,
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => is_broken_pipe(inner),
        DataFusionError::Shared(inner) => is_broken_pipe(inner),
        _ => false,
    }
}
