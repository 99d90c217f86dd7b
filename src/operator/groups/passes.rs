//! Which aggregates of a GROUP BY are done in one pass over their column.
//!
//! What costs is finding a row's group in memory. `count(*)`, `count(x)`, `sum(x)`, `avg(x)`, `min(x)` and `max(x)` need
//! it once if what they keep of a group lies together.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::count::Count;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Literal;

/// Aggregates of one column that are done together.
#[derive(Debug)]
pub(crate) struct Pass {
    /// The column's type: `Int64` or `Float64`.
    pub(super) data_type: DataType,
    /// Which aggregates, and what of the column each asks for.
    pub(super) members: Vec<(usize, Asks)>,
}

/// What an aggregate asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// How many rows there are.
    Rows,
    /// How many are not null.
    Count,
    Sum,
    Avg,
    Min,
    Max,
}

impl Pass {
    /// Which aggregates it is of.
    pub(super) fn aggregates(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|(aggregate, _)| *aggregate)
    }

    /// An aggregate that has the column as its argument: the first does.
    pub(super) fn reads(&self) -> usize {
        self.members.first().map_or(0, |(aggregate, _)| *aggregate)
    }

    /// Whether `aggregate` is in it and does without its argument.
    pub(in crate::operator) fn only_counts_rows_of(&self, aggregate: usize) -> bool {
        self.members.contains(&(aggregate, Asks::Rows))
    }

    pub(super) fn holds(&self, aggregate: usize) -> bool {
        self.aggregates().any(|member| member == aggregate)
    }
}

/// The passes over more than one aggregate, given each aggregate's FILTER.
pub(in crate::operator) fn passes(
    aggregates: &[Arc<AggregateFunctionExpr>],
    filters: &[Option<Arc<dyn PhysicalExpr>>],
) -> Vec<Pass> {
    let mut columns: Vec<(Arc<dyn PhysicalExpr>, Vec<(usize, Asks)>)> = vec![];
    let mut rows = vec![];
    for (index, aggregate) in aggregates.iter().enumerate().filter(|(index, _)| filters[*index].is_none()) {
        match asks(aggregate) {
            Some((Asks::Rows, _)) => rows.push((index, Asks::Rows)),
            Some((asks, column)) => match columns.iter_mut().find(|(known, _)| known.as_ref() == column.as_ref()) {
                Some((_, members)) => members.push((index, asks)),
                None => columns.push((column, vec![(index, asks)])),
            },
            None => {}
        }
    }
    let pass = |(_, members): (_, Vec<(usize, Asks)>)| {
        let tells_type = |(index, asks): &(usize, Asks)| {
            (*asks != Asks::Count).then(|| aggregates[*index].field().data_type().clone())
        };
        Some(Pass { data_type: members.iter().find_map(tells_type)?, members })
    };
    let mut passes: Vec<Pass> = columns.into_iter().filter_map(pass).collect();
    // One of them counts the rows on its way.
    if let Some(pass) = passes.iter_mut().max_by_key(|pass| pass.members.len()) {
        pass.members.extend(rows);
    }
    passes.retain(|pass| pass.members.len() > 1);
    passes
}

/// What a plain aggregate asks for, and of which column; none if it cannot be part of a pass.
fn asks(aggregate: &AggregateFunctionExpr) -> Option<(Asks, Arc<dyn PhysicalExpr>)> {
    let mut arguments = aggregate.expressions();
    let column = arguments.pop()?;
    if !arguments.is_empty() || aggregate.is_distinct() || !aggregate.order_bys().is_empty() {
        return None;
    }
    let function: &dyn Any = aggregate.fun().inner().as_ref();
    if function.is::<Count>() {
        let is_constant = column.downcast_ref::<Literal>().is_some_and(|literal| !literal.value().is_null());
        return Some((if is_constant { Asks::Rows } else { Asks::Count }, column));
    }
    let asks = match aggregate.field().data_type() {
        DataType::Int64 | DataType::Float64 if function.is::<Sum>() => Asks::Sum,
        DataType::Int64 | DataType::Float64 if function.is::<Min>() => Asks::Min,
        DataType::Int64 | DataType::Float64 if function.is::<Max>() => Asks::Max,
        // Its arguments are floats if its values are.
        DataType::Float64 if function.is::<Avg>() => Asks::Avg,
        _ => return None,
    };
    Some((asks, column))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{every_aggregate, is_positive};
    use super::*;

    /// The names of the aggregates of each pass.
    fn names(aggregates: &[Arc<AggregateFunctionExpr>], filters: &[Option<Arc<dyn PhysicalExpr>>]) -> Vec<Vec<String>> {
        let name = |(aggregate, _): &(usize, Asks)| aggregates[*aggregate].name().to_string();
        passes(aggregates, filters).iter().map(|pass| pass.members.iter().map(name).collect()).collect()
    }

    #[test]
    fn aggregates_of_a_column_share_a_pass() {
        let aggregates = every_aggregate();
        let mut found = names(&aggregates, &vec![None; aggregates.len()]);
        found.iter_mut().for_each(|names| names.sort());
        let of_price = ["avg", "count", "max", "min", "sum"].map(|name| format!("{name}(price@3)"));
        let of_value = ["count", "max", "min", "sum"].map(|name| format!("{name}(value@2)"));
        assert_eq!(found, [&of_price[..], &of_value[..]]);
        let filters = aggregates.iter().map(|aggregate| (!aggregate.name().starts_with("sum")).then(is_positive));
        assert_eq!(names(&aggregates, &filters.collect::<Vec<_>>()), Vec::<Vec<String>>::new());
    }
}
