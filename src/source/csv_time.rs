//! Times of CSV files that are written in a format of their own.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{ArrayRef, PrimitiveArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use chrono::format::{Item, Parsed, StrftimeItems, parse};
use chrono::{DateTime, NaiveDateTime, NaiveTime, TimeZone, Utc};
use datafusion::common::Result;

/// A format of times, as chrono's `strftime` writes it.
#[derive(Debug, Clone)]
pub(super) struct TimeFormat(Vec<Item<'static>>);

impl TimeFormat {
    /// None if the text is no format.
    pub(super) fn new(text: &str) -> Option<Self> {
        let items = StrftimeItems::new(text).parse_to_owned().ok()?;
        let has_time = items.iter().any(|item| matches!(item, Item::Numeric(..) | Item::Fixed(_)));
        has_time.then_some(Self(items))
    }

    /// Text as timestamps; what is not in the format, or out of the unit's range, becomes null.
    ///
    /// An offset in the text is heeded. A time without one is local in a column with a zone, and a day without a time
    /// is its midnight.
    ///
    /// # Errors
    /// A zone that is none.
    pub(super) fn timestamps(&self, text: &StringArray, unit: TimeUnit, zone: Option<&Arc<str>>) -> Result<ArrayRef> {
        let local = zone.map(|zone| Tz::from_str(zone)).transpose()?;
        let ticks = |text: &str| ticks(self.instant(text, local)?, unit);
        let times: PrimitiveArray<Int64Type> = text.iter().map(|text| text.and_then(ticks)).collect();
        Ok(cast(&times, &DataType::Timestamp(unit, zone.cloned()))?)
    }

    fn instant(&self, text: &str, local: Option<Tz>) -> Option<DateTime<Utc>> {
        let mut parsed = Parsed::new();
        parse(&mut parsed, text, self.0.iter()).ok()?;
        if parsed.offset().is_some() {
            return Some(parsed.to_datetime().ok()?.to_utc());
        }
        let time = time_of(&parsed)?;
        match local {
            Some(zone) => Some(zone.from_local_datetime(&time).earliest()?.to_utc()),
            None => Some(time.and_utc()),
        }
    }
}

fn time_of(parsed: &Parsed) -> Option<NaiveDateTime> {
    match parsed.to_naive_datetime_with_offset(0) {
        Ok(time) => Some(time),
        Err(_) if parsed.hour_mod_12().is_none() => Some(parsed.to_naive_date().ok()?.and_time(NaiveTime::MIN)),
        Err(_) => None,
    }
}

fn ticks(instant: DateTime<Utc>, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Second => Some(instant.timestamp()),
        TimeUnit::Millisecond => Some(instant.timestamp_millis()),
        TimeUnit::Microsecond => Some(instant.timestamp_micros()),
        TimeUnit::Nanosecond => instant.timestamp_nanos_opt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(format: &str, text: &str, zone: Option<&str>) -> Option<i64> {
        let zone: Option<Arc<str>> = zone.map(Arc::from);
        let format = TimeFormat::new(format).unwrap();
        let times = format.timestamps(&StringArray::from(vec![text]), TimeUnit::Second, zone.as_ref()).unwrap();
        crate::operator::ticks(&times).unwrap().iter().next().flatten()
    }

    #[test]
    fn offsets_zones_and_days() {
        let at_ten = 1_704_103_200;
        for (format, text, zone, expected) in [
            ("%d.%m.%Y %H:%M", "01.01.2024 10:00", None, Some(at_ten)),
            ("%d.%m.%Y %H:%M %z", "01.01.2024 12:00 +0200", None, Some(at_ten)),
            ("%d.%m.%Y %H:%M %z", "01.01.2024 12:00 +0200", Some("America/New_York"), Some(at_ten)),
            ("%d.%m.%Y %H:%M", "01.01.2024 05:00", Some("America/New_York"), Some(at_ten)),
            ("%d.%m.%Y", "01.01.2024", None, Some(at_ten - 10 * 3600)),
            ("%s", "1704103200", None, Some(at_ten)),
            ("%Y", "1600", None, None),
            ("%Y-%m-%d", "1600-01-01", None, Some(-11_676_096_000)),
            ("%d.%m.%Y %H", "01.01.2024 10", None, None),
            ("%d.%m.%Y %H:%M", "01.01.2024", None, None),
        ] {
            assert_eq!(seconds(format, text, zone), expected, "{format} {text} {zone:?}");
        }
        assert!(TimeFormat::new("%Q").is_none());
    }
}
