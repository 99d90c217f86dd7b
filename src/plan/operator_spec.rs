//! The fixed parameters of a GROUP BY, made from its logical node.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Expr, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion::physical_expr::create_physical_expr;

use crate::operator::{AggregateSpec, WindowSpec, sorted};

use super::nodes::WindowAggregate;

/// The parameters of a [`WindowAggregate`] over a physical input.
pub(super) fn aggregate_spec(
    node: &WindowAggregate,
    input: &SchemaRef,
    session: &dyn Session,
    context: &PhysicalPlanningContext,
) -> Result<AggregateSpec> {
    let logical = node.input.schema();
    let physical = |expr: &Expr| create_physical_expr(expr, logical, session.execution_props(), context);
    let window = node
        .window
        .as_ref()
        .map(|window| Ok::<_, DataFusionError>(WindowSpec { start: physical(&window.start)?, size: window.size }));
    let keys = node.keys.iter().map(|key| Ok((physical(key)?, key.schema_name().to_string())));
    let (mut aggregates, mut filters) = (vec![], vec![]);
    for expr in &node.aggregates {
        let lowered = LoweredAggregateBuilder::new(expr, logical, input, session.execution_props(), context);
        let lowered = lowered.with_name(expr.schema_name().to_string()).build()?;
        aggregates.push(match wants_sorted_rows(&lowered.aggregate) {
            true => Arc::new(sorted(lowered.aggregate, input)?),
            false => lowered.aggregate,
        });
        filters.push(lowered.filter);
    }
    Ok(AggregateSpec {
        window: window.transpose()?,
        keys: keys.collect::<Result<_>>()?,
        aggregates,
        filters,
        schema: Arc::new(node.schema().as_arrow().clone()),
    })
}

/// Whether an aggregate's rows are to be sorted before they come. These declare so, and do without.
fn wants_sorted_rows(aggregate: &AggregateFunctionExpr) -> bool {
    const IN_ANY_ORDER: [&str; 3] = ["percentile_cont", "approx_percentile_cont", "approx_percentile_cont_with_weight"];
    // A distinct value is sorted by itself, so that none tie.
    let sorts = !aggregate.order_bys().is_empty() && !aggregate.is_distinct();
    sorts
        && aggregate.order_sensitivity() != AggregateOrderSensitivity::Insensitive
        && aggregate.order_sensitivity() != AggregateOrderSensitivity::Beneficial
        && !IN_ANY_ORDER.contains(&aggregate.fun().name())
}
