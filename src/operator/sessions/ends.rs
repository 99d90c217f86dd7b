//! When sessions end, so that closing some costs little where many are open.

use crate::operator::near::TOGETHER;

/// Slots of a block.
const BLOCK: usize = 64;
/// The end of a slot whose session no watermark ends, or that is free.
const NEVER: i64 = i64::MAX;

/// When the session of each slot ends, dense because every batch may look for those that have come, and the earliest of
/// each block of slots. Rows put ends off without a word here: an end is asked for when it would have come.
#[derive(Default)]
pub(super) struct SessionEnds {
    /// No session ends before.
    ends: Vec<i64>,
    earliest: Vec<i64>,
}

impl SessionEnds {
    /// Notes that a slot's session ends then or later.
    pub(super) fn note(&mut self, slot: usize, end: i64) {
        if slot >= self.ends.len() {
            self.ends.resize((slot / BLOCK + 1) * BLOCK, NEVER);
            self.earliest.resize(slot / BLOCK + 1, NEVER);
        }
        self.ends[slot] = end;
        let earliest = &mut self.earliest[slot / BLOCK];
        *earliest = end.min(*earliest);
    }

    /// Forgets a slot's session, if it has one that ends.
    pub(super) fn forget(&mut self, slot: usize) {
        if let Some(end) = self.ends.get_mut(slot) {
            *end = NEVER;
        }
    }

    /// Takes out the ends at or before the watermark, with their slots and in the order of these. `ends_of` tells when the
    /// sessions of some slots end.
    pub(super) fn take_due(&mut self, watermark: i64, ends_of: impl Fn(&[u32], &mut Vec<i64>)) -> Vec<(i64, u32)> {
        let watermark = watermark.min(NEVER - 1);
        let noted = self.noted(watermark);
        let (mut due, mut come, mut ends) = (vec![(0, 0); noted.len()], 0, vec![]);
        for slots in noted.chunks(TOGETHER) {
            ends.clear();
            ends_of(slots, &mut ends);
            for (slot, end) in slots.iter().zip(&ends) {
                let has_come = *end <= watermark;
                due[come] = (*end, *slot);
                come += usize::from(has_come);
                self.note(*slot as usize, if has_come { NEVER } else { *end });
            }
        }
        due.truncate(come);
        due
    }

    /// The slots whose sessions end at or before the watermark by what is noted. Which do is anybody's guess, so all are
    /// written, and those that do not are written over.
    fn noted(&mut self, watermark: i64) -> Vec<u32> {
        let (mut noted, mut count) = (vec![], 0);
        for (block, earliest) in self.earliest.iter_mut().enumerate().filter(|(_, earliest)| **earliest <= watermark) {
            let first = block * BLOCK;
            noted.resize(count + BLOCK, 0);
            *earliest = NEVER;
            for (slot, end) in self.ends[first..first + BLOCK].iter().enumerate() {
                let has_come = *end <= watermark;
                noted[count] = (first + slot) as u32;
                count += usize::from(has_come);
                *earliest = if has_come { NEVER } else { *end }.min(*earliest);
            }
        }
        noted.truncate(count);
        noted
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        (self.ends.capacity() + self.earliest.capacity()) * size_of::<i64>()
    }
}
