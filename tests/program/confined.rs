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
        std::os::unix::fs::symlink(place.path("out/a.csv"), place.path("in/link.csv")).unwrap();
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
        "COPY (SELECT * FROM 'IN/a.csv') TO 'OUT/b/' STORED AS CSV PARTITIONED BY (n)",
    ] {
        place.run(text, &["--root", &root]).code(1).stderr(confined.clone());
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
    for setting in ["SET datafusion.runtime.temp_directory = 'OUT/'", "RESET datafusion.runtime.memory_limit"] {
        place.run(setting, &["--root", &root]).code(1).stderr(contains("this session is confined"));
    }
    assert_eq!(names(place.0.path().join("out").as_path()), ["a.csv"]);
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
        "CREATE EXTERNAL TABLE t (n BIGINT) STORED AS CSV LOCATION 'IN/new/'; INSERT INTO t VALUES (1)",
        &format!("SET streamlines.late = 'IN/late.csv'; {WINDOWS}"),
        &format!("SET streamlines.checkpoint_dir = 'IN/checkpoints'; {WINDOWS}"),
    ] {
        place.run(text, &["--read-only"]).code(1).stderr(reads.clone());
    }
    place.run("SELECT n FROM 'OUT/a.csv'", &["--read-only"]).success().stdout("n\n1\n");
    let mut there = names(place.0.path().join("in").as_path());
    there.retain(|name| name != "link.csv");
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
