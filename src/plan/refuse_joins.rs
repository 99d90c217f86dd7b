//! Joins and sub-queries that cannot run as a stream.

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable, Filter, Join, JoinType, LogicalPlan, RecursiveQuery};

use crate::error::{Error, Location};

use super::event_time::{first_stream, reads_stream};
use super::refuse::{place_of, refuse_if};

pub(super) fn join_of_streams(join: &Join) -> Error {
    let kind = match join.join_type {
        JoinType::LeftSemi | JoinType::RightSemi => "SEMI JOIN, as in INTERSECT".to_string(),
        JoinType::LeftAnti | JoinType::RightAnti => "ANTI JOIN, as in EXCEPT".to_string(),
        JoinType::Inner if join.on.is_empty() && join.filter.is_none() => "CROSS JOIN".to_string(),
        kind => format!("{} JOIN", kind.to_string().to_uppercase()),
    };
    let stream = first_stream(&join.right);
    Error::refused(
        format!("a join of two streams ({kind})"),
        "both sides would have to be kept for as long as a match may come",
        "join the stream with a table that ends: CREATE EXTERNAL TABLE …",
    )
    .at(place_of_join(join))
    .about(stream.as_ref().map(|stream| stream.name()))
}

pub(super) fn join_type(join: &Join, table: &LogicalPlan) -> Error {
    let (kind, help) = match join.join_type {
        JoinType::LeftSemi | JoinType::RightSemi | JoinType::LeftAnti | JoinType::RightAnti => {
            let words = join.join_type.to_string().replace("Left", "LEFT ").replace("Right", "RIGHT ").to_uppercase();
            (words, "select the stream's rows by the table's: WHERE k IN (SELECT k FROM table)")
        }
        kind => {
            (kind.to_string().to_uppercase(), "keep the stream's rows: stream LEFT JOIN table, or use an inner JOIN")
        }
    };
    let reason = "which rows of the table stay without a match is known only when the stream ends";
    Error::refused(format!("a {kind} JOIN that keeps unmatched rows of the table"), reason, help)
        .at(place_of_join(join))
        .about(first_table(table).as_deref())
}

/// The first table that a plan reads.
fn first_table(plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(scan.table_name.table().to_string()),
        _ => plan.inputs().into_iter().find_map(first_table),
    }
}

pub(super) fn recursion(query: &RecursiveQuery) -> Error {
    Error::refused(
        format!("the recursive query {}", query.name),
        "each of its rounds reads all rows of the one before",
        "read the files as a table: CREATE EXTERNAL TABLE …, or SET streamlines.strategy = 'batch'",
    )
    .about(Some(&query.name))
}

pub(super) fn not_in() -> Error {
    Error::refused(
        "NOT IN (SELECT …) over a stream",
        "whether a null is among the table's values decides about every row",
        "NOT EXISTS (SELECT … WHERE …), or leave nulls out on both sides and use LEFT ANTI JOIN",
    )
}

/// A condition of a filter over a stream that is `NOT IN (SELECT …)` where nulls may be.
pub(super) fn not_in_with_nulls(filter: &Filter) -> Result<()> {
    let schema = filter.input.schema();
    for condition in split_conjunction(&filter.predicate) {
        let inner = match condition {
            Expr::InSubquery(inner) if inner.negated => inner,
            Expr::Not(negated) => match negated.as_ref() {
                Expr::InSubquery(inner) if !inner.negated => inner,
                _ => continue,
            },
            _ => continue,
        };
        let has_nulls = inner.expr.nullable(schema)?
            || inner.subquery.subquery.schema().fields().iter().any(|field| field.is_nullable());
        refuse_if(has_nulls, || not_in().at(place_of([inner.expr.as_ref()])))?;
    }
    Ok(())
}

fn place_of_join(join: &Join) -> Option<Location> {
    place_of(join.on.iter().flat_map(|(left, right)| [left, right]).chain(&join.filter))
}

/// The first place that a plan keeps.
fn place_in(plan: &LogicalPlan) -> Option<Location> {
    place_of(&plan.expressions()).or_else(|| plan.inputs().into_iter().find_map(place_in))
}

/// Sub-queries in expressions are read as tables, before the stream's rows pass.
pub(super) fn streams_in_subqueries(plan: &LogicalPlan) -> Result<()> {
    let mut found = false;
    let mut at = None;
    plan.apply_expressions(|expr| {
        expr.apply(|part| {
            let subquery = match part {
                Expr::ScalarSubquery(subquery) => Some(subquery),
                Expr::InSubquery(inner) => Some(&inner.subquery),
                Expr::Exists(inner) => Some(&inner.subquery),
                _ => None,
            };
            if subquery.is_some_and(|subquery| reads_stream(&subquery.subquery)) {
                found = true;
                at = at.or(place_of([expr])).or(subquery.and_then(|subquery| place_in(&subquery.subquery)));
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    refuse_if(found, || {
        Error::refused(
            "a stream in a sub-query of an expression",
            "its answer is known only when that stream ends",
            "read the inner files as a table: CREATE EXTERNAL TABLE …",
        )
        .at(at)
    })
}
