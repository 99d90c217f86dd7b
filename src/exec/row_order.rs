//! The order of the stream's rows in joins that go through the table row by row: rows are numbered before the join,
//! sorted by their number after it, and the number is taken off again.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch, UInt64Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef, UInt64Type};
use datafusion::common::{JoinType, Result};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{CrossJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};

use super::source_rows::with_last;

/// A join over numbered rows, and what to make of its output.
#[derive(Debug, Clone)]
pub(super) struct NumberedJoin {
    pub(super) join: Arc<dyn ExecutionPlan>,
    /// Where the number stands in its output.
    number: usize,
    /// The columns of the join that it stands for.
    columns: Vec<usize>,
}

impl NumberedJoin {
    /// The same join as `join`, of `table` and the numbered rows of `probe`; none for joins that keep the order of rows
    /// by themselves.
    pub(super) fn try_new(
        join: &Arc<dyn ExecutionPlan>,
        table: &Arc<dyn ExecutionPlan>,
        probe: &Arc<dyn ExecutionPlan>,
    ) -> Result<Option<Self>> {
        let (join_type, filter, projection) = match join.downcast_ref::<NestedLoopJoinExec>() {
            Some(join) => (*join.join_type(), join.filter().cloned(), join.projection().clone()),
            None if join.is::<CrossJoinExec>() => (JoinType::Inner, None, None),
            None => return Ok(None),
        };
        let inputs = (Arc::clone(table), Arc::clone(probe));
        let numbered = NestedLoopJoinExecBuilder::new(inputs.0, inputs.1, join_type).with_filter(filter).build()?;
        let of_table = match join_type {
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => 0,
            _ => table.schema().fields().len(),
        };
        let number = of_table + probe.schema().fields().len() - 1;
        let columns = match projection {
            Some(projection) => projection.to_vec(),
            None => (0..numbered.schema().fields().len() - 1).collect(),
        };
        let columns = columns.into_iter().map(|column| column + usize::from(column >= number)).collect();
        Ok(Some(Self { join: Arc::new(numbered), number, columns }))
    }

    /// The join's rows in the order of the stream's, without their numbers.
    pub(super) fn in_order(&self, output: &RecordBatch) -> Result<RecordBatch> {
        let numbers = output.column(self.number);
        let rows = output.project(&self.columns)?;
        if numbers.as_primitive::<UInt64Type>().values().is_sorted() {
            return Ok(rows);
        }
        // A stable sort: the matches of one row stay in the order of the table.
        let mut order: Vec<usize> = (0..output.num_rows()).collect();
        let values = numbers.as_primitive::<UInt64Type>().values();
        order.sort_by_key(|row| values[*row]);
        let order = UInt64Array::from_iter_values(order.into_iter().map(|row| row as u64));
        Ok(take_record_batch(&rows, &order)?)
    }
}

/// The schema of numbered rows.
pub(super) fn numbered_schema(schema: &SchemaRef) -> SchemaRef {
    with_last(schema, Field::new("__row_number", DataType::UInt64, false))
}

/// The rows with their numbers.
pub(super) fn numbered(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(UInt64Array::from_iter_values(0..batch.num_rows() as u64)));
    Ok(RecordBatch::try_new(numbered_schema(&batch.schema()), columns)?)
}
