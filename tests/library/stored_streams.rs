//! Streams over objects of a store that the embedder has registered.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use streamlines::{Confinement, StreamlinesContext, StreamlinesOptions, streaming_session_with_runtime};
use url::Url;

use super::{HOURLY, rows, session, sorted};

/// A store with these objects, and a session that knows it.
async fn with_objects(objects: &[(&str, Vec<u8>)], config: SessionConfig) -> (Arc<InMemory>, SessionContext) {
    let store = Arc::new(InMemory::new());
    for (name, bytes) in objects {
        store.put(&Path::from(*name), bytes.clone().into()).await.unwrap();
    }
    let runtime = Arc::new(RuntimeEnv::default());
    runtime.register_object_store(&Url::parse("mem://bucket").unwrap(), Arc::clone(&store) as Arc<dyn ObjectStore>);
    (store, streaming_session_with_runtime(config, runtime))
}

fn flights(airport: &str) -> Vec<u8> {
    std::fs::read(format!("testdata/nycflights/flights-{airport}.parquet")).unwrap()
}

async fn told(ctx: &SessionContext, sql: &str) -> String {
    let answer = match ctx.stream_sql(sql).await {
        Ok(query) => query.collect().await.map(|rows| sorted(&rows)),
        Err(error) => Err(error),
    };
    answer.unwrap_err().to_string()
}

/// An object, a folder, a glob and a comma list are what they are on this machine.
#[tokio::test]
async fn locations_name_objects_as_they_name_files() -> Result<()> {
    let csv = |value: u32| format!("v\n{value}\n").into_bytes();
    let objects = [
        ("in/a-2.csv", csv(2)),
        ("in/a-10.csv", csv(10)),
        ("in/b.csv", csv(3)),
        ("in/.c.csv", csv(4)),
        ("in/_d/e.csv", csv(5)),
        ("in/k=x/f.csv", csv(6)),
        ("in/k=y z/g.csv", csv(7)),
        ("in/h.txt", csv(8)),
        ("in-other/i.csv", csv(9)),
    ];
    let (_, ctx) = with_objects(&objects, SessionConfig::new()).await;
    for (location, expected) in [
        ("mem://bucket/in/b.csv", &["3"][..]),
        ("mem://bucket/in/a-*.csv", &["10", "2"]),
        ("mem://bucket/in/[ab]*.csv", &["10", "2", "3"]),
        ("mem://bucket/in/?.csv", &["3"]),
        ("mem://bucket/in-*/", &["9"]),
        ("mem://bucket/in/b.csv, mem://bucket/in-other", &["3", "9"]),
        ("mem://bucket/in/*=*", &["6 x", "7 y z"]),
    ] {
        assert_eq!(rows(&ctx, &format!("SELECT * FROM '{location}'")).await, expected, "{location}");
    }
    for (location, what) in [
        ("mem://bucket/in/none.csv", "no file at 'mem://bucket/in/none.csv'"),
        ("mem://bucket/", "lies in other key=value folders"),
        ("mem://other/a.csv", "is in no store that the session knows"),
    ] {
        let told = told(&ctx, &format!("SELECT * FROM '{location}'")).await;
        assert!(told.contains(what), "{location}: {told}");
    }
    Ok(())
}

#[tokio::test]
async fn an_object_that_changes_is_told() {
    let text = |value: u32| format!("ts,v\n2024-01-01T00:00:00,{value}\n").into_bytes();
    for (name, before, after) in [
        ("a.csv", text(1), text(2)),
        ("a.parquet", flights("LGA"), flights("JFK")),
        ("b.json", b"{\"v\":1}".to_vec(), b"{\"v\":2}".to_vec()),
    ] {
        let (store, ctx) = with_objects(&[(name, before)], SessionConfig::new()).await;
        ctx.stream_sql(&format!("CREATE STREAM s LOCATION 'mem://bucket/{name}'")).await.unwrap();
        store.put(&Path::from(name), after.into()).await.unwrap();
        let told = told(&ctx, "SELECT * FROM s").await;
        assert!(told.contains(&format!("mem://bucket/{name}: has changed since the stream was created")), "{told}");
    }
}

#[tokio::test]
async fn a_confined_session_reads_no_store() {
    let objects = [("a.csv", b"v\n1\n".to_vec())];
    let query = "SELECT * FROM 'mem://bucket/a.csv'";
    let confined = Confinement::default().within_folder("testdata").unwrap().on(SessionConfig::new());
    let (_, ctx) = with_objects(&objects, confined).await;
    let told = told(&ctx, query).await;
    assert!(told.contains("mem://bucket/a.csv: is outside of"), "{told}");
    let (_, ctx) = with_objects(&objects, Confinement::default().reading_only().on(SessionConfig::new())).await;
    assert_eq!(rows(&ctx, query).await, ["1"]);
}

/// Pieces of row groups and of lines, all routings among them, and the batch answer.
#[tokio::test]
async fn pieces_of_objects_give_the_rows_of_files() {
    let names = ["EWR", "JFK", "LGA"].map(|airport| format!("flights-{airport}.parquet"));
    let objects: Vec<_> = names.iter().map(|name| (name.as_str(), flights(&name[8..11]))).collect();
    let expected = rows(&session("batch").await, HOURLY).await;
    for (strategy, routing) in [
        ("partitioned", "auto"),
        ("partitioned", "hash_at_source"),
        ("inline", "exchange"),
        ("single_queue", "auto"),
        ("batch", "auto"),
    ] {
        let options = StreamlinesOptions {
            strategy: strategy.to_string(),
            routing: routing.to_string(),
            partitions: 3,
            handoff_rows: 1000,
            ..StreamlinesOptions::default()
        };
        let config = SessionConfig::new().with_option_extension(options);
        let (_, ctx) = with_objects(&objects, config).await;
        let stream = "CREATE STREAM flights (WATERMARK FOR scheduled) LOCATION 'mem://bucket/flights-*.parquet'";
        ctx.stream_sql(stream).await.unwrap();
        assert!(rows(&ctx, HOURLY).await == expected, "{strategy} {routing}");
    }
}

#[tokio::test]
async fn lines_of_an_object_are_divided_and_bad_ones_are_named() {
    let text: String = (0..40_000).map(|row| format!("2024-01-01T00:{:02}:00,{row}\n", row % 60)).collect();
    let mut objects = vec![("a.csv", format!("ts,v\n{text}").into_bytes())];
    let with_bad = text.replace(",30000\n", ",bad\n");
    objects.push(("b.csv", format!("ts,v\n{with_bad}").into_bytes()));
    let options = StreamlinesOptions { partitions: 4, ..StreamlinesOptions::default() };
    let (_, ctx) = with_objects(&objects, SessionConfig::new().with_option_extension(options)).await;
    for name in ["a", "b"] {
        let create = format!(
            "CREATE STREAM {name} (ts TIMESTAMP, v BIGINT, WATERMARK FOR ts) LOCATION 'mem://bucket/{name}.csv'"
        );
        ctx.stream_sql(&create).await.unwrap();
    }
    let minutes = |name: &str| {
        format!("SELECT window_start, sum(v) FROM {name} GROUP BY window_start WINDOW TUMBLING (SIZE 1 MINUTE)")
    };
    let found = rows(&ctx, &minutes("a")).await;
    assert_eq!(found.len(), 60);
    assert!(found[0].ends_with(&format!(" {}", (0..40_000_u64).step_by(60).sum::<u64>())), "{}", found[0]);
    let told = told(&ctx, &minutes("b")).await;
    assert!(told.contains("mem://bucket/b.csv: row 30001") && told.contains("bad"), "{told}");
}
