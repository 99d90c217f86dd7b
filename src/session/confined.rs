//! What a statement of a confined session may not even begin to do.

use std::path::{Path, PathBuf};

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::{MemTable, source_as_provider};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::dml::DmlStatement;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement};
use url::Url;

use crate::confinement::{Access, Confinement};
use crate::error::Error;

/// Checks the settings that a statement changes and the places that it writes to.
///
/// # Errors
/// What is not allowed.
pub(super) fn check(ctx: &SessionContext, plan: &LogicalPlan) -> Result<()> {
    let Some(confinement) = Confinement::of(&ctx.copied_config()) else { return Ok(()) };
    plan.apply(|node| {
        match node {
            LogicalPlan::Statement(Statement::SetVariable(set)) => setting(&set.variable)?,
            LogicalPlan::Statement(Statement::ResetVariable(reset)) => setting(&reset.variable)?,
            LogicalPlan::Copy(copy) => confinement.check(local(&copy.output_url), Access::Write)?,
            LogicalPlan::Dml(insert) => {
                places(insert)?.iter().try_for_each(|place| confinement.check(place, Access::Write))?;
            }
            // DataFusion opens the files of such a table itself.
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(table)) if table.unbounded => {
                return Err(
                    refused("CREATE UNBOUNDED EXTERNAL TABLE", "CREATE STREAM reads files, and follows them").into()
                );
            }
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(table)) => {
                let is_local = |place: &&String| place.starts_with("file://") || !place.contains("://");
                let places = table.locations.iter().filter(is_local);
                places.map(|place| local(place)).try_for_each(|place| confinement.check(place, Access::Read))?;
            }
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
