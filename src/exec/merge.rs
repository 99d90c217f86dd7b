//! What a hosted operator has to do with the merger of its stage, under `merge_on_close`: it hands over what it knows of
//! closed windows, and gives the rows of those that no pipeline can touch any more.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result;
use parking_lot::Mutex;

use crate::operator::{HandedOver, Merger, PartId, SavedPiece, WATERMARK_MAX, WATERMARK_MIN, WindowSpec};

use super::context::PipelineContext;
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
}

impl Merge {
    pub(super) fn of(node: &OperatorExec, pipeline: &PipelineContext) -> Option<Self> {
        node.spec().merged()?;
        let merger = pipeline.mergers.get(node.stage()).cloned().flatten()?;
        let is_last = node.stage() + 1 == pipeline.mergers.len();
        let handed_over = pipeline.saves().then(HandedOver::default);
        Some(Self { spec: node.spec().clone(), merger, is_last, told: WATERMARK_MIN, merged: 0, handed_over })
    }

    /// Goes on from what was saved. The merger knows of it.
    pub(super) fn restore(&mut self, saved: SavedPiece) -> Result<()> {
        (self.told, self.merged) = (saved.watermark, saved.windows);
        match self.spec.merged().zip(self.handed_over.as_mut()) {
            Some((spec, handed_over)) => handed_over.restore(spec, saved.parts),
            None => Ok(()),
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

    /// Hands closed windows to the merger, and makes the rows of those that nobody can touch any more.
    pub(super) fn close(
        &mut self,
        pipeline: usize,
        watermark: i64,
        partials: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>> {
        // The merger's lock is for window closes, not for batches; but who follows must not be ahead of the merger.
        if self.is_last && partials.is_empty() && !self.crosses_window(watermark) {
            return Ok(vec![]);
        }
        self.told = watermark.max(self.told);
        let mut merger = self.merger.lock();
        if let Some((spec, handed_over)) = self.spec.merged().zip(self.handed_over.as_mut()) {
            handed_over.add(spec, &partials)?;
            handed_over.forget(merger.given());
        }
        let ready = merger.close(pipeline, watermark, partials)?;
        drop(merger);
        if self.window().is_some() {
            self.merged += ready.len() as u64;
        }
        self.spec.merge(ready)
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
