//! SQL that cannot be read or planned.

use crate::{Folder, STREAM};

#[test]
fn sql_that_cannot_be_read() {
    let folder = Folder::with_trips();
    folder.refuses_query("SELECT origin FROM trips GRUOP BY origin", "BY", &["Expected: end of statement, found: BY"]);
    folder.refuses_query("SELECT 'EWR FROM trips", "'EWR", &["Unterminated string literal"]);
    folder.refuses_query("SELECT (1 + distance FROM trips", "FROM", &["Expected: )"]);
    let several_lines = format!("{STREAM}SELECT origin,\n       FROM\n");
    folder.refuses(&several_lines, &["Expected: identifier, found: EOF", "(line 3, column 12)"]);
    folder.refuses("CREATE STREAM", &["(line 1, column 14)", "   |              ^"]);
    folder.refuses("CREATE STREAM s STORED AS PARQUET LOCATION", &["(line 1, column 43)"]);
    folder.refuses(
        "CREATE STREAM s STORED AS ORC LOCATION 'x'",
        &["unknown format ORC", "STORED AS PARQUET, CSV or JSON"],
    );
}

#[test]
fn an_unknown_column() {
    let folder = Folder::with_trips();
    folder.refuses_query("SELECT orign FROM trips", "orign", &["no column orign", "did you mean origin?"]);
    let grouped = "SELECT origin, sum(distanse) FROM trips GROUP BY origin EMIT CHANGES";
    folder.refuses_query(grouped, "distanse", &["no column distanse", "did you mean distance?"]);
    folder.refuses_query("SELECT 1 FROM trips AS a WHERE a.fair > 1", "a.fair", &["no column a.fair", "mean fare?"]);
    let windowed = "SELECT count(*) FROM trips GROUP BY tumble(tss, INTERVAL '1 hour')";
    folder.refuses_query(windowed, "tss", &["no column tss", "did you mean ts?"]);
}

#[test]
fn an_unknown_stream() {
    let folder = Folder::with_trips();
    folder.refuses_query("SELECT * FROM trip", "trip", &["no stream or table trip ", "help: did you mean trips?"]);
    let joined = "SELECT * FROM trips JOIN airports USING (origin)";
    folder.refuses_query(joined, "airports", &["no stream or table airports ", "help: SHOW TABLES"]);
    folder.refuses_query("DROP STREAM tripz", "tripz", &["no stream tripz ", "did you mean trips?"]);
    let table_function =
        "SELECT 1 FROM TABLE(TUMBLE(TABLE tripz, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start";
    folder
        .refuses(&format!("{STREAM}{table_function}"), &["no stream or table tripz", "line 2", "did you mean trips?"]);
    folder.refuses(
        &format!("{STREAM}SELECT 1 FROM tripz GROUP BY origin WINDOW TUMBLING (SIZE 1 HOUR)"),
        &["no stream or table tripz", "line 2", "did you mean trips?"],
    );
}

#[test]
fn an_unknown_function() {
    let folder = Folder::with_trips();
    folder.refuses_query("SELECT summ(fare) FROM trips", "summ", &["no function summ", "did you mean sum?"]);
    folder.refuses_query(
        "SELECT tumbel(ts, INTERVAL '1 hour') FROM trips",
        "tumbel",
        &["no function tumbel", "did you mean tumble?"],
    );
}

#[test]
fn an_interval_that_is_none() {
    let folder = Folder::with_trips();
    let refuses = |interval: &str, message: &str| {
        let query = format!("SELECT count(*) FROM trips GROUP BY tumble(ts, INTERVAL {interval})");
        folder.refuses_query(&query, interval, &[message, "help: write INTERVAL '1 hour'"]);
    };
    refuses("'9999999999 days'", "an interval of 9999999999 days is too long");
    refuses("'300000000 hours'", "an interval of 300000000 of its unit is too long");
    refuses("'soon'", "'soon' is no interval");
}

#[test]
fn an_unknown_window() {
    let folder = Folder::with_trips();
    let refuses = |kind: &str, messages: &[&str]| {
        let query = format!("SELECT count(*) FROM trips GROUP BY origin WINDOW {kind} (SIZE 1 HOUR)");
        folder.refuses_query(&query, kind, messages);
    };
    refuses("TUMBLIN", &["there is no window TUMBLIN", "did you mean WINDOW TUMBLING (…)?"]);
    let without = "SELECT count(*) FROM trips GROUP BY origin WINDOW TUMBLING SIZE 1 HOUR";
    folder.refuses_query(without, "TUMBLING", &["WINDOW TUMBLING without parentheses", "help: WINDOW TUMBLING (ts"]);
    refuses("foo", &["there is no window FOO", "WINDOW is followed by TUMBLING, HOPPING", "WINDOW w AS (…)"]);
}

#[test]
fn text_that_is_no_value_of_its_column() {
    let folder = Folder::with_trips();
    folder.refuses_query(
        "SELECT * FROM trips WHERE distance > 'far'",
        "'far'",
        &["error: 'far' is no ", "help: compare values of one type"],
    );
    let since = "SELECT * FROM trips WHERE ts > 'yesterday'";
    folder.refuses_query(since, "'yesterday'", &["'yesterday' is no timestamp", "write '2024-03-01T12:00:00'"]);
}

#[test]
fn aggregates_where_they_cannot_be() {
    let folder = Folder::with_trips();
    folder.refuses_query(
        "SELECT origin, sum(fare) FROM trips WHERE sum(fare) > 1 GROUP BY origin",
        "sum(fare) > 1",
        &["an aggregate in WHERE", "help: write it into HAVING"],
    );
}

#[test]
fn functions_of_nothing() {
    let folder = Folder::with_trips();
    let first = "SELECT first_value() OVER (ORDER BY ts) FROM trips";
    folder.refuses_query(first, "first_value", &["there is no first_value()", "is one of first_value(expression)"]);
}

#[test]
fn over_that_cannot_be() {
    let folder = Folder::with_trips();
    for (query, at, told) in [
        ("SELECT lag(fare) OVER w FROM trips", "lag", "there is no window w"),
        ("SELECT lag(fare) FROM trips", "lag", "lag without OVER"),
        ("SELECT ntile(0) OVER (ORDER BY ts) FROM trips", "ntile", "ntile of what is no positive number"),
        ("SELECT lag(fare, distance) OVER (ORDER BY ts) FROM trips", "lag", "a parameter that is no constant"),
        ("SELECT lead(fare, 1.5) OVER (ORDER BY ts) FROM trips", "lead", "a number of rows that is not whole"),
        ("SELECT 1 FROM trips WHERE row_number() OVER (ORDER BY ts) = 1", "row_number", "OVER in WHERE"),
        ("SELECT sum(fare) OVER (GROUPS 1 PRECEDING) FROM trips", "sum", "GROUPS over rows in no order"),
    ] {
        folder.refuses_query(query, at, &[told, "help: "]);
    }
}

#[test]
fn lateness_of_what_is_never_late() {
    let folder = Folder::with_trips();
    let told = ["ALLOWED LATENESS without a window", "help: leave it out"];
    for query in ["SELECT fare FROM trips", "SELECT sum(fare) OVER (ORDER BY ts) FROM trips"] {
        folder.refuses_query(&format!("{query} EMIT FINAL ALLOWED LATENESS INTERVAL '1' HOUR"), "EMIT", &told);
    }
}

#[test]
fn streams_are_read_and_not_written() {
    let folder = Folder::with_trips();
    for (query, what) in [
        ("INSERT INTO trips SELECT * FROM trips", "Insert Into"),
        ("DELETE FROM trips WHERE fare > 1", "Delete"),
        ("UPDATE trips SET fare = 1", "Update"),
    ] {
        folder.refuses_query(
            query,
            "trips",
            &["error: stream trips cannot be written", what, "help: COPY (SELECT …) TO"],
        );
    }
}

#[test]
fn clauses_that_cannot_be() {
    let folder = Folder::with_trips();
    folder.refuses_query("SELECT * FROM trips LIMIT 'x'", "'x'", &["LIMIT of what is no whole number", "LIMIT 10"]);
    folder.refuses_query("SELECT * FROM trips OFFSET 1.5", "1.5", &["OFFSET of what is no whole number"]);
    folder.refuses_query("SELECT * FROM trips TABLESAMPLE (10)", "trips", &["TABLESAMPLE", "random() < 0.1"]);
    folder.refuses(
        "CREATE STREAM s (WATERMARK ts) LOCATION 'trips.parquet'",
        &["column watermark: ", "help: an event time is WATERMARK FOR ts"],
    );
}

#[test]
fn settings_that_cannot_be() {
    let folder = Folder::with_trips();
    let many = "SET streamlines.partitions = 'many'";
    folder.refuses_query(many, "'many'", &["partitions cannot be 'many'", "help: SHOW streamlines.partitions"]);
    folder.refuses("SET streamlines.rooting = 'aligned'", &["no setting streamlines.rooting", "streamlines.routing?"]);
    folder.refuses("SET datafusion.execution.batch_size = 'x'", &["batch_size cannot be 'x'", "invalid digit"]);
}

#[test]
fn emit_inside_a_sub_query() {
    let folder = Folder::with_trips();
    let query = "SELECT * FROM (SELECT origin, count(*) FROM trips GROUP BY origin EMIT CHANGES) AS counts";
    folder.refuses_query(query, "EMIT", &["EMIT in a sub-query", "at the end of the outermost query"]);
    for emit in ["FINAL ALLOWED LATENESS 1 HOUR", "CHANGES EVERY 1 SECOND", "CHANGES WITH OP"] {
        let query = format!("SELECT count(*) FROM trips GROUP BY tumble(ts, INTERVAL '1 hour') EMIT {emit} LIMIT 2");
        folder.refuses_query(&query, "EMIT", &["EMIT before LIMIT", "after ORDER BY and LIMIT"]);
    }
}

#[test]
fn what_has_no_place_beside_emit_changes() {
    let folder = Folder::with_trips();
    let sorted = "SELECT origin, count(*) FROM trips GROUP BY origin ORDER BY origin EMIT CHANGES";
    folder.refuses_query(sorted, "EMIT", &["ORDER BY with EMIT CHANGES", "leave ORDER BY out"]);
    let having = "SELECT origin FROM trips GROUP BY origin HAVING count(*) > 1 EMIT CHANGES";
    folder.refuses_query(having, "EMIT", &["HAVING with EMIT CHANGES", "EMIT CHANGES WITH OP", "or EMIT FINAL"]);
    let sessions = "SELECT count(*) FROM trips GROUP BY session(ts, INTERVAL '1 hour') EMIT FINAL ALLOWED LATENESS INTERVAL '1' HOUR";
    folder.refuses_query(sessions, "EMIT", &["over sessions without WITH OP", "WITH RETRACTIONS"]);
    let timeless = "SELECT count(*) FROM trips EMIT FINAL ALLOWED LATENESS INTERVAL '1' HOUR";
    folder.refuses_query(timeless, "EMIT", &["ALLOWED LATENESS without a window", "tumble(ts,"]);
    let distinct = "SELECT DISTINCT ON (origin) origin, fare FROM trips EMIT CHANGES";
    folder.refuses_query(distinct, "EMIT", &["DISTINCT ON with EMIT CHANGES", "use EMIT FINAL"]);
    let first = "(SELECT *, ROW_NUMBER() OVER (PARTITION BY origin ORDER BY fare) AS place FROM trips) WHERE place";
    let rows = format!("SELECT origin, fare FROM {first} <= 2 EMIT CHANGES");
    folder.refuses_query(&rows, "EMIT", &["without their rank", "select the rank", "WITH OP"]);
    let hidden = format!("SELECT origin, fare FROM {first} = 2 EMIT CHANGES WITH OP");
    folder.refuses_query(&hidden, "EMIT", &["looked at and not selected", "select the rank"]);
    let late = format!("SELECT origin, place FROM {first} < 2 EMIT FINAL ALLOWED LATENESS INTERVAL '1' HOUR");
    folder.refuses_query(&late, "EMIT", &["ALLOWED LATENESS with ROW_NUMBER() <= n", "use EMIT CHANGES"]);
}

#[test]
fn windows_of_no_size() {
    let folder = Folder::with_trips();
    for size in ["0 seconds", "-1 hour"] {
        let told = ["the size of a window must be positive", "help: INTERVAL '1 hour'"];
        let function = format!("SELECT count(*) FROM trips GROUP BY origin, tumble(ts, INTERVAL '{size}')");
        folder.refuses_query(&function, "tumble", &told);
        // Where it is no GROUP BY's, too.
        let value = format!("SELECT tumble(ts, INTERVAL '{size}') FROM trips");
        folder.refuses_query(&value, "tumble", &told);
        let clause = format!("SELECT count(*) FROM trips GROUP BY origin WINDOW TUMBLING (ts, INTERVAL '{size}')");
        folder.refuses(&format!("{STREAM}{clause}"), &[told[0], told[1], "line 2"]);
        let timeless = format!("SELECT count(*) FROM trips GROUP BY origin WINDOW TUMBLING (SIZE INTERVAL '{size}')");
        folder.refuses(&format!("{STREAM}{timeless}"), &[told[0], told[1], "line 2"]);
        let table_function = format!(
            "SELECT count(*) FROM TABLE(TUMBLE(TABLE trips, DESCRIPTOR(ts), INTERVAL '{size}')) GROUP BY window_start"
        );
        folder.refuses(&format!("{STREAM}{table_function}"), &[told[0], told[1], "line 2"]);
    }
}

#[test]
fn windows_without_end() {
    let folder = Folder::with_trips();
    for window in
        ["hop(ts, INTERVAL '1 microsecond', INTERVAL '1 hour')", "cumulate(ts, INTERVAL '1 ms', INTERVAL '1 day')"]
    {
        let query = format!("SELECT count(*) FROM trips GROUP BY {window}");
        folder.refuses_query(&query, "ts,", &["each row would be", "000 times", "a longer slide or step"]);
    }
    let query = "SELECT count(*) FROM trips GROUP BY tumble(ts, INTERVAL '300000 years')";
    folder.refuses_query(query, "tumble", &["more than 10000 years", "a shorter window"]);
}

#[test]
fn descriptors_of_several_columns() {
    let folder = Folder::with_trips();
    let query = "SELECT 1 FROM TABLE(TUMBLE(TABLE trips, DESCRIPTOR(ts, fare), INTERVAL '1' HOUR))";
    folder.refuses_query(query, "TUMBLE", &["DESCRIPTOR takes the time column alone"]);
}

#[test]
fn windows_over_months() {
    let folder = Folder::with_trips();
    let query = "SELECT count(*) FROM trips GROUP BY hop(ts, INTERVAL '1 day', INTERVAL '1 month')";
    folder.refuses_query(query, "ts,", &["months differ in length", "tumble(ts, INTERVAL '1 month')"]);
    let query = "SELECT count(*) FROM trips GROUP BY tumble(ts, INTERVAL '1 month 1 hour')";
    folder.refuses_query(query, "tumble", &["mixes months, days and hours", "INTERVAL '1 month'"]);
}

#[test]
fn windows_over_what_is_no_event_time() {
    let folder = Folder::with_trips();
    let query = "SELECT count(*) FROM trips GROUP BY tumble(fare, INTERVAL '1 hour')";
    folder.refuses(&format!("{STREAM}{query}"), &["tumble needs a timestamp, not Float64"]);
    let query = "SELECT count(*) FROM trips GROUP BY tumble(arrived, INTERVAL '1 hour')";
    folder.refuses_query(query, "arrived", &["arrived is not the event time of stream trips", "its event time is ts"]);
}

#[test]
fn names_that_two_things_share() {
    let folder = Folder::with_trips();
    for (query, place, told) in [
        ("SELECT fare, fare FROM trips", "fare", "two columns of one SELECT are called fare"),
        ("SELECT * FROM trips, trips", "trips", "trips is read twice under one name"),
        (
            "SELECT sum(fare) OVER (ORDER BY ts ROWS BETWEEN UNBOUNDED FOLLOWING AND CURRENT ROW) FROM trips",
            "sum",
            "start bound",
        ),
    ] {
        folder.refuses_query(query, place, &[told, "help: "]);
    }
}

#[test]
fn what_cannot_run_as_a_stream_is_refused_by_name() {
    let folder = Folder::with_trips();
    let joined = "SELECT * FROM trips JOIN trips AS others USING (origin)";
    folder.refuses(&format!("{STREAM}{joined}"), &["a join of two streams (INNER JOIN)", "CREATE EXTERNAL TABLE"]);
    // Each with the place of the first column that is to blame.
    for (query, place, told) in [
        ("SELECT 1 AS one EMIT CHANGES", "EMIT", "no stream is read"),
        ("SELECT 1 FROM trips JOIN trips AS o ON trips.fare < o.fare", "trips.fare", "a join of two streams"),
        ("SELECT 1 FROM trips WHERE fare > (SELECT avg(fare) FROM trips)", "fare >", "a stream in a sub-query"),
    ] {
        folder.refuses_query(query, place, &[told, "cannot run as a stream", "help: "]);
    }
}
