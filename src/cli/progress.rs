//! The progress bar.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use streamlines::Job;

use super::options::{ProgressMode, QueryOptions};
use super::summary::{count, time};

const TICK: Duration = Duration::from_millis(100);

/// A bar on standard error, if one is wanted.
pub fn bar(job: &Job, options: &QueryOptions) -> Option<ProgressBar> {
    let wanted = match options.progress {
        ProgressMode::Always => true,
        ProgressMode::Never => false,
        ProgressMode::Auto => std::io::stderr().is_terminal(),
    };
    if !wanted || options.quiet {
        return None;
    }
    let total = job.progress().rows_total;
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    let template = match total {
        Some(_) => "{bar:30} {percent:>3} %  {msg}  {eta} left",
        None => "{spinner} {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    Some(bar)
}

/// Waits a little and draws; without a bar it waits for ever.
pub async fn tick(bar: Option<&ProgressBar>, job: &Job) {
    let Some(bar) = bar else { return std::future::pending().await };
    tokio::time::sleep(TICK).await;
    let progress = job.progress();
    let rate = progress.rows_in as f64 / progress.elapsed.as_secs_f64().max(0.001);
    let reached = progress.event_time.as_ref().map(|at| format!("  at {}", time(at))).unwrap_or_default();
    bar.set_position(progress.rows_in);
    bar.set_message(format!("{} rows  {} rows/s{reached}", count(progress.rows_in), count(rate as u64)));
}
