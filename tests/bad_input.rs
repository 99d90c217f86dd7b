//! Bad input: each gets one error that says what, where and what to do, exit code 1, and leaves nothing behind.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command as Process;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use assert_cmd::Command;
use datafusion::parquet::arrow::ArrowWriter;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streamlines");

/// One line, so that the query after it is line 2.
const STREAM: &str =
    "CREATE STREAM trips (WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) STORED AS PARQUET LOCATION 'trips.parquet';\n";

/// A folder that programs run in.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// With `trips.parquet`: origin, ts, distance, fare, arrived; ten rows, ten seconds apart.
    fn with_trips() -> Self {
        let folder = Self::new();
        folder.parquet("trips.parquet", trips(0));
        folder
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn parquet(&self, name: &str, columns: Vec<(&str, ArrayRef)>) {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = fs::File::create(self.path(name)).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.current_dir(self.0.path()).args(arguments);
        command
    }

    fn sql(&self, text: &str) -> Command {
        self.program(&["sql", text])
    }

    /// Everything below the folder.
    fn names(&self) -> Vec<String> {
        let mut names = vec![];
        walk(self.0.path(), &mut names);
        names.sort();
        names
    }

    /// Runs `sql` into a file and into a folder: it must fail with all of `told` and leave nothing.
    fn refuses(&self, sql: &str, told: &[&str]) {
        let before = self.names();
        for output in ["out.parquet", "out.csv", "out/"] {
            let run = self.sql(sql).args(["--output", output]).assert().code(1).stdout(is_empty());
            let stderr = String::from_utf8(run.get_output().stderr.clone()).unwrap();
            assert!(stderr.starts_with("error: "), "{stderr}");
            for text in told {
                assert!(stderr.contains(text), "'{text}' is not in:\n{stderr}");
            }
            assert_eq!(self.names(), before, "{sql} leaves something behind");
        }
    }

    /// The same for a query over `trips`, whose place is told by a caret under `place`.
    fn refuses_query(&self, query: &str, place: &str, told: &[&str]) {
        let column = query.find(place).unwrap();
        let caret = format!(" 2 | {query}\n   | {}^\n", " ".repeat(column));
        let position = format!("(line 2, column {})", column + 1);
        self.refuses(&format!("{STREAM}{query}"), &[&[caret.as_str(), position.as_str()], told].concat());
    }
}

fn walk(folder: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        names.push(path.display().to_string());
        if path.is_dir() {
            walk(&path, names);
        }
    }
}

fn trips(first_second: i64) -> Vec<(&'static str, ArrayRef)> {
    let times = (0..10).map(|row| (first_second + row * 10) * 1_000_000);
    vec![
        ("origin", Arc::new(StringArray::from_iter_values((0..10).map(|row| ["EWR", "JFK"][row % 2])))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(times.clone()))),
        ("distance", Arc::new(Int64Array::from_iter_values(0..10))),
        ("fare", Arc::new(Float64Array::from_iter_values((0..10).map(f64::from)))),
        ("arrived", Arc::new(TimestampMicrosecondArray::from_iter_values(times))),
    ]
}

#[test]
fn sql_that_cannot_be_read() {
    let folder = Folder::with_trips();
    folder.refuses_query("SELECT origin FROM trips GRUOP BY origin", "BY", &["Expected: end of statement, found: BY"]);
    folder.refuses_query("SELECT 'EWR FROM trips", "'EWR", &["Unterminated string literal"]);
    folder.refuses_query("SELECT (1 + distance FROM trips", "FROM", &["Expected: )"]);
    let several_lines = format!("{STREAM}SELECT origin,\n       FROM\n");
    folder.refuses(&several_lines, &["Expected: identifier, found: EOF", "(line 3, column 12)"]);
    folder.refuses("CREATE STREAM", &["(line 1, column 14)", "   |              ^"]);
    folder.refuses("CREATE STREAM s STORED AS PARQUET LOCATION", &["(line 1, column 43)"]);
    folder.refuses(
        "CREATE STREAM s STORED AS ORC LOCATION 'x'",
        &["unknown format ORC", "STORED AS PARQUET, CSV or JSON"],
    );
}

#[test]
fn an_unknown_column() {
    let folder = Folder::with_trips();
    folder.refuses_query("SELECT orign FROM trips", "orign", &["no column orign", "did you mean origin?"]);
    let grouped = "SELECT origin, sum(distanse) FROM trips GROUP BY origin EMIT CHANGES";
    folder.refuses_query(grouped, "distanse", &["no column distanse", "did you mean distance?"]);
    folder.refuses_query("SELECT 1 FROM trips AS a WHERE a.fair > 1", "a.fair", &["no column a.fair", "mean fare?"]);
    let windowed = "SELECT count(*) FROM trips GROUP BY tumble(tss, INTERVAL '1 hour')";
    folder.refuses_query(windowed, "tss", &["no column tss", "did you mean ts?"]);
}

#[test]
fn an_unknown_stream() {
    let folder = Folder::with_trips();
    folder.refuses_query("SELECT * FROM trip", "trip", &["no stream or table trip ", "help: did you mean trips?"]);
    let joined = "SELECT * FROM trips JOIN airports USING (origin)";
    folder.refuses_query(joined, "airports", &["no stream or table airports ", "help: SHOW TABLES"]);
    folder.refuses_query("DROP STREAM tripz", "tripz", &["no stream tripz ", "did you mean trips?"]);
    let table_function =
        "SELECT 1 FROM TABLE(TUMBLE(TABLE tripz, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start";
    folder
        .refuses(&format!("{STREAM}{table_function}"), &["no stream or table tripz", "line 2", "did you mean trips?"]);
    folder.refuses(
        &format!("{STREAM}SELECT 1 FROM tripz GROUP BY origin WINDOW TUMBLING (SIZE 1 HOUR)"),
        &["no stream or table tripz", "line 2", "did you mean trips?"],
    );
}

#[test]
fn an_unknown_function() {
    let folder = Folder::with_trips();
    folder.refuses_query("SELECT summ(fare) FROM trips", "summ", &["no function summ", "did you mean sum?"]);
    folder.refuses_query(
        "SELECT tumbel(ts, INTERVAL '1 hour') FROM trips",
        "tumbel",
        &["no function tumbel", "did you mean tumble?"],
    );
}

#[test]
fn emit_inside_a_sub_query() {
    let folder = Folder::with_trips();
    let query = "SELECT * FROM (SELECT origin, count(*) FROM trips GROUP BY origin EMIT CHANGES) AS counts";
    folder.refuses_query(query, "EMIT", &["EMIT in a sub-query", "at the end of the outermost query"]);
}

#[test]
fn what_has_no_place_beside_emit_changes() {
    let folder = Folder::with_trips();
    let sorted = "SELECT origin, count(*) FROM trips GROUP BY origin ORDER BY origin EMIT CHANGES";
    folder.refuses_query(sorted, "EMIT", &["ORDER BY with EMIT CHANGES", "leave ORDER BY out"]);
    let having = "SELECT origin FROM trips GROUP BY origin HAVING count(*) > 1 EMIT CHANGES";
    folder.refuses_query(having, "EMIT", &["HAVING with EMIT CHANGES", "EMIT CHANGES WITH OP", "or EMIT FINAL"]);
    let sessions = "SELECT count(*) FROM trips GROUP BY session(ts, INTERVAL '1 hour') EMIT CHANGES PER BATCH";
    folder.refuses_query(sessions, "EMIT", &["over sessions", "EMIT CHANGES WITH OP"]);
    let timeless = "SELECT count(*) FROM trips EMIT FINAL ALLOWED LATENESS INTERVAL '1' HOUR";
    folder.refuses_query(timeless, "EMIT", &["ALLOWED LATENESS without a window", "tumble(ts,"]);
    let distinct = "SELECT DISTINCT origin FROM trips EMIT CHANGES";
    folder.refuses_query(distinct, "EMIT", &["DISTINCT with EMIT CHANGES", "use EMIT FINAL"]);
}

#[test]
fn windows_of_no_size() {
    let folder = Folder::with_trips();
    for size in ["0 seconds", "-1 hour"] {
        let told = ["the size of a window must be positive", "help: INTERVAL '1 hour'"];
        let function = format!("SELECT count(*) FROM trips GROUP BY origin, tumble(ts, INTERVAL '{size}')");
        folder.refuses_query(&function, "ts,", &told);
        let clause = format!("SELECT count(*) FROM trips GROUP BY origin WINDOW TUMBLING (ts, INTERVAL '{size}')");
        folder.refuses(&format!("{STREAM}{clause}"), &[told[0], told[1], "line 2"]);
        let timeless = format!("SELECT count(*) FROM trips GROUP BY origin WINDOW TUMBLING (SIZE INTERVAL '{size}')");
        folder.refuses(&format!("{STREAM}{timeless}"), &[told[0], told[1], "line 2"]);
        let table_function = format!(
            "SELECT count(*) FROM TABLE(TUMBLE(TABLE trips, DESCRIPTOR(ts), INTERVAL '{size}')) GROUP BY window_start"
        );
        folder.refuses(&format!("{STREAM}{table_function}"), &[told[0], told[1], "line 2"]);
    }
}

#[test]
fn windows_over_months() {
    let folder = Folder::with_trips();
    let query = "SELECT count(*) FROM trips GROUP BY hop(ts, INTERVAL '1 day', INTERVAL '1 month')";
    folder.refuses_query(query, "ts,", &["months differ in length", "tumble(ts, INTERVAL '1 month')"]);
    let query = "SELECT count(*) FROM trips GROUP BY tumble(ts, INTERVAL '1 month 1 hour')";
    folder.refuses_query(query, "ts,", &["mixes months, days and hours", "INTERVAL '1 month'"]);
}

#[test]
fn windows_over_what_is_no_event_time() {
    let folder = Folder::with_trips();
    let query = "SELECT count(*) FROM trips GROUP BY tumble(fare, INTERVAL '1 hour')";
    folder.refuses(&format!("{STREAM}{query}"), &["tumble needs a timestamp, not Float64"]);
    let query = "SELECT count(*) FROM trips GROUP BY tumble(arrived, INTERVAL '1 hour')";
    folder.refuses_query(query, "arrived", &["arrived is not the event time of stream trips", "its event time is ts"]);
}

#[test]
fn a_watermark_on_what_is_no_timestamp() {
    let folder = Folder::with_trips();
    let on = |column: &str| {
        format!(
            "CREATE STREAM s (WATERMARK FOR {column} AS {column} - INTERVAL '5' SECOND)
             STORED AS PARQUET LOCATION 'trips.parquet'; SELECT * FROM s"
        )
    };
    folder.refuses(
        &on("tss"),
        &["tss", "not there", "(line 1, column 32)", "   |                                ^", "did you mean ts?"],
    );
    folder.refuses(&on("origin"), &["origin is ", "not a timestamp", "(line 1, column 32)", "help: name a timestamp"]);
}

#[test]
fn a_location_without_files() {
    let folder = Folder::with_trips();
    fs::create_dir(folder.path("empty")).unwrap();
    for (location, told) in [
        ("nowhere/*.parquet", "no file at 'nowhere/*.parquet'"),
        ("trips.parquet,gone.parquet", "no file at 'gone.parquet'"),
        ("empty/", "the folder 'empty/' holds no PARQUET files"),
    ] {
        let sql = format!("CREATE STREAM s STORED AS PARQUET LOCATION '{location}'; SELECT * FROM s");
        folder.refuses(&sql, &[told, "(line 1, column 44)", "relative paths start at"]);
    }
    folder.refuses_query("SELECT * FROM 'gone/*.csv'", "'gone", &["no file at 'gone/*.csv'", "relative paths"]);
}

#[test]
fn files_whose_schemas_differ() {
    let folder = Folder::new();
    folder.parquet("a.parquet", trips(0));
    let mut retyped = trips(100);
    retyped[2].1 = Arc::new(Int32Array::from_iter_values(0..10));
    folder.parquet("b.parquet", retyped);
    let sql = "CREATE STREAM s STORED AS PARQUET LOCATION '*.parquet'; SELECT * FROM s";
    folder.refuses(sql, &["b.parquet: has column 'distance' as Int32 and not as Int64", "unlike a.parquet", "help:"]);
    let mut renamed = trips(100);
    renamed[2].0 = "miles";
    folder.parquet("b.parquet", renamed);
    folder.refuses(sql, &["b.parquet: has no column 'distance'", "help: list the columns"]);
}

#[test]
fn listed_columns_that_the_files_do_not_have() {
    let folder = Folder::with_trips();
    let sql =
        "CREATE STREAM s (origin VARCHAR, distanc BIGINT) STORED AS PARQUET LOCATION 'trips.parquet'; SELECT * FROM s";
    folder.refuses(sql, &["trips.parquet: has no column 'distanc'", "did you mean 'distance'?"]);
    let sql = "CREATE STREAM s (distance VARCHAR) STORED AS PARQUET LOCATION 'trips.parquet'; SELECT * FROM s";
    folder.refuses(sql, &["trips.parquet: column 'distance' is Int64, not "]);
}

#[test]
fn damaged_parquet_files() {
    let folder = Folder::with_trips();
    let whole = fs::read(folder.path("trips.parquet")).unwrap();
    let sql = "CREATE STREAM s STORED AS PARQUET LOCATION 'trips.parquet'; SELECT * FROM s";
    for length in [whole.len() - 1, whole.len() / 2, 6] {
        fs::write(folder.path("trips.parquet"), &whole[..length]).unwrap();
        folder.refuses(sql, &["trips.parquet: cannot be read: ", "help: the file is truncated or no Parquet file"]);
    }
    fs::write(folder.path("trips.parquet"), "").unwrap();
    folder.refuses(sql, &["trips.parquet: is empty", "help: leave it out"]);
    // A whole footer over damaged pages.
    let mut damaged = whole;
    damaged[4..40].fill(0xff);
    fs::write(folder.path("trips.parquet"), damaged).unwrap();
    folder.refuses(sql, &["trips.parquet: cannot be read: ", "help: the file is damaged"]);
}

const CSV: &str = "CREATE STREAM s (k VARCHAR, ts TIMESTAMP, n BIGINT, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
    STORED AS CSV LOCATION 's.csv'";

#[test]
fn a_csv_row_with_too_few_columns() {
    let folder = Folder::new();
    folder.text("s.csv", "k,ts,n\na,2024-01-01T00:00:00,1\nb,2024-01-01T00:00:01\nc,2024-01-01T00:00:02,3\n");
    folder
        .refuses(&format!("{CSV}; SELECT k, n FROM s"), &["s.csv: row 2: ", "expected 3 got 2", "help: mend the row"]);
    let inferred = "CREATE STREAM s STORED AS CSV LOCATION 's.csv'; SELECT * FROM s";
    folder.refuses(inferred, &["s.csv: row 2: ", "list the columns", "'on_error' 'skip'"]);
    folder
        .sql(&format!("{CSV} OPTIONS ('on_error' 'skip'); SELECT k, n FROM s"))
        .assert()
        .success()
        .stdout("k,n\na,1\nc,3\n")
        .stderr(contains("3 rows in").and(contains("1 skipped as malformed")));
}

#[test]
fn a_csv_row_with_a_bad_number() {
    let folder = Folder::new();
    folder.text("s.csv", "k,ts,n\na,2024-01-01T00:00:00,1\nb,2024-01-01T00:00:01,2\nc,2024-01-01T00:00:02,many\n");
    let told = ["s.csv: row 3: ", "'many'", "Int64", "'on_error' 'skip'"];
    folder.refuses(&format!("{CSV}; SELECT k, n FROM s"), &told);
    let skipping = format!("{CSV} OPTIONS ('on_error' 'skip'); SELECT count(*) AS rows FROM s");
    folder.sql(&skipping).assert().success().stdout("rows\n2\n").stderr(contains("1 skipped as malformed"));
    // Without a header the first line is row 1.
    folder.text("s.csv", "a,2024-01-01T00:00:00,1\nb,2024-01-01T00:00:01,two\n");
    folder.refuses(&format!("{CSV} OPTIONS ('has_header' 'false'); SELECT n FROM s"), &["s.csv: row 2: ", "'two'"]);
}

#[test]
fn a_bad_number_beyond_the_rows_that_types_are_inferred_from() {
    let folder = Folder::new();
    let rows: String = (1..=3000).map(|row| if row == 2900 { "x\n".to_string() } else { format!("{row}\n") }).collect();
    folder.text("s.csv", &format!("n\n{rows}"));
    let sql = "CREATE STREAM s STORED AS CSV LOCATION 's.csv'; SELECT sum(n) FROM s";
    folder.refuses(sql, &["s.csv: row 2900: ", "'x'", "list the column's type"]);
}

#[test]
fn a_json_row_that_is_none() {
    let folder = Folder::new();
    let rows: String = (1..=2000).map(|row| format!("{{\"n\":{row}}}\n")).collect();
    folder.text("s.json", &format!("{rows}{{\"n\":\n"));
    let sql = "CREATE STREAM s STORED AS JSON LOCATION 's.json'; SELECT sum(n) FROM s";
    folder.refuses(sql, &["s.json: row 2001: ", "help: "]);
    folder.text("s.json", &rows.replace("1500", "\"x\""));
    folder.refuses(sql, &["s.json: row 1500: ", "help: ", "list the column's type"]);
    // Within the rows that types are inferred from.
    folder.text("s.json", &rows.replace("{\"n\":15}", "{\"n\""));
    folder.refuses(sql, &["s.json: row 15: ", "help: "]);
}

#[test]
fn an_output_that_cannot_be_written() {
    let folder = Folder::with_trips();
    fs::create_dir(folder.path("folder")).unwrap();
    let before = folder.names();
    let sql = format!("{STREAM}SELECT * FROM trips");
    for output in ["trips.parquet/x.csv", "trips.parquet/x/"] {
        let told =
            contains(output).and(contains("cannot be written: Not a directory")).and(contains("help: check that"));
        folder.sql(&sql).args(["--output", output]).assert().code(1).stdout(is_empty()).stderr(told);
        let copy = format!("{STREAM}COPY (SELECT * FROM trips) TO '{output}' STORED AS CSV");
        folder.sql(&copy).assert().code(1).stderr(contains("cannot be written").and(contains("help: ")));
    }
    let told = contains("folder: is a folder").and(contains("folder/ for one file"));
    folder.sql(&sql).args(["--output", "folder"]).assert().code(1).stdout(is_empty()).stderr(told);
    assert_eq!(folder.names(), before);
}

#[cfg(target_os = "linux")]
#[test]
fn standard_output_on_a_full_disk() {
    let folder = Folder::with_trips();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Process::new(PROGRAM)
        .current_dir(folder.0.path())
        .args(["sql", &format!("{STREAM}SELECT * FROM trips")])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("standard output: cannot be written: No space left on device"), "{stderr}");
}

/// A limit on the size of files refuses a write half-way, as a full disk does.
#[cfg(unix)]
#[test]
fn a_disk_that_gets_full() {
    let folder = Folder::new();
    let trades = ["generate", "trades", "--rows", "300000", "--partitions", "2", "--out", "trades"];
    folder.program(&trades).assert().success();
    let before = folder.names();
    let limited = |blocks: &str, arguments: &[&str]| {
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let mut command = Process::new("sh");
        command.current_dir(folder.0.path()).args(["-c", &script, PROGRAM]).args(arguments);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains("cannot be written: ") && stderr.contains("the disk has room"), "{stderr}");
        assert_eq!(folder.names(), before, "nothing is left");
    };
    let rows = "SELECT * FROM 'trades/*.parquet'";
    // In the last part, and in the second.
    for blocks in ["1000", "20000"] {
        limited(blocks, &["sql", rows, "--output", "out.ndjson"]);
        limited(blocks, &["sql", rows, "--output", "out/", "--format", "ndjson"]);
    }
    limited("100", &["sql", &format!("COPY ({rows}) TO 'out/' STORED AS PARQUET")]);
    limited("1000", &["generate", "trades", "--rows", "200000", "--format", "csv", "--out", "more"]);
}

#[test]
fn a_failure_late_in_a_large_output_leaves_nothing() {
    let folder = Folder::new();
    let trades = ["generate", "trades", "--rows", "300000", "--partitions", "2", "--out", "trades"];
    folder.program(&trades).assert().success();
    // Several parts of 8 MB are out when the cast fails.
    let sql = "CREATE STREAM s STORED AS PARQUET LOCATION 'trades/' OPTIONS ('partitioned_by' 'symbol');
        SELECT *, repeat(symbol, 20) AS more, CASE WHEN trade_id = 290001 THEN CAST(symbol AS BIGINT) END AS bad FROM s";
    for _ in 0..3 {
        folder.refuses(sql, &["Cannot cast string 'S"]);
    }
    let large = ["--set", "datafusion.execution.parquet.max_row_group_size=10000"];
    let before = folder.names();
    let sql = sql.replace("repeat(symbol, 20)", "sha512(CAST(trade_id AS VARCHAR))");
    for output in ["out.parquet", "out/"] {
        folder.sql(&sql).args(large).args(["--output", output]).assert().code(1);
        assert_eq!(folder.names(), before);
    }
}

#[test]
fn groups_of_nan_and_null_are_those_of_the_batch() {
    let folder = Folder::new();
    let keys = [Some(f64::NAN), None, Some(1.0), Some(-f64::NAN), Some(0.0), None, Some(f64::NAN), Some(-0.0)];
    let times = (0..8).map(|row| row * 1_000_000);
    folder.parquet(
        "trips.parquet",
        vec![
            ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(times))),
            ("fare", Arc::new(Float64Array::from_iter(keys))),
            ("n", Arc::new(Int64Array::from_iter_values(0..8))),
        ],
    );
    let rows = |query: &str, strategy: &str| {
        let run = folder.sql(&format!("{STREAM}{query}")).args(["--strategy", strategy]).assert().success();
        let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
        let mut rows: Vec<String> = text.lines().map(str::to_string).collect();
        rows.sort();
        rows
    };
    let plain = "SELECT fare, count(*), sum(n), max(fare) FROM trips GROUP BY fare";
    let windows = "SELECT fare, count(*), sum(n) FROM trips GROUP BY fare, tumble(ts, INTERVAL '3 seconds')";
    for query in [plain, windows] {
        assert_eq!(rows(query, "partitioned"), rows(query, "batch"));
    }
    let groups = rows(plain, "partitioned");
    assert!(groups.iter().any(|row| row == ",2,6,"), "{groups:?}");
    assert!(groups.iter().any(|row| row == "NaN,2,6,NaN"), "{groups:?}");
}

#[test]
fn a_file_that_is_another_than_it_was() {
    let folder = Folder::with_trips();
    let sql = format!("{STREAM}COPY (SELECT 1 AS n) TO 'trips.parquet' STORED AS PARQUET; SELECT count(*) FROM trips");
    let run = folder.sql(&sql).assert().code(1);
    run.stderr(contains("trips.parquet: has changed since the stream was created").and(contains("help: ")));
}

#[test]
fn an_output_of_no_known_format() {
    let folder = Folder::new();
    let run = folder.program(&["sql", "SELECT 1", "--output", "x.txt"]).assert().code(1);
    run.stderr(contains("x.txt: its extension says no format").and(contains("help: --format csv")));
    assert!(folder.names().is_empty());
}

#[test]
fn outputs_that_have_no_place() {
    let folder = Folder::new();
    for place in ["", "/"] {
        let stream = format!("COPY (SELECT origin FROM trips) TO '{place}' STORED AS CSV");
        let told = contains("is no place for output").and(contains("help: "));
        Folder::with_trips().sql(&format!("{STREAM}{stream}")).assert().code(1).stderr(told);
    }
    let proc = folder.program(&["sql", "SELECT 1 AS n", "--output", "/proc/x.csv"]).assert().code(1);
    proc.stderr(contains("/proc/x.csv: cannot be written").and(contains("help: ")));
}

#[test]
fn csv_files_whose_columns_differ() {
    let folder = Folder::new();
    folder.text("1.csv", "a,b\n1,2\n");
    folder.text("2.csv", "b,a\n1,2\n");
    folder.refuses("SELECT * FROM '*.csv'", &["2.csv: has column 'b' where 'a' is, unlike 1.csv", "help: "]);
    folder.text("2.csv", "");
    let sum = folder.sql("SELECT a, b FROM '*.csv'").assert().success();
    sum.stdout("a,b\n1,2\n");
    folder.text("1.csv", "a,a\n1,2\n");
    folder.refuses("SELECT * FROM '1.csv'", &["1.csv: has two columns 'a'", "help: "]);
    folder.refuses("SELECT * FROM 's3://bucket/1.csv'", &["s3://bucket/1.csv: is no local path", "help: "]);
}

/// Neither files nor the folders that were made for them are left.
#[test]
fn a_query_that_fails_after_it_has_written() {
    let folder = Folder::new();
    let many = 400_000;
    folder.parquet(
        "many.parquet",
        vec![
            ("n", Arc::new(Int64Array::from_iter_values(0..many))),
            ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(0..many))),
        ],
    );
    let before = folder.names();
    let rows = format!(
        "SELECT md5(CAST(n AS VARCHAR)) AS hash, sha512(CAST(n AS VARCHAR)) AS longer, 1 / ({} - n) AS bad FROM 'many.parquet'",
        many - 1
    );
    for output in ["new/a/b/", "new/a/b.parquet", "c.ndjson"] {
        let run = folder.program(&["sql", &rows, "--output", output]).assert().code(1);
        run.stderr(contains("Divide by zero"));
        assert_eq!(folder.names(), before, "{output}");
    }
    let copy = format!("COPY ({rows}) TO 'x.csv.gz' STORED AS CSV OPTIONS ('format.compression' 'gzip')");
    folder.program(&["sql", &copy]).assert().code(1);
    assert_eq!(folder.names(), before);
}

#[test]
fn an_output_file_whose_place_is_taken_by_a_folder() {
    let folder = Folder::with_trips();
    folder.parquet("trips-2.parquet", trips(30));
    fs::create_dir_all(folder.path("taken/part-00001.parquet/x")).unwrap();
    folder.text("taken/part-00001.parquet/x/y", "");
    let before = folder.names();
    let sql =
        "CREATE STREAM s STORED AS PARQUET LOCATION 'trips*.parquet' OPTIONS ('partitions' 'files'); SELECT * FROM s";
    let run = folder.program(&["sql", sql, "--output", "taken/", "--partitions", "2"]).assert().code(1);
    run.stderr(contains("taken/part-00001.parquet: is a folder").and(contains("help: ")));
    assert_eq!(folder.names(), before);
}

#[test]
fn files_that_overlap_in_event_time() {
    let folder = Folder::with_trips();
    folder.parquet("trips-2.parquet", trips(30));
    let sql =
        "CREATE STREAM s (WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) STORED AS PARQUET LOCATION 'trips*.parquet';
        SELECT count(*) AS rows FROM s";
    let told = contains("warning: ").and(contains("trips.parquet").and(contains("trips-2.parquet")));
    let told = told.and(contains("'partitioned_by'")).and(contains("'partitions' 'files'"));
    folder.sql(sql).assert().success().stdout("rows\n20\n").stderr(told);
    folder.sql(sql).arg("-q").assert().success().stderr(is_empty());
    let declared = sql.replace("*.parquet'", "*.parquet' OPTIONS ('partitions' 'files')");
    folder.sql(&declared).assert().success().stderr(contains("warning").not());
    let wider = sql.replace("'5' SECOND", "'1' HOUR");
    folder.sql(&wider).assert().success().stderr(contains("warning").not());
    // Text files show it when they are read.
    folder.text("t-1.csv", "ts\n2024-01-01T00:00:00\n2024-01-01T00:10:00\n");
    folder.text("t-2.csv", "ts\n2024-01-01T00:05:00\n2024-01-01T00:20:00\n");
    let text = "CREATE STREAM s (WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) STORED AS CSV LOCATION 't-*.csv';
        SELECT count(*) AS rows FROM s GROUP BY tumble(ts, INTERVAL '1 hour')";
    let told = contains("warning: ").and(contains("t-2.csv begins before")).and(contains("t-1.csv ends"));
    folder.sql(text).assert().success().stdout("rows\n4\n").stderr(told);
}

/// A false declaration would make wrong rows, so every row is checked, wherever it stands.
#[test]
fn a_key_in_two_declared_partitions_far_down() {
    let folder = Folder::new();
    folder.text("k-1.csv", "k\na\n");
    let keys = (0..40_000).map(|row| if row == 30_000 { "a\n" } else { "b\n" });
    folder.text("k-2.csv", &format!("k\n{}", keys.collect::<String>()));
    let sql = "CREATE STREAM s STORED AS CSV LOCATION 'k-*.csv' OPTIONS ('partitioned_by' 'k');
        SELECT k, count(*) FROM s GROUP BY k";
    folder.refuses(sql, &["k = a", "k-1.csv", "k-2.csv", "'partitioned_by' k"]);
}

#[test]
fn a_key_in_two_declared_partitions() {
    let folder = Folder::with_trips();
    folder.parquet("trips-2.parquet", trips(30));
    let sql = "CREATE STREAM s STORED AS PARQUET LOCATION 'trips*.parquet' OPTIONS ('partitioned_by' 'origin');
        SELECT origin, count(*) FROM s GROUP BY origin";
    folder.refuses(sql, &["trips.parquet", "trips-2.parquet", "origin", "help:"]);
}

#[test]
fn a_stream_that_is_there_already() {
    let folder = Folder::with_trips();
    let create = |how: &str| {
        let again = STREAM.trim_end().replace("trips (", "trips (distance BIGINT, ts TIMESTAMP, ");
        format!("{STREAM}{} SELECT * FROM trips LIMIT 1", again.replace("STREAM trips", how))
    };
    folder
        .refuses(&create("STREAM trips"), &["trips exists already", "(line 2, column 15)", "CREATE OR REPLACE STREAM"]);
    folder.sql(&create("OR REPLACE STREAM trips")).assert().success().stdout(contains("distance,ts\n"));
    folder
        .sql(&create("STREAM IF NOT EXISTS trips"))
        .assert()
        .success()
        .stdout(contains("origin,ts,distance,fare,arrived\n"));
    folder.sql(&format!("{STREAM}DROP STREAM trips; DROP STREAM IF EXISTS trips; {STREAM}")).assert().success();
}

#[test]
fn what_cannot_run_as_a_stream_is_refused_by_name() {
    let folder = Folder::with_trips();
    let joined = "SELECT * FROM trips JOIN trips AS others USING (origin)";
    folder.refuses(&format!("{STREAM}{joined}"), &["a join of two streams (INNER JOIN)", "CREATE EXTERNAL TABLE"]);
    // Each with the place of the first column that is to blame.
    for (query, place, told) in [
        ("SELECT 1 AS one EMIT CHANGES", "EMIT", "no stream is read"),
        ("SELECT 1 FROM trips JOIN trips AS o ON trips.fare < o.fare", "trips.fare", "a join of two streams"),
        ("SELECT 1 FROM trips WHERE fare > (SELECT avg(fare) FROM trips)", "fare >", "a stream in a sub-query"),
    ] {
        folder.refuses_query(query, place, &[told, "cannot run as a stream", "help: "]);
    }
}

#[test]
fn options_that_do_not_exist() {
    let folder = Folder::with_trips();
    let sql = "CREATE STREAM s STORED AS PARQUET LOCATION 'trips.parquet' OPTIONS ('partitoned_by' 'origin'); SELECT 1";
    folder.refuses(sql, &["unknown option 'partitoned_by'", "line 1", "did you mean 'partitioned_by'?"]);
    let sql = "CREATE STREAM s STORED AS PARQUET LOCATION 'trips.parquet' OPTIONS ('partitioned_by' 'orign'); SELECT 1";
    folder.refuses(sql, &["orign", "line 1", "did you mean origin?"]);
}
