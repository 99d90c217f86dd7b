//! Panes that windows share many at a time, brought together once.
//!
//! A window of k panes is made of about √k blocks of √k panes each, and of the panes at its ends that are in no whole
//! block, so what it costs when it closes grows with √k, not with k. Blocks can be made again from their panes, so they
//! are no part of a snapshot.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use datafusion::common::Result;

use super::aggregate_spec::AggregateSpec;
use super::groups::{Groups, state_size};
use super::open_windows::{Slice, Window};
use super::pane::Pane;
use super::window_shape::{WindowShape, round_down};

/// Fewer panes than that are brought together one by one.
const LEAST_PANES: i64 = 6;

/// The blocks that the next window needs again.
pub(super) struct Blocks {
    /// Length of a block in ticks; some of them begin at `offset`.
    width: i64,
    offset: i64,
    known: BTreeMap<i64, Block>,
}

/// The states of some panes as one.
struct Block {
    state: RecordBatch,
    /// The panes, and how often each had changed.
    held: Vec<(i64, u64)>,
}

impl Block {
    fn try_new(spec: &AggregateSpec, panes: &[(Slice, Pane)]) -> Result<Self> {
        let mut groups = Groups::try_new(spec)?;
        for state in panes.iter().flat_map(|(_, pane)| &pane.sealed) {
            groups.merge(spec, &state.to_batch())?;
        }
        Ok(Self { state: groups.into_state(spec)?, held: held(panes).collect() })
    }

    fn is_of(&self, panes: &[(Slice, Pane)]) -> bool {
        held(panes).eq(self.held.iter().copied())
    }
}

fn held(panes: &[(Slice, Pane)]) -> impl Iterator<Item = (i64, u64)> {
    panes.iter().map(|(slice, pane)| (slice.pane, pane.changes))
}

impl Blocks {
    /// Blocks for windows of this shape; none if they have few panes.
    pub(super) fn of(shape: &WindowShape) -> Option<Self> {
        let (size, offset) = match shape {
            WindowShape::Hop { size, offset, .. } | WindowShape::Cumulate { size, offset, .. } => (*size, *offset),
            WindowShape::Tumble(_) | WindowShape::LastTick { .. } | WindowShape::Session { .. } => return None,
        };
        let pane = shape.pane()?;
        let panes = size / pane;
        let width = pane.checked_mul(panes.isqrt()).filter(|_| panes >= LEAST_PANES)?;
        Some(Self { width, offset, known: BTreeMap::new() })
    }

    fn start(&self, pane: i64) -> i64 {
        round_down(i128::from(pane), self.width, self.offset).max(i128::from(i64::MIN)) as i64
    }

    /// Adds the states of a window's panes, which come in order and are all in memory, to `groups`; `stays` says which panes are in the next
    /// window too.
    pub(super) fn merge(
        &mut self,
        spec: &AggregateSpec,
        window: Window,
        panes: &[(Slice, Pane)],
        stays: impl Fn(Slice) -> bool,
        groups: &mut Groups,
    ) -> Result<()> {
        let (mut known, mut kept) = (std::mem::take(&mut self.known), BTreeMap::new());
        for panes in panes.chunk_by(|(left, _), (right, _)| self.start(left.pane) == self.start(right.pane)) {
            // All of them are set aside for later windows.
            if panes.iter().all(|(_, pane)| pane.sealed.is_empty()) {
                continue;
            }
            let start = self.start(panes[0].0.pane);
            let is_whole = window.start <= start && start.saturating_add(self.width) <= window.end;
            let stays = is_whole && stays(panes[0].0);
            let block = match known.remove(&start).filter(|block| is_whole && block.is_of(panes)) {
                None if stays && panes.len() > 1 => Some(Block::try_new(spec, panes)?),
                known => known,
            };
            match &block {
                Some(block) => groups.merge(spec, &block.state)?,
                None => {
                    let mut states = panes.iter().flat_map(|(_, pane)| &pane.sealed);
                    states.try_for_each(|state| groups.merge(spec, &state.to_batch()))?;
                }
            }
            kept.extend(block.filter(|_| stays).map(|block| (start, block)));
        }
        self.known = kept;
        Ok(())
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        self.known.values().map(|block| state_size(&block.state)).sum()
    }
}
