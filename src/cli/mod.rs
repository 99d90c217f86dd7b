//! Subcommands, one file each. Rows go to standard output alone; everything else to standard error.

mod bench;
mod check;
mod checkpoints;
mod completions;
mod errors;
mod explain;
mod generate;
mod interrupts;
mod lateness;
mod options;
mod panics;
mod progress;
mod run;
mod session;
mod stores;
mod summary;
mod time_limit;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use options::QueryOptions;

/// A query failed.
const FAILED: u8 = 1;
/// The command line asks for what there is not, as clap says of its own errors.
const USAGE: u8 = 2;
/// The run was interrupted.
const INTERRUPTED: u8 = 130;

const EXAMPLES: &str = "\
Examples:
  streamlines run examples/flights.sql
  streamlines sql \"SELECT origin, count(*) FROM 'testdata/nycflights/flights-*.parquet' GROUP BY origin\"
  streamlines sql --init streams.sql --output out/ --format parquet \"SELECT … EMIT CHANGES\"
  streamlines explain --init streams.sql \"SELECT …\"
  streamlines check examples/flights.sql
  streamlines lateness data/ --time event_time
  streamlines generate trades --rows 1000000 --partitions 2 --out data/
  streamlines bench --scenarios 3a --strategies partitioned,inline";

const BENCH_EXAMPLES: &str = "\
Examples:
  streamlines bench --scenarios 2,3a --partitions 1,2 --report bench.html
  streamlines bench --rows 1000000 --strategies partitioned,inline,single_queue --handoff-rows 1,16384
  streamlines bench --scenarios 3a --routings auto,merge_on_close,hash_at_source,exchange --keys 200,100000
  streamlines bench --scenarios 3b --runs 0 --rates 10000,100000,1000000 --json latency.json
  streamlines bench --scenarios 3a --keys 100000 --against datafusion,duckdb
  streamlines bench --init streams.sql --sql query.sql";

#[derive(Parser)]
#[command(name = "streamlines", version, about = "Streaming SQL over Parquet, CSV and JSON files", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the statements of a file, or of standard input.
    #[command(after_help = "Example:\n  streamlines run examples/flights.sql --format csv --output flights.csv")]
    Run {
        /// A file of SQL statements, or - for standard input.
        file: String,
        #[command(flatten)]
        options: QueryOptions,
    },
    /// Run statements given on the command line.
    #[command(after_help = "Example:\n  streamlines sql \"SELECT count(*) FROM 'data/*.parquet'\"")]
    Sql {
        /// SQL statements, separated by semicolons.
        sql: String,
        #[command(flatten)]
        options: QueryOptions,
    },
    /// Show the logical plan, the plan of a partition, strategy and routing.
    #[command(
        after_help = "Example:\n  streamlines explain --init streams.sql \"SELECT origin, count(*) FROM flights GROUP BY origin\""
    )]
    Explain {
        /// A query.
        sql: String,
        #[command(flatten)]
        options: QueryOptions,
    },
    /// Say whether queries give the rows of plain DataFusion, and the same rows however they run.
    #[command(after_help = "Example:\n  streamlines check examples/flights.sql --seed 7")]
    Check(check::CheckOptions),
    /// Say what each bound of a watermark would cost, and which rows make others late.
    #[command(
        after_help = "Example:\n  streamlines lateness 'testdata/nycflights/flights-*.parquet' --time scheduled --by origin"
    )]
    Lateness(lateness::LatenessOptions),
    /// Measure strategies, routings and other engines on the same question, side by side.
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Box<bench::BenchOptions>),
    /// Make data to try and to measure with.
    #[command(subcommand)]
    Generate(generate::Generate),
    /// List, show or delete the checkpoints of a job.
    #[command(subcommand, after_help = "Example:\n  streamlines checkpoints list target/hourly-job")]
    Checkpoints(checkpoints::Checkpoints),
    /// Print shell completions.
    #[command(after_help = "Example:\n  streamlines completions bash > /etc/bash_completion.d/streamlines")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Stacks of the thread that plans, and of those that read rows. Statements nest as deep as whoever writes them likes, and
/// so do calls; of what is not used no memory is taken.
const PLANNING_STACK_BYTES: usize = 512 << 20;
const STACK_BYTES: usize = 64 << 20;

/// Reads the arguments and runs the command.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let planning = std::thread::Builder::new().name("main".to_string()).stack_size(PLANNING_STACK_BYTES);
    match planning.spawn(|| run(arguments)).map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => not_started(&error),
    }
}

fn not_started(error: &std::io::Error) -> ExitCode {
    errors::say(&format!("error: {error}"));
    ExitCode::from(FAILED)
}

fn run(arguments: Arguments) -> ExitCode {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.enable_all().thread_stack_size(STACK_BYTES).build() {
        Ok(runtime) => runtime,
        Err(error) => return not_started(&error),
    };
    let run = || match arguments.command {
        Command::Run { file, options } => runtime.block_on(run::file(&file, &options)),
        Command::Sql { sql, options } => runtime.block_on(run::text(&sql, &options)),
        Command::Explain { sql, options } => runtime.block_on(explain::explain(&sql, &options)),
        Command::Check(options) => runtime.block_on(check::check(&options)),
        Command::Lateness(options) => runtime.block_on(lateness::report(&options)),
        Command::Bench(options) => runtime.block_on(bench::bench(&options.without_repeats())),
        Command::Generate(generate) => {
            let _context = runtime.enter();
            tokio::spawn(generate.clone().when_interrupted());
            generate.run()
        }
        Command::Checkpoints(command) => runtime.block_on(checkpoints::run(&command)),
        Command::Completions { shell } => completions::print::<Arguments>(shell),
    };
    let code = panics::told(run);
    // A second Ctrl-C, or a reader that hangs, must not keep the program.
    runtime.shutdown_background();
    ExitCode::from(code)
}
