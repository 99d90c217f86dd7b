//! A join of the stream's rows with a table that ends.
//!
//! DataFusion's join is run as it is, once for each batch of the stream: its build side (the table) is read once and
//! shared, and the end of the one-batch input makes it give up what it gathers for larger batches. Only joins that
//! keep no unmatched rows of the table come here, so nothing has to wait for the stream's end.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties,
    SendableRecordBatchStream,
};
use futures::StreamExt;

use super::context::PipelineContext;
use super::one_batch::{ProbeExec, run_over};
use super::row_order::{NumberedJoin, numbered as numbered_rows, numbered_schema};
use super::source_rows::SourceRows;
use super::streaming_properties;

/// Joins each batch of the stream (the second child) with a table (the first child).
#[derive(Debug)]
pub(crate) struct LookupJoinExec {
    /// DataFusion's join of the table and a [`ProbeExec`].
    join: Arc<dyn ExecutionPlan>,
    /// The join that is run in its place where it would lose the order of the stream's rows.
    numbered: Option<NumberedJoin>,
    table: Arc<dyn ExecutionPlan>,
    stream: Arc<dyn ExecutionPlan>,
    /// Below the first operator, where the numbers of the source's rows stand in the input and in the output.
    numbers: Option<(SourceRows, SourceRows)>,
    properties: Arc<PlanProperties>,
}

impl LookupJoinExec {
    /// `join` is any DataFusion join whose first child is the table and whose second is the stream.
    pub(crate) fn try_new(join: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let (table, stream) = match join.children().as_slice() {
            [table, stream] => (Arc::clone(table), Arc::clone(stream)),
            _ => return Err(internal_datafusion_err!("a join has two inputs")),
        };
        Self::with_inputs(&join, table, stream, None)
    }

    /// DataFusion's join of the table and what stands for the stream.
    pub(crate) fn join(&self) -> &Arc<dyn ExecutionPlan> {
        &self.join
    }

    /// The same join, which counts the rows of the source whose numbers stand in the last column of the stream, and in
    /// the last one of `join`'s output.
    pub(crate) fn with_numbers(&self, join: &Arc<dyn ExecutionPlan>, stream: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let numbers = (SourceRows::numbered(&stream.schema()), SourceRows::numbered(&join.schema()));
        Self::with_inputs(join, Arc::clone(&self.table), stream, Some(numbers))
    }

    fn with_inputs(
        join: &Arc<dyn ExecutionPlan>,
        table: Arc<dyn ExecutionPlan>,
        stream: Arc<dyn ExecutionPlan>,
        numbers: Option<(SourceRows, SourceRows)>,
    ) -> Result<Self> {
        let partitions = stream.output_partitioning().partition_count();
        let probe = |schema| -> Arc<dyn ExecutionPlan> {
            Arc::new(ProbeExec { properties: probe_properties(schema, partitions) })
        };
        let numbered = NumberedJoin::try_new(join, &table, &probe(numbered_schema(&stream.schema())))?;
        let probe = probe(stream.schema());
        let join = replace_children_if_necessary(Arc::clone(join), vec![Arc::clone(&table), probe])?;
        let properties = streaming_properties(join.schema(), partitions);
        Ok(Self { join, numbered, table, stream, numbers, properties })
    }
}

impl DisplayAs for LookupJoinExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "LookupJoinExec: ")?;
        self.join.fmt_as(t, f)
    }
}

impl ExecutionPlan for LookupJoinExec {
    fn name(&self) -> &str {
        "LookupJoinExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.table, &self.stream]
    }
    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition, Distribution::UnspecifiedDistribution]
    }
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false, false]
    }
    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.join.apply_expressions(f)
    }
    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.pop()) {
            (Some(stream), Some(table)) => Ok(Arc::new(Self::with_inputs(&self.join, table, stream, self.numbers)?)),
            _ => Err(internal_datafusion_err!("a join has two inputs")),
        }
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.join.schema();
        let input = self.stream.execute(partition, Arc::clone(&task))?;
        let (join, numbered, numbers) = (Arc::clone(&self.join), self.numbered.clone(), self.numbers);
        let pipeline = PipelineContext::of(&task)?;
        let output = input.then(move |batch| {
            let (join, numbered, task) = (Arc::clone(&join), numbered.clone(), Arc::clone(&task));
            let pipeline = Arc::clone(&pipeline);
            async move {
                let batch = batch?;
                let before = numbers.map(|(before, _)| before.count(&batch)).transpose()?;
                let output = match numbered {
                    _ if batch.num_rows() == 0 => Ok(RecordBatch::new_empty(join.schema())),
                    None => run_over(join, partition, task, batch).await,
                    Some(own) => {
                        let output = run_over(Arc::clone(&own.join), partition, task, numbered_rows(&batch)?).await?;
                        own.in_order(&output)
                    }
                }?;
                if let (Some(before), Some((_, after))) = (before, numbers) {
                    pipeline.passed(before, after.count(&output)?);
                }
                Ok(output)
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, output)))
    }
}

/// A hash join keeps the order of rows, those without a match among them, if it is told that they have one: of which
/// column does not matter, and nobody else sees it.
fn probe_properties(schema: SchemaRef, partitions: usize) -> Arc<PlanProperties> {
    let properties = streaming_properties(Arc::clone(&schema), partitions);
    let Some(first) = schema.fields().first() else { return properties };
    let order = PhysicalSortExpr::new_default(Arc::new(Column::new(first.name(), 0)));
    let ordered = EquivalenceProperties::new_with_orderings(schema, [[order]]);
    Arc::new(properties.as_ref().clone().with_eq_properties(ordered))
}
