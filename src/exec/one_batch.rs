//! A DataFusion node that is run anew for each batch of the stream: the end of its one-batch input makes it give up what
//! it gathers for larger batches or cuts into smaller ones, so that one batch goes in and one comes out.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::TryStreamExt;

use super::context::task_with;
use super::no_expressions;

/// Runs a node in which a [`ProbeExec`] stands for the stream over one batch of it.
pub(super) async fn run_over(
    node: Arc<dyn ExecutionPlan>,
    partition: usize,
    task: Arc<TaskContext>,
    batch: RecordBatch,
) -> Result<RecordBatch> {
    let probe_task = task_with(&task, Probe(batch));
    let output: Vec<RecordBatch> = node.execute(partition, probe_task)?.try_collect().await?;
    match output.as_slice() {
        [batch] => Ok(batch.clone()),
        batches => Ok(concat_batches(&node.schema(), batches)?),
    }
}

/// The batch that the node is run over.
struct Probe(RecordBatch);

/// Stands for the stream in DataFusion's node: gives the one batch of its task context.
#[derive(Debug)]
pub(super) struct ProbeExec {
    pub(super) properties: Arc<PlanProperties>,
}

impl DisplayAs for ProbeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "ProbeExec")
    }
}

impl ExecutionPlan for ProbeExec {
    fn name(&self) -> &str {
        "ProbeExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }
    no_expressions!();
    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }
    fn execute(&self, _: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let probe = task
            .session_config()
            .get_extension::<Probe>()
            .ok_or_else(|| internal_datafusion_err!("a probe without a batch"))?;
        let batch = futures::stream::iter([Ok(probe.0.clone())]);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batch)))
    }
}
