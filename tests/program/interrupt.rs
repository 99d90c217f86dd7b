//! Ctrl-C.

use std::fs;
use std::process::{Command as Process, Stdio};

use tempfile::TempDir;

use crate::{PROGRAM, names, parquet_rows, program};

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
