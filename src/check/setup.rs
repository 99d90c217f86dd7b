//! The ways to run a statement: the answer is the same under all of them.

use std::fmt;

use datafusion::common::Result;
use datafusion::execution::context::SessionContext;
use datafusion::prelude::SessionConfig;

use crate::config::{ROUTINGS, STRATEGIES, StreamlinesOptions};
use crate::runtime::IN_MEMORY;
use crate::session::streaming_session;

/// Rows of a batch where nothing else is asked for.
const BATCH_ROWS: usize = 8192;

/// One way to run a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// `streamlines.strategy`.
    pub strategy: &'static str,
    /// `streamlines.partitions`, and DataFusion's; 0 means one for each core.
    pub partitions: usize,
    /// `streamlines.batch_rows`.
    pub batch_rows: usize,
    /// `streamlines.handoff_rows`, which only `single_queue` goes by.
    pub handoff_rows: usize,
    /// `streamlines.routing`.
    pub routing: &'static str,
    /// Whether a ledger of late rows is kept.
    pub ledger: bool,
}

impl Setup {
    /// Plain DataFusion over the same files as tables: the oracle.
    pub fn batch() -> Self {
        Self { strategy: "batch", partitions: 2, ..Self::stream() }
    }

    /// A stream under the settings that nobody has changed.
    pub fn stream() -> Self {
        Self {
            strategy: STRATEGIES[0],
            partitions: 0,
            batch_rows: BATCH_ROWS,
            handoff_rows: 1,
            routing: "auto",
            ledger: false,
        }
    }

    /// Every strategy that streams, with 1, 7 and 8192 rows of a batch; where pipelines run side by side, 1, 2 and 4 of
    /// them, and every routing; and where rows are handed over, whole batches and single rows.
    pub fn grid() -> Vec<Self> {
        let mut grid = vec![];
        for batch_rows in [1, 7, BATCH_ROWS] {
            let ledger = batch_rows == 7;
            let setup = |strategy, partitions, handoff_rows| {
                let setup = Self::stream();
                Self { strategy, partitions, batch_rows, handoff_rows, ledger, ..setup }
            };
            grid.extend([1, 2, 4].map(|partitions| setup("partitioned", partitions, 1)));
            if batch_rows > 1 {
                let routings = ROUTINGS.into_iter().filter(|routing| *routing != "auto");
                grid.extend(routings.map(|routing| Self { routing, ..setup("partitioned", 2, 1) }));
            }
            grid.push(setup("inline", 2, 1));
            grid.push(setup("single_queue", 2, if ledger { BATCH_ROWS } else { 1 }));
        }
        grid
    }

    /// The way to stream that a random number stands for. Batches of few rows are as likely as those of many.
    pub fn drawn(mut number: u64) -> Self {
        let mut draw = |count: usize| {
            let drawn = number % count as u64;
            number /= count as u64;
            usize::try_from(drawn).unwrap_or_default()
        };
        let strategies: Vec<_> = STRATEGIES.into_iter().filter(|strategy| *strategy != "batch").collect();
        let strategy = strategies[draw(strategies.len())];
        let routing = ROUTINGS[draw(ROUTINGS.len())];
        let partitions = 1 + draw(5);
        let most = 1 << draw(14);
        let batch_rows = most - draw(most) / 2;
        let ledger = draw(2) == 1;
        // Record by record it takes minutes over files of a user's.
        let handoff_rows = batch_rows.div_ceil(1 + draw(8));
        Self { strategy, partitions, batch_rows, handoff_rows, routing, ledger }
    }

    /// Whether this is plain DataFusion.
    pub fn is_batch(&self) -> bool {
        self.strategy == "batch"
    }

    /// A session under these settings.
    ///
    /// # Errors
    /// Settings that the session does not take.
    pub fn session(&self) -> Result<SessionContext> {
        let mut config = SessionConfig::new().with_option_extension(StreamlinesOptions::default());
        // Places in error messages need the parser to remember them.
        config.options_mut().sql_parser.collect_spans = true;
        let ctx = streaming_session(config);
        self.apply(&ctx)?;
        Ok(ctx)
    }

    /// Puts a session under these settings, whatever SET has made of them.
    ///
    /// # Errors
    /// Settings that the session does not take.
    pub fn apply(&self, ctx: &SessionContext) -> Result<()> {
        let state = ctx.state_ref();
        let mut state = state.write();
        let options = state.config_mut().options_mut();
        options.set("streamlines.strategy", self.strategy)?;
        options.set("streamlines.routing", self.routing)?;
        options.set("streamlines.late", if self.ledger { IN_MEMORY } else { "" })?;
        options.set("streamlines.partitions", &self.partitions.to_string())?;
        options.set("datafusion.execution.target_partitions", &self.partitions.to_string())?;
        options.set("streamlines.handoff_rows", &self.handoff_rows.to_string())?;
        options.set("streamlines.batch_rows", &self.batch_rows.to_string())
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { strategy, partitions, batch_rows, handoff_rows, routing, ledger } = self;
        match partitions {
            0 => write!(f, "{strategy}, partitions by cores")?,
            _ => write!(f, "{strategy}, partitions {partitions}")?,
        }
        write!(f, ", batch rows {batch_rows}")?;
        if *strategy == "single_queue" {
            write!(f, ", handoff rows {handoff_rows}")?;
        }
        if *routing != "auto" {
            write!(f, ", routing {routing}")?;
        }
        if *ledger { write!(f, ", ledger") } else { Ok(()) }
    }
}
