//! What EMIT CHANGES WITH OP and WITH RETRACTIONS carry through a plan: a column of what each row does to earlier ones,
//! from the aggregate through filters and projections to the front of the result.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Projection, lit};

use crate::operator::{OP, Op};
use crate::sql::{Changes, EmitMode, Ops, When};

use super::aggregate::reads_results;
use super::analyze::{Flow, extension};
use super::nodes::{ChangesFilter, WindowAggregate};
use super::refuse;
use super::top_n_node::TopN;

/// What a filter needs below it: to withdraw a row, it has to be told what the row was.
pub(super) fn for_filter(emit: EmitMode) -> EmitMode {
    match emit {
        EmitMode::Changes(changes @ Changes { ops: Ops::Op, .. }) => {
            EmitMode::Changes(Changes { ops: Ops::Retractions, ..changes })
        }
        other => other,
    }
}

/// When the rows of DISTINCT are told: each has one change, its first, so that how often changes are told says nothing.
pub(super) fn for_distinct(emit: EmitMode) -> EmitMode {
    match emit {
        EmitMode::Changes(Changes { when: When::EachBatch | When::Every { .. }, ops }) => {
            EmitMode::Changes(Changes { when: When::EachRow, ops })
        }
        other => other,
    }
}

/// A filter of changes. One that only looks at keys treats all rows of a key alike.
pub(super) fn filter(filter: Filter, flow: Flow, emit: EmitMode) -> Result<Flow> {
    let Filter { predicate, .. } = filter;
    let input = Arc::new(flow.plan.clone());
    let plan = if !reads_results(&predicate, &flow.plan) {
        LogicalPlan::Filter(Filter::try_new(predicate, input)?)
    } else if emit.has_ops() {
        extension(ChangesFilter { input, predicate })
    } else {
        return Err(refuse::filtered_changes(emit).into());
    };
    Ok(Flow { plan, ..flow })
}

/// A projection of changes, with the column in front if there is one.
pub(super) fn project(projection: Projection, flow: &Flow) -> Result<LogicalPlan> {
    let op = op_column(&flow.plan).into_iter().map(Expr::Column);
    let columns = op.chain(projection.expr).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(flow.plan.clone()))?))
}

/// Rows with the column in front; those that are no changes are new, each of them.
pub(super) fn with_op(flow: Flow) -> Result<Flow> {
    if op_column(&flow.plan).is_some() {
        return Ok(flow);
    }
    let new = lit(Op::Insert.text()).alias(OP);
    let columns = [new].into_iter().chain(flow.plan.schema().columns().into_iter().map(Expr::Column)).collect();
    Ok(Flow { plan: LogicalPlan::Projection(Projection::try_new(columns, Arc::new(flow.plan))?), ..flow })
}

/// The result with the column in front, under the name that it has for users.
pub(super) fn with_op_in_front(flow: Flow, emit: EmitMode) -> Result<Flow> {
    if !emit.has_ops() {
        return Ok(flow);
    }
    let mut plan = flow.plan;
    let op = op_column(&plan);
    let wants_retractions = matches!(emit, EmitMode::Changes(Changes { ops: Ops::Retractions, .. }));
    if let Some(op) = &op
        && !wants_retractions
        && has_retractions(&plan)?
    {
        let predicate = Expr::Column(op.clone()).not_eq(lit(Op::Before.text()));
        plan = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?);
    }
    let others: Vec<Expr> =
        plan.schema().columns().into_iter().filter(|column| op.as_ref() != Some(column)).map(Expr::Column).collect();
    // Without an aggregate, every row is new.
    let op = op.map_or_else(|| lit(Op::Insert.text()), Expr::Column).alias("op");
    let columns = [op].into_iter().chain(others).collect();
    Ok(Flow { plan: LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?), ..flow })
}

fn op_column(plan: &LogicalPlan) -> Option<Column> {
    plan.schema().columns().into_iter().find(|column| column.name == OP)
}

fn has_retractions(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        if let LogicalPlan::Extension(extension) = node {
            let node = extension.node.as_any();
            let emit = node.downcast_ref::<WindowAggregate>().map(|node| node.emit);
            let emit = emit.or(node.downcast_ref::<TopN>().map(|node| node.emit));
            found |= matches!(emit, Some(EmitMode::Changes(Changes { ops: Ops::Retractions, .. })));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
