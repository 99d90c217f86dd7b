//! What flows through a pipeline's plan, as far as the files tell before a row is read: how many rows, over which span of
//! event time, and how many values their columns have.
//!
//! It is followed from the leaf up, node by node. A filter is taken to let every row pass and a join to find one row for each,
//! and keys to be spread evenly over time, whatever other keys are. Where nothing tells, there is no estimate.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::operator::{AggregateSpec, WindowShape, WindowSpec};
use crate::source::{ReadStatistics, TimesRead, ValuesRead};

use super::filter::StreamFilterExec;
use super::lookup::LookupJoinExec;
use super::operator::{OperatorExec, OperatorSpec};
use super::scan::StreamScanExec;
use super::unnest::StreamUnnestExec;

/// Bytes of a text whose length nobody knows.
const TEXT_BYTES: f64 = 16.0;

/// About how many of something there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number {
    pub(super) of: f64,
    /// Whether that is only how many there are at most, for lack of a better guess.
    pub(super) is_most: bool,
}

/// The rows that come out of a node of one pipeline.
pub(super) fn rows_of(plan: &Arc<dyn ExecutionPlan>) -> Option<ReadStatistics> {
    if let Some(scan) = plan.downcast_ref::<StreamScanExec>() {
        return scan.replay().statistics().map(|rows| with_width(rows, plan));
    }
    if plan.is::<StreamUnnestExec>() {
        return None;
    }
    let input = plan.children().into_iter().find_map(rows_of)?;
    if let Some(operator) = plan.downcast_ref::<OperatorExec>() {
        return results(operator.spec(), input).map(|rows| with_width(rows, plan));
    }
    let columns = match plan.downcast_ref::<ProjectionExec>() {
        Some(projection) => projection.expr().iter().map(|projected| values_of(&projected.expr, &input)).collect(),
        None => match plan.downcast_ref::<StreamFilterExec>() {
            Some(filter) => {
                let positions = (0..plan.schema().fields().len()).map(|position| filter.input_position(position));
                positions.map(|position| input.columns.get(position?).copied()).map(Option::unwrap_or_default).collect()
            }
            // Which of a join's columns is which nobody says.
            None if plan.is::<LookupJoinExec>() => vec![],
            None => input.columns,
        },
    };
    Some(with_width(ReadStatistics { columns, ..input }, plan))
}

/// The same with as many columns as the node has.
fn with_width(mut rows: ReadStatistics, plan: &Arc<dyn ExecutionPlan>) -> ReadStatistics {
    rows.columns.resize(plan.schema().fields().len(), ValuesRead::default());
    rows
}

/// The rows that windows give when they close; none of others.
fn results(spec: &OperatorSpec, input: ReadStatistics) -> Option<ReadStatistics> {
    if let OperatorSpec::RowsWindow(_) = spec {
        return Some(input);
    }
    let (OperatorSpec::WindowAggregate(groups) | OperatorSpec::MergedWindowAggregate(groups)) = spec else {
        return None;
    };
    let shape = &groups.window.as_ref()?.shape;
    let times = input.times?;
    let windows = (times.span / every(shape)).max(1.0);
    let of_window = input.rows.min(input.rows * length(shape) / times.span);
    let number = number_of_groups(&input, &keys_of(groups), of_window);
    let start = ValuesRead { distinct: Some(windows), text_width: None };
    let columns = std::iter::repeat_n(start, groups.window_columns());
    let columns = columns.chain(groups.keys.iter().map(|(key, _)| values_of(key, &input))).collect();
    let behind = (times.behind + length(shape)).min(times.span);
    Some(ReadStatistics { rows: windows * number.of, times: Some(TimesRead { behind, ..times }), columns })
}

/// The values of an expression over rows: no more than there are of the columns that it reads.
fn values_of(expr: &Arc<dyn PhysicalExpr>, rows: &ReadStatistics) -> ValuesRead {
    if let Some(column) = expr.downcast_ref::<Column>() {
        return rows.columns.get(column.index()).copied().unwrap_or_default();
    }
    let read = collect_columns(expr);
    let distinct = read.iter().map(|column| rows.columns.get(column.index())?.distinct).product();
    ValuesRead { distinct, text_width: None }
}

pub(super) fn keys_of(groups: &AggregateSpec) -> Vec<Arc<dyn PhysicalExpr>> {
    groups.keys.iter().map(|(key, _)| Arc::clone(key)).collect()
}

/// How many different keys so many of the rows have: of D keys that come alike often, D (1 − (1 − 1/D)ⁿ) are met by n rows
/// (Cardenas 1975).
pub(super) fn number_of_groups(rows: &ReadStatistics, keys: &[Arc<dyn PhysicalExpr>], met: f64) -> Number {
    let distinct: Option<f64> = keys.iter().map(|key| values_of(key, rows).distinct).product();
    match distinct {
        Some(distinct) => Number { of: (distinct * -f64::exp_m1(-met / distinct.max(1.0))).max(1.0), is_most: false },
        None => Number { of: met, is_most: true },
    }
}

/// Windows, or panes of them, that are open at once.
pub(super) struct OpenAtOnce {
    pub(super) windows: f64,
    /// Rows of the input in each.
    pub(super) rows: f64,
}

/// What is open of windows at once; of no window everything.
pub(super) fn open_at_once(window: Option<&WindowSpec>, by_panes: bool, rows: &ReadStatistics) -> Option<OpenAtOnce> {
    let Some(shape) = window.map(|window| &window.shape) else {
        return Some(OpenAtOnce { windows: 1.0, rows: rows.rows });
    };
    let times = rows.times?;
    let in_ticks = |ticks: f64| rows.rows * (ticks / times.span).min(1.0);
    let many = |kept: f64, every: f64| (kept.min(times.span) / every).floor() + 1.0;
    Some(match (shape, shape.pane().filter(|_| by_panes)) {
        (WindowShape::Session { gap, wait }, _) => {
            OpenAtOnce { windows: 1.0, rows: in_ticks((gap + wait) as f64 + times.behind) }
        }
        (_, Some(pane)) => {
            OpenAtOnce { windows: many(length(shape) + times.behind, pane as f64), rows: in_ticks(pane as f64) }
        }
        _ => {
            let kept = times.behind + length(shape) - every(shape);
            OpenAtOnce { windows: many(kept, every(shape)), rows: in_ticks(length(shape)) }
        }
    })
}

/// How long a window is, about.
fn length(shape: &WindowShape) -> f64 {
    (shape.typical() as f64).max(1.0)
}

/// How long after the one before it a window ends, about.
fn every(shape: &WindowShape) -> f64 {
    match shape {
        WindowShape::Hop { slide, .. } => *slide as f64,
        WindowShape::Cumulate { step, .. } => *step as f64,
        shape => length(shape),
    }
}

/// Bytes of a value.
pub(super) fn width(data_type: &DataType, values: ValuesRead) -> f64 {
    let text = || values.text_width.unwrap_or(TEXT_BYTES);
    match data_type {
        DataType::Boolean => 1.0,
        DataType::Utf8View | DataType::BinaryView => 16.0 + if text() > 12.0 { text() } else { 0.0 },
        DataType::Dictionary(_, values_type) => width(values_type, values),
        data_type => data_type.primitive_width().map_or_else(|| 8.0 + text(), |width| width as f64),
    }
}

/// Bytes of an expression's value for one row.
pub(super) fn width_of(expr: &Arc<dyn PhysicalExpr>, rows: &ReadStatistics, input: &Arc<dyn ExecutionPlan>) -> f64 {
    let data_type = expr.data_type(&input.schema()).unwrap_or(DataType::Null);
    width(&data_type, values_of(expr, rows))
}

/// Bytes of a whole row.
pub(super) fn row_width(rows: &ReadStatistics, input: &Arc<dyn ExecutionPlan>) -> f64 {
    let schema = input.schema();
    schema.fields().iter().zip(&rows.columns).map(|(field, values)| width(field.data_type(), *values)).sum()
}
