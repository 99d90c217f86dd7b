//! The OPTIONS of a CREATE STREAM.

use std::time::Duration;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::csv::reader::Format;
use datafusion::common::Result;
use datafusion::common::config::CsvOptions;
use datafusion::common::parsers::CompressionTypeVariant;

use regex::Regex;

use crate::error::{Error, Location};
use crate::sql::{FileFormat, nearest};

use super::csv_time::TimeFormat;

const NAMES: [&str; 15] = [
    "partitioned_by",
    "partitions",
    "follow",
    "idle_timeout",
    "on_error",
    "has_header",
    "header",
    "delimiter",
    "quote",
    "escape",
    "comment",
    "null_value",
    "timestamp_format",
    "compression",
    "schema_infer_max_rec",
];

/// Options that say how CSV is written.
const OF_CSV: [&str; 8] =
    ["has_header", "header", "delimiter", "quote", "escape", "comment", "null_value", "timestamp_format"];

/// What the options of a stream say.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamOptions {
    /// Columns whose values live in one file each.
    pub(super) partitioned_by: Vec<String>,
    /// Each file is a partition, whatever its keys.
    pub(super) partitions_are_files: bool,
    /// What comes later belongs to the stream, too.
    pub(super) follow: bool,
    /// Where no row has come for so long, event time goes on with the clock.
    pub(super) idle_timeout: Option<Duration>,
    /// Rows that cannot be parsed are counted and left out.
    pub(super) skip_bad_rows: bool,
    /// How CSV files are written.
    pub(super) csv: CsvOptions,
    /// Compression by name; none means: by the files' extension.
    pub(super) compression: Option<CompressionTypeVariant>,
    /// What a null looks like in CSV.
    pub(super) null_value: Option<String>,
    /// How times are written in CSV.
    pub(super) timestamp_format: Option<TimeFormat>,
}

impl StreamOptions {
    /// Reads the options of a stream of `format`.
    ///
    /// # Errors
    /// Unknown names and impossible values.
    pub(super) fn parse(options: &[(String, String)], format: FileFormat, at: Location) -> Result<Self> {
        let mut parsed = Self::default();
        parsed.csv.has_header = Some(true);
        for (name, value) in options {
            let name = name.strip_prefix("format.").unwrap_or(name);
            if format != FileFormat::Csv && OF_CSV.contains(&name) {
                let error =
                    Error::sql(format!("option '{name}' is for CSV, and the files are {format:?}")).at(Some(at));
                return Err(error.help("leave it out").into());
            }
            parsed.set(name, value).map_err(|error| error.at(Some(at)))?;
        }
        if parsed.skip_bad_rows && format != FileFormat::Csv {
            let error = Error::sql("'on_error' 'skip' is for CSV, whose rows alone can be bad one by one").at(Some(at));
            return Err(error.help("leave it out").into());
        }
        Ok(parsed)
    }

    /// Whether the options ask for what DataFusion's CSV reader does not do.
    pub(super) fn reads_csv_by_rows(&self) -> bool {
        self.skip_bad_rows || self.null_value.is_some() || self.timestamp_format.is_some()
    }

    /// How arrow's reader is to read CSV, from the beginning of a file or further on.
    ///
    /// # Errors
    /// A text for null that is no pattern.
    pub(super) fn csv_format(&self, is_first: bool) -> Result<Format> {
        let csv = &self.csv;
        let mut format = Format::default()
            .with_header(is_first && csv.has_header != Some(false))
            .with_delimiter(csv.delimiter)
            .with_quote(csv.quote);
        if let Some(escape) = csv.escape {
            format = format.with_escape(escape);
        }
        if let Some(comment) = csv.comment {
            format = format.with_comment(comment);
        }
        if let Some(null) = &csv.null_regex {
            let null = Regex::new(null).map_err(|error| Error::sql(format!("'null_value': {error}")))?;
            format = format.with_null_regex(null);
        }
        Ok(format)
    }

    fn set(&mut self, name: &str, value: &str) -> std::result::Result<(), Error> {
        match name {
            "partitioned_by" => {
                self.partitioned_by = value.split(',').map(|name| name.trim().to_string()).collect();
            }
            "partitions" => match value {
                "files" => self.partitions_are_files = true,
                _ => return Err(bad_value(name, value, "files")),
            },
            "follow" => match value.to_lowercase().as_str() {
                "true" => self.follow = true,
                "false" => self.follow = false,
                _ => return Err(bad_value(name, value, "true or false")),
            },
            "idle_timeout" => {
                let interval = parse_interval_month_day_nano(value).ok().filter(|interval| interval.months == 0);
                let ns = interval.and_then(|interval| {
                    i64::from(interval.days).checked_mul(86_400_000_000_000)?.checked_add(interval.nanoseconds)
                });
                let ns = ns.and_then(|ns| u64::try_from(ns).ok()).filter(|ns| *ns > 0);
                let timeout = ns.ok_or_else(|| bad_value(name, value, "a length of time like '30s'"))?;
                self.idle_timeout = Some(Duration::from_nanos(timeout));
            }
            "on_error" => match value {
                "fail" => self.skip_bad_rows = false,
                "skip" => self.skip_bad_rows = true,
                _ => return Err(bad_value(name, value, "fail or skip")),
            },
            "has_header" | "header" => match value.to_lowercase().as_str() {
                "true" => self.csv.has_header = Some(true),
                "false" => self.csv.has_header = Some(false),
                _ => return Err(bad_value(name, value, "true or false")),
            },
            "delimiter" => self.csv.delimiter = one_byte(name, value)?,
            "quote" => self.csv.quote = one_byte(name, value)?,
            "escape" => self.csv.escape = Some(one_byte(name, value)?),
            "comment" => self.csv.comment = Some(one_byte(name, value)?),
            "null_value" => {
                // arrow-csv knows nulls by a pattern; this is the one for exactly this text.
                self.csv.null_regex = Some(format!("^{}$", escape_regex(value)));
                self.null_value = Some(value.to_string());
            }
            "timestamp_format" => {
                let format = TimeFormat::new(value).ok_or_else(|| bad_value(name, value, "like '%d.%m.%Y %H:%M'"))?;
                self.timestamp_format = Some(format);
            }
            "compression" => {
                self.compression = Some(compression(value).ok_or_else(|| bad_value(name, value, "none, gzip or zstd"))?)
            }
            "schema_infer_max_rec" => match value.parse() {
                Ok(rows) if rows > 0 => self.csv.schema_infer_max_rec = Some(rows),
                _ => return Err(bad_value(name, value, "a positive number of rows")),
            },
            _ => {
                let error = Error::sql(format!("unknown option '{name}' of a stream"));
                return Err(match nearest(name, NAMES) {
                    Some(nearest) => error.help(format!("did you mean '{nearest}'?")),
                    None => error.help(format!("options are {}", NAMES.join(", "))),
                });
            }
        }
        Ok(())
    }
}

fn compression(name: &str) -> Option<CompressionTypeVariant> {
    match name.to_lowercase().as_str() {
        "none" | "uncompressed" => Some(CompressionTypeVariant::UNCOMPRESSED),
        "gzip" | "gz" => Some(CompressionTypeVariant::GZIP),
        "zstd" | "zst" => Some(CompressionTypeVariant::ZSTD),
        _ => None,
    }
}

/// The compression that a file's extension says.
pub(super) fn compression_of(name: &str) -> CompressionTypeVariant {
    name.rsplit_once('.')
        .and_then(|(_, extension)| compression(extension))
        .unwrap_or(CompressionTypeVariant::UNCOMPRESSED)
}

fn one_byte(name: &str, value: &str) -> std::result::Result<u8, Error> {
    match value {
        "\\t" => Ok(b'\t'),
        _ if value.len() == 1 => Ok(value.as_bytes()[0]),
        _ => Err(bad_value(name, value, "one character")),
    }
}

fn bad_value(name: &str, value: &str, expected: &str) -> Error {
    Error::sql(format!("option '{name}' is {expected}, not '{value}'"))
}

fn escape_regex(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_alphanumeric() { vec![c] } else { vec!['\\', c] }).collect()
}
