//! The sessions that rows may still come to, by key, and what a row does to them.

use arrow::array::{Array, PrimitiveArray};
use arrow::datatypes::Int64Type;
use datafusion::common::{Result, internal_datafusion_err};

use super::ends::SessionEnds;
use crate::operator::WindowShape;
use crate::operator::aggregate_spec::AggregateSpec;

/// What tells sessions apart, in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Apart {
    pub(super) gap: i64,
    /// How long sessions that have ended wait for rows that join them.
    pub(super) wait: i64,
}

impl Apart {
    pub(super) fn of(groups: &AggregateSpec) -> Result<Self> {
        match groups.window.as_ref().map(|window| &window.shape) {
            Some(WindowShape::Session { gap, wait }) => Ok(Self { gap: *gap, wait: *wait }),
            _ => Err(internal_datafusion_err!("windows that are no sessions")),
        }
    }

    /// The watermark behind which no row can join a session.
    fn leaves(self, last: i64) -> i64 {
        last.saturating_add(self.gap).saturating_add(self.wait)
    }
}

/// The first and last event time of a session; none for rows without one.
pub(super) type Bounds = Option<(i64, i64)>;

/// The rows of a batch that are not late, and the sessions that they are in.
#[derive(Default)]
pub(super) struct Placed {
    pub(super) rows: Vec<u32>,
    pub(super) slots: Vec<usize>,
    /// For each row, if that was asked for, the bounds of the session after it, and before it if it was there.
    pub(super) bounds: Vec<(Bounds, Option<Bounds>)>,
    /// The other rows, with the bounds of the sessions that each would be by itself.
    pub(super) late: Vec<(usize, (i64, i64))>,
    /// In the order of the rows.
    pub(super) joins: Vec<Join>,
}

/// Two sessions that a row brings together, with their bounds before the row.
pub(super) struct Join {
    /// Which of the placed rows it is.
    pub(super) at: usize,
    /// The row's session.
    pub(super) into: (usize, Bounds),
    /// The one that is no more.
    pub(super) from: (usize, Bounds),
}

/// Where a row's session is, and the bounds of the session.
struct Place {
    slot: usize,
    bounds: Bounds,
    before: Option<Bounds>,
}

/// A session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    pub(super) slot: usize,
    pub(super) key: usize,
    pub(super) bounds: Bounds,
}

impl Session {
    /// When it ends, if sessions are `gap` apart; never without a time.
    pub(super) fn end(&self, gap: i64) -> i64 {
        self.bounds.map_or(i64::MAX, |(_, last)| last.saturating_add(gap))
    }
}

/// What is kept of a session, small because every row looks one up.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// [`NO_TIME`] for rows without one.
    start: i64,
    last: i64,
    /// Sessions are numbered in the order in which they began; [`GONE`] if the session is no more.
    number: u64,
    key: u32,
    /// The slot of the key's next session, which began before.
    next: u32,
}

const NONE: u32 = u32::MAX;
const GONE: u64 = u64::MAX;
/// Rows whose sessions are fetched at once: so few that they stay near.
const FETCHED: usize = 256;
/// So far apart, and the wrong way round, that no row is near.
const NO_TIME: (i64, i64) = (i64::MAX, i64::MIN);

impl Slot {
    fn is_open(&self) -> bool {
        self.number != GONE
    }

    fn bounds(&self) -> Bounds {
        let bounds = (self.start, self.last);
        (bounds != NO_TIME).then_some(bounds)
    }
}

/// Open sessions: a list for each key, in slots that are used again. The session that begins last comes first, for most
/// rows come to it; before it those without a time.
pub(super) struct OpenSessions {
    apart: Apart,
    slots: Vec<Slot>,
    /// The slot of each key's first session.
    heads: Vec<u32>,
    free: Vec<u32>,
    /// Slots of sessions that were joined to others in the batch at hand.
    joined: Vec<u32>,
    open: usize,
    began: u64,
    /// When each is left.
    ends: SessionEnds,
}

impl OpenSessions {
    pub(super) fn new(apart: Apart) -> Self {
        let ends = SessionEnds::default();
        Self { apart, slots: vec![], heads: vec![], free: vec![], joined: vec![], open: 0, began: 0, ends }
    }

    /// Finds the sessions of a batch's rows, given their keys, and leaves out late ones. What was joined stays in its
    /// slot until [`OpenSessions::release_joined`].
    pub(super) fn place(
        &mut self,
        keys: &[usize],
        keys_total: usize,
        times: &PrimitiveArray<Int64Type>,
        watermark: i64,
        wants_bounds: bool,
    ) -> Placed {
        self.heads.resize(keys_total, NONE);
        let (rows, slots) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        let mut placed = Placed { rows, slots, ..Placed::default() };
        for (row, key) in keys.iter().enumerate() {
            if row % FETCHED == 0 {
                self.fetch(&keys[row..keys.len().min(row + FETCHED)]);
            }
            let place = match times.is_valid(row) {
                true => self.place_at(*key, row, times.value(row), watermark, &mut placed),
                false => Some(self.place_nowhere(*key)),
            };
            let Some(place) = place else { continue };
            placed.rows.push(row as u32);
            placed.slots.push(place.slot);
            if wants_bounds {
                placed.bounds.push((place.bounds, place.before));
            }
        }
        placed
    }

    /// Brings the first sessions of keys near, all at once: what a row does hangs on what it finds, so without that each
    /// row would wait for its session from afar before the next one is looked for.
    fn fetch(&self, keys: &[usize]) {
        let last = |key: &usize| self.slots.get(self.heads[*key] as usize).map_or(0, |session| session.last);
        std::hint::black_box(keys.iter().map(last).fold(0, |all, last| all ^ last));
    }

    /// The session of a row at `time`; none if the session that the row is by itself has ended.
    fn place_at(&mut self, key: usize, row: usize, time: i64, watermark: i64, placed: &mut Placed) -> Option<Place> {
        let gap = self.apart.gap;
        let end = time.saturating_add(gap);
        if end <= watermark {
            placed.late.push((row, (time, end)));
            return None;
        }
        let (later, earlier) = self.around(key, time);
        let is_near = |slot: &u32| {
            let session = &self.slots[*slot as usize];
            time.saturating_sub(session.last) < gap && session.start.saturating_sub(time) < gap
        };
        match (later.filter(is_near), earlier.filter(is_near)) {
            (None, None) => {
                let bounds = Some((time, time));
                Some(Place { slot: self.begin(key, bounds, later), bounds, before: None })
            }
            (Some(slot), None) | (None, Some(slot)) => {
                let before = self.extend(slot, (time, time));
                let bounds = self.slots[slot as usize].bounds();
                Some(Place { slot: slot as usize, bounds, before: Some(before) })
            }
            // The session that began first takes the other one in.
            (Some(later), Some(earlier)) => {
                let number = |slot: u32| self.slots[slot as usize].number;
                let is_first = number(later) < number(earlier);
                let (slot, other) = if is_first { (later, earlier) } else { (earlier, later) };
                let of_other = self.slots[other as usize];
                let before = self.extend(slot, (of_other.start, of_other.last));
                self.unlink(other);
                self.ends.forget(other as usize);
                self.joined.push(other);
                let from = (other as usize, of_other.bounds());
                placed.joins.push(Join { at: placed.rows.len(), into: (slot as usize, before), from });
                // Whoever joins them withdraws what was told of each.
                Some(Place { slot: slot as usize, bounds: self.slots[slot as usize].bounds(), before: None })
            }
        }
    }

    /// The key's sessions on both sides of a time: the last one that begins after it, and the one before.
    fn around(&self, key: usize, time: i64) -> (Option<u32>, Option<u32>) {
        let (mut later, mut next) = (None, self.heads[key]);
        while next != NONE && self.slots[next as usize].start > time {
            later = Some(next);
            next = self.slots[next as usize].next;
        }
        (later, (next != NONE).then_some(next))
    }

    /// Extends a session, and gives its bounds before.
    fn extend(&mut self, slot: u32, (start, last): (i64, i64)) -> Bounds {
        let session = &mut self.slots[slot as usize];
        let before = session.bounds();
        session.start = session.start.min(start);
        if last > session.last {
            session.last = last;
            self.ends.put_off(slot as usize, self.apart.leaves(last));
        }
        before
    }

    /// The session of a row without a time: one for each key, which the end of the stream closes.
    fn place_nowhere(&mut self, key: usize) -> Place {
        let mut slot = self.heads[key];
        while slot != NONE {
            let session = &self.slots[slot as usize];
            if session.bounds().is_none() {
                return Place { slot: slot as usize, bounds: None, before: Some(None) };
            }
            slot = session.next;
        }
        Place { slot: self.begin(key, None, None), bounds: None, before: None }
    }

    /// Begins a session, next after the one that `later` says.
    fn begin(&mut self, key: usize, bounds: Bounds, later: Option<u32>) -> usize {
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        let next = match later {
            Some(later) => &mut self.slots[later as usize].next,
            None => &mut self.heads[key],
        };
        let next = std::mem::replace(next, slot);
        let (start, last) = bounds.unwrap_or(NO_TIME);
        let session = Slot { start, last, number: self.began, key: key as u32, next };
        match self.slots.get_mut(slot as usize) {
            Some(free) => *free = session,
            None => self.slots.push(session),
        }
        if bounds.is_some() {
            self.ends.begin(slot as usize, self.apart.leaves(last));
        }
        self.began += 1;
        self.open += 1;
        slot as usize
    }

    /// Takes a session out of its key's list.
    fn unlink(&mut self, slot: u32) {
        let Slot { key, next, .. } = self.slots[slot as usize];
        if self.heads[key as usize] == slot {
            self.heads[key as usize] = next;
        } else {
            let mut at = self.heads[key as usize];
            while at != NONE {
                let before = &mut self.slots[at as usize];
                at = before.next;
                if at == slot {
                    before.next = next;
                }
            }
        }
        self.slots[slot as usize].number = GONE;
        self.open -= 1;
    }

    /// Lets the slots of joined sessions be used again.
    pub(super) fn release_joined(&mut self) {
        self.free.append(&mut self.joined);
    }

    /// Takes out the sessions that no row can join behind the watermark, earliest first; with the last watermark all of them.
    pub(super) fn close(&mut self, watermark: i64) -> Vec<Session> {
        let mut due = self.ends.take_due(watermark);
        due.sort_unstable();
        for together in due.chunk_by_mut(|(end, _), (other, _)| end == other).filter(|slots| slots.len() > 1) {
            together.sort_unstable_by_key(|(_, slot)| self.slots[*slot as usize].number);
        }
        let mut closed: Vec<Session> = due.into_iter().map(|(_, slot)| self.remove(slot)).collect();
        if watermark == i64::MAX {
            closed.extend(self.in_order().into_iter().map(|session| self.remove(session.slot as u32)));
        }
        closed
    }

    fn remove(&mut self, slot: u32) -> Session {
        let session = self.session(slot as usize);
        self.unlink(slot);
        self.free.push(slot);
        session
    }

    /// The session of a slot.
    pub(super) fn session(&self, slot: usize) -> Session {
        let session = &self.slots[slot];
        Session { slot, key: session.key as usize, bounds: session.bounds() }
    }

    /// The open sessions in the order in which they began.
    pub(super) fn in_order(&self) -> Vec<Session> {
        self.sorted((0..self.slots.len()).filter(|slot| self.slots[*slot].is_open()).collect())
    }

    /// The sessions of some slots, in that order.
    pub(super) fn sorted(&self, slots: Vec<usize>) -> Vec<Session> {
        let mut slots = slots;
        slots.sort_unstable_by_key(|slot| self.slots[*slot].number);
        slots.into_iter().map(|slot| self.session(slot)).collect()
    }

    /// Puts sessions in that order into slots of that order.
    pub(super) fn restore(
        &mut self,
        keys: &[usize],
        keys_total: usize,
        starts: &PrimitiveArray<Int64Type>,
        lasts: &PrimitiveArray<Int64Type>,
    ) {
        self.heads.resize(keys_total, NONE);
        for (row, key) in keys.iter().enumerate() {
            let bounds = starts.is_valid(row).then(|| (starts.value(row), lasts.value(row)));
            let later = bounds.and_then(|(start, _)| self.around(*key, start).0);
            self.begin(*key, bounds, later);
        }
    }

    /// The keys of slots.
    pub(super) fn keys(&self, slots: &[usize]) -> Vec<usize> {
        slots.iter().map(|slot| self.slots[*slot].key as usize).collect()
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// How many sessions are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        let places = (self.heads.capacity() + self.free.capacity()) * size_of::<u32>();
        self.slots.capacity() * size_of::<Slot>() + places + self.ends.size()
    }
}
