//! Where the rows of a batch come from: for a ledger of late rows, which names each by its file and row.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::filter_record_batch;

use super::pieces::{Chunk, Part};
use super::replay::ReplayPlan;
use super::rows::{Rows, Wanted};
use crate::operator::ticks;

use datafusion::common::Result;
use datafusion::execution::TaskContext;

/// A row of a file, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowPlace {
    pub(crate) file: Arc<str>,
    pub(crate) row: u64,
}

/// The rows of a batch of one file.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    file: Arc<str>,
    rows: Numbers,
}

#[derive(Debug, Clone)]
enum Numbers {
    /// Consecutive ones.
    From(u64),
    /// Where malformed rows between them are left out.
    Listed(UInt64Array),
}

impl Places {
    /// Of consecutive rows, the first of which is `first`.
    pub(super) fn from(file: &Arc<str>, first: u64) -> Self {
        Self { file: Arc::clone(file), rows: Numbers::From(first) }
    }

    /// Of these rows.
    pub(super) fn listed(file: &Arc<str>, rows: UInt64Array) -> Self {
        Self { file: Arc::clone(file), rows: Numbers::Listed(rows) }
    }

    /// The numbers of the first `rows` of them.
    pub(super) fn numbers(&self, rows: usize) -> impl Iterator<Item = u64> {
        (0..rows).map(|row| self.number(row))
    }

    fn number(&self, row: usize) -> u64 {
        match &self.rows {
            Numbers::From(first) => first + row as u64,
            Numbers::Listed(rows) => rows.values().get(row).copied().unwrap_or_default(),
        }
    }

    /// Where a row of the batch comes from.
    pub(crate) fn at(&self, row: usize) -> RowPlace {
        RowPlace { file: Arc::clone(&self.file), row: self.number(row) }
    }

    /// The same from a row of the batch on.
    pub(super) fn slice(&self, offset: usize, length: usize) -> Self {
        let rows = match &self.rows {
            Numbers::From(first) => Numbers::From(first + offset as u64),
            Numbers::Listed(rows) => Numbers::Listed(rows.slice(offset, length)),
        };
        Self { file: Arc::clone(&self.file), rows }
    }
}

/// Where the rows of a batch come from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The rows with all columns of the stream.
    pub(crate) rows: RecordBatch,
    pub(crate) places: Places,
    /// The row that has set the watermark by which they are judged.
    pub(crate) set_by: Option<RowPlace>,
}

impl Origin {
    /// Those rows that are true.
    pub(super) fn of_rows(self, rows: &BooleanArray) -> Result<Self> {
        let Self { rows: all, places, set_by } = self;
        let numbers = rows.values().set_indices().map(|row| places.at(row).row);
        let places = Places::listed(&places.file, numbers.collect());
        Ok(Self { rows: filter_record_batch(&all, rows)?, places, set_by })
    }
}

/// The first row before a chunk, in its data partition, whose event time is `highest`: it has set the watermark with
/// which the chunk begins. Looked for where the footers say that it is.
///
/// # Errors
/// Event times that cannot be read.
pub(super) async fn row_before(
    plan: &ReplayPlan,
    chunk: &Chunk,
    column: usize,
    highest: i64,
    task: &Arc<TaskContext>,
) -> Result<Option<RowPlace>> {
    let first_group = chunk.part.row_groups().map_or(0, |groups| groups.start);
    for index in 0..=chunk.file {
        let before = Chunk { file: index, ..chunk.clone() };
        let file = plan.file(&before)?;
        let Some(footer) = &file.footer else { continue };
        let mut first = 1;
        for (group, rows) in footer.rows.iter().enumerate() {
            if index == chunk.file && group >= first_group {
                break;
            }
            let times = footer.times(column).and_then(|times| times.get(group)?.as_ref());
            if times.and_then(|times| times.range).is_some_and(|(_, found)| found == highest) {
                let wanted =
                    Wanted { inner: &plan.table.inner, columns: &[column], coded: None, own: None, task, counts: None };
                let mut rows = Rows::open(file, &Part::RowGroups(group..group + 1), None, &wanted).await?;
                let mut seen = first;
                while let Some(batch) = rows.next(&mut 0).await? {
                    let times = ticks(batch.column(0))?;
                    if let Some(row) = times.iter().position(|time| time == Some(highest)) {
                        return Ok(Some(RowPlace { file: file.name.as_str().into(), row: seen + row as u64 }));
                    }
                    seen += batch.num_rows() as u64;
                }
            }
            first += rows;
        }
    }
    Ok(None)
}
