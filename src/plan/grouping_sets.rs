//! GROUPING SETS, ROLLUP and CUBE as a GROUP BY of one set of keys: each row comes once for each set, with a number
//! that says which, and with nulls in place of the keys that the set does not have.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, NullHandling, Result, ScalarValue, UnnestOptions};
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Projection, in_list, lit, when};

use super::aggregate::named;
use super::analyze;
use super::nodes::WindowAggregate;

/// Whether a GROUP BY has several sets of keys.
pub(super) fn has_sets(aggregate: &Aggregate) -> bool {
    matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)])
}

/// The same GROUP BY with one set of keys, and the same columns.
pub(super) fn expand(aggregate: Aggregate) -> Result<LogicalPlan> {
    let keys: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    let numbered = numbered(&keys, &sets(&aggregate.group_expr));
    let number_type = aggregate.schema.field(keys.len()).data_type();
    let number_of = |number: &u64| ScalarValue::UInt64(Some(*number)).cast_to(number_type);
    let numbers = numbered.iter().map(|(number, _)| number_of(number)).collect::<Result<Vec<_>>>()?;
    let number = Column::new_unqualified(Aggregate::INTERNAL_GROUPING_ID);

    let columns = aggregate.input.schema().columns().into_iter().map(Expr::Column);
    let list = lit(ScalarValue::List(ScalarValue::new_list_nullable(&numbers, number_type)));
    let options = UnnestOptions { null_handling: NullHandling::Drop, recursions: vec![] };
    let rows = LogicalPlanBuilder::from(aggregate.input.as_ref().clone())
        .project(columns.chain([list.alias(&number.name)]))?
        .unnest_column_with_options(number.clone(), options)?
        .build()?;

    let mut groups = vec![];
    for key in &keys {
        let has = numbered.iter().zip(&numbers).filter(|((_, set), _)| set.contains(key));
        let has: Vec<Expr> = has.map(|(_, number)| lit(number.clone())).collect();
        // A key of every set stays what it is, so that a window stays one.
        groups.push(match has.len() == numbered.len() {
            true => key.clone().unalias(),
            false => when(in_list(Expr::Column(number.clone()), has, false), key.clone().unalias()).end()?,
        });
    }
    groups.push(Expr::Column(number));
    let outputs = groups.iter().chain(&aggregate.aggr_expr).map(|expr| match expr {
        Expr::Column(_) => expr.clone(),
        expr => Expr::Column(Column::new_unqualified(expr.schema_name().to_string())),
    });
    let outputs: Vec<Expr> = outputs
        .zip(aggregate.schema.iter())
        .map(|(expr, (qualifier, field))| named(expr, qualifier.cloned(), field.name()))
        .collect();
    let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(rows), groups, aggregate.aggr_expr)?);
    Ok(LogicalPlan::Projection(Projection::try_new(outputs, Arc::new(plan))?))
}

/// The numbers of the sets without keys: each has a total, of no row too.
fn totals(aggregate: &Aggregate) -> Result<Vec<ScalarValue>> {
    let keys: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    let number_type = aggregate.schema.field(keys.len()).data_type();
    let without_keys = numbered(&keys, &sets(&aggregate.group_expr)).into_iter().filter(|(_, set)| set.is_empty());
    without_keys.map(|(number, _)| ScalarValue::UInt64(Some(number)).cast_to(number_type)).collect()
}

/// The plan of an expanded GROUP BY that tells those totals even if no row comes.
pub(super) fn with_totals(plan: LogicalPlan, aggregate: &Aggregate) -> Result<LogicalPlan> {
    let totals = totals(aggregate)?;
    plan.transform_down(|node| {
        let LogicalPlan::Extension(extension) = &node else { return Ok(Transformed::no(node)) };
        Ok(match extension.node.as_any().downcast_ref::<WindowAggregate>() {
            Some(groups) => {
                let groups = analyze::extension(groups.clone().with_totals(totals.clone()));
                Transformed::new(groups, true, TreeNodeRecursion::Stop)
            }
            None => Transformed::no(node),
        })
    })
    .data()
}

/// The sets of keys of a GROUP BY.
pub(super) fn sets(groups: &[Expr]) -> Vec<Vec<Expr>> {
    match groups {
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => sets.clone(),
        [Expr::GroupingSet(GroupingSet::Rollup(keys))] => {
            (0..=keys.len()).rev().map(|length| keys[..length].to_vec()).collect()
        }
        [Expr::GroupingSet(GroupingSet::Cube(keys))] => (0..1u64 << keys.len())
            .map(|set| {
                keys.iter().enumerate().filter(|(index, _)| set >> index & 1 == 0).map(|(_, key)| key.clone()).collect()
            })
            .collect(),
        _ => vec![],
    }
}

/// The sets with DataFusion's numbers: a bit for each key that is missing, the last key's the lowest, and above them how
/// many such sets came before.
fn numbered(keys: &[Expr], sets: &[Vec<Expr>]) -> Vec<(u64, Vec<Expr>)> {
    let mut numbered: Vec<(u64, Vec<Expr>)> = vec![];
    for set in sets {
        let missing = keys.iter().fold(0, |bits, key| bits << 1 | u64::from(!set.contains(key)));
        let same = numbered.iter().filter(|(number, _)| number & ((1 << keys.len()) - 1) == missing).count() as u64;
        numbered.push((same << keys.len() | missing, set.clone()));
    }
    numbered
}
