//! Jobs that save themselves: killed at any moment, they end with the output of an undisturbed run.

use std::fs;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use crate::{PROGRAM, names, parquet_rows, program, sql};

pub const STREAMS: &str = "
    CREATE STREAM flights (WATERMARK FOR scheduled AS scheduled - INTERVAL '3' HOUR)
        STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet' OPTIONS ('partitioned_by' 'origin');
    CREATE STREAM sequence (WATERMARK FOR scheduled)
        STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet';
    CREATE STREAM january (WATERMARK FOR scheduled AS scheduled - INTERVAL '1' DAY)
        STORED AS CSV LOCATION 'testdata/nycflights/flights-LGA-january.csv'; ";

/// Rows by themselves, and operators of every kind, over partitions and sequences of files, Parquet and CSV; keys in one
/// partition each, and in several; with and without something that runs where the pipelines meet.
pub const QUERIES: [&str; 16] = [
    "SELECT scheduled, carrier, flight, dep_delay * 2 FROM flights WHERE dep_delay > 0",
    "SELECT origin, tumble(scheduled, INTERVAL '1 hour') AS hour, count(*), avg(dep_delay), min(carrier) FROM flights
     GROUP BY 1, 2",
    "SELECT carrier, hop(scheduled, INTERVAL '1 day', INTERVAL '7 days') AS week, count(*), sum(distance) FROM sequence
     GROUP BY 1, 2",
    "SELECT origin, carrier, session(scheduled, INTERVAL '1 hour') AS s, count(*) FROM flights GROUP BY 1, 2, 3",
    "SELECT carrier, count(*), max(dep_delay) FROM january GROUP BY carrier EMIT CHANGES WITH RETRACTIONS",
    "SELECT carrier, tumble(scheduled, INTERVAL '1 day') AS day, count(*) FROM sequence GROUP BY 1, 2 EMIT CHANGES",
    "SELECT flight, scheduled, sum(distance) OVER (PARTITION BY carrier ORDER BY scheduled ROWS 9 PRECEDING) FROM sequence",
    "SELECT tumble(window_time, INTERVAL '1 day') AS day, max(n) FROM (SELECT origin, window_time, count(*) AS n FROM flights
     GROUP BY origin, tumble(scheduled, INTERVAL '1 hour')) GROUP BY 1",
    "SELECT origin, tumble(scheduled, INTERVAL '1 day') AS day, sum(d) FROM (SELECT origin, scheduled, dep_delay - lag(dep_delay)
     OVER (PARTITION BY origin ORDER BY scheduled) AS d FROM flights) GROUP BY 1, 2",
    "SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, origin ORDER BY dep_delay DESC, flight)
     AS place FROM (SELECT origin, flight, dep_delay, window_start, window_end FROM
     TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' DAY)))) WHERE place <= 3",
    "SELECT carrier, tumble(scheduled, INTERVAL '1 day') AS day, count(*), sum(distance) FROM flights GROUP BY 1, 2",
    "SELECT tumble(window_time, INTERVAL '7 days') AS week, max(n) FROM (SELECT carrier, window_time, count(*) AS n FROM flights
     GROUP BY carrier, hop(scheduled, INTERVAL '1 day', INTERVAL '3 days')) GROUP BY 1",
    "SELECT carrier, count(*), avg(dep_delay) FROM flights GROUP BY carrier",
    "SELECT carrier, cumulate(scheduled, INTERVAL '1 day', INTERVAL '7 days') AS week, window_end, count(*) FROM flights
     GROUP BY 1, 2, window_end ORDER BY 2, 3, 1",
    "SELECT flight, scheduled, dep_delay FROM flights WHERE dep_delay IS NOT NULL ORDER BY dep_delay DESC, flight LIMIT 20",
    "SELECT origin, tumble(scheduled, INTERVAL '1 day') AS day, count(*) FROM flights GROUP BY 1, 2
     UNION ALL SELECT carrier, scheduled, distance FROM january WHERE dep_delay > 100
     UNION ALL SELECT carrier, tumble(scheduled, INTERVAL '7 days'), count(*) FROM sequence GROUP BY 1, 2",
];

/// Where jobs write and save themselves: a folder, or one in an object store.
pub trait Place {
    /// A folder in it.
    fn of(&self, name: &str) -> String;

    /// The streams that are read.
    fn streams(&self) -> String {
        STREAMS.to_string()
    }

    /// Tells a program how it gets there.
    fn known_to(&self, _: &mut Process) {}

    /// How long a run waits there after one that was killed.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// The files of one of its folders and of those in it.
    fn files(&self, name: &str) -> Vec<(String, Vec<u8>)>;
}

impl Place for TempDir {
    fn of(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    fn files(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let folder = self.path().join(name);
        let names = if folder.exists() { names(&folder) } else { vec![] };
        names.into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
    }
}

/// A job that writes CSV into a folder and saves itself all the time.
#[derive(Clone, Copy)]
pub struct Saving<'a> {
    pub folder: &'a dyn Place,
    pub query: &'a str,
    pub more: &'a [&'a str],
}

impl Saving<'_> {
    pub fn command(&self) -> Process {
        let mut command = Process::new(PROGRAM);
        let path = |name: &str| self.folder.of(name);
        command.args(["sql", "--quiet", "--output", &format!("{}/", path("out"))]);
        if !self.more.contains(&"--format") {
            command.args(["--format", "csv"]);
        }
        command.args(["--checkpoint-dir", &path("checkpoints"), "--checkpoint-interval", "5ms"]);
        self.folder.known_to(&mut command);
        command.args(["--batch-rows", "500"]).args(self.more);
        command.arg(format!("{}{}", self.folder.streams(), self.query));
        command
    }

    pub fn start(&self) -> Child {
        self.command().stdout(Stdio::null()).spawn().unwrap()
    }

    /// The rows that a reader of the output finds.
    pub fn rows(&self) -> Vec<String> {
        let files = self.folder.files("out").into_iter();
        // What is on its way has a name that begins with a dot in a store, and another ending in a folder.
        let visible = files.filter(|(name, _)| name.ends_with(".csv") && !name.starts_with('.'));
        lines(visible.map(|(_, bytes)| String::from_utf8(bytes).unwrap()))
    }

    fn names(&self) -> Vec<String> {
        self.folder.files("out").into_iter().map(|(name, _)| name).collect()
    }
}

/// The lines of CSV files without their headers, in order.
pub fn lines(files: impl IntoIterator<Item = String>) -> Vec<String> {
    let files = files.into_iter();
    let mut rows: Vec<String> =
        files.flat_map(|text| text.lines().skip(1).map(str::to_string).collect::<Vec<_>>()).collect();
    rows.sort();
    rows
}

/// What an undisturbed run gives.
pub fn undisturbed(query: &str) -> Vec<String> {
    let mut command = sql(&format!("{STREAMS}{query}"));
    let output = command.args(["--quiet", "--format", "csv"]).assert().success().get_output().stdout.clone();
    lines([String::from_utf8(output).unwrap()])
}

pub fn is_part_of(rows: &[String], all: &[String]) -> bool {
    let mut all = all.iter();
    rows.iter().all(|row| all.any(|other| other == row))
}

/// Kills a job so often, then lets it end.
pub fn survives(folder: &dyn Place, query: &str, kills: usize, random: &mut ChaCha8Rng) {
    let expected = undisturbed(query);
    assert!(!expected.is_empty(), "{query}");
    let strategies = ["partitioned", "inline", "single_queue"];
    for _ in 0..kills {
        let strategy = strategies[random.random_range(0..3)];
        let workers = random.random_range(1..=4).to_string();
        let handoff = format!("streamlines.handoff_rows={}", random.random_range(1..700));
        let roll = format!("{}rows", random.random_range(1..3000));
        let more = ["--strategy", strategy, "--partitions", &workers, "--speed", "300000rows/s", "--set", &handoff];
        let more = [&more[..], &["--roll-interval", &roll, "--roll-bytes", "30KB"]].concat();
        let job = Saving { folder, query, more: &more };
        let mut child = job.start();
        std::thread::sleep(folder.patience() + Duration::from_millis(random.random_range(20..400)));
        child.kill().unwrap();
        // It was killed, or had come to its end.
        assert!(matches!(child.wait().unwrap().code(), None | Some(0)), "{query}");
        // Whatever is visible stays.
        assert!(is_part_of(&job.rows(), &expected), "{query}");
    }
    let strategy = strategies[random.random_range(0..3)];
    let job = Saving { folder, query, more: &["--strategy", strategy] };
    assert!(job.start().wait().unwrap().success(), "{query}");
    assert!(job.rows() == expected, "{query}: other rows than an undisturbed run gives");
    let visible = job.names();
    assert!(
        visible.iter().all(|name| name.ends_with(".csv") && !name.starts_with('.')),
        "{query}: left over: {visible:?}"
    );
    // There is nothing left to do.
    assert!(job.start().wait().unwrap().success(), "{query}");
    assert_eq!(job.names(), visible, "{query}");
}

#[test]
fn killed_jobs_end_with_the_output_of_undisturbed_ones() {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    for query in QUERIES {
        survives(&TempDir::new().unwrap(), query, 4, &mut random);
    }
}

/// `STREAMLINES_KILLS=200 cargo test --test program -- --ignored any_number`, and STREAMLINES_SEED for other moments.
#[test]
#[ignore = "takes as long as it is told to"]
fn any_number_of_kills() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (kills, seed) = (number("STREAMLINES_KILLS", 200), number("STREAMLINES_SEED", 1));
    println!("{kills} kills from seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for (index, query) in QUERIES.iter().enumerate() {
        let (each, rest) = (kills as usize / QUERIES.len(), kills as usize % QUERIES.len());
        survives(&TempDir::new().unwrap(), query, each + usize::from(index < rest), &mut random);
    }
}

/// One file is there when the job has ended; on a terminal rows may come again.
#[test]
fn killed_jobs_end_with_a_whole_file_or_repeat_rows_on_a_terminal() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let expected = undisturbed(QUERIES[1]);
    for (checkpoints, output) in [("for-file", Some(path("all.csv"))), ("for-terminal", None)] {
        let job = |speed: &str| {
            let mut command = Process::new(PROGRAM);
            command.args(["sql", "--quiet", "--format", "csv", "--speed", speed]);
            command.args(["--checkpoint-dir", &path(checkpoints), "--checkpoint-interval", "5ms"]);
            output.iter().for_each(|output| _ = command.args(["--output", output]));
            command.arg(format!("{STREAMS}{}", QUERIES[1]));
            command
        };
        let mut child = job("200000rows/s").stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(600));
        child.kill().unwrap();
        let before = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(output.iter().all(|output| !Path::new(output).exists()));
        let ended = job("max").output().unwrap();
        assert!(ended.status.success());
        let after = match &output {
            Some(output) => fs::read_to_string(output).unwrap(),
            None => String::from_utf8(ended.stdout).unwrap(),
        };
        let mut rows = lines([before, after]);
        assert!(is_part_of(&expected, &rows));
        rows.dedup();
        assert!(rows == expected, "{checkpoints}");
    }
    // The rows that wait beside the checkpoints are counted.
    let kept = folder.path().join("for-file/rows");
    fs::remove_file(kept.join(&names(&kept)[0])).unwrap();
    let job = format!("{STREAMS}{}", QUERIES[1]);
    let again = ["--quiet", "--checkpoint-dir", &path("for-file"), "--output", &path("all.csv")];
    sql(&job).args(again).assert().failure().stderr(contains("does not hold the rows"));
}

/// Where rows are sorted when all of them are there, the output is written in one go, which may be cut short as well.
#[test]
fn what_a_killed_run_did_not_finish_is_taken_away() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let job = format!("{STREAMS}{}", QUERIES[13]);
    fs::create_dir(path("out")).unwrap();
    let others = ["all.csv#x", "other.csv#1", "out/part-00000.parquet#1"];
    for name in ["all.csv#1", "out/part-00000.csv#1", "out/part-00001.csv#12"].iter().chain(&others) {
        fs::write(path(name), "week").unwrap();
    }
    for (checkpoints, output) in [("for-file", "all.csv"), ("for-folder", "out/")] {
        let saving = ["--quiet", "--format", "csv", "--checkpoint-dir", &path(checkpoints)];
        sql(&job).args(saving).args(["--output", &path(output)]).assert().success();
    }
    assert_eq!(names(&folder.path().join("out")), ["part-00000.csv", "part-00000.parquet#1"]);
    assert!(others.iter().all(|name| folder.path().join(name).exists()) && !folder.path().join("all.csv#1").exists());
}

#[test]
fn checkpoints_are_listed_shown_and_deleted() {
    let folder = TempDir::new().unwrap();
    let job = Saving { folder: &folder, query: QUERIES[1], more: &[] };
    assert!(job.start().wait().unwrap().success());
    let checkpoints = folder.path().join("checkpoints");
    let command = |name: &str| {
        let mut command = program();
        command.args(["checkpoints", name, &checkpoints.display().to_string()]);
        command
    };
    let list = command("list").args(["--format", "csv"]).assert().success().get_output().stdout.clone();
    let list = String::from_utf8(list).unwrap();
    assert!(
        list.starts_with("pipeline,epoch,saved_at,bytes,rows_read,rows_out,late_rows,state_rows,ended,damage\n0,"),
        "{list}"
    );
    assert_eq!(list.lines().filter(|line| line.ends_with(",true,")).count(), 3, "{list}");
    let ended = contains("rows read").and(contains(", ended")).and(contains("flights-EWR.parquet"));
    command("show").assert().success().stdout(ended.and(contains("file part-00000-")));
    let output = job.rows();
    command("delete").assert().success();
    assert!(!checkpoints.exists() && job.rows() == output);
    command("list").assert().failure().stderr(contains("holds no checkpoints"));
}

/// What is read of text is not read again: the next run goes on at the byte.
#[test]
fn text_goes_on_at_its_byte() {
    let folder = TempDir::new().unwrap();
    let query = "SELECT scheduled, carrier, flight FROM january";
    let job = Saving { folder: &folder, query, more: &["--speed", "8000rows/s"] };
    let mut child = job.start();
    let saved = folder.path().join("checkpoints/00000");
    let has_saved_often = || saved.is_dir() && names(&saved).iter().any(|name| name.as_str() > "0000000009");
    while !has_saved_often() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut show = program();
    show.args(["checkpoints", "show", &folder.path().join("checkpoints").display().to_string()]);
    let shown = String::from_utf8(show.assert().success().get_output().stdout.clone()).unwrap();
    let (_, place) = shown.split_once("goes on at byte ").unwrap();
    let (byte, rows) = place.lines().next().unwrap().split_once(", after ").unwrap();
    let text = fs::read("testdata/nycflights/flights-LGA-january.csv").unwrap();
    let before = &text[..byte.parse().unwrap()];
    // The header is a line, and no row.
    let lines = before.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(rows, format!("{} rows", lines - 1));
    assert!(before.ends_with(b"\n") && lines > 1 && before.len() < text.len(), "{shown}");
    assert!(job.start().wait().unwrap().success());
    assert_eq!(job.rows(), undisturbed(query));
}

/// What is open is saved, and nothing of what was saved before: views of text would keep all of their buffers.
#[test]
fn many_checkpoints_are_no_larger_than_few() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let job = format!("{STREAMS}{}", QUERIES[2]);
    let saving = ["--checkpoint-dir", &path("ck"), "--checkpoint-interval", "1000rows", "--batch-rows", "500"];
    let kept = ["--set", "streamlines.checkpoints_kept=10000", "--format", "csv", "--output", &path("out/")];
    let ran = sql(&job).args(saving).args(kept).assert().success();
    let list = program().args(["checkpoints", "list", &path("ck"), "--format", "csv"]).assert().success();
    let list = String::from_utf8(list.get_output().stdout.clone()).unwrap();
    let bytes: Vec<u64> = list.lines().skip(1).map(|line| line.split(',').nth(3).unwrap().parse().unwrap()).collect();
    assert!(bytes.len() > 200 && bytes.iter().max().unwrap() < &1_000_000, "{bytes:?}");
    ran.stderr(contains(format!(" {} checkpoints of ", bytes.len())));
}

#[cfg(unix)]
#[test]
fn an_interrupted_job_goes_on_with_its_open_windows() {
    let folder = TempDir::new().unwrap();
    let query = QUERIES[1];
    let job = Saving { folder: &folder, query, more: &["--speed", "100000rows/s"] };
    let child = job.start();
    while job.rows().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Process::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    let expected = undisturbed(query);
    let so_far = job.rows();
    assert!(so_far.len() < expected.len() && is_part_of(&so_far, &expected));
    let ended = Saving { more: &["--partitions", "3"], ..job }.start().wait().unwrap();
    assert!(ended.success());
    let job = Saving { folder: &folder, query, more: &[] };
    assert!(job.rows() == expected);
}

/// Late rows are written epoch by epoch, too, each once and as an undisturbed run tells it.
#[test]
fn a_ledger_of_late_rows_is_written_exactly_once_too() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let stream = STREAMS.replace("INTERVAL '3' HOUR", "INTERVAL '0' SECOND");
    let stream = stream.replace("INTERVAL '1' DAY", "INTERVAL '0' SECOND");
    let by_hour = "tumble(scheduled, INTERVAL '1 hour') AS hour, count(*) FROM";
    for (name, query) in [
        ("parquet", format!("SELECT origin, {by_hour} flights GROUP BY 1, 2")),
        ("text", format!("SELECT carrier, {by_hour} january GROUP BY 1, 2 ORDER BY 1, 2")),
    ] {
        let ledger = |late: &str| {
            let rows = format!("SELECT * FROM '{late}/*.parquet' ORDER BY _file, _row, _window_start");
            let told = sql(&rows).args(["--quiet", "--format", "csv"]).assert().success().get_output().stdout.clone();
            String::from_utf8(told).unwrap()
        };
        let (expected, late) = (path(&format!("{name}-all")), path(&format!("{name}-late")));
        let query = format!("{stream}{query}");
        let undisturbed = ["--late", &format!("{expected}/"), "--format", "none"];
        sql(&query).args(undisturbed).arg("--quiet").assert().success();
        assert!(ledger(&expected).lines().count() > 20, "{name}");
        let job = |speed: &str| {
            let mut job = Process::new(PROGRAM);
            job.args(["sql", "--quiet", "--batch-rows", "300", "--speed", speed, "--late", &format!("{late}/")]);
            job.args(["--checkpoint-dir", &path(&format!("{name}-saved")), "--checkpoint-interval", "10ms"]);
            job.args(["--output", &path(&format!("{name}.csv"))]).arg(&query);
            job
        };
        for _ in 0..4 {
            let mut child = job("150000rows/s").spawn().unwrap();
            std::thread::sleep(Duration::from_millis(350));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(job("max").status().unwrap().success());
        assert!(ledger(&late) == ledger(&expected), "{name}: the ledgers differ");
        let files = names(Path::new(&late));
        assert!(files.iter().all(|file| file.starts_with("part-")) && files.len() > 3, "{name}: {files:?}");
    }
}

#[test]
fn parquet_is_written_exactly_once_too() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let copy = format!("{STREAMS} COPY ({}) TO '{}/' STORED AS PARQUET", QUERIES[0], path("out"));
    let run =
        || sql(&copy).args(["--quiet", "--checkpoint-dir", &path("ck"), "--checkpoint-interval", "50000rows"]).assert();
    run().success();
    let out = folder.path().join("out");
    let rows = || names(&out).iter().map(|name| parquet_rows(&out.join(name))).sum::<usize>();
    let (written, files) = (rows(), names(&out));
    assert_eq!(written, undisturbed(QUERIES[0]).len());
    assert!(files.len() > 3, "{files:?}");
    run().success();
    assert_eq!((rows(), names(&out)), (written, files));
}

#[test]
fn damaged_checkpoints_give_way_to_older_ones() {
    let folder = TempDir::new().unwrap();
    let job = Saving { folder: &folder, query: QUERIES[1], more: &[] };
    assert!(job.start().wait().unwrap().success());
    let expected = job.rows();
    let saved = folder.path().join("checkpoints").join("00000");
    let last = names(&saved).pop().unwrap();
    let bytes = fs::read(saved.join(&last)).unwrap();
    fs::write(saved.join(&last), &bytes[..bytes.len() / 2]).unwrap();
    assert!(job.start().wait().unwrap().success());
    assert!(job.rows() == expected);
    for name in names(&saved) {
        fs::write(saved.join(name), "nothing").unwrap();
    }
    let output = job.command().output().unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("is damaged, and there is no whole checkpoint before"), "{told}");
}

#[test]
fn what_cannot_be_saved_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let refuses = |query: &str, more: &[&str], told: &str| {
        let mut command = program();
        command.args(["sql", "--quiet", "--checkpoint-dir", &path("ck")]).args(more);
        command.arg(format!("{STREAMS}{query}")).assert().failure().stderr(contains(told));
    };
    let out = format!("{}/", path("out"));
    let to = ["--output", out.as_str(), "--format", "csv"];
    let with = |more: &[&'static str]| [&to[..], more].concat();
    refuses("SELECT flight FROM flights", &with(&["--late", "x.csv"]), "a ledger of late rows that is no folder");
    let by_carrier = "SELECT carrier, count(*) FROM flights GROUP BY carrier";
    refuses(by_carrier, &with(&["--set", "streamlines.routing=exchange"]), "under which rows are between pipelines");
    refuses("SELECT 1 FROM flights", &with(&["--checkpoint-interval", "soon"]), "'soon' is no interval");
    // Neither a folder of checkpoints nor one of output is of two jobs.
    fs::create_dir(folder.path().join("out")).unwrap();
    fs::write(folder.path().join("out/part-00000.csv"), "flight\n1\n").unwrap();
    refuses("SELECT flight FROM flights", &to, "is output of another run");
    fs::remove_file(folder.path().join("out/part-00000.csv")).unwrap();
    let mut first = program();
    first.args(["sql", "--quiet", "--checkpoint-dir", &path("ck")]).args(to);
    first.arg(format!("{STREAMS}SELECT flight FROM flights")).assert().success();
    refuses("SELECT carrier FROM flights", &to, "holds checkpoints of another job (plan then: ");
    // Nor of the same files, read otherwise.
    let of = |options: &str| {
        let stream = "CREATE STREAM s STORED AS CSV LOCATION 'testdata/nycflights/flights-LGA-january.csv'";
        let mut job = program();
        job.args(["sql", "--quiet", "--checkpoint-dir", &path("csv"), "--output", &format!("{}/", path("s"))]);
        job.args(["--format", "csv"]).arg(format!("{stream} {options}; SELECT flight FROM s")).assert()
    };
    of("").success();
    of("OPTIONS ('null_value' '?')").failure().stderr(contains("holds checkpoints of another job (source then: "));
}
