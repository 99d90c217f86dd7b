//! `streamlines explain`: how a query would run.

use std::io::Write;

use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use streamlines::{Error, Job, StreamlinesContext, parse_statements};

use super::interrupts::Interrupts;
use super::options::QueryOptions;
use super::time_limit::{ends_at_last, in_time, init};
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
    let interrupts = Interrupts::listen(options.time_limit);
    ends_at_last(options, &ctx);
    match explain_text(&ctx, sql, options, &interrupts).await {
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
    interrupts: &Interrupts,
) -> Result<String, (String, DataFusionError)> {
    init(ctx, options, interrupts).await?;
    in_time(plans_of(ctx, sql), options, interrupts).await.map_err(|error| (sql.to_string(), error))
}

async fn plans_of(ctx: &SessionContext, sql: &str) -> Result<String, DataFusionError> {
    let mut plans = vec![];
    for statement in parse_statements(ctx, sql)? {
        let planned = ctx.plan_statement(statement).await?;
        if planned.logical_plan().schema().fields().is_empty() {
            continue;
        }
        let logical = ctx.state().optimize(planned.logical_plan())?;
        let job = Job::new(planned).await?;
        plans.push(format!(
            "logical plan\n{}\n\nplan of a partition\n{}",
            indent(&logical.display_indent()),
            indent(&job.display())
        ));
    }
    if plans.is_empty() {
        let error = Error::sql("no query among the statements").help("explain takes a SELECT, COPY or INSERT");
        return Err(error.into());
    }
    Ok(plans.join("\n\n"))
}

fn indent(text: &impl std::fmt::Display) -> String {
    text.to_string().trim_end().lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
