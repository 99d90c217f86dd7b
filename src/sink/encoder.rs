//! Batches to bytes, for each format.

use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use arrow::json;
use arrow::json::writer::{JsonArray, LineDelimited};
use datafusion::common::Result;
use datafusion::common::config::TableOptions;
use datafusion::common::file_options::csv_writer::CsvWriterOptions;
use parking_lot::Mutex;

use crate::error::Error;

use super::OutputFormat;
use super::parquet::ParquetEncoder;
use super::table::TableText;

/// Turns batches into the bytes of one output.
pub(super) trait Encoder: Send {
    /// Encodes a batch. Formats of large blocks may give bytes only after many batches.
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;
    /// Encodes what is left.
    fn finish(&mut self) -> Result<()>;
    /// About how many bytes it keeps to encode them later.
    fn buffered(&self) -> usize {
        0
    }
}

/// Bytes that an encoder has written and nobody has taken yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Bytes {
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether the reader of an Arrow output can seek in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Medium {
    File,
    Stream,
}

/// An encoder into `bytes`.
///
/// # Errors
/// Columns that the format cannot hold.
pub(super) fn encoder(
    format: OutputFormat,
    medium: Medium,
    schema: &SchemaRef,
    options: &TableOptions,
    bytes: Bytes,
) -> Result<Box<dyn Encoder>> {
    Ok(match format {
        OutputFormat::Csv => {
            let mut writer = CsvWriterOptions::try_from(&options.csv)?.writer_options.build(bytes);
            // The header is there even if no row comes.
            writer.write(&RecordBatch::new_empty(Arc::clone(schema))).map_err(|error| {
                let error = Error::data(error.to_string().replace("Csv error: ", ""));
                error.help("cast the column to text, or take another format: json, ndjson, parquet, arrow, table")
            })?;
            Box::new(writer)
        }
        OutputFormat::Json => Box::new(json::WriterBuilder::new().build::<_, JsonArray>(bytes)),
        OutputFormat::Ndjson => Box::new(json::WriterBuilder::new().build::<_, LineDelimited>(bytes)),
        OutputFormat::Arrow if medium == Medium::File => Box::new(FileWriter::try_new(bytes, schema)?),
        OutputFormat::Arrow => Box::new(StreamWriter::try_new(bytes, schema)?),
        OutputFormat::Parquet => Box::new(ParquetEncoder::try_new(schema, &options.parquet, bytes)?),
        OutputFormat::Table | OutputFormat::None => Box::new(TableText::new(bytes, Arc::clone(schema))),
    })
}

impl Encoder for csv::Writer<Bytes> {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        Ok(csv::Writer::write(self, batch)?)
    }
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<F: json::writer::JsonFormat + Send> Encoder for json::Writer<Bytes, F> {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        Ok(json::Writer::write(self, batch)?)
    }
    fn finish(&mut self) -> Result<()> {
        Ok(json::Writer::finish(self)?)
    }
}

impl Encoder for FileWriter<Bytes> {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        Ok(FileWriter::write(self, batch)?)
    }
    fn finish(&mut self) -> Result<()> {
        Ok(FileWriter::finish(self)?)
    }
}

impl Encoder for StreamWriter<Bytes> {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        Ok(StreamWriter::write(self, batch)?)
    }
    fn finish(&mut self) -> Result<()> {
        Ok(StreamWriter::finish(self)?)
    }
}
