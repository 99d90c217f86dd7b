//! Which rows are in which frame, and when that is known.
//!
//! A key's rows are numbered from its first. A frame moves over them with three marks that only grow: the next row
//! to be answered, and the first and the end of the last one's frame. A row falls due when its frame is complete:
//! when the key has the rows that follow, or the watermark has passed the frame's last moment, or the stream has ended.

use std::collections::VecDeque;

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::compute::kernels::numeric;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};

use super::history::{History, KeyRows, Moment};
use super::spec::{Frame, RangeBound};
use crate::operator::{WATERMARK_MAX, ticks};

/// A row whose frame is known: the rows from `start` to before `end`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    pub(super) group: usize,
    pub(super) row: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// How far a frame has come in a key.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks {
    pub(super) next: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A row that waits for the watermark to pass its frame, whose moments these are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited {
    pub(super) group: usize,
    pub(super) first: Moment,
    pub(super) last: Moment,
}

/// One frame over the rows of a PARTITION BY.
pub(super) struct FrameState {
    pub(super) frame: Frame,
    pub(super) marks: Vec<Marks>,
    /// Of a frame of event times: rows not yet due, in order.
    pub(super) awaited: VecDeque<Awaited>,
    /// Of a frame of rows: the keys of the rows that came since the last look.
    arrived: Vec<usize>,
    /// Keys whose marks have moved since rows were last let go.
    pub(super) touched: Vec<usize>,
    /// Of a frame that only grows: how many rows before its end are still wanted.
    pub(super) looks_back: usize,
}

impl FrameState {
    pub(super) fn new(frame: Frame) -> Self {
        Self { frame, marks: vec![], awaited: VecDeque::new(), arrived: vec![], touched: vec![], looks_back: 0 }
    }

    /// Takes note of the next rows, given their keys and event times.
    pub(super) fn arrive(&mut self, groups: &[usize], groups_total: usize, times: &ArrayRef) -> Result<()> {
        self.marks.resize(groups_total, Marks::default());
        let Frame::Range { start, end } = &self.frame else {
            self.arrived.extend_from_slice(groups);
            return Ok(());
        };
        let first = match start {
            Some(start) => moments(start, times)?,
            None => vec![Moment::FIRST; groups.len()],
        };
        let last = moments(end, times)?;
        let rows = groups.iter().zip(first).zip(last);
        self.awaited.extend(rows.map(|((group, first), last)| Awaited { group: *group, first, last }));
        Ok(())
    }

    /// The rows whose frames are known now.
    pub(super) fn due(&mut self, history: &History, watermark: i64) -> Vec<Due> {
        match self.frame {
            Frame::Rows { start, end } => self.due_by_rows(history, start, end, watermark == WATERMARK_MAX),
            Frame::Range { ref start, .. } => {
                let grows = start.is_none();
                self.due_by_time(history, grows, watermark)
            }
        }
    }

    fn due_by_rows(&mut self, history: &History, start: Option<i64>, end: i64, ended: bool) -> Vec<Due> {
        let mut due = vec![];
        let mut answer = |group: usize, marks: &mut Marks, rows: usize| {
            let at = |offset: i64| marks.next.saturating_add_signed(isize::try_from(offset).unwrap_or(isize::MAX));
            marks.end = at(end.saturating_add(1)).min(rows);
            marks.start = start.map_or(0, at).min(rows);
            marks.end = marks.end.max(marks.start);
            due.push(Due { group, row: marks.next, start: marks.start, end: marks.end });
            marks.next += 1;
        };
        let follow = usize::try_from(end.max(0)).unwrap_or(usize::MAX);
        for group in self.arrived.drain(..) {
            let (marks, rows) = (&mut self.marks[group], history.keys[group].len());
            if marks.next.saturating_add(follow) < rows {
                answer(group, marks, rows);
            }
        }
        if ended {
            for (group, marks) in self.marks.iter_mut().enumerate() {
                let rows = history.keys.get(group).map_or(0, KeyRows::len);
                while marks.next < rows {
                    answer(group, marks, rows);
                }
            }
        }
        due
    }

    fn due_by_time(&mut self, history: &History, grows: bool, watermark: i64) -> Vec<Due> {
        let mut due = vec![];
        while let Some(row) = self.awaited.front().filter(|row| row.last.is_before(watermark)).copied() {
            self.awaited.pop_front();
            let (marks, key) = (&mut self.marks[row.group], &history.keys[row.group]);
            while !grows && marks.start < key.len() && key.moment(marks.start) < row.first {
                marks.start += 1;
            }
            marks.end = marks.end.max(marks.start);
            while marks.end < key.len() && key.moment(marks.end) <= row.last {
                marks.end += 1;
            }
            due.push(Due { group: row.group, row: marks.next, start: marks.start, end: marks.end });
            marks.next += 1;
        }
        due
    }

    /// The first of a key's rows that this frame still wants.
    pub(super) fn wants_from(&self, group: usize) -> usize {
        let Some(marks) = self.marks.get(group) else { return 0 };
        let first = match self.frame.only_grows() {
            true => marks.end.saturating_sub(self.looks_back),
            false => marks.start,
        };
        first.min(marks.next)
    }

    /// The moment before which no row is wanted any more, when no row before `watermark` can come; none if rows are
    /// wanted whatever their age.
    pub(super) fn forgets_before(&self, watermark: i64, time_type: &DataType) -> Option<Moment> {
        let Frame::Range { start: Some(start), .. } = &self.frame else { return None };
        let time = of_ticks(watermark, time_type).ok()?;
        let first = moments(start, &time).ok()?.first().copied()?;
        Some(self.awaited.front().map_or(first, |awaited| first.min(awaited.first)))
    }

    /// Whether all of a key's rows have been answered.
    pub(super) fn is_done(&self, group: usize, rows: usize) -> bool {
        self.marks.get(group).is_none_or(|marks| marks.next == rows)
    }

    /// Skips over all rows of a key, none of which is awaited.
    pub(super) fn skip(&mut self, group: usize, rows: usize) {
        if let Some(marks) = self.marks.get_mut(group) {
            *marks = Marks { next: rows, start: rows, end: rows };
        }
    }

    /// Another key has the number from now on.
    pub(super) fn restart(&mut self, group: usize) {
        if let Some(marks) = self.marks.get_mut(group) {
            *marks = Marks::default();
        }
    }

    pub(super) fn size(&self) -> usize {
        self.marks.capacity() * size_of::<Marks>()
            + self.awaited.capacity() * size_of::<Awaited>()
            + self.arrived.capacity() * size_of::<usize>()
    }
}

/// An event time as an array of its type.
fn of_ticks(time: i64, data_type: &DataType) -> Result<ArrayRef> {
    let time = match data_type {
        DataType::Date32 => {
            let day = i32::try_from(time.div_euclid(86_400));
            ScalarValue::Date32(Some(day.map_err(|_| internal_datafusion_err!("no day: {time}"))?))
        }
        _ => ScalarValue::Int64(Some(time)),
    };
    Ok(cast(&time.to_array()?, data_type)?)
}

/// The moments at a distance from event times. What cannot be expressed is before or after every row, as DataFusion
/// has it.
fn moments(bound: &RangeBound, times: &ArrayRef) -> Result<Vec<Moment>> {
    let shift = |times: &ArrayRef| -> Result<ArrayRef> {
        Ok(match bound {
            RangeBound::CurrentRow => ArrayRef::clone(times),
            RangeBound::Preceding(distance) => numeric::sub(times, &distance.to_scalar()?)?,
            RangeBound::Following(distance) => numeric::add(times, &distance.to_scalar()?)?,
        })
    };
    if let Ok(shifted) = shift(times) {
        return Ok(Moment::all(&ticks(&shifted)?));
    }
    let beyond = if matches!(bound, RangeBound::Preceding(_)) { Moment::FIRST } else { Moment::LAST };
    let one = |row| match shift(&times.slice(row, 1)) {
        Ok(shifted) => Ok(Moment::all(&ticks(&shifted)?).pop().unwrap_or(beyond)),
        Err(_) => Ok(beyond),
    };
    (0..times.len()).map(one).collect()
}
