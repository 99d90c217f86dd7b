//! Values of groups that change with each row: after each row, what an aggregate's value is for the row's group, or
//! the rows first and the values when they are due.
//!
//! A group is a slot, a number that the caller gives. Slots can be merged, emptied and used again.
//!
//! | file | what |
//! |---|---|
//! | `typed.rs` | one vector of slots, and the loop over a batch's rows, for every kind of aggregate below |
//! | `column.rs` | the columns that the kinds are generic over: numbers and times, booleans, strings and bytes |
//! | `count.rs`, `sum.rs`, `avg.rs` | count, sum, avg |
//! | `fold.rs` | a value, and a step that takes the next one in |
//! | `extreme.rs`, `bits.rs` | such steps: min and max; bool_and, bool_or, bit_and, bit_or, bit_xor |
//! | `first_last.rs` | first_value, last_value |
//! | `moments.rs` | means and sums of products around them |
//! | `variance.rs`, `covariance.rs`, `correlation.rs` | what is made of those |
//! | `general.rs` | everything else: one DataFusion accumulator for each group |
//! | `pass.rs`, `held.rs` | several simple aggregates of one column |
//! | `all.rs` | all aggregates of a GROUP BY |
//! | `slots.rs` | which slots the rows of a batch come to |

mod all;
mod avg;
mod bits;
mod column;
mod correlation;
mod count;
mod covariance;
mod extreme;
mod first_last;
mod fold;
mod general;
mod held;
mod moments;
mod pass;
mod slots;
mod sum;
#[cfg(test)]
mod tests;
mod typed;
mod variance;

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use datafusion::common::Result;
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::bit_and_or_xor::{bit_and_udaf, bit_or_udaf, bit_xor_udaf};
use datafusion::functions_aggregate::bool_and_or::{BoolAnd, BoolOr};
use datafusion::functions_aggregate::correlation::Correlation;
use datafusion::functions_aggregate::count::Count;
use datafusion::functions_aggregate::covariance::{CovariancePopulation, CovarianceSample};
use datafusion::functions_aggregate::first_last::{FirstValue, LastValue};
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::functions_aggregate::stddev::{Stddev, StddevPop};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::functions_aggregate::variance::{VariancePopulation, VarianceSample};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

pub(super) use all::RunningAggregates;
pub(super) use slots::{Joined, Slots};

/// The values of an aggregate in slots, one for each group. A slot that has seen nothing, or that is not there yet,
/// has the value that the aggregate has of no rows.
///
/// `V` is what they are given as: a column, or several where aggregates share a pass.
pub(super) trait RunningAggregate<V = ArrayRef>: Send {
    /// Takes a batch's rows in order and gives, for each, the value of its slot after it. A row that `filter` does
    /// not let pass leaves the value as it was.
    fn update(&mut self, slots: Slots, arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<V>;

    /// Takes rows like [`Self::update`], but gives no values.
    fn accumulate(&mut self, slots: Slots, arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<()>;

    /// The values of some slots now, in that order.
    fn values(&mut self, slots: &[usize]) -> Result<V>;

    /// The same, and empties them, so that they can be used for other groups.
    fn take(&mut self, slots: &[usize]) -> Result<V> {
        let values = self.values(slots)?;
        self.clear(slots)?;
        Ok(values)
    }

    /// Empties slots, so that they can be used for other groups.
    fn clear(&mut self, slots: &[usize]) -> Result<()>;

    /// The state of all slots, one row for each. The aggregate goes on as before.
    fn state(&mut self) -> Result<Vec<ArrayRef>>;

    /// Puts a state into a fresh aggregate.
    fn restore(&mut self, state: &[ArrayRef]) -> Result<()> {
        let total = state.first().map_or(0, |column| column.len());
        self.put(&(0..total).collect::<Vec<_>>(), total, state)
    }

    /// Puts rows of a state into slots that are empty, of `total`.
    fn put(&mut self, slots: &[usize], total: usize, state: &[ArrayRef]) -> Result<()>;

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
    match function {
        _ if function.is::<Count>() => Some(count::count()),
        _ if function.is::<Sum>() => sum::sum(output),
        _ if function.is::<Avg>() => avg::avg(aggregate),
        _ if function.is::<Min>() => extreme::min(output),
        _ if function.is::<Max>() => extreme::max(output),
        _ if function.is::<FirstValue>() => first_last::first(output, aggregate.ignore_nulls()),
        _ if function.is::<LastValue>() => first_last::last(output, aggregate.ignore_nulls()),
        _ if function.is::<BoolAnd>() || *aggregate.fun() == *bit_and_udaf() => bits::and(output),
        _ if function.is::<BoolOr>() || *aggregate.fun() == *bit_or_udaf() => bits::or(output),
        _ if *aggregate.fun() == *bit_xor_udaf() => bits::xor(output),
        _ if function.is::<VarianceSample>() => variance::variance(true),
        _ if function.is::<VariancePopulation>() => variance::variance(false),
        _ if function.is::<Stddev>() => variance::stddev(true),
        _ if function.is::<StddevPop>() => variance::stddev(false),
        _ if function.is::<CovarianceSample>() => covariance::covariance(true),
        _ if function.is::<CovariancePopulation>() => covariance::covariance(false),
        _ if function.is::<Correlation>() => correlation::correlation(),
        _ => None,
    }
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
