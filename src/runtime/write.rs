//! Writing a plan's rows into a sink: one task and one writer for each worker, or one writer where they meet.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{LexOrdering, OrderingRequirements};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties,
    SendableRecordBatchStream,
};
use futures::future::{AbortHandle, AbortRegistration, Abortable, Aborted};
use futures::{StreamExt, stream};
use tokio::task::JoinSet;

use crate::config::StreamlinesOptions;
use crate::exec::streaming_properties;
use crate::panics::caught_in;
use crate::sink::{Sink, Writer, Written};

use super::boundary::PipelinesExec;
use super::durable;
use super::stop::Stop;

/// Writes all rows of `plan` into `sink`, as a job that saves itself if that is asked for.
pub(super) async fn write(
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    sink: &dyn Sink,
    stop: Option<&Stop>,
) -> Result<Written> {
    let options = task.session_config().options().extensions.get::<StreamlinesOptions>();
    match options.filter(|options| options.saves() && reads_stream(&plan)) {
        Some(options) => durable::write(&plan, &task, sink, options).await,
        None => write_whole(plan, task, sink, stop).await,
    }
}

/// Writes all rows of `plan` into `sink`. The output becomes visible only when every pipeline has ended well: the
/// first failure ends all the others and leaves nothing behind. A stop ends the rows, and the output is whole as far as
/// it goes.
pub(super) async fn write_whole(
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    sink: &dyn Sink,
    stop: Option<&Stop>,
) -> Result<Written> {
    let plan = match plan.output_partitioning().partition_count() {
        0 | 1 => plan,
        _ if sink.per_pipeline() => plan,
        _ => Arc::new(CoalescePartitionsExec::new(plan)) as Arc<dyn ExecutionPlan>,
    };
    // Nothing is written before every writer is there: one that cannot be must not find another at work.
    let partitions = 0..plan.output_partitioning().partition_count();
    let writers = partitions.map(|partition| sink.writer(partition, plan.schema())).collect::<Result<Vec<_>>>()?;
    let rows = (0..writers.len()).map(|partition| {
        let rows = plan.execute(partition, Arc::clone(&task))?;
        Ok(match stop {
            Some(stop) => stop.until(rows),
            None => rows,
        })
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let (mut tasks, mut others) = (JoinSet::new(), vec![]);
    for (partition, (rows, writer)) in rows.into_iter().zip(writers).enumerate() {
        let (handle, cancelled) = AbortHandle::new_pair();
        others.push(handle);
        tasks.spawn(async move { (partition, write_partition(rows, writer, cancelled).await) });
    }
    let (mut writers, mut result) = (vec![], Ok(()));
    while let Some(joined) = tasks.join_next().await {
        let ended = match joined {
            Ok((partition, (writer, ended))) => {
                writers.push((partition, writer));
                ended
            }
            Err(error) => Err(DataFusionError::ExecutionJoin(Box::new(error))),
        };
        if ended.is_err() && result.is_ok() {
            result = ended;
            others.iter().for_each(AbortHandle::abort);
        }
    }
    // In order, so that what is visible when one cannot be closed does not depend on who was first.
    writers.sort_by_key(|(partition, _)| *partition);
    let mut writers: Vec<_> = writers.into_iter().map(|(_, writer)| writer).collect();
    let closed = match result {
        Ok(()) => close(&mut writers).await,
        Err(error) => Err(error),
    };
    match closed {
        Ok(written) => {
            sink.closed(&written.files).await?;
            Ok(written)
        }
        Err(error) => {
            for writer in writers {
                writer.abort().await;
            }
            sink.aborted().await;
            Err(error)
        }
    }
}

/// Whether rows of a stream are to be written; a COPY below writes its own.
pub(super) fn reads_stream(plan: &Arc<dyn ExecutionPlan>) -> bool {
    !plan.is::<WriteExec>() && (plan.is::<PipelinesExec>() || plan.children().into_iter().any(reads_stream))
}

/// The loop of one worker: its pipelines' output batch by batch into its own writer, which it gives back to be closed
/// with the others, or aborted.
async fn write_partition(
    rows: SendableRecordBatchStream,
    mut writer: Box<dyn Writer>,
    cancelled: AbortRegistration,
) -> (Box<dyn Writer>, Result<()>) {
    // A panic is a failure like any other: its writer is still to be aborted.
    let ended = Abortable::new(caught_in(write_rows(rows, writer.as_mut())), cancelled).await;
    // Whose failure cancels the others tells it.
    let ended = ended.unwrap_or_else(|Aborted| Ok(()));
    (writer, ended)
}

async fn write_rows(mut rows: SendableRecordBatchStream, writer: &mut dyn Writer) -> Result<()> {
    while let Some(batch) = rows.next().await {
        writer.write(batch?).await?;
    }
    writer.finish().await
}

async fn close(writers: &mut [Box<dyn Writer>]) -> Result<Written> {
    let mut total = Written::default();
    for writer in writers {
        total.add(writer.close().await?);
    }
    Ok(total)
}

/// Writes its input into a sink and gives the number of rows written, as DataFusion's COPY does.
#[derive(Debug)]
pub(crate) struct WriteExec {
    input: Arc<dyn ExecutionPlan>,
    sink: Arc<dyn Sink>,
    /// The order of rows that was asked for: what does not say so is planned without it.
    order: Option<LexOrdering>,
    properties: Arc<PlanProperties>,
}

impl WriteExec {
    /// Keeps the order that the input has.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, sink: Arc<dyn Sink>) -> Self {
        let order = input.output_ordering().cloned();
        Self { input, sink, order, properties: streaming_properties(count_schema(), 1) }
    }
}

fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]))
}

impl DisplayAs for WriteExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let writers = if self.sink.per_pipeline() { "one for each pipeline" } else { "one" };
        write!(f, "WriteExec: {:?}, writers={writers}", self.sink)
    }
}

impl ExecutionPlan for WriteExec {
    fn name(&self) -> &str {
        "WriteExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }
    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.order.clone().map(OrderingRequirements::from)]
    }
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }
    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let (sink, order) = (Arc::clone(&self.sink), self.order.clone());
        Ok(Arc::new(Self { order, ..Self::new(children.remove(0), sink) }))
    }
    fn execute(&self, _: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (input, sink) = (Arc::clone(&self.input), Arc::clone(&self.sink));
        let count = stream::once(async move {
            let written = write(input, task, sink.as_ref(), None).await?;
            let count = UInt64Array::from(vec![written.rows]);
            Ok(RecordBatch::try_new(count_schema(), vec![Arc::new(count)])?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(count_schema(), count)))
    }
}
