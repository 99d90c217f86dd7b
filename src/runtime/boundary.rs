//! The plan node where pipelines end and meet.
//!
//! Below it, a partition is one pipeline (a piece of the data); above it, a partition is one worker, which runs one
//! pipeline after the other. Above is plain DataFusion.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties, SendableRecordBatchStream, displayable,
};
use parking_lot::Mutex;

use crate::checkpoint::Fingerprint;
use crate::config::StreamlinesOptions;
use crate::error::Error;
use crate::exec::operator::OperatorExec;
use crate::exec::scan::StreamScanExec;
use crate::exec::state_size::StateSize;
use crate::exec::{find, streaming_properties};
use crate::operator::{Merger, WATERMARK_MIN, watermark_behind};
use crate::plan::{RoutingKind, Routings};
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
    /// For how many workers the data is divided.
    divided_for: usize,
    joins_batches: bool,
    runs: Arc<Runs>,
    properties: Arc<PlanProperties>,
}

impl PipelinesExec {
    /// Runs `input`, whose data is divided for so many workers, by a strategy, with at most `workers` pipelines at once.
    pub(crate) fn new(
        input: Arc<dyn ExecutionPlan>,
        strategy: Arc<dyn Strategy>,
        routing: Routings,
        workers: usize,
        divided_for: usize,
    ) -> Self {
        let pipelines = start_watermarks(&input).len();
        let workers = strategy.workers(workers.min(pipelines).max(1));
        let properties = streaming_properties(input.schema(), workers);
        Self { input, strategy, routing, workers, divided_for, joins_batches: false, runs: Arc::default(), properties }
    }

    /// The same for a tail that sorts all rows: it gets larger batches than the pipelines give.
    pub(crate) fn joining_batches(&self) -> Self {
        Self { joins_batches: true, ..self.over(Arc::clone(&self.input)) }
    }

    /// The same node, and the same executions, over another input.
    fn over(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        let Self { joins_batches, runs, .. } = self;
        let node = Self::new(input, Arc::clone(&self.strategy), self.routing.clone(), self.workers, self.divided_for);
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

    /// The most pipelines that run at once.
    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// How many rows are handed over at once, if they are.
    pub(super) fn handoff_rows(&self) -> Option<usize> {
        self.strategy.handoff_rows()
    }

    /// How many pipelines there are.
    pub(super) fn pipelines(&self) -> usize {
        start_watermarks(&self.input).len()
    }

    /// Rows that have left each of them in the last run, and in those that it goes on from.
    pub(super) fn rows_out(&self) -> Vec<u64> {
        let run = self.runs.latest();
        let metrics = run.iter().flat_map(|run| run.metrics());
        metrics.map(|metrics| metrics.rows_out.load(Ordering::Relaxed)).collect()
    }

    /// Tells the user something.
    pub(super) fn warn(&self, warning: &str) {
        self.scan().iter().for_each(|scan| scan.replay().warn(warning.to_string()));
    }

    /// The schema of the pipelines' rows.
    pub(super) fn rows_schema(&self) -> SchemaRef {
        self.input.schema()
    }

    /// What one worker runs.
    pub(super) fn work(&self, worker: usize, task: &Arc<TaskContext>) -> Work {
        let run = self.runs.join(task, worker, || self.start());
        let schedule = Schedule::of(task, self.workers, self.scan().map(|scan| scan.replay().as_ref()));
        Work { run, runs: Arc::clone(&self.runs), plan: Arc::clone(&self.input), task: Arc::clone(task), schedule }
    }

    /// What tells these pipelines from others.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let plan = displayable(self.input.as_ref()).indent(false).to_string();
        // Whether DataFusion puts that in depends on what is above.
        let nodes = plan.lines().map(str::trim).filter(|node| *node != "CooperativeExec");
        Fingerprint {
            version: env!("CARGO_PKG_VERSION").to_string(),
            plan: nodes.map(|node| StateSize::left_out_of(node).to_string()).collect(),
            pipelines: format!("{} pipelines, {}", start_watermarks(&self.input).len(), self.routing),
            divided_for: self.divided_for,
            source: self.scan().map_or(vec![], |scan| scan.replay().versions()),
            output: String::new(),
        }
    }

    /// Whether each of the pipelines can save itself.
    ///
    /// # Errors
    /// What cannot be saved.
    pub(super) fn check_saves(&self, options: &StreamlinesOptions) -> Result<()> {
        let error = |what: String, help: &str| Err(Error::sql(what).help(help.to_string()).into());
        if !options.late.is_empty() && !options.late.ends_with('/') {
            let what = "checkpoints with a ledger of late rows that is no folder".to_string();
            return error(what, "end its path in /: late rows come there epoch by epoch; or RESET streamlines.late");
        }
        if let Some(scan) = self.scan().filter(|scan| scan.table().is_read_once()) {
            let what = format!("checkpoints of stream {}, whose rows come only once", scan.table().name());
            return error(
                what,
                "write them to the end of a file, and follow that; or RESET streamlines.checkpoint_dir",
            );
        }
        match self.routing.has(RoutingKind::Exchange) {
            true => error(
                "checkpoints with the routing exchange, under which rows are between pipelines".to_string(),
                "RESET streamlines.routing",
            ),
            false => Ok(()),
        }
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
        let output = self.strategy.rows(self.work(worker, &task));
        let output = Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), output));
        Ok(match self.joins_batches {
            true => joined(output, task.session_config().batch_size()),
            false => output,
        })
    }
}
