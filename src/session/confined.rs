//! What a statement of a confined session may not even begin to do.
//!
//! Statements of [`StreamlinesContext`](crate::StreamlinesContext) are looked at before anything is done for them. What comes by
//! `SessionContext::sql` nobody sees before the planner of queries ([`ConfinedPlanner`]): by then a setting may have been
//! changed, and a table made, but no row has been read or written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::stream::StreamTable as UnboundedTable;
use datafusion::datasource::{MemTable, source_as_provider};
use datafusion::execution::context::{QueryPlanner, SessionContext};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::dml::DmlStatement;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement, TableScan};
use datafusion::physical_plan::ExecutionPlan;
use url::Url;

use crate::confinement::{Access, Confinement};
use crate::error::Error;
use crate::plan::StreamQueryPlanner;

/// Plans the queries of a confined session.
#[derive(Debug)]
pub(super) struct ConfinedPlanner {
    inner: StreamQueryPlanner,
    /// The memory, disk and object stores that the session was given.
    runtime: Arc<RuntimeEnv>,
}

impl ConfinedPlanner {
    pub(super) fn new(runtime: Arc<RuntimeEnv>) -> Self {
        Self { inner: StreamQueryPlanner, runtime }
    }
}

#[async_trait]
impl QueryPlanner for ConfinedPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        if !Arc::ptr_eq(session.runtime_env(), &self.runtime) {
            let help = "make another session, in which SQL of others comes by stream_sql";
            return Err(refused("settings of datafusion.runtime have been changed", help).into());
        }
        if let Some(confinement) = Confinement::of(session.config()) {
            check_plan(&confinement, plan)?;
        }
        self.inner.create_physical_plan(plan, session).await
    }
}

/// Checks the settings that a statement changes and the places that it writes to.
///
/// # Errors
/// What is not allowed.
pub(super) fn check(ctx: &SessionContext, plan: &LogicalPlan) -> Result<()> {
    match Confinement::of(&ctx.copied_config()) {
        Some(confinement) => check_plan(&confinement, plan),
        None => Ok(()),
    }
}

fn check_plan(confinement: &Confinement, plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Statement(Statement::SetVariable(set)) => setting(&set.variable)?,
            LogicalPlan::Statement(Statement::ResetVariable(reset)) => setting(&reset.variable)?,
            LogicalPlan::Copy(copy) => confinement.check(local(&copy.output_url), Access::Write)?,
            LogicalPlan::Dml(insert) => {
                places(insert)?.iter().try_for_each(|place| confinement.check(place, Access::Write))?;
            }
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(table)) if table.unbounded => return Err(unbounded()),
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(table)) => {
                let is_local = |place: &&String| place.starts_with("file://") || !place.contains("://");
                let places = table.locations.iter().filter(is_local);
                places.map(|place| local(place)).try_for_each(|place| confinement.check(place, Access::Read))?;
            }
            LogicalPlan::TableScan(scan) if is_unbounded(scan) => return Err(unbounded()),
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// What a session may take of memory and disk is as whoever has started it says.
fn setting(variable: &str) -> std::result::Result<(), Error> {
    match variable.starts_with("datafusion.runtime.") {
        true => {
            let error = Error::sql(format!("{variable} cannot be changed, for this session is confined"));
            Err(error.help("who has started it can set it: --set, --memory-limit"))
        }
        false => Ok(()),
    }
}

/// Whether DataFusion opens the files of a table itself, and not by an object store.
fn is_unbounded(scan: &TableScan) -> bool {
    source_as_provider(&scan.source).is_ok_and(|table| (table.as_ref() as &dyn std::any::Any).is::<UnboundedTable>())
}

fn unbounded() -> DataFusionError {
    refused("UNBOUNDED EXTERNAL TABLE", "CREATE STREAM reads files, and follows them").into()
}

fn refused(what: &str, help: &str) -> Error {
    Error::sql(format!("{what} in a session that is confined")).help(help)
}

fn local(place: &str) -> &Path {
    Path::new(place.strip_prefix("file://").unwrap_or(place))
}

/// The files that rows of an INSERT go to; none of a table in memory.
///
/// # Errors
/// A table of a kind that may write anywhere.
fn places(insert: &DmlStatement) -> Result<Vec<PathBuf>> {
    let provider = source_as_provider(&insert.target)?;
    let any: &dyn std::any::Any = provider.as_ref();
    if any.is::<MemTable>() {
        return Ok(vec![]);
    }
    let Some(table) = any.downcast_ref::<ListingTable>() else {
        return Err(refused("INSERT into this table", "INSERT into a table of files, or one in memory").into());
    };
    let local = |url: &Url| url.to_file_path().ok();
    Ok(table.table_paths().iter().filter_map(|path| local(&Url::parse(path.as_str()).ok()?)).collect())
}
