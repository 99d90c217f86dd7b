//! Syntax to meaning: which column is the event time, what is a window, what cannot stream.
//!
//! An analyzer rule puts our logical nodes into DataFusion's plan; DataFusion's optimizer prunes and pushes around
//! them; the planner turns them into the nodes of `exec/` and `runtime/`.

mod aggregate;
mod analyze;
mod changelog;
mod changes;
mod coded_keys;
mod event_time;
mod explode;
pub(crate) mod functions;
mod grouping_sets;
mod interval;
mod late_rows;
mod nodes;
mod operator_spec;
mod over;
mod over_spec;
mod overlapping;
mod planner;
mod pull_up;
mod ranked;
pub(crate) mod refuse;
pub(crate) mod refuse_endless;
mod refuse_joins;
mod result_time;
mod routing;
mod session_rows;
mod source_rows;
mod ties;
mod time_column;
mod top_n;
mod top_n_node;
mod ttl;
mod window;

pub(crate) use analyze::StreamAnalyzer;
pub(crate) use changelog::{Changelog, Keyed, changelog, without_last_limit};
pub(crate) use event_time::{first_stream, reads_stream};
pub(crate) use late_rows::{leaving_out, numbered_scans};
pub(crate) use nodes::Emit;
pub(crate) use planner::StreamQueryPlanner;
pub(crate) use routing::{RoutingKind, Routings};
pub(crate) use ties::{depends_on_order, takes_rows, with_ties_broken, without_missed_windows};
pub(crate) use time_column::fill_in_time_columns;
pub(crate) use window::WINDOW_FUNCTIONS;
