//! Checkpoints and output in an object store that the embedder has registered.

use std::sync::Arc;

use datafusion::prelude::{CsvReadOptions, ParquetReadOptions, SessionConfig, SessionContext};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use streamlines::{
    FileSink, Job, OutputFormat, StreamlinesContext, StreamlinesOptions, checkpoints, delete_checkpoints,
    parse_statements, streaming_session,
};
use url::Url;

use super::{HOURLY, rows, session, sorted, with_flights};

const CHECKPOINTS: &str = "s3://bucket/jobs/hourly";

async fn saving(objects: &Arc<InMemory>, partitions: usize) -> SessionContext {
    let options = StreamlinesOptions {
        partitions,
        checkpoint_dir: CHECKPOINTS.to_string(),
        checkpoint_interval: "20000rows".to_string(),
        ..StreamlinesOptions::default()
    };
    let ctx = with_flights(streaming_session(SessionConfig::new().with_option_extension(options))).await;
    ctx.register_object_store(&Url::parse("s3://bucket").unwrap(), Arc::clone(objects) as _);
    ctx
}

async fn job(ctx: &SessionContext, sql: &str) -> Job {
    ctx.plan_job(parse_statements(ctx, sql).unwrap().remove(0)).await.unwrap()
}

async fn names(objects: &InMemory, folder: &str) -> Vec<String> {
    let found: Vec<_> = objects.list(Some(&Path::from(folder))).try_collect().await.unwrap();
    found.iter().map(|object| object.location.filename().unwrap().to_string()).collect()
}

/// The data stays divided as it was when the job began, however many workers there are.
#[tokio::test]
async fn a_job_saves_itself_in_a_store_and_writes_there() {
    let objects = Arc::new(InMemory::new());
    let by_hour = HOURLY.replace("FROM flights", "FROM sequence");
    let expected = rows(&session("batch").await, &by_hour).await;
    let ctx = saving(&objects, 2).await;
    let sink = |ctx: &SessionContext| {
        FileSink::open("s3://bucket/out/", OutputFormat::Csv, &ctx.runtime_env(), &ctx.copied_config()).unwrap()
    };
    let summary = job(&ctx, &by_hour).await.run(&sink(&ctx)).await.unwrap();
    assert_eq!(summary.rows_written as usize, expected.len());
    let written = names(&objects, "out").await;
    assert!(written.len() > 3 && written.iter().all(|name| name.starts_with("part-") && name.ends_with(".csv")));
    let options = CsvReadOptions::new().has_header(true);
    let read = ctx.read_csv("s3://bucket/out/", options).await.unwrap().collect().await.unwrap();
    assert!(sorted(&read) == expected);
    let saved = checkpoints(&ctx, CHECKPOINTS).await.unwrap();
    assert!(saved.checkpoints.iter().any(|saved| saved.content.as_ref().is_ok_and(|content| content.has_ended)));
    let other = saving(&objects, 5).await;
    let again = job(&other, &by_hour).await.run(&sink(&other)).await.unwrap();
    assert!(again.warnings.iter().any(|warning| warning.contains("had ended before")), "{:?}", again.warnings);
    assert_eq!(names(&objects, "out").await, written);
    let refused = job(&other, HOURLY).await.run(&sink(&other)).await.unwrap_err().to_string();
    assert!(refused.contains("holds checkpoints of another job"), "{refused}");
    assert!(delete_checkpoints(&ctx, CHECKPOINTS).await.unwrap() > 0);
    assert!(names(&objects, "jobs").await.is_empty());
}

#[tokio::test]
async fn sql_copies_into_a_store() {
    let objects = Arc::new(InMemory::new());
    let expected = rows(&session("batch").await, HOURLY).await;
    let ctx = saving(&objects, 2).await;
    for (target, is_one) in [("s3://bucket/whole.parquet", true), ("s3://bucket/parts/", false)] {
        ctx.stream_sql(&format!("SET streamlines.checkpoint_dir = '{CHECKPOINTS}-{is_one}'")).await.unwrap();
        let copy = format!("COPY ({HOURLY}) TO '{target}' STORED AS PARQUET");
        rows(&ctx, &copy).await;
        let read = ctx.read_parquet(target, ParquetReadOptions::default()).await.unwrap().collect().await.unwrap();
        assert!(sorted(&read) == expected, "{target}");
    }
    let unknown = format!("COPY ({HOURLY}) TO 's3://other/out/' STORED AS PARQUET");
    let told = match ctx.stream_sql(&unknown).await {
        Ok(copy) => copy.collect().await.unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(told.contains("s3://other/out/: is in no store that the session knows"), "{told}");
}
