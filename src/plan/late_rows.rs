//! What late rows leave out of the answer of plain DataFusion: each scan of a stream its own rows, and the windows that rows
//! came too late for, of which they are in others.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, Result, internal_err};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Filter, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::operator::ticks;
use crate::source::{LeftOut, StreamTable};

use super::event_time::stream_of;

/// The plan with its scans of streams numbered, in its order.
///
/// # Errors
/// None that is known of.
pub(crate) fn numbered_scans(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut numbers = 0..;
    over_streams(plan, |stream| Ok(stream.numbered(numbers.next().unwrap_or_default())))
}

/// The plan whose streams are read as tables without what is left out of each.
///
/// # Errors
/// Those of `left_out`.
pub(crate) fn leaving_out(
    plan: LogicalPlan,
    left_out: impl Fn(&StreamTable) -> Result<LeftOut>,
) -> Result<LogicalPlan> {
    over_streams(plan, |stream| Ok(stream.leaving_out(left_out(stream)?)))
}

/// The plan over what `change` makes of its streams.
fn over_streams(plan: LogicalPlan, mut change: impl FnMut(&StreamTable) -> Result<StreamTable>) -> Result<LogicalPlan> {
    plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::TableScan(mut scan) => {
            let Some(stream) = stream_of(&scan) else { return Ok(Transformed::no(LogicalPlan::TableScan(scan))) };
            scan.source = provider_as_source(Arc::new(change(&stream)?));
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        node => Ok(Transformed::no(node)),
    })
    .data()
}

/// Rows of a plan that are in a window that is not left out, which ends at `end`.
///
/// # Errors
/// None for columns of the plan.
pub(super) fn in_time(plan: LogicalPlan, place: &Column, end: Column, left_out: Arc<LeftOut>) -> Result<LogicalPlan> {
    let in_time = ScalarUDF::new_from_impl(InTime { left_out, signature: Signature::any(2, Volatility::Immutable) });
    let in_time = in_time.call(vec![Expr::Column(place.clone()), Expr::Column(end)]);
    Ok(LogicalPlan::Filter(Filter::try_new(in_time, Arc::new(plan))?))
}

/// `in_time(place, end)`: whether the row of a place came before its window that ends there was closed.
#[derive(Debug, PartialEq, Eq)]
struct InTime {
    left_out: Arc<LeftOut>,
    signature: Signature,
}

// What is left out is too much to be hashed.
impl Hash for InTime {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for InTime {
    fn name(&self) -> &str {
        "in_time"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [places, ends] = columns.as_slice() else { return internal_err!("a place and an end") };
        let ends = ticks(ends)?;
        let is_in_time = |(place, end): (Option<i64>, Option<i64>)| {
            place.zip(end).is_none_or(|(place, end)| self.left_out.has_in_window(place, end))
        };
        let in_time = places.as_primitive::<Int64Type>().iter().zip(ends.iter()).map(is_in_time);
        Ok(ColumnarValue::Array(Arc::new(in_time.map(Some).collect::<BooleanArray>()) as ArrayRef))
    }
}
