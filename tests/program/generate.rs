//! Generated data.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use tempfile::TempDir;

use crate::{names, program, sql};

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
    let none_late = contains("used + 0 late, 1 rows out, ").and(contains("used + 0 late, 0 rows out, "));
    sql(&script).assert().success().stdout(rows.and(contains("quantity,Int64,NO"))).stderr(none_late);
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

#[test]
fn symbols_may_be_in_every_file_and_one_may_have_most_rows() {
    let folder = TempDir::new().unwrap();
    let found = |arguments: &[&str]| {
        generate(folder.path(), &[&["--partitions", "2"], arguments].concat()).assert().success();
        let path = folder.path().display();
        let query = format!(
            "SELECT (SELECT count(DISTINCT symbol) FROM '{path}/trades-0.parquet') AS symbols, sum(n) AS rows,
                    max(n) BETWEEN 17900 AND 18400 AS is_skewed FROM (SELECT count(*) AS n FROM '{path}/' GROUP BY symbol)"
        );
        String::from_utf8(sql(&query).args(["--strategy", "batch"]).output().unwrap().stdout).unwrap()
    };
    assert_eq!(found(&[]), "symbols,rows,is_skewed\n5,20000,false\n");
    assert_eq!(found(&["--spread"]), "symbols,rows,is_skewed\n10,20000,false\n");
    assert_eq!(found(&["--skew"]), "symbols,rows,is_skewed\n5,20000,true\n");
    assert_eq!(found(&["--spread", "--skew"]), "symbols,rows,is_skewed\n10,20000,true\n");
}
