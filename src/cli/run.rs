//! `streamlines run` and `streamlines sql`: statements in order, rows to the output.

use std::io::Read;

use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;
use streamlines::{
    Error, FileSink, Job, Sink, StdoutSink, StreamStatement, StreamlinesContext, Summary, is_broken_pipe,
    parse_statements,
};

use super::explain::default_format;
use super::options::QueryOptions;
use super::{FAILED, INTERRUPTED, errors, progress, session, summary};

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
    let ctx = match session::open(options) {
        Ok(ctx) => ctx,
        Err(error) => return failed("", &error),
    };
    if let Err((sql, error)) = session::init(&ctx, options).await {
        return failed(&sql, &error);
    }
    match run_all(&ctx, sql, options).await {
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

/// Whether the run was interrupted.
async fn run_all(ctx: &SessionContext, sql: &str, options: &QueryOptions) -> Result<bool> {
    let statements = parse_statements(ctx, sql)?;
    let mut written = false;
    for statement in statements {
        let is_query = statement.is_query();
        let job = plan(ctx, statement).await?;
        if !job.gives_rows() {
            job.run(&streamlines::NullSink).await?;
            continue;
        }
        if is_query && options.output.is_some() && std::mem::replace(&mut written, true) {
            let error = Error::sql("several queries and one --output");
            return Err(error.help("write COPY (SELECT …) TO '…' in each, or run them one by one").into());
        }
        let sink = sink(options, is_query)?;
        if run_job(&job, sink.as_ref(), options).await?.interrupted {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn plan(ctx: &SessionContext, statement: StreamStatement) -> Result<Job> {
    Job::new(ctx.plan_statement(statement).await?).await
}

/// Where a statement's rows go. The counts of a COPY or INSERT are not what --output asks for.
fn sink(options: &QueryOptions, is_query: bool) -> Result<Box<dyn Sink>> {
    let format = default_format(options);
    Ok(match &options.output {
        _ if format == streamlines::OutputFormat::None => Box::new(streamlines::NullSink),
        Some(path) if is_query => Box::new(FileSink::local(path, format)?),
        Some(_) => Box::new(StdoutSink::new(streamlines::OutputFormat::Csv)),
        None => Box::new(StdoutSink::new(format)),
    })
}

/// Runs a query with its progress bar. The first Ctrl-C ends it cleanly, the second at once.
async fn run_job(job: &Job, sink: &dyn Sink, options: &QueryOptions) -> Result<Summary> {
    if !options.quiet {
        job.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    }
    let bar = progress::bar(job, options);
    let run = job.run(sink);
    tokio::pin!(run);
    let mut interrupts = 0;
    let summary = loop {
        tokio::select! {
            summary = &mut run => break summary,
            _ = progress::tick(bar.as_ref(), job) => {}
            _ = tokio::signal::ctrl_c() => {
                interrupts += 1;
                match interrupts {
                    1 => job.stop(),
                    _ => std::process::exit(i32::from(INTERRUPTED)),
                }
            }
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let summary = summary?;
    if !options.quiet {
        summary::print(&summary, options.verbose);
    }
    Ok(summary)
}
