//! The formats that rows are written in.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A format of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// Aligned columns for a person; widths follow the header and the first batch, so that rows stream.
    Table,
    /// Comma-separated values with a header; timestamps in ISO 8601, nulls empty.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
    /// Apache Arrow IPC.
    Arrow,
    /// Rows are counted and dropped.
    None,
}

const NAMES: [(&str, OutputFormat); 8] = [
    ("table", OutputFormat::Table),
    ("csv", OutputFormat::Csv),
    ("json", OutputFormat::Json),
    ("ndjson", OutputFormat::Ndjson),
    ("jsonl", OutputFormat::Ndjson),
    ("parquet", OutputFormat::Parquet),
    ("arrow", OutputFormat::Arrow),
    ("none", OutputFormat::None),
];

impl OutputFormat {
    /// Whether its bytes are text, which may be compressed as a whole.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Csv | Self::Json | Self::Ndjson)
    }

    /// The format that a file's extension says, also under a compression's.
    pub fn of_path(path: &str) -> Option<Self> {
        let path = path.strip_suffix(".gz").or(path.strip_suffix(".zst")).unwrap_or(path);
        let extension = std::path::Path::new(path).extension()?.to_str()?;
        extension.parse().ok().filter(|format| *format != Self::Table && *format != Self::None)
    }
}

impl fmt::Display for OutputFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, format)| format == self).map_or("none", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for OutputFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let lower = text.to_lowercase();
        NAMES.iter().find(|(name, _)| *name == lower).map(|(_, format)| *format).ok_or_else(|| {
            Error::sql(format!("unknown output format '{text}'"))
                .help("formats are table, csv, json, ndjson, parquet, arrow, none")
        })
    }
}
