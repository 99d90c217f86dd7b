//! Tasks: how pipelines are run, stopped and watched.
//!
//! ```text
//!   Job ─ spawns ─▶ a task for each worker ─ takes ─▶ pipeline after pipeline: read → process → write
//! ```
//!
//! What workers there are and how rows get from the reader to the operators is the matter of a [`strategy`]: `partitioned`,
//! `inline` and `single_queue` run the same [`work`].

mod boundary;
mod chain;
mod durable;
mod exchange;
mod inline;
mod job;
mod joined;
mod ledger;
mod partitioned;
mod run;
mod scan_only;
mod single_queue;
mod stop;
mod strategy;
mod work;
mod write;
mod written;

pub(crate) use boundary::PipelinesExec;
pub use job::{Job, PipelineProgress, Progress, Summary};
pub(crate) use ledger::IN_MEMORY;
pub(crate) use strategy::{divided_for, strategy, workers};
pub(crate) use write::WriteExec;
