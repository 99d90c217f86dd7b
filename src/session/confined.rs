//! What a statement of a confined session may not even begin to do.

use std::path::{Path, PathBuf};

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::source_as_provider;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::dml::DmlStatement;
use datafusion::logical_expr::{LogicalPlan, Statement};
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
            LogicalPlan::Copy(copy) => {
                let local = copy.output_url.strip_prefix("file://").unwrap_or(&copy.output_url);
                confinement.check(Path::new(local), Access::Write)?;
            }
            LogicalPlan::Dml(insert) => {
                places(insert)?.iter().try_for_each(|place| confinement.check(place, Access::Write))?;
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

/// The files that rows of an INSERT go to; none of a table in memory.
fn places(insert: &DmlStatement) -> Result<Vec<PathBuf>> {
    let provider = source_as_provider(&insert.target)?;
    let any: &dyn std::any::Any = provider.as_ref();
    let Some(table) = any.downcast_ref::<ListingTable>() else { return Ok(vec![]) };
    let local = |url: &Url| url.to_file_path().ok();
    Ok(table.table_paths().iter().filter_map(|path| local(&Url::parse(path.as_str()).ok()?)).collect())
}
