//! The options that run, sql and explain share.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use streamlines::OutputFormat;

/// When to draw a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// When standard error is a terminal.
    Auto,
    /// In any case.
    Always,
    /// Not at all.
    Never,
}

/// How to run queries and where their rows go.
#[derive(Debug, Clone, Args)]
pub struct QueryOptions {
    /// CREATE statements to run first.
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
    /// partitioned, inline, single_queue, or batch for plain DataFusion.
    #[arg(long, value_name = "NAME")]
    pub strategy: Option<String>,
    /// How many pipelines run at once [default: one for each core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub partitions: Option<u64>,
    /// Rows of a batch that a pipeline reads [default: 16384].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub batch_rows: Option<u64>,
    /// How much memory state may take: 512KB, 256MB or 2GB. What windows hold beyond that goes to disk [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub memory_limit: Option<usize>,
    /// How fast rows come: max, 1000rows/s over all pipelines, or by event time, 1x or 60x as fast as it went [default: max].
    #[arg(long, value_name = "SPEED")]
    pub speed: Option<String>,
    /// table, csv, json, ndjson, parquet, arrow or none [default: by --output; table on a terminal; else csv].
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<OutputFormat>,
    /// A file, or a folder (ending in /) with one file for each pipeline; or the URL of one in an object store.
    #[arg(long, short, value_name = "PATH")]
    pub output: Option<String>,
    /// In a folder of output, ends a file that has so many bytes (64MB), and begins another one.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub roll_bytes: Option<usize>,
    /// In a folder of output, ends a file that has been written for so long, or has so many rows: 15min or 1000000rows.
    #[arg(long, value_name = "INTERVAL")]
    pub roll_interval: Option<String>,
    /// Writes late rows there, each with its file and row: a file, or a folder (ending in /).
    #[arg(long, value_name = "PATH")]
    pub late: Option<String>,
    /// Saves the job there, and goes on from where it was when it is run again: a folder, or the URL of one in an object store.
    #[arg(long, value_name = "DIR")]
    pub checkpoint_dir: Option<String>,
    /// How often it is saved: 10s, 200ms, 5min or 1000000rows [default: 10s].
    #[arg(long, value_name = "INTERVAL", requires = "checkpoint_dir")]
    pub checkpoint_interval: Option<String>,
    /// Ctrl-C, or SIGTERM, lets the windows of a stream that is followed close, instead of leaving them open for the
    /// next run.
    #[arg(long)]
    pub drain: bool,
    /// SQL may read and write nothing outside of this folder; links are followed first. --output may be elsewhere.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// SQL may write no file at all; --output may.
    #[arg(long)]
    pub read_only: bool,
    /// How long all of it may take: 500ms, 5s, 2m, 1h or 1d. Then the query is ended, with an error [default: no limit].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub time_limit: Option<Duration>,
    /// When to draw a progress bar.
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: ProgressMode,
    /// No progress and no summary.
    #[arg(long, short)]
    pub quiet: bool,
    /// A summary line for each pipeline too.
    #[arg(long, short)]
    pub verbose: bool,
    /// Any setting, as in SET key = value.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub settings: Vec<(String, String)>,
}

impl QueryOptions {
    /// The format of the rows: as asked for, as the output's extension says, or what its reader can use.
    pub fn row_format(&self) -> OutputFormat {
        let by_path = self.output.as_deref().and_then(OutputFormat::of_path);
        match (self.format, by_path, &self.output) {
            (Some(format), _, _) | (None, Some(format), _) => format,
            (None, None, Some(_)) => OutputFormat::Parquet,
            (None, None, None) if std::io::stdout().is_terminal() => OutputFormat::Table,
            (None, None, None) => OutputFormat::Csv,
        }
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_string(), value.trim().to_string())),
        _ => Err("a setting is key=value".to_string()),
    }
}

/// A size of an argument: 512KB, 256MB or 2GB, with 1,024 bytes to a KB.
pub fn bytes(text: &str) -> Result<usize, String> {
    let wrong = || format!("'{text}' is no size: write 512KB, 256MB or 2GB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: usize = number.parse().map_err(|_| wrong())?;
    let shift = match unit.trim_start().to_ascii_uppercase().as_str() {
        "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A duration of an argument: 500ms, 5s, 2m, 1h or 1d.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no duration: write 500ms, 5s, 2m, 1h or 1d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let duration = number.checked_mul(ms).map(Duration::from_millis).ok_or_else(wrong)?;
    match duration <= LONGEST {
        true => Ok(duration),
        false => Err(format!("'{text}' is more than a hundred years")),
    }
}
