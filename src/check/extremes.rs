//! The least and the greatest of floats by their total order, in which NaN is beyond every number: what a stream gives, asked
//! of plain DataFusion.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan};

/// Whether an expression has the least or the greatest of floats.
pub(super) fn has_extreme_of_floats(expr: &Expr, input: &DFSchema) -> bool {
    expr.exists(|part| Ok(extreme_of_floats(part, input).is_some())).unwrap_or(false)
}

/// Takes `min(x)` and `max(x)` of floats as the first value in order of `x`.
///
/// # Errors
/// None for a plan that DataFusion has made.
pub(super) fn with_extremes_in_order(plan: LogicalPlan) -> Result<LogicalPlan> {
    let in_order = |node| match node {
        LogicalPlan::Aggregate(aggregate) => Ok(Transformed::yes(aggregate_in_order(aggregate)?)),
        node => Ok(Transformed::no(node)),
    };
    Ok(plan.transform_up_with_subqueries(in_order)?.data)
}

fn aggregate_in_order(aggregate: Aggregate) -> Result<LogicalPlan> {
    let Aggregate { input, group_expr, aggr_expr, .. } = aggregate;
    let names = NamePreserver::new_for_projection();
    let in_order = |expr: Expr| {
        let name = names.save(&expr);
        let ordered = expr.transform_up(|part| match extreme_of_floats(&part, input.schema()) {
            Some(first) => Ok(Transformed::yes(first)),
            None => Ok(Transformed::no(part)),
        })?;
        Ok(name.restore(ordered.data))
    };
    let aggr_expr = aggr_expr.into_iter().map(in_order).collect::<Result<_>>()?;
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(input, group_expr, aggr_expr)?))
}

/// The least or the greatest of floats as the first of them in order.
fn extreme_of_floats(part: &Expr, input: &DFSchema) -> Option<Expr> {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = part else { return None };
    let is_ascending = match func.name() {
        "min" => true,
        "max" => false,
        _ => return None,
    };
    let value = params.args.first()?;
    if !value.get_type(input).is_ok_and(|data_type| data_type.is_floating()) {
        return None;
    }
    let mut params = params.clone();
    params.order_by = vec![value.clone().sort(is_ascending, false)];
    params.distinct = false;
    Some(Expr::AggregateFunction(AggregateFunction { func: first_value_udaf(), params }))
}
