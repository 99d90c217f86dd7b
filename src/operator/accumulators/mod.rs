//! Running values: after each row, what an aggregate's value is for the row's group.
//!
//! | file | aggregates |
//! |---|---|
//! | `fold.rs` | sum, min, max: one typed vector of values |
//! | `count.rs`, `avg.rs` | count, avg: vectors of counts and sums |
//! | `general.rs` | everything else: one DataFusion accumulator for each group |

mod avg;
mod count;
mod fold;
mod general;

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::count::Count;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

/// An aggregate that gives its new value with each row.
pub(super) trait RunningAggregate: Send {
    /// Takes a batch's rows in order and gives, for each, the value of its group after it. A row that `filter` does
    /// not let pass leaves the value as it was.
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<ArrayRef>;

    /// The state of all groups, one row for each. The aggregate goes on as before.
    fn state(&mut self) -> Result<Vec<ArrayRef>>;

    /// Puts a state into a fresh aggregate.
    fn restore(&mut self, state: &[ArrayRef]) -> Result<()>;

    /// Number of state columns.
    fn state_width(&self) -> Result<usize>;

    /// Bytes held.
    fn size(&self) -> usize;
}

/// The running form of an aggregate.
pub(super) fn running_aggregate(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn RunningAggregate>> {
    Ok(match typed(aggregate) {
        Some(typed) => typed,
        None => Box::new(general::General::new(Arc::clone(aggregate))),
    })
}

fn typed(aggregate: &AggregateFunctionExpr) -> Option<Box<dyn RunningAggregate>> {
    let arguments = aggregate.expressions();
    if aggregate.is_distinct() || !aggregate.order_bys().is_empty() || arguments.len() != 1 {
        return None;
    }
    let function: &dyn Any = aggregate.fun().inner().as_ref();
    let output = aggregate.field().data_type().clone();
    if function.is::<Count>() {
        return Some(Box::new(count::RunningCount::default()));
    }
    if function.is::<Avg>() && output == DataType::Float64 {
        return Some(Box::new(avg::RunningAvg::default()));
    }
    if function.is::<Sum>() {
        return fold::sum(output);
    }
    if function.is::<Min>() {
        return fold::min(output);
    }
    if function.is::<Max>() {
        return fold::max(output);
    }
    None
}

/// Which rows count: those with a value that the filter lets pass. None if all do.
fn live_rows(argument: &dyn Array, filter: Option<&BooleanArray>) -> Option<BooleanBuffer> {
    let nulls = argument.nulls().filter(|nulls| nulls.null_count() > 0).map(NullBuffer::inner);
    let passed = filter.map(|filter| match filter.nulls() {
        Some(nulls) => filter.values() & nulls.inner(),
        None => filter.values().clone(),
    });
    match (nulls, passed) {
        (Some(nulls), Some(passed)) => Some(nulls & &passed),
        (Some(nulls), None) => Some(nulls.clone()),
        (None, passed) => passed,
    }
}
