//! `streamlines run` and `streamlines sql`: statements in order, rows to the output.

use std::io::Read;

use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;
use streamlines::{
    Error, FileSink, Job, NullSink, OutputFormat, Sink, StdoutSink, StreamStatement, StreamlinesContext, Summary,
    is_broken_pipe, parse_statements,
};

use super::interrupts::Interrupts;
use super::options::QueryOptions;
use super::progress::Progress;
use super::time_limit::{ends_at_last, in_time, init, out_of_time, remove_temporary_files};
use super::{FAILED, INTERRUPTED, USAGE, errors, session, summary};

/// Runs the statements of a file, or of standard input for `-`.
pub async fn file(path: &str, options: &QueryOptions) -> u8 {
    let mut sql = String::new();
    let read = match path {
        "-" => std::io::stdin().read_to_string(&mut sql).map(|_| ()),
        path => std::fs::read_to_string(path).map(|text| sql = text),
    };
    match read {
        Ok(()) => text(&sql, options).await,
        Err(error) => {
            let error = Error::data(error.to_string()).in_file(path).help("run takes a file of SQL statements");
            errors::print("", &error.into());
            FAILED
        }
    }
}

/// Runs statements.
pub async fn text(sql: &str, options: &QueryOptions) -> u8 {
    let interrupts = Interrupts::listen(options.time_limit);
    let ctx = match session::open(options).await {
        Ok(ctx) => ctx,
        Err(error) => {
            errors::print("", &error);
            return USAGE;
        }
    };
    ends_at_last(options, &ctx);
    if let Err((sql, error)) = init(&ctx, options, &interrupts).await {
        remove_temporary_files(&ctx);
        return failed(&sql, &error);
    }
    let statements = match parse_statements(&ctx, sql) {
        Ok(statements) => statements,
        Err(error) => return failed(sql, &error),
    };
    if let Err(error) = check_one_result(&statements, options) {
        errors::print("", &error.into());
        return USAGE;
    }
    let ended = run_all(&ctx, statements, options, &interrupts).await;
    remove_temporary_files(&ctx);
    match ended {
        Ok(false) => 0,
        Ok(true) => INTERRUPTED,
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) => failed(sql, &error),
    }
}

fn failed(sql: &str, error: &DataFusionError) -> u8 {
    errors::print(sql, error);
    FAILED
}

/// A file, and a format that is one file, hold the rows of one query.
fn check_one_result(statements: &[StreamStatement], options: &QueryOptions) -> std::result::Result<(), Error> {
    let help = "write COPY (SELECT …) TO '…' in each, or run them one by one";
    if statements.iter().filter(|statement| statement.is_query()).count() < 2 {
        return Ok(());
    }
    match (&options.output, options.row_format()) {
        (_, OutputFormat::None) => Ok(()),
        (Some(path), _) => Err(Error::sql(format!("several queries and one --output {path}")).help(help)),
        (None, format @ (OutputFormat::Parquet | OutputFormat::Arrow)) => {
            Err(Error::sql(format!("several queries and one {format} output")).help(help))
        }
        (None, _) => Ok(()),
    }
}

/// Whether the run was interrupted.
async fn run_all(
    ctx: &SessionContext,
    statements: Vec<StreamStatement>,
    options: &QueryOptions,
    interrupts: &Interrupts,
) -> Result<bool> {
    let mut has_ledger = false;
    for statement in statements {
        let is_query = statement.is_query();
        let job = in_time(ctx.plan_job(statement), options, interrupts).await?;
        if let Some(path) = options.late.as_ref().filter(|_| job.reads_stream())
            && std::mem::replace(&mut has_ledger, true)
        {
            let help = "SET streamlines.late = '…' before each, or run them one by one";
            return Err(Error::sql(format!("several queries over streams and one --late {path}")).help(help).into());
        }
        if !job.gives_rows() && !job.reads_stream() {
            in_time(job.run(&NullSink), options, interrupts).await?;
            continue;
        }
        let sink = match job.gives_rows() {
            true => sink(ctx, options, is_query)?,
            false => Box::new(NullSink),
        };
        interrupts.set_running(true);
        let summary = run_job(&job, sink.as_ref(), is_query, options, interrupts).await;
        interrupts.set_running(false);
        if summary?.interrupted {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where a statement's rows go. The counts of a COPY or INSERT are not what --output asks for.
fn sink(ctx: &SessionContext, options: &QueryOptions, is_query: bool) -> Result<Box<dyn Sink>> {
    let format = options.row_format();
    check_extension(options)?;
    Ok(match &options.output {
        _ if format == OutputFormat::None => Box::new(NullSink),
        Some(path) if is_query => {
            let sink = FileSink::open(path, format, &ctx.runtime_env(), &ctx.copied_config())?;
            Box::new(sink.with_options(ctx.state().default_table_options()))
        }
        Some(_) => Box::new(StdoutSink::new(OutputFormat::Csv)),
        None => Box::new(StdoutSink::new(format)),
    })
}

/// A file's name says its format, or somebody else does.
fn check_extension(options: &QueryOptions) -> std::result::Result<(), Error> {
    let Some(path) = options.output.as_deref().filter(|path| options.format.is_none() && !path.ends_with('/')) else {
        return Ok(());
    };
    let has_extension = std::path::Path::new(path).extension().is_some();
    match OutputFormat::of_path(path) {
        None if has_extension => Err(Error::data("its extension says no format of output")
            .in_file(path)
            .help("--format csv, json, ndjson, parquet, arrow or table")),
        _ => Ok(()),
    }
}

/// Runs a query with its progress bar, until it ends or Ctrl-C ends it.
async fn run_job(
    job: &Job,
    sink: &dyn Sink,
    is_query: bool,
    options: &QueryOptions,
    interrupts: &Interrupts,
) -> Result<Summary> {
    let warn = |warning: &String| errors::say(&format!("warning: {warning}"));
    let known = job.warnings();
    if !options.quiet {
        known.iter().for_each(warn);
    }
    let bar = Progress::new(job, options);
    let run = job.run(sink);
    tokio::pin!(run);
    let mut is_out_of_time = false;
    let summary = loop {
        tokio::select! {
            summary = &mut run => break summary,
            _ = bar.tick(job) => {}
            () = interrupts.pressed() => match options.drain {
                true => job.drain(),
                false => job.stop(),
            },
            () = interrupts.timed_out(), if !is_out_of_time => {
                is_out_of_time = true;
                job.stop();
            }
        }
    };
    bar.finish();
    let summary = summary?;
    if is_out_of_time && summary.interrupted {
        return Err(out_of_time(options).into());
    }
    if !options.quiet {
        summary.warnings.iter().filter(|warning| !known.contains(warning)).for_each(warn);
        summary::print(&summary, is_query, options);
    }
    Ok(summary)
}
