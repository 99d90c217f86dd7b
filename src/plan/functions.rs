//! The scalar functions of tumbling windows: `tumble(ts, size [, offset or zone])`, `window_end(start, size [, zone])`,
//! `window_time(start, size [, zone])`.
//!
//! They are ordinary immutable functions, so the same SQL also runs on plain DataFusion. Windows are aligned to
//! 1970-01-01T00:00:00, or to a time that is `offset` after it, or to a zone's calendar, and half open: a row at exactly
//! `end` belongs to the next one.

use std::sync::{Arc, LazyLock};

use arrow::array::types::{
    ArrowTimestampType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::common::{DFSchema, Result, ScalarValue, internal_datafusion_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::error::Error;
use crate::operator::{Calendar, Length};

use super::interval::{interval_ticks, later, window_length, window_type};
use super::overlapping;

static TUMBLE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(WindowFunction::udf(Kind::Tumble)));

/// All window functions, for a session to register.
pub(crate) fn all_functions() -> Vec<Arc<ScalarUDF>> {
    let end = Arc::new(WindowFunction::udf(Kind::End));
    let time = Arc::new(WindowFunction::udf(Kind::Time));
    let mut all = vec![Arc::clone(&TUMBLE), end, time];
    all.extend(overlapping::functions());
    all
}

/// The expression `tumble(time, …)`.
pub(crate) fn tumble(mut arguments: Vec<Expr>, time: Expr) -> Expr {
    arguments.insert(0, time);
    TUMBLE.call(arguments)
}

/// The expression `window_end(start, size)`.
pub(super) fn window_end(start: Expr, size: Expr) -> Expr {
    WindowFunction::udf(Kind::End).call(vec![start, size])
}

/// The last tick before the end of a window.
pub(crate) fn last_tick(end: Expr) -> Expr {
    WindowFunction::udf(Kind::LastTick).call(vec![end])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// Start of the window that holds a time.
    Tumble,
    /// End of the window that begins at a time.
    End,
    /// The last tick of the window that begins at a time.
    Time,
    /// The last tick before a time.
    LastTick,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowFunction {
    kind: Kind,
    signature: Signature,
}

impl WindowFunction {
    fn new(kind: Kind) -> Self {
        Self { kind, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn udf(kind: Kind) -> ScalarUDF {
        ScalarUDF::new_from_impl(Self::new(kind))
    }
}

impl ScalarUDFImpl for WindowFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Tumble => "tumble",
            Kind::End => "window_end",
            Kind::Time => "window_time",
            Kind::LastTick => "last_tick",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        // Wrong ones stay: `return_type` refuses them, and unlike here its error reaches the user as it is.
        Ok(self.coerced(arg_types).unwrap_or_else(|_| arg_types.to_vec()))
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.coerced(arg_types).map(|mut types| types.swap_remove(0))
    }

    /// Wrong lengths are told when the call is planned, which knows its place.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let coerced = self.coerced(&types)?;
        let parameters: Option<Vec<&ScalarValue>> = args.scalar_arguments.iter().skip(1).copied().collect();
        if let Some(parameters) = parameters.filter(|_| coerced == types) {
            Rule::try_new(self.kind, &parameters, &coerced[0])?;
        }
        Ok(Arc::new(Field::new(self.name(), coerced[0].clone(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some((time, parameters)) = args.args.split_first() else {
            return Err(internal_datafusion_err!("{} without arguments", self.name()));
        };
        let constants: Option<Vec<&ScalarValue>> = parameters.iter().map(constant).collect();
        let constants = constants.ok_or_else(not_constant)?;
        let rule = Rule::try_new(self.kind, &constants, &time.data_type())?;
        match time {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(rule.apply(array)?)),
            ColumnarValue::Scalar(scalar) => {
                let array = rule.apply(&scalar.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
        }
    }
}

fn constant(value: &ColumnarValue) -> Option<&ScalarValue> {
    match value {
        ColumnarValue::Scalar(scalar) => Some(scalar),
        ColumnarValue::Array(_) => None,
    }
}

pub(super) fn not_constant() -> Error {
    Error::sql("the size, the offset and the time zone of a window must be constants")
        .help("write tumble(ts, INTERVAL '1 hour')")
}

impl WindowFunction {
    /// The types that the arguments are cast to.
    fn coerced(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let usage = |message: String| Error::sql(message).help(format!("{}(ts, INTERVAL '1 hour')", self.name()));
        let (time, parameters) = match arg_types {
            [time, parameters @ ..] if self.takes(parameters) => (time, parameters),
            _ => {
                let arguments = match self.kind {
                    Kind::Tumble => "a time column, a size and maybe an offset or a time zone",
                    _ => "the start of a window, its size and maybe its time zone",
                };
                return Err(usage(format!("{} takes {arguments}", self.name())).into());
            }
        };
        let mut types = vec![time_type(time, self.name())?];
        for parameter in parameters {
            types.push(
                parameter_type(parameter)
                    .ok_or_else(|| usage(format!("the size of a window is an interval, not {parameter}")))?,
            );
        }
        Ok(types)
    }

    fn takes(&self, parameters: &[DataType]) -> bool {
        match (self.kind, parameters) {
            (Kind::LastTick, parameters) => parameters.is_empty(),
            (_, [size]) => !size.is_string(),
            (Kind::Tumble, [size, _]) => !size.is_string(),
            (_, [size, zone]) => !size.is_string() && zone.is_string(),
            _ => false,
        }
    }
}

/// The type that a window function's time is cast to.
pub(super) fn time_type(time: &DataType, function: &str) -> Result<DataType> {
    match time {
        DataType::Null => Ok(DataType::Timestamp(TimeUnit::Nanosecond, None)),
        other => window_type(other).ok_or_else(|| {
            Error::sql(format!("{function} needs a timestamp, not {other}"))
                .help("list the column in CREATE STREAM as a TIMESTAMP; for a table, CAST(x AS TIMESTAMP) does")
                .into()
        }),
    }
}

/// The type that an interval or a zone's name is cast to; none for anything else.
pub(super) fn parameter_type(parameter: &DataType) -> Option<DataType> {
    match parameter {
        DataType::Interval(_) => Some(DataType::Interval(IntervalUnit::MonthDayNano)),
        DataType::Duration(_) => Some(parameter.clone()),
        other if other.is_string() => Some(DataType::Utf8),
        _ => None,
    }
}

/// The length of a tumbling window of `size`, whose `last` parameter is a zone or an offset.
///
/// # Errors
/// As [`window_length`], and an offset of windows of the calendar that is none of days or months.
pub(super) fn tumble_length(size: &ScalarValue, last: Option<&ScalarValue>, time: &DataType) -> Result<Length> {
    let zone = last.and_then(|last| last.try_as_str().flatten());
    match (window_length(size, zone, time)?, last) {
        (Length::Calendar(calendar), Some(offset)) if zone.is_none() => {
            later(calendar, offset)?.map(Length::Calendar).ok_or_else(|| offset_of_calendar().into())
        }
        (length, _) => Ok(length),
    }
}

fn offset_of_calendar() -> Error {
    Error::refused(
        "an offset in other units than those of its calendar windows",
        "days and months begin when the zone's clocks say so, and differ in length",
        "whole days or months: tumble(ts, INTERVAL '1 year', INTERVAL '3 months'); or another time zone: tumble(ts, INTERVAL '1 day', '+02:00')",
    )
}

/// The length that the parameters of `window_end` and `window_time` speak of.
pub(super) fn length_of_bound(parameters: &[ScalarValue], time: &DataType) -> Option<Length> {
    let (size, rest) = parameters.split_first()?;
    tumble_length(size, rest.first(), time).ok()
}

/// How long after a multiple of their size the windows begin whose start is a call of `tumble`.
pub(super) fn tumble_offset(start: &Expr, input: &DFSchema) -> Option<i64> {
    let Expr::ScalarFunction(call) = start else { return None };
    let (time, parameters) = call.args.split_first().filter(|_| call.func == *TUMBLE)?;
    let parameter = |parameter: &Expr| match parameter {
        Expr::Literal(value, _) => Some(value.clone()),
        _ => None,
    };
    let parameters: Vec<ScalarValue> = parameters.iter().map(parameter).collect::<Option<_>>()?;
    let parameters: Vec<&ScalarValue> = parameters.iter().collect();
    match Rule::try_new(Kind::Tumble, &parameters, &time_type(&time.get_type(input).ok()?, "tumble").ok()?).ok()? {
        Rule::Start { offset, .. } => Some(offset),
        _ => None,
    }
}

/// How a time becomes the bound of a window.
enum Rule {
    Start { size: i64, offset: i64 },
    CalendarStart(Calendar),
    End(Length),
    Time(Length),
    LastTick,
}

impl Rule {
    fn try_new(kind: Kind, parameters: &[&ScalarValue], time: &DataType) -> Result<Self> {
        let (size, last) = match parameters {
            [] => return Ok(Self::LastTick),
            [size, rest @ ..] => (size, rest.first()),
        };
        Ok(match (kind, tumble_length(size, last.copied(), time)?) {
            (Kind::End, length) => Self::End(length),
            (Kind::Time, length) => Self::Time(length),
            (_, Length::Calendar(calendar)) => Self::CalendarStart(calendar),
            (_, Length::Ticks(size)) => {
                let offset = last.filter(|last| last.try_as_str().is_none());
                let offset = offset.map_or(Ok(0), |offset| interval_ticks(offset, time))?;
                Self::Start { size, offset: offset.rem_euclid(size) }
            }
        })
    }

    fn apply(&self, times: &ArrayRef) -> Result<ArrayRef> {
        match times.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => self.apply_typed::<TimestampSecondType>(times),
            DataType::Timestamp(TimeUnit::Millisecond, _) => self.apply_typed::<TimestampMillisecondType>(times),
            DataType::Timestamp(TimeUnit::Microsecond, _) => self.apply_typed::<TimestampMicrosecondType>(times),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => self.apply_typed::<TimestampNanosecondType>(times),
            other => Err(internal_datafusion_err!("a window over {other}")),
        }
    }

    fn apply_typed<T: ArrowTimestampType>(&self, times: &ArrayRef) -> Result<ArrayRef> {
        let times = times.as_primitive::<T>();
        let over_all = |values: Vec<i64>| PrimitiveArray::<T>::new(values.into(), times.nulls().cloned());
        let results = match self {
            Self::Start { size, offset } => over_all(window_starts(times.values(), *size, *offset)),
            Self::CalendarStart(calendar) => over_all(calendar_starts(times, calendar)?),
            Self::End(length) => times.unary(|start| length.end(start)),
            Self::Time(length) => times.unary(|start| length.end(start).saturating_sub(1)),
            Self::LastTick => times.unary(|end| end.saturating_sub(1)),
        };
        Ok(Arc::new(results.with_timezone_opt(times.timezone())))
    }
}

/// Times that are looked at together.
const BLOCK: usize = 256;

/// Start of each time's window. Neighbouring rows mostly share one, so a block of them is compared with the bounds of the
/// last one, and a row with those of its neighbour's before it is divided.
fn window_starts(times: &[i64], size: i64, offset: i64) -> Vec<i64> {
    let (mut start, mut end) = (0, 0);
    let offset = offset.rem_euclid(size);
    let wide = |time: i64| (i128::from(time) - i128::from(offset)).rem_euclid(i128::from(size)) as i64;
    let mut starts = Vec::with_capacity(times.len());
    for block in times.chunks(BLOCK) {
        if all_between(block, start, end) {
            starts.resize(starts.len() + block.len(), start);
            continue;
        }
        starts.extend(block.iter().map(|&time| {
            if time < start || time >= end {
                // Both bounds from the time itself: at the ends of the number range one of them may saturate.
                let into = time.checked_sub(offset).map_or_else(|| wide(time), |time| time.rem_euclid(size));
                start = time.saturating_sub(into);
                end = time.saturating_add(size - into);
            }
            start
        }));
    }
    starts
}

/// Whether all times are in [start, end); in doubt it says no. The sign of a difference tells, for which every processor
/// has an instruction for several times at once.
fn all_between(times: &[i64], start: i64, end: i64) -> bool {
    let last = end.wrapping_sub(1);
    // Far from the ends of the number range, so that of the two differences of a time outside one stays negative.
    const FAR: std::ops::Range<i64> = i64::MIN / 4..i64::MAX / 4;
    let signs = times.iter().fold(0, |signs, time| signs | time.wrapping_sub(start) | last.wrapping_sub(*time));
    FAR.contains(&start) && FAR.contains(&last) && signs >= 0
}

/// The same by the calendar.
fn calendar_starts<T: ArrowTimestampType>(times: &PrimitiveArray<T>, calendar: &Calendar) -> Result<Vec<i64>> {
    let (mut start, mut end) = (0, 0);
    let start_of = |time: Option<i64>| {
        let Some(time) = time else { return Ok(0) };
        if time < start || time >= end {
            (start, end) = calendar.window(time).ok_or_else(|| {
                let years = if T::UNIT == TimeUnit::Nanosecond { ("1678", "2262") } else { ("0001", "9999") };
                let (first, last) = years;
                Error::sql(format!("{} has no bounds for the window of the event time {time}", times.data_type()))
                    .help(format!("leave such rows out: WHERE ts BETWEEN '{first}-01-01' AND '{last}-01-01'"))
            })?;
        }
        Ok(start)
    };
    times.iter().map(start_of).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn starts_are_multiples_just_below(
            times in prop::collection::vec(any::<i64>(), 0..300), size in 1..i64::MAX, offset in any::<i64>(),
        ) {
            for (time, start) in times.iter().zip(window_starts(&times, size, offset)) {
                let (time, size, offset) = (i128::from(*time), i128::from(size), i128::from(offset));
                let expected = (time - offset).div_euclid(size) * size + offset;
                prop_assert_eq!(start, expected.max(i128::from(i64::MIN)) as i64);
            }
        }

        #[test]
        fn neighbours_share_windows(base in -1_000_000i64..1_000_000, steps in prop::collection::vec(-2i64..3, 1..999), size in 1i64..90) {
            let times: Vec<i64> = steps.iter().scan(base, |time, step| { *time += step; Some(*time) }).collect();
            for (time, start) in times.iter().zip(window_starts(&times, size, 0)) {
                prop_assert!(start <= *time && *time < start + size && start.rem_euclid(size) == 0);
            }
        }
    }

    #[test]
    fn wrong_arguments_are_told_as_they_are() {
        let tumble = WindowFunction::new(Kind::Tumble);
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let cases = [
            (vec![DataType::Interval(IntervalUnit::MonthDayNano)], "tumble takes a time column, a size and maybe"),
            (vec![micros, DataType::Int64], "the size of a window is an interval, not Int64"),
            (vec![DataType::Int64, DataType::Interval(IntervalUnit::MonthDayNano)], "tumble needs a timestamp"),
        ];
        for (arguments, message) in cases {
            assert_eq!(tumble.coerce_types(&arguments).unwrap(), arguments);
            let error = tumble.return_type(&arguments).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
