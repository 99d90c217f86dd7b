//! The windows that rows may still fall into, as panes that wait for the next window that holds them to close.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, partition};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::common::{Result, internal_datafusion_err};

/// Rows of one pane that are in the same windows: those of the pane that end at `next_end` and later.
///
/// Where a window is one pane, `pane` is its start and `next_end` its end. Rows that came too late for the pane's first
/// windows have a later `next_end` than those that did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slice {
    pub(super) next_end: i64,
    pub(super) pane: i64,
}

/// A window: from its start to just before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: i64,
    pub(crate) end: i64,
}

/// What is kept for each slice, and for the one window without a start: that of null event times, or the only one
/// where there is no window. It waits for the end.
#[derive(Debug)]
pub(super) struct OpenWindows<G> {
    /// Boxed, for a tree moves what it holds whenever a window opens or closes.
    slices: BTreeMap<Slice, Box<G>>,
    last: Option<G>,
}

impl<G> Default for OpenWindows<G> {
    fn default() -> Self {
        Self { slices: BTreeMap::new(), last: None }
    }
}

impl<G> OpenWindows<G> {
    /// What is kept for a slice, which opens now if it was not open.
    pub(super) fn open(&mut self, slice: Option<Slice>, fresh: impl FnOnce() -> Result<G>) -> Result<&mut G> {
        Ok(match slice {
            Some(slice) => match self.slices.entry(slice) {
                Entry::Occupied(open) => open.into_mut(),
                Entry::Vacant(free) => free.insert(Box::new(fresh()?)),
            },
            None => match &mut self.last {
                Some(groups) => groups,
                none => none.insert(fresh()?),
            },
        })
    }

    /// Takes out the slices that are in a window which ends at or before the watermark, the earliest end first. Those that
    /// are in later windows too are to be put back.
    pub(super) fn due(&mut self, watermark: i64) -> Vec<(Slice, G)> {
        let mut due = vec![];
        while let Some(entry) = self.slices.first_entry()
            && entry.key().next_end <= watermark
        {
            let (slice, groups) = entry.remove_entry();
            due.push((slice, *groups));
        }
        due
    }

    /// Takes all slices out as they are, the earliest first and the one without a window last.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Option<Slice>, G)> + use<G> {
        let slices = std::mem::take(&mut self.slices).into_iter().map(|(slice, groups)| (Some(slice), *groups));
        slices.chain(self.last.take().map(|groups| (None, groups)))
    }

    /// Takes out the one without a window.
    pub(super) fn take_last(&mut self) -> Option<G> {
        self.last.take()
    }

    /// How many slices are open.
    pub(super) fn count(&self) -> u64 {
        self.slices.len() as u64
    }

    /// Whether the window without a start is open.
    pub(super) fn has_last(&self) -> bool {
        self.last.is_some()
    }

    /// All slices with what is kept for them, the one without a window last.
    pub(super) fn entries(&mut self) -> impl Iterator<Item = (Option<Slice>, &mut G)> {
        let slices = self.slices.iter_mut().map(|(slice, groups)| (Some(*slice), groups.as_mut()));
        slices.chain(self.last.iter_mut().map(|groups| (None, groups)))
    }

    /// What is kept for all slices.
    pub(super) fn groups(&self) -> impl Iterator<Item = &G> {
        self.slices.values().map(Box::as_ref).chain(&self.last)
    }

    #[cfg(test)]
    pub(super) fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.slices.keys()
    }
}

/// Number of columns that say which slice a state batch is of: the first ones.
pub(super) const SLICE_COLUMNS: usize = 2;

/// Rows of state that are joined at least, if there are as many.
const JOINED_ROWS: usize = 8192;

/// The first columns of a state batch of a slice.
pub(super) fn slice_columns(slice: Option<Slice>, rows: usize) -> Vec<ArrayRef> {
    columns_of_slices(&[(slice, rows)])
}

/// The same of several slices, each up to its end.
fn columns_of_slices(slices: &[(Option<Slice>, usize)]) -> Vec<ArrayRef> {
    let column = |bound: fn(&Slice) -> i64| {
        let mut bounds = vec![];
        for (slice, end) in slices {
            bounds.resize(*end, slice.as_ref().map(bound));
        }
        Arc::new(Int64Array::from(bounds)) as ArrayRef
    };
    vec![column(|slice| slice.next_end), column(|slice| slice.pane)]
}

/// States of groups as a state batch of their slice: before them its `next_end` and `pane` in ticks, null for the window
/// of null event times and without a window.
pub(super) fn with_slice(slice: Option<Slice>, groups: &RecordBatch) -> Result<RecordBatch> {
    with_slices(&[(slice, groups.num_rows())], groups)
}

/// The same of several slices, each up to its end.
pub(super) fn with_slices(slices: &[(Option<Slice>, usize)], groups: &RecordBatch) -> Result<RecordBatch> {
    let mut columns = columns_of_slices(slices);
    columns.extend_from_slice(groups.columns());
    let bounds = ["next_end", "pane"].map(|name| Arc::new(Field::new(name, DataType::Int64, true)));
    let schema = groups.schema();
    let fields = bounds.iter().chain(schema.fields()).cloned();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?)
}

/// The same batches, those of few rows together: a batch costs a kilobyte in a checkpoint, and with exact watermarks there
/// are thousands of slices with a row each.
pub(super) fn joined(states: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let (mut joined, mut few, mut rows) = (vec![], vec![], 0);
    let mut states = states.into_iter().peekable();
    while let Some(state) = states.next() {
        rows += state.num_rows();
        few.push(state);
        if rows >= JOINED_ROWS || states.peek().is_none() {
            joined.push(match few.as_slice() {
                [large] => large.clone(),
                few => concat_batches(&few[0].schema(), few)?,
            });
            (few, rows) = (vec![], 0);
        }
    }
    Ok(joined)
}

/// The rows of each slice in such a batch.
pub(super) fn ranges(states: &RecordBatch) -> Result<Vec<Range<usize>>> {
    match states.num_columns() >= SLICE_COLUMNS {
        true => Ok(partition(&states.columns()[..SLICE_COLUMNS])?.ranges()),
        false => Err(internal_datafusion_err!("the state of a window begins with its end and its pane")),
    }
}

/// Batches of one slice each again.
pub(super) fn apart(states: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let mut apart = vec![];
    for states in states {
        apart.extend(ranges(states)?.into_iter().map(|range| states.slice(range.start, range.len())));
    }
    Ok(apart)
}

/// The slice of such a batch, and the states of its groups.
pub(super) fn without_slice(state: &RecordBatch) -> Result<(Option<Slice>, RecordBatch)> {
    let slice = slice_of(state)?;
    let groups = (SLICE_COLUMNS..state.num_columns()).collect::<Vec<_>>();
    Ok((slice, state.project(&groups)?))
}

/// The slice that a state batch holds: its first two columns, the same in every row.
pub(super) fn slice_of(state: &RecordBatch) -> Result<Option<Slice>> {
    let column = |index: usize| {
        let column = state.columns().get(index).and_then(|column| column.as_primitive_opt::<Int64Type>());
        column.filter(|column| !column.is_empty())
    };
    match (column(0), column(1)) {
        (Some(ends), Some(panes)) => {
            Ok(ends.is_valid(0).then(|| Slice { next_end: ends.value(0), pane: panes.value(0) }))
        }
        _ => Err(internal_datafusion_err!("the state of a window begins with its end and its pane")),
    }
}
