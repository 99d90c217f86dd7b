//! The sessions that rows may still come to, by key, and what a row does to them.

use arrow::array::{Array, PrimitiveArray};
use arrow::datatypes::Int64Type;

/// The first and last event time of a session; none for rows without one.
pub(super) type Bounds = Option<(i64, i64)>;

/// The rows of a batch that are not late, and the sessions that they are in.
#[derive(Default)]
pub(super) struct Placed {
    pub(super) rows: Vec<u32>,
    pub(super) slots: Vec<usize>,
    /// For each row, if that was asked for, the bounds of the session after it, and before it if it was there.
    pub(super) bounds: Vec<(Bounds, Option<Bounds>)>,
    /// The other rows, with the bounds of the sessions that they would make.
    pub(super) late: Vec<(usize, (i64, i64))>,
    /// In the order of the rows.
    pub(super) joins: Vec<Join>,
}

/// Sessions that a row joins to its own.
pub(super) struct Join {
    /// Which of the placed rows it is.
    pub(super) at: usize,
    /// The row's session, and its bounds before the row.
    pub(super) into: (usize, Bounds),
    pub(super) joined: Vec<(usize, Bounds)>,
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
    /// Sessions are numbered in the order in which they began.
    number: u64,
    /// The next session of the key.
    next: Option<u32>,
    is_open: bool,
}

/// Open sessions: a list for each key, in slots that are used again.
pub(super) struct OpenSessions {
    gap: i64,
    slots: Vec<Session>,
    /// The first session of each key.
    heads: Vec<Option<u32>>,
    free: Vec<u32>,
    /// Slots of sessions that were joined to others in the batch at hand.
    joined: Vec<u32>,
    open: usize,
    began: u64,
    /// No session ends before.
    earliest_end: i64,
}

impl OpenSessions {
    pub(super) fn new(gap: i64) -> Self {
        Self {
            gap,
            slots: vec![],
            heads: vec![],
            free: vec![],
            joined: vec![],
            open: 0,
            began: 0,
            earliest_end: i64::MAX,
        }
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
        self.heads.resize(keys_total, None);
        let (rows, slots) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        let mut placed = Placed { rows, slots, ..Placed::default() };
        for (row, key) in keys.iter().enumerate() {
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

    /// The session of a row at `time`; none if the session that it makes has ended.
    fn place_at(&mut self, key: usize, row: usize, time: i64, watermark: i64, placed: &mut Placed) -> Option<Place> {
        let (mut first, mut others) = (None::<u32>, vec![]);
        let (mut start, mut last) = (time, time);
        let mut next = self.heads[key];
        while let Some(slot) = next {
            let session = &self.slots[slot as usize];
            next = session.next;
            let Some((own_start, own_last)) = session.bounds else { continue };
            if time.saturating_sub(own_last) < self.gap && own_start.saturating_sub(time) < self.gap {
                (start, last) = (start.min(own_start), last.max(own_last));
                match first {
                    // The session that began first takes the others in.
                    Some(known) if self.slots[known as usize].number > session.number => {
                        others.push(known);
                        first = Some(slot);
                    }
                    Some(_) => others.push(slot),
                    None => first = Some(slot),
                }
            }
        }
        let end = last.saturating_add(self.gap);
        if end <= watermark {
            placed.late.push((row, (start, end)));
            return None;
        }
        let bounds = Some((start, last));
        let Some(slot) = first.map(|slot| slot as usize) else {
            return Some(Place { slot: self.begin(key, bounds), bounds, before: None });
        };
        let before = std::mem::replace(&mut self.slots[slot].bounds, bounds);
        if others.is_empty() {
            return Some(Place { slot, bounds, before: Some(before) });
        }
        let mut joined = vec![];
        for other in others {
            joined.push((other as usize, self.slots[other as usize].bounds));
            self.unlink(other);
            self.joined.push(other);
        }
        placed.joins.push(Join { at: placed.rows.len(), into: (slot, before), joined });
        // Whoever joins them withdraws what was told of each.
        Some(Place { slot, bounds, before: None })
    }

    /// The session of a row without a time: one for each key, which the end of the stream closes.
    fn place_nowhere(&mut self, key: usize) -> Place {
        let mut next = self.heads[key];
        while let Some(slot) = next {
            let session = &self.slots[slot as usize];
            if session.bounds.is_none() {
                return Place { slot: slot as usize, bounds: None, before: Some(None) };
            }
            next = session.next;
        }
        Place { slot: self.begin(key, None), bounds: None, before: None }
    }

    fn begin(&mut self, key: usize, bounds: Bounds) -> usize {
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        let next = self.heads[key].replace(slot);
        let session = Session { slot: slot as usize, key, bounds, number: self.began, next, is_open: true };
        match self.slots.get_mut(slot as usize) {
            Some(free) => *free = session,
            None => self.slots.push(session),
        }
        self.began += 1;
        self.open += 1;
        if let Some((_, last)) = bounds {
            self.earliest_end = self.earliest_end.min(last.saturating_add(self.gap));
        }
        slot as usize
    }

    /// Takes a session out of its key's list.
    fn unlink(&mut self, slot: u32) {
        let Session { key, next, .. } = self.slots[slot as usize];
        if self.heads[key] == Some(slot) {
            self.heads[key] = next;
        } else {
            let mut at = self.heads[key];
            while let Some(before) = at {
                at = self.slots[before as usize].next;
                if at == Some(slot) {
                    self.slots[before as usize].next = next;
                }
            }
        }
        self.slots[slot as usize].is_open = false;
        self.open -= 1;
    }

    /// Lets the slots of joined sessions be used again.
    pub(super) fn release_joined(&mut self) {
        self.free.append(&mut self.joined);
    }

    /// Takes out the sessions that end at or before the watermark, earliest first; with the last watermark all of them.
    pub(super) fn close(&mut self, watermark: i64) -> Vec<Session> {
        let is_last = watermark == i64::MAX;
        if watermark < self.earliest_end && !is_last {
            return vec![];
        }
        let (mut closed, mut earliest) = (vec![], i64::MAX);
        for session in self.slots.iter().filter(|session| session.is_open) {
            match session.bounds.map(|(_, last)| last.saturating_add(self.gap)) {
                Some(end) if end <= watermark => closed.push((end, *session)),
                Some(end) => earliest = earliest.min(end),
                None if is_last => closed.push((i64::MAX, *session)),
                None => {}
            }
        }
        self.earliest_end = earliest;
        closed.sort_unstable_by_key(|(end, session)| (session.bounds.is_none(), *end, session.number));
        for (_, session) in &closed {
            self.unlink(session.slot as u32);
            self.free.push(session.slot as u32);
        }
        closed.into_iter().map(|(_, session)| session).collect()
    }

    /// The open sessions in the order in which they began.
    pub(super) fn in_order(&self) -> Vec<Session> {
        let mut open: Vec<Session> = self.slots.iter().filter(|session| session.is_open).copied().collect();
        open.sort_unstable_by_key(|session| session.number);
        open
    }

    /// Puts sessions in that order into slots of that order.
    pub(super) fn restore(
        &mut self,
        keys: &[usize],
        keys_total: usize,
        starts: &PrimitiveArray<Int64Type>,
        lasts: &PrimitiveArray<Int64Type>,
    ) {
        self.heads.resize(keys_total, None);
        for (row, key) in keys.iter().enumerate() {
            self.begin(*key, starts.is_valid(row).then(|| (starts.value(row), lasts.value(row))));
        }
    }

    /// The keys of slots.
    pub(super) fn keys(&self, slots: &[usize]) -> Vec<usize> {
        slots.iter().map(|slot| self.slots[*slot].key).collect()
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
        self.slots.capacity() * size_of::<Session>() + self.heads.capacity() * size_of::<Option<u32>>()
    }
}
