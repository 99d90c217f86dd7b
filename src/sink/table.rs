//! Rows as aligned text that streams.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Result;

use super::encoder::{Bytes, Encoder};

/// Writes rows as soon as they come. Columns are as wide as the header and the first batch need; a wider cell later
/// on is written whole and pushes its own row to the right.
pub(super) struct TableText {
    bytes: Bytes,
    schema: SchemaRef,
    widths: Option<Vec<usize>>,
}

impl TableText {
    pub(super) fn new(bytes: Bytes, schema: SchemaRef) -> Self {
        Self { bytes, schema, widths: None }
    }

    /// The header, once, with widths that fit these cells.
    fn begin(&mut self, cells: &[Vec<String>]) -> Result<Vec<usize>> {
        if let Some(widths) = &self.widths {
            return Ok(widths.clone());
        }
        let names: Vec<String> = self.schema.fields().iter().map(|field| field.name().clone()).collect();
        let width = |column: usize| {
            let cells = cells.iter().filter_map(|row| row.get(column)).chain(names.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..names.len()).map(width).collect();
        self.line(&names, &widths)?;
        let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        self.line(&rules, &widths)?;
        self.widths = Some(widths.clone());
        Ok(widths)
    }

    fn line(&mut self, cells: &[String], widths: &[usize]) -> Result<()> {
        let aligned = cells.iter().zip(widths).zip(self.schema.fields()).map(|((cell, width), field)| {
            match field.data_type().is_numeric() {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            }
        });
        let line = aligned.collect::<Vec<_>>().join("  ");
        writeln!(self.bytes, "{}", line.trim_end())?;
        Ok(())
    }
}

impl Encoder for TableText {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let options = FormatOptions::default();
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        let row = |row: usize| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>();
        let cells: Vec<Vec<String>> = (0..batch.num_rows()).map(row).collect();
        let widths = self.begin(&cells)?;
        cells.iter().try_for_each(|row| self.line(row, &widths))
    }

    fn finish(&mut self) -> Result<()> {
        self.begin(&[]).map(|_| ())
    }
}
