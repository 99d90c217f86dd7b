//! What cannot run as a stream, and what each refusal says: the clause, the reason, the nearest thing that works.

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan};

use crate::config::StreamlinesOptions;
use crate::error::{Error, Location};
use crate::source::StreamTable;
use crate::sql::EmitMode;

use super::event_time::reads_stream;
use super::routing::{KeyedState, Routing, RoutingKind};

/// Where expressions stand: the planner keeps the places of columns, so that of the first one.
pub(super) fn place_of<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> Option<Location> {
    let mut found = None;
    for expr in exprs {
        // The closure never fails, so neither does the walk.
        let _ = expr.apply(|part| {
            found = found.or(part.spans().and_then(|spans| spans.first()).map(Location::from));
            Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        });
    }
    found
}

pub(super) fn changes_without_stream(options: &StreamlinesOptions, at: Location) -> Error {
    let reason = match options.strategy.as_str() {
        "batch" => "strategy batch gives final answers only",
        _ => "no stream is read, and a table has no changes to follow",
    };
    Error::refused("EMIT CHANGES", reason, "leave EMIT CHANGES out, or read a stream (CREATE STREAM …)").at(Some(at))
}

pub(super) fn every_without_time() -> Error {
    Error::refused(
        "EMIT CHANGES EVERY over rows without an event time",
        "the intervals are of event time",
        "declare WATERMARK FOR ts in CREATE STREAM, or use EMIT CHANGES PER BATCH",
    )
}

pub(super) fn sorted_changes(emit: EmitMode, at: Option<Location>) -> Result<()> {
    refuse_if(emit.is_changes(), || {
        Error::refused(
            "ORDER BY with EMIT CHANGES",
            "an order over all changes is known only when the stream ends",
            "leave ORDER BY out (changes of a key come in order), or use EMIT FINAL",
        )
        .at(at)
    })
}

pub(super) fn distinct_changes(emit: EmitMode, at: Option<Location>) -> Result<()> {
    refuse_if(emit.is_changes(), || {
        Error::refused(
            "DISTINCT with EMIT CHANGES",
            "a row that was there before is no change",
            "use EMIT FINAL, or GROUP BY the columns with count(*) and EMIT CHANGES",
        )
        .at(at)
    })
}

pub(super) fn filtered_changes() -> Error {
    Error::refused(
        "HAVING with EMIT CHANGES",
        "a row that no longer qualifies would have to be withdrawn",
        "EMIT CHANGES WITH OP or WITH RETRACTIONS, which withdraw it (-D), or EMIT FINAL",
    )
}

pub(super) fn joined_changes() -> Error {
    Error::refused(
        "a join with EMIT CHANGES that looks at more than the keys of the GROUP BY",
        "a row that no longer matches would have to be withdrawn",
        "use EMIT FINAL, or join the stream's rows below the GROUP BY",
    )
}

pub(super) fn over_changes() -> Error {
    Error::refused(
        "OVER above EMIT CHANGES",
        "a changed row would have to be taken back from its frame",
        "use EMIT FINAL for the inner aggregate",
    )
}

pub(super) fn lateness_without_window() -> Error {
    Error::refused(
        "ALLOWED LATENESS without a window",
        "nothing closes before the stream ends, so nothing can be late for it",
        "leave it out, or GROUP BY tumble(ts, INTERVAL '1 hour')",
    )
}

/// Changes of sessions, told now and then.
pub(super) fn deferred_sessions() -> Error {
    Error::refused(
        "EMIT CHANGES PER BATCH or EVERY, or ALLOWED LATENESS, over sessions",
        "the bounds of a session are part of its key, and change too",
        "EMIT CHANGES WITH OP, for each row, or EMIT FINAL",
    )
}

/// Changes of what an earlier aggregate gives.
pub(super) fn changes_of_results(aggregate: &Aggregate, emit: EmitMode, at: Option<Location>) -> Result<()> {
    let below = first_stage(&aggregate.input);
    refuse_if(emit.is_changes(), || {
        Error::refused(
            format!("EMIT CHANGES over {below}"),
            "what comes out below would have to be taken back when it changes, or is in no order of its own",
            "use EMIT FINAL, or emit the changes of the inner query",
        )
        .at(at)
    })
}

/// What an aggregate cannot follow row by row.
fn first_stage(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Aggregate(_) => "the results of another aggregate",
        LogicalPlan::Window(_) => "the results of OVER",
        LogicalPlan::Union(_) => "a UNION",
        LogicalPlan::Limit(_) => "a LIMIT",
        LogicalPlan::Distinct(_) => "DISTINCT rows",
        LogicalPlan::Sort(_) => "rows in ORDER BY's order",
        other => other.inputs().first().map_or("the results of another query", |input| first_stage(input)),
    }
}

/// EMIT CHANGES where several partitions hold rows of one key: their order is not defined by one of them.
pub(super) fn spread_changes(
    state: &KeyedState,
    routing: &Routing,
    stream: &StreamTable,
    at: Option<Location>,
) -> Result<()> {
    let spread = routing.kind == RoutingKind::Single && stream.partitions() > 1;
    refuse_if(
        spread
            && matches!(
                state,
                KeyedState::Aggregate(EmitMode::Changes(_)) | KeyedState::Sessions(EmitMode::Changes(_))
            ),
        || {
            Error::refused(
                format!("EMIT CHANGES over the partitions of stream {}", stream.name()),
                "a key's rows may be spread over several partitions, whose order against each other is not known",
                "declare 'partitioned_by' with group keys in CREATE STREAM, leave 'partitions' out, or use EMIT FINAL",
            )
            .at(at)
        },
    )
}

pub(super) fn join_of_streams(join: &Join) -> Error {
    Error::refused(
        format!("a join of two streams ({} JOIN)", join.join_type.to_string().to_uppercase()),
        "both sides would have to be kept for as long as a match may come",
        "join the stream with a table that ends: CREATE EXTERNAL TABLE …",
    )
    .at(place_of_join(join))
}

pub(super) fn join_type(join: &Join) -> Error {
    Error::refused(
        format!("a {} JOIN that keeps unmatched rows of the table", join.join_type.to_string().to_uppercase()),
        "which rows of the table stay without a match is known only when the stream ends",
        "keep the stream's rows: stream LEFT JOIN table, or use an inner JOIN",
    )
    .at(place_of_join(join))
}

fn place_of_join(join: &Join) -> Option<Location> {
    place_of(join.on.iter().flat_map(|(left, right)| [left, right]).chain(&join.filter))
}

pub(super) fn node(plan: &LogicalPlan) -> Error {
    let name = plan.display().to_string();
    let name = name.split([':', '(']).next().unwrap_or_default().trim().to_string();
    Error::refused(
        name,
        "it has no streaming form",
        "read the files as a table instead: CREATE EXTERNAL TABLE …, or SET streamlines.strategy = 'batch'",
    )
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
                at = at.or(place_of([expr]));
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

pub(super) fn refuse_if(condition: bool, error: impl FnOnce() -> Error) -> Result<()> {
    match condition {
        true => Err(error().into()),
        false => Ok(()),
    }
}
