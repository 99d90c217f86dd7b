//! count, sum, avg, min and max over the last rows of each key, without ever taking a value back out.
//!
//! Two stacks hold a frame: the back one takes new values and knows their total; the front one holds, for each of
//! the older values, the total from it to the front's newest. When the front runs out, the back is turned over into
//! it. Each value is combined about three times, whatever the frame's length, and floats stay exact because nothing
//! is subtracted. The technique is the two-stack queue of Tangwongsan, Hirzel, Schneider and Wu (VLDB 2015).

use std::sync::Arc;

use arrow::array::types::{
    Date32Type, Date64Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, Float64Array, Int64Array,
    PrimitiveArray, RecordBatch, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::{Result, internal_datafusion_err};

use super::{RowsFunction, RowsFunctionKind, RowsState};

/// The total of some rows: a value and how many rows went into it.
type Total<N> = (N, i64);

/// What becomes of a total.
#[derive(Debug, Clone, Copy)]
enum Finish<N> {
    Count,
    Value,
    /// The mean, given how a sum becomes a float.
    Mean(fn(N) -> f64),
}

/// The state of a function whose values are numbers of a type that is known here.
pub(super) fn state(function: &RowsFunction, argument: &DataType) -> Option<Box<dyn RowsState>> {
    let preceding = function.frame.preceding;
    match function.kind {
        RowsFunctionKind::Count => {
            Some(Box::new(Sliding::<Int64Type>::new(preceding, Finish::Count, DataType::Int64, |a, _| a)))
        }
        RowsFunctionKind::Avg if argument == &DataType::Float64 => Some(Box::new(Sliding::<Float64Type>::new(
            preceding,
            Finish::Mean(|sum| sum),
            DataType::Float64,
            |a, b| a + b,
        ))),
        RowsFunctionKind::Sum => {
            let output = function.field.data_type().clone();
            match argument {
                DataType::Int64 => Some(sum::<Int64Type>(preceding, output)),
                DataType::UInt64 => Some(sum::<UInt64Type>(preceding, output)),
                DataType::Float64 => Some(sum::<Float64Type>(preceding, output)),
                DataType::Decimal128(_, _) => Some(sum::<Decimal128Type>(preceding, output)),
                _ => None,
            }
        }
        RowsFunctionKind::Min => extreme(preceding, argument, true),
        RowsFunctionKind::Max => extreme(preceding, argument, false),
        _ => None,
    }
}

fn sum<T: ArrowPrimitiveType>(preceding: Option<usize>, output: DataType) -> Box<dyn RowsState> {
    Box::new(Sliding::<T>::new(preceding, Finish::Value, output, |a, b| a.add_wrapping(b)))
}

fn extreme(preceding: Option<usize>, argument: &DataType, least: bool) -> Option<Box<dyn RowsState>> {
    fn of<T: ArrowPrimitiveType>(
        preceding: Option<usize>,
        argument: &DataType,
        least: bool,
    ) -> Option<Box<dyn RowsState>> {
        let pick = if least {
            |a: T::Native, b: T::Native| if b.is_lt(a) { b } else { a }
        } else {
            |a: T::Native, b: T::Native| if b.is_gt(a) { b } else { a }
        };
        Some(Box::new(Sliding::<T>::new(preceding, Finish::Value, argument.clone(), pick)))
    }
    match argument {
        DataType::Int8 => of::<Int8Type>(preceding, argument, least),
        DataType::Int16 => of::<Int16Type>(preceding, argument, least),
        DataType::Int32 => of::<Int32Type>(preceding, argument, least),
        DataType::Int64 => of::<Int64Type>(preceding, argument, least),
        DataType::UInt8 => of::<UInt8Type>(preceding, argument, least),
        DataType::UInt16 => of::<UInt16Type>(preceding, argument, least),
        DataType::UInt32 => of::<UInt32Type>(preceding, argument, least),
        DataType::UInt64 => of::<UInt64Type>(preceding, argument, least),
        DataType::Float32 => of::<Float32Type>(preceding, argument, least),
        DataType::Float64 => of::<Float64Type>(preceding, argument, least),
        DataType::Date32 => of::<Date32Type>(preceding, argument, least),
        DataType::Date64 => of::<Date64Type>(preceding, argument, least),
        DataType::Timestamp(TimeUnit::Second, _) => of::<TimestampSecondType>(preceding, argument, least),
        DataType::Timestamp(TimeUnit::Millisecond, _) => of::<TimestampMillisecondType>(preceding, argument, least),
        DataType::Timestamp(TimeUnit::Microsecond, _) => of::<TimestampMicrosecondType>(preceding, argument, least),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => of::<TimestampNanosecondType>(preceding, argument, least),
        DataType::Decimal128(_, _) => of::<Decimal128Type>(preceding, argument, least),
        _ => None,
    }
}

/// One frame that slides over the rows of a key.
#[derive(Debug, Clone)]
struct TwoStacks<N> {
    /// Totals from each older value on; the oldest is on top.
    front: Vec<Total<N>>,
    /// Newer values.
    back: Vec<Total<N>>,
    back_total: Total<N>,
}

struct Sliding<T: ArrowPrimitiveType> {
    /// Rows in a full frame, the current one included; none without a limit.
    frame_rows: Option<usize>,
    finish: Finish<T::Native>,
    output: DataType,
    combine: fn(T::Native, T::Native) -> T::Native,
    groups: Vec<TwoStacks<T::Native>>,
}

impl<T: ArrowPrimitiveType> Sliding<T> {
    fn new(
        preceding: Option<usize>,
        finish: Finish<T::Native>,
        output: DataType,
        combine: fn(T::Native, T::Native) -> T::Native,
    ) -> Self {
        let frame_rows = preceding.map(|preceding| preceding.saturating_add(1));
        Self { frame_rows, finish, output, combine, groups: vec![] }
    }

    fn grow(&mut self, groups_total: usize) {
        let empty = TwoStacks { front: vec![], back: vec![], back_total: (T::default_value(), 0) };
        self.groups.resize(groups_total, empty);
    }

    fn values(&self, totals: Vec<Total<T::Native>>) -> ArrayRef {
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

fn combined<N: Copy>(combine: fn(N, N) -> N, older: Total<N>, newer: Total<N>) -> Total<N> {
    match (older.1, newer.1) {
        (0, _) => newer,
        (_, 0) => older,
        (a, b) => (combine(older.0, newer.0), a + b),
    }
}

impl<N: Copy> TwoStacks<N> {
    /// Takes the next row of the key in and gives the total of its frame.
    fn slide(&mut self, next: Total<N>, frame_rows: Option<usize>, combine: fn(N, N) -> N) -> Total<N> {
        let Some(frame_rows) = frame_rows else {
            self.back_total = combined(combine, self.back_total, next);
            return self.back_total;
        };
        if self.front.len() + self.back.len() == frame_rows {
            if self.front.is_empty() {
                self.turn_over(combine);
            }
            self.front.pop();
        }
        self.back_total = if self.back.is_empty() { next } else { combined(combine, self.back_total, next) };
        self.back.push(next);
        match self.front.last() {
            Some(front) => combined(combine, *front, self.back_total),
            None => self.back_total,
        }
    }

    fn turn_over(&mut self, combine: fn(N, N) -> N) {
        for value in self.back.drain(..).rev() {
            let total = match self.front.last() {
                Some(newer) => combined(combine, value, *newer),
                None => value,
            };
            self.front.push(total);
        }
    }
}

impl<T: ArrowPrimitiveType> RowsState for Sliding<T> {
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        argument: &ArrayRef,
        live: Option<&BooleanArray>,
    ) -> Result<ArrayRef> {
        self.grow(groups_total);
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
            self.groups[*group].slide((value, i64::from(counts)), frame_rows, combine)
        });
        let totals = totals.collect();
        Ok(self.values(totals))
    }

    fn snapshot(&self) -> Result<RecordBatch> {
        let (mut keys, mut parts, mut values, mut counts) = (vec![], vec![], vec![], vec![]);
        for (group, stacks) in self.groups.iter().enumerate() {
            let front = stacks.front.iter().map(|total| (FRONT, total));
            let back = stacks.back.iter().map(|total| (BACK, total));
            for (part, (value, count)) in front.chain(back).chain([(TOTAL, &stacks.back_total)]) {
                keys.push(group as u64);
                parts.push(part);
                values.push(*value);
                counts.push(*count);
            }
        }
        let values = PrimitiveArray::<T>::from_iter_values(values);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from(keys)),
            Arc::new(UInt64Array::from(parts)),
            Arc::new(values),
            Arc::new(Int64Array::from(counts)),
        ];
        let names = ["group", "part", "value", "count"].into_iter().zip(&columns);
        let fields = names.map(|(name, column)| Field::new(name, column.data_type().clone(), false));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?)
    }

    fn restore(&mut self, state: &RecordBatch) -> Result<()> {
        let wrong = || internal_datafusion_err!("a snapshot of another function");
        let [keys, parts, values, counts] = state.columns() else {
            return Err(wrong());
        };
        let keys = keys.as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?;
        let parts = parts.as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?;
        let values = values.as_primitive_opt::<T>().ok_or_else(wrong)?;
        let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        for row in 0..state.num_rows() {
            let group = keys.value(row) as usize;
            if group >= self.groups.len() {
                self.grow(group + 1);
            }
            let total = (values.value(row), counts.value(row));
            match parts.value(row) {
                FRONT => self.groups[group].front.push(total),
                BACK => self.groups[group].back.push(total),
                _ => self.groups[group].back_total = total,
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        let rows = self.groups.len() * self.frame_rows.unwrap_or(0).min(1 << 16);
        self.groups.capacity() * size_of::<TwoStacks<T::Native>>() + rows * size_of::<Total<T::Native>>()
    }
}

const FRONT: u64 = 0;
const BACK: u64 = 1;
const TOTAL: u64 = 2;
