//! Latency at fixed rates: rows become due by a schedule, and each is timed until what it caused has been written.

use std::time::Duration;

use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use streamlines::{Job, Latency, NullSink, StreamlinesContext};

use super::candidate::Candidate;
use super::measure::{Ground, told};
use super::results::AtRate;

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
    let result = |latency, note| {
        let (asked, candidate) = (ground.asked.clone(), candidate.clone());
        AtRate { asked, candidate, rate, latency, note }
    };
    if let Err(error) = plan(&ctx, &ground.question.stream).await {
        return Ok(result(None, Some(told(&error))));
    }
    run_for(&ctx, &ground.question.stream, WARM_UP.min(length)).await?;
    let latency = run_for(&ctx, &ground.question.stream, length).await?;
    let note = latency.is_none().then(|| "no row was due".to_string());
    Ok(result(latency, note))
}

async fn plan(ctx: &SessionContext, sql: &str) -> Result<Job> {
    Job::new(ctx.stream_sql(sql).await?).await
}

/// Runs until the data ends or the time is up.
async fn run_for(ctx: &SessionContext, sql: &str, length: Duration) -> Result<Option<Latency>> {
    let job = plan(ctx, sql).await?;
    let run = job.run(&NullSink);
    tokio::pin!(run);
    tokio::select! {
        summary = &mut run => summary.map(|_| ())?,
        () = tokio::time::sleep(length) => {
            job.stop();
            run.await?;
        }
    }
    Ok(job.latency())
}
