//! Watermarks of a declared bound, by the order of rows alone.
//!
//! The watermark of a row is the highest event time among the rows before it in its data partition, less the bound.
//! It never falls. A batch is cut so that one watermark judges every row of a piece exactly: only where a row is
//! behind a watermark that has moved since the piece began. In a stream that keeps its bound nothing is ever cut.

use arrow::array::{Array, PrimitiveArray};
use arrow::datatypes::Int64Type;
use datafusion::common::Result;

use crate::operator::{Stamp, WATERMARK_MIN, ticks};

use super::origin::{Places, RowPlace};
use super::stamps::Segment;

/// Rows that are looked at together.
const BLOCK_ROWS: usize = 1024;

/// Makes the watermarks of one data partition, or of a piece of one.
#[derive(Debug, Clone)]
pub(super) struct BoundedWatermarks {
    partition: usize,
    /// How far a row may be behind, in ticks.
    bound: i64,
    /// Highest event time so far, those of earlier pieces of the partition included.
    highest: Option<i64>,
    /// The first row with it, as far as that is wanted.
    set_by: Option<RowPlace>,
    /// How far it had come when the last row had.
    idle_from: Option<i64>,
}

impl BoundedWatermarks {
    pub(super) fn new(partition: usize, bound: i64, highest: Option<i64>, set_by: Option<RowPlace>) -> Self {
        Self { partition, bound, highest, set_by, idle_from: None }
    }

    /// The highest event time so far.
    pub(super) fn highest(&self) -> Option<i64> {
        self.highest
    }

    /// The watermark now.
    pub(super) fn watermark(&self) -> i64 {
        less(self.highest, self.bound)
    }

    /// Goes on with the clock, when no row has come for so many ticks.
    pub(super) fn idle(&mut self, ticks: i64) {
        if let Some(from) = self.idle_from.or(self.highest) {
            self.idle_from = Some(from);
            self.highest = self.highest.max(Some(from.saturating_add(ticks)));
        }
    }

    /// Cuts a batch, given its event-time column, into runs of rows with their stamps. With `places`, it is remembered
    /// which row has set a watermark.
    ///
    /// # Errors
    /// A column that holds neither timestamps nor dates.
    pub(super) fn segments(&mut self, times: &dyn Array, places: Option<&Places>) -> Result<Vec<Segment>> {
        let times = ticks(times)?;
        if !times.is_empty() {
            self.idle_from = None;
        }
        let mut cut = Cut { segments: vec![], begin: 0, judged_by: self.watermark(), set_by: self.set_by.clone() };
        for offset in (0..times.len()).step_by(BLOCK_ROWS) {
            let block = times.slice(offset, BLOCK_ROWS.min(times.len() - offset));
            if !self.skim(offset, &block, places) {
                self.walk(offset, &block, places, &mut cut);
            }
        }
        let rest = times.len() - cut.begin;
        cut.segments.push(self.segment(cut.begin, rest, cut.judged_by, cut.set_by));
        Ok(cut.segments)
    }

    /// Takes a block in as a whole if none of its rows is behind its watermark: the usual case.
    fn skim(&mut self, offset: usize, block: &PrimitiveArray<Int64Type>, places: Option<&Places>) -> bool {
        if block.null_count() > 0 {
            return false;
        }
        let (mut highest, mut falls_behind) = (self.highest.unwrap_or(i64::MIN), false);
        let mut watermark = highest.saturating_sub(self.bound);
        for &time in block.values() {
            falls_behind |= time < watermark;
            // It rises rarely, or with every row.
            if time > highest {
                highest = time;
                watermark = time.saturating_sub(self.bound);
            }
        }
        if !falls_behind && !block.is_empty() {
            if let Some(places) = places
                && self.highest.is_none_or(|before| highest > before)
            {
                let row = block.values().iter().position(|time| *time == highest);
                self.set_by = row.map(|row| places.at(offset + row));
            }
            self.highest = Some(highest);
        }
        !falls_behind
    }

    /// Looks at a block row by row, and cuts before a row that is behind a watermark that has moved.
    fn walk(&mut self, offset: usize, block: &PrimitiveArray<Int64Type>, places: Option<&Places>, cut: &mut Cut) {
        let mut watermark = self.watermark();
        for (row, &time) in block.values().iter().enumerate() {
            if block.is_null(row) {
                continue;
            }
            if time < watermark && watermark != cut.judged_by {
                let row = offset + row;
                if row > cut.begin {
                    cut.segments.push(self.segment(cut.begin, row - cut.begin, cut.judged_by, cut.set_by.take()));
                }
                (cut.begin, cut.judged_by, cut.set_by) = (row, watermark, self.set_by.clone());
            }
            // The highest time rises rarely, so the watermark is not computed for each row.
            if self.highest.is_none_or(|highest| time > highest) {
                self.highest = Some(time);
                self.set_by = places.map(|places| places.at(offset + row));
                watermark = self.watermark();
            }
        }
    }

    /// A segment that ends with the rows seen so far.
    fn segment(&self, offset: usize, length: usize, watermark: i64, set_by: Option<RowPlace>) -> Segment {
        let stamp = Stamp { partition: self.partition, watermark, next_watermark: self.watermark() };
        Segment { offset, length, stamp, set_by }
    }
}

/// A batch that is being cut.
struct Cut {
    segments: Vec<Segment>,
    /// First row of the segment at hand.
    begin: usize,
    /// Its watermark.
    judged_by: i64,
    /// The row that has set it.
    set_by: Option<RowPlace>,
}

/// An event time less the bound.
pub(super) fn less(highest: Option<i64>, bound: i64) -> i64 {
    highest.map_or(WATERMARK_MIN, |highest| highest.saturating_sub(bound))
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampSecondArray;
    use proptest::prelude::*;

    use super::*;

    /// Which rows are late for windows of `size`, as the definition says.
    fn late_by_definition(times: &[Option<i64>], bound: i64, size: i64) -> Vec<usize> {
        let mut highest = None;
        let mut late = vec![];
        for (row, time) in times.iter().enumerate() {
            let Some(time) = time else { continue };
            if time.div_euclid(size) * size + size <= less(highest, bound) {
                late.push(row);
            }
            highest = highest.max(Some(*time));
        }
        late
    }

    fn late_by_segments(times: &[Option<i64>], bound: i64, size: i64, batch_rows: usize) -> (Vec<usize>, i64) {
        let mut generator = BoundedWatermarks::new(0, bound, None, None);
        let (mut late, mut first) = (vec![], 0);
        for batch in times.chunks(batch_rows) {
            for segment in generator.segments(&TimestampSecondArray::from(batch.to_vec()), None).unwrap() {
                let rows = batch.iter().enumerate().skip(segment.offset).take(segment.length);
                for (row, time) in rows {
                    let is_late = |time: i64| time.div_euclid(size) * size + size <= segment.stamp.watermark;
                    if time.is_some_and(is_late) {
                        late.push(first + row);
                    }
                }
            }
            first += batch.len();
        }
        (late, generator.watermark())
    }

    proptest! {
        #[test]
        fn lateness_does_not_depend_on_batches(
            times in prop::collection::vec(prop::option::weighted(0.9, -60i64..60), 0..80),
            bound in 0i64..30, size in 1i64..20, batch_rows in 1usize..30,
        ) {
            let (late, watermark) = late_by_segments(&times, bound, size, batch_rows);
            prop_assert_eq!(late, late_by_definition(&times, bound, size));
            prop_assert_eq!(watermark, less(times.iter().flatten().max().copied(), bound));
        }
    }

    #[test]
    fn a_stream_that_keeps_its_bound_is_never_cut() {
        let times: Vec<_> = (0..1000).map(|i| i * 10 - (i * 7) % 50).collect();
        let mut generator = BoundedWatermarks::new(3, 100, None, None);
        let segments = generator.segments(&TimestampSecondArray::from(times), None).unwrap();
        assert_eq!(segments.len(), 1);
        assert_eq!(segments[0].stamp.watermark, WATERMARK_MIN);
    }

    #[test]
    fn extreme_times_saturate() {
        let mut generator = BoundedWatermarks::new(0, i64::MAX, None, None);
        generator.segments(&TimestampSecondArray::from(vec![i64::MIN, i64::MAX, i64::MIN]), None).unwrap();
        assert_eq!(generator.watermark(), 0);
    }
}
