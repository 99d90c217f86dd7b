//! What a changelog amounts to: the latest row of each key, without those that were withdrawn.

use std::collections::HashMap;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::OwnedRow;
use datafusion::common::Result;
use datafusion::common::cast::as_string_array;

use crate::error::Error;

use super::compare::{converted, converter, text_rows};

/// Folds the rows of a changelog, in which those of a key come in order, by the columns `keys`. The column `op`, if
/// there is one, says what a row does (`+I`, `+U`, `-U`, `-D`) and is no column of the result.
///
/// # Errors
/// A change that does not fit those before it: a first row of a key that is there, a row withdrawn that is not.
pub fn fold(batches: &[RecordBatch], schema: &SchemaRef, keys: &[usize], op: Option<usize>) -> Result<RecordBatch> {
    let changes = concat_batches(schema, batches)?;
    let converter = converter(schema, keys)?;
    let keys = converted(&converter, &changes, keys)?;
    let columns: Vec<usize> = (0..schema.fields().len()).filter(|column| Some(*column) != op).collect();
    let changes_only = changes.project(&columns)?;
    let ops = op.map(|op| cast(changes.column(op), &DataType::Utf8)).transpose()?;
    let mut folded = Folded { changes: &changes_only, latest: HashMap::new() };
    for row in 0..changes.num_rows() {
        folded.take(keys.row(row).owned(), row, op_of(ops.as_ref(), row)?)?;
    }
    let mut rows: Vec<u64> = folded.latest.into_values().map(|row| row as u64).collect();
    rows.sort_unstable();
    Ok(take_record_batch(&changes_only, &UInt64Array::from(rows))?)
}

fn op_of(ops: Option<&ArrayRef>, row: usize) -> Result<Option<&str>> {
    ops.map(|ops| Ok(as_string_array(ops)?.value(row))).transpose()
}

struct Folded<'a> {
    changes: &'a RecordBatch,
    latest: HashMap<OwnedRow, usize>,
}

impl Folded<'_> {
    fn take(&mut self, key: OwnedRow, row: usize, op: Option<&str>) -> Result<()> {
        let before = self.latest.get(&key).copied();
        let fits = match op {
            None => true,
            Some("+I") => before.is_none(),
            // An update may stand for itself, or follow the withdrawal of the row before it.
            Some("+U") => true,
            Some("-U" | "-D") => match before {
                Some(before) => text_rows(&self.changes.slice(before, 1))? == text_rows(&self.changes.slice(row, 1))?,
                None => false,
            },
            Some(_) => false,
        };
        if !fits {
            let cells = text_rows(&self.changes.slice(row, 1))?.concat().join(" | ");
            let message = format!("a change {} that fits no row before it: {cells}", op.unwrap_or_default());
            return Err(Error::data(message).into());
        }
        match op {
            Some("-U" | "-D") => self.latest.remove(&key),
            _ => self.latest.insert(key, row),
        };
        Ok(())
    }
}
