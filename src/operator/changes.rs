//! The forms of EMIT CHANGES: how often a key's change is told, and what its rows say of earlier ones.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;

use super::ticks;

/// The form of a changelog.
#[derive(Debug, Clone)]
pub(crate) struct ChangesSpec {
    pub(crate) often: Often,
    pub(crate) ops: Ops,
    /// Whether a key is told of again; else once, when it is first seen.
    pub(crate) repeats: bool,
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

    /// What it does where rows come and go without taking the place of others.
    pub(crate) fn alone(self) -> Self {
        match self {
            Self::Insert | Self::After => Self::Insert,
            Self::Before | Self::Delete => Self::Delete,
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

    /// The runs of a batch's rows between which changes are to be told, given the highest event time so far.
    pub(super) fn runs(&self, batch: &RecordBatch, highest: &mut Option<i64>) -> Result<Vec<Range<usize>>> {
        let Often::Every { time, interval } = &self.often else {
            return Ok(std::iter::once(0..batch.num_rows()).collect());
        };
        let times = ticks(&time.evaluate(batch)?.into_array(batch.num_rows())?)?;
        let (mut runs, mut begin) = (vec![], 0);
        for (row, time) in times.iter().enumerate() {
            let Some(time) = time.filter(|time| highest.is_none_or(|highest| *time > highest)) else {
                continue;
            };
            let before = highest.replace(time);
            if before.is_some_and(|before| before.div_euclid(*interval) != time.div_euclid(*interval)) {
                runs.push(begin..row);
                begin = row;
            }
        }
        runs.push(begin..batch.num_rows());
        Ok(runs)
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

/// The highest event time of a snapshot.
pub(super) fn highest_batch(highest: Option<i64>) -> Result<RecordBatch> {
    let schema = Schema::new(vec![Field::new("highest", DataType::Int64, true)]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![highest]))])?)
}

pub(super) fn highest_of(batch: &RecordBatch) -> Option<i64> {
    let times = batch.columns().first()?.as_primitive_opt::<Int64Type>()?;
    (!times.is_empty() && times.is_valid(0)).then(|| times.value(0))
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
