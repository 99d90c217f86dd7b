//! Sessions that are confined, and SQL of somebody else that comes by DataFusion's own `SessionContext::sql`.

use std::fs;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use streamlines::{Confinement, StreamlinesContext, streaming_session_with_runtime};
use tempfile::TempDir;
use url::Url;

/// A folder `in` to which a session is confined, and one `out`.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::new().unwrap());
        for folder in ["in", "out"] {
            fs::create_dir(place.0.path().join(folder)).unwrap();
            fs::write(place.0.path().join(folder).join("a.csv"), "n\n1\n").unwrap();
        }
        place
    }

    fn text(&self, sql: &str) -> String {
        let path = |name: &str| format!("{}/", self.0.path().join(name).display());
        sql.replace("IN/", &path("in")).replace("OUT/", &path("out"))
    }

    fn within(&self) -> Confinement {
        Confinement::default().within_folder(self.0.path().join("in")).unwrap()
    }
}

fn session(confinement: Confinement, runtime: &Arc<RuntimeEnv>) -> SessionContext {
    streaming_session_with_runtime(confinement.on(SessionConfig::new()), Arc::clone(runtime))
}

/// Runs statements by DataFusion's own entry, and gives the rows of the last.
async fn rows(ctx: &SessionContext, sql: &str) -> Result<usize> {
    let mut rows = 0;
    for statement in sql.split(';') {
        rows = ctx.sql(statement).await?.collect().await?.iter().map(|batch| batch.num_rows()).sum();
    }
    Ok(rows)
}

async fn is_refused(ctx: &SessionContext, sql: &str, told: &str) {
    let error = rows(ctx, sql).await.err().map(|error| error.to_string());
    assert!(error.as_ref().is_some_and(|error| error.contains(told)), "{sql}: {error:?}");
}

#[tokio::test]
async fn datafusions_own_entry_reaches_no_more() {
    let place = Place::new();
    let runtime = Arc::new(RuntimeEnv::default());
    let unbounded = "CREATE UNBOUNDED EXTERNAL TABLE u (n BIGINT) STORED AS CSV LOCATION";
    for sql in [
        "CREATE EXTERNAL TABLE t (n BIGINT) STORED AS CSV LOCATION 'OUT/a.csv'; SELECT * FROM t",
        "CREATE EXTERNAL TABLE t (n BIGINT) STORED AS CSV LOCATION 'OUT/'; INSERT INTO t VALUES (1)",
        "COPY (SELECT 1 AS n) TO 'OUT/b.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1 AS n) TO 'OUT/b.csv'",
    ] {
        is_refused(&session(place.within(), &runtime), &place.text(sql), "to which this session is confined").await;
    }
    for query in ["SELECT * FROM u", "SELECT 1 WHERE 1 IN (SELECT n FROM u)", "INSERT INTO u VALUES (1)"] {
        for file in ["'OUT/a.csv'", "'IN/a.csv'"] {
            let sql = place.text(&format!("{unbounded} {file}; {query}"));
            is_refused(&session(place.within(), &runtime), &sql, "in a session that is confined").await;
        }
    }
    for setting in ["SET datafusion.runtime.temp_directory = 'OUT/'", "RESET datafusion.runtime.memory_limit"] {
        let sql = place.text(&format!("{setting}; SELECT 1"));
        is_refused(&session(place.within(), &runtime), &sql, "settings of datafusion.runtime have been changed").await;
    }
    assert_eq!(fs::read_to_string(place.0.path().join("out/a.csv")).unwrap(), "n\n1\n");
    assert_eq!(fs::read_dir(place.0.path().join("out")).unwrap().count(), 1);
    let inside = "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'IN/a.csv'; SELECT * FROM t";
    assert_eq!(rows(&session(place.within(), &runtime), &place.text(inside)).await.unwrap(), 1);
}

/// What one session has read of a file is not known to another one over the same runtime.
#[tokio::test]
async fn caches_are_not_shared() {
    let place = Place::new();
    let runtime = Arc::new(RuntimeEnv::default());
    let copy = "COPY (SELECT 1 AS n) TO 'OUT/b.parquet'";
    let table = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'OUT/b.parquet'; SELECT count(*) FROM t";
    let free = streaming_session_with_runtime(SessionConfig::new(), Arc::clone(&runtime));
    rows(&free, &place.text(&format!("{copy}; {table}"))).await.unwrap();
    is_refused(&session(place.within(), &runtime), &place.text(table), "is outside of").await;
}

#[tokio::test]
async fn object_stores_of_other_places_are_outside_and_may_be_read_only() {
    let place = Place::new();
    let store = Arc::new(InMemory::new());
    store.put(&"a.csv".into(), "n\n1\n".into()).await.unwrap();
    let runtime = Arc::new(RuntimeEnv::default());
    runtime.register_object_store(&Url::parse("mem://bucket").unwrap(), Arc::clone(&store) as Arc<dyn ObjectStore>);
    let read = "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'mem://bucket/a.csv'; SELECT * FROM t";
    let write = "COPY (SELECT 1 AS n) TO 'mem://bucket/b.csv'";
    for sql in [read, write] {
        is_refused(&session(place.within(), &runtime), sql, "mem://bucket").await;
        is_refused(&session(place.within(), &runtime), sql, "is outside of").await;
    }
    let reads = || Confinement::default().reading_only();
    assert_eq!(rows(&session(reads(), &runtime), read).await.unwrap(), 1);
    is_refused(&session(reads(), &runtime), write, "this session only reads").await;
    let own = session(reads(), &runtime).stream_sql(write).await;
    let own = match own {
        Ok(query) => query.collect().await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(own.is_err_and(|error| error.to_string().contains("this session only reads")));
    assert!(store.head(&"b.csv".into()).await.is_err());
}
