//! Bringing together the partial states of a window that several pipelines have rows of.
//!
//! A window is complete when no piece of the data can touch it any more: each piece has ended, or its watermark (for
//! a piece that has not begun: the one it starts with) has passed the window's end. Partials are merged in the order
//! of the pieces, which is the order of the rows.

mod handed_over;

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};

use super::aggregate_spec::AggregateSpec;
use super::due::DueSlices;
use super::groups::Groups;
use super::open_windows::{OpenWindows, Window, ranges, slice_of, without_slice};
use super::small_windows::{SmallWindows, are_enough, are_few};
use super::spans::Spans;
use super::states::StateRows;
use super::{WATERMARK_MAX, WATERMARK_MIN};

pub(crate) use handed_over::{HandedOver, PartId, SavedPart};

/// Keeps partial states until their windows are complete.
#[derive(Debug)]
pub(crate) struct Merger {
    spec: Arc<AggregateSpec>,
    /// The watermark of each piece.
    watermarks: Vec<i64>,
    /// Partials by slice, each with its piece.
    waiting: OpenWindows<Vec<(usize, StateRows)>>,
    /// Whether an answer is due even if no piece had a row.
    owes_answer: bool,
    /// Up to where windows have been given in this run.
    given: i64,
    /// The windows that each piece has given since it saved itself, if pieces do, and those of all that are saved.
    unsaved: Option<Vec<Spans>>,
    saved: Spans,
    /// How often each piece has saved itself.
    epochs: Vec<u64>,
}

/// What a piece saves of what it has to do with a merger.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SavedPiece {
    /// How far it has told the merger that it has come.
    pub(crate) watermark: i64,
    /// How many windows it has given.
    pub(crate) windows: u64,
    /// The windows that nobody has to give again: its own, and those of others that were saved.
    pub(crate) given: Spans,
    /// How often each piece had saved itself by then. Where one goes on from an earlier time, this cannot be relied on.
    pub(crate) epochs: Vec<u64>,
    /// What it has handed over for other windows.
    pub(crate) parts: Vec<SavedPart>,
}

/// A window that nobody can touch any more.
#[derive(Debug)]
pub(crate) struct CompleteWindow {
    /// None for the window of null event times, and where there is no window.
    pub(in crate::operator) window: Option<Window>,
    /// Its partial states, in the order of their pieces.
    pub(in crate::operator) partials: Vec<StateRows>,
}

impl Merger {
    /// A merger of pieces that start with these watermarks.
    pub(crate) fn new(spec: Arc<AggregateSpec>, start_watermarks: Vec<i64>) -> Self {
        let (owes_answer, pieces) = (spec.owes_answer(), start_watermarks.len());
        Self {
            spec,
            watermarks: start_watermarks,
            waiting: OpenWindows::default(),
            owes_answer,
            given: WATERMARK_MIN,
            unsaved: None,
            saved: Spans::default(),
            epochs: vec![0; pieces],
        }
    }

    /// Pieces save themselves: who gives which window is remembered from now on.
    pub(crate) fn remember(&mut self) {
        self.unsaved = Some(vec![Spans::default(); self.watermarks.len()]);
    }

    /// Goes on where a piece was when it had saved itself so often.
    ///
    /// # Errors
    /// What is no partial state; more pieces than there are.
    pub(crate) fn restore(&mut self, piece: usize, epoch: u64, saved: SavedPiece) -> Result<()> {
        let (Some(watermark), Some(own)) = (self.watermarks.get_mut(piece), self.epochs.get_mut(piece)) else {
            return Err(no_piece(piece));
        };
        *watermark = saved.watermark.max(*watermark);
        *own = epoch;
        self.saved.add_all(&saved.given);
        saved.parts.into_iter().try_for_each(|part| self.wait(piece, part.partials))
    }

    /// The windows that nobody has to give again once `piece` has saved itself, and how often each piece has done so.
    pub(crate) fn to_save(&self, piece: usize) -> (Spans, Vec<u64>) {
        let mut given = self.saved.clone();
        self.unsaved.iter().flat_map(|all| all.get(piece)).for_each(|own| given.add_all(own));
        (given, self.epochs.clone())
    }

    /// A piece has saved itself.
    pub(crate) fn saved(&mut self, piece: usize, epoch: u64) {
        if let Some(unsaved) = self.unsaved.as_mut().and_then(|all| all.get_mut(piece)) {
            self.saved.add_all(&std::mem::take(unsaved));
        }
        self.epochs.get_mut(piece).into_iter().for_each(|own| *own = epoch);
    }

    /// The windows that nobody has to give again.
    pub(crate) fn given(&self) -> &Spans {
        &self.saved
    }

    fn wait(&mut self, piece: usize, partials: Vec<RecordBatch>) -> Result<()> {
        for partial in partials.into_iter().filter(|partial| partial.num_rows() > 0) {
            self.owes_answer = false;
            let ranges = ranges(&partial)?;
            let states = StateRows::all(without_slice(&partial)?.1).divide(ranges.iter().map(|range| range.end));
            for (range, states) in ranges.iter().zip(states) {
                let slice = slice_of(&partial.slice(range.start, 1))?;
                self.waiting.open(slice, || Ok(vec![]))?.push((piece, states));
            }
        }
        Ok(())
    }

    /// Takes the partial states of slices of windows that `piece` has closed, and its watermark; gives the windows that
    /// are complete now. A piece that tells less than it told before has still come as far: whoever goes on from a
    /// checkpoint knows less for its first rows.
    ///
    /// # Errors
    /// What is no partial state.
    pub(crate) fn close(
        &mut self,
        piece: usize,
        watermark: i64,
        partials: Vec<RecordBatch>,
    ) -> Result<VecDeque<CompleteWindow>> {
        self.wait(piece, partials)?;
        let own = self.watermarks.get_mut(piece).ok_or_else(|| no_piece(piece))?;
        *own = watermark.max(*own);
        let reached = self.watermarks.iter().copied().min().unwrap_or(WATERMARK_MAX);
        let mut complete = self.complete(reached)?;
        // What was given before this run was interrupted is there.
        complete.retain(|window| !self.saved.has(window.window.map(|window| window.end)));
        if !complete.is_empty() {
            let given = std::mem::replace(&mut self.given, reached);
            self.unsaved.iter_mut().for_each(|all| all[piece].push(given, reached));
        }
        Ok(complete)
    }

    fn complete(&mut self, reached: i64) -> Result<VecDeque<CompleteWindow>> {
        let mut complete = VecDeque::new();
        let mut due = DueSlices::new(self.waiting.due(reached), reached);
        while let Some((window, at)) = due.next(&self.spec) {
            let slices = due.slices[at].iter().filter(|(slice, _)| slice.next_end <= window.end);
            let partials = slices.flat_map(|(_, partials)| partials.iter().cloned()).collect();
            complete.push_back(CompleteWindow { window: Some(window), partials: in_order(partials) });
        }
        for (slice, partials) in due.rest(&self.spec) {
            self.waiting.open(Some(slice), || Ok(vec![]))?.extend(partials);
        }
        if reached == WATERMARK_MAX {
            let last = self.waiting.take_last();
            let owed = std::mem::take(&mut self.owes_answer).then(Vec::new);
            let last = last.or(owed).map(|partials| CompleteWindow { window: None, partials: in_order(partials) });
            complete.extend(last);
        }
        Ok(complete)
    }
}

fn no_piece(piece: usize) -> DataFusionError {
    internal_datafusion_err!("there is no piece {piece}")
}

fn in_order(mut partials: Vec<(usize, StateRows)>) -> Vec<StateRows> {
    partials.sort_by_key(|(piece, _)| *piece);
    partials.into_iter().map(|(_, partial)| partial).collect()
}

/// Merges the partial states of windows into their output. Without partials it is the answer to no rows at all.
///
/// # Errors
/// States that do not fit the aggregates.
pub(crate) fn merge_windows(spec: &AggregateSpec, windows: VecDeque<CompleteWindow>) -> Result<Vec<RecordBatch>> {
    let (mut output, mut small) = (vec![], SmallWindows::default());
    for CompleteWindow { window, partials } in windows {
        let is_small = are_few(spec, partials.iter().map(StateRows::len).sum())?;
        match window.filter(|_| is_small) {
            Some(window) => small.add(window, partials.iter()),
            None => {
                output.extend(small.take(spec)?.1);
                output.push(merge_window(spec, window, &partials)?);
            }
        }
        if are_enough(small.states()) {
            output.extend(small.take(spec)?.1);
        }
    }
    output.extend(small.take(spec)?.1);
    Ok(output)
}

fn merge_window(spec: &AggregateSpec, window: Option<Window>, partials: &[StateRows]) -> Result<RecordBatch> {
    if partials.is_empty() {
        return spec.empty_answer();
    }
    let mut groups = Groups::try_new(spec)?;
    for partial in partials {
        groups.merge(spec, &partial.to_batch())?;
    }
    let (rows, columns) = groups.finish()?;
    spec.output(window, rows, columns)
}

#[cfg(test)]
mod tests;
