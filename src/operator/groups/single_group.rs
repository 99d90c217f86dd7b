//! The one group of a GROUP BY without keys and window: an aggregate's plain accumulator, which DataFusion uses there
//! too. For some aggregates it answers otherwise than the accumulator of many groups (min and max of NaN).

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter;
use datafusion::common::{Result, ScalarValue, not_impl_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// An accumulator of one group as one of many.
pub(super) struct SingleGroup(pub(super) Box<dyn Accumulator>);

impl GroupsAccumulator for SingleGroup {
    fn update_batch(&mut self, values: &[ArrayRef], _: &[usize], keep: Option<&BooleanArray>, _: usize) -> Result<()> {
        match keep {
            None => self.0.update_batch(values),
            Some(keep) => {
                let values = values.iter().map(|values| filter(values, keep)).collect::<Result<Vec<_>, _>>()?;
                self.0.update_batch(&values)
            }
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef], _: &[usize], _: usize) -> Result<()> {
        self.0.merge_batch(states)
    }

    fn evaluate(&mut self, _: EmitTo) -> Result<ArrayRef> {
        self.0.evaluate()?.to_array()
    }

    fn state(&mut self, _: EmitTo) -> Result<Vec<ArrayRef>> {
        self.0.state()?.iter().map(ScalarValue::to_array).collect()
    }

    fn convert_to_state(&self, _: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        not_impl_err!("rows are aggregated, never turned into states one by one")
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}
