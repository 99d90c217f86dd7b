//! Reading what the pipelines of a plan would read, and nothing more: the floor below which no query over the same
//! columns can go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use tokio::task::JoinSet;

use crate::source::{Reader, ReplayPlan};

/// Reads all pieces, so many of them at once, and gives the number of rows.
///
/// # Errors
/// A file that cannot be read.
pub(super) async fn scan_only(replay: &Arc<ReplayPlan>, workers: usize, task: &Arc<TaskContext>) -> Result<u64> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..workers {
        let (replay, task, next) = (Arc::clone(replay), Arc::clone(task), Arc::clone(&next));
        readers.spawn(async move {
            let mut rows = 0;
            loop {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                if piece >= replay.pieces().len() {
                    return Ok::<_, DataFusionError>(rows);
                }
                let mut reader = Reader::open(&replay, piece, Arc::default(), Arc::clone(&task), &Arc::default())?;
                while let Some(read) = reader.next().await? {
                    rows += read.batch.num_rows() as u64;
                    // As in a pipeline: files are read without waiting.
                    tokio::task::consume_budget().await;
                }
            }
        });
    }
    let mut total = 0;
    while let Some(rows) = readers.join_next().await {
        total += rows.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))??;
    }
    Ok(total)
}
