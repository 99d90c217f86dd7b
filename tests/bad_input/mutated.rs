//! Input that something has happened to: good files, statements and checkpoints with a few bytes changed, taken out, put in or
//! moved. Whatever becomes of them, the program ends with rows or with an error: no panic, no hang, no memory without bound.
//! (`fuzz` tries many more of them within one process.)
//!
//! `STREAMLINES_MUTATIONS=10000 STREAMLINES_SEED=7 cargo test --test bad_input -- --ignored any_number` tries as many as it is
//! told to, and says each failure's seed and number.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::fuzz::mutated;
use crate::{Folder, PROGRAM};

/// Longer than any of these runs takes, also where tests run side by side.
const LONGEST: Duration = Duration::from_secs(60);
/// Kilobytes of address space: the allocator takes a gigabyte of it before anything happens.
const MOST_MEMORY: u64 = 8 << 20;

/// Runs the program, which ends by itself with 0 or 1, and gives its rows if there are any.
fn ends_well(folder: &Folder, arguments: &[&str], case: &str) -> Option<String> {
    let limited = format!("ulimit -v {MOST_MEMORY}; exec \"$0\" \"$@\"");
    let mut child = Command::new("sh")
        .current_dir(folder.0.path())
        .args(["-c", &limited, PROGRAM])
        .args(arguments)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let read = |mut out: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = vec![];
            out.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
        })
    };
    let rows = read(Box::new(child.stdout.take().unwrap()));
    let told = read(Box::new(child.stderr.take().unwrap()));
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() > LONGEST => {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let told = told.join().unwrap().unwrap();
    let is_good = matches!(status.code(), Some(0 | 1)) && !told.contains("panicked") && !told.contains("nternal error");
    assert!(is_good, "{case}: {status}: {told}");
    status.success().then(|| rows.join().unwrap().unwrap())
}

pub(crate) const CSV: &str = "origin,ts,distance,fare,note
EWR,2013-01-01T06:00:00,1400,10.5,\"a, b\"
JFK,2013-01-01T06:00:10,1089,,\"said \"\"no\"\"\"
LGA,2013-01-01T06:00:20,,7.25,
EWR,,719,3,\"two
lines\"
JFK,2013-01-01T06:01:40.5,762,-1e3,x
";

pub(crate) const JSON: &str = r#"{"origin": "EWR", "ts": "2013-01-01T06:00:00", "distance": 1400, "fare": 10.5, "note": [{"a": "x"}, {"b": 1}]}
{"origin": "JFK", "ts": "2013-01-01T06:00:10", "distance": 1089, "fare": null, "note": []}
{"origin": "L\u0047A", "ts": "2013-01-01T06:00:20", "distance": null, "fare": 7.25}
{"origin": null, "ts": null, "distance": 719, "fare": -1e3, "note": null}
"#;

/// Columns to list, where the file does not say them.
pub(crate) fn columns(format: &str) -> &'static str {
    match format {
        "csv" => "origin VARCHAR, ts TIMESTAMP, distance BIGINT, fare DOUBLE, note VARCHAR,",
        "json" => "origin VARCHAR, ts TIMESTAMP, distance BIGINT, fare DOUBLE, note STRUCT<a VARCHAR, b BIGINT>[],",
        _ => "",
    }
}

/// A stream over files of a format, and queries of it.
pub(crate) fn queries(format: &str, bound: &str, more: &str) -> String {
    format!(
        "CREATE STREAM trips ({} WATERMARK FOR ts{bound}) STORED AS {format} LOCATION 'trips.{format}' {more};
         SELECT origin, tumble(ts, INTERVAL '1 minute') AS minute, count(*), sum(distance), max(fare) FROM trips GROUP BY 1, 2;
         SELECT *, sum(distance) OVER (PARTITION BY origin ORDER BY ts ROWS 2 PRECEDING) AS recent FROM trips",
        columns(format)
    )
}

fn of_files(format: &str, good: &[u8], cases: usize, seed: u64) {
    let folder = Folder::new();
    let name = format!("trips.{format}");
    fs::write(folder.path(&name), good).unwrap();
    let run = |sql: &str, case: &str| ends_well(&folder, &["sql", "-q", "--format", "ndjson", sql], case);
    assert!(run(&queries(format, "", ""), format).is_some(), "{format}: the good file is none");
    for case in 0..cases {
        let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_add(case as u64));
        fs::write(folder.path(&name), mutated(good, &mut random)).unwrap();
        let bound = *["", " AS ts - INTERVAL '5' SECOND"].choose(&mut random).unwrap();
        let more = *["", "OPTIONS ('on_error' 'skip')"].choose(&mut random).unwrap();
        let sql = queries(format, bound, if format == "csv" { more } else { "" });
        let seed = seed.wrapping_add(case as u64);
        run(&sql, &format!("{format}, STREAMLINES_SEED={seed}"));
    }
}

fn parquet() -> Vec<u8> {
    let folder = Folder::with_trips();
    fs::read(folder.path("trips.parquet")).unwrap()
}

const STATEMENTS: [&str; 8] = [
    "SELECT origin, window_start, count(*), avg(fare) FROM trips GROUP BY origin WINDOW TUMBLING (SIZE 1 MINUTE) HAVING count(*) > 1 EMIT CHANGES WITH OP",
    "SELECT origin, hop(ts, INTERVAL '5 seconds', INTERVAL '1 minute') AS w, max(fare) FILTER (WHERE distance > 3) FROM trips GROUP BY 1, 2 EMIT FINAL ALLOWED LATENESS INTERVAL '1' MINUTE",
    "SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY fare DESC NULLS LAST) AS r FROM TABLE(TUMBLE(TABLE trips, DESCRIPTOR(ts), INTERVAL '1' MINUTE))) WHERE r <= 2",
    "WITH w AS (SELECT origin, tumble(ts, INTERVAL '20 seconds') AS t, sum(distance) AS d FROM trips GROUP BY 1, 2) SELECT tumble(t, INTERVAL '1 minute') AS m, max(d) FROM w GROUP BY 1",
    "SELECT origin, fare, lag(fare, 2, 0.5) OVER (PARTITION BY origin ORDER BY ts), first_value(fare) OVER (ORDER BY ts RANGE BETWEEN INTERVAL '1' MINUTE PRECEDING AND CURRENT ROW) FROM trips",
    "CREATE OR REPLACE STREAM t2 (WATERMARK FOR ts AS ts - INTERVAL '0.5' SECOND) STORED AS PARQUET LOCATION 'trips.parquet' OPTIONS ('partitioned_by' 'origin')",
    "SELECT origin, count(DISTINCT distance) FROM trips WHERE ts > TIMESTAMP '2013-01-01T00:00:00' GROUP BY ROLLUP (origin, tumble(ts, INTERVAL '1' HOUR, INTERVAL '5' MINUTE))",
    "SELECT session(ts, INTERVAL '30 seconds') AS s, array_agg(origin ORDER BY fare), CASE WHEN sum(fare) / 0 > 1e308 THEN 'x' END FROM trips GROUP BY 1 ORDER BY s LIMIT 3 OFFSET 1",
];

fn of_statements(cases: usize, seed: u64) {
    let folder = Folder::with_trips();
    for case in 0..cases {
        let seed = seed.wrapping_add(case as u64);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let statement = mutated(STATEMENTS.choose(&mut random).unwrap().as_bytes(), &mut random);
        let text = String::from_utf8_lossy(&statement).replace('\0', "0");
        let sql = format!("{}{text}", crate::STREAM);
        let arguments = ["sql", "-q", "--format", "csv", "--root", ".", "--read-only", "--", &sql];
        ends_well(&folder, &arguments, &format!("SQL, STREAMLINES_SEED={seed}: {text}"));
    }
}

/// A job that was ended in the middle goes on from what is left of its checkpoints, to the same rows, or says what is wrong.
fn of_checkpoints(cases: usize, seed: u64) {
    let folder = Folder::with_trips();
    let sql = format!(
        "{}SELECT origin, tumble(ts, INTERVAL '20 seconds') AS t, count(*), sum(fare) FROM trips GROUP BY 1, 2",
        crate::STREAM
    );
    let job = ["sql", "-q", "--format", "csv", "--output", "out/", "--batch-rows", "2", &sql];
    let save = ["--checkpoint-dir", "saved", "--checkpoint-interval", "2rows"];
    let run = [&job[..], &save].concat();
    let files = |of: &str| {
        let paths = folder.names().into_iter().map(PathBuf::from);
        let files = paths.filter(|path| path.starts_with(folder.path(of)) && path.is_file());
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    let rows = || {
        let texts = files("out").into_iter().map(|(_, bytes)| String::from_utf8(bytes).unwrap());
        let mut rows: Vec<_> =
            texts.flat_map(|text| text.lines().skip(1).map(str::to_string).collect::<Vec<_>>()).collect();
        rows.sort();
        rows
    };
    ends_well(&folder, &job, "a job").unwrap();
    let expected = rows();
    fs::remove_dir_all(folder.path("out")).unwrap();
    let half = [&run[..], &["--speed", "20rows/s", "--time-limit", "300ms"]].concat();
    assert!(ends_well(&folder, &half, "half a job").is_none());
    let (saved, out) = (files("saved"), files("out"));
    assert!(saved.len() > 2 && !expected.is_empty() && rows().len() < expected.len());
    for case in 0..cases {
        let seed = seed.wrapping_add(case as u64);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for (path, _) in files("saved").iter().chain(&files("out")) {
            fs::remove_file(path).unwrap();
        }
        saved.iter().chain(&out).for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        for _ in 0..random.random_range(1..3) {
            let (path, bytes) = saved.choose(&mut random).unwrap();
            fs::write(path, mutated(bytes, &mut random)).unwrap();
        }
        let case = format!("checkpoints, STREAMLINES_SEED={seed}");
        ends_well(&folder, &["checkpoints", "show", "saved"], &case);
        if ends_well(&folder, &run, &case).is_some() {
            assert_eq!(rows(), expected, "{case}");
        }
    }
}

fn of_everything(cases: usize, seed: u64) {
    of_files("csv", CSV.as_bytes(), cases, seed);
    of_files("json", JSON.as_bytes(), cases, seed);
    of_files("parquet", &parquet(), cases, seed);
    of_statements(cases, seed);
    of_checkpoints(cases / 2, seed);
}

#[test]
fn what_something_has_happened_to_gives_rows_or_an_error() {
    of_everything(60, 1);
}

#[test]
#[ignore = "takes as long as it is told to"]
fn any_number_of_mutations() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (cases, seed) = (number("STREAMLINES_MUTATIONS", 1000), number("STREAMLINES_SEED", 1));
    println!("{cases} mutations of each kind from seed {seed}");
    of_everything(cases as usize, seed);
}
