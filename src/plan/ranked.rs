//! Which filters are the bound of a Top-N: `rn <= n`, `rn < n`, `rn = n`, `rn BETWEEN … AND n` and their like, of a
//! ROW_NUMBER below.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, Result, ScalarValue, internal_datafusion_err};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Operator, WindowFunctionDefinition, lit};

use super::analyze::extension;
use super::event_time::index_of;
use super::over::window_function;
use super::top_n_node::Ranked;

/// The plan of a filter that leaves the first rows of a row number over, with a [`Ranked`] in place of the Window node;
/// none if it is no such filter.
pub(super) fn ranked(filter: &Filter) -> Result<Option<LogicalPlan>> {
    let rank_of = |expr: &Expr| match uncast(expr) {
        Expr::Column(column) => rank_column(index_of(column, filter.input.schema())?, &filter.input),
        _ => None,
    };
    let conjuncts = split_conjunction(&filter.predicate);
    let bounds: Vec<Option<Bound>> = conjuncts.iter().map(|conjunct| bound(conjunct, &rank_of)).collect();
    let Some(at_most) = bounds.iter().flatten().map(|bound| bound.at_most).min().filter(|at_most| *at_most > 0) else {
        return Ok(None);
    };
    let is_met = |bound: &Option<Bound>| bound.as_ref().is_some_and(|bound| !bound.is_exact || at_most == 1);
    let rest = conjuncts.into_iter().zip(&bounds).filter(|(_, bound)| !is_met(bound));
    let input = with_ranked(filter.input.as_ref().clone(), at_most)?;
    Ok(Some(match conjunction(rest.map(|(conjunct, _)| conjunct.clone())) {
        Some(rest) => LogicalPlan::Filter(Filter::try_new(rest, Arc::new(input))?),
        None => input,
    }))
}

/// What a conjunct says of the rank: it is at most so much, or it is more than that alone.
struct Bound {
    at_most: usize,
    is_exact: bool,
}

fn bound(conjunct: &Expr, is_rank: &dyn Fn(&Expr) -> Option<()>) -> Option<Bound> {
    let at_most = |limit: i64, is_exact| Some(Bound { at_most: usize::try_from(limit).ok()?, is_exact });
    match conjunct {
        Expr::BinaryExpr(binary) => {
            let (operator, limit) = match (is_rank(&binary.left), is_rank(&binary.right)) {
                (Some(()), None) => (binary.op, integer(&binary.right)?),
                (None, Some(())) => (binary.op.swap()?, integer(&binary.left)?),
                _ => return None,
            };
            match operator {
                Operator::LtEq => at_most(limit, false),
                Operator::Lt => at_most(limit.checked_sub(1)?, false),
                Operator::Eq => at_most(limit, true),
                _ => None,
            }
        }
        Expr::Between(between) if !between.negated => {
            is_rank(&between.expr)?;
            at_most(integer(&between.high)?, true)
        }
        _ => None,
    }
}

fn uncast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => uncast(&cast.expr),
        Expr::TryCast(cast) => uncast(&cast.expr),
        Expr::Alias(alias) => uncast(&alias.expr),
        expr => expr,
    }
}

/// A constant that is a whole number.
fn integer(expr: &Expr) -> Option<i64> {
    let Expr::Literal(value, _) = uncast(expr) else { return None };
    let whole = value.cast_to(&DataType::Int64).ok()?;
    match (&whole, whole.cast_to(&value.data_type()).ok()? == *value) {
        (ScalarValue::Int64(Some(number)), true) => Some(*number),
        _ => None,
    }
}

/// Whether output column `index` is the number of a Window node that numbers rows and does nothing else.
fn rank_column(index: usize, plan: &LogicalPlan) -> Option<()> {
    match plan {
        LogicalPlan::Projection(projection) => match uncast(projection.expr.get(index)?) {
            Expr::Column(column) => rank_column(index_of(column, projection.input.schema())?, &projection.input),
            _ => None,
        },
        LogicalPlan::SubqueryAlias(alias) => rank_column(index, &alias.input),
        LogicalPlan::Window(window) if !matches!(window.input.as_ref(), LogicalPlan::Window(_)) => {
            let [function] = window.window_expr.as_slice() else { return None };
            let is_number =
                index == window.input.schema().fields().len() && window_function(function).is_some_and(numbers_rows);
            is_number.then_some(())
        }
        _ => None,
    }
}

fn numbers_rows(call: &WindowFunction) -> bool {
    matches!(&call.fun, WindowFunctionDefinition::WindowUDF(fun) if fun == &row_number_udwf())
        && call.params.filter.is_none()
        && !call.params.distinct
}

/// The plan down to its Window node, with a [`Ranked`] there.
fn with_ranked(plan: LogicalPlan, at_most: usize) -> Result<LogicalPlan> {
    if matches!(plan, LogicalPlan::Window(_)) {
        return Ok(extension(Ranked { window: Arc::new(plan), at_most }));
    }
    let below = plan.inputs().first().map(|input| with_ranked((*input).clone(), at_most));
    let below = below.ok_or_else(|| internal_datafusion_err!("a rank without a Window node"))??;
    plan.with_new_exprs(plan.expressions(), vec![below])
}

impl Ranked {
    /// The Window node with a filter above it.
    pub(super) fn filter(&self, over: LogicalPlan) -> Result<LogicalPlan> {
        let (qualifier, field) = over.schema().qualified_field(over.schema().fields().len() - 1);
        let rank = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        let predicate = rank.lt_eq(lit(ScalarValue::UInt64(Some(self.at_most as u64))));
        Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(over))?))
    }

    /// What is ranked, and by what.
    pub(super) fn parts(&self) -> Result<(&LogicalPlan, &WindowFunction)> {
        let call = match self.window.as_ref() {
            LogicalPlan::Window(window) => {
                window.window_expr.first().and_then(window_function).zip(Some(&window.input))
            }
            _ => None,
        };
        let (call, input) = call.ok_or_else(|| internal_datafusion_err!("a rank without a Window node"))?;
        Ok((input, call))
    }
}
