//! The first and the last event time of a session.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::Int64Type;

/// Event times, small because there is one for each row that changes a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) start: i64,
    pub(super) last: i64,
}

impl Bounds {
    /// Those of rows without a time: so far apart, and the wrong way round, that no row is near.
    pub(super) const NONE: Self = Self { start: i64::MAX, last: i64::MIN };

    /// Those of one row.
    pub(super) fn at(time: i64) -> Self {
        Self { start: time, last: time }
    }

    pub(super) fn has_time(self) -> bool {
        self.start <= self.last
    }

    /// When the session ends, if sessions are `gap` apart; never without a time.
    pub(super) fn end(self, gap: i64) -> i64 {
        if self.has_time() { self.last.saturating_add(gap) } else { i64::MAX }
    }

    /// Those of both.
    pub(super) fn with(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), last: self.last.max(other.last) }
    }
}

/// Times of sessions as a column, null for those without one.
pub(super) fn times(bounds: &[Bounds], time: impl Fn(Bounds) -> i64) -> Int64Array {
    let times = bounds.iter().map(|bounds| time(*bounds)).collect::<Vec<_>>();
    let valid = bounds.iter().any(|bounds| !bounds.has_time());
    let valid = valid.then(|| NullBuffer::from_iter(bounds.iter().map(|bounds| bounds.has_time())));
    Int64Array::new(times.into(), valid)
}

/// Bounds as two columns.
pub(super) fn columns(bounds: &[Bounds]) -> Vec<ArrayRef> {
    vec![Arc::new(times(bounds, |bounds| bounds.start)), Arc::new(times(bounds, |bounds| bounds.last))]
}

/// The bounds of such columns; none if they are others.
pub(super) fn from_columns(starts: &ArrayRef, lasts: &ArrayRef) -> Option<Vec<Bounds>> {
    let (starts, lasts) = (starts.as_primitive_opt::<Int64Type>()?, lasts.as_primitive_opt::<Int64Type>()?);
    let bounds = |row| match starts.is_valid(row) && lasts.is_valid(row) {
        true => Bounds { start: starts.value(row), last: lasts.value(row) },
        false => Bounds::NONE,
    };
    Some((0..starts.len().min(lasts.len())).map(bounds).collect())
}
