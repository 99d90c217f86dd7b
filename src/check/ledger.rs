//! The late rows of a run, as its ledger names them.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, UInt64Type};
use datafusion::common::{Result, internal_datafusion_err};

use crate::operator::ticks;
use crate::source::{LeftOut, StreamTable};

use super::compare::{Difference, compare};
use super::rows::text_rows;

/// Late rows that are shown.
const SHOWN: usize = 5;

/// The late rows of a run, with what [`Job::late_rows`](crate::Job::late_rows) says of each.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Their columns.
    pub schema: SchemaRef,
    /// The rows, in no order.
    pub rows: Vec<RecordBatch>,
    /// Those of each scan of a stream, by its number.
    scans: Vec<Vec<RecordBatch>>,
}

impl Ledger {
    /// Of the rows of each scan of a stream, by its number.
    pub(super) fn new(schema: SchemaRef, scans: Vec<Vec<RecordBatch>>) -> Self {
        Self { schema, rows: scans.concat(), scans }
    }

    /// How many entries there are.
    pub fn rows(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }

    /// What differs in another ledger of the same question, the first stream that has it.
    pub(super) fn difference(&self, other: &Self) -> Result<Option<Difference>> {
        for scan in 0..self.scans.len().max(other.scans.len()) {
            let rows = |ledger: &Self| ledger.scans.get(scan).cloned().unwrap_or_default();
            let (own, others) = (rows(self), rows(other));
            let Some(schema) = own.first().or(others.first()).map(RecordBatch::schema) else { continue };
            if let Some(difference) = compare(&own, &others, &schema)? {
                return Ok(Some(difference));
            }
        }
        Ok(None)
    }

    /// Whether every row was late for all of its windows, so that it had no part in the answer.
    pub(super) fn is_of_whole_rows(&self) -> Result<bool> {
        Ok(entries(&self.rows)?.iter().all(|entry| entry.is_whole))
    }

    /// What a numbered scan of a stream is to leave out: rows that were late for all of their windows, and
    /// of others those that they missed.
    pub(super) fn left_out(&self, stream: &StreamTable) -> Result<LeftOut> {
        let mut left_out = LeftOut::default();
        for entry in entries(self.scans.get(stream.number()).map_or(&[], Vec::as_slice))? {
            if entry.is_whole {
                left_out.add_row(&entry.file, entry.row);
            } else if let (Some(place), Some(end)) = (stream.place_of(&entry.file, entry.row), entry.window_end) {
                left_out.add_windows(place, end);
            }
        }
        Ok(left_out)
    }

    /// The first rows by file and number, for a person.
    pub(super) fn first_rows(&self) -> Result<String> {
        let mut rows = vec![];
        for batch in &self.rows {
            let numbers = column(batch, "_row")?.as_primitive::<UInt64Type>();
            let names = ["_file", "_row", "_behind_s", "_watermark", "_set_by_file", "_set_by_row"];
            let places = names.map(|name| index(batch, name));
            let columns = places.into_iter().collect::<Result<Vec<_>>>()?;
            for (cells, number) in text_rows(&batch.project(&columns)?)?.into_iter().zip(numbers.values()) {
                rows.push((cells.first().cloned(), *number, told(&cells)));
            }
        }
        rows.sort();
        let more = rows.len().saturating_sub(SHOWN);
        let mut lines: Vec<String> = rows.into_iter().take(SHOWN).map(|(.., text)| text).collect();
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        Ok(lines.join("\n"))
    }
}

/// What a ledger says of a row.
struct Entry {
    file: String,
    row: u64,
    /// Whether it was late for all of its windows, so that it had no part in the answer.
    is_whole: bool,
    /// Of the last window that it missed.
    window_end: Option<i64>,
}

fn entries(rows: &[RecordBatch]) -> Result<Vec<Entry>> {
    let mut entries = vec![];
    for batch in rows {
        let missed = column(batch, "_missed")?.as_string::<i32>();
        let (files, rows) = (column(batch, "_file")?.as_string::<i32>(), column(batch, "_row")?);
        let ends = ticks(column(batch, "_window_end")?)?;
        for (index, row) in rows.as_primitive::<UInt64Type>().values().iter().enumerate() {
            entries.push(Entry {
                file: files.value(index).to_string(),
                row: *row,
                is_whole: missed.value(index) == "all",
                window_end: ends.is_valid(index).then(|| ends.value(index)),
            });
        }
    }
    Ok(entries)
}

/// A late row in a line.
fn told(cells: &[String]) -> String {
    let [file, row, behind, watermark, set_by_file, set_by_row] = cells else { return String::new() };
    let by = if file == set_by_file { String::new() } else { format!("{set_by_file} ") };
    format!("{file} row {row}: {behind} s behind the watermark {watermark}, which {by}row {set_by_row} had set")
}

/// A column of what a ledger knows: the last one of the name, for the stream may have one too.
fn index(batch: &RecordBatch, name: &str) -> Result<usize> {
    let names = batch.schema();
    let found = names.fields().iter().rposition(|field| field.name().trim_start_matches('_') == &name[1..]);
    found.ok_or_else(|| internal_datafusion_err!("a ledger without {name}"))
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::ArrayRef> {
    Ok(batch.column(index(batch, name)?))
}
