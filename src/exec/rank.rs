//! Top-N over the results of a windowed GROUP BY. A window's results come as one batch, so ranking them keeps nothing.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;

use crate::operator::TopNSpec;

use super::{no_expressions, streaming_node, streaming_properties};

/// Passes the best rows of each key of each batch, with their ranks. The keys tell windows apart, and no window is in
/// two batches.
#[derive(Debug)]
pub(crate) struct RankResultsExec {
    spec: Arc<TopNSpec>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl RankResultsExec {
    pub(crate) fn new(spec: Arc<TopNSpec>, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = streaming_properties(Arc::clone(&spec.schema), input.output_partitioning().partition_count());
        Self { spec, input, properties }
    }
}

impl DisplayAs for RankResultsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "RankResultsExec: {}", self.spec)
    }
}

impl ExecutionPlan for RankResultsExec {
    streaming_node!(|node, mut children| Ok(Self::new(Arc::clone(&node.spec), children.remove(0))));

    fn name(&self) -> &str {
        "RankResultsExec"
    }
    no_expressions!();
    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let spec = Arc::clone(&self.spec);
        let output = self.input.execute(partition, task)?.map(move |batch| spec.rank(&batch?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), output)))
    }
}
