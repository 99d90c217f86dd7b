//! Which columns have each of their values in one partition only, as far as the statistics of Parquet files tell.

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use datafusion::parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

/// Between which values those of a column lie in some rows.
#[derive(Debug, Clone)]
struct Span {
    /// None if all are null.
    bounds: Option<(ScalarValue, ScalarValue)>,
    has_nulls: bool,
}

impl Span {
    /// What one or the other has; none if that is not known.
    fn and(self, other: Self) -> Option<Self> {
        let bounds = match (self.bounds, other.bounds) {
            (Some((low, high)), Some((other_low, other_high))) => {
                let low = if other_low.partial_cmp(&low)?.is_lt() { other_low } else { low };
                let high = if other_high.partial_cmp(&high)?.is_gt() { other_high } else { high };
                Some((low, high))
            }
            (bounds, other_bounds) => bounds.or(other_bounds),
        };
        Some(Self { bounds, has_nulls: self.has_nulls || other.has_nulls })
    }

    /// Whether no value can be of both.
    fn is_apart(&self, other: &Self) -> bool {
        let (Some((low, high)), Some((other_low, other_high))) = (&self.bounds, &other.bounds) else { return true };
        high < other_low || other_high < low
    }
}

/// A column, and its spans in the partitions so far, in their order.
struct Candidate {
    column: usize,
    spans: Vec<Span>,
    has_nulls: bool,
}

impl Candidate {
    /// Takes one more partition in, if it has no value of another one.
    fn add(&mut self, span: Option<Span>) -> bool {
        let Some(span) = span.filter(|span| !(self.has_nulls && span.has_nulls)) else { return false };
        self.has_nulls |= span.has_nulls;
        let Some((low, _)) = &span.bounds else { return true };
        let is_lower = |known: &Span| known.bounds.as_ref().is_some_and(|(known, _)| known < low);
        let at = self.spans.partition_point(is_lower);
        let is_apart = self.spans[at.saturating_sub(1)..].iter().take(2).all(|known| known.is_apart(&span));
        self.spans.insert(at, span);
        is_apart
    }
}

/// The columns that no two of the partitions seen so far have a value of.
pub(super) struct Apart {
    schema: SchemaRef,
    candidates: Vec<Candidate>,
}

impl Apart {
    /// `schema` is that of the files. Equal floats may differ in their bits, and nested values have no bounds.
    pub(super) fn new(schema: SchemaRef) -> Self {
        let fields = schema.fields().iter().enumerate();
        let compares = fields.filter(|(_, field)| !field.data_type().is_floating() && !field.data_type().is_nested());
        let candidates = compares.map(|(column, _)| Candidate { column, spans: vec![], has_nulls: false });
        Self { candidates: candidates.collect(), schema }
    }

    /// Takes the files of one more partition in.
    ///
    /// # Errors
    /// Metadata that do not say what the columns of the file are.
    pub(super) fn add(&mut self, files: &[impl AsRef<ParquetMetaData>]) -> Result<()> {
        let files = files.iter().map(AsRef::as_ref);
        let files = files.map(|file| {
            let parquet = file.file_metadata();
            Ok((file, parquet_to_arrow_schema(parquet.schema_descr(), parquet.key_value_metadata())?))
        });
        let files: Vec<(&ParquetMetaData, _)> = files.collect::<Result<_>>()?;
        let schema = &self.schema;
        self.candidates.retain_mut(|candidate| {
            let declared = schema.field(candidate.column);
            let mut whole = Some(Span { bounds: None, has_nulls: false });
            for (metadata, in_file) in &files {
                let in_file_type = in_file.field_with_name(declared.name()).map(Field::data_type);
                let is_same = in_file_type.is_ok_and(|in_file| is_same_type(in_file, declared.data_type()));
                let of_file = if is_same { span(metadata, in_file, declared.name()) } else { None };
                whole = whole.zip(of_file).and_then(|(whole, of_file)| whole.and(of_file));
            }
            candidate.add(whole)
        });
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    pub(super) fn names(self) -> Vec<String> {
        self.candidates.iter().map(|candidate| self.schema.field(candidate.column).name().clone()).collect()
    }
}

/// Whether values that are equal in one type are in the other.
fn is_same_type(one: &DataType, other: &DataType) -> bool {
    let is_binary =
        |data_type: &DataType| matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
    match (one, other) {
        (DataType::Dictionary(_, values), other) | (other, DataType::Dictionary(_, values)) => {
            is_same_type(values, other)
        }
        (one, other) => one == other || one.is_string() && other.is_string() || is_binary(one) && is_binary(other),
    }
}

/// What the row groups of a file say of a column; none if one of them does not, or in an order that is not the values'.
fn span(metadata: &ParquetMetaData, in_file: &Schema, name: &str) -> Option<Span> {
    let groups = metadata.row_groups();
    let converter = StatisticsConverter::try_new(name, in_file, metadata.file_metadata().schema_descr()).ok()?;
    let converter = converter.with_missing_null_counts_as_zero(false);
    let column = converter.parquet_column_index()?;
    let is_ordered = |group: &RowGroupMetaData| {
        let statistics = group.column(column).statistics();
        statistics.is_some_and(|statistics| !statistics.is_min_max_deprecated() || statistics.min_bytes_opt().is_none())
    };
    if !groups.iter().all(is_ordered) {
        return None;
    }
    let lows = converter.row_group_mins(groups).ok()?;
    let highs = converter.row_group_maxes(groups).ok()?;
    let nulls = converter.row_group_null_counts(groups).ok()?;
    let mut whole = Span { bounds: None, has_nulls: false };
    for (index, group) in groups.iter().enumerate() {
        // Who does not count nulls may have some.
        let nulls = nulls.is_valid(index).then(|| nulls.value(index));
        let bounds = match (lows.is_valid(index), highs.is_valid(index)) {
            (true, true) => Some((
                ScalarValue::try_from_array(&lows, index).ok()?,
                ScalarValue::try_from_array(&highs, index).ok()?,
            )),
            _ if u64::try_from(group.num_rows()).ok() == nulls => None,
            _ => return None,
        };
        whole = whole.and(Span { bounds, has_nulls: nulls != Some(0) })?;
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray};
    use datafusion::parquet::arrow::ArrowWriter;
    use datafusion::parquet::file::properties::WriterProperties;
    use datafusion::parquet::file::statistics::Statistics;

    use super::*;

    /// A file of one column with two rows in each row group.
    fn file(values: ArrayRef) -> (Arc<ParquetMetaData>, SchemaRef) {
        let batch = RecordBatch::try_from_iter_with_nullable([("x", values, true)]).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(2)).build();
        let mut writer = ArrowWriter::try_new(vec![], batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        (Arc::new(writer.close().unwrap()), batch.schema())
    }

    fn is_apart(partitions: Vec<ArrayRef>) -> bool {
        let mut apart = None;
        for values in partitions {
            let (metadata, schema) = file(values);
            apart.get_or_insert_with(|| Apart::new(schema)).add(&[metadata]).unwrap();
        }
        !apart.unwrap().is_empty()
    }

    /// As some writers leave files.
    fn with_statistics(
        file: &ParquetMetaData,
        statistics: impl Fn(&Statistics) -> Option<Statistics>,
    ) -> ParquetMetaData {
        let mut file = file.clone().into_builder();
        let groups = file.take_row_groups().into_iter().map(|group| {
            let column = group.column(0).clone();
            let statistics = column.statistics().and_then(&statistics);
            let column = column.into_builder().clear_statistics();
            let column = match statistics {
                Some(statistics) => column.set_statistics(statistics),
                None => column,
            };
            group.into_builder().set_column_metadata(vec![column.build().unwrap()]).build().unwrap()
        });
        file.set_row_groups(groups.collect()).build()
    }

    #[test]
    fn what_statistics_do_not_say_may_be() {
        let no_count = |_: &Statistics| Some(Statistics::int32(Some(1), Some(2), None, None, false));
        let no_ends = |file: &Statistics| Some(Statistics::int32(None, None, None, file.null_count_opt(), false));
        let column = |values: Vec<Option<i32>>| file(Arc::new(Int32Array::from(values)));
        let ((first, schema), (second, _)) = (column(vec![Some(5)]), column(vec![None]));
        let is_apart = |second: ParquetMetaData| {
            let mut apart = Apart::new(Arc::clone(&schema));
            apart.add(&[Arc::clone(&first)]).unwrap();
            apart.add(&[Arc::new(second)]).unwrap();
            !apart.is_empty()
        };
        assert!(is_apart(with_statistics(&second, no_ends)));
        assert!(!is_apart(with_statistics(&second, |_| None)));
        let (third, _) = column(vec![Some(1), Some(2)]);
        assert!(is_apart((*third).clone()));
        assert!(is_apart(with_statistics(&third, no_count)), "one file without a count may have nulls, no other has");
        let with_null = column(vec![Some(5), None]).0;
        let mut apart = Apart::new(Arc::clone(&schema));
        apart.add(&[with_null]).unwrap();
        apart.add(&[Arc::new(with_statistics(&third, no_count))]).unwrap();
        assert!(apart.is_empty());
    }

    fn ints<const N: usize>(partitions: [Vec<Option<i32>>; N]) -> bool {
        is_apart(partitions.map(|values| Arc::new(Int32Array::from(values)) as ArrayRef).to_vec())
    }

    fn texts<const N: usize>(partitions: [Vec<&str>; N]) -> bool {
        is_apart(partitions.map(|values| Arc::new(StringArray::from(values)) as ArrayRef).to_vec())
    }

    #[test]
    fn columns_are_apart_when_no_two_partitions_can_share_a_value() {
        assert!(ints([vec![Some(5), Some(7), Some(6)], vec![Some(1), Some(4)], vec![Some(8)]]));
        assert!(!ints([vec![Some(5), Some(7)], vec![Some(9)], vec![Some(1), Some(4), Some(5)]]));
        assert!(!ints([vec![Some(5), Some(7)], vec![Some(1), Some(9)]]));
        assert!(!ints([vec![Some(1), Some(9)], vec![Some(5), Some(7)]]));
        // Null is a key as well.
        assert!(ints([vec![Some(1), None], vec![Some(2)], vec![]]));
        assert!(ints([vec![None, None, None], vec![Some(2)]]));
        assert!(!ints([vec![Some(1), None], vec![Some(2), None]]));
        assert!(!ints([vec![None], vec![Some(2)], vec![Some(3)], vec![None, Some(4)]]));
        // The statistics of long texts are cut short.
        let long = |end| format!("{}{end}", "x".repeat(200));
        assert!(texts([vec!["a", "b"], vec!["c", "é"]]));
        assert!(!texts([vec!["a", "c"], vec!["b"]]));
        assert!(!texts([vec![long("a").as_str()], vec![long("b").as_str()]]));
        let floats = |value| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
        assert!(!is_apart(vec![floats(1.0), floats(2.0)]));
    }
}
