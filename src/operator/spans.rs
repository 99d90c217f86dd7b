//! Spans of event time whose windows have been given: those that end after a span's begin, and not after its end.

use super::{WATERMARK_MAX, WATERMARK_MIN};

/// Disjoint spans, the earliest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spans(Vec<(i64, i64)>);

impl Spans {
    /// The spans from each begin to each end, those that meet joined.
    pub(crate) fn of(spans: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let mut spans: Vec<(i64, i64)> = spans.into_iter().collect();
        spans.sort_unstable();
        let mut all = Self::default();
        for (begin, end) in spans {
            match all.0.last_mut().filter(|(_, last)| *last >= begin) {
                Some((_, last)) => *last = end.max(*last),
                None => all.0.push((begin, end)),
            }
        }
        all
    }

    /// Each with its begin and end.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.0.iter().copied()
    }

    /// Adds a span that begins after all others, or where the last one ends.
    pub(super) fn push(&mut self, begin: i64, end: i64) {
        match self.0.last_mut().filter(|(_, last)| *last == begin) {
            Some((_, last)) => *last = end,
            None => self.0.push((begin, end)),
        }
    }

    pub(super) fn add_all(&mut self, others: &Self) {
        *self = Self::of(self.iter().chain(others.iter()));
    }

    /// Whether a window that ends then has been given; none of those without an end comes after all others.
    pub(super) fn has(&self, end: Option<i64>) -> bool {
        let end = end.unwrap_or(WATERMARK_MAX);
        let span = self.0.partition_point(|(_, last)| *last < end);
        self.0.get(span).is_some_and(|(begin, _)| *begin < end)
    }

    /// Up to where all windows have been given.
    pub(super) fn given(&self) -> i64 {
        self.0.first().filter(|(begin, _)| *begin == WATERMARK_MIN).map_or(WATERMARK_MIN, |(_, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn spans_have_what_was_added(added in prop::collection::vec((0i64..30, 1i64..10), 0..8), end in 0i64..45) {
            let added: Vec<_> = added.into_iter().map(|(begin, length)| (begin, begin + length)).collect();
            let spans = Spans::of(added.iter().copied());
            prop_assert_eq!(spans.has(Some(end)), added.iter().any(|(begin, last)| *begin < end && end <= *last));
            let all: Vec<_> = spans.iter().collect();
            prop_assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", all);
            prop_assert_eq!(spans.given(), WATERMARK_MIN);
        }
    }

    #[test]
    fn what_begins_with_time_is_given_up_to_its_end() {
        let mut spans = Spans::of([(WATERMARK_MIN, 5), (7, 9)]);
        assert_eq!((spans.given(), spans.has(Some(6)), spans.has(None)), (5, false, false));
        spans.push(9, 12);
        assert_eq!(spans.iter().count(), 2);
        spans.add_all(&Spans::of([(5, 7)]));
        assert_eq!(spans.given(), 12);
        spans.push(12, WATERMARK_MAX);
        assert!(spans.has(None));
    }
}
