//! Where windows lie on the line of event time.
//!
//! Hopping and cumulating windows overlap, so they are cut into panes that no window's end or start divides. A row is
//! in one pane, and a pane in several windows:
//!
//! ```text
//!   hop(ts, 2, 6)        cumulate(ts, 2, 6)      panes of 2
//!   ├───────────┤        ├───┤           ├───┤
//!       ├───────────┤    ├───────┤       ├───────┤
//!           ├──────      ├───────────┤   ├───────────┤
//! ```
//!
//! Every window is half open and known by its end: two windows of one shape never end together. All times are ticks
//! of the event-time column.

use std::fmt;

use super::calendar::Calendar;

/// The kind of a GROUP BY's windows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum WindowShape {
    /// One after the other. Where they begin is said by whoever finds a row's window.
    Tumble(Length),
    /// A window begins at every multiple of `slide`, and `offset` after it.
    Hop { slide: i64, size: i64, offset: i64 },
    /// Windows that begin together and are each a step longer than the one before, up to `size`, a multiple of `step`.
    Cumulate { step: i64, size: i64, offset: i64 },
    /// The last ticks of such windows, each by itself: of rows that meet their windows one by one these tell all windows apart.
    LastTick { size: i64, offset: i64 },
    /// As long as rows are less than `gap` apart. Sessions come out `wait` after they have ended.
    Session { gap: i64, wait: i64 },
}

/// The length of a tumbling window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Length {
    Ticks(i64),
    /// Days or months of a time zone.
    Calendar(Calendar),
}

impl Length {
    /// The end of the window that begins at `start`.
    pub(crate) fn end(&self, start: i64) -> i64 {
        match self {
            Self::Ticks(size) => start.saturating_add(*size),
            Self::Calendar(calendar) => calendar.end(start),
        }
    }

    /// About how long a window is, in ticks.
    fn typical(&self) -> i64 {
        match self {
            Self::Ticks(size) => *size,
            Self::Calendar(calendar) => calendar.typical(),
        }
    }
}

impl WindowShape {
    /// The length of a pane; none where a window is one, or has none.
    pub(crate) fn pane(&self) -> Option<i64> {
        match self {
            Self::Tumble(_) | Self::LastTick { .. } | Self::Session { .. } => None,
            Self::Hop { slide, size, .. } => Some(gcd(*slide, *size)),
            Self::Cumulate { step, .. } => Some(*step),
        }
    }

    /// The end of the first window after `above` that holds the pane (or is the window) that begins at `pane`. Of windows
    /// that end beyond the last tick there is one, which ends with it.
    pub(crate) fn next_end(&self, pane: i64, above: i64) -> Option<i64> {
        let end = match self {
            Self::Tumble(length) => Some(length.end(pane)),
            Self::LastTick { .. } => Some(pane_end(pane, 1)),
            Self::Session { .. } => None,
            Self::Hop { slide, size, offset } => {
                let least = pane_end(pane, gcd(*slide, *size)).max(above.saturating_add(1));
                let end = round_up(least, *slide, offset.wrapping_add(*size));
                (end <= i128::from(pane) + i128::from(*size)).then(|| clamp(end))
            }
            Self::Cumulate { step, size, offset } => {
                let least = pane_end(pane, *step).max(above.saturating_add(1));
                let end = round_up(least, *step, *offset);
                let last = round_down(i128::from(pane), *size, *offset) + i128::from(*size);
                (end <= last).then(|| clamp(end))
            }
        };
        end.filter(|end| *end > above)
    }

    /// The start of the window that ends at `end` and holds the pane that begins at `pane`.
    pub(crate) fn start(&self, pane: i64, end: i64) -> i64 {
        match self {
            Self::Tumble(_) | Self::LastTick { .. } | Self::Session { .. } => pane,
            Self::Hop { size, .. } => end.saturating_sub(*size),
            Self::Cumulate { size, offset, .. } => clamp(round_down(i128::from(pane), *size, *offset)),
        }
    }

    /// The start of the window that such a one is, or is the last tick of.
    pub(crate) fn whole_start(&self, pane: i64, end: i64) -> i64 {
        match self {
            Self::LastTick { size, offset } => clamp(round_down(i128::from(pane), *size, *offset)),
            _ => self.start(pane, end),
        }
    }

    /// How long after its end a window comes out: nothing, but for sessions of rows that may be late.
    pub(crate) fn wait(&self) -> i64 {
        match self {
            Self::Session { wait, .. } => *wait,
            _ => 0,
        }
    }

    /// The same for rows that may be late. Such a row is in time as long as it would make an open session by itself; then
    /// sessions that it joins, which ended up to a gap ago, must still be there.
    pub(crate) fn of_late_rows(self) -> Self {
        match self {
            Self::Session { gap, .. } => Self::Session { gap, wait: gap },
            shape => shape,
        }
    }

    /// Whether a row is in one window, whatever other rows there are.
    pub(crate) fn tumbles(&self) -> bool {
        matches!(self, Self::Tumble(_) | Self::LastTick { .. })
    }

    /// Whether a window's start does not tell its end.
    pub(crate) fn has_own_end(&self) -> bool {
        matches!(self, Self::Cumulate { .. } | Self::Session { .. })
    }

    /// A span of time that the watermark has to move for many a window to close.
    pub(crate) fn grain(&self) -> i64 {
        match self {
            Self::Tumble(length) => length.typical(),
            Self::Session { gap, .. } => *gap,
            _ => self.pane().unwrap_or(1),
        }
    }

    /// How long a window is, about.
    pub(crate) fn typical(&self) -> i64 {
        match self {
            Self::Tumble(length) => length.typical(),
            Self::Hop { size, .. } | Self::Cumulate { size, .. } => *size,
            Self::LastTick { .. } => 1,
            Self::Session { gap, .. } => *gap,
        }
    }
}

impl fmt::Display for WindowShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tumble(Length::Ticks(size)) => write!(f, "of {size} ticks"),
            Self::Tumble(Length::Calendar(calendar)) => write!(f, "of {calendar}"),
            Self::Hop { slide, size, .. } => write!(f, "of {size} ticks every {slide}"),
            Self::Cumulate { step, size, .. } => write!(f, "of {size} ticks by steps of {step}"),
            Self::LastTick { size, .. } => write!(f, "of the last ticks of windows of up to {size} ticks"),
            Self::Session { gap, .. } => write!(f, "of sessions {gap} ticks apart"),
        }
    }
}

/// The end of a pane.
fn pane_end(pane: i64, width: i64) -> i64 {
    pane.saturating_add(width)
}

/// The multiple of `step`, and `offset` after it, at or before `time`.
pub(crate) fn round_down(time: i128, step: i64, offset: i64) -> i128 {
    // Far from the ends of time a division of half the width does.
    if let Ok(time) = i64::try_from(time)
        && let Some(since) = time.checked_sub(offset)
        && let Some(multiple) = since.checked_sub(since.rem_euclid(step))
    {
        return i128::from(multiple) + i128::from(offset);
    }
    let (step, offset) = (i128::from(step), i128::from(offset));
    (time - offset).div_euclid(step) * step + offset
}

fn round_up(time: i64, step: i64, offset: i64) -> i128 {
    round_down(i128::from(time) + i128::from(step) - 1, step, offset)
}

fn clamp(time: i128) -> i64 {
    time.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All windows of a shape that hold `time`, by ends.
    fn naive(shape: &WindowShape, time: i64) -> Vec<(i64, i64)> {
        let mut windows = vec![];
        for start in -400..400 {
            match *shape {
                WindowShape::Hop { slide, size, offset } if (start - offset).rem_euclid(slide) == 0 => {
                    windows.push((start, start + size));
                }
                WindowShape::Cumulate { step, size, offset } if (start - offset).rem_euclid(size) == 0 => {
                    windows.extend((1..=size / step).map(|steps| (start, start + steps * step)));
                }
                _ => {}
            }
        }
        windows.retain(|(start, end)| *start <= time && time < *end);
        windows.sort_by_key(|(_, end)| *end);
        windows
    }

    fn shapes() -> impl Strategy<Value = WindowShape> {
        prop_oneof![
            (1i64..20, 1i64..60, -30i64..30).prop_map(|(slide, size, offset)| WindowShape::Hop { slide, size, offset }),
            (1i64..9, 1i64..7, -30i64..30).prop_map(|(step, steps, offset)| WindowShape::Cumulate {
                step,
                size: step * steps,
                offset
            }),
        ]
    }

    proptest! {
        #[test]
        fn at_the_ends_of_time_windows_are_few(shape in shapes(), near in 0i64..100, is_late: bool) {
            let time = if is_late { i64::MAX - near } else { i64::MIN + near };
            let offset = match shape {
                WindowShape::Hop { offset, .. } | WindowShape::Cumulate { offset, .. } => offset,
                _ => 0,
            };
            let pane = clamp(round_down(i128::from(time), shape.pane().unwrap(), offset));
            let next = |end: &i64| shape.next_end(pane, *end);
            let ends: Vec<i64> = std::iter::successors(shape.next_end(pane, i64::MIN), next).take(100).collect();
            prop_assert!(ends.len() <= 60 && ends.is_sorted());
        }

        #[test]
        fn a_pane_is_in_the_windows_that_its_rows_are_in(shape in shapes(), time in -99i64..99) {
            let (WindowShape::Hop { offset, .. } | WindowShape::Cumulate { offset, .. }) = shape else { return Ok(()) };
            let pane = clamp(round_down(i128::from(time), shape.pane().unwrap(), offset));
            let mut windows = vec![];
            let mut above = i64::MIN;
            while let Some(end) = shape.next_end(pane, above) {
                windows.push((shape.start(pane, end), end));
                above = end;
            }
            prop_assert_eq!(windows, naive(&shape, time));
        }
    }
}
