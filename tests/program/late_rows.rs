//! `--late`: the ledger of late rows.

use std::fs;

use predicates::prelude::*;
use predicates::str::{contains, starts_with};
use tempfile::TempDir;

use super::{FLIGHTS, names, parquet_rows, program, sql};

const HOURLY: &str = "SELECT origin, count(*) AS n FROM flights GROUP BY origin, tumble(scheduled, INTERVAL '1 hour')";

#[test]
fn late_rows_go_into_a_ledger() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let told = || contains("336,776 rows in = 335,036 used + 1,740 late, ");
    let query = format!("{FLIGHTS} {HOURLY}");
    sql(&query).args(["--format", "none", "--late", &path("late.csv")]).assert().success().stderr(told());
    let text = fs::read_to_string(path("late.csv")).unwrap();
    assert_eq!(text.lines().count(), 1741);
    let first = text.lines().find(|line| line.contains("flights-EWR.parquet")).unwrap();
    let place = "flights-EWR.parquet,238,all,2013-01-01T13:00:00,2013-01-01T14:00:00,2013-01-01T15:15:00,6600.0,";
    assert!(first.contains(place) && first.ends_with("flights-EWR.parquet,235"), "{first}");
    // A folder has a file for each pipeline; COPY and CREATE TABLE … AS have late rows too.
    let copy = format!("{FLIGHTS} COPY ({HOURLY}) TO '{}'", path("hours.csv"));
    sql(&copy).args(["--late", &path("late/")]).assert().success().stderr(told());
    let parts: Vec<_> = names(&folder.path().join("late"));
    assert_eq!(parts.len(), 3);
    assert_eq!(parts.iter().map(|part| parquet_rows(&folder.path().join("late").join(part))).sum::<usize>(), 1740);
    let table = format!("{FLIGHTS} SET streamlines.late = '{}'; CREATE TABLE t AS {HOURLY}", path("t.ndjson"));
    sql(&table).assert().success().stderr(told());
    assert_eq!(fs::read_to_string(path("t.ndjson")).unwrap().lines().count(), 1740);
}

#[test]
fn a_ledger_is_whole_or_not_there() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let fails = format!("{FLIGHTS} SELECT 1 / (flight - flight) AS x, count(*) FROM flights GROUP BY x");
    sql(&fails).args(["--late", &path("new/late.csv")]).assert().code(1).stderr(contains("Divide by zero"));
    assert_eq!(names(folder.path()), Vec::<String>::new());
    let query = format!("{FLIGHTS} {HOURLY}");
    let wrong = sql(&query).args(["--late", &path("late.txt")]).assert().code(1).stdout("");
    wrong.stderr(contains("late.txt: its extension says no format").and(contains("help: late.parquet")));
    let twice = sql(&format!("{query}; {HOURLY}")).args(["--late", &path("late.csv"), "--format", "none"]).assert();
    twice.code(1).stderr(contains("several queries over streams and one --late"));
    // Nothing is late where no row is read, and without a bound, and the ledger says so.
    sql(&query).args(["--format", "none", "--late", &path("late.csv")]).assert().success();
    let none_pass = query.replace("GROUP BY", "WHERE false GROUP BY");
    sql(&none_pass).args(["--format", "none", "--late", &path("late.csv")]).assert().success();
    let none = fs::read_to_string(path("late.csv")).unwrap();
    assert!(starts_with("scheduled,").eval(&none) && none.lines().count() == 1, "{none}");
    let batch = sql(&query).args(["--strategy", "batch", "--late", &path("late.csv")]).assert().code(1);
    batch.stderr(contains("a ledger of late rows under strategy batch").and(contains("help: ")));
    let exact = ["run", "examples/flights.sql", "--format", "none", "--late"];
    program().args(exact).arg(path("none.csv")).assert().success();
    let none = fs::read_to_string(path("none.csv")).unwrap();
    assert!(starts_with("scheduled,").eval(&none) && none.lines().count() == 1, "{none}");
}

#[test]
fn every_row_is_accounted_for() {
    let told = |query: &str, fates: &str| {
        sql(&format!("{FLIGHTS} {query}"))
            .args(["--format", "none", "--partitions", "1"])
            .assert()
            .success()
            .stderr(contains(fates));
    };
    told(
        "SELECT flight FROM flights WHERE origin = 'EWR'",
        "336,776 rows in = 120,835 used + 215,941 filtered + 0 late, ",
    );
    told("SELECT flight FROM flights WHERE origin = 'BOS'", "rows in = 0 used + 336,776 filtered + 0 late, 0 rows out");
    let airlines = "CREATE TABLE one AS VALUES ('UA'), ('UA');";
    told(
        &format!(
            "{airlines} SELECT count(*) FROM flights JOIN one ON carrier = column1 GROUP BY tumble(scheduled, INTERVAL '1 hour')"
        ),
        "336,776 rows in = 58,",
    );
    told("SELECT flight FROM flights LIMIT 2", "rows in = 16,384 used + 0 late, 2 rows out");
}
