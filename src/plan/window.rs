//! Which group expressions are windows: the spellings of a window, all read as one.
//!
//! `tumble(ts, size)`, `hop`, `cumulate` and `session` are windows by name and must be over the event time; over the bounds
//! of the windows that a stream's rows are in they are plain group keys. `date_bin` and `date_trunc` stay DataFusion's
//! functions: over the event time, and where their bins are fixed instants, they are windows too; everywhere else they are
//! plain group keys.

use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_datafusion_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, lit};

use crate::error::Error;
use crate::operator::{Length, WindowShape};

use super::event_time::{Below, StreamColumn, below, index_of, trace};
use super::functions::{last_tick, not_constant, tumble, tumble_length};
use super::interval::{is_utc, window_ticks};
use super::overlapping::{is_overlapping, shape};
use super::refuse;
use super::result_time::{comes_out_by_time, result_time};

/// The functions that give the bounds of a row's window.
pub(crate) const WINDOW_FUNCTIONS: [&str; 6] = ["tumble", "hop", "cumulate", "session", "window_end", "window_time"];

const DAY_NS: i64 = 86_400_000_000_000;

/// A window that a group expression stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recognised {
    /// Start of a row's window or pane, or its time (see [`super::nodes::Window`]).
    pub(crate) start: Expr,
    pub(crate) shape: WindowShape,
}

impl Recognised {
    fn tumbling(start: Expr, length: Length) -> Self {
        Self { start, shape: WindowShape::Tumble(length) }
    }
}

/// The window that `expr`, a group expression over `plan`, stands for, if it is one.
pub(crate) fn recognise(expr: &Expr, plan: &LogicalPlan) -> Result<Option<Recognised>> {
    match expr {
        Expr::Alias(alias) => recognise(&alias.expr, plan),
        Expr::Column(column) => {
            // A bound of a result's window stands for that window: results of one come out together.
            if result_time(expr, plan).is_some() {
                return Ok(Some(Recognised::tumbling(expr.clone(), Length::Ticks(1))));
            }
            let Some((inner, input)) = index_of(column, plan.schema()).and_then(|index| behind(index, plan)) else {
                return Ok(None);
            };
            if let Some(end) = cumulating_end(expr, plan)? {
                return Ok(Some(end));
            }
            // Rows that meet each of their windows tumble through them. Those that begin together are all there at the end of
            // the longest.
            let length = match recognise(&inner, input)?.map(|window| window.shape) {
                Some(WindowShape::Tumble(length)) => length,
                Some(WindowShape::Hop { size, .. } | WindowShape::Cumulate { size, .. }) => Length::Ticks(size),
                _ => return Ok(None),
            };
            Ok(Some(Recognised::tumbling(expr.clone(), length)))
        }
        Expr::ScalarFunction(call) => match call.name() {
            "tumble" | "hop" | "cumulate" | "session"
                if call.args.first().is_some_and(|time| is_bound_of_rows(time, plan)) =>
            {
                Ok(None)
            }
            "tumble" => recognise_tumble(call, plan).map(Some),
            "date_bin" => recognise_date_bin(call, plan),
            "date_trunc" => recognise_date_trunc(call, plan),
            _ if is_overlapping(expr) => recognise_overlapping(call, plan).map(Some),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// The window of rows that meet each of their cumulating windows, if `column` is its end or its last tick: it is told from others
/// by that alone, and may be taken to be as short.
fn cumulating_end(column: &Expr, plan: &LogicalPlan) -> Result<Option<Recognised>> {
    let (cumulating, start) = match (bound_of(column, plan, "window_end"), bound_of(column, plan, "window_time")) {
        (Some(cumulating), _) => (cumulating, last_tick(column.clone())),
        (None, Some(cumulating)) => (cumulating, column.clone()),
        (None, None) => return Ok(None),
    };
    Ok(match shape(&cumulating, &column.get_type(plan.schema())?)? {
        Some(WindowShape::Cumulate { size, offset, .. }) => {
            Some(Recognised { start, shape: WindowShape::LastTick { size, offset } })
        }
        _ => None,
    })
}

/// The call of `cumulate` that an expression is this bound of.
fn bound_of(expr: &Expr, plan: &LogicalPlan, bound: &str) -> Option<ScalarFunction> {
    match expr {
        Expr::Alias(alias) => bound_of(&alias.expr, plan, bound),
        Expr::Column(column) => {
            let (inner, input) = behind(index_of(column, plan.schema())?, plan)?;
            bound_of(&inner, input, bound)
        }
        Expr::ScalarFunction(call) if call.name() == bound => cumulating(call.args.first()?, plan),
        _ => None,
    }
}

/// The call of `cumulate` that an expression is.
fn cumulating(expr: &Expr, plan: &LogicalPlan) -> Option<ScalarFunction> {
    match expr {
        Expr::Alias(alias) => cumulating(&alias.expr, plan),
        Expr::Column(column) => {
            let (inner, input) = behind(index_of(column, plan.schema())?, plan)?;
            cumulating(&inner, input)
        }
        Expr::ScalarFunction(call) if call.name() == "cumulate" => Some(call.clone()),
        _ => None,
    }
}

/// The stream's column that a window's start is computed from.
pub(super) fn time_index(start: &Expr, plan: &LogicalPlan) -> Option<usize> {
    let column = start.column_refs().into_iter().next()?;
    if let Some(found) = trace(&Expr::Column(column.clone()), plan) {
        return Some(found.index);
    }
    let (inner, input) = behind(index_of(column, plan.schema())?, plan)?;
    time_index(&inner, input)
}

/// The expression that makes output column `index` of `plan`, with the plan that it is over.
fn behind(index: usize, plan: &LogicalPlan) -> Option<(Expr, &LogicalPlan)> {
    match below(index, plan)? {
        Below::Computed(expr, input) => Some((expr.clone(), input)),
        Below::Passed(index, input) => behind(index, input),
    }
}

fn recognise_tumble(call: &ScalarFunction, plan: &LogicalPlan) -> Result<Recognised> {
    at_time(call, tumbling(call, plan))
}

fn recognise_overlapping(call: &ScalarFunction, plan: &LogicalPlan) -> Result<Recognised> {
    at_time(call, overlapping(call, plan))
}

/// What is wrong with a window is told at its time column: the planner keeps no other place of a call.
fn at_time<T>(call: &ScalarFunction, result: Result<T>) -> Result<T> {
    result.map_err(|error| Error::locate(error, refuse::place_of(call.args.first())))
}

fn tumbling(call: &ScalarFunction, plan: &LogicalPlan) -> Result<Recognised> {
    let (time, size, last) = match call.args.as_slice() {
        [time, Expr::Literal(size, _)] => (time, size, None),
        [time, Expr::Literal(size, _), Expr::Literal(last, _)] => (time, size, Some(last)),
        _ => return Err(not_constant().into()),
    };
    check_time(time, plan, "tumble")?;
    let length = tumble_length(size, last, &time.get_type(plan.schema())?)?;
    Ok(Recognised::tumbling(Expr::ScalarFunction(call.clone()), length))
}

fn overlapping(call: &ScalarFunction, plan: &LogicalPlan) -> Result<Recognised> {
    let no_window = || internal_datafusion_err!("{} is no window", call.name());
    let time = call.args.first().ok_or_else(no_window)?;
    check_time(time, plan, call.name())?;
    let shape = shape(call, &time.get_type(plan.schema())?)?.ok_or_else(no_window)?;
    let (width, offset) = match shape {
        WindowShape::Hop { offset, .. } | WindowShape::Cumulate { offset, .. } => (shape.pane(), offset),
        _ => (None, 0),
    };
    let start = match width {
        Some(width) => {
            let interval = |ticks| Ok::<_, DataFusionError>(lit(interval_of(ticks, &time.get_type(plan.schema())?)?));
            tumble(vec![interval(width)?, interval(offset)?], time.clone())
        }
        None => time.clone(),
    };
    Ok(Recognised { start, shape })
}

/// Ticks of a time column as an interval.
pub(super) fn interval_of(ticks: i64, time: &DataType) -> Result<ScalarValue> {
    match time {
        DataType::Timestamp(TimeUnit::Second, _) => Ok(ScalarValue::DurationSecond(Some(ticks))),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Ok(ScalarValue::DurationMillisecond(Some(ticks))),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(ScalarValue::DurationMicrosecond(Some(ticks))),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Ok(ScalarValue::DurationNanosecond(Some(ticks))),
        other => Err(internal_datafusion_err!("a window over {other}")),
    }
}

/// Refuses windows over a time that does not say how far a stream has come.
pub(super) fn check_time(time: &Expr, plan: &LogicalPlan, function: &str) -> Result<()> {
    match trace(date_itself(time, plan), plan) {
        Some(column) => check_is_event_time(&column, function),
        None if result_time(time, plan).is_some() => Ok(()),
        None if comes_out_by_time(plan) => Err(Error::refused(
            format!("{function} over what is no bound of the windows below"),
            "how far results have come is known of the windows' ends alone, and of starts but those of sessions",
            format!("select the window's time below, and name it: {function}(window_time, …)"),
        )
        .into()),
        None => Err(Error::refused(
            format!("{function} over a time that is computed"),
            "how far the stream has come is known of its event time alone",
            "name the event-time column itself; an offset is a parameter: tumble(ts, size, offset)",
        )
        .into()),
    }
}

/// Whether a time is a bound of windows that rows of the stream are in, which need not be those that it is asked for.
pub(super) fn is_bound_of_rows(time: &Expr, plan: &LogicalPlan) -> bool {
    match time {
        Expr::Alias(alias) => is_bound_of_rows(&alias.expr, plan),
        Expr::Column(column) => {
            let inner = index_of(column, plan.schema()).and_then(|index| behind(index, plan));
            inner.is_some_and(|(inner, input)| is_bound_of_rows(&inner, input))
        }
        Expr::ScalarFunction(call) if WINDOW_FUNCTIONS.contains(&call.name()) => {
            call.args.first().is_some_and(|time| {
                trace(date_itself(time, plan), plan).is_some_and(|column| column.bears_windows())
                    || is_bound_of_rows(time, plan)
            })
        }
        _ => false,
    }
}

/// A date without the cast to the timestamp that windows start at.
fn date_itself<'a>(time: &'a Expr, plan: &LogicalPlan) -> &'a Expr {
    match time {
        Expr::Cast(cast) if matches!(cast.expr.get_type(plan.schema()), Ok(DataType::Date32 | DataType::Date64)) => {
            &cast.expr
        }
        time => time,
    }
}

fn check_is_event_time(column: &StreamColumn, function: &str) -> Result<()> {
    if column.bears_windows() {
        return Ok(());
    }
    let schema = column.stream.schema();
    let named = schema.field(column.index).name();
    let instead = match column.stream.event_time() {
        Some(time) => format!("its event time is {}: {function}({}, …)", time.column, time.column),
        None => "declare an event time: CREATE STREAM … (WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)".to_string(),
    };
    Err(Error::refused(
        format!("a window on {named}"),
        format!("{named} is not the event time of stream {}", column.stream.name()),
        instead,
    )
    .into())
}

/// `date_bin(interval, ts [, origin])` over the event time.
fn recognise_date_bin(call: &ScalarFunction, plan: &LogicalPlan) -> Result<Option<Recognised>> {
    let (size, time) = match call.args.as_slice() {
        [Expr::Literal(size, _), time, ..] => (size, time),
        _ => return Ok(None),
    };
    if !bears_fixed_bins(time, plan)? {
        return Ok(None);
    }
    if let ScalarValue::IntervalMonthDayNano(Some(size)) = size
        && *size == IntervalMonthDayNano::ZERO
    {
        let error = Error::sql("the size of a window must be positive").at(refuse::place_of([time]));
        return Err(error.help("date_bin(INTERVAL '1 hour', ts)").into());
    }
    // What is no window of a fixed length (a month, less than a tick) stays DataFusion's.
    let Ok(size_ticks) = window_ticks(size, &time.get_type(plan.schema())?) else {
        return Ok(None);
    };
    let start = match call.args.len() {
        2 => tumble(vec![lit(size.clone())], time.clone()),
        _ => Expr::ScalarFunction(call.clone()),
    };
    Ok(Some(Recognised::tumbling(start, Length::Ticks(size_ticks))))
}

/// `date_trunc('hour', ts)` over the event time.
fn recognise_date_trunc(call: &ScalarFunction, plan: &LogicalPlan) -> Result<Option<Recognised>> {
    let [Expr::Literal(unit, _), time] = call.args.as_slice() else {
        return Ok(None);
    };
    if !bears_fixed_bins(time, plan)? {
        return Ok(None);
    }
    let Some(unit) = unit.try_as_str().flatten() else {
        return Ok(None);
    };
    let size_ns = match unit.to_lowercase().as_str() {
        "second" => 1_000_000_000,
        "minute" => 60_000_000_000,
        "hour" => DAY_NS / 24,
        "day" => DAY_NS,
        "week" => 7 * DAY_NS,
        _ => return Ok(None),
    };
    let size = ScalarValue::new_interval_mdn(0, 0, size_ns);
    let Ok(size_ticks) = window_ticks(&size, &time.get_type(plan.schema())?) else {
        return Ok(None);
    };
    // Weeks begin on Mondays and 1970-01-01 was a Thursday, so a week keeps DataFusion's function.
    let start = match unit.to_lowercase().as_str() {
        "week" => Expr::ScalarFunction(call.clone()),
        _ => tumble(vec![lit(size)], time.clone()),
    };
    Ok(Some(Recognised::tumbling(start, Length::Ticks(size_ticks))))
}

/// Whether bins over `time` are windows: it is the event time, and its zone shifts no bin.
fn bears_fixed_bins(time: &Expr, plan: &LogicalPlan) -> Result<bool> {
    let fixed = match time.get_type(plan.schema())? {
        DataType::Timestamp(_, None) => true,
        DataType::Timestamp(_, Some(zone)) => is_utc(&zone),
        _ => false,
    };
    let is_event_time = || trace(time, plan).is_some_and(|column| column.bears_windows());
    Ok(fixed && (is_event_time() || result_time(time, plan).is_some()))
}
