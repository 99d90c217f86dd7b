//! OVER columns of a stream become a [`RowsWindow`], if they follow the event time; else DataFusion computes them when
//! the stream has ended.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::analyze::{Flow, Shape, extension};
use super::event_time::{stream_key, trace};
use super::nodes::RowsWindow;
use super::over_spec::streams;
use super::result_time::result_time;
use super::routing::KeyedState;

/// The event time by which the OVER columns `functions` come out of a stream of `input`; none if any of them has
/// another order, or a function or frame that only the end of the stream decides.
pub(super) fn event_time(functions: &[Expr], input: &LogicalPlan) -> Option<Expr> {
    let mut calls = functions.iter().filter_map(window_function);
    let time = order_of(calls.clone().next()?, input)?;
    calls.all(|call| order_of(call, input).as_ref() == Some(&time) && streams(call, input.schema())).then_some(time)
}

/// Rewrites the OVER columns `functions` over what flows out of a plan, whose event time is `time`.
pub(super) fn stream(below: Flow, time: Expr, functions: Vec<Expr>) -> Result<Flow> {
    let input = below.plan.clone();
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
    let results = result_time(&time, &input);
    let node = RowsWindow::try_new(Arc::new(input), time, functions, results)?;
    Ok(Flow {
        plan: extension(node),
        shape: Shape::Results,
        stages: below.with_stage(KeyedState::RowsWindow, keys.unwrap_or_default(), false),
        time: below.time.or(column),
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
    call.params.partition_by.iter().filter_map(|key| stream_key(key, input)).collect()
}

/// Rows come out by event time, so that is the one order in which a stream has OVER columns.
fn order_of(call: &WindowFunction, input: &LogicalPlan) -> Option<Expr> {
    match call.params.order_by.as_slice() {
        [order] if order.asc && !order.nulls_first => {
            let is_event_time = trace(&order.expr, input).is_some_and(|column| column.bears_windows());
            (is_event_time || result_time(&order.expr, input).is_some()).then(|| order.expr.clone())
        }
        _ => None,
    }
}
