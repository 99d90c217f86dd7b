//! How many bytes an operator's state will take in one pipeline, estimated from what the files tell of its rows: EXPLAIN says
//! so beside what bounds it.
//!
//! What is kept of a key is taken to be its columns, its place in a table, and the states of its aggregates; what is kept of
//! a row its columns. Allocators and buffers that grow by doubling come on top.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::human_readable_size;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::ExecutionPlan;

use crate::operator::{AggregateSpec, Frame, RangeBound, RowsFunction, RowsWindowSpec, TopNSpec};
use crate::source::ReadStatistics;

use super::find;
use super::operator::OperatorSpec;
use super::rows_estimate::{Number, keys_of, number_of_groups, open_at_once, row_width, rows_of, width, width_of};
use super::scan::StreamScanExec;
use super::state_bound::{StateBound, is_small};

/// Bytes of a key besides its columns: its hash, its number, and room to grow.
const KEY_BYTES: f64 = 32.0;
/// Bytes of a list or map that a key has of its own.
const LIST_BYTES: f64 = 64.0;
/// How the text begins, which is no part of what tells one job from another: files that are added change it.
const BEGINS: &str = " (estimate: ";

/// The bytes of an operator's state in one pipeline; none if nothing tells.
pub(crate) struct StateSize(Option<Number>);

impl StateSize {
    /// Of an operator over a plan.
    pub(crate) fn of(spec: &OperatorSpec, input: &Arc<dyn ExecutionPlan>) -> Self {
        let is_endless = find::<StreamScanExec>(input).is_some_and(|scan| scan.replay().is_endless());
        if is_endless && StateBound::of(spec).grows() {
            return Self(None);
        }
        Self(rows_of(input).and_then(|rows| Rows { rows, input }.state(spec)))
    }

    /// A line of a plan without the estimate.
    pub(crate) fn left_out_of(line: &str) -> &str {
        line.split(BEGINS).next().unwrap_or(line)
    }
}

impl fmt::Display for StateSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Number { of, is_most }) => {
                let how = if is_most { "at most" } else { "about" };
                write!(f, "{BEGINS}{how} {})", human_readable_size(of as usize))
            }
            None => write!(f, "{BEGINS}unknown)"),
        }
    }
}

/// What comes into an operator.
struct Rows<'a> {
    rows: ReadStatistics,
    input: &'a Arc<dyn ExecutionPlan>,
}

impl Rows<'_> {
    fn state(&self, spec: &OperatorSpec) -> Option<Number> {
        match spec {
            OperatorSpec::WindowAggregate(spec)
            | OperatorSpec::MergedWindowAggregate(spec)
            | OperatorSpec::ChangelogAggregate(spec, _)
            | OperatorSpec::SessionAggregate(spec, _) => {
                self.groups(spec, |rows| spec.aggregates.iter().map(|aggregate| self.aggregate(aggregate, rows)).sum())
            }
            OperatorSpec::WindowTopN(spec)
            | OperatorSpec::MergedWindowTopN(spec)
            | OperatorSpec::ChangelogTopN(spec, ..) => self.groups(&spec.groups, |rows| self.best_rows(spec, rows)),
            OperatorSpec::RowsWindow(spec) => Some(self.over(spec)),
            // How long sessions are nobody says, and they keep their rows.
            OperatorSpec::SessionRows(_) => None,
        }
    }

    /// The groups of all windows that are open at once, given what one of so many rows holds besides its key.
    fn groups(&self, spec: &AggregateSpec, of_group: impl Fn(f64) -> f64) -> Option<Number> {
        let open = open_at_once(spec.window.as_ref(), !spec.is_ordered, &self.rows)?;
        let keys = keys_of(spec);
        let number = number_of_groups(&self.rows, &keys, open.rows);
        let columns: f64 = keys.iter().map(|key| width_of(key, &self.rows, self.input)).sum();
        let of = open.windows * number.of * (KEY_BYTES + columns + of_group(open.rows / number.of.max(1.0)));
        Some(Number { of, ..number })
    }

    /// What an aggregate holds of a group of so many rows.
    fn aggregate(&self, aggregate: &AggregateFunctionExpr, rows: f64) -> f64 {
        let arguments =
            || aggregate.expressions().iter().map(|argument| width_of(argument, &self.rows, self.input)).sum::<f64>();
        if !is_small(aggregate) {
            return LIST_BYTES + rows * arguments();
        }
        let fields = aggregate.state_fields().unwrap_or_default();
        let widths = fields.iter().map(|field| field.data_type().primitive_width().map(|width| width as f64));
        match widths.sum::<Option<f64>>() {
            Some(widths) => widths,
            // A text, or a sketch, which says itself how large it is.
            None => arguments().max(aggregate.create_accumulator().map_or(0.0, |fresh| fresh.size() as f64)),
        }
    }

    fn best_rows(&self, spec: &TopNSpec, rows: f64) -> f64 {
        let order: f64 = spec.order().iter().map(|expr| width_of(expr, &self.rows, self.input) + 1.0).sum();
        LIST_BYTES + rows.min(spec.at_most() as f64) * (row_width(&self.rows, self.input) + order)
    }

    /// The rows that wait for the watermark, and what functions hold of each key.
    fn over(&self, spec: &RowsWindowSpec) -> Number {
        let row = row_width(&self.rows, self.input) + 8.0;
        let waiting =
            self.rows.times.map_or(self.rows.rows, |times| self.rows.rows * (times.behind / times.span).min(1.0));
        let mut total = Number { of: waiting * row, is_most: false };
        for function in &spec.functions {
            let keys = number_of_groups(&self.rows, &function.partition_by, self.rows.rows);
            let columns: f64 = function.partition_by.iter().map(|key| width_of(key, &self.rows, self.input)).sum();
            total.of += keys.of * (KEY_BYTES + LIST_BYTES + columns) + self.frames(spec, function, keys.of, row);
            total.is_most |= keys.is_most;
        }
        total
    }

    /// The rows or values that the frames of all keys hold.
    fn frames(&self, spec: &RowsWindowSpec, function: &RowsFunction, keys: f64, row: f64) -> f64 {
        let data_type = spec.input_schema.field(spec.time).data_type();
        let of_ticks = |ticks: f64| self.rows.times.map_or(1.0, |times| (ticks / times.span).min(1.0)) * self.rows.rows;
        match &function.frame {
            Frame::Rows { start: Some(start), end } => {
                let frame = (*end.max(&0) - *start.min(&0) + 1) as f64;
                let value = width(function.field.data_type(), Default::default()) + 8.0;
                keys * frame.min(self.rows.rows / keys.max(1.0)) * value
            }
            Frame::Range { start: Some(start), end } => {
                of_ticks(distance(start, data_type) + distance(end, data_type)) * (row + LIST_BYTES)
            }
            Frame::Rows { start: None, .. } | Frame::Range { start: None, .. } => 0.0,
        }
    }
}

/// How far a bound is from the current row, in ticks.
fn distance(bound: &RangeBound, time: &DataType) -> f64 {
    const DAY_NS: f64 = 86_400e9;
    let (RangeBound::Preceding(length) | RangeBound::Following(length)) = bound else { return 0.0 };
    let ns = match length {
        ScalarValue::IntervalMonthDayNano(Some(length)) => {
            (f64::from(length.months) * 30.0 + f64::from(length.days)) * DAY_NS + length.nanoseconds as f64
        }
        ScalarValue::IntervalDayTime(Some(length)) => {
            f64::from(length.days) * DAY_NS + f64::from(length.milliseconds) * 1e6
        }
        ScalarValue::IntervalYearMonth(Some(months)) => f64::from(*months) * 30.0 * DAY_NS,
        ScalarValue::DurationNanosecond(Some(ns)) => *ns as f64,
        _ => 0.0,
    };
    ns / match time {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1.0,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1e3,
        DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => 1e6,
        _ => 1e9,
    }
}
