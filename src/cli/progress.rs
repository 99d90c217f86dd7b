//! Progress on standard error: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use streamlines::Job;

use super::errors::say;
use super::options::{ProgressMode, QueryOptions};
use super::summary::{count, time};

/// How the progress of a run is shown.
pub enum Progress {
    /// Not at all.
    None,
    /// A bar that is drawn again and again.
    Bar(ProgressBar),
    /// A line now and then, for what is no terminal.
    Lines,
}

impl Progress {
    /// What the options ask for.
    pub fn new(job: &Job, options: &QueryOptions) -> Self {
        match options.progress {
            _ if options.quiet => return Self::None,
            ProgressMode::Never => return Self::None,
            ProgressMode::Always if !std::io::stderr().is_terminal() => return Self::Lines,
            ProgressMode::Auto if !std::io::stderr().is_terminal() => return Self::None,
            ProgressMode::Auto | ProgressMode::Always => {}
        }
        let total = way(&job.progress()).1;
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let template = match total {
            Some(_) => "{bar:30} {percent:>3} %  {msg}  {eta} left",
            None => "{spinner} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self::Bar(bar)
    }

    /// Waits a little and shows how far the job has come; where nothing is shown it waits for ever.
    pub async fn tick(&self, job: &Job) {
        match self {
            Self::None => std::future::pending().await,
            Self::Bar(bar) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                bar.set_position(way(&job.progress()).0);
                bar.set_message(message(&job.progress()));
            }
            Self::Lines => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let progress = job.progress();
                say(&format!("{}{}", message(&progress), share(&progress)));
            }
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn message(progress: &streamlines::Progress) -> String {
    if progress.rows_in == 0 && progress.early_rows > 0 {
        return format!("{} rows of an early pass over event times", count(progress.early_rows));
    }
    let rate = progress.rows_in as f64 / progress.elapsed.as_secs_f64().max(0.001);
    let reached = progress.event_time.as_ref().map(|at| format!("  at {}", time(at))).unwrap_or_default();
    format!("{} rows  {} rows/s{reached}", count(progress.rows_in), count(rate as u64))
}

/// How far the run is and how far it has to go: in rows where the files say how many they have, else in bytes.
fn way(progress: &streamlines::Progress) -> (u64, Option<u64>) {
    match (progress.rows_total.filter(|total| *total > 0), progress.bytes) {
        (Some(total), _) => (progress.rows_in, Some(total)),
        (None, (done, total)) => (done, Some(total).filter(|total| *total > 0)),
    }
}

/// The percent done and the time left, where the input's size is known.
fn share(progress: &streamlines::Progress) -> String {
    let (done, Some(total)) = way(progress) else { return String::new() };
    let done = (done as f64 / total as f64).clamp(1e-9, 1.0);
    let left = progress.elapsed.mul_f64((1.0 - done) / done);
    format!("  {:.0} %  {} left", done * 100.0, HumanDuration(left))
}
