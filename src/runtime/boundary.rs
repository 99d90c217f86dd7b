//! The plan node where pipelines end and meet.
//!
//! Below it, a partition is one pipeline (a piece of the data); above it, a partition is one worker, which runs one
//! pipeline after the other. Above is plain DataFusion.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties, SendableRecordBatchStream,
};
use parking_lot::Mutex;

use crate::exec::operator::OperatorExec;
use crate::exec::scan::StreamScanExec;
use crate::exec::{find, streaming_properties};
use crate::operator::{Merger, WATERMARK_MIN, watermark_behind};
use crate::plan::Routings;
use crate::source::Schedule;

use super::joined::joined;
use super::run::{Run, Runs};
use super::strategy::Strategy;
use super::work::Work;

/// Runs the plan below it as independent pipelines.
#[derive(Debug)]
pub(crate) struct PipelinesExec {
    input: Arc<dyn ExecutionPlan>,
    strategy: Arc<dyn Strategy>,
    routing: Routings,
    workers: usize,
    joins_batches: bool,
    runs: Arc<Runs>,
    properties: Arc<PlanProperties>,
}

impl PipelinesExec {
    /// Runs `input` by a strategy, with at most `workers` pipelines at once.
    pub(crate) fn new(
        input: Arc<dyn ExecutionPlan>,
        strategy: Arc<dyn Strategy>,
        routing: Routings,
        workers: usize,
    ) -> Self {
        let pipelines = start_watermarks(&input).len();
        let workers = strategy.workers(workers.min(pipelines).max(1));
        let properties = streaming_properties(input.schema(), workers);
        Self { input, strategy, routing, workers, joins_batches: false, runs: Arc::default(), properties }
    }

    /// The same for a tail that sorts all rows: it gets larger batches than the pipelines give.
    pub(crate) fn joining_batches(&self) -> Self {
        Self { joins_batches: true, ..self.over(Arc::clone(&self.input)) }
    }

    /// The same node, and the same executions, over another input.
    fn over(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        let Self { joins_batches, runs, .. } = self;
        let node = Self::new(input, Arc::clone(&self.strategy), self.routing.clone(), self.workers);
        Self { joins_batches: *joins_batches, runs: Arc::clone(runs), ..node }
    }

    /// The executions of this node.
    pub(crate) fn runs(&self) -> &Arc<Runs> {
        &self.runs
    }

    /// The leaf that the pipelines read.
    pub(crate) fn scan(&self) -> Option<&StreamScanExec> {
        find::<StreamScanExec>(&self.input)
    }

    fn start(&self) -> Run {
        let starts = start_watermarks(&self.input);
        let merger = |operator: &OperatorExec| {
            let (spec, bounds) = (operator.spec().merged()?, operator.bounds());
            let starts = starts.iter().map(|start| watermark_behind(&bounds, *start)).collect();
            Some(Arc::new(Mutex::new(Merger::new(Arc::clone(spec), starts))))
        };
        Run::new(starts.len(), OperatorExec::all(&self.input).into_iter().map(merger).collect())
    }
}

/// The watermark that each pipeline starts with. Where the optimizer has found that no row can pass and has taken the
/// scan away, one pipeline without input says so.
fn start_watermarks(input: &Arc<dyn ExecutionPlan>) -> Vec<i64> {
    match find::<StreamScanExec>(input) {
        Some(scan) => scan.replay().pieces().iter().map(|piece| piece.start_watermark).collect(),
        None => vec![WATERMARK_MIN],
    }
}

impl DisplayAs for PipelinesExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let pipelines = start_watermarks(&self.input).len();
        write!(f, "PipelinesExec: strategy={}, {}, pipelines={pipelines}", self.strategy, self.routing)
    }
}

impl ExecutionPlan for PipelinesExec {
    fn name(&self) -> &str {
        "PipelinesExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
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
        Ok(Arc::new(self.over(children.remove(0))))
    }
    fn execute(&self, worker: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let run = self.runs.join(&task, worker, || self.start());
        let (runs, plan) = (Arc::clone(&self.runs), Arc::clone(&self.input));
        let schedule = Schedule::of(&task, self.workers);
        let work = Work { run, runs, plan, task: Arc::clone(&task), schedule };
        let output = self.strategy.rows(work);
        let output = Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), output));
        Ok(match self.joins_batches {
            true => joined(output, task.session_config().batch_size()),
            false => output,
        })
    }
}
