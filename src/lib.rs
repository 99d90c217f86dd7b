//! Streaming SQL over Arrow batches, planned by DataFusion.
//!
//! Streamlines never cross: a query over a stream becomes one plan for each partition of the data, and each runs as a
//! single-threaded pipeline that reads, processes and writes, and never waits for another.
//!
//! ```text
//!   SQL text ─ sql/ ─▶ statement + stream clauses ─ plan/ ─▶ DataFusion logical plan with our nodes
//!     ─ exec/ ─▶ plan of a partition ─ runtime/ ─▶ N pipelines: source/ → operator/ → sink/
//! ```
//!
//! - [`streaming_session`] makes a DataFusion session that streams; [`StreamlinesStateBuilder`] adds streaming to one
//!   that is being built.
//! - [`StreamlinesContext::stream_sql`] plans every statement; a DataFrame collects or streams the answer.
//! - [`Job`] runs a query into a [`Sink`], shows how far it is, and stops it.
//! - [`Check`] runs queries under many settings and says what differs.
#![deny(missing_docs)]

mod check;
mod checkpoint;
mod config;
mod confinement;
mod error;
mod exec;
mod operator;
mod panics;
mod plan;
mod planning_errors;
mod runtime;
mod session;
mod sink;
mod source;
mod sql;
mod store;

pub use check::{
    Answer, Check, Checksum, Comparison, Difference, Ledger, Outcome, Setup, compare, compare_by_key, fold, text_rows,
};
pub use checkpoint::{SavedContent, SavedJob, SavedPipeline, checkpoints, delete_checkpoints};
pub use config::StreamlinesOptions;
pub use confinement::Confinement;
pub use error::{Error, Location, render_error};
pub use operator::{Counters, MissedRows, Operator, Stamp};
pub use runtime::{Job, PipelineProgress, Progress, Summary};
pub use session::{
    LatenessQuestion, StreamlinesContext, StreamlinesStateBuilder, lateness, parse_statements, streaming_session,
    streaming_session_with_runtime,
};
pub use sink::{Epochs, FileSink, InEpoch, NullSink, OutputFormat, Sink, StdoutSink, Writer, Written, is_broken_pipe};
pub use source::{Culprit, Latency, Lateness, LiveStream, SequenceLateness};
pub use sql::StreamStatement;

/// The README's examples, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
