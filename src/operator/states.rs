//! Partial states of groups that are kept until the windows that they are for close.

use std::ops::Range;
use std::sync::{Arc, Weak};

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::compute::interleave;
use datafusion::common::{HashMap, Result};

use super::aggregate_spec::AggregateSpec;
use super::groups::state_size;

/// Some rows of a batch of states, which slices may share.
#[derive(Debug, Clone)]
pub(super) struct StateRows {
    batch: Arc<RecordBatch>,
    rows: Range<usize>,
    /// Bytes of its share of the batch.
    size: usize,
    is_shared: bool,
}

impl StateRows {
    /// All rows of a batch.
    pub(super) fn all(batch: RecordBatch) -> Self {
        let (rows, size) = (0..batch.num_rows(), state_size(&batch));
        Self { batch: Arc::new(batch), rows, size, is_shared: false }
    }

    /// Divides all rows of a batch by where those of each part end.
    pub(super) fn divide(self, ends: impl IntoIterator<Item = usize>) -> impl Iterator<Item = Self> {
        let of_row = self.size / self.rows.len().max(1);
        ends.into_iter().scan(0, move |start, end| {
            let rows = std::mem::replace(start, end)..end;
            Some(Self { batch: Arc::clone(&self.batch), size: rows.len() * of_row, rows, is_shared: true })
        })
    }

    /// Number of groups.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows as a batch.
    pub(super) fn to_batch(&self) -> RecordBatch {
        match self.len() == self.batch.num_rows() {
            true => self.batch.as_ref().clone(),
            false => self.batch.slice(self.rows.start, self.rows.len()),
        }
    }

    /// Bytes of these rows.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Bytes of these rows, if they are in memory for as long as any of their batch are.
    pub(super) fn shared_size(&self) -> usize {
        if self.is_shared { self.size } else { 0 }
    }
}

/// The batches whose rows slices share. One row keeps all of its batch in memory.
#[derive(Debug, Default)]
pub(super) struct SharedBatches(Vec<(Weak<RecordBatch>, usize)>);

impl SharedBatches {
    /// Watches a batch that is to be divided.
    pub(super) fn add(&mut self, states: &StateRows) {
        self.0.retain(|(batch, _)| batch.strong_count() > 0);
        self.0.push((Arc::downgrade(&states.batch), states.size));
    }

    /// Bytes of those that are still in memory.
    pub(super) fn size(&self) -> usize {
        self.0.iter().filter(|(batch, _)| batch.strong_count() > 0).map(|(_, size)| size).sum()
    }
}

/// States of several slices or windows, one after the other, to be made one batch.
#[derive(Default)]
pub(super) struct GatheredStates {
    batches: Vec<Arc<RecordBatch>>,
    number_of: HashMap<*const RecordBatch, usize>,
    /// Each state's batch, and its row there.
    rows: Vec<(usize, usize)>,
    /// Where the states of each end.
    pub(super) ends: Vec<usize>,
}

impl GatheredStates {
    /// Number of states.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds those of the next slice or window.
    pub(super) fn add<'a>(&mut self, states: impl Iterator<Item = &'a StateRows>) {
        let mut last: Option<(&Arc<RecordBatch>, usize)> = None;
        for StateRows { batch, rows, .. } in states {
            let number = match last.filter(|(known, _)| Arc::ptr_eq(known, batch)) {
                Some((_, number)) => number,
                None => *self.number_of.entry(Arc::as_ptr(batch)).or_insert_with(|| {
                    self.batches.push(Arc::clone(batch));
                    self.batches.len() - 1
                }),
            };
            last = Some((batch, number));
            self.rows.extend(rows.clone().map(|row| (number, row)));
        }
        self.ends.push(self.rows.len());
    }

    /// All of them.
    pub(super) fn to_batch(&self, spec: &AggregateSpec) -> Result<RecordBatch> {
        let schema = spec.state_schema()?;
        let column = |index: usize| {
            let arrays: Vec<&dyn Array> = self.batches.iter().map(|batch| batch.column(index).as_ref()).collect();
            interleave(&arrays, &self.rows)
        };
        let columns = (0..schema.fields().len()).map(column).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }
}
