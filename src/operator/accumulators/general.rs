//! Any aggregate, user-defined ones too: one DataFusion accumulator for each group, asked after each row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::{RunningAggregate, live_rows};

/// One accumulator for each group.
pub(super) struct General {
    aggregate: Arc<AggregateFunctionExpr>,
    groups: Vec<Box<dyn Accumulator>>,
    /// The value of each group after its last row.
    values: Vec<ScalarValue>,
}

impl General {
    pub(super) fn new(aggregate: Arc<AggregateFunctionExpr>) -> Self {
        Self { aggregate, groups: vec![], values: vec![] }
    }

    fn grow(&mut self, groups_total: usize) -> Result<()> {
        while self.groups.len() < groups_total {
            let mut empty = self.aggregate.create_accumulator()?;
            self.values.push(empty.evaluate()?);
            self.groups.push(self.aggregate.create_accumulator()?);
        }
        Ok(())
    }

    /// A group's value now. Some accumulators give their contents away when they are asked, so the one that is asked
    /// is made from the state of the one that is kept.
    fn evaluate(&mut self, group: usize) -> Result<ScalarValue> {
        let state = state_arrays(self.groups[group].as_mut())?;
        let mut asked = self.aggregate.create_accumulator()?;
        asked.merge_batch(&state)?;
        let mut kept = self.aggregate.create_accumulator()?;
        kept.merge_batch(&state)?;
        self.groups[group] = kept;
        asked.evaluate()
    }
}

fn state_arrays(accumulator: &mut dyn Accumulator) -> Result<Vec<ArrayRef>> {
    accumulator.state()?.iter().map(ScalarValue::to_array).collect()
}

impl RunningAggregate for General {
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<ArrayRef> {
        self.grow(groups_total)?;
        let no_nulls = arrow::array::NullArray::new(groups.len());
        let passed = live_rows(&no_nulls, filter);
        let mut output = Vec::with_capacity(groups.len());
        for (row, group) in groups.iter().enumerate() {
            if passed.as_ref().is_none_or(|passed| passed.value(row)) {
                let arguments: Vec<ArrayRef> = arguments.iter().map(|argument| argument.slice(row, 1)).collect();
                self.groups[*group].update_batch(&arguments)?;
                self.values[*group] = self.evaluate(*group)?;
            }
            output.push(self.values[*group].clone());
        }
        match output.is_empty() {
            true => Ok(arrow::array::new_empty_array(self.aggregate.field().data_type())),
            false => ScalarValue::iter_to_array(output),
        }
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>> {
        let states = self.groups.iter_mut().map(|group| group.state()).collect::<Result<Vec<_>>>()?;
        let columns = (0..self.state_width()?).map(|column| {
            let values: Vec<ScalarValue> = states.iter().filter_map(|state| state.get(column).cloned()).collect();
            ScalarValue::iter_to_array(values)
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        // Giving the state away has emptied the accumulators.
        self.restore(&columns)?;
        Ok(columns)
    }

    fn restore(&mut self, state: &[ArrayRef]) -> Result<()> {
        (self.groups, self.values) = (vec![], vec![]);
        for group in 0..state.first().map_or(0, |column| column.len()) {
            let own: Vec<ArrayRef> = state.iter().map(|column| column.slice(group, 1)).collect();
            let mut kept = self.aggregate.create_accumulator()?;
            kept.merge_batch(&own)?;
            self.groups.push(kept);
            let mut asked = self.aggregate.create_accumulator()?;
            asked.merge_batch(&own)?;
            self.values.push(asked.evaluate()?);
        }
        Ok(())
    }

    fn state_width(&self) -> Result<usize> {
        Ok(self.aggregate.state_fields()?.len())
    }

    fn size(&self) -> usize {
        let accumulators = self.groups.iter().map(|group| size_of_val(group) + group.size());
        accumulators.sum::<usize>() + self.values.iter().map(ScalarValue::size).sum::<usize>()
    }
}
