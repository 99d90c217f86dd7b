//! `streamlines explain`: how a query would run.

use std::io::Write;

use datafusion::prelude::SessionContext;
use streamlines::{Error, Job, StreamlinesContext, parse_statements};

use super::options::QueryOptions;
use super::{FAILED, USAGE, errors, session};

/// Prints the logical plan and the plan of a partition, in which the boundary names strategy, routing and reason.
pub async fn explain(sql: &str, options: &QueryOptions) -> u8 {
    let ctx = match session::open(options).await {
        Ok(ctx) => ctx,
        Err(error) => {
            errors::print("", &error);
            return USAGE;
        }
    };
    match explain_text(&ctx, sql, options).await {
        Ok(text) => {
            // That nobody reads it is no failure.
            let _ = writeln!(std::io::stdout(), "{text}");
            0
        }
        Err((sql, error)) => {
            errors::print(&sql, &error);
            FAILED
        }
    }
}

async fn explain_text(
    ctx: &SessionContext,
    sql: &str,
    options: &QueryOptions,
) -> Result<String, (String, datafusion::error::DataFusionError)> {
    let here = |error| (sql.to_string(), error);
    session::init(ctx, options.init.as_deref(), options.quiet).await?;
    let mut plans = vec![];
    for statement in parse_statements(ctx, sql).map_err(here)? {
        let planned = ctx.plan_statement(statement).await.map_err(here)?;
        if planned.logical_plan().schema().fields().is_empty() {
            continue;
        }
        let logical = ctx.state().optimize(planned.logical_plan()).map_err(here)?;
        let job = Job::new(planned).await.map_err(here)?;
        plans.push(format!(
            "logical plan\n{}\n\nplan of a partition\n{}",
            indent(&logical.display_indent()),
            indent(&job.display())
        ));
    }
    if plans.is_empty() {
        let error = Error::sql("no query among the statements").help("explain takes a SELECT, COPY or INSERT");
        return Err(here(error.into()));
    }
    Ok(plans.join("\n\n"))
}

fn indent(text: &impl std::fmt::Display) -> String {
    text.to_string().trim_end().lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
