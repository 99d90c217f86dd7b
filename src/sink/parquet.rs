//! Batches to Parquet, each column encoded as its values ask for.
//!
//! A dictionary pays while values repeat. Where the first rows hardly do, whole numbers and times are written as packed
//! differences instead, and other numbers plainly: numbers that grow, like most event times and ids, take a byte or two,
//! and there is little left to compress. What the session or COPY says of encodings goes first.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::file_options::parquet_writer::ParquetWriterOptions;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::{DataFusionError, HashSet, Result};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_writer::ArrowWriterOptions;
use datafusion::parquet::basic::Encoding;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::parquet::schema::types::ColumnPath;

use super::encoder::{Bytes, Encoder};

/// Rows that are looked at.
const SAMPLE_ROWS: usize = 8192;
/// Fewer of them say nothing.
const SAMPLE_ROWS_MIN: usize = 1024;

/// An encoder that looks at the first rows before it writes them.
pub(super) struct ParquetEncoder {
    bytes: Bytes,
    schema: SchemaRef,
    options: TableParquetOptions,
    /// The first rows, until they are enough.
    sample: Vec<RecordBatch>,
    writer: Option<ArrowWriter<Bytes>>,
}

impl ParquetEncoder {
    /// # Errors
    /// Columns that Parquet cannot hold, and options that it does not have.
    pub(super) fn try_new(schema: &SchemaRef, options: &TableParquetOptions, bytes: Bytes) -> Result<Self> {
        let mut options = options.clone();
        options.arrow_schema(schema);
        // What cannot be written is told before a row has been read.
        arrow_writer(Bytes::default(), schema, properties(&options)?)?;
        Ok(Self { bytes, schema: Arc::clone(schema), options, sample: vec![], writer: None })
    }

    /// A writer that suits the first rows, with these written.
    fn begin(&mut self) -> Result<ArrowWriter<Bytes>> {
        let properties = with_encodings(properties(&self.options)?, &self.options, &self.sample)?;
        let mut writer = arrow_writer(self.bytes.clone(), &self.schema, properties)?;
        self.sample.drain(..).try_for_each(|batch| writer.write(&batch).map_err(told))?;
        Ok(writer)
    }
}

impl Encoder for ParquetEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if let Some(writer) = &mut self.writer {
            return writer.write(batch).map_err(told);
        }
        self.sample.push(batch.clone());
        if self.sample.iter().map(RecordBatch::num_rows).sum::<usize>() >= SAMPLE_ROWS {
            self.writer = Some(self.begin()?);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin()?,
        };
        writer.finish().map_err(told)?;
        Ok(())
    }

    fn buffered(&self) -> usize {
        // The sample is small, and how large it will be encoded is not known yet.
        self.writer.as_ref().map_or(0, ArrowWriter::in_progress_size)
    }
}

fn told(error: datafusion::parquet::errors::ParquetError) -> DataFusionError {
    DataFusionError::ParquetError(Box::new(error))
}

fn properties(options: &TableParquetOptions) -> Result<WriterProperties> {
    Ok(ParquetWriterOptions::try_from(options)?.writer_options().clone())
}

fn arrow_writer(bytes: Bytes, schema: &SchemaRef, properties: WriterProperties) -> Result<ArrowWriter<Bytes>> {
    let options = ArrowWriterOptions::new().with_properties(properties);
    ArrowWriter::try_new_with_options(bytes, Arc::clone(schema), options).map_err(told)
}

/// The properties with encodings for the columns of which nothing is said.
fn with_encodings(
    properties: WriterProperties,
    options: &TableParquetOptions,
    sample: &[RecordBatch],
) -> Result<WriterProperties> {
    let Some(first) = sample.first().filter(|_| options.global.encoding.is_none()) else { return Ok(properties) };
    let mut builder = properties.into_builder();
    for (index, field) in first.schema().fields().iter().enumerate() {
        let is_said = |column: &str| column == field.name() || column.starts_with(&format!("{}.", field.name()));
        if options.column_specific_options.keys().any(|column| is_said(column)) {
            continue;
        }
        let Some(encoding) = without_dictionary(field.data_type()) else { continue };
        if is_mostly_distinct(sample, index)? {
            let path = ColumnPath::new(vec![field.name().clone()]);
            builder = builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, encoding);
        }
    }
    Ok(builder.build())
}

/// How numbers and times that do not repeat are best written.
fn without_dictionary(data_type: &DataType) -> Option<Encoding> {
    match data_type {
        DataType::Float32 | DataType::Float64 => Some(Encoding::PLAIN),
        DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => {
            Some(Encoding::DELTA_BINARY_PACKED)
        }
        data_type if data_type.is_integer() => Some(Encoding::DELTA_BINARY_PACKED),
        _ => None,
    }
}

/// Whether most of a column's first values are there once.
fn is_mostly_distinct(sample: &[RecordBatch], column: usize) -> Result<bool> {
    let mut columns: Vec<ArrayRef> = vec![];
    let mut rows = 0;
    for batch in sample {
        let taken = batch.num_rows().min(SAMPLE_ROWS - rows);
        columns.push(batch.column(column).slice(0, taken));
        rows += taken;
    }
    let values = concat(&columns.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
    let known = values.len() - values.null_count();
    let mut hashes = vec![0; values.len()];
    create_hashes([&values], &RandomState::with_seed(0), &mut hashes)?;
    let distinct: HashSet<u64> = hashes.into_iter().collect();
    Ok(known >= SAMPLE_ROWS_MIN && 2 * distinct.len() > known)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use arrow::array::{Float64Array, Int64Array, StringArray};
    use datafusion::common::config::{ConfigField, TableOptions};
    use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn batch(rows: std::ops::Range<i64>) -> RecordBatch {
        let column = |of: &dyn Fn(i64) -> i64| Arc::new(Int64Array::from_iter_values(rows.clone().map(of))) as ArrayRef;
        let text = StringArray::from_iter_values(rows.clone().map(|row| row.to_string()));
        let float = Float64Array::from_iter_values(rows.clone().map(|row| row as f64 / 3.0));
        let columns = [("id", column(&|row| 7 * row)), ("few", column(&|row| row % 5))];
        let others: [(&str, ArrayRef); 2] = [("float", Arc::new(float)), ("text", Arc::new(text))];
        RecordBatch::try_from_iter(columns.into_iter().chain(others)).unwrap()
    }

    /// Writes batches, reads them back, and says whether each column has a dictionary, and the encoding of its values if
    /// it has not.
    fn written(batches: &[RecordBatch], options: &[(&str, &str)]) -> Vec<Option<Encoding>> {
        let mut parquet = TableOptions::new().parquet;
        options.iter().for_each(|(key, value)| parquet.set(key, value).unwrap());
        let bytes = Bytes::default();
        let mut encoder = ParquetEncoder::try_new(&batch(0..0).schema(), &parquet, bytes.clone()).unwrap();
        batches.iter().for_each(|batch| encoder.write(batch).unwrap());
        encoder.finish().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes.take()).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let encodings =
            |chunk: &datafusion::parquet::file::metadata::ColumnChunkMetaData| match chunk.dictionary_page_offset() {
                Some(_) => None,
                None => chunk.encodings().find(|encoding| *encoding != Encoding::RLE),
            };
        let encodings = reader.metadata().row_groups()[0].columns().iter().map(encodings).collect();
        let read: Vec<RecordBatch> = reader.with_batch_size(1 << 20).build().unwrap().map(Result::unwrap).collect();
        let schema = batch(0..0).schema();
        let all =
            |batches: &[RecordBatch]| arrow::compute::concat_batches(&schema, batches).unwrap().columns().to_vec();
        assert_eq!(all(&read), all(batches));
        encodings
    }

    #[test]
    fn numbers_that_do_not_repeat_have_no_dictionary() {
        let packed = Some(Encoding::DELTA_BINARY_PACKED);
        let expected = vec![packed, None, Some(Encoding::PLAIN), None];
        assert_eq!(written(&[batch(0..20_000)], &[]), expected);
        assert_eq!(written(&[batch(0..1), batch(1..4000), batch(4000..8000), batch(8000..9000)], &[]), expected);
        // Too few to tell.
        assert_eq!(written(&[batch(0..10)], &[]), vec![None; 4]);
    }

    #[test]
    fn what_is_said_of_encodings_stays() {
        let said = written(&[batch(0..20_000)], &[("dictionary_enabled::id", "true")]);
        assert_eq!(said, vec![None, None, Some(Encoding::PLAIN), None]);
        let all = written(&[batch(0..20_000)], &[("dictionary_enabled", "false"), ("encoding", "plain")]);
        assert_eq!(all, vec![Some(Encoding::PLAIN); 4]);
    }
}
