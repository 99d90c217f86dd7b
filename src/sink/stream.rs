//! What is written as rows come: standard output, pipes, devices. One writer, and rows are out as soon as their batch
//! is.

use std::io::{ErrorKind, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::config::TableOptions;
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
    fn writes_through(&self) -> bool {
        true
    }

    fn writer(&self, _: usize, schema: SchemaRef) -> Result<Box<dyn Writer>> {
        let (out, name) = (Box::new(std::io::stdout()), "standard output".to_string());
        Ok(Box::new(StreamWriter::try_new(out, name, self.format, &schema, &TableOptions::default())?))
    }
}

/// Writes into a stream of bytes.
pub(super) struct StreamWriter {
    out: Box<dyn Write + Send>,
    name: String,
    encoder: Box<dyn Encoder>,
    bytes: Bytes,
    written: Written,
}

impl StreamWriter {
    pub(super) fn try_new(
        out: Box<dyn Write + Send>,
        name: String,
        format: OutputFormat,
        schema: &SchemaRef,
        options: &TableOptions,
    ) -> Result<Self> {
        let bytes = Bytes::default();
        let encoder = encoder(format, Medium::Stream, schema, options, bytes.clone())?;
        Ok(Self { out, name, encoder, bytes, written: Written::default() })
    }

    fn flush(&mut self) -> Result<()> {
        let bytes = self.bytes.take();
        self.written.bytes += bytes.len() as u64;
        let written = self.out.write_all(&bytes).and_then(|()| self.out.flush());
        written.map_err(|error| not_written(&self.name, error))
    }
}

/// That nobody reads any more is known by its kind, and is not for a person.
fn not_written(name: &str, error: std::io::Error) -> DataFusionError {
    match error.kind() {
        ErrorKind::BrokenPipe => error.into(),
        _ => Error::data(format!("cannot be written: {error}"))
            .in_file(name)
            .help("check that the disk has room where it leads to")
            .into(),
    }
}

#[async_trait]
impl Writer for StreamWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.encoder.write(&batch)?;
        self.written.rows += batch.num_rows() as u64;
        self.flush()
    }

    async fn finish(&mut self) -> Result<()> {
        self.encoder.finish()?;
        self.flush()
    }

    async fn close(&mut self) -> Result<Written> {
        Ok(self.written.clone())
    }
}
