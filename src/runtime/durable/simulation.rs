//! Jobs whose checkpoints and output are in a store that fails (`store/faulty.rs`), and that crash at any operation, again
//! and again, or stand still and come to life beside the run that has taken over: what they have written when they have ended
//! is what an undisturbed run gives, and on the way there no reader sees a row that later moves, goes or comes twice.
//!
//! `STREAMLINES_SIMULATIONS=1000 STREAMLINES_SEED=1 cargo test --lib any_number_of_seeds -- --ignored` runs as many as it is
//! told to.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use url::Url;

use crate::config::StreamlinesOptions;
use crate::session::{StreamlinesContext, parse_statements, streaming_session_with_runtime};
use crate::sink::{FileSink, Hive, OutputFormat};
use crate::store::Policy;
use crate::store::faulty::FaultyStore;

const QUERIES: [&str; 7] = [
    "SELECT ts, k, g, v * 2 AS w FROM parted WHERE v > 3",
    "SELECT k, tumble(ts, INTERVAL '1 minute') AS minute, count(*), sum(v) FROM parted GROUP BY 1, 2",
    "SELECT g, tumble(ts, INTERVAL '1 minute') AS minute, count(*), sum(v) FROM spread GROUP BY 1, 2",
    "SELECT k, g, count(*), sum(v) FROM parted GROUP BY k, g EMIT CHANGES WITH RETRACTIONS",
    "SELECT g, session(ts, INTERVAL '3 seconds') AS s, count(*) FROM spread GROUP BY 1, 2",
    "SELECT k, ts, sum(v) OVER (PARTITION BY k, g ORDER BY ts ROWS 3 PRECEDING) FROM parted",
    "SELECT g, tumble(ts, INTERVAL '1 minute') AS minute, count(*), sum(v) FROM spread GROUP BY 1, 2 ORDER BY 2, 1",
];

/// Rows of three partitions, a little out of order.
struct Data {
    folder: TempDir,
    /// What undisturbed runs give.
    expected: Mutex<HashMap<&'static str, Vec<String>>>,
}

static DATA: LazyLock<Data> = LazyLock::new(|| {
    let folder = TempDir::new().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for file in 0..3 {
        let mut text = "ts,k,g,v\n".to_string();
        for row in 0..160 {
            let second = row * 5 + random.random_range(0..20);
            let (g, v) = (random.random_range(0..4), random.random_range(0..10));
            let (minute, second) = (second / 60, second % 60);
            writeln!(text, "2024-01-01T00:{minute:02}:{second:02},k{file},g{g},{v}").unwrap();
        }
        std::fs::write(folder.path().join(format!("{file}.csv")), text).unwrap();
    }
    Data { folder, expected: Mutex::default() }
});

/// One run of a job.
struct Run {
    store: FaultyStore,
    query: &'static str,
    /// By the values of how many columns rows are in folders of the output.
    folders: usize,
    options: StreamlinesOptions,
    policy: Policy,
}

impl Run {
    async fn session(&self) -> SessionContext {
        let runtime = RuntimeEnvBuilder::new().build_arc().unwrap();
        runtime.register_object_store(&Url::parse("sim://store").unwrap(), Arc::new(self.store.clone()));
        let config = SessionConfig::new().with_option_extension(self.options.clone());
        let ctx = streaming_session_with_runtime(config.with_extension(Arc::new(self.policy)), runtime);
        for (name, partitions) in [("parted", "'partitioned_by' 'k'"), ("spread", "'partitions' 'files'")] {
            let files = DATA.folder.path().display();
            let create = format!(
                "CREATE STREAM {name} (ts TIMESTAMP, k VARCHAR, g VARCHAR, v BIGINT, WATERMARK FOR ts AS ts - INTERVAL '20' SECOND)
                 STORED AS CSV LOCATION '{files}/*.csv' OPTIONS ({partitions})"
            );
            ctx.stream_sql(&create).await.unwrap();
        }
        ctx
    }

    async fn run(&self) -> Result<()> {
        let ctx = self.session().await;
        let statement = parse_statements(&ctx, self.query)?.remove(0);
        let job = ctx.plan_job(statement).await?;
        let sink = FileSink::open("sim://store/out/", OutputFormat::Csv, &ctx.runtime_env(), &ctx.copied_config())?;
        let columns = job.schema().fields().iter().take(self.folders).map(|field| field.name().clone()).collect();
        job.run(&sink.with_hive(Hive { columns, keeps_columns: true })).await.map(|_| ())
    }
}

/// The rows that a reader of the output finds, sorted.
async fn rows(store: &FaultyStore) -> Vec<String> {
    let objects = store.objects();
    let found: Vec<_> = objects.list(Some(&Path::from("out"))).try_collect().await.unwrap();
    let mut rows = vec![];
    for path in found.into_iter().map(|object| object.location) {
        if path.filename().is_some_and(|name| name.ends_with(".csv")) {
            let bytes = objects.get(&path).await.unwrap().bytes().await.unwrap();
            rows.extend(std::str::from_utf8(&bytes).unwrap().lines().skip(1).map(str::to_string));
        }
    }
    rows.sort();
    rows
}

/// What an undisturbed run gives.
async fn expected(query: &'static str) -> Vec<String> {
    if let Some(known) = DATA.expected.lock().get(query) {
        return known.clone();
    }
    let store = FaultyStore::new(0);
    let options = StreamlinesOptions { partitions: 2, ..StreamlinesOptions::default() };
    Run { store: store.clone(), query, folders: 0, options, policy: Policy::default() }.run().await.unwrap();
    let rows = rows(&store).await;
    assert!(rows.len() > 20, "{query}");
    DATA.expected.lock().insert(query, rows.clone());
    rows
}

/// Impatient, so that a seed takes no longer than it must.
fn impatient() -> Policy {
    Policy {
        attempts: 6,
        attempt: Duration::from_millis(25),
        first_wait: Duration::from_micros(200),
        longest_wait: Duration::from_millis(2),
        lease: Duration::from_millis(90),
        part_bytes: 300,
    }
}

fn options(random: &mut ChaCha8Rng) -> StreamlinesOptions {
    let strategies = ["partitioned", "inline", "single_queue"];
    StreamlinesOptions {
        strategy: strategies[random.random_range(0..3)].to_string(),
        partitions: random.random_range(1..=3),
        batch_rows: random.random_range(5..30),
        handoff_rows: random.random_range(1..20),
        checkpoint_dir: "sim://store/checkpoints".to_string(),
        checkpoint_interval: format!("{}rows", random.random_range(10..60)),
        checkpoints_kept: random.random_range(1..=3),
        roll_bytes: random.random_range(0..2) * random.random_range(1..500),
        roll_interval: format!("{}rows", random.random_range(3..100)),
        ..StreamlinesOptions::default()
    }
}

/// Runs a job until it ends, through crashes and failures, and gives how many there were.
async fn survives(seed: u64) -> Result<(usize, usize), String> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let query = QUERIES[random.random_range(0..QUERIES.len())];
    let expected = expected(query).await;
    let store = FaultyStore::new(seed);
    store.watch("out");
    store.fails(random.random_range(0..60));
    let (mut crashes, mut failures, to_crash) = (0, 0, random.random_range(1..7));
    let folders = random.random_range(0..3);
    let mut cut_off = vec![];
    let told = |what: String| format!("seed {seed}, {query}: {what}");
    loop {
        let is_last = crashes + failures >= to_crash;
        if is_last {
            store.fails(0);
        }
        let own = store.begins((!is_last).then(|| random.random_range(1..150)));
        let policy = if is_last { Policy { lease: Duration::from_secs(1), ..impatient() } } else { impatient() };
        let policy = Policy { attempt: if is_last { Duration::from_secs(5) } else { policy.attempt }, ..policy };
        let run = Run { store: own.clone(), query, folders, options: options(&mut random), policy };
        let mut running = tokio::spawn(async move { run.run().await });
        let ended = tokio::select! {
            ended = &mut running => Some(ended.map_err(|error| told(error.to_string()))?),
            () = store.crashed() => None,
        };
        match ended {
            None => crashes += 1,
            Some(Ok(())) => break,
            // Even in a store that has come to its senses something may be on its way that a dead run has sent.
            Some(Err(error)) if is_expected(&error) && failures < 20 => failures += 1,
            Some(Err(error)) => {
                return Err(told(format!("{error}, after {crashes} crashes and {failures} failures")));
            }
        }
        if own.is_cut_off() {
            cut_off.push(running);
            continue;
        }
        // What is left of the run hears from nobody.
        own.crash();
        running.abort();
        tokio::task::yield_now().await;
    }
    store.settle();
    for run in cut_off {
        match run.await.map_err(|error| told(error.to_string()))? {
            Err(error) if !is_expected(&error) => return Err(told(format!("{error}, of a run that was cut off"))),
            _ => {}
        }
    }
    let violations = store.violations();
    if !violations.is_empty() {
        return Err(told(violations.join("; ")));
    }
    let rows = rows(&store).await;
    match rows == expected {
        true => Ok((crashes, failures)),
        false => Err(told(format!("{} rows instead of {}, after {crashes} crashes", rows.len(), expected.len()))),
    }
}

/// What a store that fails may end a run with: it has failed too often, or for so long that another run could be there.
fn is_expected(error: &DataFusionError) -> bool {
    let told = error.to_string();
    [" failed ", "has not answered for", "another run"].iter().any(|expected| told.contains(expected))
}

/// Runs seeds, and gives how many crashes and failures they had.
fn survive(seeds: std::ops::Range<u64>) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut crashes, mut failures, mut wrong) = (0, 0, vec![]);
    for seed in seeds {
        match runtime.block_on(survives(seed)) {
            Ok((crashed, failed)) => (crashes, failures) = (crashes + crashed, failures + failed),
            Err(told) => wrong.push(told),
        }
    }
    assert!(wrong.is_empty(), "{} seeds went wrong:\n{}", wrong.len(), wrong.join("\n"));
    (crashes, failures)
}

#[test]
fn jobs_in_a_store_that_fails_end_with_the_output_of_undisturbed_ones() {
    let (crashes, _) = survive(0..40);
    assert!(crashes > 40, "{crashes} crashes");
}

#[test]
#[ignore = "takes as long as it is told to"]
fn any_number_of_seeds() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (count, first) = (number("STREAMLINES_SIMULATIONS", 1000), number("STREAMLINES_SEED", 1));
    println!("{count} simulations from seed {first}");
    let (crashes, failures) = survive(first..first + count);
    println!("{crashes} crashes and {failures} failures survived");
}
