//! When sessions end, so that closing some costs little where many are open.

/// Slots of a block.
const BLOCK: usize = 64;
/// The end of a slot whose session no watermark ends, or that is free.
const NEVER: i64 = i64::MAX;

/// The end of the session of each slot, dense because every batch may look for those that have come, and the earliest of
/// each block of slots.
#[derive(Default)]
pub(super) struct SessionEnds {
    ends: Vec<i64>,
    /// No session of the block ends before. Ends that are put off leave it as it is until somebody looks.
    earliest: Vec<i64>,
}

impl SessionEnds {
    /// Notes the end of a slot's new session.
    pub(super) fn begin(&mut self, slot: usize, end: i64) {
        if slot >= self.ends.len() {
            self.ends.resize((slot / BLOCK + 1) * BLOCK, NEVER);
            self.earliest.resize(slot / BLOCK + 1, NEVER);
        }
        self.ends[slot] = end;
        let earliest = &mut self.earliest[slot / BLOCK];
        *earliest = end.min(*earliest);
    }

    /// Puts the end of a slot's session off.
    pub(super) fn put_off(&mut self, slot: usize, end: i64) {
        self.ends[slot] = end;
    }

    /// Forgets a slot's session, if it has one that ends.
    pub(super) fn forget(&mut self, slot: usize) {
        if let Some(end) = self.ends.get_mut(slot) {
            *end = NEVER;
        }
    }

    /// Takes out the ends at or before the watermark, with their slots.
    pub(super) fn take_due(&mut self, watermark: i64) -> Vec<(i64, u32)> {
        let mut due = vec![];
        for (block, earliest) in self.earliest.iter_mut().enumerate().filter(|(_, earliest)| **earliest <= watermark) {
            let first = block * BLOCK;
            *earliest = NEVER;
            for (slot, end) in self.ends[first..first + BLOCK].iter_mut().enumerate() {
                if *end > watermark {
                    *earliest = (*end).min(*earliest);
                } else if *end != NEVER {
                    due.push((std::mem::replace(end, NEVER), (first + slot) as u32));
                }
            }
        }
        due
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        (self.ends.capacity() + self.earliest.capacity()) * size_of::<i64>()
    }
}
