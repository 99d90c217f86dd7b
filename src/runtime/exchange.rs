//! The routing `exchange`: one task reads, and sends each row to the pipeline of its key.
//!
//! ```text
//!               ┌─ channel ─▶ pipeline 0
//!   reader ─ hash
//!               └─ channel ─▶ pipeline 1
//! ```
//!
//! Channels are bounded: a slow pipeline stops the reader, and so all others.

use std::sync::Arc;

use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use parking_lot::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::source::{Read, Reader, ReaderCounts, ReplayPlan};

/// How many batches may wait for a pipeline.
const QUEUED: usize = 16;

/// The reader, and the channels whose rows no pipeline has asked for yet.
#[derive(Debug)]
pub(super) struct Exchange {
    channels: Mutex<Vec<Option<Receiver<Result<Read>>>>>,
    /// Ends with the run.
    _reader: SpawnedTask<()>,
}

impl Exchange {
    /// Begins to read for all pipelines, to be counted in `counts`.
    ///
    /// # Errors
    /// What the reader has to say.
    pub(super) fn start(replay: &Arc<ReplayPlan>, counts: Arc<ReaderCounts>, task: Arc<TaskContext>) -> Result<Self> {
        let reader = Reader::open(replay, 0, counts, task, &Arc::default())?;
        let (senders, receivers) = replay.pieces().iter().map(|_| channel(QUEUED)).map(|(s, r)| (s, Some(r))).unzip();
        let reader = SpawnedTask::spawn(read(Arc::clone(replay), reader, senders));
        Ok(Self { channels: Mutex::new(receivers), _reader: reader })
    }

    /// The rows of a pipeline.
    ///
    /// # Errors
    /// Rows that were asked for before.
    pub(super) fn rows(&self, pipeline: usize) -> Result<Receiver<Result<Read>>> {
        let channel = self.channels.lock().get_mut(pipeline).and_then(Option::take);
        channel.ok_or_else(|| internal_datafusion_err!("pipeline {pipeline} has no rows of the exchange left"))
    }
}

/// Reads and sends until the end, or until no pipeline takes rows any more.
async fn read(replay: Arc<ReplayPlan>, mut reader: Reader, pipelines: Vec<Sender<Result<Read>>>) {
    loop {
        let shares = match reader.next().await {
            Ok(Some(read)) => replay.shares(read),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let shares: Vec<Result<Read>> = match shares {
            Ok(shares) => shares.into_iter().map(Ok).collect(),
            // All of them fail: one that saw no more than its channel's end would close its windows.
            Err(error) => {
                let error = Arc::new(error);
                pipelines.iter().map(|_| Err(DataFusionError::Shared(Arc::clone(&error)))).collect()
            }
        };
        let mut is_taken = false;
        for (pipeline, share) in pipelines.iter().zip(shares) {
            is_taken |= pipeline.send(share).await.is_ok();
        }
        if !is_taken {
            return;
        }
        tokio::task::consume_budget().await;
    }
}
