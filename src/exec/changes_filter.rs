//! HAVING over changes: a row that no longer passes is withdrawn, and one that passes again comes back.
//!
//! | before passes | after passes | out |
//! |---|---|---|
//! | yes | yes | `-U`, `+U` |
//! | yes | no | `-D` of the row before |
//! | no | yes | `+I` |
//! | no | no | nothing |
//!
//! A join below may have made several rows of each: then the rows of the one before come first, and each is replaced by
//! the one in its place among those after. Lists may make more of one than of the other: then rows come and go alone.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err, internal_err};
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
/// what each row does; rows that are replaced stand just before those that replace them, in the same batch.
#[derive(Debug)]
pub(crate) struct ChangesFilterExec {
    predicate: Arc<dyn PhysicalExpr>,
    /// Which column says what a row does.
    op: usize,
    /// Whether each row that is replaced has one that replaces it.
    has_pairs: bool,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl ChangesFilterExec {
    /// # Errors
    /// An input without a column of what its rows do.
    pub(crate) fn try_new(
        predicate: Arc<dyn PhysicalExpr>,
        has_pairs: bool,
        input: Arc<dyn ExecutionPlan>,
    ) -> Result<Self> {
        let op = input.schema().index_of(OP)?;
        let properties = streaming_properties(input.schema(), input.output_partitioning().partition_count());
        Ok(Self { predicate, op, has_pairs, input, properties })
    }
}

impl DisplayAs for ChangesFilterExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "ChangesFilterExec: {}", self.predicate)
    }
}

impl ExecutionPlan for ChangesFilterExec {
    streaming_node!(|node, mut children| {
        Self::try_new(Arc::clone(&node.predicate), node.has_pairs, children.remove(0))
    });

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
        let (predicate, op, has_pairs) = (Arc::clone(&self.predicate), self.op, self.has_pairs);
        let output = self.input.execute(partition, task)?.map(move |batch| filter(&predicate, op, has_pairs, &batch?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), output)))
    }
}

fn filter(predicate: &Arc<dyn PhysicalExpr>, op: usize, has_pairs: bool, batch: &RecordBatch) -> Result<RecordBatch> {
    let passes = predicate.evaluate(batch)?.into_array(batch.num_rows())?;
    let passes = as_boolean_array(&passes)?;
    let passes = |row: &usize| passes.is_valid(*row) && passes.value(*row);
    let parse = |text: Option<&str>| text.and_then(Op::parse).ok_or_else(|| internal_datafusion_err!("no change"));
    let mut ops = batch.column(op).as_string::<i32>().iter().map(parse).collect::<Result<Vec<_>>>()?;
    if !has_pairs {
        ops.iter_mut().for_each(|does| *does = does.alone());
    }
    let (mut rows, mut out) = (vec![], vec![]);
    let mut give = |row: usize, does: Op| {
        rows.push(row as u32);
        out.push(does.text());
    };
    let mut row = 0;
    while row < ops.len() {
        let replaced = ops[row..].iter().take_while(|does| **does == Op::Before).count();
        if replaced == 0 {
            if passes(&row) {
                give(row, ops[row]);
            }
            row += 1;
            continue;
        }
        if ops.len() < row + 2 * replaced {
            return internal_err!("{replaced} rows are replaced by fewer");
        }
        let pairs = (row..row + replaced).zip(row + replaced..);
        // What is replaced stays just before what replaces it, for whoever filters these again.
        for (before, after) in pairs.clone().filter(|(before, _)| passes(before)) {
            if !passes(&after) {
                give(before, Op::Delete);
            }
        }
        let stay = pairs.clone().filter(|(before, after)| passes(before) && passes(after));
        stay.clone().for_each(|(before, _)| give(before, Op::Before));
        stay.for_each(|(_, after)| give(after, Op::After));
        for (before, after) in pairs.filter(|(_, after)| passes(after)) {
            if !passes(&before) {
                give(after, Op::Insert);
            }
        }
        row += 2 * replaced;
    }
    let taken = take_record_batch(batch, &UInt32Array::from(rows))?;
    let mut columns = taken.columns().to_vec();
    columns[op] = Arc::new(StringArray::from(out)) as ArrayRef;
    Ok(RecordBatch::try_new(taken.schema(), columns)?)
}
