//! Output in files that end before their rows do, and in folders by values.

use std::fs;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use tempfile::TempDir;

use crate::{FLIGHTS, PROGRAM, names, parquet_rows, program, sql};

/// Values that the name of a folder cannot hold as they are, and none at all.
const ODD: &str = r#"{"n":1,"k y":"a/b","day":"2024-01-01"}
{"n":2,"k y":"..","day":"2024-01-02"}
{"n":3,"k y":"x=%é "}
{"n":4,"k y":"","day":"2024-01-01"}
{"n":5}
{"n":6,"k y":"__HIVE_DEFAULT_PARTITION__"}
"#;

/// The files of a folder and of those in it, by their names from there, in order.
fn files(folder: &Path) -> Vec<String> {
    let mut files = vec![];
    for name in names(folder) {
        match folder.join(&name).is_dir() {
            true => files.extend(files_in(folder, &name)),
            false => files.push(name),
        }
    }
    files
}

fn files_in(folder: &Path, name: &str) -> Vec<String> {
    files(&folder.join(name)).into_iter().map(|file| format!("{name}/{file}")).collect()
}

fn answer(query: &str) -> String {
    let output = sql(query).args(["--quiet", "--format", "csv"]).assert().success().get_output().stdout.clone();
    String::from_utf8(output).unwrap()
}

fn stream(folder: &Path, columns: &str, format: &str) -> String {
    format!("CREATE STREAM written STORED AS {format} PARTITIONED BY ({columns}) LOCATION '{}'; ", folder.display())
}

#[test]
fn rows_go_into_folders_by_their_values() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let copy = |condition: &str| {
        let copy = format!(
            "{FLIGHTS} COPY (SELECT origin, month(scheduled) AS month, carrier, distance FROM flights WHERE {condition})
             TO '{}' STORED AS PARQUET PARTITIONED BY (month, origin)",
            out.display()
        );
        sql(&copy.replace("month(", "date_part('month', ")).args(["--partitions", "2"]).assert().success();
    };
    copy("true");
    fs::write(out.join("month=1/notes.txt"), "not ours").unwrap();
    assert_eq!(names(&out).len(), 12);
    assert_eq!(names(&out.join("month=12")), ["origin=EWR", "origin=JFK", "origin=LGA"]);
    let question = |from: &str| format!("SELECT {from} GROUP BY 1, 2 ORDER BY 1, 2");
    let told = answer(&format!(
        "{}{}",
        stream(&out, "month INT, origin", "PARQUET"),
        question("month, origin, count(*) AS n, sum(distance) AS miles FROM written")
    ));
    let expected = question(
        "CAST(date_part('month', scheduled) AS INT) AS month, origin, count(*) AS n, sum(distance) AS miles FROM flights",
    );
    assert_eq!(told, answer(&format!("{FLIGHTS} {expected}")));
    // Another run's rows take their place, and folders of values that it has not are gone.
    copy("origin <> 'JFK' AND scheduled < TIMESTAMP '2013-02-01T00:00:00'");
    assert!(names(&out).len() == 1 && names(&out.join("month=1")) == ["notes.txt", "origin=EWR", "origin=LGA"]);
}

#[test]
fn any_value_names_a_folder() {
    let folder = TempDir::new().unwrap();
    let (out, odd) = (folder.path().join("out"), folder.path().join("odd.ndjson"));
    fs::write(&odd, ODD).unwrap();
    let copy = |more: &str| {
        format!(
            "CREATE STREAM odd (n BIGINT, \"k y\" VARCHAR, day DATE) STORED AS JSON LOCATION '{}';
             COPY odd TO '{}' STORED AS CSV PARTITIONED BY (\"k y\", day) {more}",
            odd.display(),
            out.display()
        )
    };
    sql(&copy("")).assert().success();
    let day = |value: &str| format!("day={value}/part-00000.csv");
    let mut expected = [
        ("a%2Fb", "2024-01-01"),
        ("..", "2024-01-02"),
        ("x%3D%25%C3%A9%20", "__HIVE_DEFAULT_PARTITION__"),
        ("", "2024-01-01"),
        ("__HIVE_DEFAULT_PARTITION__", "__HIVE_DEFAULT_PARTITION__"),
        ("%5F_HIVE_DEFAULT_PARTITION__", "__HIVE_DEFAULT_PARTITION__"),
    ]
    .map(|(key, value)| format!("k y={key}/{}", day(value)));
    expected.sort();
    let mut found = files(&out);
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(fs::read_to_string(out.join(format!("k y=a%2Fb/{}", day("2024-01-01")))).unwrap(), "n\n1\n");
    let read = format!("{}SELECT n, \"k y\", day FROM written ORDER BY n", stream(&out, "\"k y\", day DATE", "CSV"));
    let rows = "1,a/b,2024-01-01\n2,..,2024-01-02\n3,x=%é ,\n4,,2024-01-01\n5,,\n6,__HIVE_DEFAULT_PARTITION__,\n";
    assert_eq!(answer(&read), format!("n,k y,day\n{rows}"));
    sql(&copy("OPTIONS ('execution.keep_partition_by_columns' 'true')")).assert().success();
    let kept = fs::read_to_string(out.join(format!("k y=a%2Fb/{}", day("2024-01-01")))).unwrap();
    assert_eq!(kept, "n,k y,day\n1,a/b,2024-01-01\n");
    let wrong = copy("").replace("(\"k y\", day)", "(nothing)");
    sql(&wrong).assert().failure().stderr(contains("nothing"));
    let all = copy("").replace("(\"k y\", day)", "(n, \"k y\", day)");
    sql(&all).assert().code(1).stderr(contains("leaves none for the files").and(contains("help: ")));
}

/// More folders than files may be open at once, in each batch.
#[test]
fn there_may_be_many_folders() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let copy = format!(
        "{FLIGHTS} COPY (SELECT flight % 250 AS part, distance FROM flights WHERE flight < 2000) TO '{}/' STORED AS CSV PARTITIONED BY (part)",
        out.display()
    );
    let limited = format!("ulimit -n 160; exec {PROGRAM} sql --partitions 1 --quiet \"$0\"");
    let output = Process::new("sh").args(["-c", &limited, &copy]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(names(&out).len(), 250);
    assert!(files(&out).iter().all(|file| file.contains("/part-00000") && file.ends_with(".csv")));
    let question = "count(*) AS n, sum(distance) AS miles, count(DISTINCT part) AS parts FROM";
    let read = answer(&format!("{}SELECT {question} written", stream(&out, "part", "CSV")));
    assert_eq!(
        read,
        answer(&format!(
            "{FLIGHTS} SELECT {question} (SELECT flight % 250 AS part, distance FROM flights WHERE flight < 2000)"
        ))
    );
}

#[test]
fn files_end_when_they_are_large_or_old_enough() {
    let folder = TempDir::new().unwrap();
    let out = format!("{}/", folder.path().display());
    let query = format!("{FLIGHTS} SELECT origin, carrier, distance, scheduled, tailnum FROM flights");
    let one = ["--partitions", "1", "--batch-rows", "1000"];
    for (roll, more_than) in [(["--roll-interval", "30000rows"], 10), (["--roll-bytes", "200KB"], 4)] {
        for format in ["parquet", "csv"] {
            sql(&query).args(["--output", &out, "--format", format]).args(one).args(roll).assert().success();
            let mut files = names(folder.path());
            files.retain(|file| file.ends_with(format));
            assert!(files.len() > more_than, "{roll:?}: {files:?}");
            assert!(files[..2].join(" ").starts_with("part-0000"), "{files:?}");
            assert!(files.iter().any(|file| file.ends_with(&format!("-002.{format}"))), "{files:?}");
        }
    }
    let large = |file: &String| folder.path().join(file).metadata().unwrap().len() > 600_000;
    let files = names(folder.path());
    assert!(!files.iter().any(large), "{files:?}");
    let rows: usize = files
        .iter()
        .filter(|file| file.ends_with(".parquet"))
        .map(|file| parquet_rows(&folder.path().join(file)))
        .sum();
    assert_eq!(rows, 336_776);
    // A run without an end but that of the rows takes the place of all of them.
    sql(&query).args(["--output", &out, "--format", "parquet"]).args(one).assert().success();
    assert_eq!(names(folder.path()).iter().filter(|file| file.ends_with(".parquet")).count(), 1);
    sql(&query)
        .args(["--output", &out, "--roll-interval", "soon"])
        .assert()
        .code(2)
        .stderr(contains("'soon' is no interval"));
}

/// Folders and files that end early are written exactly once, too.
#[test]
fn killed_jobs_leave_each_row_once_in_its_folder() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let copy = format!(
        "{FLIGHTS} COPY (SELECT origin, carrier, tumble(scheduled, INTERVAL '1 day') AS day, count(*) AS n FROM flights GROUP BY 1, 2, 3)
         TO '{}/' STORED AS PARQUET PARTITIONED BY (origin, carrier)",
        path("out")
    );
    let job = |speed: &str| {
        let mut command = Process::new(PROGRAM);
        command.args(["sql", "--quiet", "--partitions", "2", "--batch-rows", "500", "--speed", speed]);
        command.args([
            "--checkpoint-dir",
            &path("saved"),
            "--checkpoint-interval",
            "20ms",
            "--roll-interval",
            "40rows",
        ]);
        command.arg(&copy).stdout(Stdio::null());
        command
    };
    for _ in 0..3 {
        let mut child = job("200000rows/s").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(400));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(job("max").status().unwrap().success());
    let out = folder.path().join("out");
    let files = files(&out);
    assert!(files.iter().all(|file| file.starts_with("origin=") && file.ends_with(".parquet")), "{files:?}");
    assert!(files.iter().any(|file| file.contains("-002.parquet")) && files.len() > 60, "{files:?}");
    let question = |from: &str| {
        format!("SELECT origin, carrier, count(*) AS days, sum(n) AS flights FROM {from} GROUP BY 1, 2 ORDER BY 1, 2")
    };
    let read = answer(&format!("{}{}", stream(&out, "origin, carrier", "PARQUET"), question("written")));
    let days = "(SELECT origin, carrier, tumble(scheduled, INTERVAL '1 day') AS day, count(*) AS n FROM flights GROUP BY 1, 2, 3)";
    assert_eq!(read, answer(&format!("{FLIGHTS} {}", question(days))));
    program().args(["checkpoints", "list", &path("saved")]).assert().success();
}
