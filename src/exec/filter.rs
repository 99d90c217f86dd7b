//! WHERE in a pipeline. DataFusion's own filter gathers small outputs into large batches, and so holds rows back.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
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

use super::context::PipelineContext;
use super::source_rows::SourceRows;
use super::{streaming_node, streaming_properties};

/// Passes the rows for which the predicate is true, batch by batch. A batch without such a row passes empty, for its
/// watermark counts.
#[derive(Debug)]
pub(crate) struct StreamFilterExec {
    predicate: Arc<dyn PhysicalExpr>,
    /// The columns that pass; none means all.
    projection: Option<Vec<usize>>,
    input: Arc<dyn ExecutionPlan>,
    /// Below the first operator, how rows stand for rows of the source: those that do not pass are counted.
    rows: Option<SourceRows>,
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
        Ok(Self { predicate, projection, input, rows: None, properties })
    }

    /// The same over `input`, counting the rows of the source that do not pass. Numbers of theirs, in the input's last
    /// column, pass too.
    ///
    /// # Errors
    /// As [`StreamFilterExec::try_new`].
    pub(crate) fn counting(&self, rows: SourceRows, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let mut projection = self.projection.clone();
        if let (Some(columns), SourceRows::Numbered(number)) = (&mut projection, rows) {
            columns.push(number);
        }
        Ok(Self { rows: Some(rows), ..Self::try_new(Arc::clone(&self.predicate), projection, input)? })
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
        let filter = Self::try_new(Arc::clone(&node.predicate), node.projection.clone(), children.remove(0))?;
        Ok(Self { rows: node.rows, ..filter })
    });

    fn name(&self) -> &str {
        "StreamFilterExec"
    }
    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots([&self.predicate], f)
    }
    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let filter = Filter {
            predicate: Arc::clone(&self.predicate),
            projection: self.projection.clone(),
            rows: self.rows,
            pipeline: PipelineContext::of(&task)?,
        };
        let input = self.input.execute(partition, task)?;
        let output = input.map(move |batch| filter.pass(&batch?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), output)))
    }
}

struct Filter {
    predicate: Arc<dyn PhysicalExpr>,
    projection: Option<Vec<usize>>,
    rows: Option<SourceRows>,
    pipeline: Arc<PipelineContext>,
}

impl Filter {
    fn pass(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let keep = self.predicate.evaluate(batch)?.into_array(batch.num_rows())?;
        let keep: &BooleanArray = as_boolean_array(&keep)?;
        let passing = match &self.projection {
            Some(columns) => batch.project(columns)?,
            None => batch.clone(),
        };
        let passes = keep.true_count();
        if passes == batch.num_rows() {
            return Ok(passing);
        }
        let output = filter_record_batch(&passing, keep)?;
        match self.rows {
            None => {}
            Some(SourceRows::Each) => self.pipeline.passed(batch.num_rows() as u64, passes as u64),
            Some(rows) => {
                let after = SourceRows::numbered(&output.schema()).count(&output)?;
                self.pipeline.passed(rows.count(batch)?, after);
            }
        }
        Ok(output)
    }
}
