//! Tasks: how pipelines are run, stopped and watched.
//!
//! ```text
//!   Job ─ spawns ─▶ one task for each worker ─ takes ─▶ Pipeline after Pipeline: read → process → write
//! ```
//!
//! A worker takes the next piece of data that nobody has taken, by one atomic addition. Between pipelines there is
//! no channel and no lock on the data's way.

mod boundary;
mod job;
mod joined;
mod ledger;
mod pipeline;
mod run;
mod stop;
mod write;

pub(crate) use boundary::{PipelinesExec, find};
pub use job::{Job, PipelineProgress, Progress, Summary};
pub(crate) use ledger::IN_MEMORY;
pub(crate) use write::WriteExec;
