//! The session that the options ask for.

use std::path::Path;

use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{LogicalPlan, SetVariable, Statement};
use datafusion::prelude::{SessionConfig, SessionContext};
use streamlines::{
    Error, NullSink, StreamlinesContext, StreamlinesOptions, parse_statements, render_error, streaming_session,
};

use super::errors::say;
use super::options::QueryOptions;
use super::summary::count;

/// A session with the settings of the command line, before any statement.
///
/// # Errors
/// Settings that do not exist.
pub async fn open(options: &QueryOptions) -> Result<SessionContext> {
    let mut config = SessionConfig::new().with_option_extension(StreamlinesOptions::default());
    // Places in error messages need the parser to remember them.
    config.options_mut().sql_parser.collect_spans = true;
    // At level 1 Parquet's files are about as small as at DataFusion's level 3, and made sooner.
    config.options_mut().execution.parquet.compression = Some("zstd(1)".to_string());
    // A row group is held until it is whole: half of DataFusion's takes half of the memory.
    config.options_mut().execution.parquet.max_row_group_size = 1 << 19;
    let mut settings = options.settings.clone();
    settings.extend(options.strategy.iter().map(|name| ("streamlines.strategy".to_string(), name.clone())));
    settings.extend(options.speed.iter().map(|speed| ("streamlines.speed".to_string(), speed.clone())));
    settings.extend(options.late.iter().map(|path| ("streamlines.late".to_string(), path.clone())));
    for (key, value) in [("dir", &options.checkpoint_dir), ("interval", &options.checkpoint_interval)] {
        settings.extend(value.iter().map(|value| (format!("streamlines.checkpoint_{key}"), value.clone())));
    }
    if let Some(partitions) = options.partitions {
        settings.push(("streamlines.partitions".to_string(), partitions.to_string()));
        settings.push(("datafusion.execution.target_partitions".to_string(), partitions.to_string()));
    }
    if let Some(rows) = options.batch_rows {
        settings.push(("streamlines.batch_rows".to_string(), rows.to_string()));
    }
    // Memory, spilling and caches belong to the session's runtime, which is not there yet.
    let (of_runtime, settings): (Vec<_>, Vec<_>) =
        settings.into_iter().partition(|(key, _)| key.starts_with("datafusion.runtime."));
    for (key, value) in &settings {
        config.options_mut().set(key, value).map_err(|error| not_set(key, value, error))?;
    }
    let ctx = streaming_session(config);
    for (variable, value) in of_runtime {
        let set = SetVariable { variable: variable.clone(), value: value.clone() };
        let plan = LogicalPlan::Statement(Statement::SetVariable(set));
        ctx.execute_logical_plan(plan).await.map_err(|error| not_set(&variable, &value, error))?;
    }
    Ok(ctx)
}

fn not_set(key: &str, value: &str, error: DataFusionError) -> Error {
    if let Some(own) = Error::find(&error) {
        return own.clone();
    }
    Error::sql(format!("--set {key}={value}: {}", render_error("", &error)))
        .help("SHOW ALL lists the settings; ours begin with streamlines.")
}

/// Runs the statements of --init, whose rows nobody sees.
///
/// # Errors
/// What is wrong with one of them, together with their text.
pub async fn init(
    ctx: &SessionContext,
    path: Option<&Path>,
    quiet: bool,
) -> std::result::Result<(), (String, DataFusionError)> {
    let Some(path) = path else { return Ok(()) };
    let sql = std::fs::read_to_string(path).map_err(|error| {
        let error =
            Error::data(error.to_string()).in_file(path.display().to_string()).help("--init takes a file of SQL");
        (String::new(), error.into())
    })?;
    run_silently(ctx, &sql, quiet).await.map_err(|error| (sql, error))
}

async fn run_silently(ctx: &SessionContext, sql: &str, quiet: bool) -> Result<()> {
    for statement in parse_statements(ctx, sql)? {
        let summary = ctx.plan_job(statement).await?.run(&NullSink).await?;
        let late = summary.progress.late_rows;
        if late > 0 && !quiet {
            say(&format!("warning: {} late rows in a statement of --init", count(late)));
        }
    }
    Ok(())
}
