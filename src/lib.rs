//! Streamlines: streaming SQL over Arrow batches, planned by DataFusion.
#![deny(missing_docs)]

mod config;
mod error;
mod operator;
mod sink;
mod source;
mod sql;

pub use config::StreamlinesOptions;
pub use error::{Error, Location};
pub use operator::{Counters, Operator, Stamp};
pub use sink::{Sink, Writer, Written};
