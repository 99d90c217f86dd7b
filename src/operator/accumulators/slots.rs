//! Which slots the rows of a batch come to, and which slots come together on the way.

use std::ops::Range;

/// The slots of a batch's rows.
#[derive(Debug, Clone, Copy)]
pub(in crate::operator) struct Slots<'a> {
    /// The slot of each row.
    pub(in crate::operator) rows: &'a [usize],
    /// How many slots there are now.
    pub(in crate::operator) total: usize,
    /// Slots that are joined, in the order of the rows.
    pub(in crate::operator) joins: &'a [Joined],
}

/// Two slots that are joined.
#[derive(Debug, Clone, Copy)]
pub(in crate::operator) struct Joined {
    /// The row before which they are.
    pub(in crate::operator) at: usize,
    pub(in crate::operator) into: usize,
    /// The one that is empty then: its rows count as if they had come after those of the other.
    pub(in crate::operator) from: usize,
}

impl<'a> Slots<'a> {
    /// Slots that stay apart.
    pub(in crate::operator) fn new(rows: &'a [usize], total: usize) -> Self {
        Self { rows, total, joins: &[] }
    }

    /// Pieces of at most so many rows between which no slots are joined, each with the joins before it; the last one
    /// may have no rows.
    pub(super) fn pieces(self, most: usize) -> impl Iterator<Item = (&'a [Joined], Range<usize>)> {
        let (mut joins, mut begin, end) = (self.joins, 0, self.rows.len());
        std::iter::from_fn(move || {
            let due = joins.iter().take_while(|join| join.at <= begin).count();
            let (before, later) = joins.split_at(due);
            if begin == end && before.is_empty() {
                return None;
            }
            joins = later;
            let next = joins.first().map_or(end, |join| join.at.min(end));
            // Pieces begin where they would without joins, too.
            let piece = begin..next.min((begin / most + 1).saturating_mul(most));
            begin = piece.end;
            Some((before, piece))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(rows: usize, joins: &[usize], most: usize) -> Vec<(usize, Range<usize>)> {
        let joins: Vec<Joined> = joins.iter().map(|at| Joined { at: *at, into: 0, from: 1 }).collect();
        let slots = Slots { rows: &vec![0; rows], total: 2, joins: &joins };
        slots.pieces(most).map(|(joins, rows)| (joins.len(), rows)).collect()
    }

    #[test]
    fn pieces_end_where_slots_are_joined() {
        assert_eq!(pieces(0, &[], 4), []);
        assert_eq!(pieces(0, &[0], 4), [(1, 0..0)]);
        assert_eq!(pieces(10, &[], usize::MAX), [(0, 0..10)]);
        assert_eq!(pieces(10, &[], 4), [(0, 0..4), (0, 4..8), (0, 8..10)]);
        assert_eq!(pieces(10, &[0, 3, 3, 8, 10], 4), [(1, 0..3), (2, 3..4), (0, 4..8), (1, 8..10), (1, 10..10)]);
        assert_eq!(pieces(4, &[9], 4), [(0, 0..4)]);
    }
}
