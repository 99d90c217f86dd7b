//! What can be known of a query's rows from its plan: which columns of changes are the keys whose latest rows are the
//! final answer, and whether a LIMIT leaves open which rows there are.

use std::sync::Arc;

use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

use crate::operator::WindowShape;
use crate::sql::{Changes, EmitMode, When};

use super::analyze::extension;
use super::event_time::index_of;
use super::nodes::{ChangesFilter, Emit, Pipelines, WindowAggregate};

/// What the rows of a query are to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changelog {
    /// None takes the place of another.
    None,
    /// A row takes the place of the one before it with the same key.
    Keyed(Keyed),
    /// Rows take the place of others, but of which cannot be seen: the reason.
    Unkeyed(String),
}

/// Changes of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keyed {
    /// The columns of the key.
    pub(crate) keys: Vec<usize>,
    /// The column that says what a row does.
    pub(crate) op: Option<usize>,
    /// Whether how batches are cut decides which changes are told.
    pub(crate) is_by_batch: bool,
}

/// Says what the rows of an analyzed plan are to each other.
pub(crate) fn changelog(plan: &LogicalPlan) -> Changelog {
    let Some(node) = changes(plan) else { return Changelog::None };
    let origins: Vec<_> = (0..plan.schema().fields().len()).map(|index| key_behind(index, plan)).collect();
    let windows = node.window.as_ref().map_or(0, |window| window.columns().len());
    let is_session = node.window.as_ref().is_some_and(|window| matches!(window.shape, WindowShape::Session { .. }));
    if is_session && !node.emit.has_ops() {
        return Changelog::Unkeyed(
            "the bounds of a session change, and WITH OP is not there to say which rows it replaces".to_string(),
        );
    }
    let keys = windows + node.keys.len();
    let mut columns = vec![];
    for key in 0..keys {
        match origins.iter().position(|origin| *origin == Some(key)) {
            Some(column) => columns.push(column),
            None => {
                let unseen = match key.checked_sub(windows) {
                    None => "the window".to_string(),
                    Some(key) => node.keys[key].to_string(),
                };
                return Changelog::Unkeyed(format!("{unseen} is grouped by and not selected"));
            }
        }
    }
    match gives_row_for_row(plan) {
        true => Changelog::Keyed(Keyed {
            keys: columns,
            op: node.emit.has_ops().then_some(0),
            is_by_batch: matches!(node.emit, EmitMode::Changes(Changes { when: When::EachBatch, .. })),
        }),
        false => Changelog::Unkeyed("a change may become several rows, or none".to_string()),
    }
}

/// The aggregate whose changes come out of a plan.
fn changes(plan: &LogicalPlan) -> Option<&WindowAggregate> {
    match aggregate(plan) {
        Some(node) => node.emit.is_changes().then_some(node),
        None => plan.inputs().into_iter().find_map(changes),
    }
}

fn aggregate(plan: &LogicalPlan) -> Option<&WindowAggregate> {
    match plan {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
        _ => None,
    }
}

/// Whether the changes of the aggregate come out one by one.
fn gives_row_for_row(plan: &LogicalPlan) -> bool {
    match plan {
        // A filter looks at keys, or at what rows do.
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) => {
            plan.inputs().into_iter().all(gives_row_for_row)
        }
        LogicalPlan::Extension(extension) if extension.node.as_any().is::<ChangesFilter>() => {
            plan.inputs().into_iter().all(gives_row_for_row)
        }
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<Pipelines>() {
            Some(pipelines) => gives_row_for_row(&pipelines.input),
            None => aggregate(plan).is_some(),
        },
        _ => false,
    }
}

/// The key (the window first) of the aggregate that output column `index` of a plan tells from all its other values.
fn key_behind(index: usize, plan: &LogicalPlan) -> Option<usize> {
    match plan {
        LogicalPlan::Projection(projection) => key_in(projection.expr.get(index)?, projection),
        LogicalPlan::SubqueryAlias(alias) => key_behind(index, &alias.input),
        LogicalPlan::Filter(filter) => key_behind(index, &filter.input),
        LogicalPlan::Extension(extension) if extension.node.as_any().is::<ChangesFilter>() => {
            key_behind(index, plan.inputs().first()?)
        }
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<Pipelines>() {
            Some(pipelines) => key_behind(index, &pipelines.input),
            None => {
                let node = aggregate(plan)?;
                let index = index.checked_sub(usize::from(node.emit.has_ops()))?;
                let windows = node.window.as_ref().map_or(0, |window| window.columns().len());
                (index < windows + node.keys.len()).then_some(index)
            }
        },
        _ => None,
    }
}

fn key_in(expr: &Expr, projection: &Projection) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => key_in(&alias.expr, projection),
        Expr::Column(column) => key_behind(index_of(column, projection.input.schema())?, &projection.input),
        // A window's end and time are as good as its start.
        Expr::ScalarFunction(call) if matches!(call.name(), "window_end" | "window_time") => {
            key_in(call.args.first()?, projection)
        }
        Expr::ScalarFunction(call) if call.name() == "last_tick" => key_in(call.args.first()?, projection),
        _ => None,
    }
}

/// The plan without a last LIMIT that has no ORDER BY below it.
pub(crate) fn without_last_limit(plan: &LogicalPlan) -> Option<LogicalPlan> {
    match plan {
        LogicalPlan::Limit(limit) if !matches!(limit.input.as_ref(), LogicalPlan::Sort(_)) => {
            Some(limit.input.as_ref().clone())
        }
        LogicalPlan::Extension(node) => {
            let emit = node.node.as_any().downcast_ref::<Emit>()?;
            let input = Arc::new(without_last_limit(&emit.input)?);
            Emit::try_new(input, emit.mode, emit.at).ok().map(extension)
        }
        _ => None,
    }
}
