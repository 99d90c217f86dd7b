//! Output that cannot be written, and runs that fail on the way.

use std::fs;
use std::process::Command as Process;
use std::sync::Arc;

use arrow::array::{Int64Array, TimestampMicrosecondArray};
use predicates::prelude::*;
use predicates::str::{contains, is_empty};

use crate::{Folder, PROGRAM, STREAM, trips};

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
