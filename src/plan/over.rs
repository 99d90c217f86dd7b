//! OVER columns of a stream become a [`RowsWindow`].

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, expr};

use crate::error::Error;

use super::analyze::{Flow, Shape, extension};
use super::event_time::{first_stream, trace};
use super::nodes::RowsWindow;
use super::refuse::{place_of, refuse_if};
use super::routing::KeyedState;

/// Functions that take a FILTER.
const FILTERED: [&str; 5] = ["count", "sum", "avg", "min", "max"];
const FUNCTIONS: [&str; 3] = ["first_value", "last_value", "lag"];

/// Rewrites the OVER columns `functions` over the rows of `input`.
pub(super) fn stream(input: LogicalPlan, functions: Vec<Expr>) -> Result<Flow> {
    let mut time = None;
    let mut keys: Option<Vec<String>> = None;
    for function in &functions {
        let Some(call) = window_function(function) else {
            continue;
        };
        check_function(call).map_err(|error| Error::locate(error, place_of([function])))?;
        let by = check_order(call, &input).map_err(|error| Error::locate(error, place_of([function])))?;
        refuse_if(time.as_ref().is_some_and(|time| *time != by), || {
            Error::refused(
                "OVER by two orders in one SELECT",
                "rows come out once, in one order",
                "order every OVER clause of the SELECT by the same column",
            )
            .at(place_of([function]))
        })?;
        time = Some(by);
        check_frame(call).map_err(|error| Error::locate(error, place_of([function])))?;
        // Only keys that every OVER clause has keep a pipeline to itself.
        let of_call = key_columns(call, &input);
        keys = Some(match keys {
            Some(keys) => keys.into_iter().filter(|key| of_call.contains(key)).collect(),
            None => of_call,
        });
    }
    let Some(time) = time else {
        return Err(Error::sql("an OVER clause without a function").into());
    };
    let column = trace(&time, &input).map(|column| column.index);
    let node = RowsWindow::try_new(Arc::new(input), time, functions)?;
    Ok(Flow {
        plan: extension(node),
        shape: Shape::Results,
        state: KeyedState::RowsWindow,
        keys: keys.unwrap_or_default(),
        time: column,
        is_changelog: false,
    })
}

/// The window function in an expression of a Window node.
pub(super) fn window_function(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => window_function(&alias.expr),
        Expr::WindowFunction(call) => Some(call),
        _ => None,
    }
}

fn key_columns(call: &WindowFunction, input: &LogicalPlan) -> Vec<String> {
    let columns = call.params.partition_by.iter().filter_map(|key| trace(key, input));
    columns.map(|column| column.stream.schema().field(column.index).name().clone()).collect()
}

fn check_function(call: &WindowFunction) -> Result<()> {
    let name = call.fun.name().to_lowercase();
    let is_aggregate = matches!(call.fun, WindowFunctionDefinition::AggregateUDF(_)) && call.params.args.len() <= 1;
    check_lag(call)?;
    let supported = (is_aggregate || FUNCTIONS.contains(&name.as_str()))
        && !call.params.distinct
        && (call.params.filter.is_none() || FILTERED.contains(&name.as_str()))
        && !matches!(call.params.null_treatment, Some(expr::NullTreatment::IgnoreNulls));
    refuse_if(!supported, || {
        Error::refused(
            format!("{} OVER (…)", call.fun.name()),
            "this function, or DISTINCT, FILTER or IGNORE NULLS in it, keeps no running value here",
            "aggregates of one argument, first_value, last_value and lag, without DISTINCT and IGNORE NULLS; FILTER for count, sum, avg, min and max",
        )
    })
}

/// lag looks back, by a number of rows that is known.
fn check_lag(call: &WindowFunction) -> Result<()> {
    let offset = match call.params.args.get(1) {
        Some(Expr::Literal(offset, _)) if call.fun.name().eq_ignore_ascii_case("lag") => {
            offset.cast_to(&DataType::Int64)?
        }
        _ => return Ok(()),
    };
    refuse_if(!matches!(offset, ScalarValue::Int64(Some(0..))), || {
        Error::refused(
            format!("lag with an offset of {offset}"),
            "it looks back, and lead's rows are still to come",
            "lag(x), or lag(x, n) with n of 0 or more",
        )
    })
}

/// Rows come out by event time, so that is the one order that an OVER clause may ask for.
fn check_order(call: &WindowFunction, input: &LogicalPlan) -> Result<Expr> {
    if let [order] = call.params.order_by.as_slice()
        && order.asc
        && !order.nulls_first
        && trace(&order.expr, input).is_some_and(|column| column.bears_windows())
    {
        return Ok(order.expr.clone());
    }
    let time = first_stream(input).and_then(|stream| stream.event_time().map(|time| time.column.clone()));
    let what = match call.params.order_by.as_slice() {
        [] => "OVER without ORDER BY",
        _ => "OVER with ORDER BY of more or other than the event time, ascending and with nulls last,",
    };
    Err(Error::refused(
        what,
        "rows of a stream come out in the order of event time and in no other",
        format!(
            "OVER (PARTITION BY … ORDER BY {} ROWS BETWEEN 99 PRECEDING AND CURRENT ROW)",
            time.unwrap_or("ts".into())
        ),
    )
    .into())
}

fn check_frame(call: &WindowFunction) -> Result<()> {
    // lag looks back by its own offset and has no frame.
    if call.fun.name().eq_ignore_ascii_case("lag") {
        return Ok(());
    }
    let frame = &call.params.window_frame;
    let rows = frame.units == WindowFrameUnits::Rows
        && matches!(frame.start_bound, WindowFrameBound::Preceding(_))
        && ends_at_current_row(&frame.end_bound);
    refuse_if(!rows, || {
        let what = match frame.units {
            WindowFrameUnits::Rows => format!("the frame {frame}"),
            units => format!("a frame of {units}"),
        };
        Error::refused(
            what,
            "a stream keeps the rows before the current one, counted in ROWS",
            "ROWS BETWEEN n PRECEDING AND CURRENT ROW, or ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
        )
    })
}

fn ends_at_current_row(bound: &WindowFrameBound) -> bool {
    match bound {
        WindowFrameBound::CurrentRow => true,
        WindowFrameBound::Preceding(ScalarValue::UInt64(Some(0)))
        | WindowFrameBound::Following(ScalarValue::UInt64(Some(0))) => true,
        WindowFrameBound::Preceding(_) | WindowFrameBound::Following(_) => false,
    }
}
