//! One early pass over the event times of a file that does not say them itself: text, and Parquet without statistics.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::TaskContext;
use parking_lot::Mutex;

use crate::operator::ticks;

use super::footer::Stretch;
use super::rows::{Rows, Wanted};
use super::table::{Inner, StreamFile};

/// Rows that one number stands for.
const STRETCH_ROWS: u64 = 8192;

/// The event times that early passes over a file have found, kept for later queries: by column and row groups.
#[derive(Debug, Clone, Default)]
pub(super) struct FoundTimes(Arc<Mutex<HashMap<Key, Arc<[Stretch]>>>>);

type Key = (usize, Option<Range<usize>>);

/// Reads the event-time column of a file, or of some of its row groups, and nothing else. `progress` is told the rows.
///
/// # Errors
/// Rows that cannot be read.
pub(super) async fn event_times(
    inner: &Inner,
    file: &StreamFile,
    row_groups: Option<Range<usize>>,
    column: usize,
    task: &Arc<TaskContext>,
    progress: impl Fn(usize),
) -> Result<Arc<[Stretch]>> {
    let key = (column, row_groups.clone());
    if let Some(found) = file.found.0.lock().get(&key) {
        return Ok(Arc::clone(found));
    }
    let wanted = Wanted { inner, columns: &[column], coded: None, task, counts: None };
    let mut rows = Rows::open(file, row_groups, &wanted).await?;
    let (mut stretches, mut skipped) = (vec![], 0);
    while let Some(batch) = rows.next(&mut skipped)? {
        let times = ticks(batch.column(0))?;
        add(&mut stretches, Stretch { rows: times.len() as u64, lowest: arrow::compute::min(&times) });
        progress(times.len());
        tokio::task::consume_budget().await;
    }
    let stretches: Arc<[Stretch]> = stretches.into();
    file.found.0.lock().insert(key, Arc::clone(&stretches));
    Ok(stretches)
}

/// Small batches share a number.
fn add(stretches: &mut Vec<Stretch>, next: Stretch) {
    match stretches.last_mut().filter(|last| last.rows + next.rows <= STRETCH_ROWS) {
        Some(last) => {
            last.rows += next.rows;
            last.lowest = [last.lowest, next.lowest].into_iter().flatten().min();
        }
        None => stretches.push(next),
    }
}
