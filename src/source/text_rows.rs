//! CSV and JSON files by arrow's readers.

use std::fs::File;
use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::csv;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json;
use datafusion::common::{Result, ScalarValue};

use crate::sql::FileFormat;

use super::pieces::Part;
use super::reader::ReaderCounts;
use super::rows::Wanted;
use super::table::StreamFile;
use super::text_parts;

/// Bytes that are decoded together.
const BUFFER_BYTES: usize = 256 * 1024;

type Batches = Box<dyn Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send>;

/// Reads one file.
pub(super) struct TextRows {
    batches: Batches,
    /// Where the columns of a batch come from: the next one that is decoded, or a value of the file's folders.
    columns: Vec<Option<ScalarValue>>,
    schema: SchemaRef,
}

impl TextRows {
    /// Opens a file of CSV or JSON, or a part of one.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn open(file: &StreamFile, part: &Part, wanted: &Wanted) -> Result<Self> {
        let inner = wanted.inner;
        let bytes = match part {
            Part::Text { parts, of } => Some(text_parts::bytes(inner, file, parts, *of)?),
            Part::Whole | Part::RowGroups(_) => None,
        };
        let is_first = part.text_before().is_none();
        let width = inner.file_schema.fields().len();
        let decoded: Vec<usize> = wanted.columns.iter().copied().filter(|column| *column < width).collect();
        let columns = wanted.columns.iter().map(|column| column.checked_sub(width).map(|hive| file.hive[hive].clone()));
        let text = BufReader::with_capacity(BUFFER_BYTES, file.open_text(bytes, wanted.counts)?);
        let batches: Batches = match inner.format {
            FileFormat::Json => {
                let schema = Arc::new(inner.file_schema.project(&decoded)?);
                Box::new(json::ReaderBuilder::new(schema).with_batch_size(wanted.batch_rows()).build(text)?)
            }
            _ => {
                let reader = csv::ReaderBuilder::new(Arc::clone(&inner.file_schema))
                    .with_format(inner.options.csv_format(is_first)?)
                    .with_batch_size(wanted.batch_rows())
                    .with_projection(decoded);
                Box::new(reader.build_buffered(text)?)
            }
        };
        Ok(Self { batches, columns: columns.collect(), schema: wanted.schema()? })
    }

    /// The next batch; none at the end.
    ///
    /// # Errors
    /// Rows that cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(batch) = self.batches.next().transpose()? else {
            return Ok(None);
        };
        let mut decoded = batch.columns().iter();
        let columns = self.columns.iter().filter_map(|value| match value {
            Some(value) => Some(value.to_array_of_size(batch.num_rows())),
            None => decoded.next().cloned().map(Ok),
        });
        let columns = columns.collect::<Result<_>>()?;
        // A count needs no column at all.
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows)?))
    }
}

/// A file that tells how much of it has been read.
pub(super) struct Counted {
    pub(super) file: File,
    pub(super) counts: Arc<ReaderCounts>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}
