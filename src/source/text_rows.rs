//! CSV and JSON by arrow's decoders: of a file, of a part of one, or of text that comes piece by piece.

use std::io::{BufRead, BufReader};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::csv;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json;
use bytes::{Buf, Bytes};
use datafusion::common::{Result, ScalarValue};

use crate::error::Error;
use crate::sql::FileFormat;

use super::pieces::{Part, TextStart};
use super::rows::Wanted;
use super::table::StreamFile;
use super::text_parts;

/// Bytes that are decoded together.
const BUFFER_BYTES: usize = 256 * 1024;

/// Reads text.
pub(super) struct TextRows {
    decoder: Decoder,
    text: Box<dyn BufRead + Send>,
    /// Whether the text is whole rows, after which more of them may come.
    goes_on: bool,
    /// Where in the file the next byte is.
    next_byte: u64,
    /// Where the first row is that has not been given.
    next_row: TextStart,
    /// Where the columns of a batch come from: the next one that is decoded, or a value of the file's folders.
    columns: Vec<Option<ScalarValue>>,
    schema: SchemaRef,
}

impl TextRows {
    /// Opens a file of CSV or JSON, or a part of one, where it begins or at the row `from`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) async fn open(
        file: &StreamFile,
        part: &Part,
        from: Option<TextStart>,
        wanted: &Wanted<'_>,
    ) -> Result<Self> {
        let bytes = match part {
            Part::Text { parts, of } => Some(text_parts::bytes(wanted.inner, file, parts, *of).await?),
            Part::Whole | Part::RowGroups(_) | Part::Live => None,
        };
        let start = from.unwrap_or(TextStart { byte: bytes.as_ref().map_or(0, |bytes| bytes.start), rows: 0 });
        let end = bytes.as_ref().map_or(file.object.size, |bytes| bytes.end);
        let bytes = (bytes.is_some() || from.is_some()).then_some(start.byte..end);
        let text = BufReader::with_capacity(BUFFER_BYTES, file.open_text(bytes, wanted.counts)?);
        Self::new(Box::new(text), start, &file.hive, wanted)
    }

    /// Rows of text that comes piece by piece: see [`TextRows::take`].
    ///
    /// # Errors
    /// Options of a format that cannot be.
    pub(super) fn of_pieces(start: TextStart, file: &StreamFile, wanted: &Wanted) -> Result<Self> {
        Ok(Self { goes_on: true, ..Self::new(Box::new(std::io::empty()), start, &file.hive, wanted)? })
    }

    fn new(text: Box<dyn BufRead + Send>, start: TextStart, hive: &[ScalarValue], wanted: &Wanted) -> Result<Self> {
        let width = wanted.inner.file_schema.fields().len();
        let columns = wanted.columns.iter().map(|column| hive.get(column.checked_sub(width)?).cloned());
        Ok(Self {
            decoder: Decoder::new(start.byte == 0, wanted)?,
            text,
            goes_on: false,
            next_byte: start.byte,
            next_row: start,
            columns: columns.collect(),
            schema: wanted.schema()?,
        })
    }

    /// Takes the next text, whole rows of it, when what came before has been read.
    pub(super) fn take(&mut self, text: Bytes) {
        self.text = Box::new(text.reader());
    }

    /// The next batch; none at the end of the text.
    ///
    /// # Errors
    /// Rows that cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let bytes = self.text.fill_buf()?;
            // An end of all text may end a row, too.
            if bytes.is_empty() && self.goes_on {
                break;
            }
            let decoded = self.decoder.decode(bytes)?;
            self.text.consume(decoded);
            self.next_byte += decoded as u64;
            if decoded == 0 || self.decoder.is_full() {
                break;
            }
        }
        // An object over several lines may have come in part.
        if self.goes_on && self.decoder.is_within_row() {
            return Ok(None);
        }
        let Some(batch) = self.decoder.flush()? else { return Ok(None) };
        self.next_row = TextStart { byte: self.next_byte, rows: self.next_row.rows + batch.num_rows() as u64 };
        self.with_folders(&batch).map(Some)
    }

    /// # Errors
    /// The last row has not come whole.
    pub(super) fn check_whole(&self) -> Result<()> {
        match self.decoder.is_within_row() {
            true => Err(Error::data("ends within a row").help("write the last row to its end").into()),
            false => Ok(()),
        }
    }

    /// Where the next row begins, in text that is read as it is in the file.
    pub(super) fn next_row(&self) -> TextStart {
        self.next_row
    }

    fn with_folders(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut decoded = batch.columns().iter();
        let columns = self.columns.iter().filter_map(|value| match value {
            Some(value) => Some(value.to_array_of_size(batch.num_rows())),
            None => decoded.next().cloned().map(Ok),
        });
        let columns = columns.collect::<Result<_>>()?;
        // A count needs no column at all.
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows)?)
    }
}

/// Makes rows of bytes.
enum Decoder {
    Csv(Box<csv::reader::Decoder>),
    Json { decoder: json::reader::Decoder, batch_rows: usize },
}

impl Decoder {
    /// A decoder of the stream's format, from the beginning of a file or further on.
    fn new(is_first: bool, wanted: &Wanted) -> Result<Self> {
        let inner = wanted.inner;
        let width = inner.file_schema.fields().len();
        let decoded: Vec<usize> = wanted.columns.iter().copied().filter(|column| *column < width).collect();
        let batch_rows = wanted.batch_rows();
        Ok(match inner.format {
            FileFormat::Json => {
                let schema = Arc::new(inner.file_schema.project(&decoded)?);
                let decoder = json::ReaderBuilder::new(schema).with_batch_size(batch_rows).build_decoder()?;
                Self::Json { decoder, batch_rows }
            }
            _ => {
                let builder = csv::ReaderBuilder::new(Arc::clone(&inner.file_schema))
                    .with_format(inner.options.csv_format(is_first)?)
                    .with_batch_size(batch_rows)
                    .with_projection(decoded);
                Self::Csv(Box::new(builder.build_decoder()))
            }
        })
    }

    /// Decodes bytes and gives their number: fewer where a batch is full. No bytes at all are the end of all text.
    fn decode(&mut self, bytes: &[u8]) -> Result<usize, ArrowError> {
        match self {
            Self::Csv(decoder) => decoder.decode(bytes),
            Self::Json { decoder, .. } => decoder.decode(bytes),
        }
    }

    /// Whether no more rows fit into a batch.
    fn is_full(&self) -> bool {
        match self {
            Self::Csv(decoder) => decoder.capacity() == 0,
            Self::Json { decoder, batch_rows } => decoder.len() == *batch_rows && !decoder.has_partial_record(),
        }
    }

    /// Whether the last row has not come whole; of CSV only whole ones come.
    fn is_within_row(&self) -> bool {
        matches!(self, Self::Json { decoder, .. } if decoder.has_partial_record())
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        match self {
            Self::Csv(decoder) => decoder.flush(),
            Self::Json { decoder, .. } => decoder.flush(),
        }
    }
}
