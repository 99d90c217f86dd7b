//! Intervals as lengths of windows, in ticks of the event-time column.

use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Result, ScalarValue};

use crate::error::Error;
use crate::operator::{Calendar, Length, Span, ticks_per_second};

/// The longest window of a calendar.
const MAX_YEARS: u32 = 10_000;
const DAY_NS: i128 = 86_400_000_000_000;

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

/// The length of a tumbling window over a column of type `time`: days and months are those of `zone`, or of the zone
/// that the column has.
///
/// # Errors
/// Lengths that are not positive, that mix months, days and shorter units where these have no fixed ratio, or that are
/// no whole number of ticks; an unknown zone.
pub(crate) fn window_length(size: &ScalarValue, zone: Option<&str>, time: &DataType) -> Result<Length> {
    let Some(DataType::Timestamp(unit, own_zone)) = window_type(time) else {
        return Err(no_times(time).into());
    };
    let zone = zone.or(own_zone.as_deref()).filter(|zone| !is_utc(zone)).unwrap_or("+00:00");
    let known = zone.parse::<Tz>().map_err(|_| {
        Error::sql(format!("unknown time zone '{zone}'")).help("a name like 'America/New_York', or '+01:00'")
    })?;
    let parts = Parts::of(size)?;
    let span = match parts {
        Parts { months: 0, days: 0, .. } => None,
        Parts { months: 0, nanoseconds: 0, days } => (zone != "+00:00").then(|| positive(days).map(Span::Days)),
        Parts { months: 0, .. } if zone == "+00:00" => None,
        Parts { months, days: 0, nanoseconds: 0 } => Some(positive(months).map(Span::Months)),
        _ => {
            return Err(Error::refused(
                "a window that mixes months, days and hours",
                "months differ in length, and so do days of a time zone",
                "INTERVAL '1 month', INTERVAL '7 days' or INTERVAL '36 hours'",
            )
            .into());
        }
    };
    match span.transpose()? {
        None => Ok(Length::Ticks(positive_ticks(parts.ticks(unit, time)?)?)),
        Some(Span::Days(days)) if days > MAX_YEARS * 365 => Err(too_long().into()),
        Some(Span::Months(months)) if months > MAX_YEARS * 12 => Err(too_long().into()),
        Some(span) => {
            Ok(Length::Calendar(Calendar { span, offset: 0, zone: known, ticks_per_second: ticks_per_second(unit) }))
        }
    }
}

/// Windows of the calendar that begin an interval of whole days or months later, as they are counted; none if it is another.
///
/// # Errors
/// What is no interval.
pub(super) fn later(windows: Calendar, offset: &ScalarValue) -> Result<Option<Calendar>> {
    let (offset, span) = match (Parts::of(offset)?, windows.span) {
        (Parts { months: 0, days, nanoseconds: 0 }, Span::Days(span)) => (days, span),
        (Parts { months, days: 0, nanoseconds: 0 }, Span::Months(span)) => (months, span),
        _ => return Ok(None),
    };
    let offset = i64::from(offset).rem_euclid(i64::from(span)) as u32;
    Ok(Some(Calendar { offset, ..windows }))
}

fn too_long() -> Error {
    Error::refused(
        format!("a window of more than {MAX_YEARS} years of the calendar"),
        "no calendar reaches to its ends",
        "a shorter window, or a GROUP BY without one",
    )
}

/// A length in ticks of a column of type `time`.
///
/// # Errors
/// As [`window_length`], and lengths that the calendar decides about.
pub(crate) fn window_ticks(size: &ScalarValue, time: &DataType) -> Result<i64> {
    positive_ticks(interval_ticks(size, time)?)
}

/// An interval in ticks of a column of type `time`.
///
/// # Errors
/// Intervals that the calendar decides about, or that are no whole number of ticks.
pub(crate) fn interval_ticks(interval: &ScalarValue, time: &DataType) -> Result<i64> {
    let Some(DataType::Timestamp(unit, zone)) = window_type(time) else {
        return Err(no_times(time).into());
    };
    let parts = Parts::of(interval)?;
    if parts.months != 0 {
        return Err(Error::refused(
            "an interval of months in hop, cumulate, session or an offset",
            "months differ in length, so panes, gaps and offsets cannot be counted in them",
            "INTERVAL '30 days', or tumble(ts, INTERVAL '1 month')",
        )
        .into());
    }
    if parts.days != 0 && !zone.as_deref().is_none_or(is_utc) {
        return Err(Error::refused(
            "an interval of a time zone's days in hop, cumulate, session or an offset",
            "such days differ in length, so panes, gaps and offsets cannot be counted in them",
            "INTERVAL '24 hours', or tumble(ts, INTERVAL '1 day')",
        )
        .into());
    }
    parts.ticks(unit, time)
}

/// An interval by units that have no fixed ratio.
struct Parts {
    months: i32,
    days: i32,
    nanoseconds: i128,
}

impl Parts {
    fn of(interval: &ScalarValue) -> Result<Self> {
        let short = |count: i64, unit_ns: i128| Self { months: 0, days: 0, nanoseconds: i128::from(count) * unit_ns };
        Ok(match interval {
            ScalarValue::IntervalMonthDayNano(Some(value)) => {
                Self { months: value.months, days: value.days, nanoseconds: i128::from(value.nanoseconds) }
            }
            ScalarValue::IntervalDayTime(Some(value)) => {
                Self { days: value.days, ..short(i64::from(value.milliseconds), 1_000_000) }
            }
            ScalarValue::IntervalYearMonth(Some(months)) => Self { months: *months, ..short(0, 0) },
            ScalarValue::DurationSecond(Some(value)) => short(*value, 1_000_000_000),
            ScalarValue::DurationMillisecond(Some(value)) => short(*value, 1_000_000),
            ScalarValue::DurationMicrosecond(Some(value)) => short(*value, 1_000),
            ScalarValue::DurationNanosecond(Some(value)) => short(*value, 1),
            other => return Err(Error::sql(format!("the size of a window is an interval, not {other}")).into()),
        })
    }

    /// Days and shorter units in ticks of a column of type `time`.
    fn ticks(&self, unit: TimeUnit, time: &DataType) -> Result<i64> {
        let size_ns = i128::from(self.days) * DAY_NS + self.nanoseconds;
        let tick_ns = i128::from(1_000_000_000 / ticks_per_second(unit));
        if size_ns % tick_ns != 0 {
            return Err(Error::sql(format!("a window of {size_ns} ns is no whole number of ticks of {time}"))
                .help("take a larger size, or list the column in CREATE STREAM with a finer type: ts TIMESTAMP(3)")
                .into());
        }
        i64::try_from(size_ns / tick_ns).map_err(|_| Error::sql("the size of a window is too large").into())
    }
}

fn positive_ticks(ticks: i64) -> Result<i64> {
    if ticks > 0 { Ok(ticks) } else { Err(not_positive().into()) }
}

fn positive(count: i32) -> Result<u32> {
    u32::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| not_positive().into())
}

fn not_positive() -> Error {
    Error::sql("the size of a window must be positive").help("INTERVAL '1 hour'")
}

fn no_times(time: &DataType) -> Error {
    Error::sql(format!("windows need a timestamp, not {time}"))
}

/// Whether a time zone's days all have 24 hours and begin with those of UTC.
pub(crate) fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "utc" | "Z" | "+00:00" | "+0000" | "+00" | "Etc/UTC" | "GMT" | "Etc/GMT" | "Zulu")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(months: i32, days: i32, nanoseconds: i64) -> ScalarValue {
        ScalarValue::new_interval_mdn(months, days, nanoseconds)
    }

    fn micros(zone: Option<&str>) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into))
    }

    #[test]
    fn sizes_are_counted_in_ticks_of_the_column() {
        let ticks = |size, zone| match window_length(&size, None, &micros(zone)).unwrap() {
            Length::Ticks(ticks) => ticks,
            Length::Calendar(calendar) => panic!("{calendar}"),
        };
        assert_eq!(ticks(interval(0, 1, 1000), None), 86_400_000_001);
        assert_eq!(ticks(interval(0, 1, 0), Some("UTC")), 86_400_000_000);
        assert_eq!(ticks(interval(0, 0, 7_000), Some("Europe/Berlin")), 7);
    }

    #[test]
    fn days_of_a_zone_and_months_are_those_of_the_calendar() {
        let calendar = |size, zone: Option<&str>, own| match window_length(&size, zone, &micros(own)).unwrap() {
            Length::Ticks(ticks) => ticks.to_string(),
            Length::Calendar(calendar) => calendar.to_string(),
        };
        assert_eq!(calendar(interval(0, 1, 0), None, Some("Europe/Berlin")), "1 days in Europe/Berlin");
        assert_eq!(calendar(interval(0, 7, 0), Some("America/New_York"), None), "7 days in America/New_York");
        assert_eq!(calendar(interval(0, 1, 0), Some("UTC"), Some("Europe/Berlin")), "86400000000");
        assert_eq!(calendar(interval(12, 0, 0), None, None), "12 months in +00:00");
    }

    #[test]
    fn impossible_sizes_are_refused_with_the_reason() {
        let cases = [
            (interval(0, 0, 0), micros(None), "must be positive"),
            (interval(0, -1, 0), micros(None), "must be positive"),
            (interval(-1, 0, 0), micros(None), "must be positive"),
            (interval(1, 1, 0), micros(None), "mixes months, days and hours"),
            (interval(0, 1, 1000), micros(Some("America/New_York")), "mixes months, days and hours"),
            (interval(0, 0, 500), micros(None), "no whole number of ticks"),
            (interval(0, 1, 0), micros(Some("Mars/Olympus")), "unknown time zone"),
        ];
        for (size, time, message) in cases {
            let error = window_length(&size, None, &time).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
