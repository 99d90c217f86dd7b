//! The fixed parameters of OVER columns, made from their logical node; and which of them a stream can have.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{
    DFSchema, DataFusionError, Result, ScalarValue, internal_datafusion_err, plan_datafusion_err,
};
use datafusion::execution::context::ExecutionProps;
use datafusion::functions_window::lead_lag::{lag_udwf, lead_udwf};
use datafusion::functions_window::nth_value::{first_value_udwf, last_value_udwf, nth_value_udwf};
use datafusion::functions_window::rank::{dense_rank_udwf, rank_udwf};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::function::PartitionEvaluatorArgs;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, UserDefinedLogicalNodeCore, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
    WindowUDF,
};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::physical_plan::windows::create_udwf_window_expr;
use datafusion::physical_planner::is_window_frame_bound_valid;

use crate::operator::{Frame, RangeBound, RowsFunction, RowsFunctionKind, RowsWindowSpec};

use super::interval::window_ticks;
use super::nodes::RowsWindow;
use super::over::window_function;

/// What a stream makes of an OVER column's function.
enum Streams {
    Aggregate,
    FirstValue,
    LastValue,
    NthValue(i64),
    Shift(i64),
    RowNumber,
    Rank,
    DenseRank,
    Evaluator,
}

/// Whether a stream answers an OVER column row by row, for an order by event time. Else only its end does, or
/// DataFusion knows best what it means.
pub(super) fn streams(call: &WindowFunction, input: &DFSchema) -> bool {
    let ignores_nulls = matches!(call.params.null_treatment, Some(NullTreatment::IgnoreNulls));
    !call.params.distinct
        && !ignores_nulls
        && function_of(call, input).is_some_and(|function| frame(&function, call).is_some())
}

/// Whether a function that streams sees no rows after its own, but those of the same time.
pub(super) fn ends_by_row(call: &WindowFunction, input: &DFSchema) -> bool {
    match function_of(call, input).and_then(|function| frame(&function, call)) {
        Some(Frame::Rows { end, .. }) => end <= 0,
        Some(Frame::Range { end, .. }) => !matches!(end, RangeBound::Following(_)),
        None => false,
    }
}

/// The first or last value of nothing, which DataFusion's planner lets pass.
pub(super) fn lacks_argument(call: &WindowFunction) -> bool {
    let WindowFunctionDefinition::WindowUDF(fun) = &call.fun else { return false };
    let is = |known: Arc<WindowUDF>| fun == &known;
    call.params.args.is_empty() && (is(first_value_udwf()) || is(last_value_udwf()) || is(nth_value_udwf()))
}

/// An aggregate over a frame that rows leave, which cannot take them back, as DataFusion would have it.
pub(super) fn keeps_what_leaves(call: &WindowFunction, input: &DFSchema) -> bool {
    let WindowFunctionDefinition::AggregateUDF(fun) = &call.fun else { return false };
    let sliding = || {
        let (properties, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
        let physical = |arg| create_physical_expr(arg, input, &properties, &context);
        let args = call.params.args.iter().map(physical).collect::<Result<Vec<_>>>()?;
        let aggregate = AggregateExprBuilder::new(Arc::clone(fun), args).schema(Arc::clone(input.inner()));
        let aggregate = aggregate.alias(fun.name()).with_distinct(call.params.distinct).build()?;
        aggregate.create_sliding_accumulator()
    };
    let refuses = |error: DataFusionError| matches!(error.find_root(), DataFusionError::NotImplemented(_));
    !call.params.window_frame.is_ever_expanding() && sliding().is_err_and(refuses)
}

fn function_of(call: &WindowFunction, input: &DFSchema) -> Option<Streams> {
    let fun = match &call.fun {
        WindowFunctionDefinition::AggregateUDF(_) => return Some(Streams::Aggregate),
        WindowFunctionDefinition::WindowUDF(_) if call.params.filter.is_some() => return None,
        WindowFunctionDefinition::WindowUDF(fun) => fun,
    };
    let is = |known: Arc<WindowUDF>| fun == &known;
    if is(row_number_udwf()) {
        Some(Streams::RowNumber)
    } else if is(rank_udwf()) {
        Some(Streams::Rank)
    } else if is(dense_rank_udwf()) {
        Some(Streams::DenseRank)
    } else if is(first_value_udwf()) {
        Some(Streams::FirstValue)
    } else if is(last_value_udwf()) {
        Some(Streams::LastValue)
    } else if is(nth_value_udwf()) {
        integer(call.params.args.get(1)?).filter(|nth| *nth != 0).map(Streams::NthValue)
    } else if is(lag_udwf()) {
        offset(call)?.checked_neg().map(Streams::Shift)
    } else if is(lead_udwf()) {
        offset(call).map(Streams::Shift)
    } else {
        looks_at_its_frame(fun, call, input).then_some(Streams::Evaluator)
    }
}

/// How far lag and lead look; their default is a constant too. A null takes its type from there.
fn offset(call: &WindowFunction) -> Option<i64> {
    match call.params.args.as_slice() {
        [Expr::Literal(value, _), ..] if value.is_null() => None,
        [_] => Some(1),
        [_, offset] | [_, offset, Expr::Literal(..)] => integer(offset),
        _ => None,
    }
}

fn integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(value, _) if value.data_type().is_integer() => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(value)) => value,
            _ => None,
        },
        _ => None,
    }
}

/// Whether a user's function is one of its frame's rows and nothing else.
fn looks_at_its_frame(fun: &WindowUDF, call: &WindowFunction, input: &DFSchema) -> bool {
    let evaluator = || {
        let (properties, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
        let physical = |arg| create_physical_expr(arg, input, &properties, &context);
        let args = call.params.args.iter().map(physical).collect::<Result<Vec<_>>>()?;
        let fields = args.iter().map(|arg| arg.return_field(input.as_arrow())).collect::<Result<Vec<_>>>()?;
        fun.partition_evaluator_factory(PartitionEvaluatorArgs::new(&args, &fields, false, false))
    };
    let has_arguments = !call.params.args.is_empty();
    has_arguments
        && evaluator().is_ok_and(|evaluator| {
            evaluator.uses_window_frame() && evaluator.supports_bounded_execution() && !evaluator.include_rank()
        })
}

/// The rows that a function sees; none if only the end of the stream tells.
fn frame(function: &Streams, call: &WindowFunction) -> Option<Frame> {
    match function {
        Streams::RowNumber | Streams::Rank | Streams::DenseRank => return Some(Frame::Rows { start: None, end: 0 }),
        Streams::Shift(rows @ 1..) => return Some(Frame::Rows { start: Some(0), end: *rows }),
        Streams::Shift(rows) => return Some(Frame::Rows { start: Some(*rows), end: 0 }),
        _ => {}
    }
    let bounds = &call.params.window_frame;
    let frame = match bounds.units {
        _ if !is_window_frame_bound_valid(bounds) => return None,
        WindowFrameUnits::Rows => rows_frame(bounds)?,
        WindowFrameUnits::Range => range_frame(bounds)?,
        WindowFrameUnits::Groups => return None,
    };
    let grows = matches!(frame, Frame::Rows { start: None, .. } | Frame::Range { start: None, .. });
    (!grows || !matches!(function, Streams::Evaluator)).then_some(frame)
}

fn is_unbounded(bound: &WindowFrameBound) -> bool {
    matches!(bound, WindowFrameBound::Preceding(distance) if distance.is_null())
}

fn rows_frame(bounds: &WindowFrame) -> Option<Frame> {
    let rows = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => Some(0),
        WindowFrameBound::Preceding(ScalarValue::UInt64(rows)) => i64::try_from((*rows)?).ok().map(|rows| -rows),
        WindowFrameBound::Following(ScalarValue::UInt64(rows)) => i64::try_from((*rows)?).ok(),
        _ => None,
    };
    let end = rows(&bounds.end_bound)?;
    match is_unbounded(&bounds.start_bound) {
        true => Some(Frame::Rows { start: None, end }),
        false => Some(Frame::Rows { start: Some(rows(&bounds.start_bound)?), end }),
    }
}

fn range_frame(bounds: &WindowFrame) -> Option<Frame> {
    let is_interval = |distance: &ScalarValue| matches!(distance, ScalarValue::IntervalMonthDayNano(Some(_)));
    let range = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => Some(RangeBound::CurrentRow),
        WindowFrameBound::Preceding(distance) => is_interval(distance).then(|| RangeBound::Preceding(distance.clone())),
        WindowFrameBound::Following(distance) => is_interval(distance).then(|| RangeBound::Following(distance.clone())),
    };
    let end = range(&bounds.end_bound)?;
    match is_unbounded(&bounds.start_bound) {
        true => Some(Frame::Range { start: None, end }),
        false => Some(Frame::Range { start: Some(range(&bounds.start_bound)?), end }),
    }
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
        let no_streaming_form = || plan_datafusion_err!("{expr} has no streaming form");
        let function = function_of(call, logical).ok_or_else(no_streaming_form)?;
        let frame = frame(&function, call).ok_or_else(no_streaming_form)?;
        let arguments = call.params.args.iter().map(physical).collect::<Result<Vec<_>>>()?;
        let (kind, arguments) = kind_of(function, call, arguments, input, time)?;
        Ok(RowsFunction {
            kind,
            arguments,
            partition_by: call.params.partition_by.iter().map(physical).collect::<Result<_>>()?,
            frame,
            filter: call.params.filter.as_deref().map(physical).transpose()?,
            field: Arc::clone(field),
        })
    });
    let functions = functions.collect::<Result<Vec<_>>>()?;
    let ttl_ns = node.ttl_ns.filter(|_| functions.iter().any(RowsFunction::forgets));
    let in_ticks = |ns| window_ticks(&ScalarValue::DurationNanosecond(Some(ns)), input.field(time).data_type());
    let ttl = ttl_ns.map(in_ticks).transpose()?;
    Ok(RowsWindowSpec { input_schema: Arc::clone(input), schema, time, functions, ttl })
}

/// What a function computes, and from what.
fn kind_of(
    function: Streams,
    call: &WindowFunction,
    mut arguments: Vec<Arc<dyn PhysicalExpr>>,
    input: &SchemaRef,
    time: usize,
) -> Result<(RowsFunctionKind, Vec<Arc<dyn PhysicalExpr>>)> {
    let by_time = || vec![Arc::new(Column::new(input.field(time).name(), time)) as _];
    Ok(match (function, &call.fun) {
        (Streams::Aggregate, WindowFunctionDefinition::AggregateUDF(fun)) => {
            let aggregate = AggregateExprBuilder::new(Arc::clone(fun), arguments.clone());
            let aggregate = aggregate.schema(Arc::clone(input)).alias(call.fun.name()).build()?;
            (RowsFunctionKind::Aggregate(Arc::new(aggregate)), arguments)
        }
        (Streams::Evaluator, WindowFunctionDefinition::WindowUDF(fun)) => {
            let evaluator = create_udwf_window_expr(fun, &arguments, input, call.fun.name().to_string(), false)?;
            let arguments = evaluator.expressions();
            (RowsFunctionKind::Evaluator(evaluator), arguments)
        }
        (Streams::RowNumber, _) => (RowsFunctionKind::RowNumber, by_time()),
        (Streams::Rank, _) => (RowsFunctionKind::Rank, by_time()),
        (Streams::DenseRank, _) => (RowsFunctionKind::DenseRank, by_time()),
        (function, _) => {
            arguments.truncate(1);
            let kind = match function {
                Streams::FirstValue => RowsFunctionKind::FirstValue,
                Streams::LastValue => RowsFunctionKind::LastValue,
                Streams::NthValue(nth) => RowsFunctionKind::NthValue(nth),
                Streams::Shift(offset) => {
                    let default = match call.params.args.get(2) {
                        Some(Expr::Literal(value, _)) => value.clone(),
                        _ => ScalarValue::Null,
                    };
                    RowsFunctionKind::Shift { offset, default }
                }
                _ => return Err(internal_datafusion_err!("{} is of two kinds", call.fun.name())),
            };
            (kind, arguments)
        }
    })
}
