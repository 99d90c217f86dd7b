//! The kinds of windows: which of them hold a time, and how they are called.

/// A window, without its spelling. A new kind is a variant here: its rows' windows, and how it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    Tumble {
        size_s: i64,
        offset_s: i64,
    },
    Hop {
        slide_s: i64,
        size_s: i64,
        offset_s: i64,
    },
    Cumulate {
        step_s: i64,
        size_s: i64,
        offset_s: i64,
    },
    /// Which windows there are depends on the other rows of a key.
    Session {
        gap_s: i64,
        /// Whether its table function goes by the first of the keys alone.
        by_first: bool,
    },
}

impl Window {
    /// The windows, as start and end, that hold a time.
    pub fn windows(&self, time_ms: i64) -> Vec<(i64, i64)> {
        let below = |length_s: i64, offset_s: i64| {
            let (length, offset) = (length_s * 1000, offset_s * 1000);
            (time_ms - offset).div_euclid(length) * length + offset
        };
        match *self {
            Self::Tumble { size_s, offset_s } => {
                let start = below(size_s, offset_s);
                vec![(start, start + size_s * 1000)]
            }
            Self::Hop { slide_s, size_s, offset_s } => {
                let starts =
                    std::iter::successors(Some(below(slide_s, offset_s)), |start| Some(start - slide_s * 1000));
                starts.map(|start| (start, start + size_s * 1000)).take_while(|(_, end)| *end > time_ms).collect()
            }
            Self::Cumulate { step_s, size_s, offset_s } => {
                let start = below(size_s, offset_s);
                let windows = (1..=size_s / step_s).map(|steps| (start, start + steps * step_s * 1000));
                windows.filter(|(_, end)| *end > time_ms).collect()
            }
            Self::Session { .. } => vec![],
        }
    }

    /// Whether the start of a window does not tell its end.
    pub fn has_own_end(&self) -> bool {
        matches!(self, Self::Cumulate { .. } | Self::Session { .. })
    }

    pub fn is_session(&self) -> bool {
        matches!(self, Self::Session { .. })
    }

    /// The name of its function, and its lengths in seconds.
    fn parts(&self) -> (&'static str, Vec<i64>) {
        let (name, mut lengths, offset_s) = match *self {
            Self::Tumble { size_s, offset_s } => ("tumble", vec![size_s], offset_s),
            Self::Hop { slide_s, size_s, offset_s } => ("hop", vec![slide_s, size_s], offset_s),
            Self::Cumulate { step_s, size_s, offset_s } => ("cumulate", vec![step_s, size_s], offset_s),
            Self::Session { gap_s, .. } => ("session", vec![gap_s], 0),
        };
        lengths.extend((offset_s != 0).then_some(offset_s));
        (name, lengths)
    }

    /// The call of a function, which stands in GROUP BY.
    pub fn function(&self) -> String {
        let (name, lengths) = self.parts();
        let lengths: Vec<_> = lengths.iter().map(|length| format!("INTERVAL '{length} seconds'")).collect();
        format!("{name}(ts, {})", lengths.join(", "))
    }

    /// The call of a window table function over a relation; sessions go by keys.
    pub fn table_function(&self, relation: &str, keys: &[&str]) -> String {
        let (name, lengths) = self.parts();
        let lengths: Vec<_> = lengths.iter().map(|length| format!("INTERVAL '{length}' SECOND")).collect();
        let by = match self {
            Self::Session { by_first: true, .. } if !keys.is_empty() => format!(" PARTITION BY {}", keys[0]),
            Self::Session { .. } if !keys.is_empty() => format!(" PARTITION BY {}", keys.join(", ")),
            _ => String::new(),
        };
        let name = name.to_uppercase();
        format!("TABLE({name}(TABLE {relation}{by}, DESCRIPTOR(ts), {}))", lengths.join(", "))
    }

    /// The WINDOW clause, if it can say this window.
    pub fn clause(&self) -> Option<String> {
        match self {
            Self::Tumble { size_s, offset_s: 0 } => Some(format!("WINDOW TUMBLING (ts, INTERVAL '{size_s}' SECOND)")),
            Self::Hop { slide_s, size_s, offset_s: 0 } => {
                Some(format!("WINDOW HOPPING (ts, SIZE {size_s} SECONDS, ADVANCE BY {slide_s}s)"))
            }
            Self::Cumulate { step_s, size_s, offset_s: 0 } => {
                Some(format!("WINDOW CUMULATING (ts, STEP {step_s}s, SIZE {size_s}s)"))
            }
            Self::Session { gap_s, .. } => Some(format!("WINDOW SESSION (ts, {gap_s} SECONDS)")),
            _ => None,
        }
    }

    /// DataFusion's own function, if it can say this window.
    pub fn plain(&self) -> Option<String> {
        match self {
            Self::Tumble { size_s: 60, offset_s: 0 } => Some("date_trunc('minute', ts)".to_string()),
            Self::Tumble { size_s, offset_s: 0 } => Some(format!("date_bin(INTERVAL '{size_s} seconds', ts)")),
            _ => None,
        }
    }
}
