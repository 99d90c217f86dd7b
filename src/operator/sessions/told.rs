//! What has been told of sessions and what is still to be told, where changes are told now and then.
//!
//! A session is known by its key and bounds, so of one whose bounds have changed the row that was told is withdrawn.
//! Its values are put by before they change.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::{Field, Schema, UInt64Type};
use datafusion::common::{Result, internal_datafusion_err};

use super::bounds::{self, Bounds};
use super::ends::SessionEnds;
use super::open::{OpenSessions, Session};
use super::row_changes::Told;
use crate::operator::WATERMARK_MAX;
use crate::operator::accumulators::RunningAggregates;
use crate::operator::changes::{Op, Ops};

/// Where a row of values lies: which columns, and which of their rows.
type Place = (usize, usize);

/// What has been told of each session.
pub(super) struct ToldSessions {
    ops: Ops,
    gap: i64,
    slots: Vec<Slot>,
    /// Slots whose change is to be told; of some the session has gone since.
    changed: Vec<usize>,
    /// What was told of sessions that were joined to others since.
    gone: Vec<Gone>,
    /// Values that were told and have changed since: columns, each time that some were put by.
    before: Vec<Vec<ArrayRef>>,
    /// When the sessions end that have not been told of, if that is when they are.
    ends: Option<SessionEnds>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// The bounds that were told.
    told: Option<Bounds>,
    /// The values that were told, if they have changed since and are wanted.
    place: Option<Place>,
    is_changed: bool,
}

struct Gone {
    key: usize,
    bounds: Bounds,
    place: Place,
}

/// Rows to tell.
#[derive(Default)]
struct Rows {
    ops: Vec<Op>,
    bounds: Vec<Bounds>,
    keys: Vec<usize>,
    places: Vec<Place>,
}

impl Rows {
    fn push(&mut self, op: Op, bounds: Bounds, key: usize, place: Place) {
        self.ops.push(op);
        self.bounds.push(bounds);
        self.keys.push(key);
        self.places.push(place);
    }
}

impl ToldSessions {
    /// Sessions of which nothing has been told; `at_end` says whether they are told of when they end.
    pub(super) fn new(ops: Ops, gap: i64, at_end: bool) -> Self {
        let ends = at_end.then(SessionEnds::default);
        Self { ops, gap, slots: vec![], changed: vec![], gone: vec![], before: vec![], ends }
    }

    /// Notes that the values of sessions are about to change; their bounds have already.
    pub(super) fn note(
        &mut self,
        sessions: impl Iterator<Item = Session>,
        slots_total: usize,
        aggregates: &mut RunningAggregates,
    ) -> Result<()> {
        self.slots.resize(slots_total.max(self.slots.len()), Slot::default());
        let mut known = vec![];
        for session in sessions {
            let entry = &mut self.slots[session.slot];
            if let (Some(ends), None) = (&mut self.ends, entry.told) {
                ends.note(session.slot, session.bounds.end(self.gap));
                continue;
            }
            if std::mem::replace(&mut entry.is_changed, true) {
                continue;
            }
            self.changed.push(session.slot);
            if entry.told.is_some() && self.ops != Ops::None {
                entry.place = Some((self.before.len(), known.len()));
                known.push(session.slot);
            }
        }
        if !known.is_empty() {
            self.before.push(aggregates.values(&known)?);
        }
        Ok(())
    }

    /// Notes that a session, which was noted, has been joined to another.
    pub(super) fn join(&mut self, slot: usize, key: usize) {
        let Slot { told, place, .. } = self.take(slot);
        if let (Some(bounds), Some(place)) = (told, place) {
            self.gone.push(Gone { key, bounds, place });
        }
    }

    /// Forgets the session of a slot.
    pub(super) fn forget(&mut self, slot: usize) {
        self.take(slot);
    }

    fn take(&mut self, slot: usize) -> Slot {
        self.ends.iter_mut().for_each(|ends| ends.forget(slot));
        self.slots.get_mut(slot).map(std::mem::take).unwrap_or_default()
    }

    /// The slots of which something is to be told, now that the watermark has come to `reached`.
    pub(super) fn due(&mut self, reached: i64, sessions: &OpenSessions) -> Vec<usize> {
        let mut due = std::mem::take(&mut self.changed);
        // A session may have gone, and its slot may have another.
        due.retain(|slot| self.slots[*slot].is_changed);
        due.sort_unstable();
        due.dedup();
        let gap = self.gap;
        let ends_of = |slots: &[u32], ends: &mut Vec<i64>| {
            ends.extend(slots.iter().map(|slot| sessions.session(*slot as usize).bounds.end(gap)));
        };
        let ended = self.ends.iter_mut().flat_map(|ends| ends.take_due(reached, ends_of));
        due.extend(ended.map(|(_, slot)| slot as usize));
        due
    }

    /// Whether something is to be told of a session that is there no longer.
    pub(super) fn is_untold(&self, slot: usize) -> bool {
        self.slots.get(slot).is_none_or(|slot| slot.is_changed || slot.told.is_none())
    }

    /// Tells what has changed of sessions, in their order, and of those that were joined to others. What ends after
    /// `reached` is not told, and withdrawn if it was.
    pub(super) fn tell(
        &mut self,
        sessions: &[Session],
        reached: i64,
        aggregates: &mut RunningAggregates,
    ) -> Result<Option<Told>> {
        let (mut rows, mut now) = (Rows::default(), vec![]);
        for Gone { key, bounds, place } in self.gone.drain(..) {
            rows.push(Op::Delete, bounds, key, place);
        }
        let after = self.before.len();
        for session in sessions {
            let Session { slot, key, bounds } = *session;
            let Slot { told, place, .. } = self.take(slot);
            let has_ended = reached == WATERMARK_MAX || session.bounds.end(self.gap) <= reached;
            let stays = has_ended && told == Some(bounds);
            if let (Some(told), Some(place)) = (told, place) {
                match stays {
                    true if self.ops == Ops::Retractions => rows.push(Op::Before, told, key, place),
                    true => {}
                    false => rows.push(Op::Delete, told, key, place),
                }
            }
            if has_ended {
                rows.push(if stays { Op::After } else { Op::Insert }, bounds, key, (after, now.len()));
                now.push(slot);
                self.slots[slot].told = Some(bounds);
            } else if let Some(ends) = &mut self.ends {
                ends.note(slot, session.bounds.end(self.gap));
            }
        }
        let after = aggregates.values(&now)?;
        let values = after.iter().enumerate().map(|(index, after)| self.values(index, after, &rows.places));
        let values = values.collect::<Result<_>>()?;
        if !self.changed.iter().any(|slot| self.slots[*slot].is_changed) {
            self.changed.clear();
            self.before.clear();
        }
        let Rows { ops, bounds, keys, .. } = rows;
        Ok((!ops.is_empty()).then_some(Told { ops, bounds, keys, values }))
    }

    /// Values of an aggregate: those that were put by, and others after them.
    fn values(&self, index: usize, others: &ArrayRef, places: &[Place]) -> Result<ArrayRef> {
        let mut columns: Vec<&dyn Array> = self.before.iter().map(|columns| columns[index].as_ref()).collect();
        columns.push(others.as_ref());
        Ok(interleave(&columns, places)?)
    }

    /// What was told of sessions, and of those that were joined to others: bounds, and values that have changed since.
    pub(super) fn state(&self, sessions: &[Session]) -> Result<[RecordBatch; 2]> {
        let slot = |session: &Session| self.slots.get(session.slot).copied().unwrap_or_default();
        let slots: Vec<Slot> = sessions.iter().map(slot).collect();
        let mut told = bounds::columns(&slots.iter().map(|slot| slot.told.unwrap_or(Bounds::NONE)).collect::<Vec<_>>());
        told.push(Arc::new(BooleanArray::from_iter(slots.iter().map(|slot| Some(slot.told.is_some())))));
        told.push(Arc::new(BooleanArray::from_iter(slots.iter().map(|slot| Some(slot.is_changed)))));
        told.extend(self.put_by(slots.iter().map(|slot| slot.place))?);
        let mut gone = bounds::columns(&self.gone.iter().map(|gone| gone.bounds).collect::<Vec<_>>());
        // What a session was joined to is open, and has its key.
        let of_key = |gone: &Gone| sessions.iter().position(|session| session.key == gone.key).map(|row| row as u64);
        gone.push(Arc::new(UInt64Array::from_iter(self.gone.iter().map(of_key))));
        gone.extend(self.put_by(self.gone.iter().map(|gone| Some(gone.place)))?);
        Ok([unnamed(told)?, unnamed(gone)?])
    }

    /// The values at some places, null where there is none.
    fn put_by(&self, places: impl Iterator<Item = Option<Place>>) -> Result<Vec<ArrayRef>> {
        let places: Vec<Place> = places.map(|place| place.unwrap_or((self.before.len(), 0))).collect();
        let all = self.before.first().map_or(&[][..], Vec::as_slice).iter().enumerate();
        all.map(|(index, column)| self.values(index, &new_null_array(column.data_type(), 1), &places)).collect()
    }

    /// Puts such a state of sessions, whose slots are their places in it, into a fresh one.
    pub(super) fn restore(&mut self, sessions: &[Session], state: &[RecordBatch]) -> Result<()> {
        let wrong = || internal_datafusion_err!("the state of sessions that are told otherwise");
        let [told, gone] = state else { return Err(wrong()) };
        let [starts, lasts, is_told, is_changed, before @ ..] = told.columns() else { return Err(wrong()) };
        let is_told = is_told.as_boolean_opt().ok_or_else(wrong)?;
        let is_changed = is_changed.as_boolean_opt().ok_or_else(wrong)?;
        let bounds = bounds::from_columns(starts, lasts).ok_or_else(wrong)?;
        for (row, session) in sessions.iter().enumerate() {
            let told = is_told.value(row).then_some(bounds[row]);
            let (is_changed, wants_place) = (is_changed.value(row), told.is_some() && !before.is_empty());
            let place = (is_changed && wants_place).then_some((0, row));
            self.slots.push(Slot { told, place, is_changed });
            self.changed.extend(is_changed.then_some(session.slot));
            if let (Some(ends), None) = (&mut self.ends, told) {
                ends.note(session.slot, session.bounds.end(self.gap));
            }
        }
        let [starts, lasts, keys, values @ ..] = gone.columns() else { return Err(wrong()) };
        let keys = keys.as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?;
        let bounds = bounds::from_columns(starts, lasts).ok_or_else(wrong)?;
        for (row, (bounds, of_key)) in bounds.into_iter().zip(keys.values()).enumerate() {
            let key = sessions.get(*of_key as usize).ok_or_else(wrong)?.key;
            self.gone.push(Gone { key, bounds, place: (1, row) });
        }
        if !before.is_empty() {
            self.before = vec![before.to_vec(), values.to_vec()];
        }
        Ok(())
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        let before = self.before.iter().flatten().map(|column| column.get_array_memory_size());
        let ends = self.ends.as_ref().map_or(0, SessionEnds::size);
        let slots = self.slots.capacity() * size_of::<Slot>() + self.changed.capacity() * size_of::<usize>();
        slots + self.gone.capacity() * size_of::<Gone>() + before.sum::<usize>() + ends
    }
}

fn unnamed(columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let field = |(index, column): (usize, &ArrayRef)| Field::new(format!("c{index}"), column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>());
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}
