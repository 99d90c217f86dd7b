//! How a row gets to the pipeline that owns its key, and why.

use std::fmt;

use crate::error::Error;
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
        write!(f, "{} ({})", self.kind, self.why)
    }
}

/// What an operator keeps by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyedState {
    /// A GROUP BY.
    Aggregate(EmitMode),
    /// A GROUP BY of sessions: what is known of a key in several places does not add up to its sessions.
    Sessions(EmitMode),
    /// OVER columns.
    RowsWindow,
}

/// One of the operators of a pipeline.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) state: KeyedState,
    /// The stream's columns among its keys.
    pub(crate) keys: Vec<String>,
    /// Whether it answers the same whatever order its rows come in.
    pub(crate) is_free_of_order: bool,
}

/// The routing of each stage of a query, the one of a query without any if there is none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Routings(Vec<Routing>);

impl fmt::Display for Routings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "routing=")?;
        for (index, same) in self.0.chunk_by(|left, right| left == right).enumerate() {
            write!(f, "{}{}", if index > 0 { ", then " } else { "" }, same[0])?;
        }
        Ok(())
    }
}

impl Routings {
    /// Picks the routing of each stage of a query over `stream`.
    ///
    /// `setting` is `streamlines.routing`: `auto`, or a routing that each stage must be able to take.
    ///
    /// # Errors
    /// A setting that a stage cannot take.
    pub(crate) fn pick(stream: &StreamTable, stages: &[Stage], setting: &str) -> Result<Self, Error> {
        let mut picked: Vec<Routing> = vec![];
        for stage in stages {
            let follows = picked.last().map(|routing| routing.kind);
            picked.push(forced(stage, pick_auto(stream, stage, follows), setting)?);
        }
        // What only one pipeline can keep comes out of one.
        if let Some(single) = picked.iter().find(|routing| routing.kind == RoutingKind::Single).cloned() {
            picked.fill(single);
            picked.truncate(1);
        }
        if picked.is_empty() {
            let why = "the query keeps no state by key".to_string();
            let none = Routing { kind: RoutingKind::Aligned, why };
            refuse_other(&none, setting)?;
            picked.push(none);
        }
        Ok(Self(picked))
    }

    /// How the first stage gets its rows.
    pub(crate) fn first(&self) -> RoutingKind {
        self.of_stage(0)
    }

    /// How a stage gets its rows.
    pub(crate) fn of_stage(&self, stage: usize) -> RoutingKind {
        // Where one pipeline keeps all, one routing is that of each stage.
        self.0.get(stage).or(self.0.last()).map_or(RoutingKind::Single, |routing| routing.kind)
    }
}

/// The routing of the setting, if a stage can take it.
fn forced(stage: &Stage, picked: Routing, setting: &str) -> Result<Routing, Error> {
    let mergeable = matches!(stage.state, KeyedState::Aggregate(EmitMode::Final));
    if setting == "merge_on_close" && mergeable && picked.kind != RoutingKind::MergeOnClose {
        return Ok(Routing { kind: RoutingKind::MergeOnClose, why: "set by streamlines.routing".to_string() });
    }
    refuse_other(&picked, setting)?;
    Ok(picked)
}

fn refuse_other(picked: &Routing, setting: &str) -> Result<(), Error> {
    let is_other = match setting {
        "aligned" => picked.kind != RoutingKind::Aligned,
        "merge_on_close" => picked.kind != RoutingKind::MergeOnClose,
        _ => false,
    };
    match is_other {
        false => Ok(()),
        true => Err(Error::refused(
            format!("routing {setting}"),
            format!("this query takes {}: {}", picked.kind, picked.why),
            "SET streamlines.routing = 'auto'",
        )),
    }
}

/// `follows` is the routing of the stage before, if there is one.
fn pick_auto(stream: &StreamTable, stage: &Stage, follows: Option<RoutingKind>) -> Routing {
    let routing = |kind, why: String| Routing { kind, why };
    let covered = stream.partitioned_by().filter(|columns| columns.iter().all(|column| stage.keys.contains(column)));
    if let Some(columns) = covered {
        return routing(RoutingKind::Aligned, format!("the stream is partitioned by {}", columns.join(", ")));
    }
    match (stage.state, follows) {
        // Which pipeline gives a window that has been merged is a matter of chance.
        (KeyedState::Aggregate(EmitMode::Final), Some(RoutingKind::MergeOnClose)) if !stage.is_free_of_order => {
            routing(RoutingKind::Single, "an aggregate looks at the order of windows".into())
        }
        (KeyedState::Aggregate(EmitMode::Final), _) => {
            routing(RoutingKind::MergeOnClose, "a key may be in several partitions".into())
        }
        _ if stream.partitions() == 1 => routing(RoutingKind::Single, "the stream is one sequence of rows".into()),
        _ => routing(RoutingKind::Single, "a key may be in several partitions".into()),
    }
}
