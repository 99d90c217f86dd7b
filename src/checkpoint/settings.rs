//! How often checkpoints are taken, or files ended.

use std::time::Duration;

use crate::error::Error;

/// How often something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interval {
    Time(Duration),
    Rows(u64),
}

impl Interval {
    /// `10s`, `200ms`, `5min`, `1h` or `1000000rows`.
    ///
    /// # Errors
    /// Text that is no interval, and none at all.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let digits = text.trim().find(|c: char| !c.is_ascii_digit()).unwrap_or(text.trim().len());
        let (number, unit) = text.trim().split_at(digits);
        let number = number.parse::<u64>().ok().filter(|number| *number > 0);
        let interval = number.and_then(|number| match unit.trim() {
            "rows" => Some(Self::Rows(number)),
            "ms" => Some(Self::Time(Duration::from_millis(number))),
            "s" => Some(Self::Time(Duration::from_secs(number))),
            "min" => Some(Self::Time(Duration::from_secs(number.checked_mul(60)?))),
            "h" => Some(Self::Time(Duration::from_secs(number.checked_mul(3600)?))),
            _ => None,
        });
        interval.ok_or_else(|| {
            Error::sql(format!("'{text}' is no interval")).help("write 10s, 200ms, 5min, 1h or 1000000rows")
        })
    }

    /// Whether it is due, after that long and that many rows.
    pub(crate) fn is_over(self, elapsed: Duration, rows: u64) -> bool {
        match self {
            Self::Time(time) => elapsed >= time,
            Self::Rows(wanted) => rows >= wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_a_number_and_a_unit() {
        assert_eq!(Interval::parse("10s"), Ok(Interval::Time(Duration::from_secs(10))));
        assert_eq!(Interval::parse(" 200 ms "), Ok(Interval::Time(Duration::from_millis(200))));
        assert_eq!(Interval::parse("5min"), Ok(Interval::Time(Duration::from_secs(300))));
        assert_eq!(Interval::parse("1000000rows"), Ok(Interval::Rows(1_000_000)));
        for wrong in
            ["", "s", "0s", "-1s", "1.5s", "10", "10 parsecs", "99999999999999999999s", "9999999999999999999min"]
        {
            assert!(Interval::parse(wrong).is_err(), "{wrong}");
        }
    }
}
