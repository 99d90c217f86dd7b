//! OVER columns of a stream become a [`RowsWindow`], if they follow the event time; the others of a SELECT DataFusion
//! computes when the stream has ended.

use std::sync::Arc;

use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Window};

use super::analyze::{Flow, Shape, extension};
use super::event_time::{stream_key, trace};
use super::nodes::RowsWindow;
use super::over_spec::{keeps_what_leaves, lacks_argument, streams};
use super::refuse;
use super::result_time::result_time;
use super::routing::KeyedState;

/// The OVER columns of one SELECT, for which DataFusion stacks a node for each distinct OVER clause.
pub(super) struct Stack {
    /// The columns of each node, the lowest first.
    pub(super) nodes: Vec<Vec<Expr>>,
    /// What they are over.
    pub(super) below: LogicalPlan,
}

impl Stack {
    /// The stack under the node `top`.
    ///
    /// # Errors
    /// None for a plan that DataFusion has made.
    pub(super) fn under(top: &LogicalPlan) -> Result<Self> {
        let (mut nodes, mut below) = (vec![], top);
        while let LogicalPlan::Window(window) = below {
            let mut columns = nodes.iter().flatten().flat_map(Expr::column_refs);
            if !columns.all(|column| window.input.schema().has_column(column)) {
                // What is computed of OVER columns belongs to a SELECT of its own, as in SQL.
                let columns = below.schema().columns().into_iter().map(Expr::Column);
                let below = LogicalPlanBuilder::from(below.clone()).project(columns)?.build()?;
                return Ok(Self { nodes, below });
            }
            if let Some(call) = window.window_expr.iter().filter_map(window_function).find(|call| lacks_argument(call))
            {
                // As DataFusion says it of other functions.
                let name = call.fun.name();
                return plan_err!(
                    "no function matches the given name and argument types '{name}()'\n{name}(expression)"
                );
            }
            nodes.insert(0, window.window_expr.clone());
            below = &window.input;
        }
        Ok(Self { nodes, below: below.clone() })
    }

    /// The columns that a stream of `input` has in order of one event time, with this time; and the others, which have
    /// another order, or a function or frame that only the end of the stream decides.
    pub(super) fn divide(&self, input: &LogicalPlan) -> (Option<(Expr, Vec<Expr>)>, Self) {
        let time_of = |column: &Expr| {
            let call = window_function(column).filter(|call| streams(call, input.schema()))?;
            order_of(call, input)
        };
        let time = self.nodes.iter().flatten().find_map(time_of);
        let is_streaming = |column: &Expr| time.is_some() && time_of(column) == time;
        let (streaming, others): (Vec<_>, Vec<_>) = self.nodes.iter().flatten().cloned().partition(is_streaming);
        let nodes = self.nodes.iter().map(|node| node.iter().filter(|column| others.contains(column)).cloned());
        let nodes = nodes.map(Iterator::collect).filter(|node: &Vec<_>| !node.is_empty()).collect();
        (time.map(|time| (time, streaming)), Self { nodes, below: self.below.clone() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes over what they are over.
    ///
    /// # Errors
    /// None for what [`Stack::under`] gives.
    pub(super) fn plan(self) -> Result<LogicalPlan> {
        let over = |below, node| Ok(LogicalPlan::Window(Window::try_new(node, Arc::new(below))?));
        self.nodes.into_iter().try_fold(self.below, over)
    }
}

/// Whether DataFusion can compute OVER columns of what flows out of a plan when the stream has ended.
///
/// # Errors
/// A frame that it cannot slide.
pub(super) fn at_end(stack: &Stack, input: &LogicalPlan) -> Result<()> {
    let mut calls = stack.nodes.iter().flatten().filter_map(window_function);
    match calls.find(|call| keeps_what_leaves(call, input.schema())) {
        Some(call) => Err(refuse::sliding_at_end(call.fun.name()).into()),
        None => Ok(()),
    }
}

/// Rewrites the OVER columns `functions` over what flows out of a plan, whose event time is `time`.
pub(super) fn stream(below: Flow, time: Expr, functions: Vec<Expr>, ttl_ns: Option<i64>) -> Result<Flow> {
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
    let node = RowsWindow::try_new(Arc::new(input), time, functions, results)?.with_ttl(ttl_ns);
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
