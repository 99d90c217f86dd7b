//! Lists to rows. DataFusion's node cuts what many long lists make into several batches, and gives none where there is no
//! row; here one batch goes in and one comes out, for its watermark counts.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;

use super::context::PipelineContext;
use super::one_batch::{ProbeExec, run_over};
use super::source_rows::{SourceRows, with_numbers};
use super::{no_expressions, streaming_node, streaming_properties};

/// Makes a row for each element of each row's lists.
#[derive(Debug)]
pub(crate) struct StreamUnnestExec {
    /// DataFusion's node over a [`ProbeExec`].
    unnest: Arc<UnnestExec>,
    /// Below the first operator, the numbers of the source's rows stand at the end of input and output.
    is_numbered: bool,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl StreamUnnestExec {
    /// # Errors
    /// A node whose columns are not those of its input.
    pub(crate) fn try_new(unnest: &UnnestExec) -> Result<Self> {
        let input = unnest.children().first().map(|input| Arc::clone(input));
        let input = input.ok_or_else(|| internal_datafusion_err!("lists come from an input"))?;
        Self::over(unnest, input, unnest.schema(), false)
    }

    fn over(unnest: &UnnestExec, input: Arc<dyn ExecutionPlan>, schema: SchemaRef, is_numbered: bool) -> Result<Self> {
        let partitions = input.output_partitioning().partition_count();
        let probe = ProbeExec { properties: streaming_properties(input.schema(), partitions) };
        let unnest = UnnestExec::new(
            Arc::new(probe),
            unnest.list_column_indices().to_vec(),
            unnest.struct_column_indices().to_vec(),
            schema,
            unnest.options().clone(),
        )?;
        let properties = streaming_properties(unnest.schema(), partitions);
        Ok(Self { unnest: Arc::new(unnest), is_numbered, input, properties })
    }

    /// The same over an input whose last column numbers the rows of the source.
    pub(crate) fn with_numbers(&self, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        Self::over(&self.unnest, input, with_numbers(&self.unnest.schema()), true)
    }
}

impl DisplayAs for StreamUnnestExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "StreamUnnestExec")
    }
}

impl ExecutionPlan for StreamUnnestExec {
    streaming_node!(|node, mut children| {
        Self::over(&node.unnest, children.remove(0), node.unnest.schema(), node.is_numbered)
    });

    fn name(&self) -> &str {
        "StreamUnnestExec"
    }
    no_expressions!();
    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (pipeline, is_numbered) = (PipelineContext::of(&task)?, self.is_numbered);
        let unnest: Arc<dyn ExecutionPlan> = Arc::clone(&self.unnest) as _;
        let input = self.input.execute(partition, Arc::clone(&task))?;
        let output = input.then(move |batch| {
            let (unnest, task, pipeline) = (Arc::clone(&unnest), Arc::clone(&task), Arc::clone(&pipeline));
            async move {
                let batch = batch?;
                if batch.num_rows() == 0 {
                    return Ok(RecordBatch::new_empty(unnest.schema()));
                }
                let rows = |batch: &RecordBatch| SourceRows::numbered(&batch.schema()).count(batch);
                let before = is_numbered.then(|| rows(&batch)).transpose()?;
                let output = run_over(unnest, partition, task, batch).await?;
                if let Some(before) = before {
                    pipeline.passed(before, rows(&output)?);
                }
                Ok(output)
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), output)))
    }
}
