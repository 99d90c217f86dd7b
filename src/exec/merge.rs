//! What a hosted operator has to do with the merger of its stage, under `merge_on_close`: it hands over what it knows of
//! closed windows, and gives the rows of those that no pipeline can touch any more.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryReservation;
use parking_lot::Mutex;

use crate::operator::{
    CompleteWindows, HandedOver, Merger, PartId, SavedPiece, WATERMARK_MAX, WATERMARK_MIN, WindowSpec,
};

use super::context::PipelineContext;
use super::memory::{account, reserve};
use super::operator::{OperatorExec, OperatorSpec};

/// How far this pipeline has told a merger that it has come.
pub(super) struct Merge {
    spec: OperatorSpec,
    merger: Arc<Mutex<Merger>>,
    /// Whether no operator follows.
    is_last: bool,
    told: i64,
    /// Windows that this pipeline has emitted for all.
    pub(super) merged: u64,
    /// What it has handed over, if it saves itself.
    handed_over: Option<HandedOver>,
    /// Whether it has handed anything over since it told how far it has come.
    has_news: bool,
    /// Windows that this pipeline gives.
    complete: CompleteWindows,
    /// Accounts for what it has handed over.
    account: Option<MemoryReservation>,
    task: Arc<TaskContext>,
}

impl Merge {
    pub(super) fn of(node: &OperatorExec, pipeline: &PipelineContext, task: &Arc<TaskContext>) -> Option<Self> {
        node.spec().merged()?;
        let merger = pipeline.mergers.get(node.stage()).cloned().flatten()?;
        let is_last = node.stage() + 1 == pipeline.mergers.len();
        let handed_over = pipeline.saves().then(HandedOver::default);
        let name = || format!("what {}[{}] has handed over", node.spec().name(), pipeline.index);
        Some(Self {
            spec: node.spec().clone(),
            merger,
            is_last,
            told: WATERMARK_MIN,
            merged: 0,
            handed_over,
            has_news: false,
            complete: CompleteWindows::default(),
            account: pipeline.saves().then(|| account(task, name(), true)),
            task: Arc::clone(task),
        })
    }

    /// Goes on from what was saved. The merger knows of it.
    pub(super) fn restore(&mut self, saved: SavedPiece) {
        (self.told, self.merged) = (saved.watermark, saved.windows);
        if let Some(handed_over) = &mut self.handed_over {
            handed_over.restore(saved.parts);
        }
    }

    /// What `pipeline` saves of it, with what is new of it as the part `id`.
    pub(super) fn save(&mut self, pipeline: usize, id: PartId) -> Result<SavedPiece> {
        let (given, epochs) = self.merger.lock().to_save(pipeline);
        let mut parts = vec![];
        if let Some(handed_over) = &mut self.handed_over {
            handed_over.forget(&given);
            parts = handed_over.save(id)?;
        }
        Ok(SavedPiece { watermark: self.told, windows: self.merged, parts, given, epochs })
    }

    /// Hands what is known of closed windows to the merger.
    pub(super) fn hand_over(&mut self, pipeline: usize, partials: Vec<RecordBatch>) -> Result<u64> {
        if partials.is_empty() {
            return Ok(0);
        }
        let shared = Arc::clone(&self.merger);
        let mut merger = shared.lock();
        if let Some((spec, handed_over)) = self.spec.merged().zip(self.handed_over.as_mut()) {
            handed_over.add(spec, &partials)?;
            handed_over.forget(merger.given());
        }
        merger.wait(pipeline, partials)?;
        self.has_news = true;
        self.reserve(&mut merger)
    }

    /// Accounts for what waits in the merger and for what is kept to be saved, after what there is no memory for has gone to
    /// disk; how many bytes it is there.
    fn reserve(&mut self, merger: &mut Merger) -> Result<u64> {
        let (name, disk) = (self.spec.name(), &self.task.runtime_env().disk_manager);
        let waiting = merger.account(|| account(&self.task, format!("the merger of {name}"), true));
        let mut spilled = reserve(&waiting, disk, merger, || format!("The merger of {name}"))?;
        if let Some((account, handed_over)) = self.account.as_ref().zip(self.handed_over.as_mut()) {
            spilled += reserve(account, disk, handed_over, || format!("What {name} saves of merged windows"))?;
        }
        Ok(spilled)
    }

    /// All windows that end by `watermark` have been handed over: takes those that no pipeline can touch any more.
    pub(super) fn close(&mut self, pipeline: usize, watermark: i64) -> Result<()> {
        // The merger's lock is for window closes, not for batches; but who follows must not be ahead of the merger.
        if self.is_last && !self.has_news && !self.crosses_window(watermark) {
            return Ok(());
        }
        self.has_news = false;
        self.told = watermark.max(self.told);
        let complete = self.merger.lock().close(pipeline, watermark)?;
        if self.window().is_some() {
            self.merged += complete.len() as u64;
        }
        self.complete.add(complete);
        Ok(())
    }

    /// The rows of some of the windows that were taken; none if there are no more.
    pub(super) fn more(&mut self) -> Result<Option<Vec<RecordBatch>>> {
        self.spec.merge_next(&mut self.complete)
    }

    fn window(&self) -> Option<&WindowSpec> {
        self.spec.merged()?.window.as_ref()
    }

    fn crosses_window(&self, watermark: i64) -> bool {
        let grain = self.window().map(|window| window.shape.grain().max(1));
        let index = |watermark: i64| grain.map(|grain| watermark.div_euclid(grain));
        watermark == WATERMARK_MAX || index(watermark) > index(self.told)
    }
}
