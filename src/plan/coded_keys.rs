//! GROUP BY one column of text without reading its text: Parquet files mostly hold such a column as codes into a
//! dictionary, and codes are all that grouping needs.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;

use crate::exec::filter::StreamFilterExec;
use crate::exec::operator::OperatorExec;
use crate::exec::scan::StreamScanExec;
use crate::operator::AggregateSpec;

/// Asks the leaf for codes where an aggregate's only key is a column of text that nothing else looks at.
pub(super) fn with_coded_keys(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let Some(operator) = node.downcast_ref::<OperatorExec>() else {
        return Ok(Transformed::no(node));
    };
    let key = operator.spec().aggregate().and_then(only_key_of_text);
    let input = key.map(|key| with_codes(operator.input(), key)).transpose()?.flatten();
    match input {
        Some(input) => Ok(Transformed::yes(replace_children_if_necessary(node, vec![input])?)),
        None => Ok(Transformed::no(node)),
    }
}

/// The index of the column that is the only key, if no other expression reads it.
fn only_key_of_text(spec: &AggregateSpec) -> Option<usize> {
    let [(key, _)] = spec.keys.as_slice() else { return None };
    let key = key.downcast_ref::<Column>()?.index();
    let field = spec.schema.field(spec.window_columns());
    if !matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
        return None;
    }
    let arguments = spec.aggregates.iter().flat_map(|aggregate| {
        let all = aggregate.all_expressions();
        all.args.into_iter().chain(all.order_by_exprs)
    });
    let window = spec.window.iter().map(|window| Arc::clone(&window.start));
    let filters = spec.filters.iter().flatten().cloned();
    let mut others = arguments.chain(window).chain(filters);
    (!others.any(|expr| reads(&expr, key))).then_some(key)
}

fn reads(expr: &Arc<dyn PhysicalExpr>, column: usize) -> bool {
    collect_columns(expr).iter().any(|read| read.index() == column)
}

/// The plan with its leaf's column `position` as codes; none if something on the way needs the text.
fn with_codes(plan: &Arc<dyn ExecutionPlan>, position: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(scan) = plan.downcast_ref::<StreamScanExec>() {
        return Ok(Some(Arc::new(scan.with_codes(position)?)));
    }
    let Some(filter) = plan.downcast_ref::<StreamFilterExec>() else {
        return Ok(None);
    };
    let Some(below) = filter.input_position(position).filter(|below| !reads(filter.predicate(), *below)) else {
        return Ok(None);
    };
    let input = plan.children().first().map(|input| with_codes(input, below)).transpose()?.flatten();
    input.map(|input| replace_children_if_necessary(Arc::clone(plan), vec![input])).transpose()
}
