//! Windows that rows came too late for, of which they are in others: what plain DataFusion answers when they do not meet
//! those.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Column, Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Filter, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::operator::ticks;

/// The end of the last window that each row missed, in ticks of its event time, by the row's place.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct MissedWindows(pub(crate) HashMap<i64, i64>);

impl MissedWindows {
    /// Rows of a plan that are in a window that they did not miss, which ends at `end`.
    ///
    /// # Errors
    /// None for columns of the plan.
    pub(super) fn filter(self: &Arc<Self>, plan: LogicalPlan, place: &Column, end: Column) -> Result<LogicalPlan> {
        let signature = Signature::any(2, Volatility::Immutable);
        let in_time = ScalarUDF::new_from_impl(InTime { missed: Arc::clone(self), signature });
        let in_time = in_time.call(vec![Expr::Column(place.clone()), Expr::Column(end)]);
        Ok(LogicalPlan::Filter(Filter::try_new(in_time, Arc::new(plan))?))
    }
}

/// `in_time(place, end)`: whether the row of a place came before its window that ends there was closed.
#[derive(Debug, PartialEq, Eq)]
struct InTime {
    missed: Arc<MissedWindows>,
    signature: Signature,
}

impl Hash for InTime {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.missed.0.len().hash(state);
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
            let missed = place.and_then(|place| self.missed.0.get(&place));
            missed.zip(end).is_none_or(|(missed, end)| end > *missed)
        };
        let in_time = places.as_primitive::<Int64Type>().iter().zip(ends.iter()).map(is_in_time);
        Ok(ColumnarValue::Array(Arc::new(in_time.map(Some).collect::<BooleanArray>()) as ArrayRef))
    }
}
