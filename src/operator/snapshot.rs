//! The parts that all operators' snapshots share: their counters, as the first batch.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use datafusion::common::{Result, internal_datafusion_err};

use super::Counters;
use super::pool::array_without_slack;

const NAMES: [&str; 7] = [
    "used_rows",
    "late_rows",
    "late_partial_rows",
    "between_rows",
    "null_time_rows",
    "windows_closed",
    "forgotten_keys",
];

/// Counters as a batch of one row.
pub(super) fn counters_batch(counters: &Counters) -> Result<RecordBatch> {
    let fields = NAMES.map(|name| Field::new(name, DataType::UInt64, false));
    let Counters { used_rows, late_rows, late_partial_rows, between_rows, null_time_rows, .. } = *counters;
    let (windows_closed, forgotten_keys) = (counters.windows_closed, counters.forgotten_keys);
    let rows = [used_rows, late_rows, late_partial_rows, between_rows, null_time_rows];
    let values = rows.into_iter().chain([windows_closed, forgotten_keys]);
    let columns = values.map(|value| Arc::new(UInt64Array::from(vec![value])) as _);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns.collect())?)
}

/// The counters of a snapshot, and its other batches.
///
/// # Errors
/// A snapshot of another operator.
pub(super) fn split_counters(snapshot: &[RecordBatch]) -> Result<(Counters, &[RecordBatch])> {
    let wrong = || internal_datafusion_err!("a snapshot begins with its counters");
    let (first, rest) = snapshot.split_first().ok_or_else(wrong)?;
    if first.num_columns() != NAMES.len() || first.num_rows() != 1 {
        return Err(wrong());
    }
    let value = |index: usize| first.column(index).as_primitive_opt::<UInt64Type>().map(|column| column.value(0));
    let counters = Counters {
        used_rows: value(0).ok_or_else(wrong)?,
        late_rows: value(1).ok_or_else(wrong)?,
        late_partial_rows: value(2).ok_or_else(wrong)?,
        between_rows: value(3).ok_or_else(wrong)?,
        null_time_rows: value(4).ok_or_else(wrong)?,
        windows_closed: value(5).ok_or_else(wrong)?,
        forgotten_keys: value(6).ok_or_else(wrong)?,
        windows_open: 0,
    };
    Ok((counters, rest))
}

/// The same batch without the texts that its views no longer point at: a copied view still holds all of its buffers.
pub(crate) fn without_slack(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(array_without_slack).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}
