//! The host of a stateful operator: feeds it the batches that come up the plan and gives on what it makes.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, resources_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, RecordBatchStream,
    SendableRecordBatchStream,
};
use futures::{Stream, StreamExt};

use crate::operator::{
    AggregateSpec, ChangelogAggregate, ChangesSpec, Counters, Mode, Operator, RowsWindow, RowsWindowSpec,
    SessionAggregate, Stamp, WATERMARK_MAX, WATERMARK_MIN, WindowAggregate, merge_window,
};

use super::context::PipelineContext;
use super::flight::{Arrived, by_number};
use super::source_rows::SourceRows;
use super::{no_expressions, streaming_node, streaming_properties};

/// Which operator a node hosts, and its parameters.
#[derive(Debug, Clone)]
pub(crate) enum OperatorSpec {
    /// GROUP BY … EMIT FINAL: windows come out when they close.
    WindowAggregate(Arc<AggregateSpec>),
    /// The same where a window's rows are spread over pipelines: partial states meet in the merger.
    MergedWindowAggregate(Arc<AggregateSpec>),
    /// GROUP BY … EMIT CHANGES.
    ChangelogAggregate(Arc<AggregateSpec>, ChangesSpec),
    /// GROUP BY sessions, with what ticks apart they are; none for changes gives final values.
    SessionAggregate(Arc<AggregateSpec>, i64, Option<ChangesSpec>),
    /// OVER (… ORDER BY event time …).
    RowsWindow(Arc<RowsWindowSpec>),
}

impl OperatorSpec {
    /// The schema of the rows that leave the node.
    fn schema(&self) -> SchemaRef {
        match self {
            Self::WindowAggregate(spec) | Self::MergedWindowAggregate(spec) => Arc::clone(&spec.schema),
            Self::ChangelogAggregate(spec, changes) | Self::SessionAggregate(spec, _, Some(changes)) => {
                changes.schema(&spec.schema)
            }
            Self::SessionAggregate(spec, _, None) => Arc::clone(&spec.schema),
            Self::RowsWindow(spec) => Arc::clone(&spec.schema),
        }
    }

    /// The parameters of a GROUP BY.
    pub(crate) fn aggregate(&self) -> Option<&AggregateSpec> {
        match self {
            Self::WindowAggregate(spec)
            | Self::MergedWindowAggregate(spec)
            | Self::ChangelogAggregate(spec, _)
            | Self::SessionAggregate(spec, ..) => Some(spec),
            Self::RowsWindow(_) => None,
        }
    }

    fn build(&self) -> Result<Box<dyn Operator>> {
        Ok(match self {
            Self::WindowAggregate(spec) => Box::new(WindowAggregate::new(Arc::clone(spec), Mode::Final)),
            Self::MergedWindowAggregate(spec) => Box::new(WindowAggregate::new(Arc::clone(spec), Mode::Partial)),
            Self::ChangelogAggregate(spec, changes) => {
                Box::new(ChangelogAggregate::new(Arc::clone(spec), changes.clone()))
            }
            Self::SessionAggregate(spec, gap, changes) => {
                Box::new(SessionAggregate::try_new(Arc::clone(spec), *gap, changes.clone())?)
            }
            Self::RowsWindow(spec) => Box::new(RowsWindow::try_new(Arc::clone(spec))?),
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::WindowAggregate(_) | Self::MergedWindowAggregate(_) => "WindowAggregate",
            Self::ChangelogAggregate(..) => "ChangelogAggregate",
            Self::SessionAggregate(..) => "SessionAggregate",
            Self::RowsWindow(_) => "RowsWindow",
        }
    }
}

/// Hosts a stateful operator.
#[derive(Debug)]
pub(crate) struct OperatorExec {
    spec: OperatorSpec,
    input: Arc<dyn ExecutionPlan>,
    /// Of a pipeline's first operator, how rows of its input stand for rows of the source, which it accounts for.
    rows: Option<SourceRows>,
    properties: Arc<PlanProperties>,
}

impl OperatorExec {
    pub(crate) fn new(spec: OperatorSpec, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = streaming_properties(spec.schema(), input.output_partitioning().partition_count());
        Self { spec, input, rows: None, properties }
    }

    /// The same over `input`, accounting for the rows of the source. Their numbers, if there are any, are for nobody else.
    pub(crate) fn accounting(&self, rows: SourceRows, input: Arc<dyn ExecutionPlan>) -> Self {
        Self { rows: Some(rows), ..Self::new(self.spec.clone(), input) }
    }

    pub(crate) fn spec(&self) -> &OperatorSpec {
        &self.spec
    }

    pub(crate) fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    /// The same node with another operator of the same schema.
    pub(crate) fn with_spec(&self, spec: OperatorSpec) -> Self {
        Self { rows: self.rows, ..Self::new(spec, Arc::clone(&self.input)) }
    }
}

impl DisplayAs for OperatorExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}Exec: ", self.spec.name())?;
        match &self.spec {
            OperatorSpec::WindowAggregate(spec) => write!(f, "{spec}"),
            OperatorSpec::SessionAggregate(spec, _, None) => write!(f, "{spec}"),
            OperatorSpec::ChangelogAggregate(spec, changes)
            | OperatorSpec::SessionAggregate(spec, _, Some(changes)) => {
                write!(f, "{spec}, changes={changes}")
            }
            OperatorSpec::MergedWindowAggregate(spec) => write!(f, "{spec}, merged on close"),
            OperatorSpec::RowsWindow(spec) => write!(f, "{spec}"),
        }
    }
}

impl ExecutionPlan for OperatorExec {
    streaming_node!(|node, mut children| {
        Ok(Self { rows: node.rows, ..Self::new(node.spec.clone(), children.remove(0)) })
    });

    fn name(&self) -> &str {
        "OperatorExec"
    }
    no_expressions!();
    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let name = self.spec.name();
        let reservation = MemoryConsumer::new(format!("{name}[{partition}]")).register(task.memory_pool());
        let merge = match &self.spec {
            OperatorSpec::MergedWindowAggregate(spec) => {
                Some(Merge { spec: Arc::clone(spec), told: WATERMARK_MIN, merged: 0 })
            }
            _ => None,
        };
        let mut operator = self.spec.build()?;
        if let Some(SourceRows::Numbered(_)) = self.rows {
            operator.missed().want();
        }
        Ok(Box::pin(OperatorStream {
            schema: self.spec.schema(),
            operator,
            rows: self.rows,
            merge,
            pipeline: PipelineContext::of(&task)?,
            input: self.input.execute(partition, task)?,
            output: VecDeque::new(),
            scratch: vec![],
            reservation,
            name,
            finished: false,
        }))
    }
}

/// How far this pipeline has told the merger that it has come.
struct Merge {
    spec: Arc<AggregateSpec>,
    told: i64,
    /// Windows that this pipeline has emitted for all.
    merged: u64,
}

struct OperatorStream {
    schema: SchemaRef,
    operator: Box<dyn Operator>,
    rows: Option<SourceRows>,
    merge: Option<Merge>,
    pipeline: Arc<PipelineContext>,
    input: SendableRecordBatchStream,
    output: VecDeque<RecordBatch>,
    scratch: Vec<RecordBatch>,
    reservation: MemoryReservation,
    name: &'static str,
    finished: bool,
}

impl OperatorStream {
    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let stamp = self.pipeline.stamp();
        match self.rows {
            Some(rows) => self.account(rows, batch, stamp)?,
            None => self.operator.push(batch, stamp, &mut self.scratch)?,
        }
        self.give_on(stamp.next_watermark)
    }

    /// Pushes rows and tells what has become of each.
    fn account(&mut self, rows: SourceRows, batch: &RecordBatch, stamp: Stamp) -> Result<()> {
        let before = self.operator.counters();
        let (batch, numbers) = rows.take(batch)?;
        self.operator.push(&batch, stamp, &mut self.scratch)?;
        let arrived = Arrived::since(before, self.operator.counters(), batch.num_rows())?;
        let missed = self.operator.missed().take();
        match numbers {
            None => self.pipeline.arrived(arrived, missed),
            Some(numbers) => {
                let numbers = numbers.values();
                self.pipeline.arrived(Arrived::of_source(numbers, &missed), by_number(missed, numbers));
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.finished = true;
        self.operator.finish(&mut self.scratch)?;
        self.give_on(WATERMARK_MAX)
    }

    fn give_on(&mut self, watermark: i64) -> Result<()> {
        match &mut self.merge {
            None => self.output.extend(self.scratch.drain(..)),
            Some(merge) => {
                let merged = merge.close(&self.pipeline, watermark, std::mem::take(&mut self.scratch))?;
                self.output.extend(merged);
            }
        }
        let bytes = self.operator.memory();
        let counters = self.operator.counters();
        let windows_closed = self.merge.as_ref().map_or(counters.windows_closed, |merge| merge.merged);
        self.pipeline.metrics.operator(Counters { windows_closed, ..counters }, bytes);
        self.reservation.try_resize(bytes).map_err(|error| {
            resources_datafusion_err!(
                "{} of pipeline {} holds {bytes} bytes of state and may not take more; SET datafusion.runtime.memory_limit \
                 gives it more: {error}",
                self.name,
                self.pipeline.index
            )
        })
    }
}

impl Merge {
    /// Hands closed windows to the merger, and makes the rows of those that nobody can touch any more.
    fn close(
        &mut self,
        pipeline: &PipelineContext,
        watermark: i64,
        partials: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>> {
        let Some(merger) = &pipeline.merger else {
            return Ok(partials);
        };
        // The merger's lock is for window closes, not for batches.
        if partials.is_empty() && !self.crosses_window(watermark) {
            return Ok(vec![]);
        }
        self.told = watermark;
        let ready = merger.lock().close(pipeline.index, watermark, partials)?;
        if self.spec.window.is_some() {
            self.merged += ready.len() as u64;
        }
        ready.iter().map(|complete| merge_window(&self.spec, complete)).collect()
    }

    fn crosses_window(&self, watermark: i64) -> bool {
        let grain = self.spec.window.as_ref().map(|window| window.shape.grain().max(1));
        let index = |watermark: i64| grain.map(|grain| watermark.div_euclid(grain));
        watermark == WATERMARK_MAX || index(watermark) != index(self.told)
    }
}

impl Stream for OperatorStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(batch) = self.output.pop_front() {
                return Poll::Ready(Some(Ok(batch)));
            }
            if self.finished {
                return Poll::Ready(None);
            }
            let worked = match ready!(self.input.poll_next_unpin(cx)) {
                Some(Ok(batch)) => self.push(&batch),
                Some(Err(error)) => Err(error),
                None => self.finish(),
            };
            if let Err(error) = worked {
                self.finished = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl RecordBatchStream for OperatorStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
