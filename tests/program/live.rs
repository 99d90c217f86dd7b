//! Rows that come while they are read: lines at the end of a file, standard input, pipes and connections.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpListener;
use std::process::{ChildStdin, ChildStdout, Command as Process, Stdio};
use std::time::Duration;

use predicates::str::contains;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::{NamedTempFile, TempDir};

use crate::running::{Running, sorted, wait_until};
use crate::{PROGRAM, names, program, sql};

/// Minutes, keys and values, in two formats.
fn row(format: &str, index: usize) -> String {
    let (time, key) = (format!("2024-01-01T{:02}:{:02}:00", index / 60 % 24, index % 60), index * 7 % 5);
    match format {
        // Every third has a line's end in quotes.
        "CSV" if index.is_multiple_of(3) => format!("{time},\"k\n{key}\",{index}\n"),
        "CSV" => format!("{time},k{key},{index}\n"),
        // Every fifth goes over two lines.
        _ if index.is_multiple_of(5) => format!("{{\"ts\": \"{time}\",\n \"k\": \"k{key}\", \"v\": {index}}}\n"),
        _ => format!("{{\"ts\": \"{time}\", \"k\": \"k{key}\", \"v\": {index}}}\n"),
    }
}

fn header(format: &str) -> &str {
    if format == "CSV" { "ts,k,v\n" } else { "" }
}

fn stream(format: &str, location: &str, options: &str) -> String {
    format!(
        "CREATE STREAM s (ts TIMESTAMP, k VARCHAR, v BIGINT, WATERMARK FOR ts AS ts - INTERVAL '5' MINUTE) \
         STORED AS {format} LOCATION '{location}' {options};"
    )
}

const ROWS: &str = "SELECT ts, k, v FROM s";
const HOURS: &str = "SELECT k, tumble(ts, INTERVAL '1 hour') AS hour, count(*), sum(v) FROM s GROUP BY 1, 2";
const TOTALS: &str = "SELECT count(*), sum(v), count(DISTINCT k) FROM s";

/// A running program whose rows are read as they come.
struct Reading {
    child: Running,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Reading {
    fn start(sql: &str, more: &[&str]) -> Self {
        let mut command = Process::new(PROGRAM);
        command.args(["sql", "--quiet", "--format", "ndjson"]).args(more).arg(sql);
        let mut child = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn stdin(&mut self) -> ChildStdin {
        self.child.0.stdin.take().unwrap()
    }

    /// The next rows, which may take a while.
    fn rows(&mut self, number: usize) -> Vec<String> {
        self.lines.by_ref().take(number).map(Result::unwrap).collect()
    }

    /// All that are left, and the exit code.
    fn rest(self) -> (Vec<String>, Option<i32>) {
        let rows = self.lines.map(Result::unwrap).collect();
        (rows, self.child.code())
    }
}

/// What the same query gives over a file of these rows.
fn of_file(format: &str, rows: usize, query: &str) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rows");
    let text: String = (0..rows).map(|index| row(format, index)).collect();
    fs::write(&path, format!("{}{text}", header(format))).unwrap();
    let mut command = sql(&format!("{} {query}", stream(format, &path.display().to_string(), "")));
    let output = command.args(["--quiet", "--format", "ndjson"]).assert().success().get_output().stdout.clone();
    sorted(String::from_utf8(output).unwrap().lines().map(str::to_string))
}

#[test]
fn standard_input_is_a_stream_that_ends() {
    for format in ["CSV", "JSON"] {
        for (query, options) in [
            (ROWS, ""),
            (HOURS, "OPTIONS ('follow' 'true')"),
            (TOTALS, ""),
            ("SELECT k, max(v) FROM s GROUP BY k ORDER BY k", "OPTIONS ('follow' 'true')"),
        ] {
            let mut reading = Reading::start(&format!("{} {query}", stream(format, "-", options)), &[]);
            let mut stdin = reading.stdin();
            let text: String = (0..400).map(|index| row(format, index)).collect();
            // Without the last line's end, and in two parts that are no whole rows.
            let text = format!("{}{}", header(format), text.trim_end());
            stdin.write_all(&text.as_bytes()[..777]).unwrap();
            stdin.flush().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            stdin.write_all(&text.as_bytes()[777..]).unwrap();
            drop(stdin);
            let (rows, code) = reading.rest();
            assert_eq!(code, Some(0));
            assert_eq!(sorted(rows.into_iter()), of_file(format, 400, query), "{format}, {query}");
        }
    }
}

#[test]
fn rows_come_out_as_soon_as_they_are_whole() {
    let mut reading = Reading::start(&format!("{} {ROWS}", stream("CSV", "-", "")), &[]);
    let mut stdin = reading.stdin();
    stdin.write_all(header("CSV").as_bytes()).unwrap();
    for index in 0..5 {
        let text = row("CSV", index);
        stdin.write_all(&text.as_bytes()[..text.len() / 2]).unwrap();
        stdin.flush().unwrap();
        stdin.write_all(&text.as_bytes()[text.len() / 2..]).unwrap();
        let rows = reading.rows(1);
        assert!(rows[0].ends_with(&format!("\"v\":{index}}}")), "{rows:?}");
    }
    reading.child.signal("-TERM");
    assert_eq!(reading.rest(), (vec![], Some(130)));
}

#[test]
fn bad_rows_of_a_pipe_are_told_or_skipped() {
    let rows = "ts,k,v\n2024-01-01T00:00:00,a,1\n2024-01-01T00:01:00,b,x\n2024-01-01T00:02:00,c,3\n2024-01-01,d\n";
    let command = |options: &str| {
        let mut command = program();
        command.args(["sql", "--format", "csv", &format!("{} {ROWS}", stream("CSV", "-", options))]);
        command.write_stdin(rows);
        command.assert()
    };
    command("").failure().stderr(contains("standard input: row 4"));
    command("OPTIONS ('on_error' 'skip')").success().stderr(contains("2 skipped"));
    let mut cut = program();
    cut.args(["sql", &format!("{} {ROWS}", stream("JSON", "-", ""))]).write_stdin("{\"k\": \"a\",");
    cut.assert().failure().stderr(contains("standard input: ends within a row"));
}

#[test]
fn pipes_end_with_their_writer_or_are_followed() {
    let folder = TempDir::new().unwrap();
    let pipe = folder.path().join("pipe").display().to_string();
    assert!(Process::new("mkfifo").arg(&pipe).status().unwrap().success());
    let write = |rows: std::ops::Range<usize>| {
        let text: String = rows.map(|index| row("JSON", index)).collect();
        // It opens when somebody reads.
        File::create(&pipe).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let reading = Reading::start(&format!("{} {TOTALS}", stream("JSON", &pipe, "")), &[]);
    write(0..50);
    let (rows, code) = reading.rest();
    assert_eq!((rows, code), (of_file("JSON", 50, TOTALS), Some(0)));
    let sql = format!("{} {ROWS}", stream("JSON", &pipe, "OPTIONS ('follow' 'true')"));
    let mut reading = Reading::start(&sql, &["--drain"]);
    write(0..20);
    let mut rows = reading.rows(20);
    write(20..50);
    rows.extend(reading.rows(30));
    reading.child.signal("-TERM");
    let (rest, code) = reading.rest();
    assert_eq!((rest, code), (vec![], Some(0)));
    assert_eq!(sorted(rows.into_iter()), of_file("JSON", 50, ROWS));
}

#[test]
fn connections_are_read_and_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let location = format!("tcp://{}", listener.local_addr().unwrap());
    let sql = format!("{} {ROWS}", stream("CSV", &location, "OPTIONS ('follow' 'true', 'has_header' 'false')"));
    let mut reading = Reading::start(&sql, &[]);
    let mut rows = vec![];
    for range in [0..30, 30..31, 31..200] {
        let (mut connection, _) = listener.accept().unwrap();
        let text: String = range.clone().map(|index| row("CSV", index)).collect();
        connection.write_all(text.as_bytes()).unwrap();
        drop(connection);
        rows.extend(reading.rows(range.len()));
    }
    assert_eq!(sorted(rows.into_iter()), of_file("CSV", 200, ROWS));
    drop(listener);
    reading.child.signal("-INT");
    assert_eq!(reading.rest(), (vec![], Some(130)));
    let nobody = format!("{} {ROWS}", stream("CSV", &location, ""));
    program().args(["sql", &nobody]).assert().failure().stderr(contains("check the address"));
}

#[test]
fn what_comes_once_is_read_once() {
    let once = "comes only once";
    let refuses = |sql: &str, told: &str| {
        let mut command = program();
        command.args(["sql", "--quiet", sql]).write_stdin("2024-01-01T00:00:00,a,1\n");
        command.assert().failure().stderr(contains(told));
    };
    let bytes = stream("CSV", "-", "OPTIONS ('has_header' 'false')");
    refuses(&format!("{bytes} {ROWS} UNION ALL {ROWS}"), once);
    refuses(&format!("{bytes} {ROWS}; {ROWS}"), once);
    refuses(&format!("{bytes} SET streamlines.strategy = 'batch'; {ROWS}"), "rows come only once");
    refuses("CREATE STREAM s STORED AS CSV LOCATION '-'", "list them");
    refuses("CREATE STREAM s (a BIGINT) LOCATION '-'", "STORED AS CSV or JSON");
    refuses("CREATE STREAM s (ts TIMESTAMP, WATERMARK FOR ts) STORED AS CSV LOCATION '-'", "an exact watermark");
    refuses(
        "CREATE STREAM s (ts TIMESTAMP) STORED AS CSV LOCATION '-'; SELECT count(*) FROM s GROUP BY tumble(ts, INTERVAL '1 hour')",
        "without a bound of lateness",
    );
    let checkpoints = format!(
        "{bytes} SET streamlines.checkpoint_dir = 'target/none'; COPY ({ROWS}) TO 'target/none-out/' STORED AS CSV"
    );
    refuses(&checkpoints, "checkpoints of stream s");
    let mut init = NamedTempFile::new().unwrap();
    init.write_all(bytes.as_bytes()).unwrap();
    let mut lateness = program();
    lateness.args(["lateness", "--init"]).arg(init.path()).arg("s");
    lateness.assert().failure().stderr(contains("rows come only once"));
    let mut check = program();
    check.args(["check", "-"]).write_stdin(format!("{bytes} {ROWS}"));
    check.assert().failure().stderr(contains("comes only once"));
    let mut confined = program();
    confined.args(["sql", "--root", "testdata", &bytes]);
    confined.assert().failure().stderr(contains("to which this session is confined"));
}

#[test]
fn event_time_goes_on_with_the_clock_where_nothing_comes() {
    let sql = "CREATE STREAM s (ts TIMESTAMP, v BIGINT, WATERMARK FOR ts AS ts - INTERVAL '100' MILLISECOND) STORED AS CSV \
               LOCATION '-' OPTIONS ('has_header' 'false', 'idle_timeout' '300ms'); \
               SELECT window_start, sum(v) AS v FROM s GROUP BY window_start WINDOW TUMBLING (SIZE 1 SECOND)";
    let mut reading = Reading::start(sql, &[]);
    let mut stdin = reading.stdin();
    stdin.write_all(b"2024-01-01T00:00:00.2,1\n2024-01-01T00:00:00.5,2\n").unwrap();
    assert_eq!(reading.rows(1), ["{\"window_start\":\"2024-01-01T00:00:00\",\"v\":3}"]);
    // The first of these is late now.
    stdin.write_all(b"2024-01-01T00:00:00.6,10\n2024-01-01T00:10:00,20\n").unwrap();
    drop(stdin);
    assert_eq!(reading.rest(), (vec!["{\"window_start\":\"2024-01-01T00:10:00\",\"v\":20}".to_string()], Some(0)));
}

/// A log that grows, and is rotated.
struct Log {
    folder: TempDir,
    format: &'static str,
    written: usize,
    rotated: usize,
}

impl Log {
    fn new(format: &'static str) -> Self {
        let log = Self { folder: TempDir::new().unwrap(), format, written: 0, rotated: 0 };
        fs::write(log.path("log"), header(format)).unwrap();
        log
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&mut self, rows: usize) {
        let mut file = OpenOptions::new().append(true).open(self.path("log")).unwrap();
        let text: String = (self.written..self.written + rows).map(|index| row(self.format, index)).collect();
        // In two parts, of which the first may end anywhere.
        let (first, second) = text.as_bytes().split_at(text.len() / 3);
        file.write_all(first).unwrap();
        file.write_all(second).unwrap();
        self.written += rows;
    }

    /// The file gets another name, and there is a new one under the old name.
    fn rotate(&mut self) {
        self.rotated += 1;
        fs::rename(self.path("log"), self.path(&format!("log.{}", self.rotated))).unwrap();
        fs::write(self.path("log"), header(self.format)).unwrap();
    }

    fn command(&self, query: &str, more: &[&str]) -> Process {
        let mut command = Process::new(PROGRAM);
        command.args(["sql", "--quiet", "--format", "ndjson"]).args(more);
        command.arg(format!("{} {query}", stream(self.format, &self.path("log"), "OPTIONS ('follow' 'true')")));
        command
    }

    /// A run that saves itself all the time.
    fn saving(&self, query: &str, more: &[&str]) -> Running {
        let (output, checkpoints) = (format!("{}/", self.path("out")), self.path("checkpoints"));
        let saving = ["--output", &output, "--checkpoint-dir", &checkpoints, "--checkpoint-interval", "5ms"];
        Running(self.command(query, &[&saving, more].concat()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn rows(&self) -> Vec<String> {
        let out = self.folder.path().join("out");
        let files = if out.exists() { names(&out) } else { vec![] };
        let texts = files.iter().filter(|name| name.ends_with(".ndjson"));
        let texts = texts.map(|name| fs::read_to_string(out.join(name)).unwrap());
        sorted(texts.flat_map(|text| text.lines().map(str::to_string).collect::<Vec<_>>()))
    }
}

#[test]
fn lines_come_out_as_they_are_written_also_after_a_rotation() {
    for format in ["CSV", "JSON"] {
        let mut log = Log::new(format);
        let mut child = Running(log.command(ROWS, &[]).stdout(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let mut rows: Vec<String> = vec![];
        for step in 0..6 {
            log.write(10);
            rows.extend(lines.by_ref().take(10).map(Result::unwrap));
            match step {
                1 => log.rotate(),
                // It is copied and cut off.
                3 => fs::write(log.path("log"), header(format)).unwrap(),
                _ => {}
            }
            // A file that is cut off and has grown as long again before anybody looks is not seen to be another one.
            std::thread::sleep(Duration::from_millis(if step == 3 { 500 } else { 0 }));
        }
        assert_eq!(sorted(rows.into_iter()), of_file(format, 60, ROWS), "{format}");
        child.signal("-TERM");
        assert_eq!(child.code(), Some(130));
    }
}

#[test]
fn a_file_may_come_later_and_its_last_line_later_still() {
    let mut log = Log::new("CSV");
    fs::remove_file(log.path("log")).unwrap();
    let named = log.path("log.csv");
    let sql = format!("{} {ROWS}", stream("CSV", &named, "OPTIONS ('follow' 'true')"));
    let mut reading = Reading::start(&sql, &["--drain"]);
    std::thread::sleep(Duration::from_millis(100));
    fs::write(&named, header("CSV")).unwrap();
    fs::rename(&named, log.path("log")).unwrap();
    log.write(1);
    fs::rename(log.path("log"), &named).unwrap();
    assert_eq!(reading.rows(1).len(), 1);
    OpenOptions::new().append(true).open(&named).unwrap().write_all(b"2024-01-01T00:01:00,k,").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    reading.child.signal("-TERM");
    // It is no whole row.
    assert_eq!(reading.rest(), (vec![], Some(0)));
}

#[test]
fn killed_runs_read_each_line_once() {
    let mut random = ChaCha8Rng::seed_from_u64(9);
    for (format, query) in [("CSV", ROWS), ("JSON", HOURS), ("CSV", HOURS), ("JSON", ROWS)] {
        let mut log = Log::new(format);
        for _ in 0..5 {
            let strategy = ["partitioned", "inline", "single_queue"][random.random_range(0..3)];
            let mut child = log.saving(query, &["--strategy", strategy]);
            for _ in 0..random.random_range(1..5) {
                log.write(random.random_range(0..90));
                std::thread::sleep(Duration::from_millis(random.random_range(0..90)));
            }
            // Also while nobody reads.
            if random.random_bool(0.5) {
                child.0.kill().unwrap();
                log.write(random.random_range(0..9));
                log.rotate();
            }
            child.0.kill().unwrap();
            child.code();
            log.write(random.random_range(0..50));
            // Of two rotations the first is to be read to its end before the second.
            let child = log.saving(query, &[]);
            std::thread::sleep(Duration::from_millis(1500));
            child.signal("-TERM");
            assert_eq!(child.code(), Some(130));
        }
        let expected = of_file(format, log.written, query);
        let child = log.saving(query, &["--drain"]);
        std::thread::sleep(Duration::from_millis(400));
        child.signal("-TERM");
        assert_eq!(child.code(), Some(0), "{query}");
        wait_until(|| log.rows().len() >= expected.len());
        assert!(log.rows() == expected, "{format}, {query}: other rows than those that were written");
    }
}

/// What is there is read before the end: also the file after the one that was being read.
#[test]
fn draining_goes_through_a_rotation() {
    let mut log = Log::new("CSV");
    log.write(50);
    let child = log.saving(ROWS, &[]);
    wait_until(|| log.rows().len() == 50);
    child.signal("-TERM");
    child.code();
    log.write(50);
    log.rotate();
    log.write(50);
    // It reads slowly enough to be told while it is in the first file.
    let child = log.saving(ROWS, &["--drain", "--speed", "50rows/s", "--batch-rows", "1"]);
    std::thread::sleep(Duration::from_millis(500));
    child.signal("-TERM");
    assert_eq!(child.code(), Some(0));
    assert_eq!(log.rows(), of_file("CSV", 150, ROWS));
}

#[test]
fn a_file_that_was_lost_is_told() {
    let mut log = Log::new("CSV");
    log.write(100);
    let child = log.saving(ROWS, &[]);
    wait_until(|| log.rows().len() == 100);
    child.signal("-TERM");
    child.code();
    fs::remove_file(log.path("log")).unwrap();
    fs::write(log.path("log"), header("CSV")).unwrap();
    let output = log.saving_output();
    assert!(output.contains("has been read up to byte") && output.contains("is not there any more"), "{output}");
}

impl Log {
    /// What such a run says that fails.
    fn saving_output(&self) -> String {
        let (output, checkpoints) = (format!("{}/", self.path("out")), self.path("checkpoints"));
        let mut command = self.command(ROWS, &["--output", &output, "--checkpoint-dir", &checkpoints]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    }
}
