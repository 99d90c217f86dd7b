//! One statement carried out as far as it can be before rows are read: CREATE STREAM and DROP STREAM, settings, and
//! whatever DataFusion carries out itself.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::config::{ConfigExtension, ExtensionOptions};
use datafusion::common::{DataFusionError, Result, TableReference};
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{CreateMemoryTable, DdlStatement, LogicalPlan, Statement as PlanStatement, TableType};
use datafusion::sql::parser::Statement;

use crate::config::StreamlinesOptions;
use crate::error::{Error, Location, plain};
use crate::plan::reads_stream;
use crate::planning_errors::{told, unknown};
use crate::source::StreamTable;
use crate::sql::{CreateStream, StreamStatement, nearest, places};

use super::confined;
use super::query::{QuotedPaths, plan_query};
use super::resumed::divided_as_before;

/// What is left to do for a statement.
pub(super) enum Planned {
    /// Rows to read; none if the statement has been carried out.
    Query(DataFrame),
    /// A table to fill with the rows of a query.
    Table(CreateMemoryTable),
}

pub(super) async fn planned(ctx: &SessionContext, statement: StreamStatement) -> Result<Planned> {
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
            let plan = plan?;
            confined::check(ctx, &plan)?;
            if let LogicalPlan::Statement(PlanStatement::SetVariable(set)) = &plan {
                let (variable, value) = (set.variable.clone(), set.value.clone());
                let done = ctx.execute_logical_plan(plan).await.map(Planned::Query);
                return done.map_err(|error| not_set(ctx, &statement, &variable, &value, error));
            }
            plan
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
        plan if reads_stream(&plan) && !matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Statement(_)) => {
            Ok(Planned::Query(DataFrame::new(divided_as_before(ctx.state()).await?, plan)))
        }
        plan => ctx.execute_logical_plan(plan).await.map(Planned::Query),
    }
}

fn is_own_setting(variable: &str) -> bool {
    variable.split_once('.').is_some_and(|(prefix, _)| prefix == StreamlinesOptions::PREFIX)
}

/// Why a setting cannot have a value.
fn not_set(
    ctx: &SessionContext,
    statement: &Statement,
    variable: &str,
    value: &str,
    error: DataFusionError,
) -> DataFusionError {
    if Error::find(&error).is_some() {
        return error;
    }
    let entries = ctx.state().config_options().entries();
    let names = entries.iter().map(|entry| entry.key.as_str());
    if names.clone().all(|name| name != variable) {
        let told = Error::sql(format!("there is no setting {variable}"));
        return match nearest(variable, names) {
            Some(nearest) => told.help(format!("did you mean {nearest}?")).into(),
            None => told.help("SHOW ALL lists the settings; ours begin with streamlines.").into(),
        };
    }
    let told = Error::sql(format!("{variable} cannot be '{value}': {}", plain(&error)));
    told.at(places::text(statement, value)).help(format!("SHOW {variable} gives what it is now")).into()
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
