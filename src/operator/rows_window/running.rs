//! Any aggregate over all rows of a key so far: no row ever leaves the frame, so a running value is all there is to
//! keep.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{and, take};
use arrow::datatypes::{Field, Schema};
use datafusion::common::Result;
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
    Ok(Running { aggregate: running_aggregate(aggregate)?, groups_total: 0, reached: vec![] })
}

struct Running {
    aggregate: Box<dyn RunningAggregate>,
    groups_total: usize,
    /// Where frames are given row by row: how many rows of each key are in.
    reached: Vec<usize>,
}

impl RowsState for Running {
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        live: Option<&BooleanArray>,
    ) -> Result<ArrayRef> {
        self.groups_total = groups_total;
        self.aggregate.update(Slots::new(groups, groups_total), arguments, live)
    }

    fn forget(&mut self, groups: &[usize]) -> Result<()> {
        self.aggregate.clear(groups)
    }

    fn snapshot(&mut self) -> Result<RecordBatch> {
        if self.groups_total == 0 {
            return Ok(RecordBatch::new_empty(Arc::new(Schema::empty())));
        }
        let columns = self.aggregate.state()?;
        let field = |(index, column): (usize, &ArrayRef)| {
            Field::new(format!("state_{index}"), column.data_type().clone(), true)
        };
        let fields: Vec<Field> = columns.iter().enumerate().map(field).collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    fn restore(&mut self, state: &RecordBatch) -> Result<()> {
        self.groups_total = state.num_rows();
        match self.groups_total {
            0 => Ok(()),
            _ => self.aggregate.restore(state.columns()),
        }
    }

    fn size(&self) -> usize {
        self.aggregate.size()
    }
}

impl Framed for Running {
    fn values(&mut self, due: &[Due], groups_total: usize, rows: &Rows<'_>) -> Result<ArrayRef> {
        self.reached.resize(groups_total, 0);
        self.groups_total = groups_total;
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

    fn snapshot(&mut self) -> Result<RecordBatch> {
        RowsState::snapshot(self)
    }

    fn restore(&mut self, state: &RecordBatch, marks: &[Marks]) -> Result<()> {
        self.reached = marks.iter().map(|marks| marks.end).collect();
        RowsState::restore(self, state)
    }

    fn size(&self) -> usize {
        self.aggregate.size() + self.reached.capacity() * size_of::<usize>()
    }
}
