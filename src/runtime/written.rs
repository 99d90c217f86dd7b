//! When the effects of rows have been written, where other tasks than the reader's process and write.
//!
//! Whoever writes asks for the next batch of output when it has written the one before. Rows whose output is among the
//! first n batches are done when batch n+1 is asked for; rows without output when they have been processed.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;

use crate::source::Due;

/// What is between the operators and the writer.
#[derive(Debug, Default)]
pub(super) struct Writing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Batches that have been written.
    written: u64,
    /// Rows, and how many batches have to be written until their effects are.
    waiting: VecDeque<(u64, Due)>,
}

impl Writing {
    /// Rows have been processed, and what they caused is among the first `batches` batches of output.
    pub(super) fn processed(&self, batches: u64, due: Due) {
        let mut state = self.0.lock();
        match state.written >= batches {
            true => due.written(),
            false => state.waiting.push_back((batches, due)),
        }
    }

    fn written(&self, batches: u64) {
        let mut state = self.0.lock();
        state.written = batches;
        while let Some((_, due)) = state.waiting.pop_front_if(|(until, _)| *until <= batches) {
            due.written();
        }
    }
}

/// The same output, whose writer is seen to have written what it took.
pub(super) fn when_written(
    output: impl Stream<Item = Result<RecordBatch>> + Send + Unpin + 'static,
    writing: Arc<Writing>,
) -> BoxStream<'static, Result<RecordBatch>> {
    Box::pin(stream::unfold((output, writing, 0), |(mut output, writing, taken)| async move {
        writing.written(taken);
        let batch = output.next().await?;
        Some((batch, (output, writing, taken + 1)))
    }))
}
