//! Who is measured: engines and the settings under which they answer.

use datafusion::common::Result;
use datafusion::execution::context::SessionContext;
use streamlines::{Setup, StreamlinesContext, parse_statements};

use super::options::{BenchOptions, ROUTINGS, STRATEGIES};

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Reads what the query needs and does nothing with it.
    Scan,
    /// Plain DataFusion.
    DataFusion,
    /// This engine.
    Streamlines,
    /// DuckDB.
    DuckDb,
}

impl Engine {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scan => "scan only",
            Self::DataFusion => "datafusion",
            Self::Streamlines => "streamlines",
            Self::DuckDb => "duckdb",
        }
    }
}

/// One way to get an answer.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub engine: Engine,
    pub setup: Setup,
    /// Whether its data has each symbol in every file.
    pub spread: bool,
    /// Whether it is a process of its own, from start to exit, that writes its rows as Parquet.
    pub is_process: bool,
}

impl Candidate {
    /// An engine in this process.
    pub fn new(engine: Engine, setup: Setup) -> Self {
        Self { engine, setup, spread: false, is_process: false }
    }

    /// The same by a process of its own.
    pub fn process(&self) -> Self {
        Self { is_process: true, ..self.clone() }
    }

    /// DuckDB with so many threads.
    pub fn duckdb(partitions: usize) -> Self {
        Self::new(Engine::DuckDb, Setup { partitions, ..Setup::batch() }).process()
    }

    /// Its engine or strategy, and whether it is a process.
    pub fn name(&self) -> String {
        let name = self.way();
        if self.is_process { format!("{name}, process") } else { name }
    }

    /// Its engine or strategy.
    pub fn way(&self) -> String {
        match self.engine {
            Engine::Streamlines if self.setup.strategy == "single_queue" => {
                format!("single_queue, handoff {}", self.setup.handoff_rows)
            }
            Engine::Streamlines => self.setup.strategy.to_string(),
            engine => engine.name().to_string(),
        }
    }

    /// How rows get to their pipeline, where that is a choice.
    pub fn routing(&self) -> &'static str {
        if self.engine == Engine::Streamlines { self.setup.routing } else { "" }
    }

    /// Everything that tells it from others.
    pub fn describe(&self) -> String {
        match self.engine {
            Engine::Streamlines => format!(
                "{}, routing {}, {} partitions, {} rows a batch",
                self.name(),
                self.setup.routing,
                self.setup.partitions,
                self.setup.batch_rows
            ),
            _ => format!("{}, {} partitions", self.name(), self.setup.partitions),
        }
    }

    /// A session under its settings, after statements.
    ///
    /// # Errors
    /// What is wrong with the statements.
    pub async fn session(&self, init: &str) -> Result<SessionContext> {
        let ctx = self.setup.session()?;
        for statement in parse_statements(&ctx, init)? {
            ctx.plan_statement(statement).await?;
        }
        Ok(ctx)
    }
}

/// Whom the options ask for, in the order of the table.
pub fn candidates(options: &BenchOptions) -> Vec<Candidate> {
    let each = |engine: Engine, setup: Setup| {
        let of = move |partitions| Candidate::new(engine, Setup { partitions, ..setup.clone() });
        options.partitions().into_iter().map(of)
    };
    // Reading takes the batches that those who do more are given first.
    let batch_rows = options.batch_rows.first().map_or(Setup::stream().batch_rows, |rows| *rows as usize);
    let mut all: Vec<_> = each(Engine::Scan, Setup { batch_rows, ..Setup::stream() }).collect();
    if options.is_against("datafusion") {
        all.extend(each(Engine::DataFusion, Setup::batch()));
    }
    all.extend(streamlines(options));
    all
}

/// This engine under each combination of settings.
pub fn streamlines(options: &BenchOptions) -> Vec<Candidate> {
    let mut all = vec![];
    let most = options.partitions().into_iter().max().unwrap_or(1);
    for strategy in STRATEGIES.into_iter().filter(|known| options.strategies.iter().any(|name| name == known)) {
        // The others run one pipeline after the other, however many there are.
        let partitions = if strategy == "partitioned" { options.partitions() } else { vec![most] };
        let handoffs = if strategy == "single_queue" { options.handoff_rows.as_slice() } else { &[1] };
        for routing in ROUTINGS.into_iter().filter(|known| options.routings.iter().any(|name| name == known)) {
            for (partitions, batch_rows) in pairs(&partitions, &options.batch_rows) {
                let setup = |handoff: &u32| Setup {
                    strategy,
                    partitions,
                    batch_rows: batch_rows as usize,
                    handoff_rows: *handoff as usize,
                    routing,
                    ledger: false,
                };
                // A query of the user's has its own files.
                let spread = options.sql.is_none() && !matches!(routing, "auto" | "aligned");
                let candidate = |handoff| Candidate { spread, ..Candidate::new(Engine::Streamlines, setup(handoff)) };
                all.extend(handoffs.iter().map(candidate));
            }
        }
    }
    all
}

fn pairs(partitions: &[usize], batch_rows: &[u32]) -> Vec<(usize, u32)> {
    partitions.iter().flat_map(|partitions| batch_rows.iter().map(|rows| (*partitions, *rows))).collect()
}
