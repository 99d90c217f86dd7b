//! The forms of EMIT CHANGES: how often a key's change is told, and what its rows say of earlier ones.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;

/// The form of a changelog.
#[derive(Debug, Clone)]
pub(crate) struct ChangesSpec {
    pub(crate) often: Often,
    pub(crate) ops: Ops,
}

/// How often a key's change is told.
#[derive(Debug, Clone)]
pub(crate) enum Often {
    EachRow,
    /// Once for each batch of input.
    EachBatch,
    /// Once for each interval, in ticks, that the highest event time so far is in.
    Every {
        time: Arc<dyn PhysicalExpr>,
        interval: i64,
    },
    /// When a window ends, and again for each row that comes up to so many ticks of the watermark later.
    AtClose {
        lateness: i64,
    },
}

/// What a column in front says of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Ops {
    /// There is none: the latest row of a key wins.
    None,
    /// Whether the row is a key's first or a later one, or withdraws it.
    Op,
    /// The same, and the row that a later one replaces comes before it.
    Retractions,
}

/// What a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// A key's first row.
    Insert,
    /// The row that the next one replaces.
    Before,
    /// A key's later row.
    After,
    /// A row that is no longer true, and that no other one replaces.
    Delete,
}

impl Op {
    /// How the column has it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Insert => "+I",
            Self::Before => "-U",
            Self::After => "+U",
            Self::Delete => "-D",
        }
    }

    /// What the column's text means.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Insert, Self::Before, Self::After, Self::Delete].into_iter().find(|op| op.text() == text)
    }
}

/// Name of the column within a plan: none that a column of the input has.
pub(crate) const OP: &str = "__op";

impl ChangesSpec {
    /// The schema of changes of rows of `rows`.
    pub(crate) fn schema(&self, rows: &SchemaRef) -> SchemaRef {
        if self.ops == Ops::None {
            return Arc::clone(rows);
        }
        let op = Arc::new(Field::new(OP, DataType::Utf8, false));
        Arc::new(Schema::new([op].into_iter().chain(rows.fields().iter().cloned()).collect::<Vec<_>>()))
    }

    /// Rows with the column in front, if there is one.
    pub(super) fn output(&self, schema: &SchemaRef, ops: &[Op], rows: RecordBatch) -> Result<RecordBatch> {
        if self.ops == Ops::None {
            return Ok(rows);
        }
        let op: ArrayRef = Arc::new(StringArray::from_iter_values(ops.iter().map(|op| op.text())));
        let columns = [op].into_iter().chain(rows.columns().iter().cloned()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }
}

impl fmt::Display for ChangesSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.often {
            Often::EachRow => write!(f, "each row")?,
            Often::EachBatch => write!(f, "each batch")?,
            Often::Every { time, interval } => write!(f, "every {interval} ticks of {time}")?,
            Often::AtClose { lateness } => write!(f, "at close, and {lateness} ticks longer")?,
        }
        match self.ops {
            Ops::None => Ok(()),
            Ops::Op => write!(f, " with op"),
            Ops::Retractions => write!(f, " with retractions"),
        }
    }
}
