//! Windows that a table function gives rows, brought up to the GROUP BY or Top-N that is by them: so one operator keeps the
//! windows, and a row does not come once for each of its own.
//!
//! ```text
//!   GROUP BY window_start, k               GROUP BY hop(ts, …), k
//!     Filter: v > 1                          Filter: v > 1
//!       Join: k                      ──▶       Join: k
//!         hop(ts, …) AS window_start             stream
//!           stream
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinType, Result};
use datafusion::logical_expr::utils::{conjunction, grouping_set_to_exprlist, split_conjunction};
use datafusion::logical_expr::{Aggregate, Expr, Filter, Join, LogicalPlan, Projection, Subquery};

use super::aggregate::named;
use super::event_time::index_of;
use super::explode::{calls_overlapping, overlapping_calls};
use super::grouping_sets::{has_sets, sets};
use super::overlapping::{calls_session, is_overlapping};

/// Substitutes what is below that calls window functions into `exprs`, the first `groups` of which are the keys.
pub(super) fn pull_up_windows(input: LogicalPlan, exprs: Vec<Expr>, groups: usize) -> Result<(LogicalPlan, Vec<Expr>)> {
    let Some(Lower { plan, meanings }) = without_windows(&input)? else { return Ok((input, exprs)) };
    if exprs.iter().any(looks_out) {
        return Ok((input, exprs));
    }
    let replace = |expr: &Expr| substitute(expr.clone(), &input, &meanings);
    let pulled = exprs.iter().map(replace).collect::<Result<Vec<_>>>()?;
    // Rows that come once for each window, and are not grouped by it.
    let multiplies = meanings.iter().any(calls_overlapping) && !pulled[..groups].iter().any(calls_overlapping);
    if multiplies { Ok((input, exprs)) } else { pull_up_windows(plan, pulled, groups) }
}

/// A plan whose windows are left to whoever is above.
struct Lower {
    plan: LogicalPlan,
    /// What each column of the plan with the windows is in terms of this one.
    meanings: Vec<Expr>,
}

/// `plan` without the topmost of the projections that call window functions, or that pass what one below makes of them;
/// none if there is none that can be left out.
fn without_windows(plan: &LogicalPlan) -> Result<Option<Lower>> {
    match plan {
        // What is random is to be computed once for each row.
        LogicalPlan::Projection(projection)
            if !projection.expr.iter().any(Expr::is_volatile) && makes_windows(plan) =>
        {
            let meanings = projection.expr.iter().map(|expr| expr.clone().unalias()).collect();
            Ok(Some(Lower { plan: projection.input.as_ref().clone(), meanings }))
        }
        LogicalPlan::SubqueryAlias(alias) => without_windows(&alias.input),
        LogicalPlan::Filter(filter) => filter_without_windows(filter),
        LogicalPlan::Join(join) => join_without_windows(join),
        _ => Ok(None),
    }
}

/// Rows that are left out after they have met their windows stay so: one by one, or of a session that they still join.
fn filter_without_windows(filter: &Filter) -> Result<Option<Lower>> {
    // What a sub-query calls by the windows' name would be another column below.
    if looks_out(&filter.predicate) {
        return Ok(None);
    }
    let Some(Lower { plan, meanings }) = without_windows(&filter.input)? else { return Ok(None) };
    let predicate = substitute(filter.predicate.clone(), &filter.input, &meanings)?;
    if calls_overlapping(&predicate) || meanings.iter().any(calls_session) {
        return Ok(None);
    }
    Ok(Some(Lower { plan: LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?), meanings }))
}

/// Windows of the rows that a join adds columns to, or leaves some out of, by anything but their windows.
fn join_without_windows(join: &Join) -> Result<Option<Lower>> {
    let is_left = match join.join_type {
        JoinType::Inner => makes_windows(&join.left),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => true,
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti => false,
        JoinType::Full | JoinType::LeftMark | JoinType::RightMark => return Ok(None),
    };
    let (with_windows, other) = if is_left { (&join.left, &join.right) } else { (&join.right, &join.left) };
    let Some(Lower { plan, mut meanings }) = without_windows(with_windows)? else { return Ok(None) };
    // Below the alias of the windows' rows both sides may have names in common.
    let is_ambiguous = plan.schema().join(other.schema()).is_err();
    if is_ambiguous || join.filter.iter().any(looks_out) || meanings.iter().any(calls_session) {
        return Ok(None);
    }
    let on = join.on.iter().map(|(left, right)| {
        let mean = |expr: &Expr, is_of_windows| match is_of_windows {
            true => substitute(expr.clone(), with_windows, &meanings),
            false => Ok(expr.clone()),
        };
        Ok((mean(left, is_left)?, mean(right, !is_left)?))
    });
    let on = on.collect::<Result<Vec<_>>>()?;
    let filter = join.filter.clone().map(|filter| substitute(filter, with_windows, &meanings)).transpose()?;
    if on.iter().any(|(left, right)| calls_window(left) || calls_window(right)) || filter.iter().any(calls_window) {
        return Ok(None);
    }
    let others = other.schema().columns().into_iter().map(Expr::Column);
    match join.join_type {
        JoinType::Inner | JoinType::Left if is_left => meanings.extend(others),
        JoinType::Inner | JoinType::Right => meanings = others.chain(meanings).collect(),
        _ => {}
    }
    let (left, right) = match is_left {
        true => (Arc::new(plan), Arc::clone(other)),
        false => (Arc::clone(other), Arc::new(plan)),
    };
    let (kind, constraint, nulls) = (join.join_type, join.join_constraint, join.null_equality);
    let lower = Join::try_new(left, right, on, filter, kind, constraint, nulls, join.null_aware)?;
    Ok(Some(Lower { plan: LogicalPlan::Join(lower), meanings }))
}

/// Whether a projection, or one just below it, calls window functions.
fn makes_windows(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().any(calls_window) || makes_windows(&projection.input)
        }
        LogicalPlan::SubqueryAlias(alias) => makes_windows(&alias.input),
        LogicalPlan::Filter(filter) => makes_windows(&filter.input),
        LogicalPlan::Join(join) => makes_windows(&join.left) || makes_windows(&join.right),
        _ => false,
    }
}

/// Whether a window function is called in an expression.
pub(super) fn calls_window(expr: &Expr) -> bool {
    let is_window = |part: &Expr| matches!(part, Expr::ScalarFunction(call) if call.name() == "tumble");
    expr.exists(|part| Ok(is_window(part) || is_overlapping(part))).unwrap_or(false)
}

/// A GROUP BY of several sets of keys that is by hopping windows of a table function, as one by calls of `hop`: so rows do not
/// come once for each of their windows. None if it is no such.
pub(super) fn with_hops_pulled_up(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let groups = aggregate.group_expr.len();
    let exprs = aggregate.group_expr.iter().chain(&aggregate.aggr_expr).cloned().collect();
    let (below, mut pulled) = pull_up_windows(aggregate.input.as_ref().clone(), exprs, groups)?;
    let aggregates = pulled.split_off(groups);
    let calls = overlapping_calls(&pulled)?;
    let are_hops = !calls.is_empty() && calls.iter().all(|call| call.name() == "hop");
    // Where a set leaves a bound out, it is null in some rows, and no call stands for that.
    let flat: Vec<Expr> = grouping_set_to_exprlist(&pulled)?.into_iter().cloned().collect();
    let has_all = |set: &Vec<Expr>| flat.iter().filter(|expr| calls_overlapping(expr)).all(|expr| set.contains(expr));
    let are_hops = are_hops && sets(&pulled).iter().all(has_all);
    if below == *aggregate.input || !are_hops || !overlapping_calls(&aggregates)?.is_empty() {
        return Ok(None);
    }
    let pulled_up = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(below), pulled, aggregates)?);
    // What is the same below would be one column.
    if pulled_up.schema().fields().len() != aggregate.schema.fields().len() {
        return Ok(None);
    }
    let columns = pulled_up.schema().columns().into_iter().map(Expr::Column).zip(aggregate.schema.iter());
    let columns = columns.map(|(expr, (qualifier, field))| named(expr, qualifier.cloned(), field.name())).collect();
    Ok(Some(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(pulled_up))?)))
}

/// A GROUP BY whose rows are chosen by windows that it is by as one whose groups are. None if it is no such.
pub(super) fn with_window_filter_above(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Filter(filter) = aggregate.input.as_ref() else { return Ok(None) };
    if has_sets(aggregate) {
        return Ok(None);
    }
    let Some(Lower { meanings, .. }) = without_windows(&filter.input)? else { return Ok(None) };
    let is_key = |column: &Expr| aggregate.group_expr.contains(column);
    let (mut above, mut below) = (vec![], vec![]);
    for part in split_conjunction(&filter.predicate) {
        let is_by_keys = part.column_refs().into_iter().all(|column| is_key(&Expr::Column(column.clone())));
        let is_plain = !part.is_volatile() && !part.contains_outer() && !has_subquery(part);
        let is_above =
            is_by_keys && is_plain && calls_overlapping(&substitute(part.clone(), &filter.input, &meanings)?);
        if is_above { above.push(part.clone()) } else { below.push(part.clone()) }
    }
    let Some(above) = conjunction(above) else { return Ok(None) };
    let input = match conjunction(below) {
        Some(below) => Arc::new(LogicalPlan::Filter(Filter::try_new(below, Arc::clone(&filter.input))?)),
        None => Arc::clone(&filter.input),
    };
    let groups = Aggregate::try_new(input, aggregate.group_expr.clone(), aggregate.aggr_expr.clone())?;
    Ok(Some(LogicalPlan::Filter(Filter::try_new(above, Arc::new(LogicalPlan::Aggregate(groups)))?)))
}

/// Whether an expression has a sub-query that looks out at its columns, or is in one and looks out itself.
fn looks_out(expr: &Expr) -> bool {
    let is_correlated = |part: &Expr| subquery(part).is_some_and(|subquery| !subquery.outer_ref_columns.is_empty());
    expr.contains_outer() || expr.exists(|part| Ok(is_correlated(part))).unwrap_or(true)
}

fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|part| Ok(subquery(part).is_some())).unwrap_or(true)
}

fn subquery(part: &Expr) -> Option<&Subquery> {
    match part {
        Expr::ScalarSubquery(subquery) => Some(subquery),
        Expr::InSubquery(of) => Some(&of.subquery),
        Expr::Exists(of) => Some(&of.subquery),
        Expr::SetComparison(of) => Some(&of.subquery),
        _ => None,
    }
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
