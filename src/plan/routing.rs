//! How a row gets to the pipeline that owns its key, and why.

use std::fmt;

use crate::source::StreamTable;
use crate::sql::EmitMode;

/// The ways that rows reach pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RoutingKind {
    /// Each pipeline reads its own partition, whose keys nobody else has.
    Aligned,
    /// Each pipeline aggregates what it reads; closed windows are merged.
    MergeOnClose,
    /// One pipeline reads every partition, one after the other.
    Single,
}

impl fmt::Display for RoutingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aligned => "aligned",
            Self::MergeOnClose => "merge_on_close",
            Self::Single => "single",
        })
    }
}

/// A choice of routing, with the reason that EXPLAIN shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Routing {
    pub(crate) kind: RoutingKind,
    pub(crate) why: String,
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "routing={} ({})", self.kind, self.why)
    }
}

/// What a query keeps by key.
pub(crate) enum KeyedState {
    /// Nothing: rows pass through.
    None,
    /// A GROUP BY.
    Aggregate(EmitMode),
    /// A GROUP BY of sessions: what is known of a key in several places does not add up to its sessions.
    Sessions(EmitMode),
    /// OVER columns.
    RowsWindow,
}

/// Picks the routing of a query over `stream` whose state is kept by `keys` (the stream's columns among them).
///
/// `setting` is `streamlines.routing`: `auto`, or a routing that the query must be able to take.
pub(crate) fn pick(
    stream: &StreamTable,
    state: &KeyedState,
    keys: &[String],
    setting: &str,
) -> Result<Routing, crate::error::Error> {
    let picked = pick_auto(stream, state, keys);
    let forced = match setting {
        "aligned" => RoutingKind::Aligned,
        "merge_on_close" => RoutingKind::MergeOnClose,
        _ => return Ok(picked),
    };
    if forced == picked.kind {
        return Ok(picked);
    }
    let mergeable = matches!(state, KeyedState::Aggregate(EmitMode::Final));
    match forced {
        RoutingKind::MergeOnClose if mergeable => {
            Ok(Routing { kind: forced, why: "set by streamlines.routing".to_string() })
        }
        _ => Err(crate::error::Error::refused(
            format!("routing {forced}"),
            format!("this query takes {}: {}", picked.kind, picked.why),
            "SET streamlines.routing = 'auto'",
        )),
    }
}

fn pick_auto(stream: &StreamTable, state: &KeyedState, keys: &[String]) -> Routing {
    let routing = |kind, why: String| Routing { kind, why };
    let covered = stream.partitioned_by().filter(|columns| columns.iter().all(|column| keys.contains(column)));
    match (state, covered) {
        (KeyedState::None, _) => routing(RoutingKind::Aligned, "the query keeps no state by key".into()),
        (_, Some(columns)) => {
            routing(RoutingKind::Aligned, format!("the stream is partitioned by {}", columns.join(", ")))
        }
        (KeyedState::Aggregate(EmitMode::Final), None) => {
            routing(RoutingKind::MergeOnClose, "a key may be in several partitions".into())
        }
        (_, None) if stream.partitions() == 1 => {
            routing(RoutingKind::Single, "the stream is one sequence of rows".into())
        }
        (_, None) => routing(RoutingKind::Single, "a key may be in several partitions".into()),
    }
}
