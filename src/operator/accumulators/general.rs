//! Any aggregate, user-defined ones too: one DataFusion accumulator for each group.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, new_empty_array};
use arrow::compute::take_arrays;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::{RunningAggregate, passed_rows};

/// One accumulator for each group.
pub(super) struct General {
    aggregate: Arc<AggregateFunctionExpr>,
    /// The value of no rows.
    empty: ScalarValue,
    groups: Vec<Group>,
}

struct Group {
    accumulator: Box<dyn Accumulator>,
    /// The value after the last row, once it has been asked for.
    value: Option<ScalarValue>,
}

impl General {
    pub(super) fn try_new(aggregate: Arc<AggregateFunctionExpr>) -> Result<Self> {
        let empty = aggregate.create_accumulator()?.evaluate()?;
        Ok(Self { aggregate, empty, groups: vec![] })
    }

    fn grow(&mut self, groups_total: usize) -> Result<()> {
        while self.groups.len() < groups_total {
            self.groups.push(self.fresh()?);
        }
        Ok(())
    }

    fn fresh(&self) -> Result<Group> {
        Ok(Group { accumulator: self.aggregate.create_accumulator()?, value: Some(self.empty.clone()) })
    }

    fn restored(&self, state: &[ArrayRef]) -> Result<Box<dyn Accumulator>> {
        let mut accumulator = self.aggregate.create_accumulator()?;
        accumulator.merge_batch(state)?;
        Ok(accumulator)
    }

    /// A group's value now. Some accumulators give their contents away when they are asked, so the one that is asked
    /// is made from the state of the one that is kept.
    fn value(&mut self, group: usize) -> Result<ScalarValue> {
        let Some(Group { accumulator, value }) = self.groups.get_mut(group) else { return Ok(self.empty.clone()) };
        if let Some(value) = value {
            return Ok(value.clone());
        }
        let state = state_arrays(accumulator.as_mut())?;
        let value = self.restored(&state)?.evaluate()?;
        self.groups[group] = Group { accumulator: self.restored(&state)?, value: Some(value.clone()) };
        Ok(value)
    }
}

/// Values as a column, which may be empty.
fn column(values: impl IntoIterator<Item = ScalarValue>, data_type: &DataType) -> Result<ArrayRef> {
    let mut values = values.into_iter().peekable();
    match values.peek() {
        None => Ok(new_empty_array(data_type)),
        Some(_) => ScalarValue::iter_to_array(values),
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
        let passed = passed_rows(filter);
        let mut output = Vec::with_capacity(groups.len());
        for (row, group) in groups.iter().enumerate() {
            if passed.as_ref().is_none_or(|passed| passed.value(row)) {
                let arguments: Vec<ArrayRef> = arguments.iter().map(|argument| argument.slice(row, 1)).collect();
                let group = &mut self.groups[*group];
                group.accumulator.update_batch(&arguments)?;
                group.value = None;
            }
            output.push(self.value(*group)?);
        }
        column(output, self.aggregate.field().data_type())
    }

    fn accumulate(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<()> {
        self.grow(groups_total)?;
        let mut rows: Vec<u32> = match passed_rows(filter) {
            None => (0..groups.len() as u32).collect(),
            Some(passed) => passed.set_indices_u32().collect(),
        };
        // Stable: the rows of a group stay in order.
        rows.sort_by_key(|row| groups[*row as usize]);
        let sorted = take_arrays(arguments, &UInt32Array::from(rows.clone()), None)?;
        let mut first = 0;
        for own in rows.chunk_by(|a, b| groups[*a as usize] == groups[*b as usize]) {
            let arguments: Vec<ArrayRef> = sorted.iter().map(|argument| argument.slice(first, own.len())).collect();
            first += own.len();
            let group = &mut self.groups[groups[own[0] as usize]];
            group.accumulator.update_batch(&arguments)?;
            group.value = None;
        }
        Ok(())
    }

    fn values(&mut self, slots: &[usize]) -> Result<ArrayRef> {
        let values = slots.iter().map(|slot| self.value(*slot)).collect::<Result<Vec<_>>>()?;
        column(values, self.aggregate.field().data_type())
    }

    fn merge(&mut self, into: usize, from: usize) -> Result<()> {
        if into != from && from < self.groups.len() {
            self.grow(into + 1)?;
            let fresh = self.fresh()?;
            let mut from = std::mem::replace(&mut self.groups[from], fresh);
            let state = state_arrays(from.accumulator.as_mut())?;
            let into = &mut self.groups[into];
            into.accumulator.merge_batch(&state)?;
            into.value = None;
        }
        Ok(())
    }

    fn clear(&mut self, slots: &[usize]) -> Result<()> {
        for slot in slots {
            if *slot < self.groups.len() {
                self.groups[*slot] = self.fresh()?;
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>> {
        let states = self.groups.iter_mut().map(|group| group.accumulator.state()).collect::<Result<Vec<_>>>()?;
        let fields = self.aggregate.state_fields()?;
        let columns = fields.iter().enumerate().map(|(index, field)| {
            column(states.iter().filter_map(|state| state.get(index).cloned()), field.data_type())
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        // Giving the state away has emptied the accumulators.
        self.restore(&columns)?;
        Ok(columns)
    }

    fn restore(&mut self, state: &[ArrayRef]) -> Result<()> {
        let group = |group| {
            let own: Vec<ArrayRef> = state.iter().map(|column| column.slice(group, 1)).collect();
            Ok(Group { accumulator: self.restored(&own)?, value: None })
        };
        self.groups = (0..state.first().map_or(0, |column| column.len())).map(group).collect::<Result<_>>()?;
        Ok(())
    }

    fn state_width(&self) -> Result<usize> {
        Ok(self.aggregate.state_fields()?.len())
    }

    fn size(&self) -> usize {
        let size = |group: &Group| {
            size_of::<Group>() + group.accumulator.size() + group.value.as_ref().map_or(0, ScalarValue::size)
        };
        self.groups.iter().map(size).sum()
    }
}
