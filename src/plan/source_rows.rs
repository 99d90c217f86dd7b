//! What has become of each row of the source: lets the nodes of a pipeline count it, up to the first operator.
//!
//! ```text
//!   StreamScanExec ─▶ StreamFilterExec ─▶ LookupJoinExec ─▶ OperatorExec or UsedRowsExec
//!    read              filtered            filtered          used, late, between windows
//! ```
//!
//! Where rows may be doubled on the way, or a ledger wants the late ones, each carries its number in the batch of the
//! source in a last column, which the operator takes off.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{JoinType, Result, internal_datafusion_err, internal_err};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use crate::exec::filter::StreamFilterExec;
use crate::exec::find;
use crate::exec::lookup::LookupJoinExec;
use crate::exec::operator::OperatorExec;
use crate::exec::scan::StreamScanExec;
use crate::exec::source_rows::{NUMBER, SourceRows};
use crate::exec::unnest::StreamUnnestExec;
use crate::exec::used::UsedRowsExec;

/// The plan of a pipeline, accounting for the rows of its source; with a ledger, also for where they come from.
///
/// # Errors
/// A plan of nodes that no pipeline has.
pub(super) fn accounting(plan: Arc<dyn ExecutionPlan>, with_ledger: bool) -> Result<Arc<dyn ExecutionPlan>> {
    // The optimizer may have found that no row can pass, and have taken the scan away.
    if find::<StreamScanExec>(&plan).is_none() {
        return Ok(plan);
    }
    let is_numbered = with_ledger || doubles_rows(&plan);
    let accounting = Accounting { is_numbered, with_ledger };
    match accounting.up_to_operator(&plan)? {
        Some(plan) => Ok(plan),
        None => {
            let plan = accounting.below(&plan)?;
            Ok(Arc::new(UsedRowsExec::new(accounting.rows(&plan.schema()), plan)))
        }
    }
}

/// Whether rows may come to the first operator several times.
fn doubles_rows(plan: &Arc<dyn ExecutionPlan>) -> bool {
    fn doubles(plan: &Arc<dyn ExecutionPlan>) -> bool {
        plan.is::<LookupJoinExec>() || plan.is::<StreamUnnestExec>() || stream_of(plan).is_some_and(doubles)
    }
    match first_operator(plan) {
        Some(operator) => doubles(operator.input()),
        None => doubles(plan),
    }
}

/// The operator that is nearest to the source.
fn first_operator(plan: &Arc<dyn ExecutionPlan>) -> Option<&OperatorExec> {
    let below = stream_of(plan).and_then(first_operator);
    below.or_else(|| plan.downcast_ref::<OperatorExec>())
}

/// The input that reads the stream: the last one, of a join too.
fn stream_of(plan: &Arc<dyn ExecutionPlan>) -> Option<&Arc<dyn ExecutionPlan>> {
    plan.children().last().copied()
}

struct Accounting {
    is_numbered: bool,
    with_ledger: bool,
}

impl Accounting {
    fn rows(&self, schema: &SchemaRef) -> SourceRows {
        match self.is_numbered {
            true => SourceRows::numbered(schema),
            false => SourceRows::Each,
        }
    }

    /// A plan with an operator in it; none without one.
    fn up_to_operator(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(input) = stream_of(plan) else { return Ok(None) };
        if let Some(below) = self.up_to_operator(input)? {
            let mut children: Vec<_> = plan.children().into_iter().cloned().collect();
            children.pop();
            children.push(below);
            return replace_children_if_necessary(Arc::clone(plan), children).map(Some);
        }
        let Some(operator) = plan.downcast_ref::<OperatorExec>() else { return Ok(None) };
        let input = self.below(input)?;
        let rows = self.rows(&input.schema());
        Ok(Some(Arc::new(operator.accounting(rows, input))))
    }

    /// A plan below the first operator.
    fn below(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(scan) = plan.downcast_ref::<StreamScanExec>() {
            return Ok(match self.is_numbered {
                true => Arc::new(scan.numbered(self.with_ledger)?),
                false => Arc::clone(plan),
            });
        }
        let input = stream_of(plan).ok_or_else(|| internal_datafusion_err!("{} reads no stream", plan.name()))?;
        let input = self.below(input)?;
        if let Some(filter) = plan.downcast_ref::<StreamFilterExec>() {
            let rows = self.rows(&input.schema());
            return Ok(Arc::new(filter.counting(rows, input)?));
        }
        if !self.is_numbered {
            return replace_children_if_necessary(Arc::clone(plan), vec![input]);
        }
        if let Some(unnest) = plan.downcast_ref::<StreamUnnestExec>() {
            return Ok(Arc::new(unnest.with_numbers(input)?));
        }
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            let number = number_of(&input.schema());
            let exprs = projection.expr().iter().cloned().chain([number]);
            return Ok(Arc::new(ProjectionExec::try_new(exprs, input)?));
        }
        match plan.downcast_ref::<LookupJoinExec>() {
            Some(lookup) => Ok(Arc::new(numbered_join(lookup, input)?)),
            None => replace_children_if_necessary(Arc::clone(plan), vec![input]),
        }
    }
}

/// The last column of a schema, passed on.
fn number_of(schema: &SchemaRef) -> ProjectionExpr {
    let column = Column::new(NUMBER, schema.fields().len().saturating_sub(1));
    ProjectionExpr { expr: Arc::new(column), alias: NUMBER.to_string() }
}

/// A join over numbered rows of the stream, with the numbers at the end of what it gives.
fn numbered_join(lookup: &LookupJoinExec, stream: Arc<dyn ExecutionPlan>) -> Result<LookupJoinExec> {
    let join = lookup.join();
    let children = join.children();
    let [table, probe] = children.as_slice() else { return internal_err!("a join has two inputs") };
    let table = Arc::clone(table);
    let widths = (table.schema().fields().len(), probe.schema().fields().len());
    let inputs = vec![Arc::clone(&table), Arc::clone(&stream)];
    let numbered: Arc<dyn ExecutionPlan> = if let Some(join) = join.downcast_ref::<HashJoinExec>() {
        let projection = with_number(join.projection.as_deref(), *join.join_type(), widths);
        join.builder().with_new_children(inputs)?.with_projection(projection).build_exec()?
    } else if let Some(join) = join.downcast_ref::<NestedLoopJoinExec>() {
        let projection = with_number(join.projection().as_deref(), *join.join_type(), widths);
        let builder = NestedLoopJoinExecBuilder::new(table, Arc::clone(&stream), *join.join_type());
        Arc::new(builder.with_filter(join.filter().cloned()).with_projection(projection).build()?)
    } else if join.is::<CrossJoinExec>() {
        Arc::new(CrossJoinExec::new(table, Arc::clone(&stream)))
    } else {
        return internal_err!("{} is no join with a table", join.name());
    };
    lookup.with_numbers(&numbered, stream)
}

/// The columns of a join when the stream has one more, and that one after them. `widths` are those of the table and of
/// the stream without it. None if they are all columns in their order.
fn with_number(projection: Option<&[usize]>, join_type: JoinType, widths: (usize, usize)) -> Option<Vec<usize>> {
    let of_table = match join_type {
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => 0,
        _ => widths.0,
    };
    let number = of_table + widths.1;
    let marks = usize::from(join_type == JoinType::RightMark);
    if projection.is_none() && marks == 0 {
        return None;
    }
    let columns = projection.map_or_else(|| (0..number + marks).collect(), <[usize]>::to_vec);
    Some(columns.into_iter().map(|column| column + usize::from(column >= number)).chain([number]).collect())
}
