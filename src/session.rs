//! A DataFusion session learns to stream.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::config::{ConfigExtension, ExtensionOptions};
use datafusion::common::{DataFusionError, Result, TableReference};
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{
    CreateMemoryTable, DdlStatement, Extension, LogicalPlan, Statement as PlanStatement, TableType,
};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement;
use tokio::sync::{Mutex, MutexGuard};

use crate::config::StreamlinesOptions;
use crate::error::{Error, Location};
use crate::plan::{Emit as EmitNode, StreamAnalyzer, StreamQueryPlanner, fill_in_time_columns, functions};
use crate::planning_errors::{told, unknown};
use crate::runtime::Job;
use crate::sink::NullSink;
use crate::source::{Lateness, StreamTable, is_data_path};
use crate::sql::{self, CreateStream, Emit, StreamStatement};

/// Adds streaming to the state of a session that is being built.
pub trait StreamlinesStateBuilder {
    /// Registers the `streamlines.*` settings, the window functions, the analyzer rule and the query planner.
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
        let mut scalar = self.scalar_functions().take().unwrap_or_default();
        scalar.extend(functions::all_functions());
        self.with_config(config)
            .with_scalar_functions(scalar)
            .with_analyzer_rule(Arc::new(StreamAnalyzer))
            .with_query_planner(Arc::new(StreamQueryPlanner))
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
        match planned(self, statement).await? {
            Planned::Query(query) => Job::new(query).await,
            Planned::Table(table) => Job::into_table(self, table).await,
        }
    }
}

/// What to ask of a stream's rows.
#[derive(Debug, Clone, Default)]
pub struct LatenessQuestion {
    /// The event-time column; none takes the one that the stream declares.
    pub time: Option<String>,
    /// A column each of whose values is a sequence of its own, instead of each data partition.
    pub by: Option<String>,
    /// Length of the tumbling windows that keep a row until they close; none counts every row behind the watermark.
    pub window: Option<Duration>,
    /// Bounds to count exactly, besides those that lose some shares of the rows.
    pub bounds: Vec<Duration>,
}

/// Says how late the rows of a stream are, by its name or by the path of its files. Reads its event times only.
///
/// # Errors
/// No such stream, files or columns; rows that cannot be read.
pub async fn lateness(ctx: &SessionContext, stream: &str, question: &LatenessQuestion) -> Result<Lateness> {
    let known = ctx.table_provider(TableReference::from(stream)).await.ok();
    let known = known.and_then(|table| {
        let any: Arc<dyn std::any::Any + Send + Sync> = table;
        any.downcast::<StreamTable>().ok()
    });
    let table = match known {
        Some(table) => table,
        None if is_data_path(stream) => {
            Arc::new(StreamTable::from_path(stream, Location { line: 1, column: 1 }, &ctx.state()).await?)
        }
        None => return Err(unknown(ctx, "stream", stream).into()),
    };
    let nanoseconds = |duration: &Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let window_ns = question.window.as_ref().map(nanoseconds);
    let bounds_ns: Vec<i64> = question.bounds.iter().map(nanoseconds).collect();
    let (time, by) = (question.time.as_deref(), question.by.as_deref());
    table.lateness(time, by, window_ns, &bounds_ns, &ctx.task_ctx()).await
}

/// What is left to do for a statement.
enum Planned {
    /// Rows to read; none if the statement has been carried out.
    Query(DataFrame),
    /// A table to fill with the rows of a query.
    Table(CreateMemoryTable),
}

async fn planned(ctx: &SessionContext, statement: StreamStatement) -> Result<Planned> {
    let plan = match statement {
        StreamStatement::CreateStream(definition) => return create_stream(ctx, &definition).await.map(Planned::Query),
        StreamStatement::DropStream { name, if_exists, at } => {
            return drop_stream(ctx, &name, if_exists, at).await.map(Planned::Query);
        }
        StreamStatement::Query { mut statement, emit, quoted } => {
            let state = ctx.state();
            let paths = QuotedPaths::register(ctx, &state, &statement, &quoted).await?;
            let plan = plan_query(&mut statement, emit, &state).await;
            let plan = plan.map_err(|error| told(ctx, &statement, error));
            paths.deregister(ctx)?;
            plan?
        }
    };
    match plan {
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) if is_to_fill(ctx, &table)? => {
            Ok(Planned::Table(table))
        }
        LogicalPlan::Statement(PlanStatement::ResetVariable(reset)) if is_own_setting(&reset.variable) => {
            reset_setting(ctx, &reset.variable)?;
            ctx.read_empty().map(Planned::Query)
        }
        LogicalPlan::Ddl(DdlStatement::DropTable(drop)) => {
            let name = drop.name.to_string();
            let dropped = ctx.execute_logical_plan(LogicalPlan::Ddl(DdlStatement::DropTable(drop))).await;
            dropped.map(Planned::Query).map_err(|error| match error.to_string().ends_with("doesn't exist.") {
                true => unknown(ctx, "table", &name).into(),
                false => error,
            })
        }
        plan => ctx.execute_logical_plan(plan).await.map(Planned::Query),
    }
}

fn is_own_setting(variable: &str) -> bool {
    variable.split_once('.').is_some_and(|(prefix, _)| prefix == StreamlinesOptions::PREFIX)
}

/// DataFusion resets its own settings only.
fn reset_setting(ctx: &SessionContext, variable: &str) -> Result<()> {
    let defaults = StreamlinesOptions::default().entries();
    let default = defaults.iter().find(|entry| entry.key == variable).and_then(|entry| entry.value.as_ref());
    let default = default.ok_or_else(|| {
        let error = Error::sql(format!("there is no setting {variable}"));
        error.help("SHOW ALL lists the settings; ours begin with streamlines.")
    })?;
    ctx.state_ref().write().config_mut().options_mut().set(variable, default)
}

/// Whether a table will be filled; if not, it is there already, or DataFusion knows what is wrong.
fn is_to_fill(ctx: &SessionContext, table: &CreateMemoryTable) -> Result<bool> {
    let replaces = table.or_replace && !table.if_not_exists;
    Ok(!table.temporary && (replaces || !ctx.table_exist(table.name.clone())?))
}

async fn drop_stream(ctx: &SessionContext, name: &[String], if_exists: bool, at: Location) -> Result<DataFrame> {
    let table = ctx.table_provider(table_reference(name)).await.ok();
    let found = table.as_ref().is_some_and(is_stream);
    if let Some(table) = table.filter(|_| !found) {
        let kind = if table.table_type() == TableType::View { "VIEW" } else { "TABLE" };
        let name = name.join(".");
        let error = Error::sql(format!("{name} is a {}, not a stream", kind.to_lowercase())).at(Some(at));
        return Err(error.help(format!("DROP {kind} {name}")).into());
    }
    if !found && !if_exists {
        return Err(unknown(ctx, "stream", &name.join(".")).at(Some(at)).into());
    }
    if found {
        ctx.deregister_table(table_reference(name))?;
    }
    ctx.read_empty()
}

async fn plan_query(statement: &mut Statement, emit: Option<Emit>, state: &SessionState) -> Result<LogicalPlan> {
    fill_in_time_columns(statement, state).await?;
    let plan = state.statement_to_plan(statement.clone()).await?;
    match emit {
        Some(emit) => with_emit(plan, emit),
        None => Ok(plan),
    }
}

/// Puts the EMIT clause above the query that it stood at the end of.
fn with_emit(plan: LogicalPlan, emit: Emit) -> Result<LogicalPlan> {
    let wrap = |input: &Arc<LogicalPlan>| {
        let node = EmitNode::try_new(Arc::clone(input), emit.mode, emit.at)?;
        Ok::<_, DataFusionError>(Arc::new(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
    };
    Ok(match plan {
        LogicalPlan::Explain(mut explain) => {
            explain.plan = Arc::new(with_emit(explain.plan.as_ref().clone(), emit)?);
            LogicalPlan::Explain(explain)
        }
        LogicalPlan::Analyze(mut analyze) => {
            analyze.input = Arc::new(with_emit(analyze.input.as_ref().clone(), emit)?);
            LogicalPlan::Analyze(analyze)
        }
        LogicalPlan::Copy(mut copy) => {
            copy.input = wrap(&copy.input)?;
            LogicalPlan::Copy(copy)
        }
        LogicalPlan::Dml(mut dml) => {
            dml.input = wrap(&dml.input)?;
            LogicalPlan::Dml(dml)
        }
        LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) if emit.mode.is_changes() => {
            return Err(Error::refused(
                "EMIT CHANGES in a statement that keeps its rows",
                "a view or a table has no place for changes",
                "put EMIT CHANGES at the end of the query that reads it",
            )
            .at(Some(emit.at))
            .into());
        }
        plan @ (LogicalPlan::Ddl(_) | LogicalPlan::Statement(_)) => plan,
        plan => wrap(&Arc::new(plan))?.as_ref().clone(),
    })
}

async fn create_stream(ctx: &SessionContext, definition: &CreateStream) -> Result<DataFrame> {
    let reference = table_reference(&definition.name);
    let exists = ctx.table_exist(reference.clone())?;
    if exists && definition.if_not_exists {
        return ctx.read_empty();
    }
    if exists && !definition.or_replace {
        return Err(Error::sql(format!("stream {} exists already", definition.name.join(".")))
            .at(Some(definition.at))
            .help("CREATE OR REPLACE STREAM …, or DROP STREAM first")
            .into());
    }
    let table = StreamTable::open(definition, &ctx.state()).await?;
    if exists {
        ctx.deregister_table(reference.clone())?;
    }
    ctx.register_table(reference, Arc::new(table))?;
    ctx.read_empty()
}

fn is_stream(table: &Arc<dyn TableProvider>) -> bool {
    let any: &dyn std::any::Any = table.as_ref();
    any.is::<StreamTable>()
}

fn table_reference(name: &[String]) -> TableReference {
    match name {
        [catalog, schema, table, ..] => TableReference::full(catalog.as_str(), schema.as_str(), table.as_str()),
        [schema, table] => TableReference::partial(schema.as_str(), table.as_str()),
        _ => TableReference::bare(name.concat()),
    }
}

/// Quoted paths that are tables while one statement is planned.
struct QuotedPaths {
    tables: Vec<TableReference>,
    /// The same path in a statement that is planned at the same time is another table of the same name.
    _alone: Option<MutexGuard<'static, ()>>,
}

static PLANNING_PATHS: Mutex<()> = Mutex::const_new(());

impl QuotedPaths {
    /// `FROM 'flights-*.parquet'`: a quoted path is a stream without declaration, known for this statement only.
    async fn register(
        ctx: &SessionContext,
        state: &SessionState,
        statement: &Statement,
        quoted: &[(String, Location)],
    ) -> Result<Self> {
        let mut paths = state.resolve_table_references(statement)?;
        paths.retain(|reference| matches!(reference, TableReference::Bare { table } if is_data_path(table)));
        if paths.is_empty() {
            return Ok(Self { tables: paths, _alone: None });
        }
        let alone = PLANNING_PATHS.lock().await;
        let mut opened = vec![];
        for reference in paths {
            if ctx.table_exist(reference.clone())? {
                continue;
            }
            let at = quoted.iter().find(|(text, _)| text.as_str() == reference.table());
            let at = at.map_or(Location { line: 1, column: 1 }, |(_, at)| *at);
            let stream = StreamTable::from_path(reference.table(), at, state).await?;
            opened.push((reference, Arc::new(stream)));
        }
        // Not before all of them are open, so that a failure leaves no name behind.
        let mut registered = Self { tables: vec![], _alone: Some(alone) };
        for (reference, stream) in opened {
            ctx.register_table(reference.clone(), stream)?;
            registered.tables.push(reference);
        }
        Ok(registered)
    }

    fn deregister(self, ctx: &SessionContext) -> Result<()> {
        self.tables.into_iter().try_for_each(|table| ctx.deregister_table(table).map(|_| ()))
    }
}
