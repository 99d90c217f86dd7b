//! A queue of values that knows their total, without ever taking a value back out of it.
//!
//! Two stacks hold a frame: the back one takes new values and knows their total; the front one holds, for each of
//! the older values, the total from it to the front's newest. When the front runs out, the back is turned over into
//! it. Each value is combined about three times, whatever the frame's length, and floats stay exact because nothing
//! is subtracted. The technique is the two-stack queue of Tangwongsan, Hirzel, Schneider and Wu (VLDB 2015).

/// The total of some rows: a value and how many rows went into it.
pub(super) type Total<N> = (N, i64);

/// One frame that slides over the rows of a key.
#[derive(Debug, Clone)]
pub(super) struct TwoStacks<N> {
    /// Totals from each older value on; the oldest is on top.
    pub(super) front: Vec<Total<N>>,
    /// Newer values.
    pub(super) back: Vec<Total<N>>,
    pub(super) back_total: Total<N>,
}

fn combined<N: Copy>(combine: fn(N, N) -> N, older: Total<N>, newer: Total<N>) -> Total<N> {
    match (older.1, newer.1) {
        (0, _) => newer,
        (_, 0) => older,
        (a, b) => (combine(older.0, newer.0), a + b),
    }
}

impl<N: Copy> TwoStacks<N> {
    /// Totals that there is room for.
    pub(super) fn room(&self) -> usize {
        self.front.capacity() + self.back.capacity()
    }

    /// Takes the next row of the key in and gives the total of its frame.
    pub(super) fn slide(&mut self, next: Total<N>, frame_rows: Option<usize>, combine: fn(N, N) -> N) -> Total<N> {
        let Some(frame_rows) = frame_rows else {
            self.back_total = combined(combine, self.back_total, next);
            return self.back_total;
        };
        if self.front.len() + self.back.len() == frame_rows {
            self.pop(combine);
        }
        self.push(next, combine);
        match self.front.last() {
            Some(front) => combined(combine, *front, self.back_total),
            None => self.back_total,
        }
    }

    pub(super) fn push(&mut self, next: Total<N>, combine: fn(N, N) -> N) {
        self.back_total = if self.back.is_empty() { next } else { combined(combine, self.back_total, next) };
        self.back.push(next);
    }

    /// Takes the oldest value out.
    pub(super) fn pop(&mut self, combine: fn(N, N) -> N) {
        if self.front.is_empty() {
            self.turn_over(combine);
        }
        self.front.pop();
    }

    /// The total of all values, `none` if there is none.
    pub(super) fn total(&self, none: Total<N>, combine: fn(N, N) -> N) -> Total<N> {
        match (self.front.last(), self.back.is_empty()) {
            (None, true) => none,
            (None, false) => self.back_total,
            (Some(front), true) => *front,
            (Some(front), false) => combined(combine, *front, self.back_total),
        }
    }

    fn turn_over(&mut self, combine: fn(N, N) -> N) {
        for value in self.back.drain(..).rev() {
            let total = match self.front.last() {
                Some(newer) => combined(combine, value, *newer),
                None => value,
            };
            self.front.push(total);
        }
    }
}
