//! The windows that are due, and the slices that they are made of.
//!
//! Slices are taken out once, however many of the windows that are due hold them, and put back once: a window that closes
//! moves nothing. Where rows of several partitions meet, some are late for windows that still wait for others: then there
//! are slices of one pane that begin with different windows.

use std::ops::Range;

use super::aggregate_spec::AggregateSpec;
use super::open_windows::{Slice, Window};

/// Slices that windows which are due hold, by panes. No window ends before another one that begins before it, so the slices of
/// windows lie between two places that only move on.
pub(super) struct DueSlices<G> {
    pub(super) slices: Vec<(Slice, G)>,
    /// The first slice that may be in the next window, and the first one after it.
    next: Range<usize>,
    /// The end of the last window that was given.
    above: i64,
    watermark: i64,
}

impl<G> DueSlices<G> {
    /// All slices that are in a window which ends at or before the watermark.
    pub(super) fn new(slices: Vec<(Slice, G)>, watermark: i64) -> Self {
        let above = slices.iter().map(|(slice, _)| slice.next_end).min().map_or(watermark, |end| end.saturating_sub(1));
        let mut slices = slices;
        slices.sort_by_key(|(slice, _)| (slice.pane, slice.next_end));
        Self { slices, next: 0..0, above, watermark }
    }

    /// The next window that is due, and where its slices are. Among them may be some whose `next_end`
    /// is later.
    pub(super) fn next(&mut self, spec: &AggregateSpec) -> Option<(Window, Range<usize>)> {
        let (end, at) = self.next_end(spec).filter(|(end, _)| *end <= self.watermark)?;
        self.above = end;
        let slice = self.slices[at].0;
        let Some(shape) = spec.overlapping() else {
            return Some((Window { start: slice.pane, end }, at..at + 1));
        };
        let start = shape.start(slice.pane, end);
        let pane = |index: usize| self.slices.get(index).map(|(slice, _)| slice.pane);
        let Range { start: mut first, end: mut after } = self.next.clone();
        while pane(first).is_some_and(|pane| pane < start) {
            first += 1;
        }
        after = after.max(first);
        while pane(after).is_some_and(|pane| pane < end) {
            after += 1;
        }
        self.next = first..after;
        Some((Window { start, end }, self.next.clone()))
    }

    /// The end of the next window, and a slice that it holds.
    fn next_end(&mut self, spec: &AggregateSpec) -> Option<(i64, usize)> {
        let mut next: Option<(i64, usize)> = None;
        let mut index = self.next.start;
        while let Some((slice, _)) = self.slices.get(index) {
            match spec.window_after(*slice, self.above) {
                // No window holds it any more, nor those before it.
                None if next.is_none() => self.next.start = index + 1,
                None => {}
                // Nor do those after it have an earlier one.
                Some(end) if next.is_some_and(|(least, _)| least <= end) => break,
                Some(end) => {
                    let end = end.max(slice.next_end);
                    next = next.filter(|(least, _)| *least <= end).or(Some((end, index)));
                }
            }
            index += 1;
        }
        self.next.end = self.next.end.max(self.next.start);
        next
    }

    /// Takes what slices that only windows after `end` hold have, of those at these places.
    pub(super) fn set_aside(&mut self, at: &Range<usize>, end: i64) -> Vec<(usize, G)>
    where
        G: Default,
    {
        let slices = at.clone().zip(&mut self.slices[at.clone()]);
        let later = slices.filter(|(_, (slice, _))| slice.next_end > end);
        later.map(|(index, (_, kept))| (index, std::mem::take(kept))).collect()
    }

    /// Gives them back what they had.
    pub(super) fn put_back(&mut self, aside: Vec<(usize, G)>) {
        for (index, kept) in aside {
            self.slices[index].1 = kept;
        }
    }

    /// Takes out the slices at these places that a window which ends at `end` holds. No other window may be asked for then.
    pub(super) fn take(&mut self, at: Range<usize>, end: i64) -> Vec<(Slice, G)> {
        let (taken, later) = self.slices.drain(at).partition(|(slice, _)| slice.next_end <= end);
        self.slices.extend::<Vec<_>>(later);
        taken
    }

    /// The slices that are in windows after the last one that was given.
    pub(super) fn rest(self, spec: &AggregateSpec) -> impl Iterator<Item = (Slice, G)> {
        let above = self.above;
        self.slices.into_iter().filter_map(move |(slice, kept)| {
            let next_end = match slice.next_end > above {
                true => slice.next_end,
                false => spec.window_after(slice, above)?,
            };
            Some((Slice { next_end, ..slice }, kept))
        })
    }
}
