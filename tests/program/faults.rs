//! Disks and files that fail: full in the middle of a checkpoint, of output, of what memory has no room for; a folder that
//! cannot be written; files that others write to while they are read. Each is an error that says so, and nothing is lost.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Output, Stdio};

use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

use crate::{PROGRAM, names, sql};

const FLIGHTS: &str = "CREATE STREAM flights (WATERMARK FOR scheduled)
    STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet'; ";

/// Runs the program where no file may have more than so many blocks of 512 bytes, which refuses a write as a full disk does.
fn with_small_disk(blocks: u32, arguments: &[&str]) -> String {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let output = Process::new("sh").args(["-c", &script, PROGRAM]).args(arguments).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("File too large"), "{told}");
    told
}

/// The rows of files of CSV in a folder, in order, of which nothing else may be there.
fn rows(folder: &Path) -> Vec<String> {
    let names = names(folder);
    assert!(names.iter().all(|name| name.starts_with("part-") && name.ends_with(".csv")), "{names:?}");
    let texts = names.iter().map(|name| fs::read_to_string(folder.join(name)).unwrap());
    let mut rows: Vec<String> =
        texts.flat_map(|text| text.lines().skip(1).map(str::to_string).collect::<Vec<_>>()).collect();
    rows.sort();
    rows
}

#[test]
fn a_job_goes_on_after_its_disk_was_full() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let many_keys =
        "SELECT flight, dest, tumble(scheduled, INTERVAL '300 days') AS w, count(*) FROM flights GROUP BY 1, 2, 3";
    let much_output = "SELECT flight, dest, scheduled FROM flights WHERE dep_delay > 60";
    for (case, query, interval, told) in [
        ("state", many_keys, "20000rows", "cannot hold checkpoints: "),
        ("output", much_output, "1h", "cannot be written: "),
        ("kept", "SELECT flight, dest FROM flights WHERE dep_delay > 60 ORDER BY 1, 2", "1h", "cannot be written: "),
    ] {
        let query = format!("{FLIGHTS}{query}");
        let (out, undisturbed, saved) =
            (path(&format!("{case}/")), path(&format!("{case}-undisturbed/")), path(&format!("{case}-saved")));
        let quiet = ["sql", "--quiet", "--format", "csv"];
        crate::program().args(quiet).args(["--output", &undisturbed, &query]).assert().success();
        let job =
            [&quiet[..], &["--checkpoint-dir", &saved, "--checkpoint-interval", interval, "--output", &out]].concat();
        let job = [&job[..], &[query.as_str()]].concat();
        for _ in 0..2 {
            let full = with_small_disk(60, &job);
            assert!(full.contains(told) && full.contains("that the disk has room"), "{case}: {full}");
        }
        crate::program().args(&job).assert().success();
        let expected = rows(Path::new(&undisturbed));
        assert!(expected.len() > 3000 && rows(Path::new(&out)) == expected, "{case}");
    }
}

#[test]
fn a_disk_that_is_full_when_memory_is_too() {
    let folder = TempDir::new().unwrap();
    let query = "SELECT flight, dest, tumble(scheduled, INTERVAL '60 days') AS w, count(*), max(tailnum) FROM flights GROUP BY 1, 2, 3";
    let query = format!("{FLIGHTS}{query}");
    let temp = format!("datafusion.runtime.temp_directory={}", folder.path().display());
    let limited = ["sql", "--quiet", "--memory-limit", "1MB", "--set", &temp, &query];
    with_small_disk(20, &limited);
    assert_eq!(names(folder.path()), Vec::<String>::new());
    crate::program().args(limited).assert().success();
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_nobody_may_write_to() {
    let query = format!("{FLIGHTS}SELECT flight FROM flights");
    for output in ["/sys/nothing/x.csv", "/sys/nothing/"] {
        let told = contains("cannot be written: ").and(contains(output)).and(contains("help: check that"));
        sql(&query).args(["--output", output, "--format", "csv"]).assert().code(1).stderr(told);
    }
    let told = contains("/sys/nothing: cannot hold checkpoints: ").and(contains("help: check that"));
    sql(&query).args(["--checkpoint-dir", "/sys/nothing", "--format", "none"]).assert().code(1).stderr(told);
    let late = ["--late", "/sys/nothing/late.csv", "--format", "none"];
    sql(&query)
        .args(late)
        .assert()
        .code(1)
        .stderr(contains("/sys/nothing/late.csv").and(contains("cannot be written")));
}

/// What somebody does to a file while it is read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    Shrinks,
    Grows,
    IsWrittenOver,
    Vanishes,
    IsReplaced,
}

impl Change {
    const ALL: [Self; 5] = [Self::Shrinks, Self::Grows, Self::IsWrittenOver, Self::Vanishes, Self::IsReplaced];

    fn happen_to(self, path: &Path) {
        let file = || File::options().write(true).open(path).unwrap();
        let length = path.metadata().unwrap().len();
        match self {
            Self::Shrinks => file().set_len(length / 2).unwrap(),
            Self::Grows => {
                File::options().append(true).open(path).unwrap().write_all(b"9,2024-01-01T01:00:00\n").unwrap()
            }
            Self::IsWrittenOver => file().write_all_at(b"9", length / 3).unwrap(),
            Self::Vanishes => fs::remove_file(path).unwrap(),
            Self::IsReplaced => {
                let other = path.with_extension("other");
                fs::write(&other, "n,ts\n9,2024-01-01T00:00:00\n").unwrap();
                fs::rename(other, path).unwrap();
            }
        }
    }
}

const ROWS: usize = 3000;

/// Files of each format with the same rows, in time a second apart.
fn written(folder: &Path, format: &str) -> PathBuf {
    let path = folder.join(format!("a.{format}"));
    let rows = format!(
        "SELECT value AS n, CAST(to_timestamp_seconds(1704067200 + value) AS TIMESTAMP) AS ts FROM generate_series(1, {ROWS})"
    );
    let stored = if format == "json" { "ndjson" } else { format };
    sql(&rows).args(["--output", &path.display().to_string(), "--format", stored]).assert().success();
    path
}

fn reading(path: &Path) -> Child {
    let stream = format!(
        "CREATE STREAM s (n BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) LOCATION '{}'; SELECT n FROM s",
        path.display()
    );
    let slowly = ["--speed", "1000rows/s", "--batch-rows", "100", "--partitions", "1", "--quiet", "--format", "csv"];
    Process::new(PROGRAM)
        .args(["sql", &stream])
        .args(slowly)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs a query over a file to which something happens when its first rows have been read.
fn read_while(path: &Path, change: Change) -> (ExitStatus, usize, String) {
    let mut run = reading(path);
    let mut rows = BufReader::new(run.stdout.take().unwrap()).lines();
    assert_eq!(rows.next().unwrap().unwrap(), "n");
    rows.next().unwrap().unwrap();
    change.happen_to(path);
    let count = 1 + rows.count();
    let Output { status, stderr, .. } = run.wait_with_output().unwrap();
    (status, count, String::from_utf8(stderr).unwrap())
}

/// Whoever has a file open reads it to its end when it is taken away, or another one is put in its place. One that is written to
/// is no file whose rows anybody could answer for.
#[test]
fn files_that_change_while_they_are_read() {
    let mut files = vec![];
    for format in ["csv", "json", "parquet"] {
        for change in Change::ALL {
            let folder = TempDir::new().unwrap();
            files.push((format, change, written(folder.path(), format), folder));
        }
    }
    // All of them at once: they wait for their rows to be due.
    let runs: Vec<_> = files
        .iter()
        .map(|(_, change, path, _)| {
            let (change, path) = (*change, path.clone());
            std::thread::spawn(move || read_while(&path, change))
        })
        .collect();
    for ((format, change, path, _), run) in files.iter().zip(runs) {
        let (status, rows, told) = run.join().unwrap();
        let case = format!("{format} {change:?}: {rows} rows, {told}");
        match change {
            Change::Vanishes | Change::IsReplaced => assert!(status.success() && rows == ROWS, "{case}"),
            // A footer, and the pages that it tells of, are of one time.
            Change::Shrinks if *format == "parquet" => assert!(status.code() == Some(1), "{case}"),
            _ => {
                let named = told.contains(&path.display().to_string());
                assert!(status.code() == Some(1) && named && told.contains("has changed while it was read"), "{case}");
            }
        }
    }
}
