//! What rows say under EMIT CHANGES of the sessions that they come to.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::compute::interleave;
use datafusion::common::Result;

use super::accumulators::RunningAggregate;
use super::changes::{Op, Ops};
use super::open_sessions::{Bounds, OpenSessions, Placed};

/// Changes of sessions that rows come to, none of which joins two.
pub(super) struct SessionChanges {
    ops: Vec<Op>,
    bounds: Vec<Bounds>,
    slots: Vec<usize>,
    /// Where each change's values come from: those before the rows, or those after one of them.
    sources: Vec<(usize, usize)>,
    /// The values before, of each aggregate.
    before: Vec<ArrayRef>,
    values: Vec<ArrayRef>,
}

/// Changes that are to be told.
pub(super) struct Told {
    pub(super) ops: Vec<Op>,
    pub(super) bounds: Vec<Bounds>,
    pub(super) keys: Vec<usize>,
    pub(super) values: Vec<ArrayRef>,
}

impl SessionChanges {
    /// Of rows that the aggregates have not taken yet.
    pub(super) fn new(ops: Ops, placed: &[Placed], aggregates: &mut [Box<dyn RunningAggregate>]) -> Result<Self> {
        let mut changes =
            Self { ops: vec![], bounds: vec![], slots: vec![], sources: vec![], before: vec![], values: vec![] };
        let (mut latest, mut known) = (HashMap::new(), vec![]);
        for (row, placed) in placed.iter().enumerate() {
            let before = latest.insert(placed.slot, row);
            if let (Some(bounds), true) = (placed.before, ops != Ops::None) {
                let is_replaced = bounds == placed.bounds;
                let op = if is_replaced { Op::Before } else { Op::Delete };
                if !is_replaced || ops == Ops::Retractions {
                    let source = before.map_or_else(
                        || {
                            known.push(placed.slot);
                            (0, known.len() - 1)
                        },
                        |row| (1, row),
                    );
                    changes.push_row(op, bounds, placed.slot, source);
                }
                changes.push_row(
                    if is_replaced { Op::After } else { Op::Insert },
                    placed.bounds,
                    placed.slot,
                    (1, row),
                );
            } else {
                changes.push_row(Op::Insert, placed.bounds, placed.slot, (1, row));
            }
        }
        changes.before = aggregates.iter_mut().map(|aggregate| aggregate.values(&known)).collect::<Result<_>>()?;
        Ok(changes)
    }

    fn push_row(&mut self, op: Op, bounds: Bounds, slot: usize, source: (usize, usize)) {
        self.ops.push(op);
        self.bounds.push(bounds);
        self.slots.push(slot);
        self.sources.push(source);
    }

    /// The values of the next aggregate, after each row.
    pub(super) fn push(&mut self, after: &ArrayRef) -> Result<()> {
        let before = &self.before[self.values.len()];
        self.values.push(interleave(&[before.as_ref(), after.as_ref()], &self.sources)?);
        Ok(())
    }

    /// All changes.
    pub(super) fn finish(self, sessions: &OpenSessions) -> Told {
        Told { ops: self.ops, bounds: self.bounds, keys: sessions.keys(&self.slots), values: self.values }
    }
}
