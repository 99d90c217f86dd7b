//! Any aggregate, user-defined ones too: one DataFusion accumulator for each group.

use std::any::{Any, TypeId};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, new_empty_array};
use arrow::compute::{cast, take_arrays};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::all_default_aggregate_functions;
use datafusion::functions_aggregate::array_agg::ArrayAgg;
use datafusion::logical_expr::{Accumulator, AggregateUDF};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::{Joined, RunningAggregate, Slots, passed_rows};

/// One accumulator for each group.
pub(super) struct General {
    aggregate: Arc<AggregateFunctionExpr>,
    /// The value of no rows.
    empty: ScalarValue,
    /// Whether an accumulator goes on after it was asked for its value.
    goes_on: bool,
    groups: Vec<Group>,
    /// Bytes that the groups hold elsewhere.
    heap: usize,
}

struct Group {
    accumulator: Box<dyn Accumulator>,
    /// The value after the last row, once it has been asked for.
    value: Option<ScalarValue>,
    /// Bytes that it held elsewhere when it was measured.
    heap: usize,
}

/// DataFusion's own accumulators tell their value without losing it. Of others, and of those that sort, nothing is
/// known; and that of array_agg keeps a piece for each row until its state makes them one.
fn goes_on(aggregate: &AggregateFunctionExpr) -> bool {
    let type_of = |function: &AggregateUDF| (function.inner().as_ref() as &dyn Any).type_id();
    aggregate.order_bys().is_empty()
        && type_of(aggregate.fun()) != TypeId::of::<ArrayAgg>()
        && all_default_aggregate_functions().iter().any(|known| type_of(known) == type_of(aggregate.fun()))
}

impl General {
    pub(super) fn try_new(aggregate: Arc<AggregateFunctionExpr>) -> Result<Self> {
        let empty = aggregate.create_accumulator()?.evaluate()?;
        Ok(Self { goes_on: goes_on(&aggregate), aggregate, empty, groups: vec![], heap: 0 })
    }

    fn grow(&mut self, groups_total: usize) -> Result<()> {
        while self.groups.len() < groups_total {
            self.groups.push(self.fresh()?);
        }
        Ok(())
    }

    fn fresh(&self) -> Result<Group> {
        Ok(Group { accumulator: self.aggregate.create_accumulator()?, value: Some(self.empty.clone()), heap: 0 })
    }

    fn restored(&self, state: &[ArrayRef]) -> Result<Box<dyn Accumulator>> {
        let mut accumulator = self.aggregate.create_accumulator()?;
        accumulator.merge_batch(state)?;
        Ok(accumulator)
    }

    fn take_in(&mut self, slot: usize, arguments: &[ArrayRef]) -> Result<()> {
        let group = &mut self.groups[slot];
        group.accumulator.update_batch(arguments)?;
        group.value = None;
        Ok(())
    }

    fn join(&mut self, join: &Joined) -> Result<()> {
        let state = state_arrays(self.groups[join.from].accumulator.as_mut())?;
        self.clear(&[join.from])?;
        let group = &mut self.groups[join.into];
        group.accumulator.merge_batch(&state)?;
        group.value = None;
        self.measure(&[join.into]);
        Ok(())
    }

    /// A group's value now. Where accumulators may give their contents away when they are asked, the one that is
    /// asked is made from the state of the one that is kept.
    fn value(&mut self, group: usize) -> Result<ScalarValue> {
        let Some(Group { accumulator, value, .. }) = self.groups.get_mut(group) else { return Ok(self.empty.clone()) };
        if let Some(value) = value {
            return Ok(value.clone());
        }
        let now = match self.goes_on {
            true => accumulator.evaluate()?,
            false => {
                let state = state_arrays(accumulator.as_mut())?;
                self.groups[group].accumulator = self.restored(&state)?;
                self.restored(&state)?.evaluate()?
            }
        };
        self.groups[group].value = Some(now.clone());
        Ok(now)
    }

    /// Measures groups that have changed.
    fn measure(&mut self, groups: &[usize]) {
        let mut groups = groups.to_vec();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            if let Some(group) = self.groups.get_mut(group) {
                self.heap -= group.heap;
                group.heap = group.accumulator.size() + group.value.as_ref().map_or(0, ScalarValue::size);
                self.heap += group.heap;
            }
        }
    }
}

/// Values as a column, which may be empty.
fn column(values: impl IntoIterator<Item = ScalarValue>, data_type: &DataType) -> Result<ArrayRef> {
    let mut values = values.into_iter().peekable();
    match values.peek() {
        None => Ok(new_empty_array(data_type)),
        // One dictionary of them all would have an entry for each.
        Some(ScalarValue::Dictionary(..)) => {
            let values = values.map(|value| match value {
                ScalarValue::Dictionary(_, value) => *value,
                value => value,
            });
            Ok(cast(&ScalarValue::iter_to_array(values)?, data_type)?)
        }
        Some(_) => ScalarValue::iter_to_array(values),
    }
}

fn state_arrays(accumulator: &mut dyn Accumulator) -> Result<Vec<ArrayRef>> {
    accumulator.state()?.iter().map(ScalarValue::to_array).collect()
}

impl RunningAggregate for General {
    fn update(&mut self, slots: Slots, arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<ArrayRef> {
        self.grow(slots.total)?;
        let passed = passed_rows(filter);
        let mut output = Vec::with_capacity(slots.rows.len());
        for (joins, rows) in slots.pieces(usize::MAX) {
            joins.iter().try_for_each(|join| self.join(join))?;
            for row in rows {
                let slot = slots.rows[row];
                if passed.as_ref().is_none_or(|passed| passed.value(row)) {
                    let arguments: Vec<ArrayRef> = arguments.iter().map(|argument| argument.slice(row, 1)).collect();
                    self.take_in(slot, &arguments)?;
                }
                output.push(self.value(slot)?);
            }
        }
        self.measure(slots.rows);
        column(output, self.aggregate.field().data_type())
    }

    fn accumulate(&mut self, slots: Slots, arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<()> {
        self.grow(slots.total)?;
        let passed = passed_rows(filter);
        for (joins, rows) in slots.pieces(usize::MAX) {
            joins.iter().try_for_each(|join| self.join(join))?;
            let passes = |row: &u32| passed.as_ref().is_none_or(|passed| passed.value(*row as usize));
            let mut rows: Vec<u32> = (rows.start as u32..rows.end as u32).filter(passes).collect();
            // Stable: the rows of a slot stay in order.
            rows.sort_by_key(|row| slots.rows[*row as usize]);
            let sorted = take_arrays(arguments, &UInt32Array::from(rows.clone()), None)?;
            let mut first = 0;
            for own in rows.chunk_by(|a, b| slots.rows[*a as usize] == slots.rows[*b as usize]) {
                let own_arguments: Vec<ArrayRef> = sorted.iter().map(|column| column.slice(first, own.len())).collect();
                first += own.len();
                self.take_in(slots.rows[own[0] as usize], &own_arguments)?;
            }
        }
        self.measure(slots.rows);
        Ok(())
    }

    fn values(&mut self, slots: &[usize]) -> Result<ArrayRef> {
        let values = slots.iter().map(|slot| self.value(*slot)).collect::<Result<Vec<_>>>()?;
        self.measure(slots);
        column(values, self.aggregate.field().data_type())
    }

    fn clear(&mut self, slots: &[usize]) -> Result<()> {
        for slot in slots {
            if *slot < self.groups.len() {
                self.heap -= self.groups[*slot].heap;
                self.groups[*slot] = self.fresh()?;
            }
        }
        self.measure(slots);
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

    fn put(&mut self, slots: &[usize], total: usize, state: &[ArrayRef]) -> Result<()> {
        self.grow(total)?;
        for (row, slot) in slots.iter().enumerate() {
            let own: Vec<ArrayRef> = state.iter().map(|column| column.slice(row, 1)).collect();
            let group = Group { accumulator: self.restored(&own)?, value: None, heap: 0 };
            self.heap -= std::mem::replace(&mut self.groups[*slot], group).heap;
        }
        self.measure(slots);
        Ok(())
    }

    fn state_width(&self) -> Result<usize> {
        Ok(self.aggregate.state_fields()?.len())
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Group>() + self.heap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_many_rows_fit_into_a_small_type() {
        let data_type = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let value = |text: Option<&str>| {
            ScalarValue::Dictionary(Box::new(DataType::Int8), Box::new(ScalarValue::Utf8(text.map(String::from))))
        };
        let values = (0..1000).map(|row| value([Some("a"), None, Some("b")][row % 3]));
        let column = column(values, &data_type).unwrap();
        assert_eq!((column.len(), column.data_type(), column.logical_null_count()), (1000, &data_type, 333));
    }
}
