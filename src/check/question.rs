//! What is asked of each session: the query of a statement, and its variants.

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::{Query, Statement as Sql};

use crate::plan::{depends_on_order, takes_rows};
use crate::sql::{EmitMode, Ops, StreamStatement};

use super::extremes::has_extreme_of_floats;

/// The query whose rows a statement gives or writes.
pub(super) fn question(statement: &StreamStatement) -> Option<StreamStatement> {
    let StreamStatement::Query { statement, emit, quoted } = statement else { return None };
    let query: Query = match statement.as_ref() {
        Statement::Statement(sql) => match sql.as_ref() {
            Sql::Query(query) => query.as_ref().clone(),
            Sql::Insert(insert) => insert.source.as_ref()?.as_ref().clone(),
            _ => return None,
        },
        Statement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => query.as_ref().clone(),
            CopyToSource::Relation(_) => return None,
        },
        _ => return None,
    };
    let statement = Box::new(Statement::Statement(Box::new(Sql::Query(Box::new(query)))));
    Some(StreamStatement::Query { statement, emit: *emit, quoted: quoted.clone() })
}

/// The same query with one last answer.
pub(super) fn with_final(mut statement: StreamStatement) -> StreamStatement {
    if let StreamStatement::Query { emit, .. } = &mut statement {
        *emit = None;
    }
    statement
}

/// The same query with changes that say which rows they replace, if it has changes that do not.
pub(super) fn with_retractions(mut statement: StreamStatement) -> Option<StreamStatement> {
    let StreamStatement::Query { emit: Some(emit), .. } = &mut statement else { return None };
    let EmitMode::Changes(changes) = &mut emit.mode else { return None };
    (std::mem::replace(&mut changes.ops, Ops::Retractions) != Ops::Retractions).then_some(statement)
}

/// The same statement, and if it creates a stream that is followed, over the files that there are now.
pub(super) fn with_files_of_now(mut statement: StreamStatement) -> StreamStatement {
    if let StreamStatement::CreateStream(definition) = &mut statement {
        definition.options.retain(|(name, _)| name != "follow");
    }
    statement
}

/// Rows come to an aggregate in any order.
pub(super) const ORDER_IN_AGGREGATES: &str =
    "SQL leaves the order of rows in an aggregate open where its ORDER BY does not tell it";

/// DataFusion lets the last of two stand that do not compare.
pub(super) const EXTREMES_OF_FLOATS: &str =
    "where a float is NaN, the least and the greatest of plain DataFusion hang on the order of rows";

/// What SQL leaves open about the rows of a query, so that two answers may differ and both be right.
pub(super) fn left_open(plan: &LogicalPlan) -> Result<Option<&'static str>> {
    let mut open = None;
    plan.apply_with_subqueries(|node| {
        let found = match node {
            LogicalPlan::Window(window)
                if window.window_expr.iter().any(|expr| takes_rows(expr) || picks_row(expr)) =>
            {
                Some("SQL leaves the order of rows that tie in ORDER BY of OVER open")
            }
            LogicalPlan::Window(window) if window.window_expr.iter().any(takes_rows_back) => {
                Some("plain DataFusion takes rows that leave a frame back from variances and the like, which rounds")
            }
            LogicalPlan::Aggregate(aggregate) if aggregate.aggr_expr.iter().any(is_sketch) => {
                Some("approx_percentile_cont and approx_median hang on how rows are divided, in plain DataFusion too")
            }
            LogicalPlan::Limit(_) => Some("SQL leaves open which rows LIMIT takes where rows tie"),
            LogicalPlan::Aggregate(aggregate) if aggregate.aggr_expr.iter().any(depends_on_order) => {
                Some(ORDER_IN_AGGREGATES)
            }
            LogicalPlan::Aggregate(aggregate)
                if aggregate.aggr_expr.iter().any(|expr| has_extreme_of_floats(expr, aggregate.input.schema())) =>
            {
                Some(EXTREMES_OF_FLOATS)
            }
            node if node.expressions().iter().any(Expr::is_volatile) => Some("a function is random"),
            _ => None,
        };
        open = open.or(found);
        Ok(if open.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(open)
}

/// Whether an OVER column is the value of one row of its frame, which may begin or end with rows that tie.
fn picks_row(expr: &Expr) -> bool {
    let names = ["first_value", "last_value", "nth_value"];
    expr.exists(|part| Ok(matches!(part, Expr::WindowFunction(call) if names.contains(&call.fun.name()))))
        .unwrap_or(false)
}

/// Whether an OVER column is one of moments over a frame that rows leave.
fn takes_rows_back(expr: &Expr) -> bool {
    let is_of_moments = |name: &str| ["stddev", "var", "covar", "corr", "regr"].iter().any(|of| name.starts_with(of));
    let slides = |call: &WindowFunction| !call.params.window_frame.start_bound.is_unbounded();
    expr.exists(|part| Ok(matches!(part, Expr::WindowFunction(call) if is_of_moments(call.fun.name()) && slides(call))))
        .unwrap_or(false)
}

/// Whether an aggregate sketches a distribution: what it says of the same rows depends on how they were brought together.
fn is_sketch(expr: &Expr) -> bool {
    let names = ["approx_percentile_cont", "approx_percentile_cont_with_weight", "approx_median"];
    expr.exists(|part| Ok(matches!(part, Expr::AggregateFunction(call) if names.contains(&call.func.name()))))
        .unwrap_or(false)
}
