//! One execution of a plan's pipelines: which have been taken, their counts, and where their windows merge.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use parking_lot::Mutex;

use crate::exec::context::{Mergers, PipelineContext, PipelineMetrics};
use crate::source::Signals;

use super::exchange::Exchange;
use super::ledger::Ledger;

/// One execution of the pipelines below a boundary.
#[derive(Debug)]
pub(crate) struct Run {
    next: AtomicUsize,
    mergers: Mergers,
    metrics: Vec<Arc<PipelineMetrics>>,
    /// The one reader of all pipelines, where there is one, once a pipeline has asked for it.
    exchange: Mutex<Option<Arc<Exchange>>>,
    /// Workers that have begun, so that a second execution under the same task is told apart.
    begun: Mutex<Vec<usize>>,
}

impl Run {
    pub(super) fn new(pipelines: usize, mergers: Mergers) -> Self {
        Self {
            next: AtomicUsize::new(0),
            mergers,
            metrics: (0..pipelines).map(|_| Arc::default()).collect(),
            exchange: Mutex::default(),
            begun: Mutex::new(vec![]),
        }
    }

    /// Takes the next pipeline that no worker has taken, in order of the data.
    pub(super) fn take(&self) -> Option<PipelineContext> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let metrics = self.metrics.get(index)?;
        Some(PipelineContext::new(index, self.mergers.clone(), Arc::clone(metrics)))
    }

    /// The one reader of all pipelines.
    ///
    /// # Errors
    /// What it has to say when it is opened.
    pub(super) fn exchange(&self, start: impl FnOnce() -> Result<Exchange>) -> Result<Arc<Exchange>> {
        let mut exchange = self.exchange.lock();
        let started = match &*exchange {
            Some(started) => Arc::clone(started),
            None => Arc::new(start()?),
        };
        Ok(Arc::clone(exchange.insert(started)))
    }

    /// The merger of each stage, if it has one.
    pub(super) fn mergers(&self) -> &Mergers {
        &self.mergers
    }

    /// The counts of each pipeline.
    pub(crate) fn metrics(&self) -> &[Arc<PipelineMetrics>] {
        &self.metrics
    }

    fn begin(&self, worker: usize) -> bool {
        let mut begun = self.begun.lock();
        let first = !begun.contains(&worker);
        begun.push(worker);
        first
    }
}

/// The executions of one boundary node, told apart by the task context that DataFusion hands to all partitions of
/// one execution.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    current: Mutex<Vec<(Weak<TaskContext>, Arc<Run>)>>,
    latest: Mutex<Option<Arc<Run>>>,
    signals: Arc<Signals>,
    late: Mutex<Option<LedgerPart>>,
}

/// Where the late rows of a plan's pipelines go.
#[derive(Debug, Clone)]
pub(super) struct LedgerPart {
    pub(super) ledger: Arc<Ledger>,
    pub(super) schema: SchemaRef,
    /// The writer of the first pipeline.
    pub(super) first: usize,
}

impl Runs {
    /// The run that `worker` belongs to under `task`: a new one for the first worker, or for one that comes again.
    pub(super) fn join(&self, task: &Arc<TaskContext>, worker: usize, start: impl FnOnce() -> Run) -> Arc<Run> {
        let mut current = self.current.lock();
        current.retain(|(known, _)| known.strong_count() > 0);
        let same = |known: &Weak<TaskContext>| Weak::ptr_eq(known, &Arc::downgrade(task));
        if let Some((_, run)) = current.iter().rev().find(|(known, _)| same(known))
            && run.begin(worker)
        {
            return Arc::clone(run);
        }
        let run = Arc::new(start());
        run.begin(worker);
        current.push((Arc::downgrade(task), Arc::clone(&run)));
        *self.latest.lock() = Some(Arc::clone(&run));
        run
    }

    /// The run that began last.
    pub(crate) fn latest(&self) -> Option<Arc<Run>> {
        self.latest.lock().clone()
    }

    /// Tells every pipeline to read no more.
    pub(crate) fn stop(&self) {
        self.signals.stop();
    }

    /// What those who follow files are told.
    pub(super) fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    /// Tells those who follow files to read what is there, and then to end.
    pub(super) fn drain(&self) {
        self.signals.drain();
    }

    /// Late rows go there from now on.
    pub(super) fn set_ledger(&self, part: LedgerPart) {
        *self.late.lock() = Some(part);
    }

    /// Where late rows go.
    pub(super) fn ledger(&self) -> Option<LedgerPart> {
        self.late.lock().clone()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.signals.is_stopped()
    }
}
