//! Streams that grow: files are read as they appear, each once, whatever happens to the program.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use predicates::str::contains;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use crate::running::{Running, sorted, wait_until};
use crate::{PROGRAM, names, program, sql};

/// A folder to which files come, those of January's flights a part at a time.
struct Growing {
    folder: TempDir,
    format: &'static str,
    parts: Vec<PathBuf>,
}

impl Growing {
    fn new(format: &'static str, parts: usize) -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        let text = fs::read_to_string("testdata/nycflights/flights-LGA-january.csv").unwrap();
        let (header, rows) = text.split_once('\n').unwrap();
        let rows: Vec<&str> = rows.lines().collect();
        let write = |(index, rows): (usize, &[&str])| {
            let path = folder.path().join(format!("{index}.csv"));
            fs::write(&path, format!("{header}\n{}\n", rows.join("\n"))).unwrap();
            if format == "csv" {
                return path;
            }
            let parquet = path.with_extension(format);
            let select = format!("SELECT * FROM '{}'", path.display());
            sql(&select).args(["--quiet", "--output", &parquet.display().to_string()]).assert().success();
            parquet
        };
        let parts = rows.chunks(rows.len().div_ceil(parts)).enumerate().map(write).collect();
        Self { folder, format, parts }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A part appears.
    fn add(&self, part: usize) {
        let name = format!("part-{part}.{}", self.format);
        let hidden = self.folder.path().join("in").join(format!(".{name}"));
        fs::copy(&self.parts[part], &hidden).unwrap();
        fs::rename(hidden, self.folder.path().join("in").join(name)).unwrap();
    }

    fn stream(&self, options: &str) -> String {
        format!(
            "CREATE STREAM flights (WATERMARK FOR scheduled AS scheduled - INTERVAL '1' DAY) STORED AS {} LOCATION '{}' {options};",
            self.format.to_uppercase(),
            self.path("in/")
        )
    }

    fn command(&self, query: &str, more: &[&str]) -> Process {
        let mut command = Process::new(PROGRAM);
        command
            .args(["sql", "--quiet", "--format", "csv", "--set", "streamlines.allow_unbounded_state=true"])
            .args(more);
        command.arg(format!("{} {query}", self.stream("OPTIONS ('follow' 'true')")));
        command
    }

    /// A run that saves itself all the time.
    fn saving(&self, query: &str, more: &[&str]) -> Running {
        let (output, checkpoints) = (self.path("out/"), self.path("checkpoints"));
        let saving = ["--output", &output, "--checkpoint-dir", &checkpoints, "--checkpoint-interval", "5ms"];
        Running(self.command(query, &[&saving, more].concat()).stdout(Stdio::null()).spawn().unwrap())
    }

    /// What the same query gives when nothing is followed.
    fn batch(&self, query: &str) -> Vec<String> {
        let mut command = sql(&format!("{} {query}", self.stream("")));
        let output = command.args(["--quiet", "--format", "csv"]).assert().success().get_output().stdout.clone();
        sorted(String::from_utf8(output).unwrap().lines().skip(1).map(str::to_string))
    }

    fn rows(&self) -> Vec<String> {
        let out = self.folder.path().join("out");
        let files = if out.exists() { names(&out) } else { vec![] };
        let texts = files.iter().filter(|name| name.ends_with(".csv")).map(|name| fs::read_to_string(out.join(name)));
        sorted(texts.flat_map(|text| text.unwrap().lines().skip(1).map(str::to_string).collect::<Vec<_>>()))
    }
}

const ROWS: &str = "SELECT scheduled, carrier, flight FROM flights";
const HOURS: &str =
    "SELECT carrier, tumble(scheduled, INTERVAL '1 hour') AS hour, count(*), sum(distance) FROM flights GROUP BY 1, 2";
const QUERIES: [&str; 6] = [
    ROWS,
    HOURS,
    "SELECT carrier, count(*), max(dep_delay) FROM flights GROUP BY carrier EMIT CHANGES",
    "SELECT flight, scheduled, sum(distance) OVER (PARTITION BY carrier ORDER BY scheduled ROWS 9 PRECEDING) FROM flights",
    "SET streamlines.state_ttl = '6 hours'; SELECT dest, count(*), max(dep_delay) FROM flights GROUP BY dest EMIT CHANGES",
    "SET streamlines.state_ttl = '6 hours'; SELECT dest, scheduled, sum(distance) OVER (PARTITION BY dest ORDER BY scheduled) \
     FROM flights",
];

#[test]
fn rows_come_out_while_files_appear() {
    let growing = Growing::new("csv", 3);
    growing.add(0);
    let mut child = Running(growing.command(ROWS, &[]).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let mut out: Vec<String> = vec![];
    for part in 0..3 {
        if part > 0 {
            growing.add(part);
        }
        let header = usize::from(part == 0);
        let rows = fs::read_to_string(&growing.parts[part]).unwrap().lines().count() - 1;
        out.extend(lines.by_ref().take(rows + header).map(Result::unwrap));
    }
    assert_eq!(sorted(out.into_iter().skip(1)), growing.batch(ROWS));
    child.signal("-TERM");
    assert_eq!(child.code(), Some(130));
}

#[test]
fn a_stop_leaves_windows_open_and_draining_closes_them() {
    for format in ["csv", "parquet"] {
        let growing = Growing::new(format, 4);
        growing.add(0);
        let child = growing.saving(HOURS, &[]);
        wait_until(|| !growing.rows().is_empty());
        child.signal("-INT");
        assert_eq!(child.code(), Some(130));
        let so_far = growing.rows().len();
        (1..4).for_each(|part| growing.add(part));
        let child = growing.saving(HOURS, &["--drain"]);
        wait_until(|| growing.rows().len() > so_far);
        child.signal("-TERM");
        assert_eq!(child.code(), Some(0));
        assert_eq!(growing.rows(), growing.batch(HOURS), "{format}");
    }
}

#[test]
fn rows_without_an_event_time_are_late_where_there_is_no_end() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(folder.path().join("in")).unwrap();
    let rows = "ts,k,v\n2024-01-01T00:00:00,a,1\n,a,2\n2023-01-01T00:00:00,b,3\n,b,4\n2024-01-01T00:10:00,a,5\n";
    fs::write(path("in/a.csv"), rows).unwrap();
    let stream = format!(
        "CREATE STREAM s (ts TIMESTAMP, k VARCHAR, v BIGINT, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) STORED AS CSV \
         LOCATION '{}' OPTIONS ('follow' 'true');",
        path("in/")
    );
    for query in [
        "SELECT k, sum(v) FROM s GROUP BY k, tumble(ts, INTERVAL '1 minute')",
        "SELECT k, sum(v) FROM s GROUP BY k, tumble(ts, INTERVAL '1 minute') EMIT CHANGES",
        "SELECT k, sum(v) FROM s GROUP BY k, session(ts, INTERVAL '1 minute')",
        "SELECT k, v, window_start FROM TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' MINUTE))",
        "SELECT k, sum(v) OVER (PARTITION BY k ORDER BY ts RANGE INTERVAL '1' HOUR PRECEDING) FROM s",
    ] {
        let mut command = Process::new(PROGRAM);
        command.args(["sql", "--format", "csv", "--drain", "--late", &path("late.csv"), &format!("{stream} {query}")]);
        let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        lines.next().unwrap().unwrap();
        child.signal("-TERM");
        let told = std::io::read_to_string(child.0.stderr.take().unwrap()).unwrap();
        assert_eq!(child.code(), Some(0), "{query}: {told}");
        assert!(told.contains("5 rows in = 2 used + 3 late"), "{query}: {told}");
        assert!(told.contains("2 without event time"), "{query}: {told}");
        let ledger = fs::read_to_string(path("late.csv")).unwrap();
        let places: Vec<_> = ledger.lines().skip(1).map(|line| line.split("a.csv,").nth(1).unwrap()).collect();
        let row = |place: &&str| place.split(',').next().unwrap().to_string();
        assert_eq!(places.iter().map(row).collect::<Vec<_>>(), ["2", "3", "4"], "{query}: {ledger}");
        // No event time had come before the first of them.
        assert!(places[0].starts_with("2,all,,,"), "{query}: {ledger}");
    }
}

/// Kills a run so often while files appear, then lets it read the last of them.
fn survives(query: &str, format: &'static str, kills: usize, random: &mut ChaCha8Rng) {
    let growing = Growing::new(format, 12);
    growing.add(0);
    let mut added = 1;
    for _ in 0..kills {
        let strategy = ["partitioned", "inline", "single_queue"][random.random_range(0..3)];
        let mut child = growing.saving(query, &["--strategy", strategy]);
        for _ in 0..random.random_range(0..4) {
            std::thread::sleep(Duration::from_millis(random.random_range(0..120)));
            if added < growing.parts.len() {
                growing.add(added);
                added += 1;
            }
        }
        child.0.kill().unwrap();
        child.code();
    }
    (added..growing.parts.len()).for_each(|part| growing.add(part));
    let expected = growing.batch(query);
    let child = growing.saving(query, &["--drain"]);
    std::thread::sleep(Duration::from_millis(300));
    child.signal("-TERM");
    assert_eq!(child.code(), Some(0), "{query}");
    assert!(growing.rows() == expected, "{query}, {format}: other rows than those of the files");
}

#[test]
fn killed_runs_read_each_file_once() {
    let mut random = ChaCha8Rng::seed_from_u64(8);
    for query in QUERIES {
        for format in ["csv", "parquet"] {
            survives(query, format, 3, &mut random);
        }
    }
}

/// Files that have been read to their ends may be taken away, the one that was begun may not.
#[test]
fn a_run_goes_on_without_the_files_that_it_has_read() {
    let growing = Growing::new("csv", 3);
    (0..2).for_each(|part| growing.add(part));
    let expected = growing.batch(ROWS).len();
    let child = growing.saving(ROWS, &[]);
    wait_until(|| growing.rows().len() == expected);
    child.signal("-TERM");
    child.code();
    growing.add(2);
    let all = growing.batch(ROWS);
    let first = Path::new(&growing.path("in")).join("part-0.csv");
    fs::remove_file(&first).unwrap();
    let child = growing.saving(ROWS, &["--drain"]);
    wait_until(|| growing.rows().len() == all.len());
    child.signal("-TERM");
    assert_eq!(child.code(), Some(0));
    assert_eq!(growing.rows(), all);
    // It has been drained: there is nothing left to do.
    assert_eq!(growing.saving(ROWS, &[]).code(), Some(0));
}

/// What has been read in part is to be as it was, and what has been read to its end need not be there.
#[test]
fn files_that_change_while_nobody_reads_them() {
    let growing = Growing::new("csv", 3);
    let (first, second) = (growing.path("in/part-0.csv"), growing.path("in/part-1.csv"));
    growing.add(0);
    let rows = growing.batch(ROWS).len();
    let child = growing.saving(ROWS, &[]);
    wait_until(|| growing.rows().len() == rows);
    child.signal("-TERM");
    child.code();
    growing.add(1);
    let all = growing.batch(ROWS);
    fs::remove_file(first).unwrap();
    let child = growing.saving(ROWS, &["--speed", "2000rows/s"]);
    wait_until(|| growing.rows().len() > rows);
    child.signal("-KILL");
    child.code();
    assert!(growing.rows().len() < all.len());
    let text = fs::read_to_string(&second).unwrap();
    fs::write(&second, text.lines().take(2).collect::<Vec<_>>().join("\n")).unwrap();
    growing.add(2);
    assert_eq!(growing.saving(ROWS, &["--drain"]).code(), Some(1));
    // What had been saved is visible now, and nothing else.
    let so_far = growing.rows();
    assert!(so_far.len() < all.len() && so_far.iter().all(|row| all.contains(row)));
}

#[test]
fn what_never_ends_is_refused_where_it_would_have_to() {
    let growing = Growing::new("csv", 3);
    growing.add(0);
    for (query, told) in [
        ("SELECT * FROM flights LIMIT 2", "checkpoints with LIMIT"),
        ("CREATE TABLE t AS SELECT * FROM flights", "CREATE TABLE AS over a stream that is followed"),
    ] {
        let output = growing.command(query, &["--checkpoint-dir", &growing.path("ck")]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(told), "{stderr}");
    }
    let check = program()
        .args(["check", "-"])
        .write_stdin(format!("{} {HOURS}", growing.stream("OPTIONS ('follow' 'true')")))
        .assert();
    check.success();
}

#[test]
fn what_appears_with_other_columns_is_told() {
    let growing = Growing::new("csv", 3);
    growing.add(0);
    let mut child = growing.command(ROWS, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It has begun with the first file.
    assert!(BufReader::new(child.stdout.as_mut().unwrap()).lines().next().is_some());
    fs::write(growing.path("in/part-1.csv"), "other,columns\n1,2\n").unwrap();
    let told = child.wait_with_output().unwrap();
    assert_eq!(told.status.code(), Some(1));
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("part-1.csv: has 2 columns, and 11 are listed"), "{told}");
}

#[test]
fn streams_that_cannot_be_followed_are_refused() {
    let refuses = |stream: &str, told: &str| {
        let mut command = program();
        command.args(["sql", "--quiet", stream]).assert().failure().stderr(contains(told));
    };
    let location = "LOCATION 'testdata/nycflights/flights-*.parquet'";
    refuses(
        &format!("CREATE STREAM s (WATERMARK FOR scheduled) {location} OPTIONS ('follow' 'true')"),
        "an exact watermark of a stream that is followed",
    );
    refuses(
        &format!("CREATE STREAM s {location} OPTIONS ('follow' 'true', 'partitioned_by' 'origin')"),
        "'follow' of several partitions",
    );
    refuses(
        "CREATE STREAM s LOCATION 'testdata/nycflights/flights-EWR.parquet' OPTIONS ('follow' 'true')",
        "'follow' of one file",
    );
    // The place is that of the clause.
    let growing = Growing::new("csv", 1);
    let stream = format!(
        "CREATE STREAM s (carrier VARCHAR) STORED AS CSV LOCATION '{}/in/' OPTIONS ('follow' 'true')",
        growing.folder.path().display()
    );
    refuses(&format!("{stream};\nSELECT DISTINCT carrier FROM s"), "when the stream ends (line 2, column 17)");
    refuses(&format!("{stream};\nSELECT * FROM s ORDER BY carrier"), "when the stream ends (line 2, column 26)");
}
