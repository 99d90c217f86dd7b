//! The end of a pipeline without an operator: the rows that come here are those that were used.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;

use super::context::PipelineContext;
use super::source_rows::{SourceRows, without_last};
use super::{no_expressions, streaming_node, streaming_properties};

/// Counts the rows that pass, in rows of the source, and takes their numbers off.
#[derive(Debug)]
pub(crate) struct UsedRowsExec {
    rows: SourceRows,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl UsedRowsExec {
    pub(crate) fn new(rows: SourceRows, input: Arc<dyn ExecutionPlan>) -> Self {
        let schema = match rows {
            SourceRows::Each => input.schema(),
            SourceRows::Numbered(_) => without_last(&input.schema()),
        };
        let properties = streaming_properties(schema, input.output_partitioning().partition_count());
        Self { rows, input, properties }
    }
}

impl DisplayAs for UsedRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "UsedRowsExec")
    }
}

impl ExecutionPlan for UsedRowsExec {
    streaming_node!(|node, mut children| Ok(Self::new(node.rows, children.remove(0))));

    fn name(&self) -> &str {
        "UsedRowsExec"
    }
    no_expressions!();
    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (rows, pipeline) = (self.rows, PipelineContext::of(&task)?);
        let input = self.input.execute(partition, task)?;
        let output = input.map(move |batch| {
            let batch = batch?;
            pipeline.used(rows.count(&batch)?);
            Ok(rows.take(&batch)?.0)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), output)))
    }
}
