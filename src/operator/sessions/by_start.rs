//! The sessions of keys that have many at once, by their starts: a list would be gone through for each row.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};

/// Sessions that make a key one with many, and how few make it another one again.
pub(super) const MANY: usize = if cfg!(test) { 4 } else { 64 };
const FEW: usize = MANY / 4;

/// The slots of such keys' sessions, those without a time left out.
#[derive(Default)]
pub(super) struct ByStart(HashMap<u32, BTreeMap<i64, u32>>);

impl ByStart {
    /// Whether no key has many, as most times; to be asked first, and without a call.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A key has many sessions: these, with their starts.
    pub(super) fn add_key(&mut self, key: u32, sessions: impl Iterator<Item = (i64, u32)>) {
        self.0.insert(key, sessions.collect());
    }

    /// The sessions on both sides of a time: the first one that begins after it, and the last one before; none for a key that
    /// has few.
    pub(super) fn around(&self, key: u32, time: i64) -> Option<(Option<u32>, Option<u32>)> {
        let sessions = self.0.get(&key)?;
        let later = sessions.range((Excluded(time), Unbounded)).next();
        let earlier = sessions.range(..=time).next_back();
        Some((later.map(|(_, slot)| *slot), earlier.map(|(_, slot)| *slot)))
    }

    /// Adds a session of such a key.
    #[cold]
    pub(super) fn insert(&mut self, key: u32, start: i64, slot: u32) {
        if let Some(sessions) = self.0.get_mut(&key) {
            sessions.insert(start, slot);
        }
    }

    /// Takes one out.
    #[cold]
    pub(super) fn remove(&mut self, key: u32, start: i64) {
        if let Some(sessions) = self.0.get_mut(&key) {
            sessions.remove(&start);
            if sessions.len() < FEW {
                self.0.remove(&key);
            }
        }
    }

    /// Bytes held, about.
    pub(super) fn size(&self) -> usize {
        let sessions = self.0.values().map(BTreeMap::len).sum::<usize>();
        self.0.capacity() * size_of::<(u32, BTreeMap<i64, u32>)>() + sessions * 2 * size_of::<(i64, u32)>()
    }
}
