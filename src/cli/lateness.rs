//! `streamlines lateness`: what each bound of a watermark would cost.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use datafusion::error::Result;
use serde_json::{Value, json};
use streamlines::{Lateness, LatenessQuestion, SequenceLateness, lateness, streaming_session};

use super::options::duration;
use super::summary::{count, time};
use super::{FAILED, errors, session};

/// Sequences that are shown one by one.
const SHOWN: usize = 10;
const BAR: usize = 30;

/// Formats of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a person.
    Table,
    /// One JSON object.
    Json,
}

/// Which rows to look at.
#[derive(Debug, Clone, Args)]
pub struct LatenessOptions {
    /// A stream that --init creates, or files: a file, a folder, a glob or a comma list.
    stream: String,
    /// The event-time column [default: as the stream declares it].
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// Take each value of a column as a sequence of its own, not each partition.
    #[arg(long, value_name = "COLUMN")]
    by: Option<String>,
    /// Count the rows whose tumbling window of this length has closed, not those behind the watermark: 1m, 1h.
    #[arg(long, value_name = "LENGTH", value_parser = duration)]
    window: Option<Duration>,
    /// A bound to count, besides those that lose some shares of the rows: 5s, 3h.
    #[arg(long = "bound", value_name = "LENGTH", value_parser = duration)]
    bounds: Vec<Duration>,
    /// CREATE statements to run first.
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// table or json.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Reads the event times and prints what bounds would cost.
pub async fn report(options: &LatenessOptions) -> u8 {
    let ctx = streaming_session(Default::default());
    if let Err((sql, error)) = session::init(&ctx, options.init.as_deref(), true).await {
        errors::print(&sql, &error);
        return FAILED;
    }
    let question = LatenessQuestion {
        time: options.time.clone(),
        by: options.by.clone(),
        window: options.window,
        bounds: options.bounds.clone(),
    };
    let found = lateness(&ctx, &options.stream, &question).await;
    match found.and_then(|found| text(&found, options)) {
        Ok(text) => {
            // That nobody reads it is no failure.
            let _ = writeln!(std::io::stdout(), "{text}");
            0
        }
        Err(error) => {
            errors::print("", &error);
            FAILED
        }
    }
}

fn text(found: &Lateness, options: &LatenessOptions) -> Result<String> {
    let all = SequenceLateness::all(&found.sequences)?;
    Ok(match options.format {
        Format::Json => as_json(found, &all).to_string(),
        Format::Table => as_table(found, &all, options.window.is_some()),
    })
}

fn as_json(found: &Lateness, all: &SequenceLateness) -> Value {
    let nanoseconds = |ticks: u64| u128::from(ticks) * found.tick_ns as u128;
    let sequence = |sequence: &SequenceLateness| {
        let bounds = sequence
            .bounds()
            .into_iter()
            .map(|bound| json!({ "bound_ns": nanoseconds(bound).to_string(), "late_rows": sequence.late_rows(bound) }));
        let culprits = sequence.culprits.iter().map(|culprit| {
            json!({
                "file": culprit.file,
                "row": culprit.row,
                "time": culprit.time.as_ref().map(time),
                "rows_behind": culprit.rows_behind,
                "furthest_ns": nanoseconds(culprit.furthest).to_string(),
            })
        });
        json!({
            "name": sequence.name,
            "rows": sequence.rows,
            "null_times": sequence.null_times,
            "bounds": bounds.collect::<Vec<_>>(),
            "makes_others_late": culprits.collect::<Vec<_>>(),
        })
    };
    json!({
        "time": found.time,
        "all": sequence(all),
        "sequences": found.sequences.iter().map(sequence).collect::<Vec<_>>(),
    })
}

fn as_table(found: &Lateness, all: &SequenceLateness, windows: bool) -> String {
    let mut lines = vec![];
    let mut sequences: Vec<&SequenceLateness> = found.sequences.iter().collect();
    sequences.sort_by_key(|sequence| std::cmp::Reverse(sequence.late_rows(0)));
    if let [only] = sequences.as_slice() {
        describe(only, found, windows, &mut lines);
        return lines.join("\n");
    }
    for sequence in sequences.iter().take(SHOWN) {
        describe(sequence, found, windows, &mut lines);
    }
    if sequences.len() > SHOWN {
        lines.push(format!("… and {} more\n", count((sequences.len() - SHOWN) as u64)));
    }
    describe(all, found, windows, &mut lines);
    lines.join("\n")
}

fn describe(sequence: &SequenceLateness, found: &Lateness, windows: bool, lines: &mut Vec<String>) {
    let shown = |ticks: u64| human(u128::from(ticks) * found.tick_ns as u128);
    let what = if windows { "after their window could have closed" } else { "behind a row before them" };
    let nulls = match sequence.null_times {
        0 => String::new(),
        nulls => format!(", {} without {}", count(nulls), found.time),
    };
    lines.push(format!(
        "{}: {} rows{nulls}, {} {what}",
        sequence.name,
        count(sequence.rows),
        count(sequence.late_rows(0))
    ));
    let most = sequence.late_rows(0).max(1);
    for bound in sequence.bounds() {
        let label = shown(bound);
        let late = sequence.late_rows(bound);
        let share = 100.0 * late as f64 / sequence.rows.max(1) as f64;
        let bar = "█".repeat((late as f64 / most as f64 * BAR as f64).ceil() as usize);
        lines.push(format!("  {label:>12} loses {:>12} rows  {share:>7.3} %  {bar}", count(late)));
    }
    for culprit in &sequence.culprits {
        lines.push(format!(
            "  {} row {} at {}: {} rows come behind it, the furthest by {}",
            culprit.file,
            count(culprit.row),
            culprit.time.as_ref().map(time).unwrap_or_default(),
            count(culprit.rows_behind),
            shown(culprit.furthest)
        ));
    }
    lines.push(String::new());
}

/// A duration to the last digit, for the rows that a bound loses are counted so.
fn human(ns: u128) -> String {
    const UNITS: [(&str, u128); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let mut left = ns;
    let mut parts = vec![];
    for (name, unit) in UNITS {
        if left >= unit {
            parts.push(format!("{}{name}", left / unit));
            left %= unit;
        }
    }
    if parts.is_empty() { "0s".to_string() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_are_told_in_full() {
        let shown = [0, 1, 1_500, 5_000_000_000, 61_000_000_001, 51_960_000_000_000].map(super::human);
        assert_eq!(shown, ["0s", "1ns", "1us 500ns", "5s", "1m 1s 1ns", "14h 26m"]);
    }
}
