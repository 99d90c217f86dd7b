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
    /// The columns that pass; none means all.
    projection: Option<Vec<usize>>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl StreamFilterExec {
    /// # Errors
    /// A projection of columns that do not exist.
    pub(crate) fn try_new(
        predicate: Arc<dyn PhysicalExpr>,
        projection: Option<Vec<usize>>,
        input: Arc<dyn ExecutionPlan>,
    ) -> Result<Self> {
        let schema = match &projection {
            Some(columns) => Arc::new(input.schema().project(columns)?),
            None => input.schema(),
        };
        let properties = streaming_properties(schema, input.output_partitioning().partition_count());
        Ok(Self { predicate, projection, input, properties })
    }

    pub(crate) fn predicate(&self) -> &Arc<dyn PhysicalExpr> {
        &self.predicate
    }

    /// Where the column at `position` of the output comes from in the input.
    pub(crate) fn input_position(&self, position: usize) -> Option<usize> {
        match &self.projection {
            Some(columns) => columns.get(position).copied(),
            None => Some(position),
        }
    }
}

impl DisplayAs for StreamFilterExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "StreamFilterExec: {}", self.predicate)?;
        match &self.projection {
            Some(_) => {
                let schema = self.schema();
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                write!(f, ", projection=[{}]", names.join(", "))
            }
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for StreamFilterExec {
    streaming_node!(|node, mut children| {
        Self::try_new(Arc::clone(&node.predicate), node.projection.clone(), children.remove(0))
    });

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
        let projection = self.projection.clone();
        let output = input.map(move |batch| filter(&predicate, projection.as_deref(), batch?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), output)))
    }
}

fn filter(predicate: &Arc<dyn PhysicalExpr>, projection: Option<&[usize]>, batch: RecordBatch) -> Result<RecordBatch> {
    let keep = predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
    let keep: &BooleanArray = as_boolean_array(&keep)?;
    let batch = match projection {
        Some(columns) => batch.project(columns)?,
        None => batch,
    };
    if keep.null_count() == 0 && keep.true_count() == batch.num_rows() {
        return Ok(batch);
    }
    Ok(filter_record_batch(&batch, keep)?)
}
