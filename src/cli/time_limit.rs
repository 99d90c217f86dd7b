//! The end of the time that a run has: work is left where it is, queries are asked to end, and what does not see that is ended
//! with the program.

use std::path::PathBuf;
use std::time::Duration;

use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;
use streamlines::Error;

use super::interrupts::Interrupts;
use super::options::QueryOptions;
use super::{FAILED, errors, session};

/// How long a run may take to end when its time is up. One value may take hours, and who computes it sees nothing else.
const TO_END: Duration = Duration::from_secs(5);

/// Ends the program when a run does not end by itself soon after its time is up.
pub fn ends_at_last(options: &QueryOptions, ctx: &SessionContext) {
    let Some(limit) = options.time_limit else { return };
    let (error, disk) = (out_of_time(options), ctx.runtime_env());
    // No task: the threads that would run it may be those that do not pause.
    std::thread::spawn(move || {
        std::thread::sleep(limit.saturating_add(TO_END));
        errors::print("", &error.into());
        remove_folders(disk.disk_manager.temp_dir_paths());
        std::process::exit(i32::from(FAILED));
    });
}

/// What is done before rows are read, unless it takes longer than it may.
pub async fn in_time<T>(
    work: impl Future<Output = Result<T>>,
    options: &QueryOptions,
    interrupts: &Interrupts,
) -> Result<T> {
    tokio::select! {
        done = work => done,
        () = interrupts.timed_out() => Err(out_of_time(options).into()),
    }
}

/// The statements of --init, which take of the same time.
pub async fn init(
    ctx: &SessionContext,
    options: &QueryOptions,
    interrupts: &Interrupts,
) -> std::result::Result<(), (String, DataFusionError)> {
    let run = async { Ok(session::init(ctx, options.init.as_deref(), options.quiet).await) };
    in_time(run, options, interrupts).await.unwrap_or_else(|error| Err((String::new(), error)))
}

/// The error of a run whose time is up.
pub fn out_of_time(options: &QueryOptions) -> Error {
    let limit = options.time_limit.unwrap_or_default();
    let help = match &options.checkpoint_dir {
        Some(_) => "--time-limit gives it more, and the next run goes on from here",
        None => "--time-limit gives it more; with --checkpoint-dir a query over a stream goes on in the next run",
    };
    Error::data(format!("it has taken longer than {limit:?}, and was ended")).help(help)
}

/// What is left of a query that was ended may hold on to its files for longer than the program.
pub fn remove_temporary_files(ctx: &SessionContext) {
    remove_folders(ctx.runtime_env().disk_manager.temp_dir_paths());
}

fn remove_folders(folders: Vec<PathBuf>) {
    for folder in folders {
        // Where nobody holds them any more they are gone.
        let _ = std::fs::remove_dir_all(folder);
    }
}
