//! The sessions of each key, in slots that are used again.

use super::bounds::Bounds;
use super::by_start::{ByStart, MANY};
use crate::operator::near::bring_near;

/// What is kept of a session, small because every row looks one up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) bounds: Bounds,
    /// Sessions are numbered in the order in which they began; [`GONE`] if the session is no more.
    pub(super) number: u64,
    pub(super) key: u32,
    /// The slot of the key's next session, which began before; it may have ended since, see [`SessionLists::after`].
    next: u32,
}

const NONE: u32 = u32::MAX;
const GONE: u64 = u64::MAX;

impl Slot {
    pub(super) fn is_open(&self) -> bool {
        self.number != GONE
    }

    fn start(&self) -> i64 {
        self.bounds.start
    }

    fn has_time(&self) -> bool {
        self.bounds.has_time()
    }
}

/// A list of sessions for each key. The session that begins last comes first, for most rows come to it; before it those
/// without a time.
///
/// Sessions of a key end in the order in which they begin, from the end of its list on. So one that ends is not taken
/// out of the list, which would mean to search for the one before it: what points to its slot is known to be of no
/// account any more.
#[derive(Default)]
pub(super) struct SessionLists {
    pub(super) slots: Vec<Slot>,
    /// The slot of each key's first session.
    heads: Vec<u32>,
    by_start: ByStart,
}

impl SessionLists {
    /// Makes room for so many keys.
    pub(super) fn grow(&mut self, keys_total: usize) {
        self.heads.resize(keys_total, NONE);
    }

    /// Brings slots near.
    pub(super) fn fetch(&self, slots: impl Iterator<Item = u32>) {
        bring_near(slots.map(|slot| self.slots.get(slot as usize).map_or(0, |session| session.number)));
    }

    /// The slot where the first session of a key is, or was.
    pub(super) fn head(&self, key: usize) -> u32 {
        self.heads[key]
    }

    /// Whether a row at `time` is less than `gap` after the session of its key that begins last, or in it, and if not,
    /// whether it comes after the beginning of that one.
    #[inline(always)]
    pub(super) fn first_is_near(&self, key: usize, time: i64, gap: i64) -> (bool, bool) {
        let Some(first) = self.slots.get(self.heads[key] as usize) else { return (false, true) };
        let is_first = first.is_open() & (first.key as usize == key);
        let begins_before = first.has_time() & (first.start() <= time);
        let is_near = time.saturating_sub(first.bounds.last) < gap;
        (is_first & begins_before & is_near, !is_first | begins_before)
    }

    /// The key's session that begins last.
    fn first(&self, key: usize) -> Option<(u32, &Slot)> {
        let first = self.slots.get(self.heads[key] as usize);
        let first = first.filter(|first| first.is_open() && first.key as usize == key);
        first.map(|first| (self.heads[key], first))
    }

    /// The one after a session in its key's list. If it has ended, its slot may be free or another session's; one of the
    /// same key that did not come here by way of the list begins later.
    fn after(&self, session: &Slot) -> Option<(u32, &Slot)> {
        // One without a time comes first, and there is one of a key.
        let is_before = |next: &Slot| next.start() < session.start() || (next.has_time() && !session.has_time());
        let is_next = |next: &&Slot| next.is_open() && next.key == session.key && is_before(next);
        self.slots.get(session.next as usize).filter(is_next).map(|next| (session.next, next))
    }

    /// The key's sessions on both sides of a time: the one before which a session at that time would come in the list, and
    /// the one after it.
    pub(super) fn around(&mut self, key: usize, time: i64) -> (Option<u32>, Option<u32>) {
        if !self.by_start.is_empty()
            && let Some((later, earlier)) = self.by_start.around(key as u32, time)
        {
            return (later.or_else(|| self.nowhere(key)), earlier);
        }
        let (mut later, mut next, mut steps) = (None, self.first(key), 0);
        while let Some((slot, session)) = next.filter(|(_, session)| session.start() > time || !session.has_time()) {
            later = Some(slot);
            next = self.after(session);
            steps += 1;
        }
        let earlier = next.map(|(slot, _)| slot);
        if steps > MANY {
            let all = std::iter::successors(self.first(key), |(_, session)| self.after(session));
            let timed = all.filter(|(_, session)| session.has_time()).map(|(slot, session)| (session.start(), slot));
            self.by_start.add_key(key as u32, timed.collect::<Vec<_>>().into_iter());
        }
        (later, earlier)
    }

    /// The key's session without a time.
    pub(super) fn nowhere(&self, key: usize) -> Option<u32> {
        self.first(key).filter(|(_, first)| !first.has_time()).map(|(slot, _)| slot)
    }

    /// Puts a session into a free slot or the one after all of them, next in its key's list to the one that `later` says.
    pub(super) fn insert(&mut self, slot: u32, number: u64, key: usize, bounds: Bounds, later: Option<u32>) {
        let next = match later {
            Some(later) => &mut self.slots[later as usize].next,
            None => &mut self.heads[key],
        };
        let next = std::mem::replace(next, slot);
        if bounds.has_time() && !self.by_start.is_empty() {
            self.by_start.insert(key as u32, bounds.start, slot);
        }
        let session = Slot { bounds, number, key: key as u32, next };
        match self.slots.get_mut(slot as usize) {
            Some(free) => *free = session,
            None => self.slots.push(session),
        }
    }

    /// Extends a session by a row after its start, and gives its bounds before.
    #[inline(always)]
    pub(super) fn prolong(&mut self, slot: u32, time: i64) -> Bounds {
        let bounds = &mut self.slots[slot as usize].bounds;
        let before = *bounds;
        bounds.last = before.last.max(time);
        before
    }

    /// Extends a session, and gives its bounds before.
    pub(super) fn extend(&mut self, slot: u32, by: Bounds) -> Bounds {
        let session = &mut self.slots[slot as usize];
        let before = session.bounds;
        if by.start < before.start && !self.by_start.is_empty() {
            self.by_start.remove(session.key, before.start);
            self.by_start.insert(session.key, by.start, slot);
        }
        session.bounds = before.with(by);
        before
    }

    /// Ends the session of a slot, after which none of its list is left.
    pub(super) fn end(&mut self, slot: u32) {
        let session = &mut self.slots[slot as usize];
        session.number = GONE;
        if !self.by_start.is_empty() {
            self.by_start.remove(session.key, session.start());
        }
    }

    /// Takes a session out of its key's list, where others come after it.
    pub(super) fn unlink(&mut self, slot: u32) {
        let Slot { key, bounds, next, .. } = self.slots[slot as usize];
        match self.around(key as usize, bounds.start).0 {
            Some(before) => self.slots[before as usize].next = next,
            None => self.heads[key as usize] = next,
        }
        self.end(slot);
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.heads.capacity() * size_of::<u32>() + self.by_start.size()
    }
}
