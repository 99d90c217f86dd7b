//! Where several pipelines read the same Parquet files, each for the rows of its own keys: what tells these apart is
//! decoded first, and the rest only where some of them are.
//!
//! ```text
//!   key, time   ░░░░ ▓▓▓▓ ░░░░ ▓▓▓▓      all batches of a row group
//!   the rest         ▓▓▓▓      ▓▓▓▓      those that have rows of the pipeline's own
//! ```
//!
//! Keys and times of a row group are held while it is read. A batch is decoded as a whole: the rows of a hash stand close
//! together, and to pass over some takes longer than to decode all of them.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, RecordBatch, StructArray, make_array, new_null_array,
};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowSelection, RowSelector};

/// The columns of a batch that are decoded, in the order of the file; none where one is not.
pub(super) type Decoded = Vec<Option<ArrayRef>>;

/// Puts the columns of a batch in their places among those that are decoded.
pub(super) fn put(decoded: &mut Decoded, places: &[usize], batch: &RecordBatch) {
    for (place, column) in places.iter().zip(batch.columns()) {
        decoded[*place] = Some(column.clone());
    }
}

/// A column in place of one that is not decoded, of its very type.
///
/// # Errors
/// None for a type of a Parquet file.
pub(super) fn unread(field: &Field, rows: usize) -> Result<ArrayRef> {
    let data_type = field.data_type();
    let nulls = new_null_array(data_type, rows);
    if field.is_nullable() {
        return Ok(nulls);
    }
    Ok(match data_type {
        DataType::Struct(fields) => {
            let children = fields.iter().map(|field| unread(field, rows)).collect::<Result<_>>()?;
            Arc::new(StructArray::try_new_with_length(fields.clone(), children, None, rows)?)
        }
        DataType::FixedSizeList(item, size) => {
            let items = unread(item, rows * usize::try_from(*size).unwrap_or_default())?;
            Arc::new(FixedSizeListArray::try_new_with_length(Arc::clone(item), *size, items, None, rows)?)
        }
        DataType::Dictionary(_, _) => ScalarValue::new_default(data_type)?.to_array_of_size(rows)?,
        _ => make_array(nulls.to_data().into_builder().nulls(None).build()?),
    })
}

/// A batch of which the first columns are decoded.
pub(super) struct Begun {
    pub(super) decoded: Decoded,
    pub(super) rows: usize,
    /// The rows of the pipeline's own.
    pub(super) own: BooleanArray,
}

impl Begun {
    fn has_own(&self) -> bool {
        self.own.true_count() > 0
    }
}

/// The batches of a row group.
pub(super) struct KeysFirst {
    begun: VecDeque<Begun>,
    /// Places of the other columns, and what decodes them; none if there is nothing to decode.
    rest: Option<(Vec<usize>, ParquetRecordBatchReader)>,
}

impl KeysFirst {
    /// Goes on with the other columns, in `places`; `open` begins to decode the rows of a selection, in batches as before.
    ///
    /// # Errors
    /// Pages that cannot be read.
    pub(super) fn new(
        begun: VecDeque<Begun>,
        places: Vec<usize>,
        open: impl FnOnce(RowSelection) -> Result<ParquetRecordBatchReader>,
    ) -> Result<Self> {
        let select = |batch: &Begun| match batch.has_own() {
            true => RowSelector::select(batch.rows),
            false => RowSelector::skip(batch.rows),
        };
        let is_needed = !places.is_empty() && begun.iter().any(Begun::has_own);
        let selection: Vec<RowSelector> = begun.iter().map(select).collect();
        let rest = is_needed.then(|| open(selection.into())).transpose()?.map(|rows| (places, rows));
        Ok(Self { begun, rest })
    }

    /// The next batch; none at the end.
    ///
    /// # Errors
    /// Pages that cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<Begun>> {
        let Some(mut next) = self.begun.pop_front() else { return Ok(None) };
        if let Some((places, rows)) = self.rest.as_mut().filter(|_| next.has_own()) {
            match rows.next().transpose()? {
                Some(batch) if batch.num_rows() == next.rows => put(&mut next.decoded, places, &batch),
                batch => {
                    let rows = batch.map_or(0, |batch| batch.num_rows());
                    return internal_err!("{rows} rows of some columns beside {} of others", next.rows);
                }
            }
        }
        Ok(Some(next))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Fields, TimeUnit};

    use super::*;

    #[test]
    fn a_column_of_any_type_can_stand_for_one_that_is_not_decoded() {
        let item = |data_type, nullable| Arc::new(Field::new("element", data_type, nullable));
        let text = || Box::new(DataType::Utf8);
        let entries = DataType::Struct(Fields::from(vec![
            Field::new("keys", DataType::Utf8, false),
            Field::new("values", DataType::Int32, true),
        ]));
        let types = [
            DataType::Int64,
            DataType::Utf8View,
            DataType::Boolean,
            DataType::Decimal256(40, 3),
            DataType::Timestamp(TimeUnit::Nanosecond, Some("+01:00".into())),
            DataType::FixedSizeBinary(3),
            DataType::List(item(DataType::Int64, false)),
            DataType::LargeList(item(DataType::List(item(DataType::Utf8, true)), false)),
            DataType::FixedSizeList(item(DataType::Int32, false), 3),
            DataType::Map(Arc::new(Field::new("entries", entries.clone(), false)), false),
            DataType::Struct(Fields::from(vec![
                Field::new("a", DataType::Int32, false),
                Field::new("b", DataType::List(item(entries, false)), true),
            ])),
            DataType::Dictionary(Box::new(DataType::Int32), text()),
            DataType::Null,
        ];
        for data_type in types {
            for nullable in [true, false] {
                let field = Field::new("x", data_type.clone(), nullable || data_type == DataType::Null);
                let schema = Arc::new(arrow::datatypes::Schema::new(vec![field.clone()]));
                let batch = RecordBatch::try_new(schema, vec![unread(&field, 5).unwrap()]).unwrap();
                let mut rows = BooleanArray::from(vec![false; 5]);
                assert_eq!(arrow::compute::filter_record_batch(&batch, &rows).unwrap().num_rows(), 0);
                rows = BooleanArray::from(vec![true, false, true, false, false]);
                assert_eq!(arrow::compute::filter_record_batch(&batch, &rows).unwrap().num_rows(), 2);
            }
        }
    }
}
