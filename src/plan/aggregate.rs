//! GROUP BY over the rows of a stream becomes a [`WindowAggregate`] with a projection above it.
//!
//! Every spelling of a window comes out as the same node: window functions in a projection below (that is what a
//! window table function is) are pulled up into the group expressions, and group expressions that only depend on the
//! window, like its end, are computed above from the start that the node gives.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, Result, TableReference};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Projection, lit};

use crate::operator::{OP, ResultTime, WindowShape};
use crate::sql::{Changes, EmitMode, When};

use super::analyze::{Flow, Shape, extension};
use super::event_time::{index_of, stream_key, trace_index};
use super::explode::{calls_overlapping, overlapping_calls};
use super::functions::{last_tick, window_end};
use super::nodes::{Repeats, WINDOW_END, WINDOW_START, Window, WindowAggregate};
use super::operator_spec::is_free_of_order;
use super::overlapping::{is_overlapping, is_session, session_keys};
use super::pull_up::{calls_window, pull_up_windows};
use super::result_time::{comes_out_by_time, result_time, time_of_results};
use super::routing::KeyedState;
use super::session_rows::shape_over;
use super::top_n_node::TopN;
use super::ttl::Ttl;
use super::window::{Recognised, interval_of};
use super::{refuse, window};

/// The keys and aggregates of a GROUP BY, in terms of what is below the projections that make its windows.
pub(super) struct Grouping {
    pub(super) groups: Vec<Expr>,
    aggregates: Vec<Expr>,
    /// Whether there are such projections, which what is below does not have.
    pub(super) is_pulled_up: bool,
}

impl Grouping {
    /// What is below, and the grouping over it.
    pub(super) fn of(aggregate: &Aggregate) -> Result<(LogicalPlan, Self)> {
        let input = aggregate.input.as_ref().clone();
        // As in the aggregate's schema, each expression is there once.
        let groups: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
        let aggregates = aggregate.aggr_expr.clone();
        let exprs = groups.iter().chain(&aggregates).cloned().collect();
        let (below, mut pulled) = pull_up_windows(input.clone(), exprs, groups.len())?;
        let is_pulled_up = below != input;
        let pulled = Self { aggregates: pulled.split_off(groups.len()), groups: pulled, is_pulled_up };
        // Where one operator cannot keep the windows, rows come to it once for each of them.
        let is_told = pulled.tells_windows()? || below == input;
        match pulled.overlapping()? {
            Some(0 | 1) if is_told && sessions_stream(&pulled.groups)? && !pulled.nests_windows(&below) => {
                Ok((below, pulled))
            }
            _ => Ok((input, Self { groups, aggregates, is_pulled_up: false })),
        }
    }

    /// Whether rows are in one group only if they are in one window: cumulating windows may begin together.
    fn tells_windows(&self) -> Result<bool> {
        let is_end = |group: &Expr, window: &ScalarFunction| match group.clone().unalias() {
            Expr::ScalarFunction(call) => {
                is_bound(&call) && matches!(call.args.first(), Some(Expr::ScalarFunction(of)) if of == window)
            }
            _ => false,
        };
        let calls = overlapping_calls(&self.groups)?;
        let mut cumulating = calls.iter().filter(|call| call.name() == "cumulate");
        Ok(cumulating.all(|call| self.groups.iter().any(|group| is_end(group, call))))
    }

    /// Whether windows are over the bounds of other windows of `input`'s rows, and one of both may hold a row several times.
    pub(super) fn nests_windows(&self, input: &LogicalPlan) -> bool {
        let is_nested = |part: &Expr| match part {
            Expr::ScalarFunction(call) if is_overlapping(part) => {
                call.args.first().is_some_and(|time| window::is_bound_of_rows(time, input))
            }
            Expr::ScalarFunction(call) => {
                calls_window(part) && !is_bound(call) && call.args.iter().any(calls_overlapping)
            }
            _ => false,
        };
        self.groups.iter().any(|group| group.exists(|part| Ok(is_nested(part))).unwrap_or(false))
    }

    /// How many windows of overlapping kinds the groups are by; none if the aggregates speak of one too.
    fn overlapping(&self) -> Result<Option<usize>> {
        let calls = overlapping_calls(&self.groups)?;
        Ok(overlapping_calls(&self.aggregates)?.is_empty().then_some(calls.len()))
    }
}

/// Whether a GROUP BY has to meet each row once for each of its windows, before it can keep what it is by.
pub(super) fn is_to_explode(aggregate: &Aggregate) -> Result<bool> {
    let by = overlapping_calls(&aggregate.group_expr)?;
    let groups: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    Ok(by.len() > 1
        || !by.is_empty() && !overlapping_calls(&aggregate.aggr_expr)?.is_empty()
        || !sessions_stream(&groups)?)
}

/// Whether sessions, if the groups are by any, go by all of the other groups.
fn sessions_stream(groups: &[Expr]) -> Result<bool> {
    let calls = overlapping_calls(groups)?;
    let Some(by) = calls.iter().find(|call| is_session(call)).map(session_keys) else { return Ok(true) };
    let is_key = |group: &&Expr| !calls_overlapping(group);
    let keys: HashSet<Expr> = groups.iter().filter(is_key).map(|key| key.clone().unalias()).collect();
    Ok(by.is_none_or(|by| by.into_iter().collect::<HashSet<_>>() == keys))
}

fn is_free_of_order_of_rows(aggregate: &Expr) -> bool {
    match aggregate.clone().unalias() {
        Expr::AggregateFunction(function) => is_free_of_order(function.func.name()),
        _ => false,
    }
}

/// Whether a GROUP BY can follow the results of windows as they come out: it is by a bound of theirs or by windows over
/// one, or it tells how its groups change.
pub(super) fn follows(below: &Flow, grouping: &Grouping, emit: EmitMode) -> bool {
    // What is no window over a bound is a key like any other.
    let has_window = || pick_window(&grouping.groups, &below.plan).ok().flatten().is_some();
    comes_out_by_time(&below.plan) && (emit.is_changes() || has_window())
}

/// Rewrites `aggregate`, of whose grouping's input `below` flows out.
pub(super) fn stream(
    below: Flow,
    grouping: Grouping,
    aggregate: &Aggregate,
    emit: EmitMode,
    repeats: Repeats,
    ttl_ns: Option<i64>,
) -> Result<Flow> {
    let Grouping { groups: exprs, aggregates, .. } = grouping;
    let input = below.plan.clone();
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
    let key_columns = keys.iter().filter_map(|key| stream_key(key, &input)).collect();

    let time = window.as_ref().and_then(|window| window::time_index(&window.start, &input));
    let results = (!below.stages.is_empty()).then(|| time_behind(window.as_ref(), &input));
    let is_session = window.as_ref().is_some_and(|window| matches!(window.shape, WindowShape::Session { .. }));
    let is_distinct = repeats == Repeats::None && emit.is_changes();
    refuse::refuse_if(is_session && is_distinct, refuse::distinct_sessions)?;
    let is_at_close = matches!(emit, EmitMode::Changes(Changes { when: When::AtClose { .. }, .. }));
    refuse::refuse_if(is_at_close && window.is_none(), refuse::lateness_without_window)?;
    refuse::refuse_if(is_at_close && is_session && !emit.has_ops(), refuse::late_sessions)?;
    let window = window.map(|window| Window { start: window.start, shape: shape_over(window.shape, &below) });
    let input = Arc::new(input);
    let ttl = Ttl::of_keys(ttl_ns.filter(|_| emit.is_changes() && window.is_none()), &keys, &input)?;
    let told_by = match emit {
        EmitMode::Changes(Changes { when: When::Every { .. }, .. }) => {
            Some(event_time_column(&input).ok_or_else(refuse::every_without_time)?)
        }
        _ => ttl.as_ref().map(|ttl| ttl.time.clone()),
    };
    let time = time.or(ttl.as_ref().and_then(|ttl| ttl.of_stream));
    let is_free_of_order = aggregates.iter().all(is_free_of_order_of_rows);
    let node = WindowAggregate::try_new(input, window, told_by, keys, aggregates.clone(), emit)?;
    let node = node.over_results(results).with_repeats(repeats).with_ttl(ttl.map(|ttl| ttl.ns));
    let op = emit.has_ops().then(|| Expr::Column(Column::new_unqualified(OP)));
    let columns = outputs.into_iter().map(GroupOutput::column).chain(aggregates.iter().map(column_of));
    let columns = columns
        .zip(aggregate.schema.iter())
        .map(|(expr, (qualifier, field))| named(expr, qualifier.cloned(), field.name()));
    let columns = op.into_iter().chain(columns).collect();
    let plan = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(extension(node)))?);
    let state = if is_session { KeyedState::Sessions(emit) } else { KeyedState::Aggregate(emit) };
    Ok(Flow {
        plan,
        shape: Shape::Results,
        stages: below.with_stage(state, key_columns, is_free_of_order),
        time: below.time.or(time),
        is_changelog: emit.is_changes(),
    })
}

/// The bound of results that a window's start is computed from.
pub(super) fn time_behind(window: Option<&Recognised>, input: &LogicalPlan) -> ResultTime {
    let time = match window.map(|window| &window.start) {
        Some(Expr::ScalarFunction(call)) => call.args.iter().find_map(|argument| result_time(argument, input)),
        Some(start) => result_time(start, input),
        None => None,
    };
    time.unwrap_or(ResultTime::Unknown)
}

/// The event-time column of rows.
pub(super) fn event_time_column(input: &LogicalPlan) -> Option<Expr> {
    let is_time = |index: &usize| trace_index(*index, input).is_some_and(|column| column.bears_windows());
    let index = (0..input.schema().fields().len()).find(is_time);
    let index = index.or_else(|| time_of_results(input).map(|(index, _)| index));
    Some(Expr::Column(Column::from(input.schema().qualified_field(index?))))
}

/// An expression under a name; a column that bears it already is left alone, as DataFusion's rules expect it.
pub(super) fn named(expr: Expr, qualifier: Option<TableReference>, name: &str) -> Expr {
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

/// The window of a GROUP BY: the one that others cannot be told without, or else the shortest (the others are keys).
pub(super) fn pick_window(groups: &[Expr], input: &LogicalPlan) -> Result<Option<Recognised>> {
    let mut picked: Option<Recognised> = None;
    for expr in groups {
        if let Some(found) = window_behind(expr, input)?
            && picked.as_ref().is_none_or(|window| rank(&found) < rank(window))
        {
            picked = Some(found);
        }
    }
    Ok(picked)
}

fn rank(window: &Recognised) -> (bool, i64) {
    (window.shape.tumbles(), window.shape.typical())
}

/// The window that a group expression is, or the one that its end or time is taken from.
pub(super) fn window_behind(expr: &Expr, input: &LogicalPlan) -> Result<Option<Recognised>> {
    match expr {
        Expr::Alias(alias) => window_behind(&alias.expr, input),
        Expr::ScalarFunction(call) if is_bound(call) => match call.args.first() {
            Some(start) => window::recognise(start, input),
            None => Ok(None),
        },
        _ => window::recognise(expr, input),
    }
}

pub(super) fn is_bound(call: &ScalarFunction) -> bool {
    matches!(call.name(), "window_end" | "window_time")
}

/// A group expression in terms of the window's bounds alone, if that is all it depends on.
pub(super) fn from_window(expr: &Expr, window: Option<&Recognised>, input: &LogicalPlan) -> Result<Option<Expr>> {
    let Some(window) = window else { return Ok(None) };
    let replaced = replace_window(expr, window, input)?;
    let is_bound = |column: &Column| column.relation.is_none() && [WINDOW_START, WINDOW_END].contains(&column.name());
    let only_bounds = replaced.data.column_refs().into_iter().all(is_bound);
    Ok((replaced.transformed && only_bounds).then_some(replaced.data))
}

/// An expression over rows, in which the bounds of their window have become columns.
pub(super) fn with_bounds(expr: &Expr, window: &Recognised, input: &LogicalPlan) -> Result<Expr> {
    Ok(replace_window(expr, window, input)?.data)
}

fn replace_window(expr: &Expr, window: &Recognised, input: &LogicalPlan) -> Result<Transformed<Expr>> {
    let (start, end) = (Column::new_unqualified(WINDOW_START), Column::new_unqualified(WINDOW_END));
    let is_window = |part: &Expr| Ok::<_, DataFusionError>(window::recognise(part, input)?.as_ref() == Some(window));
    let is_tumbling = window.shape.tumbles();
    expr.clone().unalias().transform_down(|part| {
        let bound = match &part {
            // The window is the last tick before this.
            _ if is_after(&window.start, &part) => Some(tick_after(Expr::Column(start.clone()), &part, input)?),
            Expr::ScalarFunction(call) if window.shape.has_own_end() && is_bound(call) => {
                let is_of_window = call.args.first().map_or(Ok(false), &is_window)?;
                let end = Expr::Column(end.clone());
                is_of_window.then(|| if call.name() == "window_end" { end } else { last_tick(end) })
            }
            _ if is_tumbling && part == window.start || is_window(&part)? => Some(Expr::Column(start.clone())),
            _ => None,
        };
        match bound {
            Some(bound) => Ok(Transformed::new(bound, true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(part)),
        }
    })
}

/// Whether `start` is the last tick before `end`.
fn is_after(start: &Expr, end: &Expr) -> bool {
    matches!(start, Expr::ScalarFunction(call) if call.name() == "last_tick" && call.args.first() == Some(end))
}

/// The end of a window of one tick, of the type that `end` has.
fn tick_after(start: Expr, end: &Expr, input: &LogicalPlan) -> Result<Expr> {
    Ok(window_end(start, lit(interval_of(1, &end.get_type(input.schema())?)?)))
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
        LogicalPlan::Extension(extension) => {
            let node = extension.node.as_any();
            let is_group = node.downcast_ref::<WindowAggregate>().is_some_and(|node| {
                // What changes do to earlier ones stands before the keys.
                let first = usize::from(node.emit.has_ops());
                let window = node.window.as_ref().map_or(0, |window| window.columns().len());
                (first..first + window + node.keys.len()).contains(&index)
            });
            is_group || node.downcast_ref::<TopN>().is_some_and(|node| node.key_of(index).is_some())
        }
        _ => false,
    }
}
