//! What has become of the rows of the batch that is in the plan. When the plan asks for the next batch, every row must
//! be accounted for: filtered, used, late, or between windows. A node that holds rows back, loses or doubles them is found
//! by the batch in which it does.

use datafusion::common::{Result, internal_err};

use crate::operator::{Counters, Missed, MissedRow};

/// The rows of one batch of the source.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    pub(super) read: u64,
    /// Rows that a filter, a join or an empty list has left out.
    pub(super) filtered: u64,
    pub(super) arrived: Arrived,
    pub(super) missed: Vec<MissedRow>,
}

/// What became of the rows that reached the operator, or the end of the pipeline if it has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) used: u64,
    pub(super) late: u64,
    pub(super) between: u64,
}

impl Flight {
    /// # Errors
    /// Rows that are not accounted for, or twice.
    pub(super) fn check(&self) -> Result<()> {
        let Self { read, filtered, arrived: Arrived { used, late, between }, .. } = self;
        if *read == filtered + used + late + between {
            return Ok(());
        }
        internal_err!(
            "of {read} rows read, {used} were used, {filtered} filtered, {late} late and {between} between windows: rows \
             were lost or doubled"
        )
    }
}

impl Arrived {
    pub(super) fn add(&mut self, other: Self) {
        self.used += other.used;
        self.late += other.late;
        self.between += other.between;
    }

    /// What an operator has counted since `before`, in which it took `rows` rows.
    ///
    /// # Errors
    /// Rows that it did not count, or twice.
    pub(super) fn since(before: Counters, after: Counters, rows: usize) -> Result<Self> {
        let arrived = Self {
            used: after.used_rows - before.used_rows,
            late: after.late_rows - before.late_rows,
            between: after.between_rows - before.between_rows,
        };
        match arrived.used + arrived.late + arrived.between == rows as u64 {
            true => Ok(arrived),
            false => internal_err!("an operator took {rows} rows and accounts for {arrived:?}"),
        }
    }

    /// The same in rows of the source, of which each may have come several times: it is used if it was once, and late if
    /// it was late each time. `missed` are the rows that were not used, or not in all windows, in order; with them come those
    /// of the source, each once with the last window that it missed.
    pub(super) fn of_source(numbers: &[u32], missed: &[MissedRow]) -> (Self, Vec<MissedRow>) {
        let (mut arrived, mut missed_rows) = (Self::default(), vec![]);
        let (mut row, mut missed) = (0_u32, missed.iter().peekable());
        for copies in numbers.chunk_by(|left, right| left == right) {
            let (mut is_used, mut is_late, mut last) = (false, false, None);
            for _ in copies {
                let of_copy = missed.next_if(|missed| missed.row == row);
                is_used |= of_copy.is_none_or(|missed| missed.missed == Missed::Some);
                is_late |= of_copy.is_some_and(|missed| missed.missed != Missed::Between);
                last = last.max(of_copy.and_then(|missed| missed.window).map(|(start, end)| (end, start)));
                row += 1;
            }
            let missed = match (is_used, is_late) {
                (true, true) => Some(Missed::Some),
                (true, false) => None,
                (false, true) => Some(Missed::All),
                (false, false) => Some(Missed::Between),
            };
            match missed {
                None | Some(Missed::Some) => arrived.used += 1,
                Some(Missed::All) => arrived.late += 1,
                Some(Missed::Between) => arrived.between += 1,
            }
            let window = last.map(|(end, start)| (start, end));
            missed_rows.extend(missed.map(|missed| MissedRow { row: copies[0], missed, window }));
        }
        (arrived, missed_rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_source_counts_once() {
        let missed = |row: u32, missed| {
            let start = i64::from(row);
            MissedRow { row, missed, window: (missed != Missed::Between).then_some((start, start + 5)) }
        };
        // Row 0 comes twice, once late; row 2 twice, both late; row 5 between windows; row 6 late for some; row 7 in time.
        let numbers = [0, 0, 2, 2, 5, 6, 7];
        let missed = [
            missed(1, Missed::All),
            missed(2, Missed::All),
            missed(3, Missed::All),
            missed(4, Missed::Between),
            missed(5, Missed::Some),
        ];
        let (arrived, of_source) = Arrived::of_source(&numbers, &missed);
        assert_eq!(arrived, Arrived { used: 3, late: 1, between: 1 });
        let of_source: Vec<_> =
            of_source.into_iter().map(|missed| (missed.row, missed.missed, missed.window)).collect();
        let expected = [
            (0, Missed::Some, Some((1, 6))),
            (2, Missed::All, Some((3, 8))),
            (5, Missed::Between, None),
            (6, Missed::Some, Some((5, 10))),
        ];
        assert_eq!(of_source, expected);
        let flight = |read| Flight { read, filtered: 3, arrived, ..Flight::default() };
        flight(8).check().unwrap();
        assert!(flight(9).check().unwrap_err().to_string().contains("lost or doubled"));
    }

    #[test]
    fn an_operator_accounts_for_every_row() {
        let after = Counters { used_rows: 5, late_rows: 2, ..Counters::default() };
        let before = Counters { used_rows: 1, ..Counters::default() };
        assert_eq!(Arrived::since(before, after, 6).unwrap(), Arrived { used: 4, late: 2, between: 0 });
        assert!(Arrived::since(before, after, 7).is_err());
    }
}
