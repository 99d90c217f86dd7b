//! What the planner picks: the spellings of a window are one plan, routing follows from partitions and keys, and no
//! shape of a plan holds a row back.

#![allow(clippy::unwrap_used)]

use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use streamlines::{
    Job, NullSink, StreamlinesContext, StreamlinesOptions, streaming_session, streaming_session_with_runtime,
};

const SPELLINGS: [&str; 4] = [
    "SELECT origin, window_start, count(*) AS n FROM flights GROUP BY origin, tumble(scheduled, INTERVAL '1 hour')",
    "SELECT origin, window_start, count(*) AS n \
     FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' HOUR)) \
     GROUP BY origin, window_start, window_end",
    "SELECT origin, window_start, count(*) AS n FROM flights GROUP BY origin WINDOW TUMBLING (SIZE 1 HOUR)",
    "SELECT origin, date_bin(INTERVAL '1 hour', scheduled) AS window_start, count(*) AS n \
     FROM flights GROUP BY origin, date_bin(INTERVAL '1 hour', scheduled)",
];

async fn flights() -> SessionContext {
    let options = StreamlinesOptions { partitions: 2, ..StreamlinesOptions::default() };
    let ctx = streaming_session(SessionConfig::new().with_target_partitions(2).with_option_extension(options));
    declare(&ctx).await;
    ctx
}

async fn declare(ctx: &SessionContext) {
    for statement in [
        "CREATE STREAM flights (WATERMARK FOR scheduled AS scheduled - INTERVAL '3' HOUR) \
         STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet' OPTIONS ('partitioned_by' 'origin')",
        "CREATE STREAM spread (WATERMARK FOR scheduled AS scheduled - INTERVAL '3' HOUR) \
         STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet' OPTIONS ('partitions' 'files')",
        "CREATE EXTERNAL TABLE airlines STORED AS CSV LOCATION 'testdata/nycflights/airlines.csv' \
         OPTIONS ('format.has_header' 'true')",
    ] {
        ctx.stream_sql(statement).await.unwrap();
    }
}

/// The logical and the physical plan of a query, without the paths of this machine.
async fn plans(ctx: &SessionContext, sql: &str) -> (String, String) {
    let query = ctx.stream_sql(sql).await.unwrap();
    let logical = ctx.state().optimize(query.logical_plan()).unwrap().display_indent().to_string();
    (logical, Job::new(query).await.unwrap().display())
}

#[tokio::test]
async fn the_spellings_of_a_window_are_one_plan() {
    let ctx = flights().await;
    let (logical, physical) = plans(&ctx, SPELLINGS[0]).await;
    for spelling in &SPELLINGS[1..] {
        let (other_logical, other_physical) = plans(&ctx, spelling).await;
        assert_eq!(other_physical, physical, "{spelling}");
        assert_eq!(other_logical, logical, "{spelling}");
    }
    insta::assert_snapshot!(physical);
}

#[tokio::test]
async fn routing_follows_from_partitions_and_keys() {
    let ctx = flights().await;
    let routing = async |sql: &str| {
        let (_, plan) = plans(&ctx, sql).await;
        plan.lines().find(|line| line.contains("PipelinesExec")).unwrap_or("no pipelines").trim().to_string()
    };
    let mut picked = vec![];
    for sql in [
        "SELECT origin, count(*) FROM flights GROUP BY origin",
        "SELECT carrier, count(*) FROM flights GROUP BY carrier",
        "SELECT origin, count(*) FROM spread GROUP BY origin",
        "SELECT carrier, count(*) FROM spread GROUP BY carrier",
        "SELECT carrier, origin, count(*) FROM spread GROUP BY carrier, origin EMIT CHANGES",
        "SELECT * FROM flights WHERE dep_delay > 60",
        "SELECT carrier, window_start, count(*) FROM flights GROUP BY carrier, tumble(scheduled, INTERVAL '1 day')",
        "SELECT sum(distance) OVER (PARTITION BY origin ORDER BY scheduled ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) FROM flights",
        "SELECT sum(distance) OVER (PARTITION BY carrier ORDER BY scheduled ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) FROM flights",
        "SELECT origin, count(*) FROM flights GROUP BY origin EMIT CHANGES",
        "SELECT origin, count(*) FROM (SELECT origin, window_time FROM flights GROUP BY origin, tumble(scheduled, INTERVAL '1 hour')) GROUP BY origin, tumble(window_time, INTERVAL '1 day')",
        "SELECT count(*) FROM (SELECT origin, window_time FROM flights GROUP BY origin, tumble(scheduled, INTERVAL '1 hour')) GROUP BY tumble(window_time, INTERVAL '1 day')",
        "SELECT count(*) FROM (SELECT origin, window_time FROM flights GROUP BY origin, tumble(scheduled, INTERVAL '1 hour')) GROUP BY tumble(window_time, INTERVAL '1 day') EMIT CHANGES",
        "SELECT count(*) FROM (SELECT carrier, window_time FROM flights GROUP BY carrier, tumble(scheduled, INTERVAL '1 hour')) GROUP BY tumble(window_time, INTERVAL '1 day')",
        "SELECT first_value(n) FROM (SELECT carrier, window_time, count(*) AS n FROM flights GROUP BY carrier, tumble(scheduled, INTERVAL '1 hour')) GROUP BY tumble(window_time, INTERVAL '1 day')",
        "SELECT DISTINCT origin FROM flights EMIT CHANGES",
        // Three partitions leave one of four workers idle: where nothing hangs on the order, they are divided further.
        "SET streamlines.partitions = 4",
        "SELECT origin, count(*) FROM flights GROUP BY origin",
        "SELECT carrier, origin, count(*) FROM spread GROUP BY carrier, origin",
        "SELECT origin, first_value(carrier) FROM flights GROUP BY origin",
        "SELECT origin, count(*) FROM flights GROUP BY origin EMIT CHANGES",
    ] {
        picked.push(routing(sql).await);
    }
    insta::assert_snapshot!(picked.join("\n"));
}

#[tokio::test]
async fn a_look_up_reads_the_table_first_and_a_last_order_is_a_tail() {
    let ctx = flights().await;
    let sql = "SELECT name, window_start, count(*) AS n FROM flights JOIN airlines USING (carrier) WHERE dep_delay > 0 \
               GROUP BY name, tumble(scheduled, INTERVAL '1 day') ORDER BY n DESC LIMIT 3";
    let (_, physical) = plans(&ctx, sql).await;
    let physical = physical
        .replace(&format!("{}/", std::env::current_dir().unwrap().display()).trim_start_matches('/').to_string(), "");
    insta::assert_snapshot!(physical);
}

/// The first rows of windows are kept by each pipeline if no other has rows of the same key, else merged on close; so are
/// the windows whose results are ranked.
#[tokio::test]
async fn the_first_rows_of_windows_are_kept_alone() {
    let ctx = flights().await;
    let first = |keys: &str, order: &str, rows: &str| {
        format!(
            "SELECT origin FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end{keys} ORDER BY {order}) AS rn \
             FROM {rows}) WHERE rn <= 3"
        )
    };
    let rows = "TABLE(HOP(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' HOUR, INTERVAL '1' DAY))";
    let results = format!(
        "(SELECT window_start, window_end, origin, count(*) AS n FROM {rows} GROUP BY window_start, window_end, origin)"
    );
    let by_carrier = first(", carrier", "dep_delay DESC", rows);
    let mut picked = vec![];
    for sql in [
        first(", origin", "dep_delay DESC", rows),
        first("", "dep_delay DESC", rows),
        first(", origin", "n", &results),
        first("", "n", &results),
        format!("SELECT carrier FROM ({by_carrier})").replace("SELECT origin", "SELECT carrier"),
    ] {
        picked.push(plans(&ctx, &sql).await.1);
    }
    insta::assert_snapshot!(picked.join("\n"));
}

/// Whatever is between a window table function and the aggregate, a row does not come once for each of its windows.
#[tokio::test]
async fn windows_of_a_table_function_go_up_to_the_group_by() {
    let ctx = flights().await;
    for rows in [
        "HOP(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' HOUR, INTERVAL '1' DAY)",
        "CUMULATE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' HOUR, INTERVAL '1' DAY)",
    ] {
        for between in [
            "TABLE(rows) AS h WHERE dep_delay > 0",
            "TABLE(rows) AS h WHERE window_start >= '2013-03-01' AND window_end < '2013-04-01' AND dep_delay > 0",
            "TABLE(rows) AS h JOIN airlines AS a ON h.carrier = a.carrier WHERE name < 'D' AND window_end < '2013-04-01'",
            "TABLE(rows) AS h LEFT JOIN airlines AS a ON h.carrier = a.carrier",
            "airlines AS a JOIN TABLE(rows) AS h ON h.carrier = a.carrier AND h.dep_delay > 0",
            "TABLE(rows) AS h WHERE carrier IN (SELECT carrier FROM airlines)",
            "(SELECT h.*, name FROM TABLE(rows) AS h JOIN airlines USING (carrier) WHERE dep_delay > 0) AS h WHERE distance > 9",
        ] {
            let from = between.replace("rows", rows);
            let sql =
                format!("SELECT window_start, window_end, count(*) FROM {from} GROUP BY window_start, window_end");
            let (logical, _) = plans(&ctx, &sql).await;
            assert!(!logical.contains("windows_of"), "{sql}\n{logical}");
        }
    }
}

/// Plans in which a row of the stream comes out as soon as it has gone in: `n` is its number.
const IMMEDIATE: [&str; 20] = [
    "SELECT n FROM s",
    "SELECT n FROM s WHERE n % 3 = 0",
    "SELECT upper(k), n FROM s WHERE k = 'a' OR n < 20",
    "SELECT k, n FROM (SELECT k, n + 0 AS n FROM s WHERE n > 5) AS later WHERE n < 50",
    "SELECT n, unnest([1, 2]) FROM s",
    "SELECT n FROM s JOIN t USING (k)",
    "SELECT n FROM s LEFT JOIN t USING (k)",
    "SELECT n FROM t JOIN s ON t.k = s.k AND t.m < s.n",
    "SELECT n FROM t RIGHT JOIN s ON t.k = s.k",
    "SELECT n FROM s JOIN t ON s.n > t.m",
    "SELECT n FROM s CROSS JOIN t",
    "SELECT n FROM s WHERE k IN (SELECT k FROM t)",
    "SELECT n FROM s WHERE NOT EXISTS (SELECT 1 FROM t WHERE t.k = s.k)",
    "SELECT max(n) AS n FROM s EMIT CHANGES",
    "SELECT k, max(n) AS n FROM s WHERE n % 2 = 0 GROUP BY k EMIT CHANGES",
    "SELECT k, window_start, max(n) AS n FROM s GROUP BY k, tumble(ts, INTERVAL '10 seconds') EMIT CHANGES",
    "SELECT m, max(n) AS n FROM s JOIN t USING (k) WHERE n > 3 GROUP BY m WINDOW TUMBLING (SIZE 10 SECONDS) EMIT CHANGES",
    "SELECT DISTINCT n FROM s EMIT CHANGES",
    "SELECT n FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY ts DESC) AS rn FROM s) WHERE rn = 1 EMIT CHANGES",
    "SELECT n, rn FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY n % 2 ORDER BY ts) AS rn FROM s) WHERE rn <= 30 EMIT CHANGES",
];

/// Windows, which come out when row `n` has moved the watermark past their end, five seconds before it: short ones, and
/// what is made of them.
const CLOSING: [&str; 12] = [
    "SELECT arrow_cast(window_end, 'Int64') + 5 AS n FROM s GROUP BY tumble(ts, INTERVAL '2 seconds')",
    "SELECT arrow_cast(window_end, 'Int64') + 5 AS n FROM (short) GROUP BY tumble(t, INTERVAL '10 seconds')",
    "SELECT arrow_cast(window_end, 'Int64') + 5 AS n FROM (short) WHERE c > 0 GROUP BY hop(b, INTERVAL '4 seconds', INTERVAL '10 seconds')",
    "SELECT arrow_cast(e, 'Int64') + 5 AS n FROM (short) GROUP BY e",
    "SELECT arrow_cast(b, 'Int64') + 7 AS n FROM (short) GROUP BY b, c",
    "SELECT arrow_cast(e, 'Int64') + 5 AS n, sum(c) OVER (ORDER BY e ROWS 2 PRECEDING) FROM (short)",
    "SELECT arrow_cast(e, 'Int64') + 5 AS n, lag(c) OVER (ORDER BY b) FROM (short)",
    "SELECT arrow_cast(max(e), 'Int64') + 5 AS n, sum(c) FROM (short) EMIT CHANGES",
    "SELECT arrow_cast(window_end, 'Int64') + 5 AS n FROM (SELECT window_time AS m FROM (short) GROUP BY tumble(t, INTERVAL '4 seconds')) GROUP BY tumble(m, INTERVAL '12 seconds')",
    "SELECT arrow_cast(e, 'Int64') + 5 AS n FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY b, e ORDER BY k) AS rn FROM (short)) WHERE rn = 1",
    "SELECT arrow_cast(tumble(t, INTERVAL '4 seconds'), 'Int64') + 9 AS n FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY tumble(t, INTERVAL '4 seconds') ORDER BY c) AS rn FROM (short)) WHERE rn = 1",
    "SELECT arrow_cast(window_end, 'Int64') + 5 AS n FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY k) AS rn FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '4' SECOND))) WHERE rn = 1",
];
const SHORT: &str = "(SELECT k, window_start AS b, window_end AS e, window_time AS t, count(*) AS c FROM s \
                     GROUP BY k, tumble(ts, INTERVAL '2 seconds')) AS q";

/// When a batch's rows come out, no later batch has been read; and when a later one comes out, they have all come.
#[tokio::test]
async fn no_plan_holds_a_row_back() {
    const ROWS: i64 = 60;
    let folder = tempfile::tempdir().unwrap();
    for batch_rows in [1, 7] {
        let options =
            StreamlinesOptions { partitions: 1, batch_rows: batch_rows as usize, ..StreamlinesOptions::default() };
        let config = SessionConfig::new().with_target_partitions(1).with_batch_size(batch_rows as usize);
        let ctx = streaming_session(config.with_option_extension(options));
        let file = folder.path().join(format!("{batch_rows}.parquet")).display().to_string();
        for statement in [
            format!(
                "COPY (SELECT i AS n, CASE i % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' ELSE 'c' END AS k, \
                 arrow_cast(i, 'Timestamp(Second, None)') AS ts FROM generate_series(1, {ROWS}) AS g (i) ORDER BY i) TO '{file}'"
            ),
            format!(
                "CREATE STREAM s (WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) STORED AS PARQUET LOCATION '{file}'"
            ),
            "CREATE TABLE t AS VALUES ('a', 1), ('a', 2), ('b', 30)".to_string(),
            "CREATE OR REPLACE TABLE t AS SELECT column1 AS k, column2 AS m FROM t".to_string(),
        ] {
            ctx.stream_sql(&statement).await.unwrap().collect().await.unwrap();
        }
        let closing = CLOSING.iter().map(|sql| sql.replace("(short)", SHORT));
        for sql in IMMEDIATE.iter().map(ToString::to_string).chain(closing) {
            let job = Job::new(ctx.stream_sql(&sql).await.unwrap()).await.unwrap();
            let place = job.schema().index_of("n").unwrap();
            let mut streams = job.execute_partitioned().unwrap();
            let (mut rows, mut output) = (0, streams.pop().unwrap());
            assert!(streams.is_empty());
            while let Some(batch) = output.next().await {
                let read = job.progress().rows_in as i64;
                for number in batch.unwrap().column(place).as_primitive::<Int64Type>().values() {
                    let batch_of_row = (number + batch_rows - 1) / batch_rows;
                    assert_eq!(read, ROWS.min(batch_of_row * batch_rows), "row {number} of {sql}");
                    rows += 1;
                }
            }
            assert!(rows > 0, "{sql}");
        }
    }
}

/// A pool without a limit that remembers how much was held at once.
#[derive(Debug, Default)]
struct Peak {
    held: AtomicUsize,
    most: AtomicUsize,
}

impl Display for Peak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())
    }
}

/// What waits until other pipelines have come as far is no state of one pipeline.
fn is_merger(of: &MemoryReservation) -> bool {
    of.consumer().name().starts_with("the merger of")
}

impl MemoryPool for Peak {
    fn name(&self) -> &str {
        "peak"
    }
    fn grow(&self, of: &MemoryReservation, additional: usize) {
        if is_merger(of) {
            return;
        }
        let held = self.held.fetch_add(additional, Ordering::Relaxed) + additional;
        self.most.fetch_max(held, Ordering::Relaxed);
    }
    fn shrink(&self, of: &MemoryReservation, shrink: usize) {
        if is_merger(of) {
            return;
        }
        self.held.fetch_sub(shrink, Ordering::Relaxed);
    }
    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.grow(reservation, additional);
        Ok(())
    }
    fn reserved(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// The bytes that a plan's operators are estimated to hold in one pipeline, and whether that is only how many at most.
fn estimated(plan: &str) -> Option<(f64, bool)> {
    let (_, size) = plan.split_once("(estimate: ")?;
    let (size, is_most) = match size.strip_prefix("at most ") {
        Some(size) => (size, true),
        None => (size.strip_prefix("about ")?, false),
    };
    let (number, unit) = size.split_once(')')?.0.split_once(' ')?;
    let power = ["B", "KB", "MB", "GB"].iter().position(|known| *known == unit)?;
    Some((number.parse::<f64>().ok()? * 1024f64.powi(power as i32), is_most))
}

/// What EXPLAIN says of state before a row is read is what is held at most, within a factor of eight: keys are taken to be
/// independent of each other, and what tables and buffers take that are not full is not counted. Where nothing tells how
/// many keys there are, it is not exceeded.
#[tokio::test]
async fn estimates_are_near_what_is_held() {
    const FACTOR: f64 = 8.0;
    let mut told = vec![];
    for (sql, is_known) in [
        ("SELECT dest, count(*), sum(distance), avg(dep_delay) FROM spread GROUP BY dest", true),
        ("SELECT flight, origin, max(dep_delay), min(tailnum) FROM spread GROUP BY flight, origin", true),
        ("SELECT dest, count(*) FROM spread GROUP BY dest, tumble(scheduled, INTERVAL '1 day')", true),
        (
            "SELECT flight, avg(dep_delay) FROM flights GROUP BY origin, flight, hop(scheduled, INTERVAL '1 day', INTERVAL '30 days')",
            true,
        ),
        (
            "SELECT carrier, count(DISTINCT tailnum) FROM spread GROUP BY carrier, tumble(scheduled, INTERVAL '30 days')",
            true,
        ),
        ("SELECT flight, count(*), stddev(dep_delay) FROM spread GROUP BY flight EMIT CHANGES", true),
        ("SELECT sum(distance) OVER (PARTITION BY flight ORDER BY scheduled ROWS 9 PRECEDING) FROM spread", true),
        (
            "SELECT count(*) OVER (PARTITION BY dest ORDER BY scheduled RANGE INTERVAL '30 days' PRECEDING) FROM spread",
            true,
        ),
        (
            "SELECT flight, dep_delay FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY flight ORDER BY dep_delay DESC) AS place \
          FROM spread) WHERE place <= 3 EMIT CHANGES WITH OP",
            true,
        ),
        ("SELECT tailnum, count(*) FROM spread GROUP BY tailnum", false),
        ("SELECT tailnum, count(*) FROM spread GROUP BY tailnum, session(scheduled, INTERVAL '30 days')", false),
    ] {
        let pool = Arc::new(Peak::default());
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&pool) as _).build_arc().unwrap();
        // One pipeline at a time. What is noted of each row of a batch is no state.
        let options = StreamlinesOptions { partitions: 1, batch_rows: 500, ..StreamlinesOptions::default() };
        let ctx = streaming_session_with_runtime(SessionConfig::new().with_option_extension(options), runtime);
        declare(&ctx).await;
        let job = Job::new(ctx.stream_sql(sql).await.unwrap()).await.unwrap();
        let (estimate, is_most) = estimated(&job.display()).unwrap();
        job.run(&NullSink).await.unwrap();
        let most = pool.most.load(Ordering::Relaxed) as f64;
        let is_near = match is_known {
            true => (1.0 / FACTOR..FACTOR).contains(&(estimate / most)),
            false => most < estimate,
        };
        told.push((is_near && is_most != is_known, format!("{:6.2} of {most:10} bytes: {sql}", estimate / most)));
    }
    let lines: Vec<_> = told.iter().map(|(_, line)| line.as_str()).collect();
    assert!(told.iter().all(|(is_near, _)| *is_near), "{}", lines.join("\n"));
}
