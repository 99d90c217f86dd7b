//! What cannot run as a stream, and what each refusal says: the clause, the reason, the nearest thing that works.

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};

use crate::config::StreamlinesOptions;
use crate::error::{Error, Location};
use crate::source::StreamTable;
use crate::sql::{EmitMode, When};

use super::routing::{RoutingKind, Routings, Stage};

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

pub(super) fn changes_without_stream(emit: EmitMode, options: &StreamlinesOptions, at: Location) -> Error {
    let reason = match options.strategy.as_str() {
        "batch" => "strategy batch gives final answers only",
        _ => "no stream is read, and a table has no changes to follow",
    };
    let clause = emit.clause();
    let help = format!("leave {clause} out, or read a stream (CREATE STREAM …)");
    Error::refused(clause, reason, help).at(Some(at))
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
        let help = format!("leave ORDER BY out (changes of a key come in order), or use {}", final_instead(emit));
        let reason = "an order over all changes is known only when the stream ends";
        Error::refused(format!("ORDER BY with {}", emit.clause()), reason, help).at(at)
    })
}

pub(super) fn distinct_changes(emit: EmitMode, at: Option<Location>) -> Result<()> {
    refuse_if(emit.is_changes(), || {
        Error::refused(
            format!("DISTINCT ON with {}", emit.clause()),
            "which row of a key is the first by the last ORDER BY is known only when the stream ends",
            format!(
                "use {}, or ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) = 1 with EMIT CHANGES",
                final_instead(emit)
            ),
        )
        .at(at)
    })
}

/// Each row of a session changes its bounds, and so the distinct row.
pub(super) fn distinct_sessions() -> Error {
    Error::refused(
        "DISTINCT sessions with EMIT CHANGES or ALLOWED LATENESS",
        "the bounds of a session change with its rows",
        "use EMIT FINAL, or GROUP BY the session and the columns with EMIT CHANGES WITH OP",
    )
}

pub(super) fn hidden_rank() -> Error {
    Error::refused(
        "EMIT CHANGES of rows whose rank is looked at and not selected as it is",
        "a change of a rank could not say which one",
        "select the rank (ROW_NUMBER() … AS rn), or use EMIT FINAL",
    )
}

pub(super) fn rows_without_op() -> Error {
    Error::refused(
        "EMIT CHANGES of the first rows of a key without their rank",
        "the latest row could not say which one it takes the place of",
        "select the rank (ROW_NUMBER() … AS rn), or use EMIT CHANGES WITH OP or WITH RETRACTIONS",
    )
}

pub(super) fn late_ranks() -> Error {
    Error::refused(
        "ALLOWED LATENESS with ROW_NUMBER() <= n",
        "a late row would move the ranks of rows that have been told",
        "leave it out, or use EMIT CHANGES",
    )
}

pub(super) fn filtered_changes(emit: EmitMode) -> Error {
    let (clause, instead) = (emit.clause(), final_instead(emit));
    let help = format!("{clause} WITH OP or WITH RETRACTIONS, which withdraw it (-D), or {instead}");
    Error::refused(format!("HAVING with {clause}"), "a row that no longer qualifies would have to be withdrawn", help)
}

/// What gives each row once.
fn final_instead(emit: EmitMode) -> &'static str {
    match emit.clause() {
        "ALLOWED LATENESS" => "EMIT FINAL without ALLOWED LATENESS",
        _ => "EMIT FINAL",
    }
}

pub(super) fn joined_changes(emit: EmitMode) -> Error {
    Error::refused(
        format!("a join with {} that looks at more than the keys of the GROUP BY", emit.clause()),
        "a row that no longer matches would have to be withdrawn",
        format!("use {}, or join the stream's rows below the GROUP BY", final_instead(emit)),
    )
}

pub(super) fn over_changes(emit: EmitMode) -> Error {
    Error::refused(
        format!("OVER above {}", emit.clause()),
        "a changed row would have to be taken back from its frame",
        format!("use {} for the inner aggregate", final_instead(emit)),
    )
}

pub(super) fn sliding_at_end(name: &str) -> Error {
    Error::refused(
        format!("{name} over a sliding frame in an order other than the event time's"),
        "DataFusion, which sorts the rows when the stream has ended, cannot take rows back from it",
        "ORDER BY the event time, or let the frame begin with UNBOUNDED PRECEDING",
    )
    .about(Some(name))
}

pub(super) fn lateness_without_window() -> Error {
    Error::refused(
        "ALLOWED LATENESS without a window",
        "nothing closes before the stream ends, so nothing can be late for it",
        "leave it out, or GROUP BY tumble(ts, INTERVAL '1 hour')",
    )
}

pub(super) fn late_sessions() -> Error {
    Error::refused(
        "ALLOWED LATENESS over sessions without WITH OP",
        "a late row changes the bounds of a session, so what was told of it would have to be withdrawn",
        "EMIT FINAL ALLOWED LATENESS INTERVAL '1' HOUR WITH OP or WITH RETRACTIONS, which withdraw it (-D)",
    )
}

/// Changes of what an earlier aggregate gives.
pub(super) fn changes_of_results(aggregate: &Aggregate, emit: EmitMode, at: Option<Location>) -> Result<()> {
    let below = first_stage(&aggregate.input);
    let about = format!("{} over {below}", emit.clause());
    refuse_if(emit.is_changes(), || {
        Error::refused(
            about,
            "what comes out below would have to be taken back when it changes, or is in no order of its own",
            format!("use {}, or emit the changes of the inner query", final_instead(emit)),
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

/// ALLOWED LATENESS where several partitions hold rows of one key: when a window ends for the first time hangs on how far
/// each of them has been read.
pub(super) fn spread_lateness(
    stages: &[Stage],
    routing: &Routings,
    stream: &StreamTable,
    at: Option<Location>,
) -> Result<()> {
    let is_spread = routing.first() == RoutingKind::Single && stream.partitions() > 1;
    // What follows windows has the order in which they close.
    let when = stages.first().and_then(|stage| stage.state.when());
    let lateness = matches!(when, Some(When::AtClose { .. }));
    refuse_if(is_spread && lateness, || {
        Error::refused(
            format!("ALLOWED LATENESS over the partitions of stream {}", stream.name()),
            "a key's rows may be spread over several partitions, and each has its own end of a window",
            "declare 'partitioned_by' with group keys in CREATE STREAM, leave 'partitions' out, or use EMIT CHANGES",
        )
        .at(at)
    })
}

/// A node that we do not know, of a user's or of a later DataFusion.
pub(super) fn node(plan: &LogicalPlan) -> Error {
    let name = plan.display().to_string();
    let name = name.split([':', '(']).next().unwrap_or_default().trim().to_string();
    Error::refused(
        name,
        "it has no streaming form",
        "read the files as a table instead: CREATE EXTERNAL TABLE …, or SET streamlines.strategy = 'batch'",
    )
}

/// A window function that is left where no query groups by it.
pub(super) fn window_as_value(name: &str, usage: &str, at: Option<Location>) -> Error {
    Error::refused(
        format!("{name} as a value"),
        "a row may be in several such windows, or it takes other rows to know its window",
        format!("GROUP BY {usage}, or read FROM TABLE({}(TABLE …))", name.to_uppercase()),
    )
    .at(at)
    .about(Some(name))
}

pub(crate) fn changes_into_view(emit: EmitMode, at: Location) -> Error {
    let clause = emit.clause();
    Error::refused(
        format!("{clause} in CREATE VIEW or CREATE TABLE"),
        "what it makes holds an answer, not the way there",
        format!("put {clause} at the end of the query that reads it, or COPY (… {clause}) TO 'changes.csv'"),
    )
    .at(Some(at))
}

pub(crate) fn changes_into_table(emit: EmitMode, at: Location) -> Error {
    let clause = emit.clause();
    Error::refused(
        format!("{clause} in INSERT"),
        "a table takes rows and no updates, so all that was ever told of a key would stand side by side",
        format!("use {}, or COPY (… {clause}) TO 'changes.csv'", final_instead(emit)),
    )
    .at(Some(at))
}

pub(super) fn refuse_if(condition: bool, error: impl FnOnce() -> Error) -> Result<()> {
    match condition {
        true => Err(error().into()),
        false => Ok(()),
    }
}
