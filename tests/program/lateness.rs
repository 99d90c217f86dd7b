//! Late rows, as a run and `lateness` tell of them.

use std::fs;

use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

use crate::{FLIGHTS, program, sql};

#[test]
fn rows_that_are_not_in_all_of_their_windows_are_counted() {
    let bounded =
        FLIGHTS.replace("WATERMARK FOR scheduled)", "WATERMARK FOR scheduled AS scheduled - INTERVAL '1' HOUR)");
    let hop = |slide, size| {
        format!("{bounded} SELECT count(*) FROM flights GROUP BY hop(scheduled, INTERVAL '{slide}', INTERVAL '{size}')")
    };
    sql(&hop("1 hour", "2 hours")).assert().success().stderr(contains(" late for some of their windows, "));
    sql(&hop("2 hours", "1 hour")).assert().success().stderr(contains(" between windows, "));
}

/// Whatever stands between a table function and its GROUP BY, the same rows are late.
#[test]
fn spellings_of_overlapping_windows_lose_the_same_rows() {
    let folder = TempDir::new().unwrap();
    let bounded =
        FLIGHTS.replace("WATERMARK FOR scheduled)", "WATERMARK FOR scheduled AS scheduled - INTERVAL '1' HOUR)");
    let answer = |query: &str| {
        let ledger = folder.path().join("late.csv");
        let ran = sql(&format!("{bounded} {query}")).args(["--late", ledger.to_str().unwrap()]).assert().success();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (rows, told) = (text(&ran.get_output().stdout), text(&ran.get_output().stderr));
        let mut rows: Vec<String> = rows.lines().map(str::to_string).collect();
        rows.sort();
        let fates = told.split(", ").filter(|part| part.contains(" late")).map(str::to_string).collect::<Vec<_>>();
        let mut late: Vec<String> = fs::read_to_string(&ledger).unwrap().lines().map(str::to_string).collect();
        late.sort();
        fs::remove_file(&ledger).unwrap();
        (rows, fates, late)
    };
    let windows = [
        ("hop(scheduled, INTERVAL '30 minutes', INTERVAL '1 hour')", "HOP", "'30' MINUTE, INTERVAL '1' HOUR"),
        (
            "cumulate(scheduled, INTERVAL '30 minutes', INTERVAL '2 hours')",
            "CUMULATE",
            "'30' MINUTE, INTERVAL '2' HOUR",
        ),
    ];
    for (function, name, lengths) in windows {
        let select = "SELECT origin, window_start, window_end, count(*) AS n FROM";
        let table = format!("TABLE({name}(TABLE flights, DESCRIPTOR(scheduled), INTERVAL {lengths}))");
        let afternoon = "window_start >= '2013-07-01T12:00:00'";
        let questions = [
            (
                format!("{select} flights GROUP BY ROLLUP (origin), {function}"),
                format!("{select} {table} GROUP BY ROLLUP (origin), window_start, window_end"),
            ),
            (
                format!("SELECT * FROM ({select} flights GROUP BY origin, {function}) WHERE {afternoon}"),
                format!("{select} {table} WHERE {afternoon} GROUP BY origin, window_start, window_end"),
            ),
        ];
        for (index, (by_function, by_table)) in questions.into_iter().enumerate() {
            let (expected, given) = (answer(&by_function), answer(&by_table));
            assert_eq!(given.0, expected.0, "{by_table}");
            // What a filter on windows leaves out is not late.
            if index == 0 {
                assert!(expected.1.len() == 2, "{:?}", expected.1);
                assert_eq!((given.1, given.2), (expected.1, expected.2), "{by_table}");
            }
        }
    }
}

#[test]
fn lateness_says_what_a_bound_costs() {
    let flights = ["lateness", "testdata/nycflights/flights-*.parquet", "--time", "scheduled"];
    let report = |arguments: &[&str]| program().args(flights).args(arguments).assert().success();
    // As the run with this bound counts them.
    let three_hours = ["--by", "origin", "--window", "1h", "--bound", "3h"];
    report(&three_hours).stdout(contains("          3h loses        1,740 rows").and(contains("EWR: 120,835 rows, ")));
    // A bound that is not asked for is printed as it was counted.
    let newark = ["--by", "origin", "--bound", "173m"];
    report(&newark).stdout(contains("  2h 53m loses        1,202 rows").count(1));
    let json = report(&[&three_hours[..], &["--format", "json"]].concat()).get_output().stdout.clone();
    let json = String::from_utf8(json).unwrap();
    assert!(json.contains(r#"{"bound_ns":"10800000000000","late_rows":1740}"#), "{json}");
    // The worst flight of an airport left so long after its time.
    report(&["--by", "origin"]).stdout(contains(" loses            0 rows    0.000 %"));
    let none = program().args(["lateness", "nope"]).assert().code(1);
    none.stderr(contains("there is no stream nope").and(contains("help: ")));
    let wrong = program().args(["lateness", flights[1], "--time", "origin"]).assert().code(1);
    wrong.stderr(contains("not a timestamp").and(contains("help: ")));
    program().args(["lateness", flights[1]]).assert().code(1).stderr(contains("--time ts"));
}

/// A carrier flies from several files.
#[test]
fn a_key_is_one_sequence_of_rows_whatever_its_files() {
    let folder = TempDir::new().unwrap();
    let init = folder.path().join("streams.sql");
    let files = "LOCATION 'testdata/nycflights/flights-*.parquet' OPTIONS ('partitions' 'files')";
    fs::write(&init, format!("CREATE STREAM spread (WATERMARK FOR scheduled) {files}")).unwrap();
    let mut command = program();
    command.args(["lateness", "spread", "--by", "carrier", "--init"]).arg(&init);
    command.assert().success().stdout(contains("\nUA: ").count(1).and(contains("\nUA: 58,665 rows, ")));
}
