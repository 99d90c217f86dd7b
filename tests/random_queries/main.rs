//! Random queries over random data: streams give the rows of plain DataFusion over the rows that a naive model keeps,
//! folded changes are the final answer, and the order of a key's changes does not depend on how the query runs.
//!
//! `STREAMLINES_SEED=17 cargo test --test random_queries` runs one case again; `cargo test --test random_queries --
//! --ignored` runs new ones for `STREAMLINES_SECONDS` (60).
#![allow(clippy::unwrap_used, clippy::panic)]

mod case;
mod data;
mod query;

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};

use case::{About, Case};

/// Cases that run in every test.
const CASES: u64 = 1_000;
/// Failures that are shrunk and shown.
const SHOWN: usize = 3;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Runs cases until there are none, or enough have failed. Says what those that have run were about.
fn run(seeds: impl Iterator<Item = u64>) -> Vec<About> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
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
    assert!(shares[0] > 80 && shares[1] > 25 && shares[2] > 10, "shares of rows, late rows and changes: {shares:?}");
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
