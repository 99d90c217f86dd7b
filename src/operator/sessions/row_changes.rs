//! What rows say under EMIT CHANGES of the sessions that they come to.

use arrow::array::ArrayRef;
use arrow::compute::interleave;
use datafusion::common::Result;

use super::bounds::Bounds;
use super::open::{Join, OpenSessions, Placed};
use crate::operator::accumulators::{RunningAggregates, Slots};
use crate::operator::aggregate_spec::Evaluated;
use crate::operator::changes::{Op, Ops};
use crate::operator::latest_rows::LatestRows;

/// Where the values of a change come from: those before the batch, or those after one of its rows.
type Source = (usize, usize);

/// Changes of the sessions that the rows of a batch come to.
pub(super) struct SessionChanges {
    ops: Vec<Op>,
    bounds: Vec<Bounds>,
    slots: Vec<usize>,
    /// None if there is one change for each row, with the values after it.
    sources: Option<Vec<Source>>,
    /// Slots whose values before the batch are wanted.
    known: Vec<usize>,
}

/// Changes that are to be told.
pub(super) struct Told {
    pub(super) ops: Vec<Op>,
    pub(super) bounds: Vec<Bounds>,
    pub(super) keys: Vec<usize>,
    pub(super) values: Vec<ArrayRef>,
}

impl SessionChanges {
    /// Of rows that were placed.
    pub(super) fn new(ops: Ops, placed: &Placed, latest: &mut LatestRows) -> Self {
        if ops == Ops::None {
            let (ops, bounds) = (vec![Op::Insert; placed.slots.len()], placed.after.clone());
            return Self { ops, bounds, slots: placed.slots.clone(), sources: None, known: vec![] };
        }
        let mut changes = Self { ops: vec![], bounds: vec![], slots: vec![], sources: Some(vec![]), known: vec![] };
        let mut joins = placed.joins.iter().peekable();
        let bounds = placed.after.iter().zip(&placed.before);
        for (row, (slot, (after, before))) in placed.slots.iter().zip(bounds).enumerate() {
            while let Some(Join { into, from, .. }) = joins.next_if(|join| join.at == row) {
                for (slot, bounds) in [into, from] {
                    changes.push_before(Op::Delete, *bounds, *slot, latest.get(*slot));
                }
            }
            let earlier = latest.replace(*slot, row);
            let is_replaced = *before == Some(*after);
            match before {
                Some(before) if !is_replaced => changes.push_before(Op::Delete, *before, *slot, earlier),
                Some(before) if ops == Ops::Retractions => changes.push_before(Op::Before, *before, *slot, earlier),
                _ => {}
            }
            changes.push(if is_replaced { Op::After } else { Op::Insert }, *after, *slot, (1, row));
        }
        latest.forget(&placed.slots);
        changes
    }

    /// Withdraws what was told of a session, with the values after an earlier row of the batch, or before all of them.
    fn push_before(&mut self, op: Op, bounds: Bounds, slot: usize, earlier: Option<usize>) {
        let source = earlier.map(|row| (1, row)).unwrap_or_else(|| {
            self.known.push(slot);
            (0, self.known.len() - 1)
        });
        self.push(op, bounds, slot, source);
    }

    fn push(&mut self, op: Op, bounds: Bounds, slot: usize, source: Source) {
        self.ops.push(op);
        self.bounds.push(bounds);
        self.slots.push(slot);
        self.sources.iter_mut().for_each(|sources| sources.push(source));
    }

    /// Lets the aggregates take the rows, and tells the changes with their values.
    pub(super) fn tell(
        self,
        rows: &Evaluated,
        slots: Slots,
        aggregates: &mut RunningAggregates,
        sessions: &OpenSessions,
    ) -> Result<Told> {
        let before = aggregates.values(&self.known)?;
        let mut values = aggregates.update(slots, rows)?;
        if let Some(sources) = &self.sources {
            for (before, after) in before.iter().zip(&mut values) {
                *after = interleave(&[before.as_ref(), after.as_ref()], sources)?;
            }
        }
        Ok(Told { ops: self.ops, bounds: self.bounds, keys: sessions.keys(&self.slots), values })
    }
}
