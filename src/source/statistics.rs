//! What the footers of Parquet files tell of rows before any is read, for estimates: how many there are, over which span
//! of event time, and how many values a column has.
//!
//! ```text
//!   footers ─ CREATE STREAM ─▶ ColumnStatistics of the whole stream ─ scan ─▶ ReadStatistics of one pipeline
//! ```
//!
//! Footers rarely say how many values are distinct. Of whole numbers there are no more than lie between the lowest and the
//! highest, and of what is written as codes no more than the dictionary holds, whose size follows from where pages begin.
//! Nothing but estimates hangs on any of it.

use std::collections::HashSet;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use datafusion::parquet::basic::{Encoding, Type};
use datafusion::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};

use super::footer::Stretch;
use super::pieces::{Chunk, Piece, ReadOrder};
use super::replay::ReplayPlan;

/// What is known of a column's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnStatistics {
    /// The lowest and the highest.
    range: Option<(ScalarValue, ScalarValue)>,
    /// How many distinct ones there are, about.
    distinct: Option<u64>,
    /// Bytes of all of them, of text.
    text_bytes: Option<u64>,
    values: u64,
}

impl ColumnStatistics {
    /// What is known of the values of one or the other. What lies apart adds up; of what does not, the fewer values are taken
    /// to be among the more.
    fn and(self, other: Self) -> Self {
        let ranges = self.range.zip(other.range);
        let are_apart =
            ranges.as_ref().is_some_and(|((low, high), (other_low, other_high))| high < other_low || other_high < low);
        let distinct = self.distinct.zip(other.distinct);
        let distinct = distinct.map(|(one, other)| if are_apart { one + other } else { one.max(other) });
        let range = ranges.map(|((low, high), (other_low, other_high))| {
            (if other_low < low { other_low } else { low }, if other_high > high { other_high } else { high })
        });
        Self {
            range,
            distinct,
            text_bytes: self.text_bytes.zip(other.text_bytes).map(|(one, other)| one + other),
            values: self.values + other.values,
        }
    }

    fn text_width(&self) -> Option<f64> {
        Some(self.text_bytes? as f64 / self.values.max(1) as f64)
    }
}

/// What is known of the columns of several files, by their places in the files' common schema.
#[derive(Debug, Clone, Default)]
pub(super) struct FileStatistics(Vec<Option<ColumnStatistics>>);

impl FileStatistics {
    /// Takes one more file in.
    pub(super) fn add(&mut self, metadata: &ParquetMetaData, schema: &SchemaRef) {
        let of_file = of_file(metadata, schema);
        if self.0.is_empty() {
            self.0 = of_file;
            return;
        }
        for (known, of_file) in self.0.iter_mut().zip(of_file) {
            *known = known.take().zip(of_file).map(|(known, of_file)| known.and(of_file));
        }
    }
}

fn of_file(metadata: &ParquetMetaData, schema: &SchemaRef) -> Vec<Option<ColumnStatistics>> {
    let parquet = metadata.file_metadata();
    match parquet_to_arrow_schema(parquet.schema_descr(), parquet.key_value_metadata()) {
        Ok(in_file) => schema.fields().iter().map(|field| of_column(metadata, &in_file, field.name())).collect(),
        Err(_) => vec![None; schema.fields().len()],
    }
}

/// A column in all row groups that have rows.
fn of_column(metadata: &ParquetMetaData, in_file: &Schema, name: &str) -> Option<ColumnStatistics> {
    let converter = StatisticsConverter::try_new(name, in_file, metadata.file_metadata().schema_descr()).ok()?;
    let column = converter.parquet_column_index()?;
    let groups = metadata.row_groups();
    let (lowest, highest) = (converter.row_group_mins(groups).ok()?, converter.row_group_maxes(groups).ok()?);
    let of_group = |(index, group): (usize, &RowGroupMetaData)| {
        let bound = |bounds| ScalarValue::try_from_array(bounds, index).ok().filter(|bound| !bound.is_null());
        of_chunk(group.column(column), bound(&lowest).zip(bound(&highest)))
    };
    let with_rows = groups.iter().enumerate().filter(|(_, group)| group.num_rows() > 0);
    with_rows.map(of_group).reduce(ColumnStatistics::and)
}

fn of_chunk(chunk: &ColumnChunkMetaData, range: Option<(ScalarValue, ScalarValue)>) -> ColumnStatistics {
    let values = u64::try_from(chunk.num_values()).unwrap_or(0);
    let text_bytes = chunk.unencoded_byte_array_data_bytes().and_then(|bytes| bytes.try_into().ok());
    let told = chunk.statistics().and_then(|statistics| statistics.distinct_count_opt());
    let between = range.as_ref().and_then(|(low, high)| values_between(low, high));
    let coded = values_of_dictionary(chunk, text_bytes.map(|bytes: u64| bytes as f64 / values.max(1) as f64));
    let distinct = [told, between, coded].into_iter().flatten().min().map(|distinct| distinct.min(values));
    ColumnStatistics { range, distinct, text_bytes, values }
}

/// How many values there can be from one to the other; none if they are no whole numbers.
fn values_between(low: &ScalarValue, high: &ScalarValue) -> Option<u64> {
    if low == high {
        return Some(1);
    }
    let number = |value: &ScalarValue| match value.data_type() {
        DataType::Boolean | DataType::Date32 => value.cast_to(&DataType::Int64).ok(),
        data_type if data_type.is_integer() => value.cast_to(&DataType::Int64).ok(),
        _ => None,
    };
    match (number(low)?, number(high)?) {
        (ScalarValue::Int64(Some(low)), ScalarValue::Int64(Some(high))) => Some(high.abs_diff(low).saturating_add(1)),
        _ => None,
    }
}

/// How many values the dictionary of a column chunk holds, if every value is a code into it.
fn values_of_dictionary(chunk: &ColumnChunkMetaData, text_width: Option<f64>) -> Option<u64> {
    let encodings = chunk.page_encoding_stats_mask()?;
    if !encodings.is_only(Encoding::RLE_DICTIONARY) && !encodings.is_only(Encoding::PLAIN_DICTIONARY) {
        return None;
    }
    let width = match chunk.column_type() {
        Type::INT32 | Type::FLOAT => 4.0,
        Type::INT64 | Type::DOUBLE => 8.0,
        Type::INT96 => 12.0,
        // Each has its length before it.
        Type::BYTE_ARRAY => 4.0 + text_width?,
        Type::BOOLEAN | Type::FIXED_LEN_BYTE_ARRAY => return None,
    };
    let bytes = chunk.data_page_offset().checked_sub(chunk.dictionary_page_offset()?)?;
    // The dictionary is taken to be compressed as the rest is.
    let compression = chunk.uncompressed_size() as f64 / (chunk.compressed_size() as f64).max(1.0);
    (bytes > 0).then(|| (bytes as f64 * compression / width).ceil() as u64)
}

/// What the files tell of the rows that one pipeline reads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReadStatistics {
    pub(crate) rows: f64,
    /// None without an event time, and where nothing tells of it.
    pub(crate) times: Option<TimesRead>,
    /// By the columns that are read.
    pub(crate) columns: Vec<ValuesRead>,
}

/// The event times of these rows, in ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TimesRead {
    /// From the lowest to the highest.
    pub(crate) span: f64,
    /// How far the watermark is behind the highest so far, at most.
    pub(crate) behind: f64,
}

/// The values of one of the columns.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ValuesRead {
    /// How many distinct ones there are, about; none if nothing tells.
    pub(crate) distinct: Option<f64>,
    /// Bytes of one on average, of text.
    pub(crate) text_width: Option<f64>,
}

impl ReplayPlan {
    /// What the files tell of the rows of one pipeline, the one that has most; none where they tell nothing, as text does.
    pub(crate) fn statistics(&self) -> Option<ReadStatistics> {
        let rows_of = |piece: &Piece| piece.chunks.iter().map(|chunk| self.rows_of(chunk)).sum::<Option<u64>>();
        let sizes = self.pieces().iter().map(|piece| Some((rows_of(piece)?, piece)));
        let (rows, piece) = sizes.collect::<Option<Vec<_>>>()?.into_iter().max_by_key(|(rows, _)| *rows)?;
        let share = self.share().map_or(1.0, |share| share.pipelines as f64);
        let names = self.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let columns = names.iter().map(|name| self.values_of(name, piece, share));
        Some(ReadStatistics { rows: rows as f64 / share, times: self.times_of(piece), columns: columns.collect() })
    }

    fn rows_of(&self, chunk: &Chunk) -> Option<u64> {
        let footer = self.file(chunk).ok()?.footer.as_ref()?;
        let groups = chunk.part.row_groups().unwrap_or(0..footer.rows.len());
        footer.rows.get(groups).map(|rows| rows.iter().sum())
    }

    /// A column of a piece whose rows so many pipelines share.
    fn values_of(&self, name: &str, piece: &Piece, share: f64) -> ValuesRead {
        let inner = &self.table.inner;
        let Ok(index) = inner.schema.index_of(name) else { return ValuesRead::default() };
        if let Some(hive) = index.checked_sub(inner.file_schema.fields().len()) {
            let files = piece.chunks.iter().filter_map(|chunk| self.file(chunk).ok()?.hive.get(hive));
            return ValuesRead { distinct: Some(files.collect::<HashSet<_>>().len() as f64), text_width: None };
        }
        let Some(Some(known)) = inner.statistics.0.get(index) else { return ValuesRead::default() };
        let is_among = |names: &[String]| names.iter().any(|known| known == name);
        let is_apart = is_among(&inner.columns_apart) || inner.partitioned_by.as_deref().is_some_and(is_among);
        let partitions = piece.chunks.iter().map(|chunk| chunk.partition).collect::<HashSet<_>>().len();
        let of_all = if is_apart { partitions as f64 / inner.partitions.len().max(1) as f64 } else { 1.0 };
        let is_hashed = self.share().is_some_and(|share| share.keys.iter().any(|key| self.columns[*key] == index));
        let of_all = if is_hashed { of_all / share } else { of_all };
        ValuesRead {
            distinct: known.distinct.map(|distinct| (distinct as f64 * of_all).max(1.0)),
            text_width: known.text_width(),
        }
    }

    fn times_of(&self, piece: &Piece) -> Option<TimesRead> {
        let time = self.event_time()?;
        let mut span: Option<(i64, i64)> = None;
        let mut partitions: Vec<(usize, Vec<Stretch>)> = vec![];
        for chunk in &piece.chunks {
            let footer = self.file(chunk).ok()?.footer.as_ref()?;
            let groups = chunk.part.row_groups().unwrap_or(0..footer.rows.len());
            for times in footer.times(time.index)?.get(groups)? {
                let times = times.as_ref()?;
                let join = |known: (i64, i64), (low, high): (i64, i64)| (known.0.min(low), known.1.max(high));
                span = span.into_iter().chain(times.range).reduce(join);
                match partitions.last_mut() {
                    Some((partition, stretches)) if *partition == chunk.partition => {
                        stretches.extend(times.stretches.iter())
                    }
                    _ => partitions.push((chunk.partition, times.stretches.to_vec())),
                }
            }
        }
        let (low, high) = span?;
        let span = high.abs_diff(low) as f64 + 1.0;
        let behind = match time.bound {
            // Nothing is known of a partition before its turn.
            _ if partitions.len() > 1 && self.order() == ReadOrder::Sequence => span,
            Some(bound) => bound as f64,
            None => partitions.iter().map(|(_, stretches)| behind(stretches, span)).fold(0.0, f64::max),
        };
        Some(TimesRead { span, behind: behind.min(span) })
    }
}

/// How far the lowest event time to come is behind what has been read, at most: what follows may begin earlier than what is
/// before it, and within a stretch nothing is known.
fn behind(stretches: &[Stretch], span: f64) -> f64 {
    let within = span / stretches.len().max(1) as f64;
    let (mut to_come, mut furthest) = (i64::MAX, 0);
    for stretch in stretches.iter().rev() {
        if let Some(lowest) = stretch.lowest {
            furthest = furthest.max(lowest.saturating_sub(to_come));
            to_come = to_come.min(lowest);
        }
    }
    furthest as f64 + within
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
    use bytes::Bytes;
    use datafusion::parquet::arrow::ArrowWriter;
    use datafusion::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
    use datafusion::parquet::file::properties::WriterProperties;

    use super::*;

    /// What the footer of a file says of a column whose row groups have so many rows.
    fn column(values: ArrayRef, rows: usize) -> ColumnStatistics {
        let batch = RecordBatch::try_from_iter_with_nullable([("x", values, true)]).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(rows)).build();
        let mut bytes = vec![];
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let metadata = ArrowReaderMetadata::load(&Bytes::from(bytes), ArrowReaderOptions::new()).unwrap();
        let mut statistics = FileStatistics::default();
        statistics.add(metadata.metadata(), &batch.schema());
        statistics.0.pop().unwrap().unwrap()
    }

    #[test]
    fn values_are_counted_by_what_the_footer_says() {
        let ints = |values: Vec<i32>, rows| column(Arc::new(Int32Array::from(values)), rows).distinct;
        assert_eq!(ints(vec![7; 100], 100), Some(1));
        assert_eq!(ints((0..100).map(|value| value % 10).collect(), 100), Some(10));
        // Row groups that lie apart have values of their own, and those that do not the same.
        assert_eq!(ints((0..100).collect(), 50), Some(100));
        assert_eq!(ints((0..100).map(|value| value % 50).collect(), 50), Some(50));
        // Far between, few values are known by the dictionary.
        let few = ints((0..1000).map(|value| value % 8 * 1_000_000).collect(), 1000).unwrap();
        assert!((8..=20).contains(&few), "{few}");
    }

    #[test]
    fn texts_are_counted_by_the_dictionary() {
        let texts = (0..10_000).map(|row| format!("a name of some length, {}", row % 500));
        let texts = column(Arc::new(StringArray::from_iter_values(texts)), 10_000);
        let distinct = texts.distinct.unwrap();
        assert!((250..=1000).contains(&distinct), "{distinct}");
        assert_eq!(texts.text_width().map(f64::round), Some(26.0));
    }

    #[test]
    fn what_follows_may_begin_earlier_than_what_is_before_it() {
        let stretches = |lowest: &[i64]| -> Vec<Stretch> {
            lowest.iter().map(|lowest| Stretch { rows: 1, lowest: Some(*lowest) }).collect()
        };
        assert_eq!(behind(&stretches(&[0, 10, 20, 30]), 40.0), 10.0);
        assert_eq!(behind(&stretches(&[0, 10, 4, 30]), 40.0), 16.0);
        assert_eq!(behind(&stretches(&[0]), 40.0), 40.0);
    }
}
