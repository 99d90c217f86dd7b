//! Keys that are forgotten when no row has come for them for a while: the row that comes then begins its key anew.
//!
//! ```text
//!   rows of a key   •  • •          •                •   •
//!                   └────┘── ttl ──▶└┘────── ttl ──▶ └───┘
//!                   group 0                          group 7: it came more than the ttl after the row before it
//! ```
//!
//! A row's moment is its event time, or the watermark of its data partition if it is behind that. Whether a row begins its
//! key anew is decided by its own moment and the latest one of its key, so by the files alone: not by batches, by other
//! keys, or by which pipeline keeps it. Keys are freed now and then, many at once, when their time has been over for
//! the watermark as well: a row that came later would be behind no moment of that watermark, and begin its key anew in any
//! case.
//!
//! A key has a number, in the order of first rows, and a group, which is another one each time that it begins anew. So
//! whatever is kept by group begins anew by itself. Groups that are given back, with nothing kept of them, are used again.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt64Array};
use arrow::datatypes::{Int64Type, UInt64Type};
use datafusion::common::{Result, internal_datafusion_err};
use std::sync::Arc;

/// Groups beyond twice as many as there were keys, before keys are freed; tests have few keys.
const ROOM: usize = if cfg!(test) { 1 } else { 1024 };

/// The moment of a row without an event time. Such rows are left out, or come after all others.
const NO_TIME: i64 = i64::MAX;

/// How long keys live, and how long each of them has.
pub(super) struct Lifetimes {
    /// In ticks of event time.
    ttl: i64,
    /// By the number of the key.
    keys: Vec<Life>,
    /// Groups so far.
    groups: usize,
    /// Those of them that have been given back.
    free: Vec<usize>,
    /// Keys that were left when some were freed last.
    kept: usize,
    /// The latest moment of all.
    latest: i64,
    /// Keys whose time was over, and that have begun anew or been freed since this was taken.
    forgotten: u64,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    group: usize,
    /// The latest moment of its rows.
    touched: i64,
}

/// A key that lives on: its number and group, and the latest moment of its rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Living {
    pub(super) key: usize,
    pub(super) group: usize,
    touched: i64,
}

impl Lifetimes {
    pub(super) fn new(ttl: i64) -> Self {
        Self { ttl, keys: vec![], groups: 0, free: vec![], kept: 0, latest: i64::MIN, forgotten: 0 }
    }

    /// Puts the group of each row in place of the number of its key, and gives the groups of keys that begin anew.
    pub(super) fn assign(&mut self, rows: &mut [usize], moments: &[i64]) -> Vec<usize> {
        let mut ended = vec![];
        for (row, moment) in rows.iter_mut().zip(moments) {
            *row = self.touch(*row, *moment, &mut ended);
        }
        self.forgotten += ended.len() as u64;
        ended
    }

    fn touch(&mut self, key: usize, moment: i64, ended: &mut Vec<usize>) -> usize {
        if moment != NO_TIME {
            self.latest = self.latest.max(moment);
        }
        // Keys are numbered in the order of first rows, so there is no gap.
        let Some(life) = self.keys.get(key).copied() else {
            let group = self.next_group();
            self.keys.push(Life { group, touched: moment });
            return group;
        };
        let begins_anew = moment > life.touched.saturating_add(self.ttl);
        let group = if begins_anew { self.next_group() } else { life.group };
        ended.extend(begins_anew.then_some(life.group));
        self.keys[key] = Life { group, touched: life.touched.max(moment) };
        group
    }

    fn next_group(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.groups += 1;
            self.groups - 1
        })
    }

    /// Gives groups back of which nothing is kept any more.
    pub(super) fn give_back(&mut self, groups: &[usize]) {
        self.free.extend_from_slice(groups);
    }

    /// How many groups there are, those of keys that have begun anew since and free ones included.
    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    /// Whether there may be many to free.
    pub(super) fn are_many(&self) -> bool {
        self.groups - self.free.len() > 2 * self.kept + ROOM
    }

    /// The keys whose time is not over by `watermark`, or that `stays` is true of, in the order of their groups. The others
    /// count as forgotten.
    pub(super) fn living(&mut self, watermark: i64, stays: impl Fn(usize) -> bool) -> Vec<Living> {
        // By the rows alone, so that it does not matter when somebody asks.
        let until = watermark.min(self.latest);
        let is_over = |life: &Life| life.touched.saturating_add(self.ttl) < until && !stays(life.group);
        let living = self.keys.iter().enumerate().filter(|(_, life)| !is_over(life));
        let mut living: Vec<_> =
            living.map(|(key, life)| Living { key, group: life.group, touched: life.touched }).collect();
        living.sort_unstable_by_key(|living| living.group);
        self.forgotten += (self.keys.len() - living.len()) as u64;
        living
    }

    /// Counts the keys whose time was over when the last row came.
    pub(super) fn end(&mut self) {
        self.living(i64::MAX, |_| false);
    }

    /// Takes the number of keys that have been forgotten since it was taken.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    /// Keys numbered anew: those that live on, in that order, with the groups that they have. Gives the groups of the others.
    pub(super) fn retain(&mut self, living: &[Living]) -> Vec<usize> {
        let mut lives_on = vec![false; self.groups];
        living.iter().for_each(|living| lives_on[living.group] = true);
        let others = self.keys.iter().map(|life| life.group).filter(|group| !lives_on[*group]).collect();
        self.keys = living.iter().map(|living| Life { group: living.group, touched: living.touched }).collect();
        self.kept = self.keys.len();
        others
    }

    /// Keys numbered anew, which have these groups; the others below them are free.
    pub(super) fn restore_groups(&mut self, touched: &ArrayRef, groups: &ArrayRef) -> Result<()> {
        self.restore(touched)?;
        let groups = groups.as_primitive_opt::<UInt64Type>();
        let groups = groups.ok_or_else(|| internal_datafusion_err!("keys without their groups"))?;
        self.groups = groups.values().iter().map(|group| *group as usize + 1).max().unwrap_or(0);
        let mut is_free = vec![true; self.groups];
        for (life, group) in self.keys.iter_mut().zip(groups.values()) {
            life.group = *group as usize;
            is_free[life.group] = false;
        }
        self.free = (0..self.groups).filter(|group| is_free[*group]).collect();
        Ok(())
    }

    /// Keys numbered anew, whose groups are their numbers.
    pub(super) fn restore(&mut self, touched: &ArrayRef) -> Result<()> {
        let touched = touched.as_primitive_opt::<Int64Type>();
        let touched = touched.ok_or_else(|| internal_datafusion_err!("keys without the moments of their rows"))?;
        self.keys =
            touched.values().iter().enumerate().map(|(group, touched)| Life { group, touched: *touched }).collect();
        (self.groups, self.kept) = (self.keys.len(), self.keys.len());
        self.latest = touched.values().iter().copied().filter(|touched| *touched != NO_TIME).max().unwrap_or(i64::MIN);
        Ok(())
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        self.keys.capacity() * size_of::<Life>() + self.free.capacity() * size_of::<usize>()
    }
}

/// The moments as a column, for [`Lifetimes::restore`].
pub(super) fn moments_of(living: &[Living]) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(living.iter().map(|living| living.touched)))
}

/// The groups as a column, for [`Lifetimes::restore_groups`].
pub(super) fn groups_of(living: &[Living]) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(living.iter().map(|living| living.group as u64)))
}

/// The moments of rows, given their event times and the watermark that judges them.
pub(super) fn moments(times: &Int64Array, watermark: i64) -> Vec<i64> {
    match times.null_count() {
        // Whoever is not behind the watermark has its own time, so that it does not matter how batches are cut.
        0 => times.values().iter().map(|time| (*time).max(watermark)).collect(),
        _ => times.iter().map(|time| time.map_or(NO_TIME, |time| time.max(watermark))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(lifetimes: &mut Lifetimes, rows: &[(usize, i64)]) -> Vec<usize> {
        let (mut keys, moments): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
        lifetimes.assign(&mut keys, &moments);
        keys
    }

    #[test]
    fn a_key_begins_anew_more_than_the_ttl_after_its_latest_row() {
        let mut lifetimes = Lifetimes::new(10);
        assert_eq!(assigned(&mut lifetimes, &[(0, 0), (1, 3), (0, 10), (0, 5), (0, 20)]), [0, 1, 0, 0, 0]);
        assert_eq!(assigned(&mut lifetimes, &[(0, 31), (1, 14), (0, 31)]), [2, 3, 2]);
        assert_eq!((lifetimes.groups(), lifetimes.take_forgotten()), (4, 2));
    }

    #[test]
    fn what_is_freed_does_not_change_what_is_counted() {
        let rows = [(0, 0), (1, 20), (2, 40)];
        let mut late = Lifetimes::new(10);
        assigned(&mut late, &rows);
        late.end();
        let mut early = Lifetimes::new(10);
        assigned(&mut early, &rows);
        let living = early.living(25, |_| false);
        assert_eq!(living.iter().map(|living| living.key).collect::<Vec<_>>(), [1, 2]);
        let freed = early.take_forgotten();
        early.restore(&moments_of(&living)).unwrap();
        early.end();
        assert_eq!((late.take_forgotten(), freed + early.take_forgotten()), (2, 2));
    }

    #[test]
    fn rows_without_a_time_are_a_life_of_their_own() {
        let mut lifetimes = Lifetimes::new(10);
        let moments = moments(&Int64Array::from(vec![Some(3), Some(8), None, None]), 5);
        assert_eq!(moments, [5, 8, NO_TIME, NO_TIME]);
        let mut keys = [0; 4];
        lifetimes.assign(&mut keys, &moments);
        assert_eq!(keys, [0, 0, 1, 1]);
    }
}
