//! Statements: those of the tests of SQL (`testdata/slt`) with words of each other, over small streams.

use std::fs;

use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use streamlines::{Confinement, StreamlinesContext, streaming_session, streaming_session_with_runtime};
use tempfile::TempDir;

use super::inputs::{mutated, mutated_words, words};
use super::{Target, run};

/// Then a session is a new one: statements leave tables and settings behind.
const CASES_OF_A_SESSION: usize = 100;

pub(super) struct Statements {
    folder: TempDir,
    corpus: Vec<Vec<String>>,
    session: SessionContext,
    cases: usize,
}

impl Statements {
    pub(super) async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let sample = streaming_session(SessionConfig::new());
        for origin in ["EWR", "JFK", "LGA"] {
            let (from, to) = (format!("testdata/nycflights/flights-{origin}.parquet"), folder.path().display());
            let copy = format!("COPY (SELECT * FROM '{from}' LIMIT 200) TO '{to}/flights-{origin}.parquet'");
            sample.stream_sql(&copy).await.unwrap().collect().await.unwrap();
        }
        for file in ["nycflights/airlines.csv", "slt/data/readings.csv", "slt/data/rooms.csv"] {
            let name = file.rsplit('/').next().unwrap();
            fs::copy(format!("testdata/{file}"), folder.path().join(name)).unwrap();
        }
        let session = session(&folder).await;
        Self { folder, corpus: corpus(), session, cases: 0 }
    }
}

/// A session that reads a folder and writes nothing, with the streams that statements are over.
async fn session(folder: &TempDir) -> SessionContext {
    let confinement = Confinement::default().within_folder(folder.path()).unwrap().reading_only();
    let config = confinement.on(SessionConfig::new().with_target_partitions(2));
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(256 << 20, 1.0).build_arc().unwrap();
    let ctx = streaming_session_with_runtime(config, runtime);
    let at = folder.path().display();
    for statement in [
        format!(
            "CREATE STREAM flights (WATERMARK FOR scheduled AS scheduled - INTERVAL '3' HOUR) STORED AS PARQUET
             LOCATION '{at}/flights-*.parquet' OPTIONS ('partitioned_by' 'origin')"
        ),
        format!("CREATE STREAM sequence (WATERMARK FOR scheduled) LOCATION '{at}/flights-*.parquet'"),
        format!("CREATE STREAM readings (WATERMARK FOR ts) STORED AS CSV LOCATION '{at}/readings.csv'"),
        format!("CREATE EXTERNAL TABLE rooms STORED AS CSV LOCATION '{at}/rooms.csv' OPTIONS ('has_header' 'true')"),
        format!(
            "CREATE EXTERNAL TABLE airlines STORED AS CSV LOCATION '{at}/airlines.csv' OPTIONS ('has_header' 'true')"
        ),
        "SET streamlines.partitions = 2".to_string(),
    ] {
        ctx.stream_sql(&statement).await.unwrap();
    }
    ctx
}

/// The statements of the tests of SQL, word by word.
fn corpus() -> Vec<Vec<String>> {
    let mut files: Vec<_> = fs::read_dir("testdata/slt").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    let mut statements = vec![];
    for text in files.iter().map(|path| fs::read_to_string(path).unwrap()) {
        for record in text.split("\n\n") {
            let lines = record.lines().skip_while(|line| !line.starts_with("statement") && !line.starts_with("query"));
            let sql: Vec<_> = lines.skip(1).take_while(|line| *line != "----").collect();
            statements.push(words(&sql.join("\n")));
        }
    }
    statements.retain(|words| words.len() > 3);
    assert!(statements.len() > 300, "{}", statements.len());
    statements
}

impl Target for Statements {
    async fn case(&mut self, random: &mut ChaCha8Rng) -> (String, Result<()>) {
        self.cases += 1;
        if self.cases.is_multiple_of(CASES_OF_A_SESSION) {
            self.session = session(&self.folder).await;
        }
        let statement = mutated_words(self.corpus.choose(random).unwrap(), &self.corpus, random).concat();
        let sql = match random.random_range(0..10) {
            0 => String::from_utf8_lossy(&mutated(statement.as_bytes(), random)).into_owned(),
            1 => format!("SELECT * FROM ({statement}) AS a, ({statement}) AS b LIMIT 3"),
            2 => format!("EXPLAIN {statement}"),
            3 => format!("{statement} EMIT CHANGES WITH RETRACTIONS"),
            4 => deep(&statement, random),
            _ => statement,
        };
        let ran = run(&self.session, &sql).await;
        (sql, ran)
    }
}

/// The statement, or a part of an expression, within itself many times. (Chains of operators are short: DataFusion takes minutes to
/// plan one of thousands, and its stack overflows, as SECURITY.md says.)
fn deep(statement: &str, random: &mut ChaCha8Rng) -> String {
    let times = *[10, 60, 1000, 20_000].choose(random).unwrap();
    match random.random_range(0..5) {
        0 => format!("{}{statement}{}", "SELECT * FROM (".repeat(times), ")".repeat(times)),
        1 => format!("SELECT {}1{} FROM flights", "(".repeat(times), ")".repeat(times)),
        2 => format!("SELECT 1{} FROM flights", " + 1".repeat(times.min(60))),
        3 => format!("SELECT * FROM flights WHERE {}true", "NOT ".repeat(times)),
        _ => vec![statement; times.min(60)].join(" UNION ALL "),
    }
}
