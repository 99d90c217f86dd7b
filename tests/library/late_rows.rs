//! What becomes of each row, and the ledger of late ones.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use datafusion::prelude::SessionContext;
use streamlines::{Job, NullSink, Progress, StreamlinesContext, StreamlinesOptions, streaming_session};

use super::{SessionConfig, sorted};

const FILES: [&str; 3] = ["EWR", "JFK", "LGA"];
const HOUR_US: i64 = 3_600_000_000;

fn path(origin: &str) -> String {
    format!("testdata/nycflights/flights-{origin}.parquet")
}

fn session(late: &str, partitions: usize, batch_rows: usize) -> SessionContext {
    let options =
        StreamlinesOptions { late: late.to_string(), partitions, batch_rows, ..StreamlinesOptions::default() };
    streaming_session(SessionConfig::new().with_option_extension(options))
}

/// Runs a query with a ledger in memory and gives some of its columns.
async fn ledger(ctx: &SessionContext, sql: &str, columns: &str) -> (Vec<String>, Progress) {
    let job = Job::new(ctx.stream_sql(sql).await.unwrap()).await.unwrap();
    let progress = job.run(&NullSink).await.unwrap().progress;
    ctx.register_table("late", job.late_rows().unwrap().unwrap()).unwrap();
    let rows = ctx.sql(&format!("SELECT {columns} FROM late")).await.unwrap().collect().await.unwrap();
    ctx.deregister_table("late").unwrap();
    (sorted(&rows), progress)
}

fn accounted(progress: &Progress) -> u64 {
    let Progress { used_rows, filtered_rows, late_rows, between_rows, skipped_rows, .. } = progress;
    used_rows + filtered_rows + late_rows + between_rows + skipped_rows
}

/// Event times and flight numbers of a file, in order.
async fn flights(origin: &str) -> Vec<(i64, i32)> {
    let config = SessionConfig::new().with_target_partitions(1);
    let ctx = SessionContext::new_with_config(config);
    ctx.register_parquet("f", path(origin), Default::default()).await.unwrap();
    let batches = ctx.sql("SELECT scheduled, flight::INT FROM f").await.unwrap().collect().await.unwrap();
    let mut rows = vec![];
    for batch in batches {
        let (times, flights) = (batch.column(0).as_primitive::<TimestampMicrosecondType>(), batch.column(1));
        let flights = flights.as_primitive::<Int32Type>();
        rows.extend((0..times.len()).map(|row| (times.value(row), flights.value(row))));
    }
    rows
}

/// The late rows of even flights by hours, as the definition says: file, row, window, watermark, and who had set it.
async fn by_definition(partitions: &[&[&str]], bound_us: i64) -> Vec<String> {
    let mut late = vec![];
    for files in partitions {
        let mut highest: Option<(i64, String)> = None;
        for origin in *files {
            for (row, (time, flight)) in flights(origin).await.into_iter().enumerate() {
                let place = format!("{} {}", path(origin), row + 1);
                let hour = time.div_euclid(HOUR_US) * HOUR_US;
                if let Some((highest, set_by)) = &highest
                    && hour + HOUR_US <= highest - bound_us
                    && flight % 2 == 0
                {
                    late.push(format!("{place} {hour} {} {set_by}", highest - bound_us));
                }
                if highest.as_ref().is_none_or(|(highest, _)| time > *highest) {
                    highest = Some((time, place));
                }
            }
        }
    }
    late.sort();
    late
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_names_every_late_row() {
    let columns = "_file, _row, _window_start::BIGINT, _watermark::BIGINT, _set_by_file, _set_by_row";
    let alone: Vec<&[&str]> = FILES.chunks(1).collect();
    for (options, partitions, hours) in
        [("OPTIONS ('partitioned_by' 'origin')", &alone[..], 3), ("", &[&FILES[..]][..], 24 * 200)]
    {
        let expected = by_definition(partitions, hours * HOUR_US).await;
        assert!(expected.len() > 500, "{} rows are late", expected.len());
        for (pipelines, batch_rows) in [(1, 8192), (2, 97), (4, 1000)] {
            let ctx = session(":memory:", pipelines, batch_rows);
            ctx.stream_sql(&format!(
                "CREATE STREAM flights (WATERMARK FOR scheduled AS scheduled - INTERVAL '{hours}' HOUR) STORED AS PARQUET
                 LOCATION 'testdata/nycflights/flights-*.parquet' {options}"
            ))
            .await
            .unwrap();
            let hourly = "SELECT carrier, count(*) FROM flights WHERE flight % 2 = 0
                 GROUP BY carrier, tumble(scheduled, INTERVAL '1 hour')";
            let (late, progress) = ledger(&ctx, hourly, columns).await;
            assert!(late == expected, "{pipelines} pipelines, batches of {batch_rows} rows: {} late", late.len());
            assert_eq!((progress.late_rows, accounted(&progress)), (late.len() as u64, progress.rows_in));
        }
    }
}

#[tokio::test]
async fn a_row_that_a_join_doubles_counts_once() {
    let ctx = session(":memory:", 2, 1000);
    ctx.stream_sql(&format!(
        "CREATE STREAM flights (WATERMARK FOR scheduled AS scheduled - INTERVAL '3' HOUR) LOCATION '{}'",
        path("EWR")
    ))
    .await
    .unwrap();
    ctx.sql("CREATE TABLE twice AS VALUES ('UA'), ('UA'), ('EV')").await.unwrap().collect().await.unwrap();
    let plain = SessionContext::new();
    plain.register_parquet("f", path("EWR"), Default::default()).await.unwrap();
    let others = plain.sql("SELECT * FROM f WHERE carrier NOT IN ('UA', 'EV')").await.unwrap().count().await.unwrap();
    let joined = "SELECT carrier, count(*) FROM flights JOIN twice ON carrier = column1
         GROUP BY carrier, tumble(scheduled, INTERVAL '1 hour')";
    let (late, progress) = ledger(&ctx, joined, "_row").await;
    let mut once = late.clone();
    once.dedup();
    assert_eq!(late, once);
    assert!(late.len() > 100, "{} rows are late", late.len());
    assert_eq!((progress.filtered_rows, progress.late_rows), (others as u64, late.len() as u64));
    assert_eq!(accounted(&progress), progress.rows_in);
}

#[tokio::test]
async fn rows_keep_their_numbers_beside_malformed_ones() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.csv");
    let rows = ["100,a", "bad", "5,b", "x,c", "99,d", "200,e", "7,f", "199,g"];
    std::fs::write(&file, format!("s,name\n{}\n", rows.join("\n"))).unwrap();
    for batch_rows in [1, 2, 8192] {
        let ctx = session(":memory:", 1, batch_rows);
        ctx.stream_sql(&format!(
            "CREATE STREAM rows (s BIGINT, name VARCHAR) STORED AS CSV LOCATION '{}' OPTIONS ('on_error' 'skip')",
            file.display()
        ))
        .await
        .unwrap();
        ctx.stream_sql(&format!(
            "CREATE STREAM times (s TIMESTAMP(0), name VARCHAR, WATERMARK FOR s AS s - INTERVAL '10' SECOND)
             STORED AS CSV LOCATION '{}' OPTIONS ('on_error' 'skip', 'timestamp_format' '%s')",
            file.display()
        ))
        .await
        .unwrap();
        // OVER has no window to miss.
        let over = "SELECT name, count(*) OVER (ORDER BY s) FROM times";
        let columns = "name, _row, _missed, _window_end, _behind_s, _set_by_row";
        let (late, progress) = ledger(&ctx, over, columns).await;
        assert_eq!(late, ["b 3 all  85.0 1", "f 7 all  183.0 6"]);
        assert_eq!((progress.used_rows, progress.late_rows, progress.skipped_rows, progress.rows_in), (4, 2, 2, 8));
        // Windows of a minute by half a minute: 7 s and 5 s are too late for all, 99 s for none.
        let hop = "SELECT count(*) FROM times GROUP BY hop(s, INTERVAL '30 seconds', INTERVAL '1 minute')";
        let (late, progress) = ledger(&ctx, hop, "name, _missed, _window_end::BIGINT").await;
        assert_eq!(late, ["b all 60", "f all 60"]);
        assert_eq!((progress.used_rows, progress.late_rows), (4, 2));
    }
}

#[tokio::test]
async fn only_a_job_writes_late_rows() {
    let folder = tempfile::tempdir().unwrap();
    let late = folder.path().join("late/");
    let ctx = session(&format!("{}/", late.display()), 2, 8192);
    let create = "CREATE STREAM flights (WATERMARK FOR scheduled AS scheduled - INTERVAL '3' HOUR)
         LOCATION 'testdata/nycflights/flights-*.parquet' OPTIONS ('partitioned_by' 'origin')";
    ctx.stream_sql(create).await.unwrap();
    let hourly = "SELECT origin, count(*) FROM flights GROUP BY origin, tumble(scheduled, INTERVAL '1 hour')";
    let query = ctx.stream_sql(hourly).await.unwrap();
    let error = query.clone().collect().await.unwrap_err().to_string();
    assert!(error.contains("only a Job writes late rows"), "{error}");
    let job = Job::new(query).await.unwrap();
    assert_eq!(job.run(&NullSink).await.unwrap().progress.late_rows, 1740);
    assert!(job.late_rows().unwrap().is_none());
    let read = SessionContext::new();
    read.register_parquet("late", late.display().to_string(), Default::default()).await.unwrap();
    assert_eq!(read.table("late").await.unwrap().count().await.unwrap(), 1740);
}
