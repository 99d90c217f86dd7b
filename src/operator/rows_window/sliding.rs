//! count, sum, avg, min and max over the rows of a frame of each key, without ever taking a value back out.

use std::any::Any;
use std::sync::Arc;

use arrow::array::types::{Float64Type, Int64Type, UInt8Type};
use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, Float64Array, Int64Array,
    PrimitiveArray, StructArray, UInt8Array, downcast_primitive,
};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::count::Count;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::RowsState;
use super::framed::{Framed, Rows};
use super::frames::Due;
use super::lists::{lists, of_lists};
use super::two_stacks::{Total, TwoStacks};

/// What becomes of a total.
#[derive(Debug, Clone, Copy)]
enum Finish<N> {
    Count,
    Value,
    /// The mean, given how a sum becomes a float.
    Mean(fn(N) -> f64),
}

/// A frame's totals, from one row to the next.
pub(super) trait Totals: RowsState + Framed {}
impl<T: ArrowPrimitiveType> Totals for Sliding<T> {}

/// The state of an aggregate whose values are numbers of a type that is known here. Without `preceding`, rows never
/// leave the frame; it is of no account where frames are given row by row.
pub(super) fn state(
    aggregate: &AggregateFunctionExpr,
    argument: &DataType,
    preceding: Option<usize>,
) -> Option<Box<dyn Totals>> {
    if aggregate.expressions().len() != 1 || aggregate.is_distinct() {
        return None;
    }
    let function: &dyn Any = aggregate.fun().inner().as_ref();
    let is_number = argument.is_numeric()
        || argument.is_temporal() && !matches!(argument, DataType::Time32(_) | DataType::Time64(_));
    if function.is::<Count>() {
        return Some(Box::new(Sliding::<Int64Type>::new(preceding, Finish::Count, DataType::Int64, |a, _| a)));
    }
    if function.is::<Avg>() && argument == &DataType::Float64 {
        let mean = Finish::Mean(|sum| sum);
        return Some(Box::new(Sliding::<Float64Type>::new(preceding, mean, DataType::Float64, |a, b| a + b)));
    }
    if function.is::<Sum>() && is_number {
        return sum(preceding, argument, aggregate.field().data_type());
    }
    if function.is::<Min>() && is_number {
        return extreme(preceding, argument, true);
    }
    if function.is::<Max>() && is_number {
        return extreme(preceding, argument, false);
    }
    None
}

fn sum(preceding: Option<usize>, argument: &DataType, output: &DataType) -> Option<Box<dyn Totals>> {
    fn of<T: ArrowPrimitiveType>(preceding: Option<usize>, output: &DataType) -> Option<Box<dyn Totals>> {
        let sum = |a: T::Native, b: T::Native| a.add_wrapping(b);
        let fits = PrimitiveArray::<T>::is_compatible(output);
        fits.then(|| Box::new(Sliding::<T>::new(preceding, Finish::Value, output.clone(), sum)) as _)
    }
    macro_rules! of_type {
        ($t:ty) => {
            of::<$t>(preceding, output)
        };
    }
    downcast_primitive!(argument => (of_type), _ => None)
}

fn extreme(preceding: Option<usize>, argument: &DataType, least: bool) -> Option<Box<dyn Totals>> {
    fn of<T: ArrowPrimitiveType>(preceding: Option<usize>, argument: &DataType, least: bool) -> Box<dyn Totals> {
        let pick = if least {
            |a: T::Native, b: T::Native| if b.is_lt(a) { b } else { a }
        } else {
            |a: T::Native, b: T::Native| if b.is_gt(a) { b } else { a }
        };
        Box::new(Sliding::<T>::new(preceding, Finish::Value, argument.clone(), pick))
    }
    macro_rules! of_type {
        ($t:ty) => {
            Some(of::<$t>(preceding, argument, least))
        };
    }
    downcast_primitive!(argument => (of_type), _ => None)
}

struct Sliding<T: ArrowPrimitiveType> {
    /// Rows in a full frame, the current one included; none without a limit.
    frame_rows: Option<usize>,
    finish: Finish<T::Native>,
    output: DataType,
    combine: fn(T::Native, T::Native) -> T::Native,
    groups: Vec<TwoStacks<T::Native>>,
    /// Totals that the stacks of all keys have room for.
    room: usize,
    /// Where frames are given row by row: the rows of each key that the stacks hold.
    reached: Vec<(usize, usize)>,
}

impl<T: ArrowPrimitiveType> Sliding<T> {
    fn new(
        preceding: Option<usize>,
        finish: Finish<T::Native>,
        output: DataType,
        combine: fn(T::Native, T::Native) -> T::Native,
    ) -> Self {
        let frame_rows = preceding.map(|preceding| preceding.saturating_add(1));
        Self { frame_rows, finish, output, combine, groups: vec![], room: 0, reached: vec![] }
    }

    fn empty() -> TwoStacks<T::Native> {
        TwoStacks { front: vec![], back: vec![], back_total: (T::default_value(), 0) }
    }

    fn grow(&mut self, groups_total: usize) {
        self.groups.resize(groups_total, Self::empty());
    }

    fn finished(&self, totals: Vec<Total<T::Native>>) -> ArrayRef {
        match self.finish {
            Finish::Count => Arc::new(Int64Array::from_iter_values(totals.into_iter().map(|(_, count)| count))),
            Finish::Value => {
                let values = totals.into_iter().map(|(value, count)| (count > 0).then_some(value));
                Arc::new(PrimitiveArray::<T>::from_iter(values).with_data_type(self.output.clone()))
            }
            Finish::Mean(to_f64) => {
                let mean = |(sum, count): Total<T::Native>| (count > 0).then(|| to_f64(sum) / count as f64);
                Arc::new(Float64Array::from_iter(totals.into_iter().map(mean)))
            }
        }
    }
}

impl<T: ArrowPrimitiveType> RowsState for Sliding<T> {
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        live: Option<&BooleanArray>,
    ) -> Result<ArrayRef> {
        self.grow(groups_total);
        let argument = arguments.first().ok_or_else(|| internal_datafusion_err!("an aggregate without an argument"))?;
        let counts_rows = matches!(self.finish, Finish::Count);
        let values = argument.as_primitive_opt::<T>();
        if values.is_none() && !counts_rows {
            return Err(internal_datafusion_err!("values of type {}, not {}", argument.data_type(), T::DATA_TYPE));
        }
        let (frame_rows, combine) = (self.frame_rows, self.combine);
        let nulls = argument.logical_nulls();
        let totals = groups.iter().enumerate().map(|(row, group)| {
            let counts = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
                && live.is_none_or(|live| live.is_valid(row) && live.value(row));
            let value = values.filter(|_| !counts_rows).map_or(T::default_value(), |values| values.value(row));
            let stacks = &mut self.groups[*group];
            let room = stacks.room();
            let total = stacks.slide((value, i64::from(counts)), frame_rows, combine);
            self.room = self.room + stacks.room() - room;
            total
        });
        let totals = totals.collect();
        Ok(self.finished(totals))
    }

    fn forget(&mut self, groups: &[usize]) -> Result<()> {
        for group in groups {
            if let Some(stacks) = self.groups.get_mut(*group) {
                self.room -= stacks.room();
                *stacks = Self::empty();
            }
        }
        Ok(())
    }

    fn rows_of(&mut self, groups: &[usize]) -> Result<ArrayRef> {
        let (mut lengths, mut parts, mut values, mut counts) = (vec![], vec![], vec![], vec![]);
        let empty = Self::empty();
        for stacks in groups.iter().map(|group| self.groups.get(*group).unwrap_or(&empty)) {
            let front = stacks.front.iter().map(|total| (FRONT, total));
            let back = stacks.back.iter().map(|total| (BACK, total));
            let before = parts.len();
            for (part, (value, count)) in front.chain(back).chain([(TOTAL, &stacks.back_total)]) {
                parts.push(part);
                values.push(*value);
                counts.push(*count);
            }
            lengths.push(parts.len() - before);
        }
        let values = PrimitiveArray::<T>::from_iter_values(values);
        let columns: Vec<ArrayRef> =
            vec![Arc::new(UInt8Array::from(parts)), Arc::new(values), Arc::new(Int64Array::from(counts))];
        let fields = ["part", "value", "count"].iter().zip(&columns);
        let fields = fields.map(|(name, column)| Field::new(*name, column.data_type().clone(), false));
        let totals = StructArray::try_new(fields.collect(), columns, None)?;
        lists(lengths, Arc::new(totals))
    }

    fn put(&mut self, groups: &[usize], groups_total: usize, rows: &ArrayRef) -> Result<()> {
        let wrong = || internal_datafusion_err!("the state of another function");
        let (totals, ranges) = of_lists(rows)?;
        let [parts, values, counts] = totals.as_struct_opt().ok_or_else(wrong)?.columns() else { return Err(wrong()) };
        let parts = parts.as_primitive_opt::<UInt8Type>().ok_or_else(wrong)?;
        let values = values.as_primitive_opt::<T>().ok_or_else(wrong)?;
        let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        self.grow(groups_total);
        for (group, rows) in groups.iter().zip(ranges) {
            let stacks = &mut self.groups[*group];
            for row in rows {
                let total = (values.value(row), counts.value(row));
                match parts.value(row) {
                    FRONT => stacks.front.push(total),
                    BACK => stacks.back.push(total),
                    _ => stacks.back_total = total,
                }
            }
            self.room += stacks.room();
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<TwoStacks<T::Native>>() + self.room * size_of::<Total<T::Native>>()
    }
}

impl<T: ArrowPrimitiveType> Framed for Sliding<T> {
    fn values(&mut self, due: &[Due], groups_total: usize, rows: &Rows<'_>) -> Result<ArrayRef> {
        self.grow(groups_total);
        self.reached.resize(groups_total, (0, 0));
        let counts_rows = matches!(self.finish, Finish::Count);
        let chunks: Vec<_> =
            rows.argument(0).map(|chunk| chunk.and_then(|chunk| chunk.as_primitive_opt::<T>())).collect();
        let nulls: Vec<_> = rows.argument(0).map(|chunk| chunk.and_then(|chunk| chunk.logical_nulls())).collect();
        let (none, combine) = ((T::default_value(), 0), self.combine);
        let totals = due.iter().map(|due| {
            let (stacks, (start, end)) = (&mut self.groups[due.group], &mut self.reached[due.group]);
            let room = stacks.room();
            if due.start >= *end {
                (stacks.front, stacks.back) = (vec![], vec![]);
                (*start, *end) = (due.start, due.start);
            }
            for row in *end..due.end {
                let (chunk, row) = rows.place(due.group, row);
                let counts = nulls[chunk].as_ref().is_none_or(|nulls| nulls.is_valid(row)) && rows.is_live(chunk, row);
                let value = chunks[chunk].filter(|_| !counts_rows).map_or(none.0, |values| values.value(row));
                stacks.push((value, i64::from(counts)), combine);
            }
            (*start..due.start).for_each(|_| stacks.pop(combine));
            (*start, *end) = (due.start, due.end);
            self.room = self.room + stacks.room() - room;
            stacks.total(none, combine)
        });
        let totals = totals.collect();
        Ok(self.finished(totals))
    }

    fn forget(&mut self, group: usize) {
        if let Some(stacks) = self.groups.get_mut(group) {
            self.room -= stacks.room();
            (stacks.front, stacks.back) = (vec![], vec![]);
            self.reached[group] = (0, 0);
        }
    }

    fn size(&self) -> usize {
        RowsState::size(self) + self.reached.capacity() * size_of::<(usize, usize)>()
    }
}

const FRONT: u8 = 0;
const BACK: u8 = 1;
const TOTAL: u8 = 2;

#[cfg(test)]
mod tests {
    use arrow::array::new_null_array;
    use arrow::datatypes::{IntervalUnit, Schema, TimeUnit};

    use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
    use datafusion::functions_aggregate::sum::sum_udaf;
    use datafusion::logical_expr::AggregateUDF;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::Column;

    use super::*;

    /// The state of a function and its type; none if DataFusion has no such function of this type.
    fn sliding(
        function: Arc<AggregateUDF>,
        preceding: usize,
        data_type: &DataType,
    ) -> Option<(Box<dyn Totals>, DataType)> {
        let schema = Arc::new(Schema::new(vec![Field::new("value", data_type.clone(), true)]));
        let argument = Arc::new(Column::new("value", 0));
        let aggregate = AggregateExprBuilder::new(function, vec![argument]).schema(schema).alias("of value").build();
        let aggregate = aggregate.ok()?;
        let state = state(&aggregate, data_type, Some(preceding)).unwrap();
        Some((state, aggregate.field().data_type().clone()))
    }

    #[test]
    fn every_numeric_type_has_sums_and_extremes() {
        let types = [
            DataType::Float16,
            DataType::Decimal32(5, 1),
            DataType::Decimal64(12, 2),
            DataType::Decimal256(50, 3),
            DataType::Duration(TimeUnit::Millisecond),
            DataType::Interval(IntervalUnit::MonthDayNano),
        ];
        for data_type in types {
            for function in [sum_udaf(), min_udaf(), max_udaf()] {
                let Some((mut state, output)) = sliding(function, 2, &data_type) else { continue };
                let values = state.update(&[0, 0], 1, &[new_null_array(&data_type, 2)], None).unwrap();
                assert_eq!((values.data_type(), values.null_count()), (&output, 2));
            }
        }
    }

    #[test]
    fn a_wide_frame_of_few_rows_takes_little_memory() {
        let (mut state, _) = sliding(sum_udaf(), 999, &DataType::Int64).unwrap();
        let groups: Vec<usize> = (0..1000).collect();
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        state.update(&groups, 1000, &[values], None).unwrap();
        let bytes = RowsState::size(state.as_ref());
        assert!(bytes < 1000 * 300, "{bytes} bytes");
    }
}
