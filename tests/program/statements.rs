//! Where statements come from, and the settings under which they run.

use std::fs;

use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use tempfile::TempDir;

use crate::{FLIGHTS, program, sql};

#[test]
fn the_example_runs() {
    program()
        .args(["run", "examples/flights.sql"])
        .assert()
        .success()
        .stdout(starts_with("origin,window_start,flights,delay,worst\n"))
        .stderr(contains("336,776 rows in = 336,776 used + 0 late, 19,486 rows out, 19,486 windows, "));
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
    value("streamlines.batch_rows", &["--batch-rows", "77"], "77");
    value("datafusion.execution.batch_size", &["--set", "datafusion.execution.batch_size=78"], "78");
    value("datafusion.execution.target_partitions", &["--partitions", "3"], "3");
    value("streamlines.partitions", &["--partitions", "3"], "3");
    value("datafusion.runtime.memory_limit", &["--set", "datafusion.runtime.memory_limit=64M"], "64M");
    let plan = format!("{FLIGHTS} SELECT count(*) FROM flights WHERE dep_delay > 0");
    let explain = |arguments: &[&str]| program().args(["explain", &plan]).args(arguments).assert().success();
    explain(&[]).stdout(contains("PipelinesExec"));
    explain(&["--strategy", "batch"]).stdout(contains("PipelinesExec").not());
    explain(&["--set", "streamlines.strategy = batch"]).stdout(contains("PipelinesExec").not());
    let told = contains("unknown strategy 'fast'").and(contains("partitioned or inline or single_queue or batch"));
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
fn statements_may_be_deep_and_batches_as_large_as_anybody_writes() {
    let chain = format!("SELECT 1 = 1{} AS deep", " IS NULL".repeat(10_000));
    sql(&chain).args(["--quiet", "--format", "csv"]).assert().success().stdout(contains("false"));
    let rows = "SELECT count(*) FROM 'testdata/nycflights/flights-LGA-january.csv'";
    let mut large = sql(rows);
    large.args(["--quiet", "--format", "csv", "--set", "streamlines.batch_rows=1000000000000"]);
    large.assert().success().stdout(contains("7950"));
}
