//! Streamlines: streaming SQL over Arrow batches, planned by DataFusion.
#![deny(missing_docs)]

mod config;
mod error;
mod exec;
mod operator;
mod plan;
mod runtime;
mod session;
mod sink;
mod source;
mod sql;

pub use config::StreamlinesOptions;
pub use error::{Error, Location, render_error};
pub use operator::{Counters, Operator, Stamp};
pub use runtime::{Job, PipelineProgress, Progress, Summary};
pub use session::{
    StreamlinesContext, StreamlinesStateBuilder, parse_statements, streaming_session, streaming_session_with_runtime,
};
pub use sink::{FileSink, NullSink, OutputFormat, Sink, StdoutSink, Writer, Written, is_broken_pipe};
pub use sql::StreamStatement;
