//! A statement in DataFusion's syntax and its EMIT clause as one plan.

use std::any::Any;
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result, TableReference};
use datafusion::datasource::source_as_provider;
use datafusion::execution::context::SessionContext;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Extension, LogicalPlan};
use datafusion::sql::parser::Statement;
use tokio::sync::{Mutex, MutexGuard};

use crate::config::StreamlinesOptions;
use crate::error::{Error, Location};
use crate::plan::{Emit as EmitNode, fill_in_time_columns, reads_stream, refuse, refuse_endless};
use crate::source::{StreamTable, is_data_path};
use crate::sql::{Emit, places};

pub(super) async fn plan_query(
    statement: &mut Statement,
    emit: Option<Emit>,
    state: &SessionState,
) -> Result<LogicalPlan> {
    check_samples(statement)?;
    fill_in_time_columns(statement, state).await?;
    let plan = state.statement_to_plan(statement.clone()).await?;
    check_target(statement, &plan)?;
    if !is_batch(state) {
        refuse_endless::table(&plan)?;
    }
    let plan = match emit {
        Some(emit) => with_emit(plan, emit)?,
        None => plan,
    };
    if emit.is_some() || reads_stream(&plan) {
        check_streams(&plan, state)?;
    }
    Ok(plan)
}

/// Whether streams are read as tables, which end.
fn is_batch(state: &SessionState) -> bool {
    let options = state.config_options().extensions.get::<StreamlinesOptions>();
    options.is_some_and(|options| options.strategy == "batch")
}

/// DataFusion passes over TABLESAMPLE without a word.
fn check_samples(statement: &Statement) -> Result<()> {
    match places::sample(statement) {
        None => Ok(()),
        at => {
            let error = Error::sql("TABLESAMPLE is not known: all rows would be read").at(at);
            Err(error.help("WHERE random() < 0.1 takes about a tenth of the rows").into())
        }
    }
}

/// A stream is no table that could be written.
fn check_target(statement: &Statement, plan: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Dml(dml) = plan else { return Ok(()) };
    let provider = source_as_provider(&dml.target)?;
    if !(provider.as_ref() as &dyn Any).is::<StreamTable>() {
        return Ok(());
    }
    let name = dml.table_name.table();
    let error = Error::sql(format!("stream {name} cannot be written ({}): it is read from its files", dml.op.name()));
    let help = "COPY (SELECT …) TO 'folder/' STORED AS PARQUET writes files";
    Err(error.at(places::relation(statement, name)).help(help).into())
}

/// What cannot run as a stream is told here, where the statement is at hand: it knows places that a plan does not keep.
/// Views are checked where they are read, and queries with parameters when these are known.
fn check_streams(plan: &LogicalPlan, state: &SessionState) -> Result<()> {
    let is_kept = matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Statement(_));
    if is_kept || !plan.get_parameter_names()?.is_empty() {
        return Ok(());
    }
    state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {}).map(|_| ())
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
        LogicalPlan::Dml(_) if emit.mode.is_changes() => {
            return Err(refuse::changes_into_table(emit.mode, emit.at).into());
        }
        LogicalPlan::Dml(mut dml) => {
            dml.input = wrap(&dml.input)?;
            LogicalPlan::Dml(dml)
        }
        LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) if emit.mode.is_changes() => {
            return Err(refuse::changes_into_view(emit.mode, emit.at).into());
        }
        plan @ (LogicalPlan::Ddl(_) | LogicalPlan::Statement(_)) => plan,
        plan => wrap(&Arc::new(plan))?.as_ref().clone(),
    })
}

/// Quoted paths that are tables while one statement is planned.
pub(super) struct QuotedPaths {
    tables: Vec<TableReference>,
    /// The same path in a statement that is planned at the same time is another table of the same name.
    _alone: Option<MutexGuard<'static, ()>>,
}

static PLANNING_PATHS: Mutex<()> = Mutex::const_new(());

impl QuotedPaths {
    /// `FROM 'flights-*.parquet'`: a quoted path is a stream without declaration, known for this statement only.
    pub(super) async fn register(
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

    pub(super) fn deregister(self, ctx: &SessionContext) -> Result<()> {
        self.tables.into_iter().try_for_each(|table| ctx.deregister_table(table).map(|_| ()))
    }
}
