//! Random queries over random data: streams give the rows of plain DataFusion over the rows that a naive model keeps,
//! folded changes are the final answer, and the order of a key's changes does not depend on how the query runs.
//!
//! `STREAMLINES_SEED=17 cargo test --test random_queries` runs one case again; `cargo test --test random_queries --
//! --ignored` runs new ones for `STREAMLINES_SECONDS` (60).
#![allow(clippy::unwrap_used, clippy::panic)]

mod case;
mod data;
mod draw;
mod query;
mod window;

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use streamlines::Setup;
use tokio::runtime::Runtime;

use case::{About, Case};
use data::{Data, Watermark};
use query::{Aggregate, Emit, Kind, Over, Query, Spelling};
use window::Window;

/// Cases that run in every test.
const CASES: u64 = 1_000;
/// Failures that are shrunk and shown.
const SHOWN: usize = 3;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Runs cases until there are none, or enough have failed. Says what those that have run were about.
fn run(seeds: impl Iterator<Item = u64>) -> Vec<About> {
    runtime().block_on(async {
        let cases = stream::iter(seeds).map(|seed| {
            let run = tokio::spawn(async move { Case::random(seed).run().await });
            async move { (seed, run.await.unwrap_or_else(|panic| Err(panic.to_string()))) }
        });
        let (mut about, mut failures) = (vec![], vec![]);
        let mut cases = cases.buffered(3);
        while let Some((seed, result)) = cases.next().await {
            match result {
                Ok(case) => about.push(case),
                Err(failure) => failures.push((seed, failure)),
            }
            if failures.len() == SHOWN {
                break;
            }
        }
        let mut texts = vec![];
        for (seed, failure) in failures {
            let (case, failure) = Case::random(seed).shrunk(failure).await;
            texts.push(format!(
                "{failure}\n{}\n-- again: STREAMLINES_SEED={seed} cargo test --test random_queries",
                case.text()
            ));
        }
        assert!(texts.is_empty(), "{} cases fail, {} do not\n\n{}", texts.len(), about.len(), texts.join("\n\n"));
        about
    })
}

#[test]
fn a_thousand_queries() {
    if let Some(seed) = variable("STREAMLINES_SEED") {
        run(seed..=seed);
        return;
    }
    let about = run(0..CASES);
    // They would prove little if most were about nothing.
    let share = |what: fn(&About) -> bool| about.iter().filter(|about| what(about)).count() * 100 / about.len();
    let shares = [share(|about| about.has_rows), share(|about| about.has_late_rows), share(|about| about.is_changelog)];
    assert!(shares[0] > 80 && shares[1] > 15 && shares[2] > 10, "shares of rows, late rows and changes: {shares:?}");
}

/// Which rows are late follows from their order in the files alone: of windows, each kept row by its number, and of
/// OVER, where a row is late if it is behind the watermark itself.
#[test]
fn late_rows_are_the_same_rows_however_a_query_runs() {
    let ids = Aggregate { call: "array_agg(id ORDER BY id DESC)", filter: None, leaves_order_open: false };
    let window = Some((Window::Tumble { size_s: 10, offset_s: 3 }, Spelling::Function));
    let (keys, having) = (vec!["k"], None);
    let windowed = Query::of_late_rows(Kind::GroupBy {
        window,
        bounds: vec!["window_start"],
        keys,
        aggregates: vec![ids],
        having,
    });
    let changes = Query { emit: Emit::Changes, ..windowed.clone() };
    let count = Over { call: "count(*)", keys: vec!["k"], rows: Some(2), is_buffer: false };
    let over = Query::of_late_rows(Kind::Over { functions: vec![count] });
    let mut late = 0;
    for seed in 0..20 {
        let mut data = Data::random(&mut ChaCha8Rng::seed_from_u64(seed));
        data.watermark = Watermark::Bound { ms: 2000 };
        for query in [&windowed, &changes, &over] {
            let case = Case::under(data.clone(), query.clone(), Setup::grid());
            late += usize::from(judged(&case).has_late_rows);
        }
    }
    assert!(late > 15, "{late} of 60 cases have late rows");
}

fn judged(case: &Case) -> About {
    let judged = runtime().block_on(case.run());
    judged.unwrap_or_else(|failure| panic!("{failure}\n{}", case.text()))
}

#[test]
#[ignore = "runs for as long as it is told to"]
fn new_queries() {
    let seconds = variable("STREAMLINES_SECONDS").unwrap_or(60);
    let begin = Instant::now();
    // Far from the cases that are always run.
    let first = RandomState::new().hash_one(()) >> 1;
    let seeds = (first..).take_while(|_| begin.elapsed() < Duration::from_secs(seconds));
    eprintln!("{} cases from seed {first}", run(seeds).len());
}
