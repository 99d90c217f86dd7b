//! Which column is the event time: a column is followed down through the plan to the stream that it comes from.
//!
//! Event time passes through projections that only name a column, aliases, views, sub-queries, CTEs, filters and
//! the stream's side of a join. Anything computed from it is no event time.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, Join, JoinType, LogicalPlan, Unnest};

use crate::source::StreamTable;

use super::interval::window_type;
use super::nodes::{RowsWindow, WindowAggregate};
use super::session_rows::SessionRows;
use super::top_n_node::TopN;

/// A column of a stream, as found from a column further up in a plan.
#[derive(Debug, Clone)]
pub(crate) struct StreamColumn {
    pub(crate) stream: Arc<StreamTable>,
    /// Index in the stream's schema.
    pub(crate) index: usize,
}

impl StreamColumn {
    /// Whether this is the column that the stream declares as its event time.
    pub(crate) fn is_event_time(&self) -> bool {
        self.stream.event_time().is_some_and(|time| time.index == self.index)
    }

    /// Whether windows may be built on this column: it is the event time, or the stream declares none and the
    /// column is a timestamp (then windows close when the stream ends).
    pub(crate) fn bears_windows(&self) -> bool {
        match self.stream.event_time() {
            Some(time) => time.index == self.index,
            None => window_type(self.stream.schema().field(self.index).data_type()).is_some(),
        }
    }
}

/// The stream behind a table scan.
pub(crate) fn stream_of(scan: &datafusion::logical_expr::TableScan) -> Option<Arc<StreamTable>> {
    let provider = source_as_provider(&scan.source).ok()?;
    let any: Arc<dyn std::any::Any + Send + Sync> = provider;
    any.downcast::<StreamTable>().ok()
}

/// Whether any stream is read in `plan`, its sub-queries included.
pub(crate) fn reads_stream(plan: &LogicalPlan) -> bool {
    first_stream(plan).is_some()
}

/// The first stream that `plan` reads.
pub(crate) fn first_stream(plan: &LogicalPlan) -> Option<Arc<StreamTable>> {
    let mut found = None;
    // The closure never fails, so neither does the walk.
    let _ = plan.apply_with_subqueries(|node| {
        use datafusion::common::tree_node::TreeNodeRecursion;
        if let LogicalPlan::TableScan(scan) = node
            && let Some(stream) = stream_of(scan)
        {
            found = Some(stream);
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// Follows an expression that is just a column (aliases aside) down to a stream's column.
pub(crate) fn trace(expr: &Expr, plan: &LogicalPlan) -> Option<StreamColumn> {
    match expr {
        Expr::Alias(alias) => trace(&alias.expr, plan),
        Expr::Column(column) => trace_column(column, plan),
        _ => None,
    }
}

fn trace_column(column: &Column, plan: &LogicalPlan) -> Option<StreamColumn> {
    let index = index_of(column, plan.schema())?;
    trace_index(index, plan)
}

pub(crate) fn index_of(column: &Column, schema: &DFSchema) -> Option<usize> {
    schema.maybe_index_of_column(column)
}

/// What output column `index` of a plan is in terms of its input.
pub(super) enum Below<'a> {
    /// Computed from the input.
    Computed(&'a Expr, &'a LogicalPlan),
    /// A column of the input that passes.
    Passed(usize, &'a LogicalPlan),
}

/// One step down: through projections, aliases, filters, OVER, lists and joins.
pub(super) fn below(index: usize, plan: &LogicalPlan) -> Option<Below<'_>> {
    Some(match plan {
        LogicalPlan::Projection(projection) => Below::Computed(projection.expr.get(index)?, &projection.input),
        LogicalPlan::SubqueryAlias(alias) => Below::Passed(index, &alias.input),
        LogicalPlan::Filter(filter) => Below::Passed(index, &filter.input),
        LogicalPlan::Window(window) if index < window.input.schema().fields().len() => {
            Below::Passed(index, &window.input)
        }
        LogicalPlan::Unnest(unnest) => Below::Passed(passed_by_unnest(unnest, index)?, &unnest.input),
        LogicalPlan::Join(join) => {
            let (index, side) = side_of(join, index)?;
            Below::Passed(index, side)
        }
        _ => return None,
    })
}

/// Follows output column `index` of `plan`.
pub(crate) fn trace_index(index: usize, plan: &LogicalPlan) -> Option<StreamColumn> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let stream = stream_of(scan)?;
            let index = match &scan.projection {
                Some(projection) => *projection.get(index)?,
                None => index,
            };
            Some(StreamColumn { stream, index })
        }
        LogicalPlan::Extension(extension) => {
            let node = extension.node.as_any().downcast_ref::<RowsWindow>()?;
            (index < node.input.schema().fields().len()).then(|| trace_index(index, &node.input))?
        }
        plan => match below(index, plan)? {
            Below::Computed(expr, input) => trace(expr, input),
            Below::Passed(index, input) => trace_index(index, input),
        },
    }
}

/// The name of the stream's column that a key is, followed down through the keys of earlier GROUP BYs.
pub(super) fn stream_key(key: &Expr, plan: &LogicalPlan) -> Option<String> {
    match key {
        Expr::Alias(alias) => stream_key(&alias.expr, plan),
        Expr::Column(column) => key_at(index_of(column, plan.schema())?, plan),
        _ => None,
    }
}

fn key_at(index: usize, plan: &LogicalPlan) -> Option<String> {
    if let Some(column) = trace_index(index, plan) {
        return Some(column.stream.schema().field(column.index).name().clone());
    }
    if let LogicalPlan::Extension(extension) = plan {
        let node = extension.node.as_any();
        if let Some(node) = node.downcast_ref::<SessionRows>() {
            return (index < node.width()).then(|| key_at(index, &node.input))?;
        }
        if let Some(node) = node.downcast_ref::<RowsWindow>() {
            return (index < node.input.schema().fields().len()).then(|| key_at(index, &node.input))?;
        }
        if let Some(node) = node.downcast_ref::<TopN>() {
            return (index < node.input.schema().fields().len()).then(|| key_at(index, &node.input))?;
        }
        let node = node.downcast_ref::<WindowAggregate>()?;
        let windows = node.window.as_ref().map_or(0, |window| window.columns().len());
        return stream_key(node.keys.get(index.checked_sub(windows)?)?, &node.input);
    }
    match below(index, plan)? {
        Below::Computed(expr, input) => stream_key(expr, input),
        Below::Passed(index, input) => key_at(index, input),
    }
}

/// The input column that output column `index` of an UNNEST is, if it is one that passes.
fn passed_by_unnest(unnest: &Unnest, index: usize) -> Option<usize> {
    unnest.dependency_indices.get(index).copied().filter(|input| !is_unnested(unnest, *input))
}

fn is_unnested(unnest: &Unnest, input: usize) -> bool {
    unnest.struct_type_columns.contains(&input) || unnest.list_type_columns.iter().any(|(list, _)| *list == input)
}

/// The input that output column `index` of a join comes from, and its index there; a mark comes from neither.
pub(super) fn side_of(join: &Join, index: usize) -> Option<(usize, &LogicalPlan)> {
    let (left, right) = (join.left.schema().fields().len(), join.right.schema().fields().len());
    match join.join_type {
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            (index < right).then_some((index, join.right.as_ref()))
        }
        _ if index < left => Some((index, &join.left)),
        _ => (index < left + right).then(|| (index - left, join.right.as_ref())),
    }
}
