//! What can be known of a query's rows from its plan: which columns of changes are the keys whose latest rows are the
//! final answer, and whether a LIMIT leaves open which rows there are.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan, Projection, lit};

use crate::operator::{Op, WindowShape};
use crate::sql::{Changes, EmitMode, Ops, When};

use super::analyze::extension;
use super::event_time::{index_of, side_of};
use super::nodes::{ChangesFilter, Emit, Pipelines, WindowAggregate};
use super::ties::sort_below;
use super::top_n_node::{Ranking, TopN};

/// What the rows of a query are to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changelog {
    /// None takes the place of another.
    None,
    /// A row takes the place of the one before it with the same key.
    Keyed(Keyed),
    /// A row comes or goes, as a whole, also one that takes the place of another: it may be there several times.
    Rows {
        /// The column that says which of it.
        op: usize,
        /// Whether which changes are told hangs on how batches are cut, or on the order of results that have none.
        is_by_batch: bool,
    },
    /// Rows take the place of others, but of which cannot be seen.
    Unkeyed {
        /// The reason.
        why: String,
        /// Whether which changes are told hangs on how batches are cut, or on the order of results that have none.
        is_by_batch: bool,
    },
}

/// Changes of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keyed {
    /// The columns of the key.
    pub(crate) keys: Vec<usize>,
    /// The columns of a session's start and end, which change: a row takes the place of all those of its key that lie
    /// within it, for a session only ever grows.
    pub(crate) session: Option<[usize; 2]>,
    /// The column that says what a row does.
    pub(crate) op: Option<usize>,
    /// Whether which changes are told hangs on how batches are cut, or on the order of results that have none.
    pub(crate) is_by_batch: bool,
}

/// Says what the rows of an analyzed plan are to each other.
pub(crate) fn changelog(plan: &LogicalPlan) -> Changelog {
    let Some(source) = source(plan).filter(|source| source.emit().is_changes()) else {
        return if all_are_new(plan) { Changelog::Rows { op: 0, is_by_batch: false } } else { Changelog::None };
    };
    let is_each_batch = matches!(source.emit(), EmitMode::Changes(Changes { when: When::EachBatch, .. }));
    let is_by_batch = is_each_batch || source.follows_results();
    let tells_retractions = matches!(source.emit(), EmitMode::Changes(Changes { ops: Ops::Retractions, .. }));
    let has_retractions = tells_retractions && !leaves_out_retractions(plan);
    let unkeyed = |why: &str| match has_retractions {
        true => Changelog::Rows { op: 0, is_by_batch },
        false => Changelog::Unkeyed { why: why.to_string(), is_by_batch },
    };
    let op = source.emit().has_ops().then_some(0);
    if !gives_row_for_row(plan) {
        return unkeyed("a change may become several rows, or none");
    }
    if let (Source::TopN(TopN { ranking: Ranking::Changes { by_rank: false }, at_most: 2.., .. }), Some(op)) =
        (&source, op)
    {
        return Changelog::Rows { op, is_by_batch };
    }
    let origins: Vec<_> = (0..plan.schema().fields().len()).map(|index| key_behind(index, plan)).collect();
    let mut keys = vec![];
    for (key, name) in source.key_names().into_iter().enumerate() {
        match origins.iter().position(|origin| *origin == Some(key)) {
            Some(column) => keys.push(column),
            None => return unkeyed(&format!("{name} is grouped by and not selected")),
        }
    }
    let mut session = None;
    if let ([start, end, rest @ ..], true, None) = (keys.as_slice(), source.is_session(), op) {
        (session, keys) = (Some([*start, *end]), rest.to_vec());
    }
    Changelog::Keyed(Keyed { keys, session, op, is_by_batch })
}

/// Whether WITH OP has found no changes, and calls each row a new one.
fn all_are_new(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => match projection.expr.first() {
            Some(Expr::Alias(alias)) => alias.name == "op" && *alias.expr == lit(Op::Insert.text()),
            _ => false,
        },
        LogicalPlan::Limit(limit) => all_are_new(&limit.input),
        LogicalPlan::Extension(extension) => {
            let pipelines = extension.node.as_any().downcast_ref::<Pipelines>();
            pipelines.is_some_and(|pipelines| all_are_new(&pipelines.input))
        }
        _ => false,
    }
}

/// Whether retractions were only for a filter below, and do not come out.
fn leaves_out_retractions(plan: &LogicalPlan) -> bool {
    let here = match plan {
        LogicalPlan::Filter(filter) => filter.predicate.exists(|part| Ok(*part == lit(Op::Before.text()))),
        _ => Ok(false),
    };
    here.unwrap_or_default()
        || plan.inputs().into_iter().any(leaves_out_retractions)
        || match plan {
            LogicalPlan::Extension(extension) => {
                let pipelines = extension.node.as_any().downcast_ref::<Pipelines>();
                pipelines.is_some_and(|pipelines| leaves_out_retractions(&pipelines.input))
            }
            _ => false,
        }
}

/// What gives changes, or results.
enum Source<'a> {
    Aggregate(&'a WindowAggregate),
    TopN(&'a TopN),
}

impl Source<'_> {
    fn emit(&self) -> EmitMode {
        match self {
            Self::Aggregate(node) => node.emit,
            Self::TopN(node) => node.emit,
        }
    }

    fn is_session(&self) -> bool {
        let Self::Aggregate(node) = self else { return false };
        node.window.as_ref().is_some_and(|window| matches!(window.shape, WindowShape::Session { .. }))
    }

    /// Whether its input are results of windows: those of one window come in no order.
    fn follows_results(&self) -> bool {
        match self {
            Self::Aggregate(node) => node.results.is_some(),
            Self::TopN(node) => node.by.results.is_some(),
        }
    }

    /// What the keys are called, the window's columns first.
    fn key_names(&self) -> Vec<String> {
        match self {
            Self::TopN(node) => node.key_names(),
            Self::Aggregate(node) => {
                let windows = node.window.iter().flat_map(|window| window.columns());
                let keys = node.keys.iter().map(|key| key.to_string());
                windows.map(|_| "the window".to_string()).chain(keys).collect()
            }
        }
    }

    /// The key that output column `index` is.
    fn key_of(&self, index: usize) -> Option<usize> {
        match self {
            Self::TopN(node) => node.key_of(index),
            Self::Aggregate(node) => {
                let index = index.checked_sub(usize::from(node.emit.has_ops()))?;
                (index < self.key_names().len()).then_some(index)
            }
        }
    }
}

/// What gives the changes that come out of a plan.
fn source(plan: &LogicalPlan) -> Option<Source<'_>> {
    source_here(plan).or_else(|| plan.inputs().into_iter().find_map(source))
}

fn source_here(plan: &LogicalPlan) -> Option<Source<'_>> {
    let LogicalPlan::Extension(extension) = plan else { return None };
    let node = extension.node.as_any();
    let aggregate = node.downcast_ref::<WindowAggregate>().map(Source::Aggregate);
    aggregate.or_else(|| node.downcast_ref::<TopN>().map(Source::TopN))
}

/// Whether the changes of the aggregate come out one by one.
fn gives_row_for_row(plan: &LogicalPlan) -> bool {
    match plan {
        // A filter looks at keys, or at what rows do.
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) => {
            plan.inputs().into_iter().all(gives_row_for_row)
        }
        LogicalPlan::Extension(extension) if extension.node.as_any().is::<ChangesFilter>() => {
            plan.inputs().into_iter().all(gives_row_for_row)
        }
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<Pipelines>() {
            Some(pipelines) => gives_row_for_row(&pipelines.input),
            None => source_here(plan).is_some(),
        },
        _ => false,
    }
}

/// Whether the rows of lists stand for each change: as many as the list has elements.
pub(super) fn has_rows_of_lists(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Unnest(_))
        || source_here(plan).is_none() && plan.inputs().into_iter().any(has_rows_of_lists)
}

/// The key (the window first) of what gives changes or results that output column `index` of a plan tells from all its other values.
pub(super) fn key_behind(index: usize, plan: &LogicalPlan) -> Option<usize> {
    match plan {
        LogicalPlan::Projection(projection) => key_in(projection.expr.get(index)?, projection),
        LogicalPlan::SubqueryAlias(alias) => key_behind(index, &alias.input),
        LogicalPlan::Filter(filter) => key_behind(index, &filter.input),
        LogicalPlan::Limit(limit) => key_behind(index, &limit.input),
        LogicalPlan::Join(join) => {
            let (index, side) = side_of(join, index)?;
            key_behind(index, side)
        }
        LogicalPlan::Extension(extension) if extension.node.as_any().is::<ChangesFilter>() => {
            key_behind(index, plan.inputs().first()?)
        }
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<Pipelines>() {
            Some(pipelines) => key_behind(index, &pipelines.input),
            None => source_here(plan)?.key_of(index),
        },
        _ => None,
    }
}

/// Whether a cast gives different values for different ones: of integers, which it takes whole or not at all, and of text.
fn keeps_apart(cast: &Cast, input: &LogicalPlan) -> bool {
    let to = cast.field.data_type();
    let is_whole = to.is_integer() || to.is_string() || matches!(to, DataType::Decimal128(_, 0..));
    cast.expr
        .get_type(input.schema())
        .is_ok_and(|from| from.is_integer() && is_whole || from.is_string() && to.is_string())
}

fn key_in(expr: &Expr, projection: &Projection) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => key_in(&alias.expr, projection),
        Expr::Cast(cast) if keeps_apart(cast, &projection.input) => key_in(&cast.expr, projection),
        Expr::Column(column) => key_behind(index_of(column, projection.input.schema())?, &projection.input),
        // A window's end and time are as good as its start.
        Expr::ScalarFunction(call) if matches!(call.name(), "window_end" | "window_time") => {
            key_in(call.args.first()?, projection)
        }
        Expr::ScalarFunction(call) if call.name() == "last_tick" => key_in(call.args.first()?, projection),
        _ => None,
    }
}

/// The plan without a last LIMIT that has no ORDER BY below it.
pub(crate) fn without_last_limit(plan: &LogicalPlan) -> Option<LogicalPlan> {
    match plan {
        LogicalPlan::Limit(limit) if sort_below(&limit.input).is_none() => Some(limit.input.as_ref().clone()),
        LogicalPlan::Extension(node) => {
            let emit = node.node.as_any().downcast_ref::<Emit>()?;
            let input = Arc::new(without_last_limit(&emit.input)?);
            Emit::try_new(input, emit.mode, emit.at).ok().map(extension)
        }
        _ => None,
    }
}
