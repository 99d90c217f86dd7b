//! The scalar functions of windows: `tumble(ts, size [, offset])`, `window_end(start, size)`, `window_time(start, size)`.
//!
//! They are ordinary immutable functions, so the same SQL also runs on plain DataFusion. Windows are aligned to
//! 1970-01-01T00:00:00, or to a time that is `offset` after it, and half open: a row at exactly `end` belongs to the
//! next one.

use std::sync::{Arc, LazyLock};

use arrow::array::types::{
    ArrowTimestampType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::Error;

const DAY_NS: i128 = 86_400_000_000_000;

static TUMBLE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(WindowFunction::udf(Kind::Tumble)));

/// All window functions, for a session to register.
pub(crate) fn all_functions() -> Vec<Arc<ScalarUDF>> {
    let end = Arc::new(WindowFunction::udf(Kind::End));
    let time = Arc::new(WindowFunction::udf(Kind::Time));
    vec![Arc::clone(&TUMBLE), end, time]
}

/// The expression `tumble(time, size)`.
pub(crate) fn tumble(time: Expr, size: Expr) -> Expr {
    TUMBLE.call(vec![time, size])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// Start of the window that holds a time.
    Tumble,
    /// End of the window that begins at a time.
    End,
    /// The last tick of the window that begins at a time.
    Time,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowFunction {
    kind: Kind,
    signature: Signature,
}

impl WindowFunction {
    fn udf(kind: Kind) -> ScalarUDF {
        ScalarUDF::new_from_impl(Self { kind, signature: Signature::user_defined(Volatility::Immutable) })
    }
}

impl ScalarUDFImpl for WindowFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Tumble => "tumble",
            Kind::End => "window_end",
            Kind::Time => "window_time",
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

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (time, size, offset) = match args.args.as_slice() {
            [time, ColumnarValue::Scalar(size)] => (time, size, None),
            [time, ColumnarValue::Scalar(size), ColumnarValue::Scalar(offset)] => (time, size, Some(offset)),
            _ => return Err(Error::sql("the size and the offset of a window must be constant intervals").into()),
        };
        let data_type = time.data_type();
        let size = window_size_ticks(size, &data_type)?;
        let offset = offset.map_or(Ok(0), |offset| interval_ticks(offset, &data_type))?;
        match time {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(self.apply(array, size, offset)?)),
            ColumnarValue::Scalar(scalar) => {
                let array = self.apply(&scalar.to_array()?, size, offset)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
        }
    }
}

impl WindowFunction {
    /// The types that the arguments are cast to.
    fn coerced(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let (time, intervals) = match arg_types {
            [time, intervals @ ..] if self.takes(intervals.len()) => (time, intervals),
            _ => {
                return Err(Error::sql(format!("{} takes a time column and a size", self.name()))
                    .help(format!("{}(ts, INTERVAL '1 hour')", self.name()))
                    .into());
            }
        };
        let time = match time {
            DataType::Null => DataType::Timestamp(TimeUnit::Nanosecond, None),
            other => window_type(other).ok_or_else(|| {
                Error::sql(format!("{} needs a timestamp, not {other}", self.name()))
                    .help("cast it: CAST(x AS TIMESTAMP), or to_timestamp(x)")
            })?,
        };
        let mut types = vec![time];
        for interval in intervals {
            types.push(match interval {
                DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
                DataType::Duration(_) => interval.clone(),
                other => {
                    return Err(Error::sql(format!("the size of a window is an interval, not {other}"))
                        .help(format!("{}(ts, INTERVAL '1 hour')", self.name()))
                        .into());
                }
            });
        }
        Ok(types)
    }

    fn takes(&self, intervals: usize) -> bool {
        intervals == 1 || intervals == 2 && self.kind == Kind::Tumble
    }

    fn apply(&self, times: &ArrayRef, size: i64, offset: i64) -> Result<ArrayRef> {
        Ok(match times.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => self.apply_typed::<TimestampSecondType>(times, size, offset),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                self.apply_typed::<TimestampMillisecondType>(times, size, offset)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                self.apply_typed::<TimestampMicrosecondType>(times, size, offset)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                self.apply_typed::<TimestampNanosecondType>(times, size, offset)
            }
            other => return Err(internal_datafusion_err!("{} over {other}", self.name())),
        })
    }

    fn apply_typed<T: ArrowTimestampType>(&self, times: &ArrayRef, size: i64, offset: i64) -> ArrayRef {
        let times = times.as_primitive::<T>();
        let results: PrimitiveArray<T> = match self.kind {
            Kind::Tumble => {
                PrimitiveArray::new(window_starts(times.values(), size, offset).into(), times.nulls().cloned())
            }
            Kind::End => times.unary(|start| start.saturating_add(size)),
            Kind::Time => times.unary(|start| start.saturating_add(size).saturating_sub(1)),
        };
        Arc::new(results.with_timezone_opt(times.timezone()))
    }
}

/// Start of each time's window. Neighbouring rows mostly share one, so bounds are compared before dividing.
fn window_starts(times: &[i64], size: i64, offset: i64) -> Vec<i64> {
    let (mut start, mut end) = (0, 0);
    let offset = i128::from(offset.rem_euclid(size));
    let start_of = |time: &i64| {
        if *time < start || *time >= end {
            // Both bounds from the time itself: at the ends of the number range one of them may saturate.
            let into = (i128::from(*time) - offset).rem_euclid(i128::from(size)) as i64;
            start = time.saturating_sub(into);
            end = time.saturating_add(size - into);
        }
        start
    };
    times.iter().map(start_of).collect()
}

/// The type of the starts of windows over a column; none if it holds no times.
pub(crate) fn window_type(time: &DataType) -> Option<DataType> {
    match time {
        DataType::Timestamp(_, _) => Some(time.clone()),
        // Every date is a whole number of seconds.
        DataType::Date32 => Some(DataType::Timestamp(TimeUnit::Second, None)),
        DataType::Date64 => Some(DataType::Timestamp(TimeUnit::Millisecond, None)),
        _ => None,
    }
}

/// The size of a window in ticks of the time column's type.
///
/// # Errors
/// Sizes that are not positive, that hold months, or that are no whole number of ticks; whole days over a column
/// whose zone has days of other lengths.
pub(crate) fn window_size_ticks(size: &ScalarValue, time: &DataType) -> Result<i64> {
    match interval_ticks(size, time)? {
        size if size > 0 => Ok(size),
        _ => Err(Error::sql("the size of a window must be positive").help("INTERVAL '1 hour'").into()),
    }
}

/// An interval in ticks of the time column's type.
pub(crate) fn interval_ticks(interval: &ScalarValue, time: &DataType) -> Result<i64> {
    let Some(DataType::Timestamp(unit, zone)) = window_type(time) else {
        return Err(Error::sql(format!("windows need a timestamp, not {time}")).into());
    };
    let size_ns = size_ns(interval, zone.as_deref())?;
    let tick_ns = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    if size_ns % tick_ns != 0 {
        return Err(Error::sql(format!("a window of {size_ns} ns is no whole number of ticks of {time}"))
            .help("take a larger size, or cast the column to a finer unit")
            .into());
    }
    i64::try_from(size_ns / tick_ns).map_err(|_| Error::sql("the size of a window is too large").into())
}

fn size_ns(size: &ScalarValue, zone: Option<&str>) -> Result<i128> {
    let (months, days, nanoseconds) = match size {
        ScalarValue::IntervalMonthDayNano(Some(value)) => (value.months, value.days, value.nanoseconds),
        ScalarValue::IntervalDayTime(Some(value)) => (0, value.days, i64::from(value.milliseconds) * 1_000_000),
        ScalarValue::IntervalYearMonth(Some(months)) => (*months, 0, 0),
        ScalarValue::DurationSecond(Some(value)) => return Ok(i128::from(*value) * 1_000_000_000),
        ScalarValue::DurationMillisecond(Some(value)) => return Ok(i128::from(*value) * 1_000_000),
        ScalarValue::DurationMicrosecond(Some(value)) => return Ok(i128::from(*value) * 1_000),
        ScalarValue::DurationNanosecond(Some(value)) => return Ok(i128::from(*value)),
        other => return Err(Error::sql(format!("the size of a window is an interval, not {other}")).into()),
    };
    if months != 0 {
        return Err(Error::refused(
            "a window over months",
            "months differ in length, and tumble cuts equal windows",
            "tumble(ts, INTERVAL '30 days'), or GROUP BY date_trunc('month', ts)",
        )
        .into());
    }
    if days != 0 && !zone.is_none_or(is_utc) {
        return Err(Error::refused(
            "a window over days of a local time zone",
            "such a day begins at the zone's midnight, and tumble cuts equal spans of time from 1970-01-01T00:00Z on",
            "INTERVAL '24 hours' cuts instants, or GROUP BY date_trunc('day', ts)",
        )
        .into());
    }
    Ok(i128::from(days) * DAY_NS + i128::from(nanoseconds))
}

/// Whether a time zone's days all have 24 hours.
pub(crate) fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "utc" | "Z" | "+00:00" | "+0000" | "+00" | "Etc/UTC" | "GMT" | "Etc/GMT" | "Zulu")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(months: i32, days: i32, nanoseconds: i64) -> ScalarValue {
        ScalarValue::new_interval_mdn(months, days, nanoseconds)
    }

    fn micros(zone: Option<&str>) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into))
    }

    proptest! {
        #[test]
        fn starts_are_multiples_just_below(
            times in prop::collection::vec(any::<i64>(), 0..50), size in 1..i64::MAX, offset in any::<i64>(),
        ) {
            for (time, start) in times.iter().zip(window_starts(&times, size, offset)) {
                let (time, size, offset) = (i128::from(*time), i128::from(size), i128::from(offset));
                let expected = (time - offset).div_euclid(size) * size + offset;
                prop_assert_eq!(start, expected.max(i128::from(i64::MIN)) as i64);
            }
        }

        #[test]
        fn neighbours_share_windows(base in -1_000_000i64..1_000_000, steps in prop::collection::vec(-5i64..20, 1..99), size in 1i64..50) {
            let times: Vec<i64> = steps.iter().scan(base, |time, step| { *time += step; Some(*time) }).collect();
            for (time, start) in times.iter().zip(window_starts(&times, size, 0)) {
                prop_assert!(start <= *time && *time < start + size && start.rem_euclid(size) == 0);
            }
        }
    }

    #[test]
    fn sizes_are_counted_in_ticks_of_the_column() {
        assert_eq!(window_size_ticks(&interval(0, 1, 1000), &micros(None)).unwrap(), 86_400_000_001);
        assert_eq!(window_size_ticks(&interval(0, 1, 0), &micros(Some("UTC"))).unwrap(), 86_400_000_000);
        assert_eq!(window_size_ticks(&interval(0, 0, 7_000), &micros(Some("Europe/Berlin"))).unwrap(), 7);
    }

    #[test]
    fn wrong_arguments_are_told_as_they_are() {
        let tumble = WindowFunction { kind: Kind::Tumble, signature: Signature::user_defined(Volatility::Immutable) };
        let cases = [
            (vec![DataType::Interval(IntervalUnit::MonthDayNano)], "tumble takes a time column and a size"),
            (vec![micros(None), DataType::Int64], "the size of a window is an interval, not Int64"),
            (vec![DataType::Int64, DataType::Interval(IntervalUnit::MonthDayNano)], "tumble needs a timestamp"),
        ];
        for (arguments, message) in cases {
            assert_eq!(tumble.coerce_types(&arguments).unwrap(), arguments);
            let error = tumble.return_type(&arguments).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn impossible_sizes_are_refused_with_the_reason() {
        let cases = [
            (interval(0, 0, 0), micros(None), "must be positive"),
            (interval(0, -1, 0), micros(None), "must be positive"),
            (interval(1, 0, 0), micros(None), "months differ in length"),
            (interval(0, 0, 500), micros(None), "no whole number of ticks"),
            (interval(0, 1, 0), micros(Some("America/New_York")), "days of a local time zone"),
        ];
        for (size, time, message) in cases {
            let error = window_size_ticks(&size, &time).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
