//! The program as a user meets it: standard output, standard error, files and exit codes.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command as Process, Stdio};

use assert_cmd::Command;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streamlines");

const ROWS: &str =
    "SELECT * FROM (VALUES (1, 'EWR', TIMESTAMP '2013-01-01T06:00:00'), (2, NULL, NULL)) AS t (n, origin, ts)";

/// The flights of 2013 from New York's airports that come with the project.
const FLIGHTS: &str = "CREATE STREAM flights (WATERMARK FOR scheduled AS scheduled - INTERVAL '3' HOUR)
    STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet' OPTIONS ('partitioned_by' 'origin'); ";

fn program() -> Command {
    Command::new(PROGRAM)
}

fn sql(text: &str) -> Command {
    let mut command = program();
    command.args(["sql", text]);
    command
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Reads a whole Parquet file.
fn parquet_rows(path: &Path) -> usize {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap().build().unwrap();
    reader.map(|batch| batch.unwrap().num_rows()).sum()
}

#[test]
fn version_and_help() {
    let version = format!("streamlines {}\n", env!("CARGO_PKG_VERSION"));
    program().arg("--version").assert().success().stdout(version);
    let help = contains("Examples:").and(contains("streamlines sql"));
    program().arg("--help").assert().success().stdout(help);
    for command in ["run", "sql", "explain", "check", "completions"] {
        program().args([command, "--help"]).assert().success().stdout(contains("Example:\n  streamlines "));
    }
    program().args(["generate", "trades", "--help"]).assert().success().stdout(contains("--lateness"));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let wrong: [&[&str]; 9] = [
        &[],
        &["sql"],
        &["fly", "me"],
        &["sql", "SELECT 1", "--format", "xlsx"],
        &["sql", "SELECT 1", "--partitions", "0"],
        &["sql", "SELECT 1", "--progress", "sometimes"],
        &["sql", "SELECT 1", "--set", "partitions"],
        &["sql", "SELECT 1", "--set", "streamlines.nonsense=1"],
        &["explain", "SELECT 1", "--set", "nonsense.at_all=1"],
    ];
    for arguments in wrong {
        program().args(arguments).assert().code(2).stdout(is_empty()).stderr(is_empty().not());
    }
}

#[test]
fn rows_alone_are_on_standard_output() {
    sql(ROWS).assert().success().stdout("n,origin,ts\n1,EWR,2013-01-01T06:00:00\n2,,\n").stderr(is_empty());
    let query = format!("{FLIGHTS} SELECT origin, count(*) AS n FROM flights GROUP BY origin ORDER BY origin");
    let rows = || starts_with("origin,n\nEWR,").and(contains("\nJFK,")).and(contains("\nLGA,"));
    let summary = || contains(" rows in, 3 rows out, 0 late, ").and(contains(" rows/s\n"));
    sql(&query).assert().success().stdout(rows()).stderr(summary().and(contains("pipeline").not()));
    sql(&query).arg("-q").assert().success().stdout(rows()).stderr(is_empty());
    let verbose = summary().and(contains("  pipeline 0: ")).and(contains("flights-LGA.parquet"));
    sql(&query).arg("-v").assert().success().stdout(rows()).stderr(verbose);
}

#[test]
fn the_example_runs() {
    program()
        .args(["run", "examples/flights.sql"])
        .assert()
        .success()
        .stdout(starts_with("origin,window_start,flights,delay,worst\n"))
        .stderr(contains("336,776 rows in, 19,486 rows out, 0 late, 19,486 windows, "));
}

#[test]
fn every_text_format() {
    let first = r#"{"n":1,"origin":"EWR","ts":"2013-01-01T06:00:00"}"#;
    let format = |name: &str| sql(ROWS).args(["--format", name]).assert().success();
    format("csv").stdout("n,origin,ts\n1,EWR,2013-01-01T06:00:00\n2,,\n");
    format("json").stdout(format!("[{first},{{\"n\":2}}]"));
    format("ndjson").stdout(format!("{first}\n{{\"n\":2}}\n"));
    format("table").stdout("n  origin  ts\n-  ------  -------------------\n1  EWR     2013-01-01T06:00:00\n2\n");
    format("none").stdout(is_empty());
}

#[test]
fn parquet_and_arrow_on_a_pipe() {
    let stdout = |format: &str| {
        let run = sql(ROWS).args(["--format", format]).assert().success();
        run.get_output().stdout.clone()
    };
    let parquet = stdout("parquet");
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    let arrow = stdout("arrow");
    let reader = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
    // Two results are no one file.
    let several = sql("SELECT 1; SELECT 2").args(["--format", "parquet"]).assert().code(2);
    several.stdout(is_empty()).stderr(contains("several queries").and(contains("help:")));
}

#[test]
fn statements_run_in_order_and_those_without_rows_print_nothing() {
    let script =
        "CREATE VIEW v AS SELECT 1 AS a; SET datafusion.execution.batch_size = 100; SELECT a FROM v; SELECT 2 AS b;";
    sql(script).assert().success().stdout("a\n1\nb\n2\n").stderr(is_empty());
    // Statements before a failing one have run.
    sql("SELECT 1 AS a; SELECT * FROM nowhere").assert().code(1).stdout("a\n1\n").stderr(contains("nowhere"));
    // A text that cannot be read runs nothing.
    sql("SELECT 1 AS a; SELEKT 2").assert().code(1).stdout(is_empty()).stderr(contains("line 1, column 16"));
    sql("").assert().success().stdout(is_empty());
}

#[test]
fn what_there_is_can_be_asked_for() {
    sql(&format!("{FLIGHTS} SHOW TABLES")).assert().success().stdout(contains("flights"));
    sql(&format!("{FLIGHTS} SHOW STREAMS")).assert().success().stdout(contains("flights"));
    sql(&format!("{FLIGHTS} DESCRIBE flights")).assert().success().stdout(contains("scheduled,"));
}

#[test]
fn statements_come_from_a_file_or_standard_input() {
    let folder = TempDir::new().unwrap();
    let (init, query) = (folder.path().join("init.sql"), folder.path().join("query.sql"));
    fs::write(&init, "CREATE VIEW v AS SELECT 41 AS a; SELECT 'not shown'").unwrap();
    fs::write(&query, "-- one row\nSELECT a + 1 AS b FROM v;\n").unwrap();
    program().arg("run").arg(&query).arg("--init").arg(&init).assert().success().stdout("b\n42\n");
    program().args(["run", "-"]).write_stdin("SELECT 1 AS one").assert().success().stdout("one\n1\n");
    program().args(["run", "missing.sql"]).assert().code(1).stderr(contains("missing.sql: No such file"));
    sql("SELECT 1").args(["--init", "missing.sql"]).assert().code(1).stderr(contains("missing.sql: No such file"));
    // The place of an error is told in the text that it is in.
    fs::write(&init, "SELECT 1;\nSELEKT 2").unwrap();
    let told = contains("line 2, column 1").and(contains(" 2 | SELEKT 2\n   | ^"));
    sql("SELECT 1").arg("--init").arg(&init).assert().code(1).stdout(is_empty()).stderr(told);
}

#[test]
fn settings_reach_the_session() {
    let value = |setting: &str, arguments: &[&str], value: &str| {
        let shown = contains(format!("{setting},{value}\n"));
        sql(&format!("SHOW {setting}")).args(arguments).assert().success().stdout(shown);
    };
    value("datafusion.execution.batch_size", &["--batch-rows", "77"], "77");
    value("datafusion.execution.batch_size", &["--set", "datafusion.execution.batch_size=78"], "78");
    value("datafusion.execution.target_partitions", &["--partitions", "3"], "3");
    value("streamlines.partitions", &["--partitions", "3"], "3");
    value("datafusion.runtime.memory_limit", &["--set", "datafusion.runtime.memory_limit=64M"], "64M");
    let plan = format!("{FLIGHTS} SELECT count(*) FROM flights WHERE dep_delay > 0");
    let explain = |arguments: &[&str]| program().args(["explain", &plan]).args(arguments).assert().success();
    explain(&[]).stdout(contains("PipelinesExec"));
    explain(&["--strategy", "batch"]).stdout(contains("PipelinesExec").not());
    explain(&["--set", "streamlines.strategy = batch"]).stdout(contains("PipelinesExec").not());
    let told = contains("unknown strategy 'fast'").and(contains("partitioned or batch"));
    sql("SELECT 1").args(["--strategy", "fast"]).assert().code(2).stderr(told);
}

#[test]
fn strategies_partitions_and_batches_give_the_same_rows() {
    let query = format!(
        "{FLIGHTS} SELECT origin, window_start, count(*) AS n, max(dep_delay) FROM flights
         WHERE scheduled < TIMESTAMP '2013-01-03T00:00:00' GROUP BY origin, tumble(scheduled, INTERVAL '6 hours')
         ORDER BY origin, window_start"
    );
    let rows = |arguments: &[&str]| sql(&query).args(arguments).assert().success().get_output().stdout.clone();
    let expected = rows(&[]);
    assert!(expected.len() > 200);
    for arguments in [&["--partitions", "1"], &["--partitions", "3"], &["--batch-rows", "7"]] {
        assert!(rows(arguments) == expected, "{arguments:?}");
    }
}

#[test]
fn explain_shows_plans_and_runs_nothing() {
    let explain = |text: &str| program().args(["explain", text]).assert();
    let query = "SELECT origin, count(*) FROM flights GROUP BY origin, tumble(scheduled, INTERVAL '1 hour')";
    let shown = contains("logical plan").and(contains("plan of a partition")).and(contains("strategy=partitioned"));
    explain(&format!("{FLIGHTS} {query}")).success().stdout(shown.and(contains("aligned"))).stderr(is_empty());
    explain("SELECT a FROM nowhere").code(1).stdout(is_empty()).stderr(contains("nowhere"));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.csv");
    explain(&format!("COPY (SELECT 1 AS a) TO '{}'", path.display())).success();
    assert!(!path.exists());
}

#[test]
fn output_goes_to_a_file_of_the_extensions_format() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join("new").join(name);
    for name in ["x.csv", "x.json", "x.ndjson", "x.parquet", "x.arrow", "x"] {
        sql(ROWS).arg("--output").arg(path(name)).assert().success().stdout(is_empty());
    }
    assert_eq!(fs::read_to_string(path("x.csv")).unwrap(), "n,origin,ts\n1,EWR,2013-01-01T06:00:00\n2,,\n");
    assert!(fs::read_to_string(path("x.json")).unwrap().starts_with('['));
    assert_eq!(fs::read_to_string(path("x.ndjson")).unwrap().lines().count(), 2);
    assert_eq!(parquet_rows(&path("x.parquet")), 2);
    assert_eq!(parquet_rows(&path("x")), 2);
    let arrow = fs::File::open(path("x.arrow")).unwrap();
    let reader = arrow::ipc::reader::FileReader::try_new(arrow, None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
    assert_eq!(names(&folder.path().join("new")).len(), 6, "nothing unfinished is left");
    // --format wins over the extension.
    sql(ROWS).arg("--output").arg(path("x.csv")).args(["--format", "ndjson"]).assert().success();
    assert!(fs::read_to_string(path("x.csv")).unwrap().starts_with('{'));
}

#[test]
fn no_rows_are_a_file_with_the_schema() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let query = format!("{FLIGHTS} SELECT origin, dep_delay FROM flights WHERE origin = 'ORD'");
    for name in ["x.parquet", "x.csv"] {
        sql(&query).arg("--output").arg(path(name)).assert().success();
    }
    assert_eq!(parquet_rows(&path("x.parquet")), 0);
    assert_eq!(fs::read_to_string(path("x.csv")).unwrap(), "origin,dep_delay\n");
}

#[test]
fn output_to_a_folder_is_files_of_pipelines() {
    let folder = TempDir::new().unwrap();
    let out = format!("{}/out/", folder.path().display());
    let query = format!("{FLIGHTS} SELECT origin, scheduled FROM flights");
    sql(&query).args(["--output", &out, "--partitions", "2"]).assert().success().stdout(is_empty());
    let files = names(Path::new(&out));
    assert_eq!(files, ["part-00000.parquet", "part-00001.parquet"]);
    let rows: usize = files.iter().map(|name| parquet_rows(&Path::new(&out).join(name))).sum();
    sql(&format!("{FLIGHTS} SELECT count(*) AS n FROM flights")).assert().stdout(format!("n\n{rows}\n"));
}

/// A run into a folder leaves its own rows there and none of an earlier run's, and touches no other file.
#[test]
fn output_to_a_folder_replaces_an_earlier_runs() {
    let folder = TempDir::new().unwrap();
    let out = format!("{}/", folder.path().display());
    fs::write(folder.path().join("notes.parquet"), "not ours").unwrap();
    // Which of the pipelines reads what is open, and one without rows leaves no file.
    for (condition, rows, most) in [("true", 336_776, 2), ("origin = 'EWR'", 120_835, 2), ("false", 0, 0)] {
        let query = format!("{FLIGHTS} SELECT origin, scheduled FROM flights WHERE {condition}");
        sql(&query).args(["--output", &out, "--partitions", "2"]).assert().success();
        let mut files = names(folder.path());
        files.retain(|name| name != "notes.parquet");
        assert!(files.len() <= most && files.iter().all(|name| name.starts_with("part-0000")), "{files:?}");
        let written: usize = files.iter().map(|name| parquet_rows(&folder.path().join(name))).sum();
        assert_eq!(written, rows, "{condition}: {files:?}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("notes.parquet")).unwrap(), "not ours");
}

#[test]
fn parquet_settings_reach_the_output() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.parquet");
    let query = format!("{FLIGHTS} SELECT origin FROM flights");
    let groups = ["--set", "datafusion.execution.parquet.max_row_group_size=1000"];
    sql(&query).arg("--output").arg(&path).args(groups).assert().success();
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&path).unwrap()).unwrap();
    assert!(reader.metadata().row_groups().iter().all(|group| group.num_rows() <= 1000));
}

/// What is no regular file is written through, and a link stays one.
#[cfg(unix)]
#[test]
fn output_through_pipes_and_links() {
    let folder = TempDir::new().unwrap();
    let (pipe, link, file) = (folder.path().join("pipe"), folder.path().join("link.csv"), folder.path().join("x.csv"));
    assert!(Process::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).unwrap()
    });
    sql("SELECT 1 AS a").args(["--format", "csv", "--output"]).arg(&pipe).assert().success();
    assert_eq!(reader.join().unwrap(), "a\n1\n");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for value in ["2", "3"] {
        sql(&format!("SELECT {value} AS a")).arg("--output").arg(&link).assert().success();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("a\n{value}\n"));
    }
    assert!(link.is_symlink());
}

#[test]
fn copy_takes_the_options_of_its_format() {
    let folder = TempDir::new().unwrap();
    for (options, expected) in
        [("'delimiter' '|', 'has_header' 'false'", "EWR|1\n"), ("'format.null_value' '-'", "origin,n\nEWR,1\n")]
    {
        let path = folder.path().join("x.csv");
        let copy = format!(
            "{FLIGHTS} COPY (SELECT origin, count(*) AS n FROM flights WHERE flight = 1545 AND
            scheduled < TIMESTAMP '2013-01-01T12:00:00' GROUP BY origin) TO '{}' OPTIONS ({options})",
            path.display()
        );
        sql(&copy).assert().success().stdout("count\n1\n").stderr(contains("rows out").not());
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }
}

#[test]
fn copy_compresses_text() {
    let folder = TempDir::new().unwrap();
    for (format, compression, suffix) in [("CSV", "gzip", "gz"), ("JSON", "zstd", "zst")] {
        let place = format!("{}/{suffix}", folder.path().display());
        let copied = |to: &str| {
            let options = format!("STORED AS {format} OPTIONS ('format.compression' '{compression}')");
            format!("{FLIGHTS} COPY (SELECT origin, flight FROM flights) TO '{to}' {options}; ")
        };
        let extension = format!("{}.{suffix}", format.to_lowercase());
        let read = |from: &str| format!("SELECT count(*) AS n, count(DISTINCT flight) AS f FROM '{from}'");
        let told = "count\n336776\nn,f\n336776,3844\n";
        sql(&format!("{}{}", copied(&format!("{place}/")), read(&format!("{place}/part-*.{suffix}"))))
            .assert()
            .success()
            .stdout(told);
        assert!(
            names(Path::new(&place)).iter().all(|name| name.ends_with(&extension)),
            "{:?}",
            names(Path::new(&place))
        );
        let file = format!("{place}/one.{extension}");
        sql(&format!("{}{}", copied(&file), read(&file))).assert().success().stdout(told);
    }
    // Another compression takes the place of the one before.
    let place = format!("{}/gz/", folder.path().display());
    let options = "STORED AS CSV OPTIONS ('format.compression' 'zstd')";
    sql(&format!("{FLIGHTS} COPY (SELECT flight FROM flights) TO '{place}' {options}")).assert().success();
    let left = names(Path::new(&place));
    assert!(left.iter().all(|name| name.ends_with(".csv.zst") || name == "one.csv.gz"), "{left:?}");
    // So does the extension of a file.
    let file = format!("{place}three.csv.gz");
    sql(&format!("SELECT count(*) AS n FROM '{file}'")).assert().code(1);
    sql("SELECT * FROM (VALUES (1), (2), (3)) AS t (n)").args(["--output", &file]).assert().success();
    assert_eq!(fs::read(&file).unwrap()[..2], [0x1f, 0x8b], "the mark of gzip");
    sql(&format!("SELECT sum(n) AS n FROM '{file}'")).assert().success().stdout("n\n6\n");
    // A path without an extension is a folder.
    let place = folder.path().join("parts");
    sql(&format!("{FLIGHTS} COPY (SELECT flight FROM flights) TO '{}' STORED AS PARQUET", place.display()))
        .assert()
        .success();
    assert_eq!(names(&place).iter().map(|name| parquet_rows(&place.join(name))).sum::<usize>(), 336_776);
}

#[test]
fn output_takes_one_result() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.csv");
    let several = sql("SELECT 1 AS a; SELECT 2 AS a").arg("--output").arg(&path).assert().code(2);
    several.stdout(is_empty()).stderr(contains("several queries and one --output").and(contains("COPY (SELECT")));
    assert_eq!(names(folder.path()), Vec::<String>::new(), "nothing has run");
    sql("CREATE VIEW v AS SELECT 1 AS a; SELECT * FROM v").arg("--output").arg(&path).assert().success();
    assert_eq!(fs::read_to_string(&path).unwrap(), "a\n1\n");
}

#[test]
fn copies_and_inserts_say_how_many_rows() {
    let folder = TempDir::new().unwrap();
    let to = |name: &str| format!("'{}/{name}'", folder.path().display());
    let two = format!(
        "COPY (SELECT 1 AS a) TO {} STORED AS CSV; {FLIGHTS}
         COPY (SELECT origin FROM flights LIMIT 5) TO {} STORED AS CSV",
        to("x.csv"),
        to("y.csv")
    );
    sql(&two).assert().success().stdout("count\n1\ncount\n5\n");
    assert_eq!(fs::read_to_string(folder.path().join("y.csv")).unwrap().lines().count(), 6);
}

#[test]
fn a_table_from_a_stream_tells_what_was_read() {
    let script = format!(
        "{FLIGHTS} CREATE TABLE hours AS SELECT window_start, count(*) AS n FROM flights
         GROUP BY tumble(scheduled, INTERVAL '1 hour');
         SELECT sum(n) AS rows FROM hours"
    );
    // Together they are all: a late row is in no window.
    let told = contains("336,776 rows in, 1,740 late");
    sql(&script).assert().success().stdout("rows\n335036\n").stderr(told);
    let twice = "CREATE TABLE t AS SELECT 1 AS a; CREATE TABLE IF NOT EXISTS t AS SELECT 2 AS a;
        SELECT a FROM t; CREATE OR REPLACE TABLE t AS SELECT a + 2 AS a FROM t; SELECT a FROM t;";
    sql(twice).assert().success().stdout("a\n1\na\n3\n");
    sql(&format!("{twice} CREATE TABLE t AS SELECT 4")).assert().code(1).stderr(contains("'t' already exists"));
    sql("CREATE TABLE t AS SELECT 1 AS a, 2 AS a").assert().code(1).stderr(contains("a"));
}

#[test]
fn a_failure_on_the_way_leaves_no_file() {
    let folder = TempDir::new().unwrap();
    let failing = "SELECT 10 / (value - 70000) AS a FROM generate_series(1, 80000)";
    for name in ["x.csv", "x.parquet", "x.arrow"] {
        let path = folder.path().join(name);
        sql(failing).arg("--output").arg(&path).assert().code(1).stderr(contains("ivide by zero"));
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}

/// Runs a query of more rows than any pipe holds, reads the first line, and goes away.
fn reads_one_line(arguments: &[&str]) -> (String, std::process::Output) {
    let mut child =
        Process::new(PROGRAM).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (mut line, mut byte) = (String::new(), [0]);
    while !line.ends_with('\n') {
        stdout.read_exact(&mut byte).unwrap();
        line.push(byte[0].into());
    }
    drop(stdout);
    (line, child.wait_with_output().unwrap())
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_run_quietly() {
    let series = "SELECT value FROM generate_series(1, 20000000)";
    let (line, output) = reads_one_line(&["sql", series, "--format", "csv"]);
    assert_eq!((line.as_str(), String::from_utf8_lossy(&output.stderr).as_ref()), ("value\n", ""));
    assert!(output.status.success(), "{:?}", output.status);
    let flights = format!("{FLIGHTS} SELECT * FROM flights");
    let (_, output) = reads_one_line(&["sql", &flights, "--format", "ndjson"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success(), "{:?}", output.status);
}

/// Who closes standard error, or fills its disk, hears nothing more, and the run goes on.
#[cfg(target_os = "linux")]
#[test]
fn nobody_has_to_read_the_summary() {
    let folder = TempDir::new().unwrap();
    for (statement, code) in [(format!("{FLIGHTS} SELECT count(*) AS n FROM flights"), 0), ("SELECT nope".into(), 1)] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = Process::new(PROGRAM)
            .args(["sql", &statement, "--output", &format!("{}/x.csv", folder.path().display())])
            .stderr(full)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{statement}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("x.csv")).unwrap(), "n\n336776\n");
}

#[test]
fn progress_is_lines_where_there_is_no_terminal() {
    let endless = "SELECT count(*) FROM generate_series(1, 100000000000)";
    let mut child = Process::new(PROGRAM)
        .args(["sql", endless, "--progress", "always"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stderr.as_mut().unwrap()), &mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains(" rows/s"), "{line}");
}

#[test]
fn without_a_terminal_there_is_no_progress_bar() {
    let query = format!("{FLIGHTS} SELECT count(*) FROM flights");
    let one_line = || predicate::function(|text: &str| text.lines().count() == 1 && !text.contains(['\r', '\x1b']));
    sql(&query).assert().success().stderr(one_line());
    sql(&query).args(["--progress", "never"]).assert().success().stderr(one_line());
    sql(&query).args(["--progress", "always", "-q"]).assert().success().stderr(is_empty());
}

#[test]
fn completions_for_a_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        program().args(["completions", shell]).assert().success().stdout(contains("streamlines"));
    }
    program().args(["completions", "sed"]).assert().code(2);
}

fn generate(out: &Path, arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(["generate", "trades", "--rows", "20000", "--keys", "10"]).args(arguments).arg("--out").arg(out);
    command
}

#[test]
fn generated_trades_are_the_same_bytes_for_the_same_seed() {
    let folder = TempDir::new().unwrap();
    let bytes = |name: &str, arguments: &[&str]| {
        let out = folder.path().join(name);
        generate(&out, arguments).assert().success().stdout(is_empty()).stderr(is_empty());
        names(&out).into_iter().map(|name| (name.clone(), fs::read(out.join(name)).unwrap())).collect::<Vec<_>>()
    };
    for format in ["parquet", "csv"] {
        let arguments = ["--format", format, "--partitions", "3", "--seed", "7"];
        let first = bytes(&format!("a-{format}"), &arguments);
        assert_eq!(first.len(), 3);
        assert_eq!(first[2].0, format!("trades-2.{format}"));
        assert!(first == bytes(&format!("b-{format}"), &arguments));
        let other = ["--format", format, "--partitions", "3", "--seed", "8"];
        assert!(first != bytes(&format!("c-{format}"), &other));
    }
}

#[test]
fn generated_trades_are_what_they_are_said_to_be() {
    let folder = TempDir::new().unwrap();
    generate(folder.path(), &["--partitions", "2", "--lateness", "5s", "--span", "1h"]).assert().success();
    let location = folder.path().display();
    let script = format!(
        "CREATE STREAM t (WATERMARK FOR event_time AS event_time - INTERVAL '5' SECOND)
           STORED AS PARQUET LOCATION '{location}/' OPTIONS ('partitioned_by' 'symbol');
         SELECT count(*) AS n, count(DISTINCT symbol) AS symbols, count(DISTINCT trade_id) AS ids,
                max(event_time) - min(event_time) < INTERVAL '1 hour 10 seconds' AS in_span FROM t;
         SELECT symbol, tumble(event_time, INTERVAL '1 second'), count(*) FROM t GROUP BY 1, 2 HAVING count(*) > 99;
         DESCRIBE t"
    );
    let rows = contains("20000,10,20000,true\n").and(contains("price,Float64,NO")).and(contains("trade_id,Int64,NO"));
    let none_late = contains("20,000 rows in, 1 rows out, 0 late").and(contains("20,000 rows in, 0 rows out, 0 late"));
    sql(&script).assert().success().stdout(rows.and(contains("quantity,Int64,NO"))).stderr(none_late);
}

#[test]
fn rows_that_are_not_in_all_of_their_windows_are_counted() {
    let bounded =
        FLIGHTS.replace("WATERMARK FOR scheduled)", "WATERMARK FOR scheduled AS scheduled - INTERVAL '1' HOUR)");
    let hop = |slide, size| {
        format!("{bounded} SELECT count(*) FROM flights GROUP BY hop(scheduled, INTERVAL '{slide}', INTERVAL '{size}')")
    };
    sql(&hop("1 hour", "2 hours")).assert().success().stderr(contains(" late for some of their windows, "));
    sql(&hop("2 hours", "1 hour")).assert().success().stderr(contains(" between windows, "));
}

#[test]
fn lateness_says_what_a_bound_costs() {
    let flights = ["lateness", "testdata/nycflights/flights-*.parquet", "--time", "scheduled"];
    let report = |arguments: &[&str]| program().args(flights).args(arguments).assert().success();
    // As the run with this bound counts them.
    let three_hours = ["--by", "origin", "--window", "1h", "--bound", "3h"];
    report(&three_hours).stdout(contains("          3h loses        1,740 rows").and(contains("EWR: 120,835 rows, ")));
    let json = report(&[&three_hours[..], &["--format", "json"]].concat()).get_output().stdout.clone();
    let json = String::from_utf8(json).unwrap();
    assert!(json.contains(r#"{"bound_ns":"10800000000000","late_rows":1740}"#), "{json}");
    // The worst flight of an airport left so long after its time.
    report(&["--by", "origin"]).stdout(contains(" loses            0 rows    0.000 %"));
    let none = program().args(["lateness", "nope"]).assert().code(1);
    none.stderr(contains("there is no stream nope").and(contains("help: ")));
    let wrong = program().args(["lateness", flights[1], "--time", "origin"]).assert().code(1);
    wrong.stderr(contains("not a timestamp").and(contains("help: ")));
    program().args(["lateness", flights[1]]).assert().code(1).stderr(contains("--time ts"));
}

#[test]
fn nonsense_is_not_generated() {
    let folder = TempDir::new().unwrap();
    let wrong: [&[&str]; 6] = [
        &["--partitions", "0"],
        &["--partitions", "11"],
        &["--lateness=-5s"],
        &["--lateness", "5"],
        &["--span", "forever"],
        &["--format", "avro"],
    ];
    for arguments in wrong {
        generate(folder.path(), arguments).assert().code(2).stderr(is_empty().not());
    }
    assert_eq!(names(folder.path()), Vec::<String>::new());
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    generate(&file.join("out"), &[]).assert().code(1).stderr(contains("cannot be written").and(contains("help:")));
}

/// Runs `check` on statements.
fn check(statements: &str, arguments: &[&str]) -> assert_cmd::assert::Assert {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("queries.sql");
    fs::write(&file, statements).unwrap();
    program().arg("check").arg(&file).args(arguments).assert()
}

#[test]
fn check_says_whether_answers_are_the_same() {
    let hourly =
        "SELECT origin, window_end, count(*) AS n FROM flights GROUP BY origin, tumble(scheduled, INTERVAL '1 hour')";
    let agrees = check(
        &format!(
            "{FLIGHTS} SET streamlines.partitions = 3; {hourly} HAVING count(*) < 0; SELECT origin, count(*) FROM flights GROUP BY origin EMIT CHANGES"
        ),
        &["--seed", "7", "--runs", "1"],
    );
    let folded = "  same     batch and the stream's folded changes: 336,776 rows\n";
    let same =
        contains("  same     stream and partitioned, partitions ").and(contains("  same     batch and stream: 0 rows"));
    let all = contains("all agree: 4 comparisons of 2 queries\n");
    agrees
        .success()
        .stdout(starts_with("seed 7\nquery 1\n").and(same).and(contains(folded)).and(all))
        .stderr(is_empty());
    // What late rows explain is no failure, and said.
    let late = check(&format!("{FLIGHTS} {hourly}"), &["--runs", "0"]);
    let told = contains("  late     batch and stream: 19,486 rows, 1,740 late; ")
        .and(contains("\n    - EWR | "))
        .and(contains("\n    + EWR | "));
    late.success()
        .stdout(told.and(contains("late rows explain that as far as they go")).and(contains("1 by late rows")));
    // Without the window a change does not say what it changes.
    let unkeyed =
        check(&format!("{FLIGHTS} SELECT count(*) FROM flights GROUP BY origin EMIT CHANGES"), &["--runs", "0"]);
    unkeyed.success().stdout(contains("  skipped  ").and(contains("flights.origin is grouped by and not selected")));
}

#[test]
fn check_fails_where_answers_differ() {
    let random = "SELECT sensor, random() AS r FROM 'testdata/slt/data/readings.csv'";
    let differs = check(random, &["--runs", "1", "--seed", "1"]).code(1).stderr(is_empty());
    let told = contains("  DIFFERS  batch and stream: 10 rows; 10 rows missing, 10 rows more\n    - a | ");
    differs.stdout(told.and(contains("a function is random")).and(contains("2 of 2 comparisons differ\n")));
    check("SELECT sensor FROM nowhere", &[]).code(1).stderr(contains("there is no stream or table nowhere"));
    check("SET streamlines.partitions = 1", &[]).code(1).stderr(contains("no query").and(contains("help:")));
    program().args(["check", "nowhere.sql"]).assert().code(1).stderr(contains("nowhere.sql"));
}

#[test]
fn check_writes_nothing_and_looks_for_limited_rows_among_all() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.csv");
    let copy =
        format!("COPY (SELECT sensor, amount FROM 'testdata/slt/data/readings.csv' LIMIT 3) TO '{}'", out.display());
    let told = contains("  same     batch and stream: 10 rows")
        .and(contains("LIMIT's rows among all, partitioned, partitions by cores, batch rows 8192: 3 rows"));
    check(&copy, &["--runs", "1"]).success().stdout(told);
    assert!(!out.exists());
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_run_with_whole_files_and_code_130() {
    let folder = TempDir::new().unwrap();
    let trades = folder.path().join("trades");
    let many = ["--rows", "1000000", "--partitions", "2"];
    program().args(["generate", "trades", "--out"]).arg(&trades).args(many).assert().success();
    let out = folder.path().join("out");
    // Each row takes its time, and bears a hash that no compression makes smaller.
    let query = format!(
        "CREATE STREAM t STORED AS PARQUET LOCATION '{}/' OPTIONS ('partitioned_by' 'symbol');
         SELECT *, sha512(repeat(symbol || CAST(trade_id AS VARCHAR), 100)) AS hash FROM t",
        trades.display()
    );
    let child = Process::new(PROGRAM)
        .args(["sql", &query, "--partitions", "2", "--batch-rows", "1000", "--output", &format!("{}/", out.display())])
        .args(["--set", "datafusion.execution.parquet.max_row_group_size=5000"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first part of an unfinished file says that the run is under way.
    while !out.exists() || names(&out).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(Process::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let summary = String::from_utf8_lossy(&output.stderr);
    assert!(summary.contains(" rows out") && summary.contains("interrupted"), "{summary}");
    let files = names(&out);
    assert!(!files.is_empty() && files.iter().all(|name| name.ends_with(".parquet")), "{files:?}");
    let rows: usize = files.iter().map(|name| parquet_rows(&out.join(name))).sum();
    assert!(0 < rows && rows < 1_000_000, "{rows}");
    let told: String = rows.to_string();
    assert_eq!(summary.replace(',', "").split(" rows out").next().unwrap().rsplit(' ').next(), Some(told.as_str()));
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_unfinished_data() {
    let folder = TempDir::new().unwrap();
    let child = Process::new(PROGRAM)
        .args(["generate", "trades", "--rows", "1000000000", "--partitions", "2", "--out"])
        .arg(folder.path())
        .spawn()
        .unwrap();
    while names(folder.path()).len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(Process::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

/// Also while a table in memory is filled, which ends with the program.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_program_between_queries() {
    let folder = TempDir::new().unwrap();
    let (first, table) = (folder.path().join("first.csv"), "SELECT * FROM generate_series(1, 100000000000)");
    let child = Process::new(PROGRAM)
        .args(["sql", &format!("COPY (SELECT 1 AS a) TO '{}'; CREATE TABLE t AS {table}", first.display())])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !first.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(Process::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_query_of_tables_too() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.csv");
    let child = Process::new(PROGRAM)
        .args(["sql", "SELECT * FROM generate_series(1, 100000000000)", "--output"])
        .arg(&path)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while names(folder.path()).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(Process::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    assert_eq!(names(folder.path()), ["x.csv"]);
    let text = fs::read_to_string(&path).unwrap();
    let last: usize = text.lines().last().unwrap().parse().unwrap();
    assert_eq!(text.lines().count(), last + 1);
}
