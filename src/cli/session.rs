//! The session that the options ask for.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{LogicalPlan, SetVariable, Statement};
use datafusion::prelude::{SessionConfig, SessionContext};
use streamlines::{
    Confinement, Error, NullSink, StreamlinesContext, StreamlinesOptions, parse_statements, render_error,
    streaming_session_with_runtime,
};

use super::errors::say;
use super::options::QueryOptions;
use super::stores;
use super::summary::count;

/// How many of those that hold most memory an error names.
const CONSUMERS_TOLD: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

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
    settings.extend(options.roll_bytes.iter().map(|bytes| ("streamlines.roll_bytes".to_string(), bytes.to_string())));
    settings.extend(options.roll_interval.iter().map(|roll| ("streamlines.roll_interval".to_string(), roll.clone())));
    if let Some(rows) = options.batch_rows {
        settings.push(("streamlines.batch_rows".to_string(), rows.to_string()));
    }
    // Memory, spilling and caches belong to the session's runtime, which is not there yet.
    let (of_runtime, settings): (Vec<_>, Vec<_>) =
        settings.into_iter().partition(|(key, _)| key.starts_with("datafusion.runtime."));
    for (key, value) in &settings {
        config.options_mut().set(key, value).map_err(|error| not_set(key, value, error))?;
    }
    let runtime = runtime(options, of_runtime).await?;
    Ok(streaming_session_with_runtime(confined(config, options)?, runtime))
}

/// What SQL may reach.
fn confined(config: SessionConfig, options: &QueryOptions) -> Result<SessionConfig> {
    let mut confinement = Confinement::default();
    // A limit would be none if SQL could raise it.
    if options.root.is_none() && !options.read_only && options.memory_limit.is_none() {
        return Ok(config);
    }
    if let Some(root) = &options.root {
        confinement = confinement.within_folder(root)?;
    }
    if options.read_only {
        confinement = confinement.reading_only();
    }
    Ok(confinement.on(config))
}

/// Memory, and where what there is none for goes, with settings that DataFusion takes as statements alone. A confined session
/// could not change them any more.
async fn runtime(options: &QueryOptions, settings: Vec<(String, String)>) -> Result<Arc<RuntimeEnv>> {
    let mut builder = stores::runtime_builder();
    if let Some(limit) = options.memory_limit {
        // Each operator that can spill has its share, so that one never has to wait for what another holds.
        let pool = TrackConsumersPool::new(FairSpillPool::new(limit), CONSUMERS_TOLD);
        builder = builder.with_memory_pool(Arc::new(pool));
    }
    let ctx = SessionContext::new_with_config_rt(SessionConfig::new(), builder.build_arc()?);
    for (variable, value) in settings {
        let set = SetVariable { variable: variable.clone(), value: value.clone() };
        let plan = LogicalPlan::Statement(Statement::SetVariable(set));
        ctx.execute_logical_plan(plan).await.map_err(|error| not_set(&variable, &value, error))?;
    }
    Ok(ctx.runtime_env())
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
