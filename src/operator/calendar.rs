//! Windows of days and months as a calendar has them: 23 to 25 hours, 28 to 31 days.

use std::fmt;
use std::hash::{Hash, Hasher};

use arrow::array::timezone::Tz;
use arrow::datatypes::TimeUnit;
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};

/// Whole days or months of a time zone, counted from 1970-01-01 there, or from as many days or months later.
#[derive(Debug, Clone)]
pub(crate) struct Calendar {
    pub(crate) span: Span,
    /// Days of days, months of months; less than the span has.
    pub(crate) offset: u32,
    pub(crate) zone: Tz,
    /// Ticks of a second, of the event-time column.
    pub(crate) ticks_per_second: i64,
}

/// How many of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Span {
    Days(u32),
    Months(u32),
}

impl Calendar {
    /// The window that holds a time, in ticks; none if a calendar does not reach that far.
    pub(crate) fn window(&self, time: i64) -> Option<(i64, i64)> {
        let date = self.date(time)?;
        let offset = i64::from(self.offset);
        let first_of = |number: i64, span: u32| {
            let whole = (number - offset).div_euclid(i64::from(span)).checked_mul(i64::from(span))?;
            whole.checked_add(offset)
        };
        let first = match self.span {
            Span::Days(days) => {
                let number = date.signed_duration_since(NaiveDate::default()).num_days();
                add_days(NaiveDate::default(), first_of(number, days)?)?
            }
            Span::Months(months) => {
                let number = i64::from(date.year() - 1970) * 12 + i64::from(date.month0());
                first_of_month(first_of(number, months)?)?
            }
        };
        Some((self.midnight(first)?, self.midnight(self.following(first)?)?))
    }

    /// The end of the window that begins at a time, whatever the offset.
    pub(crate) fn end(&self, start: i64) -> i64 {
        let end = self.date(start).and_then(|first| self.midnight(self.following(first)?));
        end.unwrap_or(i64::MAX)
    }

    /// About how long a window is, in ticks.
    pub(crate) fn typical(&self) -> i64 {
        let days = match self.span {
            Span::Days(days) => i64::from(days),
            Span::Months(months) => i64::from(months) * 30,
        };
        days.saturating_mul(86_400).saturating_mul(self.ticks_per_second)
    }

    /// The day that the zone's clocks show at a time.
    fn date(&self, time: i64) -> Option<NaiveDate> {
        let seconds = time.div_euclid(self.ticks_per_second);
        let instant = DateTime::<Utc>::from_timestamp(seconds, 0)?;
        Some(instant.with_timezone(&self.zone).date_naive())
    }

    fn following(&self, first: NaiveDate) -> Option<NaiveDate> {
        match self.span {
            Span::Days(days) => first.checked_add_days(Days::new(u64::from(days))),
            Span::Months(months) => {
                first_of_month(i64::from(first.year() - 1970) * 12 + i64::from(first.month0()) + i64::from(months))
            }
        }
    }

    /// The first instant of a day. Where clocks skip midnight, the day begins when they show the next time.
    fn midnight(&self, date: NaiveDate) -> Option<i64> {
        let midnight = date.and_time(NaiveTime::MIN);
        let quarters = (0..=12).map(|quarters| midnight + TimeDelta::minutes(15 * quarters));
        let first = quarters.into_iter().find_map(|time| self.zone.from_local_datetime(&time).earliest())?;
        first.timestamp().checked_mul(self.ticks_per_second)
    }
}

fn add_days(date: NaiveDate, days: i64) -> Option<NaiveDate> {
    date.checked_add_signed(TimeDelta::try_days(days)?)
}

/// The first day of a month, counted from January 1970.
fn first_of_month(number: i64) -> Option<NaiveDate> {
    let year = i32::try_from(number.div_euclid(12) + 1970).ok()?;
    NaiveDate::from_ymd_opt(year, number.rem_euclid(12) as u32 + 1, 1)
}

/// Ticks of a second.
pub(crate) fn ticks_per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

// A zone has no equality of its own, but a name.
impl PartialEq for Calendar {
    fn eq(&self, other: &Self) -> bool {
        let same_zone = self.zone.to_string() == other.zone.to_string();
        let same_days = (self.span, self.offset) == (other.span, other.offset);
        same_days && self.ticks_per_second == other.ticks_per_second && same_zone
    }
}
impl Eq for Calendar {}
impl Hash for Calendar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.span, self.offset, self.ticks_per_second, self.zone.to_string()).hash(state);
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self.span {
            Span::Days(days) => (days, "days"),
            Span::Months(months) => (months, "months"),
        };
        write!(f, "{count} {unit} in {}", self.zone)?;
        if self.offset > 0 { write!(f, ", {} {unit} later", self.offset) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(span: Span, zone: &str) -> Calendar {
        Calendar { span, offset: 0, zone: zone.parse().unwrap(), ticks_per_second: 1 }
    }

    fn window(calendar: &Calendar, time: &str) -> (String, String) {
        let time = DateTime::parse_from_rfc3339(time).unwrap().timestamp();
        let (start, end) = calendar.window(time).unwrap();
        assert!(start <= time && time < end);
        assert_eq!((calendar.end(start), Calendar { offset: 0, ..calendar.clone() }.end(start)), (end, end));
        assert_eq!(calendar.window(start), Some((start, end)));
        assert_eq!(calendar.window(end - 1), Some((start, end)));
        let text = |time| DateTime::<Utc>::from_timestamp(time, 0).unwrap().to_rfc3339();
        (text(start), text(end))
    }

    #[test]
    fn days_follow_the_clocks_of_the_zone() {
        let days = calendar(Span::Days(1), "America/New_York");
        let hours = |time: &str| {
            let (start, end) = window(&days, time);
            let parse = |text: &str| DateTime::parse_from_rfc3339(text).unwrap();
            (parse(&end) - parse(&start)).num_hours()
        };
        assert_eq!(hours("2013-03-10T12:00:00Z"), 23);
        assert_eq!(hours("2013-11-03T12:00:00Z"), 25);
        assert_eq!(hours("2013-07-04T03:59:59Z"), 24);
        assert_eq!(window(&days, "2013-07-04T03:59:59Z").0, "2013-07-03T04:00:00+00:00");
    }

    #[test]
    fn a_day_without_midnight_begins_later() {
        // Clocks in Beirut went from 00:00 to 01:00 on 2021-03-28.
        let days = calendar(Span::Days(1), "Asia/Beirut");
        assert_eq!(window(&days, "2021-03-28T10:00:00Z").0, "2021-03-27T22:00:00+00:00");
    }

    #[test]
    fn months_and_years_are_those_of_the_calendar() {
        let months = calendar(Span::Months(1), "UTC");
        let february = ("2024-02-01T00:00:00+00:00".to_string(), "2024-03-01T00:00:00+00:00".to_string());
        assert_eq!(window(&months, "2024-02-29T23:59:59Z"), february);
        let years = calendar(Span::Months(12), "UTC");
        assert_eq!(window(&years, "1969-12-31T23:00:00Z").0, "1969-01-01T00:00:00+00:00");
        let quarters = calendar(Span::Months(3), "Europe/Berlin");
        assert_eq!(window(&quarters, "2024-05-01T00:00:00Z").0, "2024-03-31T22:00:00+00:00");
    }

    #[test]
    fn an_offset_is_counted_in_days_or_months() {
        let fiscal = Calendar { offset: 3, ..calendar(Span::Months(12), "UTC") };
        let year = ("2023-04-01T00:00:00+00:00".to_string(), "2024-04-01T00:00:00+00:00".to_string());
        assert_eq!(window(&fiscal, "2024-03-31T23:59:59Z"), year);
        assert_eq!(window(&fiscal, "1969-02-01T00:00:00Z").0, "1968-04-01T00:00:00+00:00");
        // 1970-01-01 was a Thursday, and 2024-03-31 a Sunday of 23 hours.
        let weeks = Calendar { offset: 4, ..calendar(Span::Days(7), "Europe/Berlin") };
        let week = ("2024-03-24T23:00:00+00:00".to_string(), "2024-03-31T22:00:00+00:00".to_string());
        assert_eq!(window(&weeks, "2024-03-31T12:00:00Z"), week);
        assert_eq!(window(&weeks, "2024-04-01T00:00:00Z").0, week.1);
    }

    #[test]
    fn times_that_no_calendar_reaches_have_no_window() {
        assert_eq!(calendar(Span::Days(1), "UTC").window(i64::MAX), None);
    }
}
