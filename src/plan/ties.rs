//! The order of rows that SQL leaves open is that of the stream: by partition, then row. Where plain DataFusion answers,
//! each row brings its place along, and OVER, aggregates and a last ORDER BY go by it where rows tie.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, LogicalPlan, LogicalPlanBuilder, Projection, Sort, SortExpr, SubqueryAlias,
    TableScan, Window, WindowFrameUnits, WindowFunctionDefinition,
};

use crate::source::PLACE;

use super::event_time::{first_stream, stream_of};
use super::explode::end_of_windows;
use super::late_rows::in_time;

/// Functions whose answer depends on the order of rows.
const ORDERED: [&str; 5] = ["array_agg", "first_value", "last_value", "nth_value", "string_agg"];

/// The plan over streams whose rows know their places, with ties broken.
///
/// # Errors
/// A stream that cannot be read.
pub(crate) fn with_ties_broken(plan: LogicalPlan) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    let order = InOrder { everywhere: true, leaves_out: false };
    stripped(order.broken(plan, false, true)?.plan, columns)
}

/// The analyzed plan over streams whose rows know their places, in which rows do not meet the windows that are left out of
/// their stream.
///
/// # Errors
/// A stream that cannot be read.
pub(crate) fn without_missed_windows(plan: LogicalPlan) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    let order = InOrder { everywhere: false, leaves_out: true };
    stripped(order.broken(plan, false, false)?.plan, columns)
}

/// A tail of OVER columns, of DISTINCT ON, or the first rows of an ORDER BY, with ties broken: by the places of rows where
/// these come so far, and of others that are sorted by the rest of their columns. What is below is left as it is.
///
/// # Errors
/// None for a plan that DataFusion has made.
pub(super) fn in_order(plan: LogicalPlan) -> Result<LogicalPlan> {
    if is_in_order(&plan) {
        return Ok(plan);
    }
    let columns = plan.schema().columns();
    let order = InOrder { everywhere: false, leaves_out: false };
    let Broken { plan: in_order, place } = order.broken(plan.clone(), true, true)?;
    match (place, &plan) {
        (Some(_), _) | (None, LogicalPlan::Distinct(Distinct::On(_))) => stripped(in_order, columns),
        (None, _) => by_all_columns(plan),
    }
}

/// The ORDER BY that a LIMIT over `plan` takes the first rows of.
pub(super) fn sort_below(plan: &LogicalPlan) -> Option<&Sort> {
    match plan {
        LogicalPlan::Sort(sort) => Some(sort),
        LogicalPlan::Projection(projection) => sort_below(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => sort_below(&alias.input),
        _ => None,
    }
}

/// Whether first rows are told by their places already.
fn is_in_order(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Limit(limit) = plan else { return false };
    let Some(sort) = sort_below(&limit.input) else { return false };
    matches!(sort.expr.last(), Some(SortExpr { expr: Expr::Column(column), .. }) if column.name == PLACE)
}

/// The first rows of results, of which no two are the same in all columns.
fn by_all_columns(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !matches!(&plan, LogicalPlan::Limit(limit) if sort_below(&limit.input).is_some()) {
        return Ok(plan);
    }
    let by_all = |node: LogicalPlan| match node {
        LogicalPlan::Sort(mut sort) => {
            let fields = sort.input.schema().iter().zip(sort.input.schema().columns());
            let others = fields.filter(|((_, field), _)| !field.data_type().is_nested());
            let others = others.map(|(_, column)| Expr::Column(column));
            let new = others.filter(|column| sort.expr.iter().all(|known| known.expr != *column));
            let new: Vec<SortExpr> = new.map(|column| column.sort(true, false)).collect();
            sort.expr.extend(new);
            Ok(Transformed::new(LogicalPlan::Sort(sort), true, TreeNodeRecursion::Jump))
        }
        node => Ok(Transformed::no(node)),
    };
    plan.transform_down(by_all).data()
}

/// A plan without other columns than these.
fn stripped(plan: LogicalPlan, columns: Vec<Column>) -> Result<LogicalPlan> {
    match plan.schema().columns() == columns {
        true => Ok(plan),
        false => LogicalPlanBuilder::from(plan).project(columns.into_iter().map(Expr::Column))?.build(),
    }
}

/// Whether an aggregate takes rows in an order that is not given, or not for rows that tie.
pub(crate) fn depends_on_order(expr: &Expr) -> bool {
    let depends = expr.exists(|part| match part {
        Expr::AggregateFunction(call) => {
            let tie = call.params.order_by.is_empty() || !call.params.distinct;
            Ok(ORDERED.contains(&call.func.name()) && tie)
        }
        _ => Ok(false),
    });
    depends.unwrap_or_default()
}

/// Whether an OVER column takes rows one by one, so that the order of those that tie counts.
pub(crate) fn takes_rows(expr: &Expr) -> bool {
    let Expr::WindowFunction(call) = expr.clone().unalias() else { return false };
    let by_rows = match &call.fun {
        WindowFunctionDefinition::WindowUDF(function) => {
            matches!(function.name(), "row_number" | "lag" | "lead" | "ntile")
        }
        WindowFunctionDefinition::AggregateUDF(_) => false,
    };
    by_rows || call.params.window_frame.units == WindowFrameUnits::Rows
}

/// A plan, and the column of its rows' places if they have any.
struct Broken {
    plan: LogicalPlan,
    place: Option<Column>,
}

/// Which ties are broken.
struct InOrder {
    /// Whether it is those of all nodes, or of the uppermost ones alone.
    everywhere: bool,
    /// Whether rows do not meet the windows that are left out of their stream.
    leaves_out: bool,
}

impl InOrder {
    /// `wants_place` says whether the places are to come out.
    fn broken(&self, plan: LogicalPlan, wants_place: bool, is_top: bool) -> Result<Broken> {
        let breaks = self.everywhere || is_top;
        match plan {
            LogicalPlan::TableScan(scan) => self.placed(scan),
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                let end = end_of_windows(&expr).filter(|_| self.leaves_out);
                let left_out = end.zip(first_stream(&input).and_then(|stream| stream.left_out().cloned()));
                // At the top it stands between a LIMIT and its ORDER BY.
                let Broken { plan, place } = self.below(input, wants_place || left_out.is_some(), is_top)?;
                let place = place.filter(|_| wants_place || left_out.is_some());
                let added = place.clone().map(Expr::Column).filter(|place| !expr.contains(place));
                let expr = expr.into_iter().chain(added).collect();
                let plan = LogicalPlan::Projection(Projection::try_new(expr, Arc::new(plan))?);
                let plan = match (left_out, &place) {
                    (Some((end, left_out)), Some(place)) => in_time(plan, place, end, left_out)?,
                    _ => plan,
                };
                Ok(Broken { plan, place })
            }
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
                let Broken { plan, place } = self.below(input, wants_place, is_top)?;
                let place = place.map(|_| Column::new(Some(alias.clone()), PLACE));
                let plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(plan), alias)?);
                Ok(Broken { plan, place })
            }
            // OVER columns of several orders are a stack of nodes.
            LogicalPlan::Window(Window { window_expr, input, .. }) => {
                let is_stack = is_top && matches!(input.as_ref(), LogicalPlan::Window(_));
                let Broken { plan, place } = self.below(input, true, is_stack)?;
                let Some(order) = place.as_ref().filter(|_| breaks) else {
                    return Ok(Broken { plan: windows(window_expr, plan)?, place });
                };
                // The columns of one node have one order.
                let (by_rows, others): (Vec<_>, Vec<_>) = window_expr.into_iter().partition(takes_rows);
                let by_rows = by_rows.into_iter().map(|expr| over(expr, order)).collect();
                Ok(Broken { plan: windows(by_rows, windows(others, plan)?)?, place })
            }
            LogicalPlan::Aggregate(Aggregate { input, group_expr, aggr_expr, .. }) => {
                let is_open = breaks && aggr_expr.iter().any(depends_on_order);
                let Broken { plan, place } = self.below(input, is_open, false)?;
                let exprs =
                    aggr_expr.into_iter().map(|expr| aggregate(expr, place.as_ref().filter(|_| is_open))).collect();
                let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(plan), group_expr, exprs)?);
                Ok(Broken { plan, place: None })
            }
            LogicalPlan::Sort(Sort { mut expr, input, fetch }) => {
                let Broken { plan, place } = self.below(input, breaks || wants_place, false)?;
                expr.extend(place.as_ref().filter(|_| breaks).map(by));
                Ok(Broken { plan: LogicalPlan::Sort(Sort { expr, input: Arc::new(plan), fetch }), place })
            }
            LogicalPlan::Distinct(Distinct::On(DistinctOn { on_expr, select_expr, sort_expr, input, .. }))
                if breaks =>
            {
                let Broken { plan, place } = self.below(input, true, false)?;
                let by_keys = || on_expr.iter().map(|key| key.clone().sort(true, false)).collect();
                let mut order: Vec<SortExpr> = sort_expr.unwrap_or_else(by_keys);
                order.extend(place.as_ref().map(by));
                let first = DistinctOn::try_new(on_expr, select_expr, Some(order), Arc::new(plan))?;
                Ok(Broken { plan: LogicalPlan::Distinct(Distinct::On(first)), place: None })
            }
            plan => self.others(plan, wants_place, is_top),
        }
    }

    fn below(&self, input: Arc<LogicalPlan>, wants_place: bool, is_top: bool) -> Result<Broken> {
        self.broken(Arc::unwrap_or_clone(input), wants_place, is_top)
    }

    /// One input's places tell the rows of a filter, and of a join those of its stream.
    fn others(&self, plan: LogicalPlan, wants_place: bool, is_top: bool) -> Result<Broken> {
        let passes = matches!(
            plan,
            LogicalPlan::Filter(_) | LogicalPlan::Join(_) | LogicalPlan::Limit(_) | LogicalPlan::Unnest(_)
        );
        let is_top = is_top && matches!(plan, LogicalPlan::Limit(_));
        let mut place = None;
        let inputs = plan.inputs().into_iter().map(|input| {
            let columns = input.schema().columns();
            let Broken { plan, place: of_input } = self.broken(input.clone(), wants_place && passes, is_top)?;
            place = place.take().or(of_input);
            if passes { Ok(plan) } else { stripped(plan, columns) }
        });
        let inputs = inputs.collect::<Result<_>>()?;
        let plan = plan.with_new_exprs(plan.expressions(), inputs)?;
        let place = place.filter(|place| passes && plan.schema().has_column(place));
        Ok(Broken { plan, place })
    }

    fn placed(&self, scan: TableScan) -> Result<Broken> {
        let place = Column::new(Some(scan.table_name.clone()), PLACE);
        let Some(stream) = stream_of(&scan) else {
            let place = scan.projected_schema.has_column(&place).then_some(place);
            return Ok(Broken { plan: LogicalPlan::TableScan(scan), place });
        };
        if stream.is_placed() {
            return Ok(Broken { plan: LogicalPlan::TableScan(scan), place: Some(place) });
        }
        let source = provider_as_source(Arc::new(stream.placed()));
        let plan = LogicalPlanBuilder::scan(scan.table_name, source, None)?.build()?;
        Ok(Broken { plan, place: Some(place) })
    }
}

fn by(place: &Column) -> SortExpr {
    Expr::Column(place.clone()).sort(true, false)
}

/// OVER columns over a plan, if there are any.
fn windows(exprs: Vec<Expr>, input: LogicalPlan) -> Result<LogicalPlan> {
    match exprs.is_empty() {
        true => Ok(input),
        false => Ok(LogicalPlan::Window(Window::try_new(exprs, Arc::new(input))?)),
    }
}

/// An OVER column that takes rows one by one, in order of their places where they tie.
fn over(expr: Expr, place: &Column) -> Expr {
    let name = expr.schema_name().to_string();
    match expr.clone().unalias() {
        Expr::WindowFunction(mut call) => {
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
