//! Checkpoints of jobs that were stopped half-way: damaged, which their checksums tell, and forged, with checksums that are right.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::{SessionConfig, SessionContext};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use streamlines::{FileSink, OutputFormat, StreamlinesContext, parse_statements, streaming_session};

use super::inputs::{mutated, mutated_within, mutated_words, words};
use super::{LONGEST_QUERY, Target};
use crate::Folder;

const QUERIES: [&str; 6] = [
    "SELECT origin, tumble(ts, INTERVAL '20 seconds') AS t, count(*), sum(fare) FROM trips GROUP BY 1, 2",
    "SELECT origin, session(ts, INTERVAL '1 minute') AS t, max(fare) FROM trips GROUP BY 1, 2",
    "SELECT origin, count(DISTINCT distance), avg(fare) FROM trips GROUP BY origin EMIT CHANGES WITH RETRACTIONS",
    "SELECT ts, sum(fare) OVER (PARTITION BY origin ORDER BY ts ROWS 2 PRECEDING) AS s FROM trips",
    "SELECT origin, hop(ts, INTERVAL '10 seconds', INTERVAL '30 seconds') AS t, min(fare) FROM trips GROUP BY 1, 2 ORDER BY 2, 1",
    "SELECT ts, fare, lag(fare, 2, 0.5) OVER (PARTITION BY origin ORDER BY ts) AS l FROM trips",
];

pub(super) struct Checkpoints {
    jobs: Vec<Stopped>,
}

impl Checkpoints {
    pub(super) async fn new() -> Self {
        let mut jobs = vec![];
        for query in QUERIES {
            jobs.push(Stopped::half_way(query).await);
        }
        Self { jobs }
    }
}

/// A job that was stopped, with what it has left.
struct Stopped {
    folder: Folder,
    query: &'static str,
    saved: Vec<(PathBuf, Vec<u8>)>,
    expected: Vec<String>,
}

impl Stopped {
    async fn half_way(query: &'static str) -> Self {
        let folder = Folder::with_trips();
        let mut job = Self { folder, query, saved: vec![], expected: vec![] };
        job.run(None).await.unwrap();
        job.expected = job.rows();
        assert!(!job.expected.is_empty(), "{query}");
        job.remove();
        job.run(Some("20rows/s")).await.unwrap();
        job.saved = files(job.folder.0.path());
        assert!(
            job.saved.iter().filter(|(path, _)| is_checkpoint(path)).count() > 1
                && job.rows().len() < job.expected.len()
        );
        job
    }

    fn path(&self, name: &str) -> String {
        self.folder.path(name).display().to_string()
    }

    async fn session(&self) -> SessionContext {
        let ctx = streaming_session(SessionConfig::new().with_target_partitions(2));
        let stream = "CREATE STREAM trips (WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) LOCATION";
        for statement in [
            format!("{stream} '{}'", self.path("trips.parquet")),
            format!("SET streamlines.checkpoint_dir = '{}'", self.path("saved")),
            "SET streamlines.checkpoint_interval = '2rows'".to_string(),
            "SET streamlines.batch_rows = 2".to_string(),
        ] {
            ctx.stream_sql(&statement).await.unwrap();
        }
        ctx
    }

    /// Runs the job, at a speed half-way.
    async fn run(&self, speed: Option<&str>) -> Result<()> {
        let ctx = self.session().await;
        if let Some(speed) = speed {
            ctx.stream_sql(&format!("SET streamlines.speed = '{speed}'")).await?;
        }
        let mut statements = parse_statements(&ctx, self.query)?;
        let job = ctx.plan_job(statements.remove(0)).await?;
        let sink = FileSink::local(&format!("{}/", self.path("out")), OutputFormat::Csv)?;
        let stops = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            job.stop();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = job.run(&sink) => ended.map(|_| ()),
            () = stops, if speed.is_some() => Ok(()),
        }
    }

    fn rows(&self) -> Vec<String> {
        let files = files(&self.folder.path("out")).into_iter();
        let files = files.filter(|(path, _)| path.extension().is_some_and(|extension| extension == "csv"));
        let mut rows: Vec<_> = files.flat_map(|(_, bytes)| lines(&bytes)).collect();
        rows.sort();
        rows
    }

    fn remove(&self) {
        let _ = fs::remove_dir_all(self.folder.path("saved"));
        let _ = fs::remove_dir_all(self.folder.path("out"));
    }

    /// As it was when the job was stopped.
    fn put_back(&self) {
        self.remove();
        for (path, bytes) in &self.saved {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// Changes some of it, and says whether checksums can tell that.
    fn change(&self, random: &mut ChaCha8Rng) -> bool {
        let mut can_be_told = true;
        let kept: Vec<_> = self.saved.iter().filter(|(path, _)| path.starts_with(self.folder.path("saved"))).collect();
        for _ in 0..random.random_range(1..3) {
            let (path, bytes) = kept.choose(random).unwrap();
            let forged = if random.random_bool(0.7) { forged(path, bytes, random) } else { None };
            can_be_told &= forged.is_none();
            fs::write(path, forged.unwrap_or_else(|| mutated(bytes, random))).unwrap();
        }
        can_be_told
    }
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().skip(1).map(str::to_string).collect()
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut names = vec![];
    if folder.is_dir() {
        crate::walk(folder, &mut names);
    }
    names.sort();
    let paths = names.into_iter().map(PathBuf::from).filter(|path| path.is_file());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn is_checkpoint(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "checkpoint")
}

/// A checkpoint or a description of a job with other content, as its writer would have sealed it.
fn forged(path: &Path, bytes: &[u8], random: &mut ChaCha8Rng) -> Option<Vec<u8>> {
    if !is_checkpoint(path) {
        let text = words(std::str::from_utf8(bytes).ok()?);
        return Some(mutated_words(&text, std::slice::from_ref(&text), random).concat().into_bytes());
    }
    let content = &bytes[..bytes.len() - 4];
    let length = u32::from_le_bytes(content[12..16].try_into().unwrap()) as usize;
    let (header, batches) = content[16..].split_at(length);
    let content = match random.random_bool(0.5) {
        true => mutated_within(content, 16 + length..content.len(), random),
        false => {
            let header = words(std::str::from_utf8(header).unwrap());
            let header = mutated_words(&header, std::slice::from_ref(&header), random).concat().into_bytes();
            [&content[..12], &(header.len() as u32).to_le_bytes(), &header, batches].concat()
        }
    };
    let sum = crc32fast::hash(&content);
    Some([&content[..], &sum.to_le_bytes()].concat())
}

impl Target for Checkpoints {
    async fn case(&mut self, random: &mut ChaCha8Rng) -> (String, Result<()>) {
        let job = self.jobs.choose(random).unwrap();
        job.put_back();
        let can_be_told = job.change(random);
        let ran = tokio::time::timeout(LONGEST_QUERY, job.run(None)).await;
        let same = || !can_be_told || job.rows() == job.expected;
        let result = match ran {
            Ok(Ok(())) if !same() => Err(DataFusionError::Execution("wrong rows".to_string())),
            Ok(result) => result,
            Err(_) => Ok(()),
        };
        (job.query.to_string(), result)
    }
}
