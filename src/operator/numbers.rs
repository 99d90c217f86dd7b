//! Numbers that stand for something, numbered anew in the order of their first rows.

use arrow::array::{ArrayRef, UInt32Array};
use std::sync::Arc;

/// Which numbers rows have had so far. There are about as many as the highest one says, so they are looked up in a list.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The group of each number.
    groups: Vec<u32>,
    /// The number of each group.
    met: Vec<u32>,
}

const UNKNOWN: u32 = u32::MAX;

impl Numbers {
    /// The group of each row.
    pub(super) fn intern(&mut self, rows: &UInt32Array, groups: &mut Vec<usize>) {
        let highest = rows.values().iter().copied().max();
        if let Some(highest) = highest.filter(|highest| *highest as usize >= self.groups.len()) {
            self.groups.resize(highest as usize + 1, UNKNOWN);
        }
        let Self { groups: known, met } = self;
        groups.clear();
        groups.extend(rows.values().iter().map(|number| {
            let group = &mut known[*number as usize];
            if *group == UNKNOWN {
                *group = met.len() as u32;
                met.push(*number);
            }
            *group as usize
        }));
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        self.met.len()
    }

    /// The number of each group.
    pub(super) fn emit(&mut self) -> ArrayRef {
        self.groups.clear();
        Arc::new(UInt32Array::from(std::mem::take(&mut self.met)))
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        (self.groups.capacity() + self.met.capacity()) * size_of::<u32>()
    }
}
