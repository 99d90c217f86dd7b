//! What rows say under EMIT CHANGES of the sessions that they come to.

use arrow::array::ArrayRef;
use arrow::compute::interleave;
use datafusion::common::Result;

use super::open::{Bounds, OpenSessions};
use crate::operator::accumulators::RunningAggregates;
use crate::operator::changes::{Op, Ops};
use crate::operator::latest_rows::LatestRows;

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
    /// Of rows that the aggregates have not taken yet, given the slots of their sessions and their bounds after and
    /// before each.
    pub(super) fn new(
        ops: Ops,
        slots: &[usize],
        bounds: &[(Bounds, Option<Bounds>)],
        latest: &mut LatestRows,
        aggregates: &mut RunningAggregates,
    ) -> Result<Self> {
        let mut changes =
            Self { ops: vec![], bounds: vec![], slots: vec![], sources: vec![], before: vec![], values: vec![] };
        let mut known = vec![];
        for (row, (slot, (after, before))) in slots.iter().zip(bounds).enumerate() {
            let earlier = latest.replace(*slot, row);
            let Some(before) = before.filter(|_| ops != Ops::None) else {
                changes.push_row(Op::Insert, *after, *slot, (1, row));
                continue;
            };
            let is_replaced = before == *after;
            if !is_replaced || ops == Ops::Retractions {
                let source = earlier.map(|row| (1, row)).unwrap_or_else(|| {
                    known.push(*slot);
                    (0, known.len() - 1)
                });
                changes.push_row(if is_replaced { Op::Before } else { Op::Delete }, before, *slot, source);
            }
            changes.push_row(if is_replaced { Op::After } else { Op::Insert }, *after, *slot, (1, row));
        }
        latest.forget(slots);
        changes.before = aggregates.values(&known)?;
        Ok(changes)
    }

    fn push_row(&mut self, op: Op, bounds: Bounds, slot: usize, source: (usize, usize)) {
        self.ops.push(op);
        self.bounds.push(bounds);
        self.slots.push(slot);
        self.sources.push(source);
    }

    /// The values of the aggregates after each row.
    pub(super) fn push(&mut self, after: &[ArrayRef]) -> Result<()> {
        for (before, after) in self.before.iter().zip(after) {
            self.values.push(interleave(&[before.as_ref(), after.as_ref()], &self.sources)?);
        }
        Ok(())
    }

    /// All changes.
    pub(super) fn finish(self, sessions: &OpenSessions) -> Told {
        Told { ops: self.ops, bounds: self.bounds, keys: sessions.keys(&self.slots), values: self.values }
    }
}
