//! What plain DataFusion answers where SQL leaves the order of rows open, if that is the order of a stream: by partition,
//! then row. Each row gets its place, and OVER and aggregates order by it where rows tie.

use std::sync::Arc;

use datafusion::common::{Column, Result};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{
    Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Projection, SortExpr, SubqueryAlias, TableScan, Window,
};

use crate::plan::stream_of;
use crate::source::{LeftOut, PLACE};

use super::question::{depends_on_order, takes_rows};

/// The plan over the same streams without the rows `left_out`, with ties broken.
///
/// # Errors
/// A stream that cannot be read.
pub(super) fn with_ties_broken(plan: LogicalPlan, left_out: &Arc<LeftOut>) -> Result<LogicalPlan> {
    Ok(broken(plan, false, left_out)?.plan)
}

/// A plan, and the column of its rows' places if they have any.
struct Broken {
    plan: LogicalPlan,
    place: Option<Column>,
}

/// `wants_place` says whether the places are to come out.
fn broken(plan: LogicalPlan, wants_place: bool, left_out: &Arc<LeftOut>) -> Result<Broken> {
    match plan {
        LogicalPlan::TableScan(scan) => placed(scan, left_out),
        LogicalPlan::Projection(Projection { expr, input, .. }) => {
            let Broken { plan, place } = broken(Arc::unwrap_or_clone(input), wants_place, left_out)?;
            let place = place.filter(|_| wants_place);
            let expr = expr.into_iter().chain(place.clone().map(Expr::Column)).collect();
            Ok(Broken { plan: LogicalPlan::Projection(Projection::try_new(expr, Arc::new(plan))?), place })
        }
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
            let Broken { plan, place } = broken(Arc::unwrap_or_clone(input), wants_place, left_out)?;
            let place = place.map(|_| Column::new(Some(alias.clone()), PLACE));
            let plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(plan), alias)?);
            Ok(Broken { plan, place })
        }
        LogicalPlan::Window(Window { window_expr, input, .. }) => {
            let Broken { plan, place } = broken(Arc::unwrap_or_clone(input), true, left_out)?;
            let exprs = window_expr.into_iter().map(|expr| over(expr, place.as_ref())).collect();
            Ok(Broken { plan: LogicalPlan::Window(Window::try_new(exprs, Arc::new(plan))?), place })
        }
        LogicalPlan::Aggregate(Aggregate { input, group_expr, aggr_expr, .. }) => {
            let is_open = aggr_expr.iter().any(depends_on_order);
            let Broken { plan, place } = broken(Arc::unwrap_or_clone(input), is_open, left_out)?;
            let exprs = aggr_expr.into_iter().map(|expr| aggregate(expr, place.as_ref())).collect();
            let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(plan), group_expr, exprs)?);
            Ok(Broken { plan, place: None })
        }
        plan => {
            // One input's places tell the rows of a filter, and of a join those of its stream.
            let passes = matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
            let mut place = None;
            let inputs = plan.inputs().into_iter().map(|input| {
                let input = broken(input.clone(), wants_place && passes, left_out)?;
                place = place.take().or(input.place);
                Ok(input.plan)
            });
            let inputs = inputs.collect::<Result<_>>()?;
            let plan = plan.with_new_exprs(plan.expressions(), inputs)?;
            let place = place.filter(|place| passes && plan.schema().has_column(place));
            Ok(Broken { plan, place })
        }
    }
}

fn placed(scan: TableScan, left_out: &Arc<LeftOut>) -> Result<Broken> {
    let Some(stream) = stream_of(&scan) else {
        return Ok(Broken { plan: LogicalPlan::TableScan(scan), place: None });
    };
    let place = Column::new(Some(scan.table_name.clone()), PLACE);
    let table = Arc::new(stream.placed_without(Arc::clone(left_out))?);
    let plan = LogicalPlanBuilder::scan(scan.table_name, provider_as_source(table), None)?.build()?;
    Ok(Broken { plan, place: Some(place) })
}

fn by(place: &Column) -> SortExpr {
    Expr::Column(place.clone()).sort(true, false)
}

/// An OVER column that takes rows in order of their places where they tie; where ties are peers, they stay so.
fn over(expr: Expr, place: Option<&Column>) -> Expr {
    let name = expr.schema_name().to_string();
    match (expr.clone().unalias(), place) {
        (Expr::WindowFunction(mut call), Some(place)) if takes_rows(&expr) => {
            call.params.order_by.push(by(place));
            Expr::WindowFunction(call).alias(name)
        }
        _ => expr,
    }
}

fn aggregate(expr: Expr, place: Option<&Column>) -> Expr {
    let name = expr.schema_name().to_string();
    let is_open = depends_on_order(&expr);
    match (expr.clone().unalias(), place) {
        (Expr::AggregateFunction(AggregateFunction { func, mut params }), Some(place)) if is_open => {
            params.order_by.push(by(place));
            Expr::AggregateFunction(AggregateFunction { func, params }).alias(name)
        }
        _ => expr,
    }
}
