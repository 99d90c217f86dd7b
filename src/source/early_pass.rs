//! One early pass over the event times of a file that does not say them itself: text, and Parquet without statistics.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use crate::operator::ticks;

use super::footer::Stretch;
use super::origin::RowPlace;
use super::pieces::{Chunk, Part};
use super::reader::ReaderCounts;
use super::replay::ReplayPlan;
use super::rows::{Rows, Wanted};

/// Rows that one number stands for.
const STRETCH_ROWS: u64 = 8192;

/// What an early pass has found.
#[derive(Debug, Default)]
pub(super) struct Times {
    pub(super) stretches: Vec<Stretch>,
    pub(super) rows: u64,
    /// The highest event time, and the first row that has it, counted from 1.
    pub(super) highest: Option<(i64, u64)>,
}

/// The event times that early passes over a file have found, kept for later queries: by column and part.
#[derive(Debug, Clone, Default)]
pub(super) struct FoundTimes(Arc<Mutex<HashMap<Key, Arc<Found>>>>);

type Key = (usize, Part);
type Found = OnceCell<Arc<Times>>;

/// Reads the event-time column of a part of a file, and nothing else; who comes later waits for who came first.
///
/// # Errors
/// Rows that cannot be read.
pub(super) async fn event_times(
    plan: &ReplayPlan,
    chunk: &Chunk,
    column: usize,
    counts: &ReaderCounts,
    task: &Arc<TaskContext>,
) -> Result<Arc<Times>> {
    let key = (column, chunk.part.clone());
    let found = Arc::clone(plan.file(chunk)?.found.0.lock().entry(key).or_default());
    Ok(Arc::clone(found.get_or_try_init(|| read(plan, chunk, column, counts, task)).await?))
}

async fn read(
    plan: &ReplayPlan,
    chunk: &Chunk,
    column: usize,
    counts: &ReaderCounts,
    task: &Arc<TaskContext>,
) -> Result<Arc<Times>> {
    let wanted = Wanted { inner: &plan.table.inner, columns: &[column], coded: None, own: None, task, counts: None };
    let mut rows = Rows::open(plan.file(chunk)?, &chunk.part, None, &wanted).await?;
    let (mut found, mut skipped) = (Times::default(), 0);
    loop {
        let next = match rows.next(&mut skipped).await {
            Ok(next) => next,
            Err(error) => return Err(unreadable(plan, chunk, error, task).await),
        };
        let Some(batch) = next else { break };
        let times = ticks(batch.column(0))?;
        add(&mut found.stretches, Stretch { rows: times.len() as u64, lowest: arrow::compute::min(&times) });
        if let Some(highest) = arrow::compute::max(&times)
            && found.highest.is_none_or(|(before, _)| highest > before)
            && let Some(row) = times.iter().position(|time| time == Some(highest))
        {
            found.highest = Some((highest, found.rows + row as u64 + 1));
        }
        found.rows += times.len() as u64;
        counts.early_rows.fetch_add(times.len() as u64, Ordering::Relaxed);
        tokio::task::consume_budget().await;
    }
    Ok(Arc::new(found))
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

/// What is before a part of a text file in its data partition.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// The highest event time, and the first row that has it.
    pub(super) highest: Option<(i64, RowPlace)>,
    /// Rows of the same file.
    pub(super) rows: u64,
}

/// What is before a chunk that is text, found by early passes over all of that at once.
///
/// # Errors
/// Rows that cannot be read.
pub(super) async fn before(
    plan: &Arc<ReplayPlan>,
    chunk: &Chunk,
    column: usize,
    counts: &Arc<ReaderCounts>,
    task: &Arc<TaskContext>,
) -> Result<Before> {
    let mut passes = JoinSet::new();
    let earlier: Vec<Chunk> = plan.chunks_before(chunk).collect();
    for chunk in earlier.clone() {
        let (plan, counts, task) = (Arc::clone(plan), Arc::clone(counts), Arc::clone(task));
        passes.spawn(async move { event_times(&plan, &chunk, column, &counts, &task).await.map(drop) });
    }
    while let Some(pass) = passes.join_next().await {
        pass.map_err(|error| DataFusionError::External(error.into()))??;
    }
    let (mut found, mut file) = (Before::default(), None);
    for part in &earlier {
        let times = event_times(plan, part, column, counts, task).await?;
        if file.replace(part.file) != Some(part.file) {
            found.rows = 0;
        }
        if let Some((highest, row)) = times.highest
            && found.highest.as_ref().is_none_or(|(before, _)| highest > *before)
        {
            let place = RowPlace { file: plan.file(part)?.name.as_str().into(), row: found.rows + row };
            found.highest = Some((highest, place));
        }
        found.rows += times.rows;
    }
    if file != Some(chunk.file) {
        found.rows = 0;
    }
    Ok(found)
}

/// An error while a chunk is read, with its file and row.
pub(super) async fn unreadable(
    plan: &ReplayPlan,
    chunk: &Chunk,
    error: DataFusionError,
    task: &Arc<TaskContext>,
) -> DataFusionError {
    let mut rows_before = 0;
    if let (Ok(file), Some(before)) = (plan.file(chunk), chunk.part.text_before()) {
        // Nobody has counted them.
        let wanted = Wanted { inner: &plan.table.inner, columns: &[], coded: None, own: None, task, counts: None };
        if let Ok(mut rows) = Rows::open(file, &before, None, &wanted).await {
            while let Ok(Some(batch)) = rows.next(&mut 0).await {
                rows_before += batch.num_rows() as u64;
            }
        }
    }
    plan.unreadable(chunk, error, rows_before)
}
