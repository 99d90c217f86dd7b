//! What an OVER query computes, fixed when it is planned.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::window::StandardWindowFunctionExpr;

/// The rows that a function sees.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Frame {
    /// Rows of the key, counted from the current one; none is the key's first.
    Rows { start: Option<i64>, end: i64 },
    /// Rows of the key by event time; none is the key's first.
    Range { start: Option<RangeBound>, end: RangeBound },
}

/// A distance in event time from the current row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RangeBound {
    CurrentRow,
    Preceding(ScalarValue),
    Following(ScalarValue),
}

impl Frame {
    /// Of a frame of rows that ends with the current one: how many are before it, none for all.
    pub(super) fn preceding(&self) -> Option<Option<usize>> {
        match self {
            Self::Rows { start: None, end: 0 } => Some(None),
            Self::Rows { start: Some(start @ ..=0), end: 0 } => Some(Some(start.unsigned_abs() as usize)),
            _ => None,
        }
    }

    /// Whether rows never leave.
    pub(crate) fn only_grows(&self) -> bool {
        matches!(self, Self::Rows { start: None, .. } | Self::Range { start: None, .. })
    }
}

/// What a function computes.
#[derive(Debug, Clone)]
pub(crate) enum RowsFunctionKind {
    Aggregate(Arc<AggregateFunctionExpr>),
    FirstValue,
    LastValue,
    /// The value of the frame's n-th row, from its end where n is negative.
    NthValue(i64),
    /// The value so many rows further, or `default`. Its frame reaches to that row and no further.
    Shift {
        offset: i64,
        default: ScalarValue,
    },
    /// These count rows of the key by its order; the argument is the event time.
    RowNumber,
    Rank,
    DenseRank,
    /// Any other window function that looks at its frame alone.
    Evaluator(Arc<dyn StandardWindowFunctionExpr>),
}

/// One OVER column.
#[derive(Debug, Clone)]
pub(crate) struct RowsFunction {
    pub(crate) kind: RowsFunctionKind,
    pub(crate) arguments: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) partition_by: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) frame: Frame,
    pub(crate) filter: Option<Arc<dyn PhysicalExpr>>,
    /// The output column.
    pub(crate) field: FieldRef,
}

impl RowsFunction {
    /// Whether what it keeps of a key is forgotten when no row comes for it: its frame lets go of no row by time, and none
    /// waits in it for a later one.
    pub(crate) fn forgets(&self) -> bool {
        let lasts = match &self.frame {
            Frame::Rows { end, .. } => *end <= 0,
            Frame::Range { start: None, end } => !matches!(end, RangeBound::Following(_)),
            Frame::Range { .. } => false,
        };
        lasts && !self.partition_by.is_empty()
    }
}

/// What an OVER query computes. Output: the input's columns, then one column for each function.
#[derive(Debug)]
pub(crate) struct RowsWindowSpec {
    pub(crate) input_schema: SchemaRef,
    pub(crate) schema: SchemaRef,
    /// The event-time column of the input.
    pub(crate) time: usize,
    pub(crate) functions: Vec<RowsFunction>,
    /// How many ticks keys live that no row comes for, where functions forget them; none for ever.
    pub(crate) ttl: Option<i64>,
}

impl RowsWindowSpec {
    /// The type of a function's first argument.
    pub(super) fn argument_type(&self, function: &RowsFunction) -> Result<DataType> {
        function.arguments.first().map_or(Ok(DataType::Null), |argument| argument.data_type(&self.input_schema))
    }
}

impl fmt::Display for RowsWindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.functions.iter().map(|function| function.field.name().as_str()).collect();
        let time = self.input_schema.field(self.time).name();
        write!(f, "order_by={time}, over=[{}]", names.join(", "))?;
        self.ttl.map_or(Ok(()), |ticks| write!(f, ", forgotten after {ticks} ticks of {time}"))
    }
}
