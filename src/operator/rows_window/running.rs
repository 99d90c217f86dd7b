//! Any aggregate over all rows of a key so far: no row ever leaves the frame, so a running value is all there is to
//! keep.

use std::slice;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{Field, Schema};
use datafusion::common::Result;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::RowsState;
use crate::operator::accumulators::{RunningAggregate, running_aggregate};

/// The state of an aggregate whose frame has no beginning.
pub(super) fn state(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn RowsState>> {
    Ok(Box::new(Running { aggregate: running_aggregate(aggregate)?, groups_total: 0 }))
}

struct Running {
    aggregate: Box<dyn RunningAggregate>,
    groups_total: usize,
}

impl RowsState for Running {
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        argument: &ArrayRef,
        live: Option<&BooleanArray>,
    ) -> Result<ArrayRef> {
        self.groups_total = groups_total;
        self.aggregate.update(groups, groups_total, slice::from_ref(argument), live)
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
