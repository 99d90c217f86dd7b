//! Exact watermarks: a stream of files ends, so what is still to come is known, and no row is ever late.
//!
//! The watermark after a stretch of rows is the lowest event time in all stretches that are still to come: a window
//! that ends at or before it can get no more rows. Nobody guesses a bound, and state is that of the windows that rows
//! still to come can fall into.

use std::collections::VecDeque;

use arrow::array::Array;
use datafusion::common::Result;

use crate::error::Error;
use crate::operator::{Stamp, WATERMARK_MAX, WATERMARK_MIN, ticks};

use super::footer::Stretch;

/// The watermark when no event time is to come, which is not yet the end: rows without one may follow.
pub(super) const NONE_TO_COME: i64 = WATERMARK_MAX - 1;

/// Makes the watermarks of one piece.
#[derive(Debug, Clone)]
pub(super) struct ExactWatermarks {
    piece: usize,
    /// Rows seen.
    row: u64,
    watermark: i64,
    /// Where the watermark rises: after this row, to this value.
    rises: VecDeque<(u64, i64)>,
}

impl ExactWatermarks {
    /// Of the stretches of a piece, in order of its rows.
    pub(super) fn new(piece: usize, stretches: &[Stretch]) -> Self {
        let (mut to_come, mut row) = (NONE_TO_COME, stretches.iter().map(|stretch| stretch.rows).sum::<u64>());
        let mut rises = VecDeque::new();
        for stretch in stretches.iter().rev() {
            // Of several stretches after which the same is to come, the first one raises the watermark to it.
            rises.pop_front_if(|(_, watermark)| *watermark == to_come);
            rises.push_front((row, to_come));
            to_come = to_come.min(stretch.lowest.unwrap_or(NONE_TO_COME));
            row -= stretch.rows;
        }
        Self { piece, row: 0, watermark: to_come, rises }
    }

    /// The stamp of the next rows of the piece, given their event times.
    ///
    /// # Errors
    /// An event time that the files said was not to come any more.
    pub(super) fn stamp(&mut self, times: &dyn Array) -> Result<Stamp> {
        if let Some(lowest) = arrow::compute::min(&ticks(times)?).filter(|lowest| *lowest < self.watermark) {
            return Err(broken_promise(lowest, self.watermark).into());
        }
        self.pass(self.row + times.len() as u64);
        Ok(Stamp { partition: self.piece, watermark: WATERMARK_MIN, next_watermark: self.watermark })
    }

    /// All rows before this one have been seen, also those that were left out as malformed.
    pub(super) fn pass(&mut self, row: u64) {
        self.row = self.row.max(row);
        while let Some((_, watermark)) = self.rises.pop_front_if(|(after, _)| *after <= self.row) {
            self.watermark = watermark;
        }
    }
}

fn broken_promise(lowest: i64, watermark: i64) -> Error {
    Error::data(format!(
        "an event time ({lowest}) is lower than the file's statistics say of its rows (from {watermark} on)"
    ))
    .help("write the file again, or declare a bound: WATERMARK FOR ts AS ts - INTERVAL '5' SECOND")
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampSecondArray;
    use proptest::prelude::*;

    use super::*;

    fn stretch(times: &[Option<i64>]) -> Stretch {
        Stretch { rows: times.len() as u64, lowest: times.iter().flatten().min().copied() }
    }

    proptest! {
        /// However rows are cut into stretches and batches, the watermark is at most the lowest time to come, and it
        /// is that at the end of every stretch.
        #[test]
        fn nothing_to_come_is_behind_the_watermark(
            times in prop::collection::vec(prop::option::weighted(0.9, -60i64..60), 1..80),
            stretch_rows in 1usize..20, batch_rows in 1usize..20,
        ) {
            let stretches: Vec<_> = times.chunks(stretch_rows).map(stretch).collect();
            let mut watermarks = ExactWatermarks::new(0, &stretches);
            let mut row = 0;
            for batch in times.chunks(batch_rows) {
                let stamp = watermarks.stamp(&TimestampSecondArray::from(batch.to_vec())).unwrap();
                row += batch.len();
                let to_come = times[row..].iter().flatten().min().copied().unwrap_or(NONE_TO_COME);
                prop_assert!(stamp.next_watermark <= to_come);
                if row % stretch_rows == 0 || row == times.len() {
                    prop_assert_eq!(stamp.next_watermark, to_come);
                }
            }
        }
    }

    #[test]
    fn statistics_that_do_not_hold_are_an_error() {
        let mut watermarks = ExactWatermarks::new(0, &[stretch(&[Some(1)]), stretch(&[Some(5)])]);
        watermarks.stamp(&TimestampSecondArray::from(vec![1])).unwrap();
        let error = watermarks.stamp(&TimestampSecondArray::from(vec![4])).unwrap_err().to_string();
        assert!(error.contains("lower than the file's statistics say"), "{error}");
    }
}
