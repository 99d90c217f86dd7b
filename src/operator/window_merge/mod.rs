//! Bringing together the partial states of a window that several pipelines have rows of.
//!
//! A window is complete when no piece of the data can touch it any more: each piece has ended, or its watermark (for
//! a piece that has not begun: the one it starts with) has passed the window's end. Partials are merged in the order
//! of the pieces, which is the order of the rows.
//!
//! What waits for other pieces goes to disk when memory is short. A window some of which is there is merged a part of its
//! keys at a time.
//!
//! | file | what |
//! |---|---|
//! | `partial.rs` | what a piece knows of a window, in memory or on disk |
//! | `complete.rs` | complete windows on their way to be rows |
//! | `handed_over.rs` | what a piece that saves itself has handed over |

mod complete;
mod handed_over;
mod partial;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::execution::DiskManager;
use datafusion::execution::memory_pool::MemoryReservation;

use super::aggregate_spec::AggregateSpec;
use super::due::DueSlices;
use super::open_windows::{OpenWindows, Window, ranges, slice_of, without_slice};
use super::spans::Spans;
use super::spill::SpillOut;
use super::states::{SharedBatches, StateRows};
use super::{WATERMARK_MAX, WATERMARK_MIN};
pub(crate) use complete::CompleteWindows;
pub(crate) use handed_over::{HandedOver, PartId, SavedPart};
use partial::Partial;

/// Keeps partial states until their windows are complete.
#[derive(Debug)]
pub(crate) struct Merger {
    spec: Arc<AggregateSpec>,
    /// The watermark of each piece.
    watermarks: Vec<i64>,
    /// Partials by slice, each with its piece.
    waiting: OpenWindows<Vec<(usize, Partial)>>,
    /// The batches of those that are in memory.
    in_memory: SharedBatches,
    has_spilled: bool,
    /// Accounts for them; who hosts the merger knows with whom.
    account: Option<Arc<MemoryReservation>>,
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
    window: Option<Window>,
    /// Its partial states, in the order of their pieces.
    partials: Vec<Partial>,
}

impl Merger {
    /// A merger of pieces that start with these watermarks.
    pub(crate) fn new(spec: Arc<AggregateSpec>, start_watermarks: Vec<i64>) -> Self {
        let (owes_answer, pieces) = (spec.owes_answer(), start_watermarks.len());
        Self {
            spec,
            watermarks: start_watermarks,
            waiting: OpenWindows::default(),
            in_memory: SharedBatches::default(),
            has_spilled: false,
            account: None,
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

    /// Takes partial states of slices of windows that `piece` has closed. It has not come to their ends before it says so.
    ///
    /// # Errors
    /// What is no partial state.
    pub(crate) fn wait(&mut self, piece: usize, partials: Vec<RecordBatch>) -> Result<()> {
        for partial in partials.into_iter().filter(|partial| partial.num_rows() > 0) {
            self.owes_answer = false;
            let ranges = ranges(&partial)?;
            let states = StateRows::all(without_slice(&partial)?.1);
            self.in_memory.add(&states);
            for (range, states) in ranges.iter().zip(states.divide(ranges.iter().map(|range| range.end))) {
                let slice = slice_of(&partial.slice(range.start, 1))?;
                self.waiting.open(slice, || Ok(vec![]))?.push((piece, Partial::InMemory(states)));
            }
        }
        Ok(())
    }

    /// All windows of `piece` that end by a watermark have been closed: gives the windows that are complete now. A piece that tells less than it told before has still come as far: whoever goes on from a
    /// checkpoint knows less for its first rows.
    ///
    /// # Errors
    /// A piece that there is not.
    pub(crate) fn close(&mut self, piece: usize, watermark: i64) -> Result<VecDeque<CompleteWindow>> {
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

impl Merger {
    /// What accounts for its memory, made when it is first asked for.
    pub(crate) fn account(&mut self, register: impl FnOnce() -> MemoryReservation) -> Arc<MemoryReservation> {
        Arc::clone(self.account.get_or_insert_with(|| Arc::new(register())))
    }

    /// Bytes in memory of what waits, and of what is complete and not merged yet.
    pub(crate) fn size(&self) -> usize {
        let waiting = self.has_spilled.then(|| self.waiting.groups().flatten());
        let on_disk = waiting.into_iter().flatten().map(|(_, partial)| partial.index_size());
        self.in_memory.size() + on_disk.sum::<usize>()
    }

    /// Brings the larger part of what waits in memory to disk; how many bytes it is there.
    ///
    /// # Errors
    /// A disk that is full, or has no more for this process.
    pub(crate) fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        let held = |partials: &[(usize, Partial)]| partials.iter().map(|(_, partial)| partial.held()).sum::<usize>();
        let waiting = self.waiting.entries().map(|(_, partials)| (held(partials), partials));
        let mut waiting: Vec<_> = waiting.filter(|(held, _)| *held > 0).collect();
        if waiting.is_empty() {
            return Ok(0);
        }
        let goal = waiting.iter().map(|(held, _)| held).sum::<usize>() / 2;
        // Few large ones are read again with less effort than many small ones.
        waiting.sort_by_key(|(held, _)| Reverse(*held));
        self.has_spilled = true;
        let (mut out, mut gone) = (SpillOut::create(disk)?, 0);
        for (held, partials) in waiting {
            if gone > goal {
                break;
            }
            partials.iter_mut().try_for_each(|(_, partial)| partial.spill(&mut out, self.spec.keys.len()))?;
            gone += held;
        }
        out.finish()
    }
}

fn no_piece(piece: usize) -> DataFusionError {
    internal_datafusion_err!("there is no piece {piece}")
}

fn in_order(mut partials: Vec<(usize, Partial)>) -> Vec<Partial> {
    partials.sort_by_key(|(piece, _)| *piece);
    partials.into_iter().map(|(_, partial)| partial).collect()
}
