//! The event time of windowed results, for the operator that comes next: how far it has come when the windows that end
//! at or before a watermark have come out.

use std::fmt;

use super::calendar::Calendar;
use super::window_shape::{Length, WindowShape, round_down};
use super::{WATERMARK_MAX, WATERMARK_MIN};

/// The column of windowed results that the next operator takes for its event time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ResultTime {
    /// The last tick of each row's window, which comes out `wait` after its end.
    Last { wait: i64 },
    /// The end of each row's window, which comes out `wait` after it.
    End { wait: i64 },
    /// The start of each row's window. Tumbling windows of a number of ticks begin at some multiple and `offset` after
    /// it, if that is known.
    Start { shape: WindowShape, offset: Option<i64> },
    /// The time of each row, which comes out when the watermark has passed it.
    Row,
    /// None: nothing closes before the results end.
    Unknown,
}

impl ResultTime {
    /// The watermark of the results. All windows that end at or before `watermark`, in ticks of the windows' time, have
    /// come out.
    pub(crate) fn watermark(&self, watermark: i64) -> i64 {
        // One before the last says that no time is to come, but rows without one may: it is no end of the results either.
        if watermark == WATERMARK_MIN || watermark >= WATERMARK_MAX - 1 {
            return watermark;
        }
        match self {
            Self::Last { wait } => watermark.saturating_sub(*wait),
            Self::End { wait } => watermark.saturating_sub(*wait).saturating_add(1),
            Self::Start { shape, offset } => first_start(shape, *offset, watermark),
            Self::Row => watermark,
            Self::Unknown => WATERMARK_MIN,
        }
    }
}

/// The watermark behind operators that follow each other, given the one before them and the time that each goes by.
pub(crate) fn watermark_behind(times: &[ResultTime], watermark: i64) -> i64 {
    times.iter().fold(watermark, |watermark, time| time.watermark(watermark))
}

impl fmt::Display for ResultTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last { .. } => "last ticks",
            Self::End { .. } => "ends",
            Self::Start { .. } => "starts",
            Self::Row => "rows",
            Self::Unknown => "results",
        })
    }
}

/// The start of the first window that ends after `time`, or an earlier time.
fn first_start(shape: &WindowShape, known_offset: Option<i64>, time: i64) -> i64 {
    let floor = |time: i64, step, offset| {
        round_down(i128::from(time), step, offset).clamp(i128::from(WATERMARK_MIN), i128::from(WATERMARK_MAX)) as i64
    };
    match shape {
        WindowShape::Tumble(Length::Ticks(size)) => match known_offset {
            Some(offset) => floor(time, *size, offset),
            None => time.saturating_sub(size - 1),
        },
        WindowShape::Tumble(Length::Calendar(calendar)) => start_of(calendar, time),
        WindowShape::LastTick { .. } => time,
        WindowShape::Hop { slide, size, offset } => {
            floor(time.saturating_sub(*size), *slide, *offset).saturating_add(*slide)
        }
        WindowShape::Cumulate { size, offset, .. } => floor(time, *size, *offset),
        // A session that is open may have begun at any time.
        WindowShape::Session { .. } => WATERMARK_MIN,
    }
}

fn start_of(calendar: &Calendar, time: i64) -> i64 {
    calendar.window(time).map_or(WATERMARK_MIN, |(start, _)| start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Windows with their starts, as many as reach beyond all times of the test.
    fn windows(shape: &WindowShape, tumble_offset: i64) -> Vec<(i64, i64)> {
        let all = -400i64..400;
        match shape {
            WindowShape::Tumble(Length::Ticks(size)) => all
                .filter(|start| (start - tumble_offset).rem_euclid(*size) == 0)
                .map(|start| (start, start + size))
                .collect(),
            WindowShape::Hop { slide, size, offset } => all
                .filter(|start| (start - offset).rem_euclid(*slide) == 0)
                .map(|start| (start, start + size))
                .collect(),
            WindowShape::Cumulate { step, size, offset } => all
                .filter(|start| (start - offset).rem_euclid(*size) == 0)
                .flat_map(|start| (1..=size / step).map(move |steps| (start, start + steps * step)))
                .collect(),
            other => panic!("{other}"),
        }
    }

    fn shapes() -> impl Strategy<Value = WindowShape> {
        prop_oneof![
            (1i64..40).prop_map(|size| WindowShape::Tumble(Length::Ticks(size))),
            (1i64..30, 1i64..60, 0i64..30).prop_map(|(slide, size, offset)| WindowShape::Hop {
                slide,
                size,
                offset: offset % slide
            }),
            (1i64..10, 1i64..6, 0i64..9).prop_map(|(step, steps, offset)| WindowShape::Cumulate {
                step,
                size: step * steps,
                offset
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_watermark_of_starts_is_that_of_the_next_window(shape in shapes(), time in -100i64..100, offset in 0i64..40) {
            let next = windows(&shape, offset).into_iter().filter(|(_, end)| *end > time).map(|(start, _)| start).min();
            let of = |offset| ResultTime::Start { shape: shape.clone(), offset };
            prop_assert_eq!(Some(of(Some(offset)).watermark(time)), next);
            prop_assert!(of(None).watermark(time) <= next.unwrap());
        }
    }

    #[test]
    fn no_time_is_known_of_what_has_none() {
        assert_eq!(ResultTime::Unknown.watermark(7), WATERMARK_MIN);
        assert_eq!(ResultTime::Unknown.watermark(WATERMARK_MAX), WATERMARK_MAX);
        assert_eq!(ResultTime::End { wait: 0 }.watermark(7), 8);
        assert_eq!(ResultTime::End { wait: 5 }.watermark(7), 3);
        assert_eq!(ResultTime::Last { wait: 5 }.watermark(WATERMARK_MIN), WATERMARK_MIN);
    }
}
