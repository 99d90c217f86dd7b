//! OVER columns of a stream become a [`RowsWindow`], if they follow the event time; else DataFusion computes them when
//! the stream has ended.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::analyze::{Flow, Shape, extension};
use super::event_time::trace;
use super::nodes::RowsWindow;
use super::over_spec::streams;
use super::routing::KeyedState;

/// The event time by which the OVER columns `functions` come out of a stream of `input`; none if any of them has
/// another order, or a function or frame that only the end of the stream decides.
pub(super) fn event_time(functions: &[Expr], input: &LogicalPlan) -> Option<Expr> {
    let mut calls = functions.iter().filter_map(window_function);
    let time = order_of(calls.clone().next()?, input)?;
    calls.all(|call| order_of(call, input).as_ref() == Some(&time) && streams(call, input.schema())).then_some(time)
}

/// Rewrites the OVER columns `functions` over the rows of `input`, whose event time is `time`.
pub(super) fn stream(input: LogicalPlan, time: Expr, functions: Vec<Expr>) -> Result<Flow> {
    let mut keys: Option<Vec<String>> = None;
    for call in functions.iter().filter_map(window_function) {
        // Only keys that every OVER clause has keep a pipeline to itself.
        let of_call = key_columns(call, &input);
        keys = Some(match keys {
            Some(keys) => keys.into_iter().filter(|key| of_call.contains(key)).collect(),
            None => of_call,
        });
    }
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

/// Rows come out by event time, so that is the one order in which a stream has OVER columns.
fn order_of(call: &WindowFunction, input: &LogicalPlan) -> Option<Expr> {
    match call.params.order_by.as_slice() {
        [order] if order.asc && !order.nulls_first => {
            trace(&order.expr, input).is_some_and(|column| column.bears_windows()).then(|| order.expr.clone())
        }
        _ => None,
    }
}
