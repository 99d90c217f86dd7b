//! Latency at fixed rates: rows become due by a schedule, and each is timed until what it caused has been written.

use std::time::Duration;

use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use streamlines::{Job, Latency, NullSink, StreamlinesContext};

use super::candidate::Candidate;
use super::ready::Ground;
use super::results::AtRate;
use super::verdict::told;

const WARM_UP: Duration = Duration::from_secs(1);

/// Lets rows become due at a rate for a while.
///
/// # Errors
/// What is wrong with the statements of `init`; a query that fails.
pub async fn at_rate(
    ground: &Ground<'_>,
    candidate: &Candidate,
    init: &str,
    rate: u64,
    length: Duration,
) -> Result<AtRate> {
    let ctx = candidate.session(init).await?;
    let speed = format!("{rate}rows/s");
    ctx.state_ref().write().config_mut().options_mut().set("streamlines.speed", &speed)?;
    let (asked, candidate) = (ground.asked.clone(), candidate.clone());
    let result = AtRate { asked, candidate, rate, latency: None, waiting: 0, note: None };
    if let Err(error) = plan(&ctx, &ground.question.stream).await {
        return Ok(AtRate { note: Some(told(&error)), ..result });
    }
    run_for(&ctx, &ground.question.stream, WARM_UP.min(length)).await?;
    let (latency, left) = run_for(&ctx, &ground.question.stream, length).await?;
    let note = match &latency {
        None => Some("no row was due".to_string()),
        Some(latency) => {
            let seconds = latency.rows() as f64 / latency.rows_per_s().max(1e-9);
            let is_short = left == 0 && seconds < 0.9 * length.as_secs_f64();
            is_short.then(|| format!("all rows were read after {seconds:.1} s"))
        }
    };
    let waiting = latency.as_ref().map_or(0, |latency| waiting(latency, rate).min(left));
    Ok(AtRate { latency, waiting, note, ..result })
}

/// Rows that the schedule had due until the last one was written, less those that were.
fn waiting(latency: &Latency, rate: u64) -> u64 {
    let seconds = latency.rows() as f64 / latency.rows_per_s().max(1e-9);
    ((seconds * rate as f64) as u64).saturating_sub(latency.rows())
}

async fn plan(ctx: &SessionContext, sql: &str) -> Result<Job> {
    Job::new(ctx.stream_sql(sql).await?).await
}

/// Runs until the data ends or the time is up, and how many rows there still were to read then.
async fn run_for(ctx: &SessionContext, sql: &str, length: Duration) -> Result<(Option<Latency>, u64)> {
    let job = plan(ctx, sql).await?;
    let run = job.run(&NullSink);
    tokio::pin!(run);
    let summary = tokio::select! {
        summary = &mut run => summary?,
        () = tokio::time::sleep(length) => {
            job.stop();
            run.await?
        }
    };
    let latency = job.latency();
    let written = latency.as_ref().map_or(0, Latency::rows);
    let left = match summary.interrupted {
        // Text does not say how many rows it has.
        true => summary.progress.rows_total.map_or(u64::MAX, |total| total.saturating_sub(written)),
        false => 0,
    };
    Ok((latency, left))
}
