//! Rows as text, as one batch of one schema, and as bytes that are equal where the rows are.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int8Array, ListArray, RecordBatch, RecordBatchOptions, StringArray, new_empty_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, concat, concat_batches, sort};
use arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Result;

use crate::error::Error;

/// Rows as text: nulls as NULL, floats with the nine digits in which they agree.
///
/// # Errors
/// Values that have no text.
pub fn text_rows(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::new().with_null("NULL");
    let columns = batch.columns().iter().map(|column| text_column(column, &options)).collect::<Result<Vec<_>>>()?;
    Ok((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect())
}

fn text_column(column: &ArrayRef, options: &FormatOptions) -> Result<Vec<String>> {
    let formatter = ArrayFormatter::try_new(column.as_ref(), options)?;
    let floats = floats(column)?;
    let text = |row: usize| match floats.as_ref().and_then(|floats| floats[row]) {
        // Back from nine digits to the shortest form of the number: 2.5, not 2.50000000e0.
        Some(value) => format!("{value:.8e}").parse::<f64>().map_or(value.to_string(), |rounded| rounded.to_string()),
        None => formatter.value(row).to_string(),
    };
    Ok((0..column.len()).map(text).collect())
}

/// The values of a column of floats; none for other columns.
pub(super) fn floats(column: &ArrayRef) -> Result<Option<Vec<Option<f64>>>> {
    if !column.data_type().is_floating() {
        return Ok(None);
    }
    let column = cast(column, &DataType::Float64)?;
    Ok(Some(column.as_primitive::<Float64Type>().iter().collect()))
}

/// The same rows with the values of each list in order, as far as they have one.
pub(super) fn with_sorted_lists(batch: &RecordBatch) -> Result<RecordBatch> {
    let sorted = |column: &ArrayRef| -> Result<ArrayRef> {
        let Some(lists) = column.as_list_opt::<i32>() else { return Ok(Arc::clone(column)) };
        let values = (0..lists.len()).map(|row| sort(&lists.value(row), None)).collect::<Result<Vec<_>, _>>();
        let (Ok(values), DataType::List(field)) = (values, column.data_type()) else { return Ok(Arc::clone(column)) };
        let offsets = OffsetBuffer::from_lengths(values.iter().map(|values| values.len()));
        let values: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
        let all = if values.is_empty() { new_empty_array(field.data_type()) } else { concat(&values)? };
        Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, all, lists.nulls().cloned())?))
    };
    let columns = batch.columns().iter().map(sorted).collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

/// All rows in one batch of the columns of `schema`, each of which may be null.
///
/// # Errors
/// Rows of other columns.
pub(super) fn one_batch(batches: &[RecordBatch], schema: &SchemaRef) -> Result<RecordBatch> {
    let schema = nullable(schema);
    Ok(concat_batches(&schema, &with_schema(batches, &schema)?)?)
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The same batches under one schema; that a column may be null is no difference, but another type is.
fn with_schema(batches: &[RecordBatch], schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let retyped = |batch: &RecordBatch| -> Result<RecordBatch> {
        let own = batch.schema();
        let mut pairs = own.fields().iter().zip(schema.fields());
        if own.fields().len() != schema.fields().len()
            || !pairs.all(|(own, other)| is_same_type(own.data_type(), other.data_type()))
        {
            let types = |schema: &SchemaRef| {
                schema.fields().iter().map(|field| field.data_type().to_string()).collect::<Vec<_>>().join(", ")
            };
            return Err(Error::data(format!("columns of {} instead of {}", types(&own), types(schema))).into());
        }
        let pairs = batch.columns().iter().zip(schema.fields());
        let columns = pairs.map(|(column, field)| Ok(cast(column, field.data_type())?)).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    };
    batches.iter().map(retyped).collect()
}

/// Whether values of two types are the same where they read the same. DataFusion's rewrite of one DISTINCT beside other
/// aggregates widens a decimal.
fn is_same_type(left: &DataType, right: &DataType) -> bool {
    match (left, right) {
        (DataType::Decimal128(_, left), DataType::Decimal128(_, right)) => left == right,
        _ if left.is_string() && right.is_string() => true,
        _ => left.equals_datatype(right),
    }
}

/// Makes bytes of the values of some columns.
pub(super) fn converter(schema: &SchemaRef, columns: &[usize]) -> Result<RowConverter> {
    let field = |column: &usize| SortField::new(row_type(schema.field(*column).data_type()));
    // Without columns a converter makes no rows.
    let fields: Vec<_> = std::iter::once(SortField::new(DataType::Int8)).chain(columns.iter().map(field)).collect();
    Ok(RowConverter::new(fields)?)
}

/// Types that have no order are compared as text.
fn row_type(data_type: &DataType) -> DataType {
    match RowConverter::supports_fields(&[SortField::new(data_type.clone())]) {
        true => data_type.clone(),
        false => DataType::Utf8,
    }
}

/// The values of `columns` as bytes.
pub(super) fn converted(converter: &RowConverter, batch: &RecordBatch, columns: &[usize]) -> Result<Rows> {
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(Int8Array::from(vec![0; batch.num_rows()]))];
    for column in columns {
        let array = batch.column(*column);
        arrays.push(match row_type(array.data_type()) == *array.data_type() {
            true => Arc::clone(array),
            false => Arc::new(StringArray::from(text_column(array, &FormatOptions::new().with_null("NULL"))?)),
        });
    }
    Ok(converter.convert_columns(&arrays)?)
}
