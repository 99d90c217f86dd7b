//! HAVING over changes: a row that no longer passes is withdrawn, and one that passes again comes back.
//!
//! | before passes | after passes | out |
//! |---|---|---|
//! | yes | yes | `-U`, `+U` |
//! | yes | no | `-D` of the row before |
//! | no | yes | `+I` |
//! | no | no | nothing |

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties,
    SendableRecordBatchStream, apply_expression_roots,
};
use futures::StreamExt;

use crate::operator::{OP, Op};

use super::{streaming_node, streaming_properties};

/// Passes the changes that a predicate lets pass, and withdraws rows that it does no longer. The input has a column of
/// what each row does, with each row that is replaced just before the one that replaces it.
#[derive(Debug)]
pub(crate) struct ChangesFilterExec {
    predicate: Arc<dyn PhysicalExpr>,
    /// Which column says what a row does.
    op: usize,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl ChangesFilterExec {
    /// # Errors
    /// An input without a column of what its rows do.
    pub(crate) fn try_new(predicate: Arc<dyn PhysicalExpr>, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let op = input.schema().index_of(OP)?;
        let properties = streaming_properties(input.schema(), input.output_partitioning().partition_count());
        Ok(Self { predicate, op, input, properties })
    }
}

impl DisplayAs for ChangesFilterExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "ChangesFilterExec: {}", self.predicate)
    }
}

impl ExecutionPlan for ChangesFilterExec {
    streaming_node!(|node, mut children| Self::try_new(Arc::clone(&node.predicate), children.remove(0)));

    fn name(&self) -> &str {
        "ChangesFilterExec"
    }
    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots([&self.predicate], f)
    }
    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (predicate, op) = (Arc::clone(&self.predicate), self.op);
        let output = self.input.execute(partition, task)?.map(move |batch| filter(&predicate, op, &batch?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), output)))
    }
}

fn filter(predicate: &Arc<dyn PhysicalExpr>, op: usize, batch: &RecordBatch) -> Result<RecordBatch> {
    let passes = predicate.evaluate(batch)?.into_array(batch.num_rows())?;
    let passes = as_boolean_array(&passes)?;
    let passes = |row: usize| passes.is_valid(row) && passes.value(row);
    let ops = batch.column(op).as_string::<i32>();
    let (mut rows, mut out) = (vec![], vec![]);
    let mut row = 0;
    while row < batch.num_rows() {
        let does =
            Op::parse(ops.value(row)).ok_or_else(|| internal_datafusion_err!("{} is no change", ops.value(row)))?;
        let is_replaced = does == Op::Before && row + 1 < batch.num_rows();
        let mut give = |row: usize, does: Op| {
            rows.push(row as u32);
            out.push(does.text());
        };
        match (is_replaced, passes(row), is_replaced && passes(row + 1)) {
            (false, true, _) => give(row, does),
            (true, true, true) => {
                give(row, Op::Before);
                give(row + 1, Op::After);
            }
            (true, true, false) => give(row, Op::Delete),
            (true, false, true) => give(row + 1, Op::Insert),
            (_, false, _) => {}
        }
        row += if is_replaced { 2 } else { 1 };
    }
    let taken = take_record_batch(batch, &UInt32Array::from(rows))?;
    let mut columns = taken.columns().to_vec();
    columns[op] = Arc::new(StringArray::from(out)) as ArrayRef;
    Ok(RecordBatch::try_new(taken.schema(), columns)?)
}
