//! WHERE in a pipeline. DataFusion's own filter gathers small outputs into large batches, and so holds rows back.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::common::Result;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties,
    SendableRecordBatchStream, apply_expression_roots,
};
use futures::StreamExt;

use super::{streaming_node, streaming_properties};

/// Passes the rows for which the predicate is true, batch by batch. A batch without such a row passes empty, for its
/// watermark counts.
#[derive(Debug)]
pub(crate) struct StreamFilterExec {
    predicate: Arc<dyn PhysicalExpr>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl StreamFilterExec {
    pub(crate) fn new(predicate: Arc<dyn PhysicalExpr>, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = streaming_properties(input.schema(), input.output_partitioning().partition_count());
        Self { predicate, input, properties }
    }
}

impl DisplayAs for StreamFilterExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "StreamFilterExec: {}", self.predicate)
    }
}

impl ExecutionPlan for StreamFilterExec {
    streaming_node!(|node, mut children| Ok(Self::new(Arc::clone(&node.predicate), children.remove(0))));

    fn name(&self) -> &str {
        "StreamFilterExec"
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }
    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots([&self.predicate], f)
    }
    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let predicate = Arc::clone(&self.predicate);
        let input = self.input.execute(partition, task)?;
        let output = input.map(move |batch| filter(&predicate, batch?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), output)))
    }
}

fn filter(predicate: &Arc<dyn PhysicalExpr>, batch: RecordBatch) -> Result<RecordBatch> {
    let keep = predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
    let keep: &BooleanArray = as_boolean_array(&keep)?;
    if keep.null_count() == 0 && keep.true_count() == batch.num_rows() {
        return Ok(batch);
    }
    Ok(filter_record_batch(&batch, keep)?)
}
