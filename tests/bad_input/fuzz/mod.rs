//! Bytes and statements that nobody means, by the thousand: mutations of good ones, from a seed. Whatever they are, they give
//! rows or an error.
//!
//! ```text
//!   a test ─ starts ─▶ the test program again, limited in memory (ulimit) ─ case by case, in one process ─▶ says each seed
//!      ▲                                                                                                      │
//!      └── no case for too long, a crash, a panic: a finding, by its seed; it goes on with the next one ◀─────┘
//! ```
//!
//! So an endless loop, a stack that overflows and memory without bound are found as a panic is. A few seconds of each target run
//! with the other tests. `STREAMLINES_FUZZ=3600 STREAMLINES_SEED=7 cargo test --test bad_input -- --ignored for_as_long` takes an
//! hour for each target (`STREAMLINES_TARGET=sql` for one of them); a finding's seed and `STREAMLINES_FUZZ=0` try it again alone.

mod checkpoints;
mod inputs;
mod parquet;
mod sql;
mod text;

use std::env;
use std::fmt::Display;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use streamlines::{NullSink, StreamlinesContext, parse_statements};
use tokio::runtime::Runtime;

pub(crate) use inputs::mutated;

const TARGETS: [&str; 5] = ["sql", "csv", "json", "parquet", "checkpoints"];
/// A query that takes longer is left, which is no finding if it lets itself be left.
const LONGEST_QUERY: Duration = Duration::from_secs(2);
/// A case that takes longer hangs, also where tests run side by side.
const LONGEST_CASE: Duration = Duration::from_secs(60);
/// Kilobytes of address space.
const MOST_MEMORY: u64 = 6 << 20;
/// Then somebody had better look.
const MOST_FINDINGS: usize = 20;

/// What cases of a target have in common, and one case.
trait Target {
    /// Tries what a seed makes of good input. What it gives says what the case was.
    async fn case(&mut self, random: &mut ChaCha8Rng) -> (String, Result<()>);
}

/// Tries a target for some seconds, from a seed on, and gives what was found and, in words, how much was tried.
fn fuzz(target: &str, seconds: u64, seed: u64) -> (Vec<String>, String) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut findings, mut next, mut good) = (vec![], seed, 0);
    loop {
        let left = end.saturating_duration_since(Instant::now()).as_secs();
        let run = Watched::start(target, left, next).watch();
        findings.extend(run.findings);
        good += run.good;
        next = run.last + 1;
        if run.has_ended || findings.len() >= MOST_FINDINGS || Instant::now() >= end {
            return (findings, format!("{} cases from seed {seed}, {good} of them with rows", next - seed));
        }
    }
}

/// A process that tries one case after the other.
struct Watched {
    child: Child,
    lines: Receiver<String>,
    target: String,
    seed: u64,
}

/// What has become of it.
struct Ended {
    findings: Vec<String>,
    /// The seed of the last case.
    last: u64,
    /// Cases that gave rows and no error.
    good: u64,
    /// Whether its time was up, or it crashed or was ended.
    has_ended: bool,
}

impl Watched {
    fn start(target: &str, seconds: u64, seed: u64) -> Self {
        let limited = format!("ulimit -v {MOST_MEMORY}; exec \"$0\" \"$@\"");
        let mut child = Command::new("sh")
            .args(["-c", &limited])
            .arg(env::current_exe().unwrap())
            .args(["--exact", "fuzz::cases_of_one_process", "--ignored", "--nocapture"])
            .envs([("FUZZED", target.to_string()), ("SECONDS", seconds.to_string()), ("SEED", seed.to_string())])
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (told, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(|line| line.ok()).try_for_each(|line| told.send(line)));
        Self { child, lines, target: target.to_string(), seed }
    }

    fn watch(mut self) -> Ended {
        let mut errors = self.child.stderr.take().unwrap();
        let told = std::thread::spawn(move || {
            let mut bytes = vec![];
            let _ = errors.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let (mut ended, mut hangs) = (Ended { findings: vec![], last: self.seed, good: 0, has_ended: false }, false);
        loop {
            match self.lines.recv_timeout(LONGEST_CASE) {
                Ok(line) => self.hear(&line, &mut ended),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    hangs = true;
                    self.child.kill().unwrap();
                    break;
                }
            }
        }
        let status = self.child.wait().unwrap();
        let told = told.join().unwrap();
        if !ended.has_ended {
            let what = if hangs { "hangs".to_string() } else { format!("{status}: {}", last_lines(&told)) };
            ended.findings.push(self.finding(ended.last, what));
        }
        ended
    }

    /// What the process says: the seed that it begins with, a finding, its end.
    fn hear(&self, line: &str, ended: &mut Ended) {
        match line.split_once(' ') {
            Some(("case", seed)) => ended.last = seed.parse().unwrap(),
            Some(("wrong", what)) => ended.findings.push(self.finding(ended.last, what)),
            Some(("ended", good)) => (ended.good, ended.has_ended) = (good.parse().unwrap(), true),
            // What the frame of tests says.
            _ => {}
        }
    }

    fn finding(&self, seed: u64, what: impl Display) -> String {
        format!("{}, STREAMLINES_SEED={seed}: {what}", self.target)
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// In the process that is watched: cases until the time is up, at least one.
#[test]
#[ignore = "the part of the others that may crash"]
fn cases_of_one_process() {
    let Ok(target) = env::var("FUZZED") else { return };
    let end = Instant::now() + Duration::from_secs(number("SECONDS", 0));
    let seed = number("SEED", 1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    match target.as_str() {
        "sql" => cases(&runtime, sql::Statements::new, seed, end),
        "csv" => cases(&runtime, || text::Text::new("csv"), seed, end),
        "json" => cases(&runtime, || text::Text::new("json"), seed, end),
        "parquet" => cases(&runtime, parquet::Files::new, seed, end),
        "checkpoints" => cases(&runtime, checkpoints::Checkpoints::new, seed, end),
        other => panic!("there is no target {other}"),
    }
    // What was left may still run.
    runtime.shutdown_background();
}

fn cases<T: Target, F: Future<Output = T>>(runtime: &Runtime, new: impl Fn() -> F, seed: u64, end: Instant) {
    let mut target = runtime.block_on(new());
    // From here on a panic is told as a finding.
    std::panic::set_hook(Box::new(|_| {}));
    let mut good = 0;
    for seed in seed.. {
        say(&format!("case {seed}"));
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let tried = catch_unwind(AssertUnwindSafe(|| runtime.block_on(target.case(&mut random))));
        good += u64::from(matches!(tried, Ok((_, Ok(())))));
        if let Some(what) = wrong(tried) {
            say(&format!("wrong {}", what.replace('\n', "\\n")));
            target = runtime.block_on(new());
        }
        if Instant::now() >= end {
            say(&format!("ended {good}"));
            return;
        }
    }
}

/// What is wrong with a case: errors are well, but not all of them.
fn wrong(tried: std::thread::Result<(String, Result<()>)>) -> Option<String> {
    let (case, result) = match tried {
        Ok(tried) => tried,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied().map(str::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            return Some(format!("panicked: {text}"));
        }
    };
    let error = result.err()?.to_string();
    let is_wrong = ["panicked", "nternal error", "wrong rows"].iter().any(|sign| error.contains(sign));
    is_wrong.then(|| format!("{error}: {case}"))
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Carries out statements, but no longer than a query may take.
async fn run(ctx: &SessionContext, sql: &str) -> Result<()> {
    let run = async {
        for statement in parse_statements(ctx, sql)? {
            ctx.plan_job(statement).await?.run(&NullSink).await?;
        }
        Ok::<_, DataFusionError>(())
    };
    tokio::time::timeout(LONGEST_QUERY, run).await.unwrap_or(Ok(()))
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn finds_nothing(target: &str) {
    let (findings, tried) = fuzz(target, 4, 1);
    assert!(findings.is_empty(), "{tried}, {} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn some_seconds_of_sql() {
    finds_nothing("sql");
}

#[test]
fn some_seconds_of_csv() {
    finds_nothing("csv");
}

#[test]
fn some_seconds_of_json() {
    finds_nothing("json");
}

#[test]
fn some_seconds_of_parquet() {
    finds_nothing("parquet");
}

#[test]
fn some_seconds_of_checkpoints() {
    finds_nothing("checkpoints");
}

#[test]
#[ignore = "takes as long as it is told to"]
fn for_as_long_as_one_likes() {
    let (seconds, seed) = (number("STREAMLINES_FUZZ", 60), number("STREAMLINES_SEED", 1));
    let only = env::var("STREAMLINES_TARGET").ok();
    let mut all = vec![];
    for target in TARGETS.iter().filter(|target| only.as_ref().is_none_or(|only| only == *target)) {
        let (findings, tried) = fuzz(target, seconds, seed);
        println!("{target}: {tried}, {} findings", findings.len());
        all.extend(findings);
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}
