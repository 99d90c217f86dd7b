//! Object stores, against a real S3 server: what is written and saved there survives processes that are killed, and what does
//! not do is told.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command as Process, Output, Stdio};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::PROGRAM;
use crate::checkpoint::{Place, QUERIES, STREAMS, Saving, lines, survives, undisturbed};
use crate::running::{Running, wait_until};
use crate::s3_server::{BUCKET, SECRET, Server, known_to};

/// The lease of these jobs: the run after one that was killed waits as long.
const LEASE: [&str; 2] = ["--set", "streamlines.checkpoint_lease=3s"];

/// A folder of the bucket.
struct Folder<'a> {
    server: &'a Server,
    name: &'a str,
}

impl Place for Folder<'_> {
    fn of(&self, name: &str) -> String {
        format!("s3://{BUCKET}/{}/{name}", self.name)
    }

    fn streams(&self) -> String {
        STREAMS.replace("testdata/nycflights/", &format!("s3://{BUCKET}/flights/"))
    }

    fn known_to(&self, command: &mut Process) {
        self.server.known_to(command).args(LEASE);
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(3100)
    }

    fn files(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        self.server.objects(&format!("{}/{name}", self.name))
    }
}

/// A server that has the flights.
fn with_flights() -> Server {
    let server = Server::start();
    for name in ["flights-EWR.parquet", "flights-JFK.parquet", "flights-LGA.parquet", "flights-LGA-january.csv"] {
        server.put(&format!("flights/{name}"), fs::read(format!("testdata/nycflights/{name}")).unwrap());
    }
    server
}

fn streamlines(server: &Server, args: &[&str]) -> Output {
    server.known_to(Process::new(PROGRAM).args(args)).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Rows by themselves, windows, changes, OVER and a tail.
const SURVIVORS: [usize; 4] = [0, 4, 6, 13];

#[test]
fn killed_jobs_end_with_the_output_of_undisturbed_ones() {
    let server = with_flights();
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for query in SURVIVORS {
        let name = format!("job-{query}");
        survives(&Folder { server: &server, name: &name }, QUERIES[query], 2, &mut random);
    }
}

/// `STREAMLINES_KILLS=200 cargo test --test program -- --ignored any_number_of_kills_in_a_store`.
#[test]
#[ignore = "takes as long as it is told to"]
fn any_number_of_kills_in_a_store() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (kills, seed) = (number("STREAMLINES_KILLS", 60), number("STREAMLINES_SEED", 1));
    println!("{kills} kills from seed {seed}");
    let (server, mut random) = (with_flights(), ChaCha8Rng::seed_from_u64(seed));
    for (index, query) in QUERIES.iter().enumerate() {
        let (each, rest) = (kills as usize / QUERIES.len(), kills as usize % QUERIES.len());
        let name = format!("job-{index}");
        survives(&Folder { server: &server, name: &name }, query, each + usize::from(index < rest), &mut random);
    }
}

/// Parquet is written in parts where it is large, and its files are whole.
#[test]
fn parquet_is_written_exactly_once() {
    let server = with_flights();
    let folder = Folder { server: &server, name: "parquet" };
    let job = Saving { folder: &folder, query: QUERIES[0], more: &["--format", "parquet"] };
    let mut child = Saving { more: &["--format", "parquet", "--speed", "200000rows/s"], ..job }.start();
    wait_until(|| !folder.files("out").is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(job.start().wait().unwrap().success());
    let read = format!(
        "CREATE EXTERNAL TABLE written STORED AS PARQUET LOCATION '{}/'; SELECT * FROM written",
        folder.of("out")
    );
    let read = streamlines(&server, &["sql", "--quiet", "--format", "csv", &read]);
    assert!(lines([String::from_utf8(read.stdout).unwrap()]) == undisturbed(QUERIES[0]));
}

#[test]
fn two_runs_on_one_folder_of_checkpoints_are_refused() {
    let server = with_flights();
    let folder = Folder { server: &server, name: "job" };
    let job = Saving { folder: &folder, query: QUERIES[1], more: &["--speed", "60000rows/s"] };
    let first = Running(job.start());
    wait_until(|| !folder.files("checkpoints").is_empty());
    let second = job.command().output().unwrap();
    assert!(told(&second).contains("another run goes on from these checkpoints now"), "{}", told(&second));
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(first.code(), Some(0));
    assert!(job.rows() == undisturbed(QUERIES[1]));
}

/// A run that stands still for longer than its lease finds another one in its place, and does no harm when it wakes up.
#[cfg(unix)]
#[test]
fn a_run_that_was_taken_for_dead_does_no_harm() {
    let server = with_flights();
    let folder = Folder { server: &server, name: "job" };
    let job = Saving { folder: &folder, query: QUERIES[1], more: &["--speed", "100000rows/s"] };
    let asleep = job.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut asleep = Running(asleep);
    wait_until(|| !job.rows().is_empty());
    asleep.signal("-STOP");
    let job = Saving { more: &[], ..job };
    assert!(job.start().wait().unwrap().success());
    let written = job.rows();
    asleep.signal("-CONT");
    let mut told = String::new();
    asleep.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(asleep.code(), Some(1), "{told}");
    assert!(told.contains("taken these checkpoints over"), "{told}");
    assert!(written == undisturbed(QUERIES[1]) && job.rows() == written);
}

#[test]
fn checkpoints_are_listed_shown_and_deleted() {
    let server = with_flights();
    let folder = Folder { server: &server, name: "job" };
    let job = Saving { folder: &folder, query: QUERIES[1], more: &[] };
    assert!(job.start().wait().unwrap().success());
    let checkpoints = folder.of("checkpoints");
    let list = streamlines(&server, &["checkpoints", "list", &checkpoints, "--format", "csv"]);
    let list = String::from_utf8(list.stdout).unwrap();
    assert_eq!(list.lines().filter(|line| line.ends_with(",true,")).count(), 3, "{list}");
    let show = streamlines(&server, &["checkpoints", "show", &checkpoints]);
    let show = String::from_utf8(show.stdout).unwrap();
    assert!(show.contains("file part-00000-") && show.contains(", ended"), "{show}");
    let output = job.rows();
    assert!(streamlines(&server, &["checkpoints", "delete", &checkpoints]).status.success());
    assert!(folder.files("checkpoints").is_empty() && job.rows() == output && !output.is_empty());
    let list = streamlines(&server, &["checkpoints", "list", &checkpoints]);
    assert!(told(&list).contains("holds no checkpoints"), "{}", told(&list));
}

#[test]
fn what_does_not_do_is_told_soon_and_without_secrets() {
    let server = with_flights();
    let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let wrong_secret = format!("{SECRET}-but-wrong");
    let run = |address, secret: &str, args: &[&str]| {
        let begun = Instant::now();
        let output =
            known_to(Process::new(PROGRAM).args(["sql", "--quiet"]), address, secret).args(args).output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60), "{args:?}: {:?}", begun.elapsed());
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), told(&output));
        assert!(!said.contains(SECRET), "{said}");
        (output.status.code(), said)
    };
    let query = format!("{STREAMS}{}", QUERIES[0]);
    let refused = |address, secret: &str, bucket: &str, expected: &str| {
        let to = |name: &str| format!("s3://{bucket}/{name}/");
        let saving = ["--checkpoint-dir", &to("checkpoints"), "--output", &to("out"), "--format", "csv", &query];
        let writing = ["--output", &to("out"), "--format", "csv", &query];
        for args in [&saving[..], &writing] {
            let (code, said) = run(address, secret, args);
            assert!(code == Some(1) && said.contains(expected), "{args:?}: {code:?} {said}");
        }
    };
    refused(server.address(), SECRET, "no-bucket", "NoSuchBucket");
    refused(server.address(), &wrong_secret, BUCKET, "SignatureDoesNotMatch");
    refused(nobody, SECRET, BUCKET, "Connection refused");
}

/// Rows of a query over streams of the store, or of this machine.
fn read(server: &Server, sql: &str, more: &[&str]) -> Vec<String> {
    let output = streamlines(server, &[&["sql", "--quiet", "--format", "csv", sql], more].concat());
    assert!(output.status.success(), "{sql}: {}", told(&output));
    lines([String::from_utf8(output.stdout).unwrap()])
}

/// In each strategy, with any number of workers, rows are those that files of this machine give.
#[test]
fn streams_are_read_from_a_store() {
    let server = with_flights();
    let streams = Folder { server: &server, name: "" }.streams();
    for (index, query) in QUERIES.iter().enumerate() {
        let (strategy, workers) =
            (["partitioned", "inline", "single_queue"][index % 3], ["1", "3", "2", "4"][index % 4]);
        let found = read(&server, &format!("{streams}{query}"), &["--strategy", strategy, "--partitions", workers]);
        assert!(found == undisturbed(query), "{query}");
    }
    let [there, here] =
        [&streams, STREAMS].map(|streams| read(&server, &format!("{streams}{}", QUERIES[1]), &["--strategy", "batch"]));
    assert!(there == here);
}

#[test]
fn text_is_read_from_a_store_compressed_too() {
    let server = with_flights();
    let from = |place: &str| format!("SELECT flight, carrier, dep_delay, scheduled FROM '{place}'");
    let local = "testdata/nycflights/flights-LGA-january.csv";
    let text = fs::read(local).unwrap();
    let json = streamlines(&server, &["sql", "--quiet", "--format", "ndjson", &from(local)]).stdout;
    let gzip = |text: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    };
    let files = [("a.csv.gz", gzip(&text)), ("a.ndjson", json.clone()), ("a.ndjson.gz", gzip(&json)), ("a.csv", text)];
    for (name, bytes) in files {
        server.put(name, bytes);
        let declared = "CREATE STREAM s (WATERMARK FOR scheduled) LOCATION";
        let hours = |place: &str| {
            format!(
                "{declared} '{place}'; SELECT carrier, window_start, count(*), sum(dep_delay) FROM s GROUP BY carrier WINDOW TUMBLING (SIZE 1 HOUR)"
            )
        };
        let place = format!("s3://{BUCKET}/{name}");
        assert!(read(&server, &from(&place), &["--partitions", "3"]) == read(&server, &from(local), &[]), "{name}");
        // JSON has its times as text.
        if name.starts_with("a.csv") {
            assert!(
                read(&server, &hours(&place), &["--partitions", "3"]) == read(&server, &hours(local), &[]),
                "{name}"
            );
        }
    }
    let rows = |place: &str| {
        format!(
            "CREATE STREAM s LOCATION '{place}' OPTIONS ('null_value' 'NA', 'on_error' 'skip'); SELECT flight, dep_delay FROM s"
        )
    };
    assert!(read(&server, &rows(&format!("s3://{BUCKET}/a.csv")), &[]) == read(&server, &rows(local), &[]));
}

#[test]
fn objects_that_appear_are_read() {
    let server = Server::start();
    server.put("in/1.csv", b"ts,v\n2024-01-01T00:00:01,1\n".to_vec());
    let sql = format!(
        "CREATE STREAM s (ts TIMESTAMP, v BIGINT, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) STORED AS CSV
         LOCATION 's3://{BUCKET}/in/' OPTIONS ('follow' 'true'); SELECT v FROM s"
    );
    let folder = Folder { server: &server, name: "job" };
    let run = || {
        let mut command = Process::new(PROGRAM);
        folder.known_to(command.args(["sql", "--quiet", "--format", "csv", "--output", &folder.of("out/")]));
        command.args(["--checkpoint-dir", &folder.of("ck"), "--checkpoint-interval", "5ms", &sql]);
        Running(command.stdout(Stdio::null()).spawn().unwrap())
    };
    let rows = || {
        lines(
            folder
                .files("out")
                .into_iter()
                .filter(|(name, _)| name.starts_with("part-"))
                .map(|(_, text)| String::from_utf8(text).unwrap()),
        )
    };
    let first = run();
    wait_until(|| rows() == ["1"]);
    server.put("in/2.csv", b"ts,v\n2024-01-01T00:00:02,2\n".to_vec());
    server.put("in/.3.csv", b"no row\n".to_vec());
    wait_until(|| rows() == ["1", "2"]);
    drop(first);
    server.put("in/3.csv", b"ts,v\n2024-01-01T00:00:03,3\n".to_vec());
    let second = run();
    wait_until(|| rows() == ["1", "2", "3"]);
    second.signal("-TERM");
    assert_eq!(second.code(), Some(130));
    assert_eq!(rows(), ["1", "2", "3"]);
}
