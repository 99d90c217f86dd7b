//! GROUPING SETS, ROLLUP and CUBE as a GROUP BY of one set of keys: each row comes once for each set, with a number
//! that says which, and with nulls in place of the keys that the set does not have.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, JoinType, NullHandling, Result, ScalarValue, UnnestOptions, internal_err};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::{AggregateFunction, GroupingSet};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Projection, in_list, lit, when};

use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::create_physical_expr;

use super::aggregate::named;

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

/// The results of a GROUP BY, and where there are none the total of each set without keys: over no row it has one all the
/// same.
pub(super) fn with_total_of_nothing(results: LogicalPlan, aggregate: &Aggregate) -> Result<LogicalPlan> {
    let keys: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    let number_type = aggregate.schema.field(keys.len()).data_type();
    let of_totals = numbered(&keys, &sets(&aggregate.group_expr)).into_iter().filter(|(_, set)| set.is_empty());
    let numbers = of_totals.map(|(number, _)| ScalarValue::UInt64(Some(number)).cast_to(number_type));
    let numbers = numbers.collect::<Result<Vec<_>>>()?;
    let columns: Vec<Expr> = results.schema().columns().into_iter().map(Expr::Column).collect();
    let number = columns[keys.len()].clone();
    let mut outputs: Vec<Expr> = columns[..=keys.len()].to_vec();
    let aggregates = aggregate.aggr_expr.iter().zip(aggregate.schema.iter().skip(keys.len() + 1));
    for ((expr, (qualifier, field)), column) in aggregates.zip(&columns[keys.len() + 1..]) {
        let value = lit(value_of_nothing(expr, &aggregate.input, field.data_type())?);
        let value = when(number.clone().is_null(), value).otherwise(column.clone())?;
        outputs.push(named(value, qualifier.cloned(), field.name()));
    }
    let list = |numbers: &[ScalarValue]| lit(ScalarValue::List(ScalarValue::new_list_nullable(numbers, number_type)));
    let none = ScalarValue::try_from(number_type)?;
    let totals = Column::new_unqualified("__totals");
    outputs.push(when(number.clone().is_null(), list(&numbers)).otherwise(list(&[none]))?.alias(&totals.name));
    let rows = LogicalPlanBuilder::empty(true).join_on(results, JoinType::Left, [lit(true)])?.project(outputs)?;
    let options = UnnestOptions { null_handling: NullHandling::Drop, recursions: vec![] };
    let rows = rows.unnest_column_with_options(totals.clone(), options)?;
    let of_nothing = when(number.clone().is_null(), Expr::Column(totals)).otherwise(number)?;
    let mut outputs: Vec<Expr> = aggregate.schema.columns().into_iter().map(Expr::Column).collect();
    let (qualifier, field) = aggregate.schema.qualified_field(keys.len());
    outputs[keys.len()] = named(of_nothing, qualifier.cloned(), field.name());
    rows.project(outputs)?.build()
}

/// What an aggregate says of no row.
fn value_of_nothing(expr: &Expr, input: &LogicalPlan, data_type: &DataType) -> Result<ScalarValue> {
    let value = || {
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expr.clone().unalias() else {
            return internal_err!("{expr} is no aggregate");
        };
        let (properties, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
        let physical = |arg: &Expr| create_physical_expr(arg, input.schema(), &properties, &context);
        let args = params.args.iter().map(physical).collect::<Result<Vec<_>>>()?;
        let aggregate = AggregateExprBuilder::new(func, args).schema(Arc::clone(input.schema().inner()));
        aggregate.alias(expr.schema_name().to_string()).build()?.create_accumulator()?.evaluate()
    };
    // Those that want more than their arguments have no value.
    value().and_then(|value| value.cast_to(data_type)).or_else(|_| ScalarValue::try_from(data_type))
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
