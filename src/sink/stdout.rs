//! Standard output: one writer, and rows are out as soon as their batch is.

use std::io::{ErrorKind, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::config::TableParquetOptions;
use datafusion::error::{DataFusionError, Result};

use crate::error::Error;

use super::encoder::{Bytes, Encoder, Medium, encoder};
use super::{OutputFormat, Sink, Writer, Written};

/// Writes to standard output.
#[derive(Debug)]
pub struct StdoutSink {
    format: OutputFormat,
}

impl StdoutSink {
    /// Standard output in this format.
    pub fn new(format: OutputFormat) -> Self {
        Self { format }
    }
}

impl Sink for StdoutSink {
    fn writer(&self, _: usize, schema: SchemaRef) -> Result<Box<dyn Writer>> {
        let bytes = Bytes::default();
        let encoder = encoder(self.format, Medium::Stream, &schema, &TableParquetOptions::default(), bytes.clone())?;
        Ok(Box::new(StdoutWriter { encoder, bytes, written: Written::default() }))
    }
}

struct StdoutWriter {
    encoder: Box<dyn Encoder>,
    bytes: Bytes,
    written: Written,
}

impl StdoutWriter {
    fn flush(&mut self) -> Result<()> {
        let bytes = self.bytes.take();
        self.written.bytes += bytes.len() as u64;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&bytes).and_then(|()| stdout.flush()).map_err(not_written)
    }
}

/// That nobody reads any more is known by its kind, and is not for a person.
fn not_written(error: std::io::Error) -> DataFusionError {
    match error.kind() {
        ErrorKind::BrokenPipe => error.into(),
        _ => Error::data(format!("cannot be written: {error}"))
            .in_file("standard output")
            .help("check that the disk has room where it is redirected to")
            .into(),
    }
}

#[async_trait]
impl Writer for StdoutWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.encoder.write(&batch)?;
        self.written.rows += batch.num_rows() as u64;
        self.flush()
    }

    async fn finish(&mut self) -> Result<()> {
        self.encoder.finish()?;
        self.flush()
    }

    async fn close(self: Box<Self>) -> Result<Written> {
        Ok(self.written)
    }
}
