//! Which rows of the source the rows of a batch stand for: each for one of its own, or, where joins and lists may double
//! them or the ledger asks for them, by a column of numbers.
//!
//! A number is the row's place in the batch that the leaf gave. Nodes keep the order of rows, so the numbers ascend.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch, UInt32Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use datafusion::common::{Result, internal_datafusion_err};

/// The name of the column, which no query sees.
pub(crate) const NUMBER: &str = "__source_row";

/// How the rows of a batch stand for rows of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceRows {
    /// Each for one.
    Each,
    /// By the numbers in this column.
    Numbered(usize),
}

impl SourceRows {
    /// Of batches whose last column holds the numbers.
    pub(crate) fn numbered(schema: &SchemaRef) -> Self {
        Self::Numbered(schema.fields().len().saturating_sub(1))
    }

    /// How many rows of the source there are in a batch.
    ///
    /// # Errors
    /// A batch without the numbers.
    pub(super) fn count(self, batch: &RecordBatch) -> Result<u64> {
        Ok(match self {
            Self::Each => batch.num_rows() as u64,
            Self::Numbered(column) => distinct(numbers(batch, column)?.values()),
        })
    }

    /// The batch without the numbers, and the numbers.
    ///
    /// # Errors
    /// A batch without the numbers.
    pub(super) fn take(self, batch: &RecordBatch) -> Result<(RecordBatch, Option<UInt32Array>)> {
        let Self::Numbered(column) = self else { return Ok((batch.clone(), None)) };
        let numbers = numbers(batch, column)?.clone();
        let others: Vec<usize> = (0..batch.num_columns()).filter(|other| *other != column).collect();
        Ok((batch.project(&others)?, Some(numbers)))
    }
}

fn numbers(batch: &RecordBatch, column: usize) -> Result<&UInt32Array> {
    let numbers = batch.columns().get(column).and_then(|column| column.as_primitive_opt::<UInt32Type>());
    numbers.ok_or_else(|| internal_datafusion_err!("rows without their numbers"))
}

/// How many different numbers there are among ascending ones.
fn distinct(numbers: &[u32]) -> u64 {
    let changes = numbers.windows(2).filter(|pair| pair[0] != pair[1]).count();
    changes as u64 + u64::from(!numbers.is_empty())
}

/// The schema with the column of numbers at its end.
pub(super) fn with_numbers(schema: &SchemaRef) -> SchemaRef {
    with_last(schema, Field::new(NUMBER, DataType::UInt32, false))
}

/// The schema with another column at its end.
pub(super) fn with_last(schema: &SchemaRef, field: Field) -> SchemaRef {
    let fields = schema.fields().iter().cloned().chain([Arc::new(field)]).collect::<Vec<_>>();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The schema without its last column.
pub(super) fn without_last(schema: &SchemaRef) -> SchemaRef {
    let width = schema.fields().len().saturating_sub(1);
    let fields = schema.fields().iter().take(width).cloned().collect::<Vec<_>>();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}
