//! CSV files read row by row, for the options that DataFusion's reader does not have: a text for null, a format of
//! timestamps, and bad rows that are counted and left out (`'on_error' 'skip'`).
//!
//! Rows are read as text and cast column by column; a row is bad if it has another number of fields than there are
//! columns, or if a field that is not null becomes null in the cast.

use std::io::Read;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, StringBuilder, UInt64Array,
};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, is_not_null, is_null, or};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::{Buf, Bytes};
use csv::{ByteRecord, ReaderBuilder};
use datafusion::common::config::CsvOptions;
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::file_format::DEFAULT_SCHEMA_INFER_MAX_RECORD;

use crate::error::Error;
use crate::panics::caught;

use super::csv_time::TimeFormat;
use super::options::StreamOptions;
use super::pieces::TextStart;
use super::rows::Wanted;
use super::table::StreamFile;

const SKIP: &str = "mend the row, or count such rows and leave them out with OPTIONS ('on_error' 'skip')";

/// Lines of a file that hold its header.
const HEADER_LINES: usize = 100;

type TextReader = csv::Reader<Box<dyn Read + Send>>;

/// Reads text from the beginning of a file, or further on.
fn reader(text: Box<dyn Read + Send>, is_first: bool, options: &CsvOptions) -> TextReader {
    let mut builder = ReaderBuilder::new();
    builder.flexible(true).has_headers(is_first && options.has_header != Some(false));
    builder.delimiter(options.delimiter).quote(options.quote).escape(options.escape).comment(options.comment);
    builder.from_reader(text)
}

/// The columns that a file's header names, as text: for checking listed columns without a look at the rows.
pub(super) async fn header(file: &StreamFile, options: &CsvOptions) -> Result<SchemaRef> {
    // Lines before it may be comments, and a name may go over several.
    let names = names(file.first_lines(HEADER_LINES).await?, options);
    names.map_err(|error| error.in_file(&file.name).into())
}

/// The columns that a text's header names.
///
/// # Errors
/// Text that cannot be read.
pub(super) fn names(text: Box<dyn Read + Send>, options: &CsvOptions) -> Result<SchemaRef, Error> {
    let mut reader = reader(text, true, options);
    let names = reader.headers().map_err(|error| Error::data(error.to_string()))?;
    Ok(Arc::new(Schema::new(names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>())))
}

/// The columns of a file as its first rows show them.
pub(super) async fn infer(file: &StreamFile, options: &StreamOptions) -> Result<SchemaRef> {
    let rows = options.csv.schema_infer_max_rec.unwrap_or(DEFAULT_SCHEMA_INFER_MAX_RECORD);
    let (format, text) = (options.csv_format(true)?, file.first_lines(rows.saturating_add(HEADER_LINES)).await?);
    caught(|| Ok(Arc::new(format.infer_schema(text, Some(rows))?.0)))
}

/// Reads one file, or text that comes piece by piece.
pub(super) struct CsvRows {
    name: String,
    rows: TextReader,
    /// How its text is written.
    csv: CsvOptions,
    /// Where in the file the text begins that is being read.
    begin: u64,
    file_schema: SchemaRef,
    /// The table's columns that are wanted: of the file, or Hive values after them.
    columns: Vec<usize>,
    hive: Vec<ScalarValue>,
    schema: SchemaRef,
    null_value: String,
    timestamp_format: Option<TimeFormat>,
    skips_bad_rows: bool,
    batch_rows: usize,
    /// Rows of the file that have been read, malformed ones among them.
    read: u64,
    /// The rows of the batch at hand, counted from 1; those of the last batch that was given.
    numbers: Vec<u64>,
}

impl CsvRows {
    pub(super) fn open(file: &StreamFile, from: Option<TextStart>, wanted: &Wanted) -> Result<Self> {
        let bytes = from.map(|from| from.byte..file.object.size);
        Self::new(file.open_text(bytes, wanted.counts)?, from.unwrap_or_default(), file, wanted)
    }

    /// Rows of text that comes piece by piece: see [`CsvRows::take`].
    pub(super) fn of_pieces(start: TextStart, file: &StreamFile, wanted: &Wanted) -> Result<Self> {
        Self::new(Box::new(std::io::empty()), start, file, wanted)
    }

    fn new(text: Box<dyn Read + Send>, start: TextStart, file: &StreamFile, wanted: &Wanted) -> Result<Self> {
        let inner = wanted.inner;
        Ok(Self {
            name: file.name.clone(),
            rows: reader(text, start.byte == 0, &inner.options.csv),
            csv: inner.options.csv.clone(),
            begin: start.byte,
            file_schema: Arc::clone(&inner.file_schema),
            columns: wanted.columns.to_vec(),
            hive: file.hive.clone(),
            schema: wanted.schema()?,
            null_value: inner.options.null_value.clone().unwrap_or_default(),
            timestamp_format: inner.options.timestamp_format.clone(),
            skips_bad_rows: inner.options.skip_bad_rows,
            batch_rows: wanted.batch_rows(),
            read: start.rows,
            numbers: vec![],
        })
    }

    /// Takes the next text, whole rows of it, when what came before has been read.
    pub(super) fn take(&mut self, text: Bytes) {
        self.begin += self.rows.position().byte();
        self.rows = reader(Box::new(text.reader()), self.begin == 0, &self.csv);
    }

    /// Where the next row begins, in text that is read as it is in the file.
    pub(super) fn next_row(&self) -> TextStart {
        TextStart { byte: self.begin + self.rows.position().byte(), rows: self.read }
    }

    /// The next batch of good rows; bad ones are added to `skipped_rows`.
    ///
    /// # Errors
    /// A bad row, unless such rows are to be left out.
    pub(super) fn next(&mut self, skipped_rows: &mut u64) -> Result<Option<RecordBatch>> {
        let Some(text) = self.read_text(skipped_rows)? else {
            return Ok(None);
        };
        let mut good: Option<BooleanArray> = None;
        let mut parsed: Vec<ArrayRef> = vec![];
        for (field, text) in self.file_schema.fields().iter().zip(&text) {
            let column = self.parse(text, field.data_type())?;
            if column.null_count() != text.null_count() {
                let fine = or(&is_not_null(&column)?, &is_null(text)?)?;
                self.accept_bad_rows(&fine, text, field)?;
                good = Some(match good {
                    Some(good) => arrow::compute::and(&good, &fine)?,
                    None => fine,
                });
            }
            parsed.push(column);
        }
        let rows = text.first().map_or(0, Array::len);
        let columns = self.columns.iter().map(|index| match parsed.get(*index) {
            Some(column) => Ok(Arc::clone(column)),
            None => self.hive[index - parsed.len()].to_array_of_size(rows),
        });
        // A count needs no column at all.
        let count = RecordBatchOptions::new().with_row_count(Some(rows));
        let columns = columns.collect::<Result<_>>()?;
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &count)?;
        if let Some(good) = &good {
            let mut good = good.iter();
            self.numbers.retain(|_| good.next().flatten().unwrap_or_default());
        }
        match good {
            Some(good) => {
                *skipped_rows += (good.len() - good.true_count()) as u64;
                Ok(Some(filter_record_batch(&batch, &good)?))
            }
            None => Ok(Some(batch)),
        }
    }

    /// The rows of the last batch, counted from 1.
    pub(super) fn numbers(&self) -> Option<UInt64Array> {
        self.skips_bad_rows.then(|| UInt64Array::from(self.numbers.clone()))
    }

    /// Text as values; what does not parse becomes null.
    fn parse(&self, text: &StringArray, data_type: &DataType) -> Result<ArrayRef> {
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let (Some(format), DataType::Timestamp(unit, zone)) = (&self.timestamp_format, data_type) else {
            return Ok(cast_with_options(text, data_type, &options)?);
        };
        format.timestamps(text, *unit, zone.as_ref())
    }

    /// Names the first bad row, if such rows are not to be left out.
    fn accept_bad_rows(&self, fine: &BooleanArray, text: &StringArray, field: &Field) -> Result<()> {
        let first = fine.iter().position(|fine| fine == Some(false));
        match first {
            Some(row) if !self.skips_bad_rows => {
                let message =
                    format!("'{}' is no {} for column '{}'", text.value(row), field.data_type(), field.name());
                Err(Error::data(message)
                    .in_file(&self.name)
                    .in_row(self.numbers.get(row).copied().unwrap_or_default())
                    .help(SKIP)
                    .into())
            }
            _ => Ok(()),
        }
    }

    /// Text columns of the next rows that have the right number of fields.
    fn read_text(&mut self, skipped_rows: &mut u64) -> Result<Option<Vec<StringArray>>> {
        let width = self.file_schema.fields().len();
        let mut builders: Vec<StringBuilder> = (0..width).map(|_| StringBuilder::new()).collect();
        let (mut record, mut read_any) = (ByteRecord::new(), false);
        self.numbers.clear();
        while self.numbers.len() < self.batch_rows
            && self.rows.read_byte_record(&mut record).map_err(|e| Error::data(e.to_string()))?
        {
            read_any = true;
            self.read += 1;
            let fields = match text_fields(&record, width) {
                Ok(fields) => fields,
                Err(_) if self.skips_bad_rows => {
                    *skipped_rows += 1;
                    continue;
                }
                Err(message) => {
                    return Err(Error::data(message).in_file(&self.name).in_row(self.read).help(SKIP).into());
                }
            };
            for (field, builder) in fields.into_iter().zip(&mut builders) {
                builder.append_option((field != self.null_value).then_some(field));
            }
            self.numbers.push(self.read);
        }
        Ok(read_any.then(|| builders.iter_mut().map(StringBuilder::finish).collect()))
    }
}

/// The fields of a row, or what is wrong with it.
fn text_fields(record: &ByteRecord, width: usize) -> std::result::Result<Vec<&str>, String> {
    if record.len() != width {
        return Err(format!("{} fields, and the stream has {width} columns", record.len()));
    }
    let text = |(index, field)| std::str::from_utf8(field).map_err(|_| format!("field {} is no UTF-8 text", index + 1));
    record.iter().enumerate().map(text).collect()
}
