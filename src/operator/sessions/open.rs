//! The sessions that rows may still come to, by key, and what a row does to them.

use arrow::array::{Array, PrimitiveArray};
use arrow::datatypes::Int64Type;
use datafusion::common::{HashSet, Result, internal_datafusion_err};

use super::bounds::Bounds;
use super::by_end::sort;
use super::ends::SessionEnds;
use super::lists::SessionLists;
use crate::operator::WindowShape;
use crate::operator::aggregate_spec::AggregateSpec;
use crate::operator::near::TOGETHER;
use crate::operator::spill::Warmth;

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

/// The rows of a batch that are not late, and the sessions that they are in.
#[derive(Default)]
pub(super) struct Placed {
    pub(super) rows: Vec<u32>,
    pub(super) slots: Vec<usize>,
    /// For each row, if that was asked for, the bounds of its session after it.
    pub(super) after: Vec<Bounds>,
    /// The same before it, if it was there.
    pub(super) before: Vec<Option<Bounds>>,
    /// The other rows, with the bounds of the sessions that each would be by itself.
    pub(super) late: Vec<(usize, (i64, i64))>,
    /// In the order of the rows.
    pub(super) joins: Vec<Join>,
}

impl Placed {
    /// Room for so many rows.
    fn for_rows(rows: usize, asks: Asks) -> Self {
        Self {
            rows: Vec::with_capacity(rows),
            slots: Vec::with_capacity(rows),
            after: Vec::with_capacity(if asks == Asks::Nothing { 0 } else { rows }),
            before: Vec::with_capacity(if asks == Asks::Both { rows } else { 0 }),
            ..Self::default()
        }
    }
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

/// Which bounds of each row's session are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    Nothing,
    After,
    Both,
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

/// Open sessions, and which slots are free.
pub(super) struct OpenSessions {
    apart: Apart,
    lists: SessionLists,
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
        let (lists, ends) = (SessionLists::default(), SessionEnds::default());
        Self { apart, lists, free: vec![], joined: vec![], open: 0, began: 0, ends }
    }

    /// Finds the sessions of a batch's rows, given their keys, and leaves out late ones. What was joined stays in its
    /// slot until [`OpenSessions::release_joined`].
    pub(super) fn place(
        &mut self,
        keys: &[usize],
        keys_total: usize,
        times: &PrimitiveArray<Int64Type>,
        watermark: i64,
        asks: Asks,
    ) -> Placed {
        self.lists.grow(keys_total);
        // What nobody asks for is left out of the loop over rows.
        match asks {
            Asks::Nothing => self.place_rows::<false>(keys, times, watermark, asks),
            _ => self.place_rows::<true>(keys, times, watermark, asks),
        }
    }

    fn place_rows<const BOUNDS: bool>(
        &mut self,
        keys: &[usize],
        times: &PrimitiveArray<Int64Type>,
        watermark: i64,
        asks: Asks,
    ) -> Placed {
        let mut placed = Placed::for_rows(keys.len(), asks);
        for (row, key) in keys.iter().enumerate() {
            if row % TOGETHER == 0 {
                self.lists.fetch(keys[row..].iter().take(TOGETHER).map(|key| self.lists.head(*key)));
            }
            let place = match times.is_valid(row) {
                true => self.place_at(*key, row, times.value(row), watermark, &mut placed),
                false => Some(self.place_nowhere(*key)),
            };
            let Some(place) = place else { continue };
            placed.rows.push(row as u32);
            placed.slots.push(place.slot);
            if BOUNDS {
                placed.after.push(place.bounds);
            }
            if BOUNDS && asks == Asks::Both {
                placed.before.push(place.before);
            }
        }
        placed
    }

    /// The session of a row at `time`; none if the session that the row is by itself has ended.
    #[inline(always)]
    fn place_at(&mut self, key: usize, row: usize, time: i64, watermark: i64, placed: &mut Placed) -> Option<Place> {
        let end = time.saturating_add(self.apart.gap);
        if end <= watermark {
            placed.late.push((row, (time, end)));
            return None;
        }
        // Most rows come to the session of their key that begins last, or begin one after it: which of the two is
        // anybody's guess, so it is the only thing that is asked of them.
        let (is_near, is_last) = self.lists.first_is_near(key, time, self.apart.gap);
        Some(match (is_near, is_last) {
            (true, _) => {
                let slot = self.lists.head(key);
                let before = self.lists.prolong(slot, time);
                self.come_to(slot, before)
            }
            (false, true) => self.begin_at(key, time, None),
            (false, false) => self.place_among(key, time, placed),
        })
    }

    /// The session of a row that is not after all others of its key.
    #[cold]
    fn place_among(&mut self, key: usize, time: i64, placed: &mut Placed) -> Place {
        let gap = self.apart.gap;
        let (later, earlier) = self.lists.around(key, time);
        let is_near = |slot: &u32| {
            let session = &self.lists.slots[*slot as usize];
            time.saturating_sub(session.bounds.last) < gap && session.bounds.start.saturating_sub(time) < gap
        };
        match (later.filter(is_near), earlier.filter(is_near)) {
            (None, None) => self.begin_at(key, time, later),
            (Some(slot), None) | (None, Some(slot)) => {
                let before = self.lists.extend(slot, Bounds::at(time));
                self.come_to(slot, before)
            }
            // The session that began first takes the other one in.
            (Some(later), Some(earlier)) => {
                let number = |slot: u32| self.lists.slots[slot as usize].number;
                let is_first = number(later) < number(earlier);
                let (slot, other) = if is_first { (later, earlier) } else { (earlier, later) };
                let of_other = self.lists.slots[other as usize];
                self.lists.unlink(other);
                self.open -= 1;
                let before = self.lists.extend(slot, of_other.bounds);
                self.ends.forget(other as usize);
                self.joined.push(other);
                let from = (other as usize, of_other.bounds);
                placed.joins.push(Join { at: placed.rows.len(), into: (slot as usize, before), from });
                // Whoever joins them withdraws what was told of each.
                Place { slot: slot as usize, bounds: self.lists.slots[slot as usize].bounds, before: None }
            }
        }
    }

    /// The place of a row in a session that was there before it.
    #[inline(always)]
    fn come_to(&self, slot: u32, before: Bounds) -> Place {
        Place { slot: slot as usize, bounds: self.lists.slots[slot as usize].bounds, before: Some(before) }
    }

    /// Begins a session with a row, next after the one that `later` says.
    #[inline(always)]
    fn begin_at(&mut self, key: usize, time: i64, later: Option<u32>) -> Place {
        let bounds = Bounds::at(time);
        Place { slot: self.begin(key, bounds, later), bounds, before: None }
    }

    /// The session of a row without a time: one for each key, which the end of the stream closes.
    fn place_nowhere(&mut self, key: usize) -> Place {
        match self.lists.nowhere(key) {
            Some(slot) => Place { slot: slot as usize, bounds: Bounds::NONE, before: Some(Bounds::NONE) },
            None => Place { slot: self.begin(key, Bounds::NONE, None), bounds: Bounds::NONE, before: None },
        }
    }

    /// Begins a session, next after the one that `later` says.
    #[inline(always)]
    fn begin(&mut self, key: usize, bounds: Bounds, later: Option<u32>) -> usize {
        let slot = self.free.pop().unwrap_or(self.lists.slots.len() as u32);
        self.lists.insert(slot, self.began, key, bounds, later);
        if bounds.has_time() {
            self.ends.note(slot as usize, self.apart.leaves(bounds.last));
        }
        self.began += 1;
        self.open += 1;
        slot as usize
    }

    /// Lets the slots of joined sessions be used again.
    pub(super) fn release_joined(&mut self) {
        self.free.append(&mut self.joined);
    }

    /// Takes out the sessions that no row can join behind the watermark, earliest first; with the last watermark all of them.
    pub(super) fn close(&mut self, watermark: i64) -> Vec<Session> {
        let (apart, lists) = (self.apart, &self.lists);
        let mut due = self.ends.take_due(watermark, |slots, ends| {
            lists.fetch(slots.iter().copied());
            ends.extend(slots.iter().map(|slot| apart.leaves(lists.slots[*slot as usize].bounds.last)));
        });
        // What is free is used again in the order of slots, so that sessions that begin together lie together.
        self.free.extend(due.iter().rev().map(|(_, slot)| *slot));
        sort(&mut due);
        for together in due.chunk_by_mut(|(end, _), (next, _)| end == next).filter(|together| together.len() > 1) {
            together.sort_unstable_by_key(|(_, slot)| self.lists.slots[*slot as usize].number);
        }
        let mut closed: Vec<Session> = due.iter().map(|(_, slot)| self.remove(*slot)).collect();
        if watermark == i64::MAX {
            let rest = self.in_order();
            self.free.extend(rest.iter().map(|session| session.slot as u32));
            closed.extend(rest.iter().map(|session| self.remove(session.slot as u32)));
        }
        closed
    }

    fn remove(&mut self, slot: u32) -> Session {
        let session = self.session(slot as usize);
        self.lists.end(slot);
        self.open -= 1;
        session
    }

    /// The session of a slot.
    pub(super) fn session(&self, slot: usize) -> Session {
        let session = &self.lists.slots[slot];
        Session { slot, key: session.key as usize, bounds: session.bounds }
    }

    /// The sessions of the colder half of keys, as they are to go to disk, and the others.
    pub(super) fn by_warmth(&self, warmth: &Warmth) -> (Vec<Session>, Vec<Session>) {
        let open = self.in_order();
        let mut keys: Vec<usize> = open.iter().map(|session| session.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let going: HashSet<usize> = warmth.coldest(keys).into_iter().collect();
        let (mut going, staying): (Vec<Session>, Vec<Session>) =
            open.into_iter().partition(|session| going.contains(&session.key));
        // Those of a page end together.
        going.sort_by_key(|session| self.leaves(session));
        (going, staying)
    }

    /// The open sessions in the order in which they began.
    pub(super) fn in_order(&self) -> Vec<Session> {
        self.sorted((0..self.lists.slots.len()).filter(|slot| self.lists.slots[*slot].is_open()).collect())
    }

    /// The sessions of some slots, in that order.
    pub(super) fn sorted(&self, slots: Vec<usize>) -> Vec<Session> {
        let mut slots = slots;
        slots.sort_unstable_by_key(|slot| self.lists.slots[*slot].number);
        slots.into_iter().map(|slot| self.session(slot)).collect()
    }

    /// Puts sessions into free slots, which it gives; into none but theirs and in that order if there are no others.
    pub(super) fn put(&mut self, keys: &[usize], keys_total: usize, bounds: &[Bounds], numbers: &[u64]) -> Vec<usize> {
        self.lists.grow(keys_total);
        let began = self.began;
        let put = |((key, bounds), number): ((&usize, &Bounds), &u64)| {
            let later = bounds.has_time().then(|| self.lists.around(*key, bounds.start).0).flatten();
            self.began = *number;
            self.begin(*key, *bounds, later)
        };
        let slots = keys.iter().zip(bounds).zip(numbers).map(put).collect();
        let next = numbers.iter().max().map_or(0, |last| last + 1);
        self.began = began.max(next);
        slots
    }

    /// The next session has a number that is as high at least.
    pub(super) fn begin_after(&mut self, began: u64) {
        self.began = self.began.max(began);
    }

    /// The number of the next session.
    pub(super) fn began(&self) -> u64 {
        self.began
    }

    /// In which order a session began.
    pub(super) fn number(&self, session: &Session) -> u64 {
        self.lists.slots[session.slot].number
    }

    /// The watermark behind which no row can join a session.
    pub(super) fn leaves(&self, session: &Session) -> i64 {
        match session.bounds.has_time() {
            true => self.apart.leaves(session.bounds.last),
            false => i64::MAX,
        }
    }

    /// The keys of slots.
    pub(super) fn keys(&self, slots: &[usize]) -> Vec<usize> {
        slots.iter().map(|slot| self.lists.slots[*slot].key as usize).collect()
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.lists.slots.len()
    }

    /// How many sessions are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        self.lists.size() + self.free.capacity() * size_of::<u32>() + self.ends.size()
    }
}
