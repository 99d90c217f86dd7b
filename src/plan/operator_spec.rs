//! The fixed parameters of a GROUP BY, made from its logical node.

use std::sync::Arc;

use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_datafusion_err};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion::physical_expr::create_physical_expr;

use crate::operator::{
    AggregateSpec, ChangesSpec, Derived, Often, Ops, SessionRowsSpec, TopNSpec, Ttl, WindowShape, WindowSpec,
    by_arrival, distinct, lacks_distinct, sorted,
};
use crate::sql::{self, Changes, EmitMode, When};

use super::interval::window_ticks;
use super::nodes::{Repeats, Window, WindowAggregate};
use super::session_rows::SessionRows;
use super::top_n_node::TopN;

/// The parameters of a [`WindowAggregate`] over a physical input.
pub(super) fn aggregate_spec(
    node: &WindowAggregate,
    input: &SchemaRef,
    session: &dyn Session,
    context: &PhysicalPlanningContext,
) -> Result<AggregateSpec> {
    let logical = node.input.schema();
    let physical = |expr: &Expr| create_physical_expr(expr, logical, session.execution_props(), context);
    let window = node.window.as_ref().map(|window| {
        let (start, shape) = (physical(&window.start)?, window.shape.clone());
        Ok::<_, DataFusionError>(WindowSpec { start, shape })
    });
    let keys = node.keys.iter().map(|key| Ok((physical(key)?, key.schema_name().to_string())));
    let is_session = node.window.as_ref().is_some_and(|window| matches!(window.shape, WindowShape::Session { .. }));
    let (mut aggregates, mut filters) = (vec![], vec![]);
    for expr in &node.aggregates {
        let lowered = LoweredAggregateBuilder::new(expr, logical, input, session.execution_props(), context);
        let lowered = lowered.with_name(expr.schema_name().to_string()).build()?;
        let aggregate = lowered.aggregate;
        aggregates.push(match is_session && !is_free_of_order(aggregate.fun().name()) {
            // A row may join two sessions long after theirs.
            true => Arc::new(by_arrival(aggregate, input)?),
            false if lacks_distinct(&aggregate) => Arc::new(distinct(&aggregate, input)?),
            false if wants_sorted_rows(&aggregate) => Arc::new(sorted(aggregate, input)?),
            false => aggregate,
        });
        filters.push(lowered.filter);
    }
    let is_ordered = !aggregates.iter().all(|aggregate| is_free_of_order(aggregate.fun().name()));
    Ok(AggregateSpec {
        window: window.transpose()?,
        keys: keys.collect::<Result<_>>()?,
        aggregates,
        filters,
        schema: Arc::new(without_op(node.schema().as_arrow(), node.emit)),
        is_ordered,
        is_numbered: false,
        totals: node.totals.clone(),
        ttl: ttl(node.ttl_ns, node.time.as_ref(), &node.input, session, context)?,
        derived: Derived::default(),
    })
}

/// How long keys live, over a physical input.
fn ttl(
    ns: Option<i64>,
    time: Option<&Expr>,
    input: &LogicalPlan,
    session: &dyn Session,
    context: &PhysicalPlanningContext,
) -> Result<Option<Ttl>> {
    let Some((ns, time)) = ns.zip(time) else { return Ok(None) };
    let logical = input.schema();
    let ticks = window_ticks(&ScalarValue::DurationNanosecond(Some(ns)), &time.get_type(logical)?)?;
    Ok(Some(Ttl { time: create_physical_expr(time, logical, session.execution_props(), context)?, ticks }))
}

/// The schema of the rows themselves.
fn without_op(schema: &Schema, emit: EmitMode) -> Schema {
    let fields = schema.fields().iter().skip(usize::from(emit.has_ops())).cloned().collect::<Vec<_>>();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

/// The form of a changelog over a physical input.
pub(super) fn changes_spec(
    changes: Changes,
    of: ChangesOf,
    session: &dyn Session,
    context: &PhysicalPlanningContext,
) -> Result<ChangesSpec> {
    let often = match (changes.when, of.time) {
        (When::EachRow, _) => Often::EachRow,
        (When::EachBatch, _) => Often::EachBatch,
        (When::Every { interval_ns }, Some(time)) => {
            let logical = of.input.schema();
            let interval = ScalarValue::DurationNanosecond(Some(interval_ns));
            let interval = window_ticks(&interval, &time.get_type(logical)?)?;
            Often::Every { time: create_physical_expr(time, logical, session.execution_props(), context)?, interval }
        }
        (When::AtClose { lateness_ns }, _) => {
            let time = of.window.map(|window| window.start.get_type(of.input.schema())).transpose()?;
            let time = time.ok_or_else(|| internal_datafusion_err!("ALLOWED LATENESS without a window"))?;
            Often::AtClose { lateness: window_ticks(&ScalarValue::DurationNanosecond(Some(lateness_ns)), &time)? }
        }
        (When::Every { .. }, None) => return Err(internal_datafusion_err!("EVERY without an event time")),
    };
    let ops = match changes.ops {
        sql::Ops::None => Ops::None,
        sql::Ops::Op => Ops::Op,
        sql::Ops::Retractions => Ops::Retractions,
    };
    Ok(ChangesSpec { often, ops, repeats: of.repeats == Repeats::All })
}

/// The node whose changes are told.
pub(super) struct ChangesOf<'a> {
    input: &'a LogicalPlan,
    window: Option<&'a Window>,
    time: Option<&'a Expr>,
    repeats: Repeats,
}

impl<'a> From<&'a WindowAggregate> for ChangesOf<'a> {
    fn from(node: &'a WindowAggregate) -> Self {
        let (window, time) = (node.window.as_ref(), node.time.as_ref());
        Self { input: &node.input, window, time, repeats: node.repeats }
    }
}

impl<'a> From<&'a TopN> for ChangesOf<'a> {
    fn from(node: &'a TopN) -> Self {
        let (window, time) = (node.by.window.as_ref(), node.by.time.as_ref());
        Self { input: &node.input, window, time, repeats: Repeats::All }
    }
}

/// The parameters of a [`TopN`] over a physical input.
pub(super) fn top_n_spec(
    node: &TopN,
    input: &SchemaRef,
    session: &dyn Session,
    context: &PhysicalPlanningContext,
) -> Result<TopNSpec> {
    let logical = node.input.schema();
    let physical = |expr: &Expr| create_physical_expr(expr, logical, session.execution_props(), context);
    let window = node.by.window.as_ref().map(|window| {
        let (start, shape) = (physical(&window.start)?, window.shape.clone());
        Ok::<_, DataFusionError>(WindowSpec { start, shape })
    });
    let keys = node.by.keys.iter().map(physical).collect::<Result<_>>()?;
    let order = node.by.order.iter().map(|order| {
        let options = SortOptions { descending: !order.asc, nulls_first: order.nulls_first };
        Ok((physical(&order.expr)?, options))
    });
    let schema = Arc::new(without_op(node.schema().as_arrow(), node.emit));
    let ttl = ttl(node.by.ttl_ns, node.by.time.as_ref(), &node.input, session, context)?;
    TopNSpec::try_new(node.at_most, window.transpose()?, keys, ttl, order.collect::<Result<_>>()?, input, schema)
}

/// The parameters of [`SessionRows`] over a physical input.
pub(super) fn session_rows_spec(
    node: &SessionRows,
    input: &SchemaRef,
    session: &dyn Session,
    context: &PhysicalPlanningContext,
) -> Result<SessionRowsSpec> {
    let logical = node.input.schema();
    let physical = |expr: &Expr| create_physical_expr(expr, logical, session.execution_props(), context);
    let keys = node.keys.iter().map(physical).collect::<Result<_>>()?;
    let schema = Arc::new(node.schema().as_arrow().clone());
    SessionRowsSpec::try_new(physical(&node.time)?, node.shape.clone(), keys, input, schema)
}

/// Whether an aggregate is known to answer the same whatever order its rows come in.
pub(super) fn is_free_of_order(aggregate: &str) -> bool {
    const KNOWN: [&str; 23] = [
        "avg",
        "bit_and",
        "bit_or",
        "bit_xor",
        "bool_and",
        "bool_or",
        "corr",
        "count",
        "covar_pop",
        "covar_samp",
        "grouping",
        "max",
        "median",
        "min",
        "percentile_cont",
        "stddev",
        "stddev_pop",
        "sum",
        "var",
        "var_pop",
        "approx_distinct",
        "approx_median",
        "approx_percentile_cont",
    ];
    KNOWN.contains(&aggregate) || aggregate.starts_with("regr_")
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
