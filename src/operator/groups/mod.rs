//! Groups: which keys there are, and accumulators of all groups.
//!
//! | file | what |
//! |---|---|
//! | `accumulators.rs` | what the aggregates hold of groups that somebody else numbers |
//! | `summaries.rs`, `columns.rs` | those of aggregates that ask simple things of one column, in one pass over it |
//! | `single_group.rs` | those of a query without keys and window |
//! | `many.rs` | the groups of many windows at once, one window after the other |

mod accumulators;
mod columns;
mod many;
mod single_group;
mod summaries;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::common::Result;

use super::aggregate_spec::{AggregateSpec, Evaluated};
use super::keys::Keys;
use accumulators::Accumulators;
pub(super) use many::GroupsOfMany;

/// The groups of one window with their accumulators.
pub(super) struct Groups {
    keys: Keys,
    accumulators: Accumulators,
    /// Bytes held, as of the last change.
    pub(super) size: usize,
}

impl Groups {
    pub(super) fn try_new(spec: &AggregateSpec) -> Result<Self> {
        Ok(Self { keys: Keys::new(spec), accumulators: Accumulators::try_new(spec)?, size: 0 })
    }

    /// Aggregates a batch's rows.
    pub(super) fn update(&mut self, rows: &Evaluated) -> Result<()> {
        self.keys.intern(&rows.keys, rows.rows)?;
        self.accumulators.update(rows, &self.keys.groups, self.keys.len())?;
        self.measure();
        Ok(())
    }

    /// Adds partial states in the form of [`AggregateSpec::state_schema`].
    pub(super) fn merge(&mut self, spec: &AggregateSpec, state: &RecordBatch) -> Result<()> {
        let (keys, states) = state.columns().split_at(spec.keys.len());
        self.keys.intern(keys, state.num_rows())?;
        self.accumulators.merge(spec, states, &self.keys.groups, self.keys.len())?;
        self.measure();
        Ok(())
    }

    /// Takes everything out as final values: keys, then aggregates.
    pub(super) fn finish(mut self) -> Result<(usize, Vec<ArrayRef>)> {
        let rows = self.keys.len();
        let mut columns = self.keys.emit()?;
        columns.extend(self.accumulators.values(rows)?);
        Ok((rows, columns))
    }

    /// Takes everything out as partial states of that form.
    pub(super) fn into_state(mut self, spec: &AggregateSpec) -> Result<RecordBatch> {
        let rows = self.keys.len();
        let mut columns = self.keys.emit()?;
        columns.extend(self.accumulators.states(rows)?);
        with_types(spec, columns, rows)
    }

    fn measure(&mut self) {
        self.size = self.keys.size() + self.accumulators.size();
    }
}

/// Bytes of partial states, of which several aggregates may share a column.
pub(super) fn state_size(states: &RecordBatch) -> usize {
    let columns = states.columns();
    let is_first =
        |(index, column): &(usize, &ArrayRef)| !columns[..*index].iter().any(|other| Arc::ptr_eq(other, column));
    columns.iter().enumerate().filter(is_first).map(|(_, column)| column.get_array_memory_size()).sum()
}

/// A state batch; some accumulators give other, equivalent types than they declare (views, dictionaries).
fn with_types(spec: &AggregateSpec, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let schema = spec.state_schema()?;
    let cast = columns.into_iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            Ok(column)
        } else {
            arrow::compute::cast(&column, field.data_type())
        }
    });
    let columns = cast.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}
