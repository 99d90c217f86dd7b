//! How a row gets to the pipeline that owns its key, and why.

use std::fmt;

use datafusion::arrow::datatypes::DataType;

use crate::config::StreamlinesOptions;
use crate::error::Error;
use crate::runtime::divided_for;
use crate::source::{ReadOrder, StreamTable};
use crate::sql::{EmitMode, When};

/// The ways that rows reach pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RoutingKind {
    /// Each pipeline reads its own partition, whose keys nobody else has.
    Aligned,
    /// Each pipeline aggregates what it reads; closed windows are merged.
    MergeOnClose,
    /// Each pipeline reads every partition, and keeps the rows whose keys hash to it.
    HashAtSource,
    /// One reader sends each row to the pipeline to which its keys hash.
    Exchange,
    /// One pipeline reads every partition.
    Single,
}

impl RoutingKind {
    /// Whether one reader may read several partitions.
    pub(crate) fn reads_several(self) -> bool {
        matches!(self, Self::HashAtSource | Self::Exchange | Self::Single)
    }
}

impl fmt::Display for RoutingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aligned => "aligned",
            Self::MergeOnClose => "merge_on_close",
            Self::HashAtSource => "hash_at_source",
            Self::Exchange => "exchange",
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

impl KeyedState {
    /// When changes are told, if they are.
    pub(crate) fn when(self) -> Option<When> {
        match self {
            Self::Aggregate(EmitMode::Changes(changes)) | Self::Sessions(EmitMode::Changes(changes)) => {
                Some(changes.when)
            }
            _ => None,
        }
    }
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

impl Stage {
    /// How a pipeline takes several partitions. Where rows that tie come out in the order of the partitions, it reads them
    /// in that order.
    fn order(&self) -> ReadOrder {
        match self.state {
            KeyedState::Aggregate(emit) | KeyedState::Sessions(emit) if emit.is_changes() => ReadOrder::Canonical,
            KeyedState::Aggregate(_) | KeyedState::Sessions(_) if self.is_free_of_order => ReadOrder::Together,
            _ => ReadOrder::Sequence,
        }
    }

    /// Whether changes are told by how far the event time of all rows has come, or windows of several partitions tell
    /// what comes after their end.
    fn needs_all_rows(&self, stream: &StreamTable) -> bool {
        match self.state.when() {
            Some(When::Every { .. }) => true,
            Some(When::AtClose { .. }) => stream.partitions() > 1,
            _ => false,
        }
    }

    fn is_mergeable(&self) -> bool {
        matches!(self.state, KeyedState::Aggregate(EmitMode::Final))
    }

    /// The routing of a stage where pipelines keep the rows of their own hashes of columns.
    fn below_hash(
        &self,
        stream: &StreamTable,
        hashed: &[usize],
        by_hash: RoutingKind,
        picked: RoutingKind,
    ) -> RoutingKind {
        let schema = stream.schema();
        let is_key = |index: &usize| self.keys.contains(schema.field(*index).name());
        match picked {
            RoutingKind::Single => picked,
            _ if !hashed.is_empty() && hashed.iter().all(is_key) => by_hash,
            _ if self.is_mergeable() && self.is_free_of_order => RoutingKind::MergeOnClose,
            _ => RoutingKind::Single,
        }
    }
}

/// The routing of each stage of a query, the one of a query without any if there is none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Routings {
    stages: Vec<Routing>,
    /// The stream's columns whose hash says which pipeline keeps a row.
    pub(crate) hashed: Vec<usize>,
    /// The order in which a pipeline reads several partitions.
    pub(crate) order: ReadOrder,
}

impl fmt::Display for Routings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "routing=")?;
        for (index, same) in self.stages.chunk_by(|left, right| left == right).enumerate() {
            write!(f, "{}{}", if index > 0 { ", then " } else { "" }, same[0])?;
        }
        Ok(())
    }
}

impl Routings {
    /// Picks the routing of each stage of a query over `stream`.
    ///
    /// Of the settings it is the number of workers, and `routing`: `auto`, or one that each stage must be able to take.
    ///
    /// # Errors
    /// A setting that a stage cannot take.
    pub(crate) fn pick(stream: &StreamTable, stages: &[Stage], options: &StreamlinesOptions) -> Result<Self, Error> {
        let setting = options.routing.as_str();
        let order = match read_order(stages) {
            // Which batch comes when hangs on their size and speed, and these may be others when a job goes on.
            ReadOrder::Together if options.saves() => ReadOrder::Canonical,
            order => order,
        };
        // A later stage may look at the order in which results come.
        let merges = |(index, stage): (usize, &Stage)| stage.is_mergeable() && (index == 0 || stage.is_free_of_order);
        let leaves_idle =
            setting != "aligned" && stream.partitions() < divided_for(options) && stages.iter().enumerate().all(merges);
        let mut picked: Vec<Routing> = vec![];
        for stage in stages {
            let follows = picked.last().map(|routing| routing.kind);
            let auto = match pick_auto(stream, stage, follows) {
                Routing { kind: RoutingKind::Aligned, why } if leaves_idle => Routing {
                    kind: RoutingKind::MergeOnClose,
                    why: format!("{why}; but there are fewer partitions than workers"),
                },
                auto => auto,
            };
            picked.push(forced(stream, stage, auto, setting)?);
        }
        let is_hashed = |routing: &Routing| matches!(routing.kind, RoutingKind::HashAtSource | RoutingKind::Exchange);
        let mut hashed = vec![];
        if let Some(by_hash) = picked.iter().find(|routing| is_hashed(routing)).map(|routing| routing.kind) {
            let of_hash = stages.iter().zip(&picked).filter(|(_, routing)| is_hashed(routing));
            hashed = shared_keys(stream, of_hash.map(|(stage, _)| stage));
            for (stage, routing) in stages.iter().zip(&mut picked) {
                let kind = stage.below_hash(stream, &hashed, by_hash, routing.kind);
                if kind != routing.kind {
                    let why =
                        if kind == RoutingKind::Single { "its stages share no key" } else { "another stage is hashed" };
                    *routing = Routing { kind, why: why.to_string() };
                }
            }
            if let Some(single) = picked.iter().find(|routing| routing.kind == RoutingKind::Single) {
                refuse_other(single, setting)?;
            }
        }
        // What only one pipeline can keep comes out of one.
        if let Some(single) = picked.iter().find(|routing| routing.kind == RoutingKind::Single).cloned() {
            hashed.clear();
            picked.fill(single);
            picked.truncate(1);
        }
        if picked.is_empty() {
            let none = match stream.is_arriving() {
                true => followed(),
                false => Routing { kind: RoutingKind::Aligned, why: "the query keeps no state by key".to_string() },
            };
            refuse_other(&none, setting)?;
            picked.push(none);
        }
        Ok(Self { stages: picked, hashed, order })
    }

    /// The routing of a query whose rows come when event time has come to them: one pipeline takes them in its order.
    ///
    /// # Errors
    /// Rows without an event time; a query that takes partitions one after the other; another routing that is set.
    pub(crate) fn by_event_time(
        stream: &StreamTable,
        stages: &[Stage],
        has_time: bool,
        options: &StreamlinesOptions,
    ) -> Result<Self, Error> {
        let speed = format!("speed {}", options.speed);
        let refused = |reason, help| Err(Error::refused(&speed, reason, help).about(Some(stream.name())));
        if !has_time {
            return refused(
                "the rows have no event time to come by",
                "CREATE STREAM t (WATERMARK FOR ts) …, or 1000rows/s",
            );
        }
        let is_in_sequence = !stages.is_empty() && read_order(stages) == ReadOrder::Sequence;
        if is_in_sequence && stream.partitions() > 1 && !stream.is_arriving() {
            return refused("the query takes one partition after the other", "read one file, or take 1000rows/s");
        }
        let single = Routing { kind: RoutingKind::Single, why: "rows come by event time".to_string() };
        refuse_other(&single, &options.routing)?;
        Ok(Self { stages: vec![single], hashed: vec![], order: ReadOrder::Canonical })
    }

    /// Whether a stage gets its rows this way.
    pub(crate) fn has(&self, kind: RoutingKind) -> bool {
        self.stages.iter().any(|routing| routing.kind == kind)
    }

    /// How the first stage gets its rows.
    pub(crate) fn first(&self) -> RoutingKind {
        self.of_stage(0)
    }

    /// How a stage gets its rows.
    pub(crate) fn of_stage(&self, stage: usize) -> RoutingKind {
        // Where one pipeline keeps all, one routing is that of each stage.
        self.stages.get(stage).or(self.stages.last()).map_or(RoutingKind::Single, |routing| routing.kind)
    }
}

/// How a pipeline takes several partitions: as the first stage wants it, and one after the other where a later stage sees
/// in which order the groups of one window come out.
fn read_order(stages: &[Stage]) -> ReadOrder {
    let Some((first, later)) = stages.split_first() else { return ReadOrder::Sequence };
    let sees_order = |stage: &Stage| !stage.is_free_of_order || stage.state.when().is_some();
    match first.order() {
        ReadOrder::Together if later.iter().any(sees_order) => ReadOrder::Sequence,
        order => order,
    }
}

/// The stream's columns that are keys of all of these stages, as far as equal values have equal hashes.
fn shared_keys<'a>(stream: &StreamTable, stages: impl Iterator<Item = &'a Stage>) -> Vec<usize> {
    let schema = stream.schema();
    let stages: Vec<_> = stages.collect();
    let is_shared = |name: &String| stages.iter().all(|stage| stage.keys.contains(name));
    let fields = schema.fields().iter().enumerate();
    let shared = fields.filter(|(_, field)| is_shared(field.name()) && has_hash(field.data_type()));
    shared.map(|(index, _)| index).collect()
}

/// Whether equal values have equal hashes: zero and minus zero have not.
fn has_hash(data_type: &DataType) -> bool {
    !data_type.is_floating() && !data_type.is_nested()
}

/// The routing of the setting, if a stage can take it.
fn forced(stream: &StreamTable, stage: &Stage, picked: Routing, setting: &str) -> Result<Routing, Error> {
    if stream.is_arriving() {
        refuse_other(&picked, setting)?;
        return Ok(picked);
    }
    if setting == "merge_on_close" && stage.is_mergeable() && picked.kind != RoutingKind::MergeOnClose {
        return Ok(Routing { kind: RoutingKind::MergeOnClose, why: "set by streamlines.routing".to_string() });
    }
    let can_hash = !stage.needs_all_rows(stream) && !shared_keys(stream, std::iter::once(stage)).is_empty();
    let by_hash = match setting {
        "hash_at_source" => Some(RoutingKind::HashAtSource),
        "exchange" => Some(RoutingKind::Exchange),
        _ => None,
    };
    if let Some(kind) = by_hash.filter(|kind| can_hash && *kind != picked.kind) {
        return Ok(Routing { kind, why: "set by streamlines.routing".to_string() });
    }
    refuse_other(&picked, setting)?;
    Ok(picked)
}

fn followed() -> Routing {
    Routing { kind: RoutingKind::Single, why: "what comes while it is read is one sequence of rows".to_string() }
}

fn refuse_other(picked: &Routing, setting: &str) -> Result<(), Error> {
    let is_other = match setting {
        "aligned" => picked.kind != RoutingKind::Aligned,
        "merge_on_close" => picked.kind != RoutingKind::MergeOnClose,
        "hash_at_source" => picked.kind != RoutingKind::HashAtSource,
        "exchange" => picked.kind != RoutingKind::Exchange,
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
    if stream.is_arriving() {
        return followed();
    }
    let routing = |kind, why: String| Routing { kind, why };
    let covered = stream.partitioned_by().filter(|columns| columns.iter().all(|column| stage.keys.contains(column)));
    if let Some(columns) = covered {
        return routing(RoutingKind::Aligned, format!("the stream is partitioned by {}", columns.join(", ")));
    }
    if let Some(column) = stream.columns_apart().iter().find(|column| stage.keys.contains(column)) {
        let why = format!("by their statistics no two partitions have the same {column}");
        return routing(RoutingKind::Aligned, why);
    }
    match (stage.state, follows) {
        // Which pipeline gives a window that has been merged is a matter of chance.
        (KeyedState::Aggregate(EmitMode::Final), Some(RoutingKind::MergeOnClose)) if !stage.is_free_of_order => {
            routing(RoutingKind::Single, "an aggregate looks at the order of windows".into())
        }
        (KeyedState::Aggregate(EmitMode::Final), _) => {
            routing(RoutingKind::MergeOnClose, "a key may be in several partitions".into())
        }
        // Out of one pipeline, what one sequence of rows gives comes in its order.
        _ if stream.partitions() == 1 => routing(RoutingKind::Single, "the stream is one sequence of rows".into()),
        _ if stage.needs_all_rows(stream) => routing(RoutingKind::Single, "event time is that of all rows".into()),
        _ if !shared_keys(stream, std::iter::once(stage)).is_empty() => {
            routing(RoutingKind::HashAtSource, "a key may be in several partitions".into())
        }
        _ => routing(RoutingKind::Single, "no column says which pipeline may have a row".into()),
    }
}
