//! Rows that meet each of their windows: what is left of `hop`, `cumulate` and `session` where no operator of ours
//! keeps the windows (a window table function without GROUP BY, a batch plan).
//!
//! ```text
//!   Projection: …, hop(ts, …) AS window_start         Projection: …, __start AS window_start
//!     input                                     ──▶     Unnest: windows_of(ts)
//!                                                         input
//! ```

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, NullHandling, Result, UnnestOptions, internal_datafusion_err};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_window::expr_fn::lag;
use datafusion::logical_expr::expr::{ScalarFunction, WindowFunction};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection,
    WindowFrame, cast, lit, when,
};

use crate::operator::WindowShape;

use super::aggregate::named;
use super::analyze::extension;
use super::functions::{last_tick, not_constant, window_end};
use super::grouping_sets::{expand, has_sets, sets};
use super::interval::window_ticks;
use super::nodes::{WINDOW_END, WINDOW_START};
use super::overlapping::{as_value, is_overlapping, session_keys, shape, windows_of};
use super::session_rows::{SessionRows, Sessions, as_sql};

/// Rewrites every projection and aggregate of a plan that still calls one of the functions.
///
/// # Errors
/// A call elsewhere, and windows that there are not.
pub(super) fn explode(plan: LogicalPlan) -> Result<LogicalPlan> {
    let exploded = as_sql(explode_nodes(plan)?)?;
    exploded.apply_with_subqueries(|node| match overlapping_calls(&node.expressions())?.first() {
        Some(call) => Err(as_value(call).into()),
        None => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(exploded)
}

fn explode_nodes(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Projection(projection) if projection.expr.iter().any(calls_overlapping) => {
            explode_projection(projection).map(Transformed::yes)
        }
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.iter().any(calls_overlapping) => {
            let exploded = match has_sets(&aggregate) {
                true => explode_nodes(expand_or_explode(aggregate)?)?,
                false => explode_aggregate(aggregate)?,
            };
            Ok(Transformed::yes(exploded))
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}

/// Whether one of the functions is called in an expression.
pub(super) fn calls_overlapping(expr: &Expr) -> bool {
    expr.exists(|part| Ok(is_overlapping(part))).unwrap_or(false)
}

/// The calls of these functions in expressions, each once.
pub(super) fn overlapping_calls(exprs: &[Expr]) -> Result<Vec<ScalarFunction>> {
    let mut calls: Vec<ScalarFunction> = vec![];
    for expr in exprs {
        expr.apply(|part| {
            if let Expr::ScalarFunction(call) = part
                && is_overlapping(part)
                && !calls.contains(call)
            {
                calls.push(call.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(calls)
}

/// A projection whose rows meet each of their windows below it.
pub(super) fn explode_projection(projection: Projection) -> Result<LogicalPlan> {
    let (input, windows) = with_windows(projection.input.as_ref().clone(), &projection.expr, &[])?;
    let columns = projection
        .expr
        .into_iter()
        .zip(projection.schema.iter())
        .map(|(expr, (qualifier, field))| Ok(named(bounds_of(expr, &windows)?, qualifier.cloned(), field.name())));
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect::<Result<_>>()?, Arc::new(input))?))
}

pub(super) fn explode_aggregate(aggregate: Aggregate) -> Result<LogicalPlan> {
    // As in the aggregate's schema, each expression is there once.
    let group_exprs: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    let keys: Vec<Expr> =
        group_exprs.iter().filter(|expr| !calls_overlapping(expr)).map(|key| key.clone().unalias()).collect();
    let exprs: Vec<Expr> = group_exprs.iter().chain(&aggregate.aggr_expr).cloned().collect();
    let (input, windows) = with_windows(aggregate.input.as_ref().clone(), &exprs, &keys)?;
    let of_window = |expr: &Expr| Ok(bounds_of(expr.clone(), &windows)?.unalias());
    let groups = group_exprs.iter().map(of_window).collect::<Result<Vec<_>>>()?;
    let aggregates = aggregate.aggr_expr.iter().map(|expr| bounds_of(expr.clone(), &windows));
    let aggregates = aggregates.collect::<Result<Vec<_>>>()?;
    let bounds: Vec<Expr> = windows.into_iter().flat_map(|window| [window.start, window.end]).collect();
    // What only depends on a window is computed from its bounds, both of which tell windows apart.
    let is_of_window = |expr: &&Expr| {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.into_iter().all(|column| bounds.contains(&Expr::Column(column.clone())))
    };
    let columns: Vec<Expr> = groups
        .iter()
        .map(|group| if is_of_window(&group) { group.clone() } else { column_of(group) })
        .chain(aggregates.iter().map(column_of))
        .collect();
    let groups = groups.iter().filter(|group| !is_of_window(group)).chain(&bounds).cloned().collect();
    let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), groups, aggregates)?);
    let columns = columns
        .into_iter()
        .zip(aggregate.schema.iter())
        .map(|(expr, (qualifier, field))| named(expr, qualifier.cloned(), field.name()));
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(plan))?))
}

/// A GROUP BY of several sets of keys as one of one set. Where some sets leave a window out, rows meet all of their windows
/// before they are grouped, as those of a window table function do.
pub(super) fn expand_or_explode(aggregate: Aggregate) -> Result<LogicalPlan> {
    let calls = overlapping_calls(&aggregate.group_expr)?;
    let has_all =
        |set: &Vec<Expr>| overlapping_calls(set).is_ok_and(|of_set| calls.iter().all(|call| of_set.contains(call)));
    if sets(&aggregate.group_expr).iter().all(has_all) {
        return expand(aggregate);
    }
    let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
    let groups: Vec<Expr> = grouping_set_to_exprlist(&group_expr)?.into_iter().cloned().collect();
    let keys: Vec<Expr> = groups.iter().filter(|key| !calls_overlapping(key)).cloned().collect();
    let exprs: Vec<Expr> = groups.iter().chain(&aggr_expr).cloned().collect();
    let (input, windows) = with_windows(Arc::unwrap_or_clone(input), &exprs, &keys)?;
    let over = |exprs: Vec<Expr>| exprs.into_iter().map(|expr| bounds_of(expr, &windows)).collect::<Result<Vec<_>>>();
    let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), over(group_expr)?, over(aggr_expr)?)?);
    let columns = plan.schema().columns().into_iter().map(Expr::Column).zip(schema.iter());
    let columns = columns.map(|(expr, (qualifier, field))| named(expr, qualifier.cloned(), field.name())).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
}

/// The output column that an expression of an aggregate has become.
fn column_of(expr: &Expr) -> Expr {
    match expr {
        Expr::Column(_) => expr.clone(),
        _ => Expr::Column(Column::new_unqualified(expr.schema_name().to_string())),
    }
}

/// A call, and the columns that its window's bounds have become.
struct ExplodedWindow {
    call: Expr,
    start: Expr,
    end: Expr,
}

/// `expr` with the columns in place of the calls, and of `window_end` and `window_time` of them.
fn bounds_of(expr: Expr, windows: &[ExplodedWindow]) -> Result<Expr> {
    let find = |call: &Expr| windows.iter().find(|window| window.call == *call);
    expr.transform_down(|part| {
        let replaced = match &part {
            Expr::ScalarFunction(outer) => match (outer.name(), outer.args.first().and_then(find)) {
                ("window_end", Some(window)) => Some(window.end.clone()),
                ("window_time", Some(window)) => Some(last_tick(window.end.clone())),
                _ => find(&part).map(|window| window.start.clone()),
            },
            _ => None,
        };
        match replaced {
            Some(replaced) => Ok(Transformed::new(replaced, true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(part)),
        }
    })
    .data()
}

/// The rows of `input`, each once for each of the windows that `exprs` speak of.
fn with_windows(input: LogicalPlan, exprs: &[Expr], keys: &[Expr]) -> Result<(LogicalPlan, Vec<ExplodedWindow>)> {
    let (mut plan, mut windows) = (input, vec![]);
    for call in overlapping_calls(exprs)? {
        // Names that no earlier window of the plan has.
        let number = plan.schema().fields().len();
        let [start, end] = [WINDOW_START, WINDOW_END].map(|bound| format!("{bound}_{number}"));
        plan = with_window(plan, &call, keys, [&start, &end])?;
        let column = |name| Expr::Column(Column::new_unqualified(name));
        windows.push(ExplodedWindow { call: Expr::ScalarFunction(call), start: column(start), end: column(end) });
    }
    Ok((plan, windows))
}

/// The column of windows' ends, if a projection makes it of rows that meet all of theirs.
pub(super) fn end_of_windows(projection: &[Expr]) -> Option<Column> {
    let is_end = |name: &str| name.strip_prefix(WINDOW_END).is_some_and(|number| number.starts_with('_'));
    projection.iter().find_map(|expr| match expr {
        Expr::Alias(alias) if is_end(&alias.name) => Some(Column::new_unqualified(&alias.name)),
        _ => None,
    })
}

fn with_window(
    input: LogicalPlan,
    call: &ScalarFunction,
    group_keys: &[Expr],
    [start, end]: [&str; 2],
) -> Result<LogicalPlan> {
    let none = || internal_datafusion_err!("{} is no window", call.name());
    let time = call.args.first().ok_or_else(none)?.clone();
    match shape(call, &time.get_type(input.schema())?)?.ok_or_else(none)? {
        shape @ WindowShape::Session { .. } => {
            let keys = session_keys(call).unwrap_or_else(|| group_keys.to_vec());
            let gap = call.args.get(1).ok_or_else(none)?.clone();
            let sessions = Sessions { time, gap, shape, keys };
            Ok(extension(SessionRows::try_new(input, sessions, start, end)?))
        }
        shape => {
            let columns = input.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
            let windows = format!("__windows_{}", columns.len());
            let listed = columns.iter().cloned().chain([windows_of(shape, time).alias(&windows)]);
            let plan = LogicalPlanBuilder::from(input).project(listed)?;
            let options = UnnestOptions { null_handling: NullHandling::Drop, recursions: vec![] };
            let plan = plan.unnest_column_with_options(Column::new_unqualified(&windows), options)?;
            let window = Expr::Column(Column::new_unqualified(&windows));
            let bounds = [("start", start), ("end", end)];
            let bounds = bounds.map(|(bound, name)| get_field(window.clone(), bound).alias(name));
            plan.project(columns.into_iter().chain(bounds))?.build()
        }
    }
}

/// Rows with the bounds of their sessions, as SQL finds them: a row that is too far from the one before it begins one.
pub(super) fn with_session(
    input: LogicalPlan,
    time: Expr,
    gap: Expr,
    keys: Vec<Expr>,
    start: &str,
    end: &str,
) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let [previous, begins, session, last] =
        ["previous", "begins", "session", "last"].map(|name| format!("__{name}_{}", columns.len()));
    let column = |name: &str| Expr::Column(Column::new_unqualified(name));
    let by_time = || vec![time.clone().sort(true, false)];
    let ticks = |expr: Expr| cast(expr, DataType::Int64);

    let before = lag(time.clone(), Some(1), None).partition_by(keys.clone()).order_by(by_time()).build()?;
    let plan = with_column(LogicalPlanBuilder::from(input), before, &previous)?;
    let gap_ticks = match &gap {
        Expr::Literal(gap, _) => window_ticks(gap, &time.get_type(plan.schema())?)?,
        _ => return Err(not_constant().into()),
    };
    let is_near = (ticks(time.clone()) - ticks(column(&previous))).lt(lit(gap_ticks));
    let flag = when(is_near, lit(0i64)).otherwise(lit(1i64))?.alias(&begins);
    let all = plan.schema().columns().into_iter().map(Expr::Column).chain([flag]).collect::<Vec<_>>();
    let plan = plan.project(all)?;

    // Rows of one time are in one session, whichever of them comes first: RANGE counts them all at once.
    let number = over(sum_udaf(), column(&begins))
        .partition_by(keys.clone())
        .order_by(by_time())
        .window_frame(WindowFrame::new(Some(false)))
        .build()?;
    let plan = with_column(plan, number, &session)?;

    let of_session: Vec<Expr> = keys.into_iter().chain([column(&session)]).collect();
    let first = over(min_udaf(), time.clone()).partition_by(of_session.clone()).build()?;
    let plan = with_column(plan, first, start)?;
    let latest = over(max_udaf(), time).partition_by(of_session).build()?;
    let plan = with_column(plan, latest, &last)?;
    let bounds = [column(start), window_end(column(&last), gap).alias(end)];
    plan.project(columns.into_iter().chain(bounds))?.build()
}

/// An aggregate over the rows of a partition.
fn over(aggregate: Arc<AggregateUDF>, argument: Expr) -> Expr {
    Expr::from(WindowFunction::new(aggregate, vec![argument]))
}

/// One more column.
fn with_column(plan: LogicalPlanBuilder, function: Expr, name: &str) -> Result<LogicalPlanBuilder> {
    let columns = plan.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
    let value = Expr::Column(Column::new_unqualified(function.schema_name().to_string())).alias(name);
    plan.window([function])?.project(columns.into_iter().chain([value]))
}
