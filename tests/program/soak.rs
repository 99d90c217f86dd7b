//! A stream that does not end takes no more memory, and no more open files, the longer it goes.
//!
//! ```sh
//! STREAMLINES_SOAK=600 cargo test --test program -- --ignored stay_flat --nocapture
//! ```
//!
//! The seconds, kilobytes and open files that it prints can be plotted.

use std::fs;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::PROGRAM;
use crate::running::Running;

/// How often files appear, and how many rows each has.
const EVERY: Duration = Duration::from_millis(50);
const ROWS: usize = 1_000;
/// What has been written, and what has been read long ago, is taken away after so many files more.
const KEPT: usize = 100;
const KEPT_INPUT: usize = 1_200;

/// Rows of ever new keys: a second of event time has a hundred, each for ten seconds.
fn text(file: usize) -> String {
    let row = |row: usize| {
        let row = file * ROWS + row;
        let (time, key) = (1_700_000_000_000 + row as u64, row / 10_000 * 100 + row % 100);
        format!("{{\"ts\": {time}, \"k\": \"key-{key}\", \"v\": {row}}}\n")
    };
    (0..ROWS).map(row).collect()
}

/// Kilobytes in memory, and open files.
fn taken(process: u32) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes = kilobytes.trim().trim_end_matches("kB").trim().parse().unwrap();
    (kilobytes, fs::read_dir(format!("/proc/{process}/fd")).unwrap().count())
}

/// Takes the oldest files away.
fn keep_last(folder: &Path, kept: usize) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    paths.sort();
    for path in paths.iter().rev().skip(kept) {
        fs::remove_file(path).unwrap();
    }
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[test]
#[ignore = "takes as many seconds as STREAMLINES_SOAK says, 600 if it says nothing"]
fn memory_and_open_files_stay_flat() {
    let seconds: u64 = std::env::var("STREAMLINES_SOAK").map_or(600, |text| text.parse().unwrap());
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(folder.path().join("in")).unwrap();
    let sql = format!(
        "CREATE STREAM s (ts TIMESTAMP(3), k VARCHAR, v BIGINT, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) STORED AS JSON
             LOCATION '{}' OPTIONS ('follow' 'true');
         SELECT k, window_start, count(*), sum(v), max(v), count(DISTINCT v % 7) FROM s
         GROUP BY k WINDOW HOPPING (SIZE 10 SECONDS, ADVANCE BY 2 SECONDS)",
        path("in/")
    );
    let mut command = Process::new(PROGRAM);
    command.args(["sql", "--quiet", "--format", "parquet", "--output", &path("out/")]);
    command.args(["--checkpoint-dir", &path("checkpoints"), "--checkpoint-interval", "1s"]).arg(sql);
    let mut child = Running(command.stdout(Stdio::null()).spawn().unwrap());
    let (begun, mut file, mut samples) = (Instant::now(), 0, vec![]);
    println!("second,kilobytes,open_files");
    while begun.elapsed().as_secs() < seconds {
        let hidden = folder.path().join(format!("in/.{file:08}.ndjson"));
        fs::write(&hidden, text(file)).unwrap();
        fs::rename(&hidden, folder.path().join(format!("in/{file:08}.ndjson"))).unwrap();
        file += 1;
        keep_last(&folder.path().join("in"), KEPT_INPUT);
        keep_last(&folder.path().join("out"), KEPT);
        std::thread::sleep((EVERY * file as u32).saturating_sub(begun.elapsed()));
        assert!(child.0.try_wait().unwrap().is_none(), "it has ended");
        if begun.elapsed().as_secs() as usize > samples.len() {
            let (kilobytes, open_files) = taken(child.0.id());
            println!("{},{kilobytes},{open_files}", begun.elapsed().as_secs());
            samples.push((kilobytes, open_files as u64));
        }
    }
    // It has kept up.
    assert!(fs::read_dir(folder.path().join("out")).unwrap().count() > 5);
    child.signal("-TERM");
    // What comes first warms up.
    let (first, last) = (&samples[samples.len() / 5..samples.len() * 2 / 5], &samples[samples.len() * 4 / 5..]);
    let memory = |samples: &[(u64, u64)]| median(samples.iter().map(|(kilobytes, _)| *kilobytes).collect());
    let files = |samples: &[(u64, u64)]| median(samples.iter().map(|(_, files)| *files).collect());
    println!("memory {} to {} kB, open files {} to {}", memory(first), memory(last), files(first), files(last));
    assert!(memory(last) as f64 <= memory(first) as f64 * 1.05, "memory grows");
    assert!(files(last) <= files(first) + 2, "open files grow");
}
