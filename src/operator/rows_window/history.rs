//! The rows of each key, in order, that frames may still reach.

use std::collections::VecDeque;

use arrow::array::Int64Array;

use crate::operator::WATERMARK_MAX;
use crate::operator::pool::{Pool, RowId};

/// A place in the order of a key's rows: null times come last and are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub(super) beyond: u8,
    pub(super) ticks: i64,
}

impl Moment {
    pub(super) const FIRST: Self = Self { beyond: 0, ticks: i64::MIN };
    const NULL: Self = Self { beyond: 1, ticks: 0 };
    /// After every row.
    pub(super) const LAST: Self = Self { beyond: 2, ticks: 0 };

    fn of(ticks: Option<i64>) -> Self {
        ticks.map_or(Self::NULL, |ticks| Self { beyond: 0, ticks })
    }

    /// The moments of rows.
    pub(super) fn all(times: &Int64Array) -> Vec<Self> {
        times.iter().map(Self::of).collect()
    }

    /// Whether the watermark has passed all rows of this moment.
    pub(super) fn is_before(self, watermark: i64) -> bool {
        watermark == WATERMARK_MAX || self < Self { beyond: 0, ticks: watermark }
    }
}

/// The rows of a key that frames may still reach.
#[derive(Default)]
pub(super) struct KeyRows {
    /// Number of the first row in `rows`.
    base: usize,
    rows: VecDeque<(Moment, RowId)>,
    /// The first rows of all, which stay.
    pinned: Vec<RowId>,
}

impl KeyRows {
    /// How many rows the key has had.
    pub(super) fn len(&self) -> usize {
        self.base + self.rows.len()
    }

    /// The row of a number that is still held.
    pub(super) fn id(&self, row: usize) -> RowId {
        match self.pinned.get(row) {
            Some(id) => *id,
            None => self.rows[row - self.base].1,
        }
    }

    /// The moment of such a row, unless it is pinned alone.
    pub(super) fn moment(&self, row: usize) -> Moment {
        self.rows[row - self.base].0
    }
}

/// The rows of all keys of a PARTITION BY.
#[derive(Default)]
pub(super) struct History {
    pub(super) keys: Vec<KeyRows>,
    /// First rows of a key that are always wanted.
    pub(super) pins: usize,
    /// Rows taken in since idle keys were looked for.
    rows_since_sweep: usize,
}

impl History {
    /// Takes the next rows in; each is held once for this history already.
    pub(super) fn add(&mut self, groups: &[usize], moments: &[Moment], ids: &[RowId], pool: &mut Pool) {
        for ((group, moment), id) in groups.iter().zip(moments).zip(ids) {
            if *group >= self.keys.len() {
                self.keys.resize_with(group + 1, KeyRows::default);
            }
            let key = &mut self.keys[*group];
            if key.len() < self.pins {
                key.pinned.push(*id);
                pool.retain(*id);
            }
            key.rows.push_back((*moment, *id));
        }
        self.rows_since_sweep += groups.len();
    }

    /// Lets go of a key's rows before `row`.
    pub(super) fn trim(&mut self, group: usize, row: usize, pool: &mut Pool) {
        let key = &mut self.keys[group];
        while key.base < row
            && let Some((_, id)) = key.rows.pop_front()
        {
            pool.release(id);
            key.base += 1;
        }
    }

    /// Lets go of all of a key's rows, and of their room.
    pub(super) fn clear(&mut self, group: usize, pool: &mut Pool) {
        self.trim(group, self.keys[group].len(), pool);
        self.keys[group].rows = VecDeque::new();
    }

    /// Lets go of all of a key's rows, also those that stay, and begins to number rows anew.
    pub(super) fn restart(&mut self, group: usize, pool: &mut Pool) {
        let Some(key) = self.keys.get_mut(group).map(std::mem::take) else { return };
        let ids = key.rows.iter().map(|(_, id)| id).chain(&key.pinned);
        ids.for_each(|id| pool.release(*id));
    }

    /// Keys whose last row is before `moment`, asked once in as many rows as there are keys.
    pub(super) fn idle(&mut self, moment: Moment) -> Vec<usize> {
        if self.rows_since_sweep < self.keys.len() {
            return vec![];
        }
        self.rows_since_sweep = 0;
        let idle = |key: &KeyRows| key.rows.back().is_some_and(|(last, _)| *last < moment);
        let keys = self.keys.iter().enumerate();
        keys.filter_map(|(group, key)| idle(key).then_some(group)).collect()
    }

    /// For the snapshot: the first row's number, the pinned rows and the others of a key.
    pub(super) fn parts(&self, group: usize) -> (usize, &[RowId], Vec<RowId>) {
        self.keys
            .get(group)
            .map_or((0, &[], vec![]), |key| (key.base, &key.pinned[..], key.rows.iter().map(|(_, id)| *id).collect()))
    }

    /// Puts such parts of a key back.
    pub(super) fn restore(&mut self, group: usize, base: usize, pinned: Vec<RowId>, rows: Vec<(Moment, RowId)>) {
        if group >= self.keys.len() {
            self.keys.resize_with(group + 1, KeyRows::default);
        }
        self.keys[group] = KeyRows { base, pinned, rows: rows.into() };
    }

    pub(super) fn size(&self) -> usize {
        let rows = |key: &KeyRows| {
            key.rows.capacity() * size_of::<(Moment, RowId)>() + key.pinned.capacity() * size_of::<RowId>()
        };
        self.keys.capacity() * size_of::<KeyRows>() + self.keys.iter().map(rows).sum::<usize>()
    }
}
