//! Top-N and deduplication: a filter of a row number to the first rows becomes a [`TopN`], which keeps these alone.
//!
//! | over | emitted | kept |
//! |---|---|---|
//! | rows, the window among the partition keys | FINAL | the best rows of each window and key, until it closes |
//! | results of a windowed GROUP BY, likewise | FINAL | nothing: a window's results come as a whole |
//! | rows | CHANGES | the best rows of each key |
//!
//! Everything else is ranked as any OVER column is.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, SortExpr};

use crate::operator::{OP, WindowShape};
use crate::sql::{Changes, EmitMode, Ops, When};

use super::aggregate::{
    event_time_column, from_window, is_bound, named, pick_window, time_behind, window_behind, with_bounds,
};
use super::analyze::{Flow, Shape, extension};
use super::changelog::key_behind;
use super::event_time::{index_of, side_of, stream_key};
use super::explode::calls_overlapping;
use super::nodes::{Window, WindowAggregate};
use super::pull_up::pull_up_windows;
use super::routing::KeyedState;
use super::top_n_node::{RANK, Ranked, RankedBy, Ranking, TopN};
use super::ttl::Ttl;
use super::window::Recognised;
use super::{refuse, window};

/// A Top-N in terms of what is below the projections that make its windows.
pub(super) struct Query<'a> {
    ranked: &'a Ranked,
    /// What the Window node's input columns are.
    columns: Vec<Expr>,
    pub(super) keys: Vec<Expr>,
    order: Vec<SortExpr>,
}

impl<'a> Query<'a> {
    /// What is below, and the ranking over it.
    pub(super) fn of(ranked: &'a Ranked) -> Result<(LogicalPlan, Self)> {
        let (input, call) = ranked.parts()?;
        let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let (keys, order) = (call.params.partition_by.clone(), call.params.order_by.clone());
        let own = Self { ranked, columns, keys, order };
        let exprs = own.keys.iter().chain(&own.columns).cloned();
        let exprs = exprs.chain(own.order.iter().map(|order| order.expr.clone())).collect();
        let (below, mut keys) = pull_up_windows(input.clone(), exprs, own.keys.len())?;
        let mut columns = keys.split_off(own.keys.len());
        let order = columns.split_off(own.columns.len());
        let order = own.order.iter().zip(order).map(|(order, expr)| SortExpr { expr, ..order.clone() }).collect();
        let pulled = Self { ranked, columns, keys, order };
        // Where one operator cannot keep the windows, rows come to it once for each of them.
        match pulled.over_rows(&Flow::stateless(below.clone(), Shape::Rows), EmitMode::Final, None)?.is_some() {
            true => Ok((below, pulled)),
            false => Ok((input.clone(), own)),
        }
    }

    /// The Top-N over rows; none if it keeps too much, or if it takes more than one row to know a window.
    pub(super) fn over_rows(&self, below: &Flow, emit: EmitMode, ttl_ns: Option<i64>) -> Result<Option<Flow>> {
        let input = &below.plan;
        let window = self.window(input)?;
        let is_window = |key: &&Expr| Ok::<_, DataFusionError>(from_window(key, window.as_ref(), input)?.is_some());
        let mut keys = vec![];
        for key in &self.keys {
            if !is_window(&key)? {
                keys.push(key.clone().unalias());
            }
        }
        let columns = self.columns.iter().map(|column| match &window {
            Some(window) => with_bounds(column, window, input),
            None => Ok(column.clone()),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let is_left = |exprs: &[Expr]| exprs.iter().any(calls_overlapping);
        let order: Vec<Expr> = self.order.iter().map(|order| order.expr.clone()).collect();
        if window.is_none() && !emit.is_changes() || is_left(&keys) || is_left(&columns) || is_left(&order) {
            return Ok(None);
        }
        let is_at_close = matches!(emit, EmitMode::Changes(Changes { when: When::AtClose { .. }, .. }));
        refuse::refuse_if(is_at_close, refuse::late_ranks)?;
        let key_columns = keys.iter().filter_map(|key| stream_key(key, input)).collect();
        let results = (!below.stages.is_empty()).then(|| time_behind(window.as_ref(), input));
        let time = window.as_ref().and_then(|window| window::time_index(&window.start, input));
        let window = window.map(|window| Window { start: window.start, shape: window.shape });
        let ttl = Ttl::of_keys(ttl_ns.filter(|_| emit.is_changes() && window.is_none()), &keys, input)?;
        let told_by = match emit {
            EmitMode::Changes(Changes { when: When::Every { .. }, .. }) => {
                Some(event_time_column(input).ok_or_else(refuse::every_without_time)?)
            }
            _ => ttl.as_ref().map(|ttl| ttl.time.clone()),
        };
        let time = time.or(ttl.as_ref().and_then(|ttl| ttl.of_stream));
        let ttl_ns = ttl.map(|ttl| ttl.ns);
        let by = RankedBy { window, keys, order: self.order.clone(), time: told_by, ttl_ns, results };
        let ranking = if emit.is_changes() { Ranking::Changes { by_rank: true } } else { Ranking::Windows };
        let node = TopN::try_new(Arc::new(input.clone()), self.ranked.at_most, by, ranking, emit)?;
        Ok(Some(Flow {
            plan: self.projected(node, columns)?,
            shape: Shape::Results,
            // Of rows that tie, the first is the better.
            stages: below.with_stage(KeyedState::Aggregate(emit), key_columns, false),
            time: below.time.or(time),
            is_changelog: emit.is_changes(),
        }))
    }

    /// The window that the keys tell from all others; none for sessions.
    fn window(&self, input: &LogicalPlan) -> Result<Option<Recognised>> {
        // What is no window of the stream's event time is a key like any other.
        let Some(window) = pick_window(&self.keys, input).ok().flatten() else { return Ok(None) };
        let tells_end = |key: &Expr| match key.clone().unalias() {
            Expr::ScalarFunction(call) => {
                is_bound(&call) && window_behind(key, input).is_ok_and(|of| of.as_ref() == Some(&window))
            }
            _ => false,
        };
        let is_told = match window.shape {
            WindowShape::Session { .. } => false,
            WindowShape::Cumulate { .. } => self.keys.iter().any(tells_end),
            _ => true,
        };
        Ok(is_told.then_some(window))
    }

    /// The Top-N over the results of a windowed GROUP BY; none if the keys do not tell their windows apart.
    pub(super) fn over_results(&self, flow: &Flow) -> Result<Option<Flow>> {
        let Some(results) = results(&flow.plan).filter(|results| !results.emit.is_changes()) else { return Ok(None) };
        let windows = match results.window.as_ref().map(|window| &window.shape) {
            None | Some(WindowShape::Session { .. }) => return Ok(None),
            Some(shape) => usize::from(shape.has_own_end()),
        };
        let key_of = |key: &Expr| match key {
            Expr::Column(column) => key_behind(index_of(column, flow.plan.schema())?, &flow.plan),
            _ => None,
        };
        let keys: Vec<usize> = self.keys.iter().filter_map(key_of).collect();
        if !keys.contains(&windows) {
            return Ok(None);
        }
        let stream_column = |key: &usize| stream_key(results.keys.get(key.checked_sub(windows + 1)?)?, &results.input);
        let columns: Vec<String> = keys.iter().filter_map(stream_column).collect();
        let mut stages = flow.stages.clone();
        stages.iter_mut().for_each(|stage| stage.keys.retain(|key| columns.contains(key)));
        let (keys, order) = (self.keys.clone(), self.order.clone());
        let by = RankedBy { window: None, keys, order, time: None, ttl_ns: None, results: None };
        let input = Arc::new(flow.plan.clone());
        let node = TopN::try_new(input, self.ranked.at_most, by, Ranking::Results, EmitMode::Final)?;
        Ok(Some(Flow {
            plan: self.projected(node, self.columns.clone())?,
            shape: Shape::Results,
            stages,
            time: flow.time,
            is_changelog: false,
        }))
    }

    /// The Window node's columns over a Top-N's.
    fn projected(&self, node: TopN, columns: Vec<Expr>) -> Result<LogicalPlan> {
        let op = node.emit.has_ops().then(|| Expr::Column(Column::new_unqualified(OP)));
        let rank = Expr::Column(Column::new_unqualified(RANK));
        let columns = columns.into_iter().chain([rank]).zip(self.ranked.window.schema().iter());
        let columns = columns.map(|(expr, (qualifier, field))| named(expr, qualifier.cloned(), field.name()));
        let columns = op.into_iter().chain(columns).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(extension(node)))?))
    }
}

/// The GROUP BY whose results come out of a plan, a window's in one batch.
fn results(plan: &LogicalPlan) -> Option<&WindowAggregate> {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) => {
            results(plan.inputs().first()?)
        }
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
        _ => None,
    }
}

/// The Top-N of a plan whose changes come out of it; those of a UNION's branches are told as each branch has them.
pub(super) fn changing(plan: &LogicalPlan) -> Option<&TopN> {
    match plan {
        LogicalPlan::Union(_) => None,
        LogicalPlan::Extension(extension) if extension.node.as_any().is::<TopN>() => {
            extension.node.as_any().downcast_ref::<TopN>().filter(|node| node.emit.is_changes())
        }
        _ => plan.inputs().into_iter().find_map(changing),
    }
}

/// Decides whether changes are told by rank or by rows: the rank is told where it is among the columns of the result.
pub(super) fn told_by(flow: Flow, emit: EmitMode) -> Result<Flow> {
    let Some(node) = changing(&flow.plan).filter(|node| node.at_most > 1) else { return Ok(flow) };
    let all: Vec<usize> = (0..flow.plan.schema().fields().len()).collect();
    let rank = node.key_names().len() - 1;
    if all.iter().any(|column| key_behind(*column, &flow.plan) == Some(rank)) {
        return Ok(flow);
    }
    refuse::refuse_if(reads_rank(&flow.plan, all), refuse::hidden_rank)?;
    let has_ops = matches!(emit, EmitMode::Changes(Changes { ops, .. }) if ops != Ops::None);
    refuse::refuse_if(!has_ops, refuse::rows_without_op)?;
    let by_rows = flow.plan.transform_up(|plan| match changing_here(&plan) {
        Some(node) => Ok(Transformed::yes(extension(node.told_by_rows()))),
        None => Ok(Transformed::no(plan)),
    });
    Ok(Flow { plan: by_rows.data()?, ..flow })
}

fn changing_here(plan: &LogicalPlan) -> Option<&TopN> {
    match plan {
        LogicalPlan::Extension(extension) => {
            extension.node.as_any().downcast_ref::<TopN>().filter(|node| node.emit.is_changes())
        }
        _ => None,
    }
}

/// Whether some of the columns `needed` of a plan, or what it filters and joins by, read the rank.
fn reads_rank(plan: &LogicalPlan, needed: Vec<usize>) -> bool {
    if let Some(node) = changing_here(plan) {
        return needed.contains(&(node.schema_width() - 1));
    }
    let exprs = match plan {
        LogicalPlan::Projection(projection) => {
            needed.iter().filter_map(|index| projection.expr.get(*index)).cloned().collect()
        }
        plan => plan.expressions(),
    };
    let read = |input: &LogicalPlan| {
        let columns = exprs.iter().flat_map(|expr| expr.column_refs());
        columns.filter_map(|column| index_of(column, input.schema())).collect::<Vec<_>>()
    };
    plan.inputs().into_iter().any(|input| {
        let passed = needed.iter().filter_map(|index| match plan {
            LogicalPlan::Projection(_) => None,
            LogicalPlan::Join(join) => side_of(join, *index).filter(|(_, side)| *side == input).map(|(index, _)| index),
            _ => Some(*index),
        });
        reads_rank(input, passed.chain(read(input)).collect())
    })
}
