//! The strategy `partitioned`: a task for each worker, each with its own reader, operators, state and writer.
//!
//! ```text
//!   worker: reader ─▶ chain ─▶ writer
//!   worker: reader ─▶ chain ─▶ writer
//! ```
//!
//! A worker takes the next pipeline that nobody has taken, by one atomic addition. There is no channel and no lock on
//! the data's way.

use std::fmt;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result;
use futures::stream::{self, BoxStream};

use super::chain::{Chain, Step};
use super::strategy::Strategy;
use super::work::{Rows, Work};

#[derive(Debug)]
pub(super) struct Partitioned;

impl fmt::Display for Partitioned {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "partitioned")
    }
}

impl Strategy for Partitioned {
    fn workers(&self, wanted: usize) -> usize {
        wanted
    }

    fn rows(&self, work: Work) -> BoxStream<'static, Result<RecordBatch>> {
        let worker = Worker { work, pipeline: None };
        Box::pin(stream::try_unfold(worker, |mut worker| async move {
            Ok(worker.next().await?.map(|batch| (batch, worker)))
        }))
    }
}

/// Runs one pipeline after the other until none is left to take.
struct Worker {
    work: Work,
    pipeline: Option<(Rows, Chain)>,
}

impl Worker {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some((input, chain)) = &mut self.pipeline else {
                let Some(context) = self.work.take() else { return Ok(None) };
                let input = self.work.rows(&context)?;
                self.pipeline = Some((input, Chain::open(&self.work, context)?));
                continue;
            };
            match chain.step().await? {
                Step::Output(batch) => return Ok(Some(batch)),
                Step::WantsInput if self.work.is_stopped() => return Ok(None),
                Step::WantsInput => match input.next().await? {
                    None if self.work.is_stopped() => {}
                    read => chain.push(read),
                },
                Step::Ended => self.pipeline = None,
            }
        }
    }
}
