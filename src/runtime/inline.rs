//! The strategy `inline`: one task reads batch by batch, pipeline after pipeline, and hands each to an engine whose state
//! is behind a lock.
//!
//! ```text
//!   reader ─▶ engine ─▶ writer
//! ```
//!
//! The lock is taken for each batch, and while it is held the engine makes all of the output that the batch has.

use std::collections::VecDeque;
use std::fmt;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result;
use futures::stream::{self, BoxStream};
use tokio::sync::RwLock;

use crate::source::Read;

use super::chain::{Chain, Step};
use super::strategy::Strategy;
use super::work::{Rows, Work};

#[derive(Debug)]
pub(super) struct Inline;

impl fmt::Display for Inline {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "inline")
    }
}

impl Strategy for Inline {
    fn workers(&self, _: usize) -> usize {
        1
    }

    fn rows(&self, work: Work) -> BoxStream<'static, Result<RecordBatch>> {
        let task = Task { work, input: None, engine: RwLock::default(), output: VecDeque::new() };
        Box::pin(stream::try_unfold(task, |mut task| async move { Ok(task.next().await?.map(|batch| (batch, task))) }))
    }
}

struct Task {
    work: Work,
    /// The rows of the pipeline that is at work.
    input: Option<Rows>,
    engine: RwLock<Engine>,
    /// What is to be written.
    output: VecDeque<RecordBatch>,
}

/// The state of the pipeline that is at work.
#[derive(Default)]
struct Engine(Option<Chain>);

impl Task {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.output.pop_front() {
                return Ok(Some(batch));
            }
            let Some(input) = &mut self.input else {
                let Some(context) = self.work.take() else { return Ok(None) };
                self.input = Some(self.work.rows(&context)?);
                *self.engine.write().await = Engine(Some(Chain::open(&self.work, context)?));
                continue;
            };
            if self.work.is_stopped() {
                return Ok(None);
            }
            let read = input.next().await?;
            if read.is_none() && self.work.is_stopped() {
                return Ok(None);
            }
            if self.engine.write().await.process(read, &mut self.output).await? {
                self.input = None;
            }
        }
    }
}

impl Engine {
    /// Takes rows, or the end of them, and adds what they make to `output`. Whether the pipeline has ended.
    async fn process(&mut self, read: Option<Read>, output: &mut VecDeque<RecordBatch>) -> Result<bool> {
        let Self(Some(chain)) = self else { return Ok(true) };
        chain.push(read);
        loop {
            match chain.step().await? {
                Step::Output(batch) => output.push_back(batch),
                Step::WantsInput => return Ok(false),
                Step::Ended => return Ok(true),
            }
        }
    }
}
