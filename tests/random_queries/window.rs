//! The kinds of windows: which of them hold a time, and how they are called.

/// A window, without its spelling. A new kind is a variant here: its rows' windows, and how it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    Tumble { size_s: i64, offset_s: i64 },
}

impl Window {
    /// The windows, as start and end, that hold a time.
    pub fn windows(&self, time_ms: i64) -> Vec<(i64, i64)> {
        match self {
            Self::Tumble { size_s, offset_s } => {
                let (size, offset) = (size_s * 1000, offset_s * 1000);
                let start = (time_ms - offset).div_euclid(size) * size + offset;
                vec![(start, start + size)]
            }
        }
    }

    /// The call of a function, which stands in GROUP BY.
    pub fn function(&self) -> String {
        match self {
            Self::Tumble { size_s, offset_s: 0 } => format!("tumble(ts, INTERVAL '{size_s} seconds')"),
            Self::Tumble { size_s, offset_s } => {
                format!("tumble(ts, INTERVAL '{size_s} seconds', INTERVAL '{offset_s} seconds')")
            }
        }
    }

    /// The call of a window table function over a relation.
    pub fn table_function(&self, relation: &str) -> String {
        match self {
            Self::Tumble { size_s, offset_s } => {
                let offset = if *offset_s == 0 { String::new() } else { format!(", INTERVAL '{offset_s}' SECOND") };
                format!("TABLE(TUMBLE(TABLE {relation}, DESCRIPTOR(ts), INTERVAL '{size_s}' SECOND{offset}))")
            }
        }
    }

    /// The WINDOW clause, if it can say this window.
    pub fn clause(&self) -> Option<String> {
        match self {
            Self::Tumble { size_s, offset_s: 0 } => Some(format!("WINDOW TUMBLING (ts, INTERVAL '{size_s}' SECOND)")),
            Self::Tumble { .. } => None,
        }
    }

    /// DataFusion's own function, if it can say this window.
    pub fn plain(&self) -> Option<String> {
        match self {
            Self::Tumble { size_s: 60, offset_s: 0 } => Some("date_trunc('minute', ts)".to_string()),
            Self::Tumble { size_s, offset_s: 0 } => Some(format!("date_bin(INTERVAL '{size_s} seconds', ts)")),
            Self::Tumble { .. } => None,
        }
    }
}
