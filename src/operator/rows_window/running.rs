//! Any aggregate over all rows of a key so far: no row ever leaves the frame, so a running value is all there is to
//! keep.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, StructArray, UInt64Array};
use arrow::compute::{and, take, take_arrays};
use arrow::datatypes::Field;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::RowsState;
use super::framed::{Framed, Rows};
use super::frames::{Due, Marks};
use crate::operator::accumulators::{RunningAggregate, Slots, running_aggregate};

/// The state of an aggregate whose frame has no beginning.
pub(super) fn state(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn RowsState>> {
    Ok(Box::new(running(aggregate)?))
}

/// The same where frames are given row by row.
pub(super) fn framed(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn Framed>> {
    Ok(Box::new(running(aggregate)?))
}

fn running(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Running> {
    Ok(Running { aggregate: running_aggregate(aggregate)?, reached: vec![] })
}

struct Running {
    aggregate: Box<dyn RunningAggregate>,
    /// Where frames are given row by row: how many rows of each key are in.
    reached: Vec<usize>,
}

impl Running {
    /// The states of so many keys, of some of which no row may have been asked for so far.
    fn states(&mut self, total: usize) -> Result<Vec<ArrayRef>> {
        let states = self.aggregate.state()?;
        if states.first().is_none_or(|state| state.len() >= total) {
            return Ok(states);
        }
        let none: Vec<ArrayRef> = states.iter().map(|state| state.slice(0, 0)).collect();
        self.aggregate.put(&[], total, &none)?;
        self.aggregate.state()
    }
}

impl RowsState for Running {
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        live: Option<&BooleanArray>,
    ) -> Result<ArrayRef> {
        self.aggregate.update(Slots::new(groups, groups_total), arguments, live)
    }

    fn forget(&mut self, groups: &[usize]) -> Result<()> {
        self.aggregate.clear(groups)
    }

    fn rows_of(&mut self, groups: &[usize]) -> Result<ArrayRef> {
        let rows = UInt64Array::from_iter_values(groups.iter().map(|group| *group as u64));
        let columns = take_arrays(&self.states(groups.iter().max().map_or(0, |last| last + 1))?, &rows, None)?;
        let field = |(index, column): (usize, &ArrayRef)| {
            Field::new(format!("state_{index}"), column.data_type().clone(), true)
        };
        let fields: Vec<Field> = columns.iter().enumerate().map(field).collect();
        Ok(Arc::new(StructArray::try_new_with_length(fields.into(), columns, None, groups.len())?))
    }

    fn put(&mut self, groups: &[usize], groups_total: usize, rows: &ArrayRef) -> Result<()> {
        let states = rows.as_struct_opt().ok_or_else(|| internal_datafusion_err!("the state of another function"))?;
        self.aggregate.put(groups, groups_total, states.columns())
    }

    fn size(&self) -> usize {
        self.aggregate.size()
    }
}

impl Framed for Running {
    fn values(&mut self, due: &[Due], groups_total: usize, rows: &Rows<'_>) -> Result<ArrayRef> {
        self.reached.resize(groups_total, 0);
        let (mut ids, mut groups, mut counts) = (vec![], vec![], vec![]);
        // The step after which each row's value stands.
        let mut steps = Vec::with_capacity(due.len());
        for due in due {
            let reached = &mut self.reached[due.group];
            let enters = *reached..due.end;
            // A frame that no row enters is asked for with a row that does not count.
            if enters.is_empty() {
                ids.push(rows.id(due.group, due.row));
                counts.push(false);
            }
            ids.extend(enters.clone().map(|row| rows.id(due.group, row)));
            counts.resize(ids.len(), true);
            groups.resize(ids.len(), due.group);
            *reached = enters.end.max(enters.start);
            steps.push(ids.len() as u64 - 1);
        }
        let arguments = rows.gather(&ids)?;
        let mut live = BooleanArray::from(counts);
        if let Some(filter) = rows.gather_filter(&ids)? {
            live = and(&live, filter.as_boolean())?;
        }
        let values = self.aggregate.update(Slots::new(&groups, groups_total), &arguments, Some(&live))?;
        Ok(take(&values, &UInt64Array::from(steps), None)?)
    }

    fn restart(&mut self, group: usize) -> Result<()> {
        if let Some(reached) = self.reached.get_mut(group) {
            *reached = 0;
        }
        self.aggregate.clear(&[group])
    }

    fn rows_of(&mut self, groups: &[usize]) -> Result<ArrayRef> {
        RowsState::rows_of(self, groups)
    }

    fn put(&mut self, groups: &[usize], rows: &ArrayRef, marks: &[Marks]) -> Result<()> {
        self.reached.resize(marks.len(), 0);
        groups.iter().for_each(|group| self.reached[*group] = marks[*group].end);
        RowsState::put(self, groups, marks.len(), rows)
    }

    fn size(&self) -> usize {
        self.aggregate.size() + self.reached.capacity() * size_of::<usize>()
    }
}
