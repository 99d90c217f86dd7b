//! The groups of many windows at once, one window after the other, where each has few: accumulators of their own would
//! cost more than the rows.

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use datafusion::common::Result;

use super::accumulators::Accumulators;
use super::with_types;
use crate::operator::aggregate_spec::{AggregateSpec, Evaluated};
use crate::operator::keys::Keys;

/// The groups of many windows, those of a window in order of its rows.
pub(in crate::operator) struct GroupsOfMany {
    /// The key columns, a row for each group.
    keys: Vec<ArrayRef>,
    accumulators: Accumulators,
    /// Where the groups of each window end.
    pub(in crate::operator) ends: Vec<usize>,
    /// How many keys there are, however many windows have them.
    pub(in crate::operator) distinct_keys: usize,
}

impl GroupsOfMany {
    /// Aggregates rows, those of each window up to its end in `ends`.
    pub(in crate::operator) fn of_rows(spec: &AggregateSpec, rows: &Evaluated, ends: &[usize]) -> Result<Self> {
        let (mut groups, of_row) = Self::of_keys(spec, &rows.keys, ends)?;
        groups.accumulators.update(rows, &of_row, groups.len())?;
        Ok(groups)
    }

    /// Brings partial states together, those of each window up to its end in `ends`.
    pub(in crate::operator) fn of_states(spec: &AggregateSpec, states: &RecordBatch, ends: &[usize]) -> Result<Self> {
        let (keys, states) = states.columns().split_at(spec.keys.len());
        let (mut groups, of_row) = Self::of_keys(spec, keys, ends)?;
        groups.accumulators.merge(spec, states, &of_row, groups.len())?;
        Ok(groups)
    }

    /// The groups of some rows, and which each row is in.
    fn of_keys(spec: &AggregateSpec, keys: &[ArrayRef], ends: &[usize]) -> Result<(Self, Vec<usize>)> {
        let mut known = Keys::new(spec);
        known.intern(keys, ends.last().copied().unwrap_or(0))?;
        let distinct_keys = known.len();
        let cells = Cells::of(&known.groups, distinct_keys, ends);
        let numbers = UInt32Array::from(cells.keys);
        let keys = known.emit()?.iter().map(|column| take(column, &numbers, None)).collect::<Result<_, _>>()?;
        let groups = Self { keys, accumulators: Accumulators::try_new(spec)?, ends: cells.ends, distinct_keys };
        Ok((groups, cells.of_row))
    }

    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Takes everything out as final values: keys, then aggregates.
    pub(in crate::operator) fn finish(mut self) -> Result<Vec<ArrayRef>> {
        let groups = self.len();
        self.keys.extend(self.accumulators.values(groups)?);
        Ok(self.keys)
    }

    /// Takes everything out as partial states, in the form of [`AggregateSpec::state_schema`].
    pub(in crate::operator) fn into_states(mut self, spec: &AggregateSpec) -> Result<RecordBatch> {
        let groups = self.len();
        self.keys.extend(self.accumulators.states(groups)?);
        with_types(spec, self.keys, groups)
    }
}

/// The pairs of a window and a key that there are rows of.
struct Cells {
    /// The pair of each row.
    of_row: Vec<usize>,
    /// The key of each pair.
    keys: Vec<u32>,
    /// Where the pairs of each window end.
    ends: Vec<usize>,
}

impl Cells {
    /// Numbers pairs of rows with one of `distinct` keys each, in order of their first rows.
    fn of(keys: &[usize], distinct: usize, ends: &[usize]) -> Self {
        let mut cells = Self { of_row: vec![0; keys.len()], keys: vec![], ends: Vec::with_capacity(ends.len()) };
        // The pair of each key in the last window that has had it: of this window if it is none of an earlier one.
        let mut last = vec![usize::MAX; distinct];
        let mut start = 0;
        for end in ends {
            let first = cells.keys.len();
            for (key, cell) in keys[start..*end].iter().zip(&mut cells.of_row[start..*end]) {
                let last = &mut last[*key];
                if *last < first || *last == usize::MAX {
                    *last = cells.keys.len();
                    cells.keys.push(*key as u32);
                }
                *cell = *last;
            }
            cells.ends.push(cells.keys.len());
            start = *end;
        }
        cells
    }
}
