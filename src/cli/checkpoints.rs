//! `streamlines checkpoints`: what a folder of checkpoints holds.

use std::io::Write;
use std::sync::Arc;

use clap::Subcommand;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array,
};
use datafusion::error::Result;
use datafusion::prelude::{SessionConfig, SessionContext};
use streamlines::{
    OutputFormat, SavedContent, SavedJob, SavedPipeline, Sink, StdoutSink, checkpoints, delete_checkpoints,
};

use super::{FAILED, errors, stores};

#[derive(Subcommand)]
pub enum Checkpoints {
    /// A row for each checkpoint: of which pipeline, when, how large, how far it had come.
    List {
        /// The folder, or the URL of one, that --checkpoint-dir was given.
        dir: String,
        /// table, csv, json, ndjson, parquet or arrow.
        #[arg(long, value_name = "FORMAT", default_value = "table")]
        format: OutputFormat,
    },
    /// The job that the checkpoints are of, and what the last one of each pipeline holds.
    Show {
        /// The folder, or the URL of one, that --checkpoint-dir was given.
        dir: String,
    },
    /// Takes the checkpoints away. The output stays: remove it, too, to begin the job anew in the same place.
    Delete {
        /// The folder, or the URL of one, that --checkpoint-dir was given.
        dir: String,
    },
}

pub async fn run(command: &Checkpoints) -> u8 {
    let done = match stores::runtime_builder().build_arc() {
        Ok(runtime) => done(command, &SessionContext::new_with_config_rt(SessionConfig::new(), runtime)).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            errors::print("", &error);
            FAILED
        }
    }
}

async fn done(command: &Checkpoints, ctx: &SessionContext) -> Result<()> {
    match command {
        Checkpoints::List { dir, format } => list(ctx, dir, *format).await,
        Checkpoints::Show { dir } => checkpoints(ctx, dir).await.map(|job| print(&shown(&job))),
        Checkpoints::Delete { dir } => {
            let deleted = delete_checkpoints(ctx, dir).await?;
            errors::say(&format!("{deleted} checkpoints deleted"));
            Ok(())
        }
    }
}

fn print(text: &str) {
    // That nobody reads it is no failure.
    let _ = write!(std::io::stdout(), "{text}");
}

async fn list(ctx: &SessionContext, dir: &str, format: OutputFormat) -> Result<()> {
    let rows = rows(&checkpoints(ctx, dir).await?.checkpoints)?;
    let mut writer = StdoutSink::new(format).writer(0, rows.schema())?;
    writer.write(rows).await?;
    writer.finish().await?;
    writer.close().await.map(|_| ())
}

fn rows(saved: &[SavedPipeline]) -> Result<RecordBatch> {
    let whole = || saved.iter().map(|saved| saved.content.as_ref().ok());
    let saved_at = |saved: &SavedPipeline| {
        let since = saved.saved_at.duration_since(std::time::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_millis()).ok()
    };
    let numbers = |numbers: Vec<Option<u64>>| Arc::new(UInt64Array::from(numbers)) as ArrayRef;
    let pipelines: Int64Array = saved.iter().map(|saved| Some(saved.pipeline as i64)).collect();
    let times: TimestampMillisecondArray = saved.iter().map(saved_at).collect();
    let ended: BooleanArray = whole().map(|content| Some(content?.has_ended)).collect();
    let damage: StringArray = saved.iter().map(|saved| saved.content.as_ref().err()).collect();
    let state_rows = |content: &SavedContent| content.state_rows.iter().map(|rows| *rows as u64).sum();
    let columns: [(&str, ArrayRef); 10] = [
        ("pipeline", Arc::new(pipelines)),
        ("epoch", numbers(saved.iter().map(|saved| Some(saved.epoch)).collect())),
        ("saved_at", Arc::new(times)),
        ("bytes", numbers(saved.iter().map(|saved| Some(saved.bytes)).collect())),
        ("rows_read", numbers(whole().map(|content| Some(content?.rows_read)).collect())),
        ("rows_out", numbers(whole().map(|content| Some(content?.rows_out)).collect())),
        ("late_rows", numbers(whole().map(|content| Some(content?.late_rows)).collect())),
        ("state_rows", numbers(whole().map(|content| content.map(state_rows)).collect())),
        ("ended", Arc::new(ended)),
        ("damage", Arc::new(damage)),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn shown(job: &SavedJob) -> String {
    let mut lines = vec![format!("version    {}", job.version), format!("pipelines  {}", job.pipelines)];
    lines.push(format!("output     {}", job.output));
    lines.push("plan".to_string());
    lines.extend(job.plan.iter().map(|line| format!("  {line}")));
    lines.push("source".to_string());
    lines.extend(job.source.iter().map(|line| format!("  {line}")));
    for saved in job.checkpoints.chunk_by(|one, other| one.pipeline == other.pipeline).filter_map(|saved| saved.last())
    {
        lines.push(format!("pipeline {}, epoch {}, {} bytes", saved.pipeline, saved.epoch, saved.bytes));
        lines.extend(match &saved.content {
            Err(damage) => vec![format!("  damaged: {damage}")],
            Ok(content) => {
                let end = if content.has_ended { ", ended" } else { "" };
                let counts = format!("  {} rows read, {} out{end}", content.rows_read, content.rows_out);
                let goes_on = content.goes_on_at.iter().map(|place| format!("  goes on at {place}"));
                let states = content.state_rows.iter().enumerate();
                let states = states.map(|(stage, rows)| format!("  operator {}: {rows} rows of state", stage + 1));
                let files = content.files.iter().map(|file| format!("  file {file}"));
                std::iter::once(counts).chain(goes_on).chain(states).chain(files).collect()
            }
        });
    }
    lines.join("\n") + "\n"
}
