//! What a piece that saves itself has handed over to a merger: it is given up only when the windows that it is for have been
//! given, and that is saved.
//!
//! What has been handed over does not change any more, so it is saved once: each time a piece saves itself, what is new since
//! the last time becomes a part, and the parts before are named. A part that has mostly been forgotten is saved anew with
//! what is left of it, so what is saved stays below about twice of what is needed.

use arrow::array::RecordBatch;
use datafusion::common::Result;

use crate::operator::WATERMARK_MAX;
use crate::operator::aggregate_spec::AggregateSpec;
use crate::operator::open_windows::{apart, joined, slice_of};
use crate::operator::spans::Spans;

/// When a part was saved: by which run, and in which epoch of the pipeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartId {
    pub(crate) epoch: u64,
    pub(crate) run: u64,
}

/// A part of what was handed over.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SavedPart {
    pub(crate) id: PartId,
    /// Its partial states; none where it was saved before.
    pub(crate) partials: Vec<RecordBatch>,
    /// Their rows.
    pub(crate) rows: u64,
}

/// What a piece has handed over, for as long as a window that it is for is not saved.
#[derive(Debug, Default)]
pub(crate) struct HandedOver {
    parts: Vec<Part>,
    /// What is in no part yet.
    new: Vec<Partial>,
    /// Up to where it has been forgotten.
    forgotten: i64,
}

#[derive(Debug)]
struct Part {
    id: PartId,
    /// The rows that are saved in it.
    rows: u64,
    partials: Vec<Partial>,
}

#[derive(Debug)]
struct Partial {
    /// The end of the last window that it is for.
    last_end: i64,
    states: RecordBatch,
}

impl HandedOver {
    /// # Errors
    /// What is no partial state.
    pub(crate) fn add(&mut self, spec: &AggregateSpec, partials: &[RecordBatch]) -> Result<()> {
        self.new.extend(partials_of(spec, partials)?);
        Ok(())
    }

    /// Goes on from what was saved.
    ///
    /// # Errors
    /// What is no partial state.
    pub(crate) fn restore(&mut self, spec: &AggregateSpec, parts: Vec<SavedPart>) -> Result<()> {
        for SavedPart { id, partials, rows } in parts {
            self.parts.push(Part { id, rows, partials: partials_of(spec, &partials)? });
        }
        Ok(())
    }

    /// Forgets what is only for windows that have been given and saved.
    pub(crate) fn forget(&mut self, given: &Spans) {
        let given = given.given();
        // That moves on when somebody saves itself, and not with each window.
        if std::mem::replace(&mut self.forgotten, given) != given {
            self.new.retain(|partial| partial.last_end > given);
            self.parts.iter_mut().for_each(|part| part.partials.retain(|partial| partial.last_end > given));
            self.parts.retain(|part| !part.partials.is_empty());
        }
    }

    /// What is to be saved, as the part `id` with what is new and those that were saved before.
    ///
    /// # Errors
    /// Partial states that differ in their columns.
    pub(crate) fn save(&mut self, id: PartId) -> Result<Vec<SavedPart>> {
        let (hollow, parts) = std::mem::take(&mut self.parts).into_iter().partition(|part| 2 * part.left() < part.rows);
        self.parts = parts;
        let mut saved: Vec<SavedPart> =
            self.parts.iter().map(|part| SavedPart { id: part.id, partials: vec![], rows: part.rows }).collect();
        let left = Vec::<Part>::into_iter(hollow).flat_map(|part| part.partials);
        let partials: Vec<Partial> = left.chain(std::mem::take(&mut self.new)).collect();
        if !partials.is_empty() {
            let rows = rows(&partials);
            let states = joined(partials.iter().map(|partial| partial.states.clone()).collect())?;
            saved.push(SavedPart { id, partials: states, rows });
            self.parts.push(Part { id, rows, partials });
        }
        Ok(saved)
    }
}

impl Part {
    fn left(&self) -> u64 {
        rows(&self.partials)
    }
}

fn rows(partials: &[Partial]) -> u64 {
    partials.iter().map(|partial| partial.states.num_rows() as u64).sum()
}

fn partials_of(spec: &AggregateSpec, partials: &[RecordBatch]) -> Result<Vec<Partial>> {
    let partial = |states: RecordBatch| {
        let mut slice = slice_of(&states)?;
        while let Some(next) = slice.and_then(|slice| spec.next_window(slice)) {
            slice = Some(next);
        }
        Ok(Partial { last_end: slice.map_or(WATERMARK_MAX, |slice| slice.next_end), states })
    };
    apart(partials)?.into_iter().map(partial).collect()
}
