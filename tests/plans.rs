//! What the planner picks: the spellings of a window are one plan, and routing follows from partitions and keys.

#![allow(clippy::unwrap_used)]

use datafusion::prelude::{SessionConfig, SessionContext};
use streamlines::{Job, StreamlinesContext, StreamlinesOptions, streaming_session};

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
    ctx
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
        "SELECT * FROM flights WHERE dep_delay > 60",
        "SELECT carrier, window_start, count(*) FROM flights GROUP BY carrier, tumble(scheduled, INTERVAL '1 day')",
        "SELECT sum(distance) OVER (PARTITION BY origin ORDER BY scheduled ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) FROM flights",
        "SELECT sum(distance) OVER (PARTITION BY carrier ORDER BY scheduled ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) FROM flights",
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
