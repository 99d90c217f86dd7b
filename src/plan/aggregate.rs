//! GROUP BY over the rows of a stream becomes a [`WindowAggregate`] with a projection above it.
//!
//! Every spelling of a window comes out as the same node: window functions in a projection below (that is what a
//! window table function is) are pulled up into the group expressions, and group expressions that only depend on the
//! window, like its end, are computed above from the start that the node gives.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, TableReference};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, Filter, LogicalPlan, Projection};

use crate::sql::EmitMode;

use super::analyze::{Flow, Shape, extension};
use super::event_time::{index_of, trace};
use super::nodes::{WINDOW_START, Window, WindowAggregate};
use super::routing::KeyedState;
use super::{refuse, window};

/// Rewrites `aggregate`, whose input has become `input`.
pub(super) fn stream(input: LogicalPlan, aggregate: Aggregate, emit: EmitMode) -> Result<Flow> {
    refuse::grouping_sets(&aggregate)?;
    // As in the aggregate's schema, each expression is there once.
    let group_exprs = grouping_set_to_exprlist(&aggregate.group_expr)?;
    let groups = group_exprs.len();
    let exprs = group_exprs.into_iter().chain(&aggregate.aggr_expr).cloned().collect();
    let (input, mut exprs) = pull_up_windows(input, exprs)?;
    let aggregates = exprs.split_off(groups);

    let window = pick_window(&exprs, &input)?;
    let outputs = exprs
        .into_iter()
        .map(|expr| Ok(GroupOutput { derived: from_window(&expr, window.as_ref(), &input)?, expr }))
        .collect::<Result<Vec<_>>>()?;
    let mut seen = HashSet::new();
    let keys: Vec<Expr> = outputs
        .iter()
        .filter(|output| output.derived.is_none() && seen.insert(output.expr.clone().unalias()))
        .map(|output| output.expr.clone().unalias())
        .collect();
    let key_columns = keys.iter().filter_map(|key| trace(key, &input)).map(|column| {
        let schema = column.stream.schema();
        schema.field(column.index).name().clone()
    });
    let key_columns = key_columns.collect();

    let time = window.as_ref().and_then(|window| window::time_index(&window.start, &input));
    let input = Arc::new(input);
    let node = WindowAggregate::try_new(input, window, keys, aggregates.clone(), emit)?;
    let columns = outputs.into_iter().map(GroupOutput::column).chain(aggregates.iter().map(column_of));
    let columns = columns
        .zip(aggregate.schema.iter())
        .map(|(expr, (qualifier, field))| named(expr, qualifier.cloned(), field.name()))
        .collect();
    let plan = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(extension(node)))?);
    Ok(Flow {
        plan,
        shape: Shape::Results,
        state: KeyedState::Aggregate(emit),
        keys: key_columns,
        time,
        is_changelog: emit == EmitMode::Changes,
    })
}

/// An expression under a name; a column that bears it already is left alone, as DataFusion's rules expect it.
fn named(expr: Expr, qualifier: Option<TableReference>, name: &str) -> Expr {
    match &expr {
        Expr::Column(column) if column.relation == qualifier && column.name == name => expr,
        _ => expr.alias_qualified(qualifier, name),
    }
}

/// A group expression and, if it only depends on the window, how it is computed from the node's output.
struct GroupOutput {
    expr: Expr,
    derived: Option<Expr>,
}

impl GroupOutput {
    fn column(self) -> Expr {
        self.derived.unwrap_or_else(|| column_of(&self.expr.unalias()))
    }
}

/// The node's output column that an expression has become.
fn column_of(expr: &Expr) -> Expr {
    Expr::Column(Column::new_unqualified(expr.schema_name().to_string()))
}

/// The window of a GROUP BY: the shortest, where several are nested (the others are keys).
fn pick_window(groups: &[Expr], input: &LogicalPlan) -> Result<Option<Window>> {
    let mut picked: Option<Window> = None;
    for expr in groups {
        if let Some(found) = window_behind(expr, input)?
            && picked.as_ref().is_none_or(|window| found.size < window.size)
        {
            picked = Some(found);
        }
    }
    Ok(picked)
}

/// The window that a group expression is, or the one that its end or time is taken from.
fn window_behind(expr: &Expr, input: &LogicalPlan) -> Result<Option<Window>> {
    match expr {
        Expr::Alias(alias) => window_behind(&alias.expr, input),
        Expr::ScalarFunction(call) if matches!(call.name(), "window_end" | "window_time") => match call.args.first() {
            Some(start) => window::recognise(start, input),
            None => Ok(None),
        },
        _ => window::recognise(expr, input),
    }
}

/// A group expression in terms of the window's start alone, if that is all it depends on.
fn from_window(expr: &Expr, window: Option<&Window>, input: &LogicalPlan) -> Result<Option<Expr>> {
    let Some(window) = window else { return Ok(None) };
    let start = Column::new_unqualified(WINDOW_START);
    if window::recognise(expr, input)?.as_ref() == Some(window) {
        return Ok(Some(Expr::Column(start)));
    }
    let replaced = expr.clone().unalias().transform_down(|part| {
        let is_start = part == window.start || window::recognise(&part, input)?.as_ref() == Some(window);
        match is_start {
            true => Ok(Transformed::new(Expr::Column(start.clone()), true, TreeNodeRecursion::Jump)),
            false => Ok(Transformed::no(part)),
        }
    })?;
    let only_start = replaced.data.column_refs().into_iter().all(|column| *column == start);
    Ok((replaced.transformed && only_start).then_some(replaced.data))
}

/// Whether an expression reads a column of `plan`, which gives a GROUP BY's results, that is more than keys and window.
pub(super) fn reads_results(expr: &Expr, plan: &LogicalPlan) -> bool {
    expr.column_refs()
        .into_iter()
        .filter_map(|column| index_of(column, plan.schema()))
        .any(|index| !is_key(index, plan))
}

fn is_key(index: usize, plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.get(index).is_some_and(|expr| !reads_results(expr, &projection.input))
        }
        LogicalPlan::SubqueryAlias(alias) => is_key(index, &alias.input),
        LogicalPlan::Extension(extension) => extension
            .node
            .as_any()
            .downcast_ref::<WindowAggregate>()
            .is_some_and(|node| index < node.keys.len() + usize::from(node.window.is_some())),
        _ => false,
    }
}

/// Substitutes the projections just below that call window functions into `exprs`, and into the filters between.
fn pull_up_windows(input: LogicalPlan, exprs: Vec<Expr>) -> Result<(LogicalPlan, Vec<Expr>)> {
    match window_projection(&input) {
        Some((below, meanings)) => {
            let below = below.clone();
            let replace = |expr: Expr| substitute(expr, &input, &meanings);
            let exprs = exprs.into_iter().map(replace).collect::<Result<Vec<_>>>()?;
            pull_up_windows(below, exprs)
        }
        None => match input {
            LogicalPlan::Filter(filter) if window_projection(&filter.input).is_some() => {
                let (below, meanings) = match window_projection(&filter.input) {
                    Some((below, meanings)) => (below.clone(), meanings),
                    None => return Ok((LogicalPlan::Filter(filter), exprs)),
                };
                let predicate = substitute(filter.predicate.clone(), &filter.input, &meanings)?;
                let replace = |expr: Expr| substitute(expr, &filter.input, &meanings);
                let exprs = exprs.into_iter().map(replace).collect::<Result<Vec<_>>>()?;
                let below = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(below))?);
                pull_up_windows(below, exprs)
            }
            input => Ok((input, exprs)),
        },
    }
}

/// The plan below a projection that calls window functions, and what its output columns mean there.
fn window_projection(plan: &LogicalPlan) -> Option<(&LogicalPlan, Vec<Expr>)> {
    match plan {
        // What is random is to be computed once for each row.
        LogicalPlan::Projection(projection)
            if projection.expr.iter().any(calls_window) && !projection.expr.iter().any(Expr::is_volatile) =>
        {
            let meanings = projection.expr.iter().map(|expr| expr.clone().unalias()).collect();
            Some((&projection.input, meanings))
        }
        LogicalPlan::SubqueryAlias(alias) => window_projection(&alias.input),
        _ => None,
    }
}

/// Whether a window function is called in an expression.
pub(super) fn calls_window(expr: &Expr) -> bool {
    expr.exists(|part| Ok(matches!(part, Expr::ScalarFunction(call) if call.name() == "tumble"))).unwrap_or(false)
}

/// `expr` over `plan`, each column replaced by what it means below.
fn substitute(expr: Expr, plan: &LogicalPlan, meanings: &[Expr]) -> Result<Expr> {
    expr.transform_up(|part| match &part {
        Expr::Column(column) => match index_of(column, plan.schema()).and_then(|index| meanings.get(index)) {
            Some(meaning) => Ok(Transformed::yes(meaning.clone())),
            None => Ok(Transformed::no(part)),
        },
        _ => Ok(Transformed::no(part)),
    })
    .data()
}
