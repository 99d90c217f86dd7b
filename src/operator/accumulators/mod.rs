//! Values of groups that change with each row: after each row, what an aggregate's value is for the row's group, or
//! the rows first and the values when they are due.
//!
//! A group is a slot, a number that the caller gives. Slots can be merged, emptied and used again.
//!
//! | file | what |
//! |---|---|
//! | `typed.rs` | one vector of slots, and the loop over a batch's rows, for every kind of aggregate below |
//! | `column.rs` | the columns that the kinds are generic over: numbers and times, booleans, strings and bytes |
//! | `count.rs`, `avg.rs` | count, avg |
//! | `fold.rs` | sum, min, max: a value, and a step that takes the next one in |
//! | `general.rs` | everything else: one DataFusion accumulator for each group |

mod avg;
mod column;
mod count;
mod fold;
mod general;
mod typed;

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use datafusion::common::Result;
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::count::Count;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

/// The values of an aggregate in slots, one for each group. A slot that has seen nothing, or that is not there yet,
/// has the value that the aggregate has of no rows.
pub(super) trait RunningAggregate: Send {
    /// Takes a batch's rows in order and gives, for each, the value of its group after it. A row that `filter` does
    /// not let pass leaves the value as it was. `groups_total` is the number of slots there are now.
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<ArrayRef>;

    /// Takes rows like [`Self::update`], but gives no values.
    #[allow(dead_code)]
    fn accumulate(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<()>;

    /// The values of some slots now, in that order.
    #[allow(dead_code)]
    fn values(&mut self, slots: &[usize]) -> Result<ArrayRef>;

    /// Adds what slot `from` has seen to slot `into`, as if its rows had come after those of `into`, and empties
    /// `from`.
    #[allow(dead_code)]
    fn merge(&mut self, into: usize, from: usize) -> Result<()>;

    /// Empties slots, so that they can be used for other groups.
    #[allow(dead_code)]
    fn clear(&mut self, slots: &[usize]) -> Result<()>;

    /// The state of all slots, one row for each. The aggregate goes on as before.
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
        None => Box::new(general::General::try_new(Arc::clone(aggregate))?),
    })
}

fn typed(aggregate: &AggregateFunctionExpr) -> Option<Box<dyn RunningAggregate>> {
    if aggregate.is_distinct() || !aggregate.order_bys().is_empty() {
        return None;
    }
    let function: &dyn Any = aggregate.fun().inner().as_ref();
    let output = aggregate.field().data_type().clone();
    if function.is::<Count>() {
        return Some(count::count());
    }
    if function.is::<Avg>() {
        return avg::avg(aggregate);
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

/// Which rows count: those without nulls that the filter lets pass. None if all do.
fn live_rows(arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Option<BooleanBuffer> {
    let nulls = arguments.iter().filter_map(|argument| argument.logical_nulls());
    let valid = nulls.filter(|nulls| nulls.null_count() > 0).map(|nulls| nulls.into_inner());
    valid.chain(passed_rows(filter)).reduce(|valid, passed| &valid & &passed)
}

/// Which rows the filter lets pass. None if there is no filter.
fn passed_rows(filter: Option<&BooleanArray>) -> Option<BooleanBuffer> {
    filter.map(|filter| match filter.nulls() {
        Some(nulls) => filter.values() & nulls.inner(),
        None => filter.values().clone(),
    })
}
