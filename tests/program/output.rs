//! Rows in files: --output, COPY, INSERT and CREATE TABLE.

use std::fs;
use std::path::Path;
use std::process::Command as Process;

use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use tempfile::TempDir;

use crate::{FLIGHTS, ROWS, names, parquet_rows, sql};

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
fn a_path_may_go_back_from_a_folder_that_is_there() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(path("in")).unwrap();
    sql(ROWS).args(["--output", &path("in/../x.csv")]).assert().success();
    sql(&format!("COPY ({ROWS}) TO '{}'", path("in/../y.csv"))).assert().success();
    let stream = format!("{FLIGHTS} COPY (SELECT origin FROM flights LIMIT 1) TO '{}'", path("in/../z.csv"));
    sql(&stream).assert().success();
    let told = contains("goes back from a folder that is not there");
    sql(ROWS).args(["--output", &path("new/../x.csv")]).assert().code(1).stderr(told);
    assert_eq!(names(folder.path()), ["in", "x.csv", "y.csv", "z.csv"]);
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

/// Whoever asks for an order finds it in the file, however rows get there.
#[test]
fn rows_are_written_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let rows = "SELECT flight, scheduled FROM flights WHERE scheduled < '2013-01-08' ORDER BY flight DESC, scheduled";
    let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let statements = format!(
        "{FLIGHTS} CREATE EXTERNAL TABLE t (flight BIGINT, scheduled TIMESTAMP) STORED AS CSV LOCATION '{}' OPTIONS ('format.has_header' 'true'); \
         COPY ({rows}) TO '{}' STORED AS CSV; COPY ({rows}) TO '{}' STORED AS CSV; INSERT INTO t {rows}",
        path("inserted/"),
        path("copied.csv"),
        path("folder/"),
    );
    sql(&statements).assert().success();
    sql(&format!("{FLIGHTS} {rows}")).args(["--output", &path("output.csv")]).assert().success();
    let copied = text("copied.csv");
    let numbers: Vec<i64> =
        copied.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.len() == 6_099 && numbers.is_sorted_by(|left, right| left >= right), "{}", numbers.len());
    assert_eq!(text("output.csv"), copied);
    for folder in ["folder", "inserted"] {
        let files = fs::read_dir(path(folder)).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(fs::read_to_string(&files[0]).unwrap(), copied, "{folder}");
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
    let told = contains("336,776 rows in = 335,036 used + 1,740 late, ");
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
