//! The fixed parameters of operators, made from logical nodes.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_datafusion_err, plan_datafusion_err};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Expr, ExprSchemable, UserDefinedLogicalNodeCore, WindowFrameBound, WindowFunctionDefinition,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion::physical_expr::create_physical_expr;

use crate::operator::{
    AggregateSpec, ChangesSpec, Frame, Often, Ops, RowsFunction, RowsFunctionKind, RowsWindowSpec, WindowSpec, sorted,
};

use crate::sql::{self, Changes, EmitMode, When};

use super::interval::window_ticks;
use super::nodes::{RowsWindow, WindowAggregate};
use super::over::window_function;

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
    let is_ordered = !aggregates.iter().all(|aggregate| is_free_of_order(aggregate.fun().name()));
    Ok(AggregateSpec {
        window: window.transpose()?,
        keys: keys.collect::<Result<_>>()?,
        aggregates,
        filters,
        schema: Arc::new(without_op(node.schema().as_arrow(), node.emit)),
        is_ordered,
    })
}

/// The schema of the rows themselves.
fn without_op(schema: &Schema, emit: EmitMode) -> Schema {
    let fields = schema.fields().iter().skip(usize::from(emit.has_ops())).cloned().collect::<Vec<_>>();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

/// The form of a changelog over a physical input.
pub(super) fn changes_spec(
    changes: Changes,
    node: &WindowAggregate,
    session: &dyn Session,
    context: &PhysicalPlanningContext,
) -> Result<ChangesSpec> {
    let often = match (changes.when, &node.time) {
        (When::EachRow, _) => Often::EachRow,
        (When::EachBatch, _) => Often::EachBatch,
        (When::Every { interval_ns }, Some(time)) => {
            let logical = node.input.schema();
            let interval = ScalarValue::DurationNanosecond(Some(interval_ns));
            let interval = window_ticks(&interval, &time.get_type(logical)?)?;
            Often::Every { time: create_physical_expr(time, logical, session.execution_props(), context)?, interval }
        }
        (When::Every { .. }, None) => return Err(internal_datafusion_err!("EVERY without an event time")),
    };
    let ops = match changes.ops {
        sql::Ops::None => Ops::None,
        sql::Ops::Op => Ops::Op,
        sql::Ops::Retractions => Ops::Retractions,
    };
    Ok(ChangesSpec { often, ops })
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

/// The parameters of a [`RowsWindow`] over a physical input.
pub(super) fn rows_window_spec(
    node: &RowsWindow,
    input: &SchemaRef,
    session: &dyn Session,
    context: &PhysicalPlanningContext,
) -> Result<RowsWindowSpec> {
    let logical = node.input.schema();
    let time = match &node.time {
        Expr::Column(column) => logical.index_of_column(column)?,
        other => return Err(internal_datafusion_err!("event time is a column, not {other}")),
    };
    let schema = Arc::new(node.schema().as_arrow().clone());
    let functions = node.functions.iter().enumerate().map(|(index, expr)| {
        let call = window_function(expr).ok_or_else(|| internal_datafusion_err!("{expr} is no window function"))?;
        let field = schema.fields().get(input.fields().len() + index);
        let field = field.ok_or_else(|| internal_datafusion_err!("a window function without a column"))?;
        let physical = |expr: &Expr| create_physical_expr(expr, logical, session.execution_props(), context);
        let argument = call.params.args.first().map(physical).transpose()?;
        let kind = function_kind(call, argument.as_ref(), input)?;
        Ok(RowsFunction {
            argument: argument.filter(|_| !counts_all_rows(call)),
            kind,
            partition_by: call.params.partition_by.iter().map(physical).collect::<Result<_>>()?,
            frame: frame(call)?,
            filter: call.params.filter.as_deref().map(physical).transpose()?,
            field: Arc::clone(field),
        })
    });
    let functions = functions.collect::<Result<_>>()?;
    Ok(RowsWindowSpec { input_schema: Arc::clone(input), schema, time, functions })
}

/// count(*) comes as the count of a constant.
fn counts_all_rows(call: &WindowFunction) -> bool {
    call.fun.name().eq_ignore_ascii_case("count")
        && matches!(call.params.args.first(), Some(Expr::Literal(value, _)) if !value.is_null())
}

fn function_kind(
    call: &WindowFunction,
    argument: Option<&Arc<dyn PhysicalExpr>>,
    input: &SchemaRef,
) -> Result<RowsFunctionKind> {
    let argument_type = argument.map(|argument| argument.data_type(input)).transpose()?;
    let is_number = argument_type.as_ref().is_some_and(|data_type| {
        data_type.is_numeric()
            || data_type.is_temporal() && !matches!(data_type, DataType::Time32(_) | DataType::Time64(_))
    });
    Ok(match call.fun.name().to_lowercase().as_str() {
        "count" => RowsFunctionKind::Count,
        "sum" if is_number => RowsFunctionKind::Sum,
        "avg" if argument_type == Some(DataType::Float64) => RowsFunctionKind::Avg,
        "min" if is_number => RowsFunctionKind::Min,
        "max" if is_number => RowsFunctionKind::Max,
        "first_value" => RowsFunctionKind::FirstValue,
        "last_value" => RowsFunctionKind::LastValue,
        "lag" => lag(call)?,
        _ => RowsFunctionKind::Aggregate(Arc::new(aggregate_of(call, argument, input)?)),
    })
}

/// A window function that is an aggregate.
fn aggregate_of(
    call: &WindowFunction,
    argument: Option<&Arc<dyn PhysicalExpr>>,
    input: &SchemaRef,
) -> Result<AggregateFunctionExpr> {
    match &call.fun {
        WindowFunctionDefinition::AggregateUDF(function) => {
            AggregateExprBuilder::new(Arc::clone(function), argument.cloned().into_iter().collect())
                .schema(Arc::clone(input))
                .alias(call.fun.name())
                .build()
        }
        other => Err(plan_datafusion_err!("{} OVER (…) has no streaming form", other.name())),
    }
}

fn lag(call: &WindowFunction) -> Result<RowsFunctionKind> {
    let literal = |index: usize| match call.params.args.get(index) {
        None => Ok(None),
        Some(Expr::Literal(value, _)) => Ok(Some(value.clone())),
        Some(other) => Err(plan_datafusion_err!("lag takes a constant, not {other}")),
    };
    let offset = match literal(1)? {
        None => 1,
        Some(value) => match value.cast_to(&DataType::Int64)? {
            ScalarValue::Int64(Some(offset)) if offset >= 0 => offset as usize,
            other => return Err(plan_datafusion_err!("lag looks back, so its offset is not {other}")),
        },
    };
    Ok(RowsFunctionKind::Lag { offset, default: literal(2)?.unwrap_or(ScalarValue::Null) })
}

fn frame(call: &WindowFunction) -> Result<Frame> {
    let bounds = &call.params.window_frame;
    let preceding = match &bounds.start_bound {
        WindowFrameBound::Preceding(rows) if rows.is_null() => None,
        WindowFrameBound::Preceding(rows) => Some(row_count(rows)?),
        _ => Some(0),
    };
    Ok(Frame { preceding })
}

fn row_count(rows: &ScalarValue) -> Result<usize> {
    match rows.cast_to(&DataType::UInt64)? {
        ScalarValue::UInt64(Some(rows)) => Ok(rows as usize),
        other => Err(plan_datafusion_err!("a frame counts rows, not {other}")),
    }
}
