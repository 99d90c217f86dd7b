//! A DataFusion session learns to stream.

mod confined;
mod lateness;
mod query;
mod resumed;
mod statement;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::Result;
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::{QueryPlanner, SessionContext};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionConfig;

use crate::config::StreamlinesOptions;
use crate::confinement::Confinement;
use crate::error::Error;
use crate::plan::{StreamAnalyzer, StreamQueryPlanner, functions};
use crate::planning_errors::told;
use crate::runtime::Job;
use crate::sink::NullSink;
use crate::source::{LiveStream, StreamTable};
use crate::sql::{self, StreamStatement};

use confined::ConfinedPlanner;
pub use lateness::{LatenessQuestion, lateness};
use statement::{Planned, planned};

/// Adds streaming to the state of a session that is being built.
pub trait StreamlinesStateBuilder {
    /// Registers the `streamlines.*` settings, the window functions, the analyzer rule and the query planner. If the
    /// configuration has a [`Confinement`], local files are confined; so the runtime environment is to be there before.
    ///
    /// ```
    /// use datafusion::execution::session_state::SessionStateBuilder;
    /// use datafusion::prelude::SessionContext;
    /// use streamlines::StreamlinesStateBuilder;
    ///
    /// let state = SessionStateBuilder::new().with_default_features().with_streamlines().build();
    /// let ctx = SessionContext::new_with_state(state);
    /// ```
    fn with_streamlines(self) -> Self;
}

impl StreamlinesStateBuilder for SessionStateBuilder {
    fn with_streamlines(mut self) -> Self {
        let mut config = self.config().take().unwrap_or_default();
        if config.options().extensions.get::<StreamlinesOptions>().is_none() {
            config = config.with_option_extension(StreamlinesOptions::default());
        }
        let mut planner: Arc<dyn QueryPlanner + Send + Sync> = Arc::new(StreamQueryPlanner);
        if let Some(confinement) = Confinement::of(&config) {
            let runtime = confinement.confine(&self.runtime_env().take().unwrap_or_default());
            planner = Arc::new(ConfinedPlanner::new(Arc::clone(&runtime)));
            *self.runtime_env() = Some(runtime);
        }
        let mut scalar = self.scalar_functions().take().unwrap_or_default();
        scalar.extend(functions::all_functions());
        self.with_config(config)
            .with_scalar_functions(scalar)
            .with_analyzer_rule(Arc::new(StreamAnalyzer))
            .with_query_planner(planner)
    }
}

/// A session that streams, with DataFusion's default features and `information_schema` (for SHOW TABLES).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> datafusion::error::Result<()> {
/// use streamlines::{StreamlinesContext, streaming_session};
///
/// let ctx = streaming_session(Default::default());
/// let rows = ctx.stream_sql("SELECT tumble(TIMESTAMP '2013-01-01T06:35:00', INTERVAL '1 hour') AS hour").await?;
/// assert_eq!(rows.collect().await?[0].num_rows(), 1);
/// # Ok(())
/// # }
/// ```
pub fn streaming_session(config: SessionConfig) -> SessionContext {
    streaming_session_with_runtime(config, Arc::new(RuntimeEnv::default()))
}

/// The same over a runtime environment of the caller's: memory pool, object stores, disk manager.
pub fn streaming_session_with_runtime(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionContext {
    let config = config.with_information_schema(true);
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_streamlines()
        .build();
    SessionContext::new_with_state(state)
}

/// Streaming SQL on a [`SessionContext`].
#[async_trait]
pub trait StreamlinesContext {
    /// Plans one statement: everything that DataFusion takes, CREATE STREAM and DROP STREAM, the window spellings,
    /// and EMIT at the end of a query. DDL is carried out at once and gives an empty DataFrame.
    ///
    /// # Errors
    /// [`Error`] with line and column for SQL that cannot be read; DataFusion's planning errors; several statements
    /// in one text.
    async fn stream_sql(&self, sql: &str) -> Result<DataFrame>;

    /// Makes a stream of batches that the program makes itself known under a name, for one query to read it.
    ///
    /// # Errors
    /// The name is taken; the watermark is of no column that holds times.
    fn register_live(&self, name: &str, stream: LiveStream) -> Result<()>;

    /// Plans one statement of a text that [`parse_statements`] has read.
    ///
    /// # Errors
    /// As [`StreamlinesContext::stream_sql`].
    async fn plan_statement(&self, statement: StreamStatement) -> Result<DataFrame>;

    /// The same as a job, to be watched and stopped: here the rows of CREATE TABLE … AS are still to be read.
    ///
    /// # Errors
    /// As [`StreamlinesContext::stream_sql`], and the reason why a query cannot run as a stream.
    async fn plan_job(&self, statement: StreamStatement) -> Result<Job>;
}

/// Reads a text of several statements, separated by semicolons.
///
/// # Errors
/// [`Error`] with line and column.
pub fn parse_statements(ctx: &SessionContext, sql: &str) -> Result<Vec<StreamStatement>> {
    let state = ctx.state();
    let name = state.config_options().sql_parser.dialect.to_string();
    let dialect = datafusion::sql::sqlparser::dialect::dialect_from_str(&name)
        .ok_or_else(|| Error::sql(format!("unknown SQL dialect '{name}'")))?;
    sql::parse(sql, dialect.as_ref())
}

#[async_trait]
impl StreamlinesContext for SessionContext {
    async fn stream_sql(&self, sql: &str) -> Result<DataFrame> {
        let mut statements = parse_statements(self, sql)?;
        match (statements.pop(), statements.is_empty()) {
            (Some(statement), true) => self.plan_statement(statement).await,
            (None, _) => Err(Error::sql("no statement").into()),
            _ => Err(Error::sql("several statements")
                .help("read them with parse_statements and plan them one by one with plan_statement")
                .into()),
        }
    }

    fn register_live(&self, name: &str, stream: LiveStream) -> Result<()> {
        if self.table_exist(name)? {
            let error = Error::sql(format!("stream {name} exists already"));
            return Err(error.help("take another name, or DROP STREAM first").into());
        }
        self.register_table(name, Arc::new(StreamTable::of_batches(name, stream)?))?;
        Ok(())
    }

    async fn plan_statement(&self, statement: StreamStatement) -> Result<DataFrame> {
        match planned(self, statement).await? {
            Planned::Query(query) => Ok(query),
            Planned::Table(table) => {
                Job::into_table(self, table).await?.run(&NullSink).await?;
                self.read_empty()
            }
        }
    }

    async fn plan_job(&self, statement: StreamStatement) -> Result<Job> {
        let sql = match &statement {
            StreamStatement::Query { statement, .. } => Some(statement.clone()),
            _ => None,
        };
        let job = match planned(self, statement).await? {
            Planned::Query(query) => Job::new(query).await,
            Planned::Table(table) => Job::into_table(self, table).await,
        };
        job.map_err(|error| match sql {
            Some(sql) if Error::find(&error).is_none() => told(self, &sql, error),
            _ => error,
        })
    }
}
