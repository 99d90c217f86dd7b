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
    /// The column's type: 64-bit integers, or floats.
    pub(super) data_type: DataType,
    /// Which aggregates, and what of the column each asks for.
    pub(super) members: Members,
}

/// Aggregates, and what each asks for.
type Members = Vec<(usize, Asks)>;

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
    /// Whether `aggregate` is in it and does without its argument.
    pub(super) fn only_counts_rows_of(&self, aggregate: usize) -> bool {
        self.members.contains(&(aggregate, Asks::Rows))
    }
}

/// Those that are worth it, given each aggregate's FILTER: over several aggregates, or over the extremes of floats, which
/// DataFusion's accumulators of many groups do not order totally.
pub(super) fn passes(
    aggregates: &[Arc<AggregateFunctionExpr>],
    filters: &[Option<Arc<dyn PhysicalExpr>>],
) -> Vec<Pass> {
    let (mut passes, mut rows) = (vec![], vec![]);
    let mut columns: Vec<(Arc<dyn PhysicalExpr>, Members)> = vec![];
    for (index, aggregate) in aggregates.iter().enumerate() {
        match asks(aggregate) {
            Some((Asks::Rows, _)) => rows.push(index),
            Some((asks, column)) => {
                let sees_same = |members: &Members| filters[members[0].0] == filters[index];
                let same = |(known, members): &&mut (Arc<dyn PhysicalExpr>, Members)| {
                    known.as_ref() == column.as_ref() && sees_same(members)
                };
                match columns.iter_mut().find(same) {
                    Some((_, members)) => members.push((index, asks)),
                    None => columns.push((column, vec![(index, asks)])),
                }
            }
            None => {}
        }
    }
    for (_, members) in columns {
        let tells_type = |(_, asks): &&(usize, Asks)| *asks != Asks::Count;
        if let Some((index, _)) = members.iter().find(tells_type) {
            passes.push(Pass { data_type: aggregates[*index].field().data_type().clone(), members });
        }
    }
    for index in rows {
        // One that sees the same rows counts them on its way.
        let same_rows = passes.iter_mut().filter(|pass| filters[pass.members[0].0] == filters[index]);
        if let Some(pass) = same_rows.max_by_key(|pass| pass.members.len()) {
            pass.members.push((index, Asks::Rows));
        }
    }
    let has_extreme = |pass: &Pass| pass.members.iter().any(|(_, asks)| matches!(asks, Asks::Min | Asks::Max));
    passes.retain(|pass| pass.members.len() > 1 || (pass.data_type.is_floating() && has_extreme(pass)));
    passes
}

/// What an aggregate asks for, and of which column; none if it cannot be part of a pass.
fn asks(aggregate: &AggregateFunctionExpr) -> Option<(Asks, Arc<dyn PhysicalExpr>)> {
    let mut arguments = aggregate.expressions();
    let column = arguments.pop()?;
    let function: &dyn Any = aggregate.fun().inner().as_ref();
    let is_constant = || column.downcast_ref::<Literal>().is_some_and(|literal| !literal.value().is_null());
    let takes_all = arguments.is_empty() && !aggregate.is_distinct() && aggregate.order_bys().is_empty();
    let asks = match aggregate.field().data_type() {
        DataType::Int64 if function.is::<Count>() && takes_all && is_constant() => Asks::Rows,
        DataType::Int64 if function.is::<Count>() && takes_all => Asks::Count,
        DataType::Int64 | DataType::Float64 if function.is::<Sum>() && takes_all => Asks::Sum,
        // Its arguments are floats if its values are.
        DataType::Float64 if function.is::<Avg>() && takes_all => Asks::Avg,
        DataType::Int64 | DataType::Float16 | DataType::Float32 | DataType::Float64 => match function {
            // Neither order nor repetition matters to them.
            _ if function.is::<Min>() => Asks::Min,
            _ if function.is::<Max>() => Asks::Max,
            _ => return None,
        },
        _ => return None,
    };
    Some((asks, column))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{every_aggregate, is_positive};
    use super::*;

    /// The names of the aggregates of each pass.
    fn names(aggregates: &[Arc<AggregateFunctionExpr>], filters: &[Option<Arc<dyn PhysicalExpr>>]) -> Vec<Vec<String>> {
        let name = |(aggregate, _): &(usize, Asks)| aggregates[*aggregate].name().to_string();
        passes(aggregates, filters).iter().map(|pass| pass.members.iter().map(name).collect()).collect()
    }

    #[test]
    fn aggregates_of_a_column_share_a_pass() {
        let aggregates = every_aggregate();
        let found = names(&aggregates, &vec![None; aggregates.len()]);
        let of = |column: &str, functions: &[&str]| {
            functions.iter().map(|function| function.replace(')', &format!("{column})"))).collect::<Vec<_>>()
        };
        let extremes = ["max()", "max(DISTINCT )", "min()", "min(DISTINCT )"];
        let expected = [
            of("price@3", &[&extremes[..], &["avg()", "count()", "sum()"]].concat()),
            of("value@2", &[&extremes[..], &["count()", "sum()"]].concat()),
        ];
        assert_eq!(found.into_iter().map(sorted).collect::<Vec<_>>(), expected.map(sorted));
    }

    #[test]
    fn filters_see_other_rows() {
        let aggregates = every_aggregate();
        let filters = aggregates.iter().map(|aggregate| aggregate.name().starts_with("sum").then(is_positive));
        let found = names(&aggregates, &filters.collect::<Vec<_>>()).concat();
        assert!(
            found.contains(&"min(price@3)".into()) && !found.iter().any(|name| name.starts_with("sum")),
            "{found:?}"
        );
    }

    fn sorted(mut names: Vec<String>) -> Vec<String> {
        names.sort();
        names
    }
}
