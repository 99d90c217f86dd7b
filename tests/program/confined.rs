//! SQL of somebody else: it reaches the files of one folder, perhaps only to read them, and for so long.

use std::fs;

use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

use crate::{names, program, sql};

/// A folder `in` to which SQL is confined, and another one.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::new().unwrap());
        for folder in ["in", "out"] {
            fs::create_dir(place.0.path().join(folder)).unwrap();
            fs::write(place.0.path().join(folder).join("a.csv"), "ts,n\n2013-01-01T06:00:00,1\n").unwrap();
        }
        #[cfg(unix)]
        for (to, from) in [("out/a.csv", "in/link.csv"), ("out", "in/linked")] {
            std::os::unix::fs::symlink(place.path(to), place.path(from)).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn run(&self, text: &str, arguments: &[&str]) -> assert_cmd::assert::Assert {
        let text = text.replace("IN/", &self.path("in/")).replace("OUT/", &self.path("out/"));
        sql(&text).args(["--quiet", "--format", "csv"]).args(arguments).assert()
    }
}

const WINDOWS: &str = "CREATE STREAM s (ts TIMESTAMP, n BIGINT, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
    STORED AS CSV LOCATION 'IN/a.csv';
    SELECT tumble(ts, INTERVAL '1 hour') AS hour, count(*) FROM s GROUP BY 1;";

#[test]
fn nothing_outside_of_the_root_is_reached() {
    let place = Place::new();
    let (root, confined) = (place.path("in"), contains("to which this session is confined"));
    for text in [
        "SELECT * FROM 'OUT/a.csv'",
        "SELECT * FROM 'OUT/*.csv'",
        "SELECT * FROM 'OUT/nothing-there.csv'",
        "SELECT * FROM 'IN/../out/a.csv'",
        "SELECT * FROM 'IN/link.csv'",
        "SELECT * FROM 'IN/linked/a.csv'",
        "SELECT * FROM 'IN/linked/*.csv'",
        "SELECT * FROM 'IN/linked/nothing-there.csv'",
        "SELECT * FROM 'IN/a.csv,OUT/a.csv'",
        "SELECT * FROM 'file://OUT/a.csv'",
        "DESCRIBE 'OUT/a.csv'",
        "EXPLAIN SELECT * FROM 'OUT/a.csv'",
        "PREPARE p AS SELECT * FROM 'OUT/a.csv'",
        "CREATE VIEW v AS SELECT * FROM 'OUT/a.csv'",
        "SELECT (SELECT max(n) FROM 'OUT/a.csv')",
        "WITH o AS (SELECT * FROM 'OUT/a.csv') SELECT * FROM 'IN/a.csv' WHERE n IN (SELECT n FROM o)",
        "SET streamlines.strategy = 'batch'; SELECT * FROM 'OUT/a.csv'",
        "CREATE STREAM s STORED AS CSV LOCATION 'OUT/'",
        "CREATE STREAM s (n BIGINT) STORED AS CSV LOCATION 'OUT/' OPTIONS ('follow' 'true')",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'OUT/a.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'IN/link.csv'",
        "CREATE EXTERNAL TABLE t (n BIGINT) STORED AS CSV LOCATION 'OUT/'; SELECT * FROM t",
        "CREATE EXTERNAL TABLE t (n BIGINT) STORED AS CSV LOCATION 'OUT/'; INSERT INTO t VALUES (1)",
        "CREATE EXTERNAL TABLE t (n BIGINT) STORED AS CSV LOCATION 'file://OUT/a.csv'",
        "COPY (SELECT * FROM 'IN/a.csv') TO 'OUT/b.csv'",
        "EXPLAIN ANALYZE COPY (SELECT * FROM 'IN/a.csv') TO 'OUT/b.csv'",
        "COPY (SELECT * FROM 'IN/a.csv') TO 'OUT/b/' STORED AS PARQUET",
        "COPY (SELECT * FROM 'IN/a.csv') TO 'IN/../out/b.parquet'",
        "COPY (SELECT 1 AS n) TO 'OUT/b.csv'",
        "COPY (SELECT 1 AS n) TO 'file://OUT/b.csv'",
        "COPY (SELECT 1 AS n) TO 'FILE://OUT/b.csv'",
        "COPY (SELECT 1 AS n) TO 'file:OUT/b.csv'",
        "COPY (SELECT 1 AS n) TO 'IN/linked/b.csv'",
        "COPY (SELECT 1 AS n) TO 'IN/linked/b/' STORED AS PARQUET",
        "CREATE EXTERNAL TABLE t (n BIGINT) STORED AS CSV LOCATION ('IN/a.csv', 'OUT/a.csv')",
        "CREATE EXTERNAL TABLE t (n BIGINT) STORED AS CSV LOCATION 'file://localhostOUT/a.csv'; SELECT * FROM t",
        "CREATE EXTERNAL TABLE t (n BIGINT) STORED AS CSV LOCATION 'file://IN/%2e%2e/out/a.csv'; SELECT * FROM t",
        "COPY (SELECT * FROM 'IN/a.csv') TO 'OUT/b/' STORED AS CSV PARTITIONED BY (n)",
    ] {
        place.run(text, &["--root", &root]).code(1).stderr(confined.clone());
    }
    // Here DataFusion does not say what its object store has said.
    for to in ["'file://IN/%2e%2e/out/b.csv'", "'IN/linked' STORED AS CSV PARTITIONED BY (k)"] {
        place.run(&format!("COPY (SELECT 1 AS n, 2 AS k) TO {to}"), &["--root", &root]).code(1);
    }
    for setting in ["late = 'OUT/late.csv'", "checkpoint_dir = 'OUT/checkpoints'"] {
        let text = format!("SET streamlines.{setting}; {WINDOWS}");
        place.run(&text, &["--root", &root]).code(1).stderr(confined.clone());
    }
    for table in ["OUT/a.csv", "IN/a.csv"] {
        let unbounded =
            format!("CREATE UNBOUNDED EXTERNAL TABLE t (ts VARCHAR, n BIGINT) STORED AS CSV LOCATION '{table}';");
        for text in [format!("{unbounded} SELECT * FROM t"), format!("{unbounded} INSERT INTO t VALUES ('x', 1)")] {
            for confined in [&["--root", &root][..], &["--read-only"]] {
                place
                    .run(&text, confined)
                    .code(1)
                    .stderr(contains("UNBOUNDED EXTERNAL TABLE in a session that is confined"));
            }
        }
    }
    for setting in [
        "SET datafusion.runtime.temp_directory = 'OUT/'",
        "SET \"DataFusion\".\"Runtime\".temp_directory = 'OUT/'",
        "RESET datafusion.runtime.memory_limit",
    ] {
        place.run(setting, &["--root", &root]).code(1).stderr(contains("this session is confined"));
    }
    assert_eq!(names(place.0.path().join("out").as_path()), ["a.csv"]);
}

/// What a link in the root leads to is not there for who looks at a folder, by whatever name.
#[cfg(unix)]
#[test]
fn folders_and_globs_show_nothing_outside_of_the_root() {
    let place = Place::new();
    fs::write(place.path("out/secret.csv"), "ts,n\n2013-01-01T06:00:00,2\n").unwrap();
    let inside = ["--root", &place.path("in")];
    for rows in ["'IN/*.csv'", "'IN/**/*.csv'", "'IN/'", "'IN/*'"] {
        place.run(&format!("SELECT n FROM {rows}"), &inside).success().stdout("n\n1\n");
    }
    let table =
        "CREATE EXTERNAL TABLE t (ts TIMESTAMP, n BIGINT) STORED AS CSV LOCATION 'IN/' OPTIONS ('has_header' 'true')";
    place.run(&format!("{table}; SELECT n FROM t"), &inside).success().stdout("n\n1\n");
    for rows in ["IN/*/*.csv", "IN/*/secret.csv", "IN/link*.csv", "IN/[l]inked/s*"] {
        let told = contains(format!("no file at '{}'", rows.replace("IN/", &place.path("in/"))));
        place.run(&format!("SELECT n FROM '{rows}'"), &inside).code(1).stderr(told.and(contains("secret.csv: ").not()));
    }
    // Nor does who follows one.
    let follows = "CREATE STREAM s (ts TIMESTAMP, n BIGINT) STORED AS CSV LOCATION 'IN/*' OPTIONS ('follow' 'true'); SELECT n FROM s";
    place.run(follows, &[&inside[..], &["--time-limit", "1s"]].concat()).code(1).stdout("n\n1\n");
}

#[test]
fn what_is_inside_of_the_root_works_as_ever() {
    let place = Place::new();
    let inside = ["--root", &place.path("in")];
    place.run("SELECT n FROM 'IN/a.csv'", &inside).success().stdout("n\n1\n");
    place.run("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'IN/a.csv'; SELECT n FROM t", &inside).success();
    let settings = "SET streamlines.late = 'IN/late.csv'; ";
    place.run(&format!("{settings}{WINDOWS}"), &inside).success().stdout("hour,count(*)\n2013-01-01T06:00:00,1\n");
    place.run("COPY (SELECT * FROM 'IN/a.csv') TO 'IN/b.csv'", &inside).success();
    place.run("COPY (SELECT 1 AS n) TO 'IN/c.parquet'", &inside).success();
    let output = place.path("out/b.csv");
    place.run("SELECT n FROM 'IN/b.csv'", &[&inside[..], &["--output", &output]].concat()).success();
    assert_eq!(fs::read_to_string(output).unwrap(), "n\n1\n");
}

#[test]
fn who_only_reads_writes_nothing() {
    let place = Place::new();
    let reads = contains("this session only reads");
    for text in [
        "COPY (SELECT * FROM 'IN/a.csv') TO 'IN/b.csv'",
        "COPY (SELECT 1 AS n) TO 'IN/b.parquet'",
        "EXPLAIN ANALYZE COPY (SELECT 1 AS n) TO 'IN/b.parquet'",
        "COPY (SELECT 1 AS n, 2 AS k) TO 'IN/b/' STORED AS CSV PARTITIONED BY (k)",
        "CREATE EXTERNAL TABLE t (n BIGINT) STORED AS CSV LOCATION 'IN/new/'; INSERT INTO t VALUES (1)",
        &format!("SET streamlines.late = 'IN/late.csv'; {WINDOWS}"),
        &format!("SET streamlines.checkpoint_dir = 'IN/checkpoints'; {WINDOWS}"),
    ] {
        place.run(text, &["--read-only"]).code(1).stderr(reads.clone());
    }
    place.run("SELECT n FROM 'OUT/a.csv'", &["--read-only"]).success().stdout("n\n1\n");
    let mut there = names(place.0.path().join("in").as_path());
    there.retain(|name| !name.starts_with("link"));
    assert_eq!(there, ["a.csv"]);
}

#[test]
fn a_root_is_a_folder() {
    for wrong in ["no/such/folder", "Cargo.toml"] {
        program().args(["sql", "SELECT 1", "--root", wrong]).assert().code(2).stderr(contains("is no root"));
    }
}

#[test]
fn a_query_that_takes_too_long_is_ended() {
    let place = Place::new();
    let endless = "CREATE STREAM s STORED AS CSV LOCATION 'IN/a.csv' OPTIONS ('follow' 'true'); SELECT n FROM s";
    let told = contains("it has taken longer than 300ms").and(contains("--time-limit"));
    place.run(&endless.replace("IN/a.csv", "IN/"), &["--time-limit", "300ms"]).code(1).stderr(told);
    place.run("SELECT n FROM 'IN/a.csv'", &["--time-limit", "1h"]).success();
    // Also what is no query, and what sorts; neither leaves anything behind.
    let long = "SELECT a.value FROM generate_series(1, 300000000) a ORDER BY value DESC";
    for text in [format!("CREATE TABLE t AS {long}"), long.to_string()] {
        let told = contains("it has taken longer than 300ms");
        let limits = ["--time-limit", "300ms", "--memory-limit", "16MB"];
        let mut command = sql(&text);
        command.env("TMPDIR", place.path("out")).args(limits).assert().code(1).stderr(told);
    }
    assert_eq!(names(place.0.path().join("out").as_path()), ["a.csv"]);
}

/// The time is that of all of it: statements of --init, the planning of a query, one value that takes for ever.
#[test]
fn whatever_takes_too_long_is_ended() {
    let place = Place::new();
    let long = "CREATE TABLE t AS SELECT a.value FROM generate_series(1, 300000000) a ORDER BY value DESC";
    fs::write(place.path("init.sql"), long).unwrap();
    let told = || contains("it has taken longer than 300ms");
    let limit = ["--time-limit", "300ms", "--init", &place.path("init.sql")];
    place.run("SELECT 1", &limit).code(1).stderr(told());
    program().args(["explain", "SELECT 1"]).args(limit).assert().code(1).stderr(told());
    let value = "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))";
    place.run(value, &limit[..2]).code(1).stderr(told());
}

#[test]
fn settings_of_the_command_line_reach_a_confined_session() {
    let place = Place::new();
    let set = ["--set", "datafusion.runtime.max_temp_directory_size=7M", "--root", &place.path("in")];
    let show = "SHOW datafusion.runtime.max_temp_directory_size";
    place.run(show, &set).success().stdout(contains("datafusion.runtime.max_temp_directory_size,7M"));
}
