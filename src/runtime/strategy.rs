//! The ways to run the pipelines of a plan: the same plans, operators, readers and writers, put to work differently.

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result;
use futures::stream::BoxStream;

use crate::checkpoint::CheckpointStore;
use crate::config::StreamlinesOptions;

use super::inline::Inline;
use super::partitioned::Partitioned;
use super::single_queue::SingleQueue;
use super::work::Work;

/// How pipelines run.
pub(crate) trait Strategy: fmt::Debug + fmt::Display + Send + Sync {
    /// How many workers there are, each with a writer, where so many are wanted.
    fn workers(&self, wanted: usize) -> usize;

    /// How many rows go at once from the task that reads to the one that processes; none if one task does both.
    fn handoff_rows(&self) -> Option<usize> {
        None
    }

    /// The rows of one worker: it takes pipelines until none is left.
    fn rows(&self, work: Work) -> BoxStream<'static, Result<RecordBatch>>;
}

/// How many workers there are by the settings.
pub(crate) fn workers(options: &StreamlinesOptions) -> usize {
    strategy(options).workers(match options.partitions {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        workers => workers,
    })
}

/// For how many workers data is divided: of a job that goes on, for as many as there were when it began.
pub(crate) fn divided_for(options: &StreamlinesOptions) -> usize {
    if options.divided_for > 0 {
        return options.divided_for;
    }
    let saved = options.saves().then(|| CheckpointStore::divided_for(&options.checkpoint_dir)).flatten();
    saved.unwrap_or_else(|| workers(options))
}

/// The strategy of the settings.
pub(crate) fn strategy(options: &StreamlinesOptions) -> Arc<dyn Strategy> {
    match options.strategy.as_str() {
        "inline" => Arc::new(Inline),
        "single_queue" => Arc::new(SingleQueue { handoff_rows: options.handoff_rows }),
        _ => Arc::new(Partitioned),
    }
}
