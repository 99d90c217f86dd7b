//! Running sum, minimum and maximum: a value for each group, and a function that takes the next one in.

use std::sync::Arc;

use arrow::array::types::{
    Date32Type, Date64Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Result, internal_datafusion_err};

use super::{RunningAggregate, live_rows};

/// Takes the next value of a group in.
type Step<T> = fn(&mut T, T);

/// A folded value for each group, null until the first row that counts.
struct Fold<T: ArrowPrimitiveType> {
    data_type: DataType,
    step: Step<T::Native>,
    values: Vec<T::Native>,
    seen: Vec<bool>,
}

/// The running sum, for types that DataFusion sums into: integers wrap, as DataFusion's do.
pub(super) fn sum(data_type: DataType) -> Option<Box<dyn RunningAggregate>> {
    fn of<T: ArrowPrimitiveType>(data_type: DataType) -> Option<Box<dyn RunningAggregate>> {
        fold::<T>(data_type, |sum, value| *sum = sum.add_wrapping(value))
    }
    match data_type {
        DataType::Int64 => of::<Int64Type>(data_type),
        DataType::UInt64 => of::<UInt64Type>(data_type),
        DataType::Float64 => of::<Float64Type>(data_type),
        DataType::Decimal128(_, _) => of::<Decimal128Type>(data_type),
        DataType::Decimal256(_, _) => of::<Decimal256Type>(data_type),
        _ => None,
    }
}

/// The running minimum.
pub(super) fn min(data_type: DataType) -> Option<Box<dyn RunningAggregate>> {
    ordered(data_type, Extreme::Min)
}

/// The running maximum.
pub(super) fn max(data_type: DataType) -> Option<Box<dyn RunningAggregate>> {
    ordered(data_type, Extreme::Max)
}

#[derive(Clone, Copy)]
enum Extreme {
    Min,
    Max,
}

fn ordered(data_type: DataType, extreme: Extreme) -> Option<Box<dyn RunningAggregate>> {
    // Floats are in the total order of IEEE 754, so that the order of rows is of no account where one is NaN.
    fn of<T: ArrowPrimitiveType>(data_type: DataType, extreme: Extreme) -> Option<Box<dyn RunningAggregate>> {
        match extreme {
            Extreme::Min => fold::<T>(data_type, |least, value| {
                if value.is_lt(*least) {
                    *least = value;
                }
            }),
            Extreme::Max => fold::<T>(data_type, |greatest, value| {
                if value.is_gt(*greatest) {
                    *greatest = value;
                }
            }),
        }
    }
    match data_type {
        DataType::Int8 => of::<Int8Type>(data_type, extreme),
        DataType::Int16 => of::<Int16Type>(data_type, extreme),
        DataType::Int32 => of::<Int32Type>(data_type, extreme),
        DataType::Int64 => of::<Int64Type>(data_type, extreme),
        DataType::UInt8 => of::<UInt8Type>(data_type, extreme),
        DataType::UInt16 => of::<UInt16Type>(data_type, extreme),
        DataType::UInt32 => of::<UInt32Type>(data_type, extreme),
        DataType::UInt64 => of::<UInt64Type>(data_type, extreme),
        DataType::Float32 => of::<Float32Type>(data_type, extreme),
        DataType::Float64 => of::<Float64Type>(data_type, extreme),
        DataType::Date32 => of::<Date32Type>(data_type, extreme),
        DataType::Date64 => of::<Date64Type>(data_type, extreme),
        DataType::Timestamp(TimeUnit::Second, _) => of::<TimestampSecondType>(data_type, extreme),
        DataType::Timestamp(TimeUnit::Millisecond, _) => of::<TimestampMillisecondType>(data_type, extreme),
        DataType::Timestamp(TimeUnit::Microsecond, _) => of::<TimestampMicrosecondType>(data_type, extreme),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => of::<TimestampNanosecondType>(data_type, extreme),
        DataType::Decimal128(_, _) => of::<Decimal128Type>(data_type, extreme),
        DataType::Decimal256(_, _) => of::<Decimal256Type>(data_type, extreme),
        _ => None,
    }
}

fn fold<T: ArrowPrimitiveType>(data_type: DataType, step: Step<T::Native>) -> Option<Box<dyn RunningAggregate>> {
    Some(Box::new(Fold::<T> { data_type, step, values: vec![], seen: vec![] }))
}

impl<T: ArrowPrimitiveType> Fold<T> {
    /// Takes the next value of a group in, and gives the group's new one.
    fn take(&mut self, group: usize, value: T::Native) -> T::Native {
        match self.seen[group] {
            true => (self.step)(&mut self.values[group], value),
            false => {
                self.seen[group] = true;
                self.values[group] = value;
            }
        }
        self.values[group]
    }
}

impl<T: ArrowPrimitiveType> RunningAggregate for Fold<T> {
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<ArrayRef> {
        let argument = arguments.first().and_then(|argument| argument.as_primitive_opt::<T>());
        let argument =
            argument.ok_or_else(|| internal_datafusion_err!("a value of another type than {}", self.data_type))?;
        self.values.resize(groups_total, T::default_value());
        self.seen.resize(groups_total, false);
        let rows = groups.iter().zip(argument.values());
        let (values, nulls) = match live_rows(argument, filter) {
            None => (rows.map(|(group, value)| self.take(*group, *value)).collect::<Vec<_>>(), None),
            Some(live) => {
                let mut seen = Vec::with_capacity(groups.len());
                let values = rows.zip(&live).map(|((group, value), live)| {
                    let value = if live { self.take(*group, *value) } else { self.values[*group] };
                    seen.push(self.seen[*group]);
                    value
                });
                (values.collect(), Some(NullBuffer::from(seen)))
            }
        };
        Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(self.data_type.clone())))
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>> {
        let nulls = NullBuffer::from(self.seen.clone());
        let values = PrimitiveArray::<T>::new(self.values.clone().into(), Some(nulls));
        Ok(vec![Arc::new(values.with_data_type(self.data_type.clone()))])
    }

    fn restore(&mut self, state: &[ArrayRef]) -> Result<()> {
        let state = state.first().and_then(|state| state.as_primitive_opt::<T>());
        let state = state.ok_or_else(|| internal_datafusion_err!("a state of another type than {}", self.data_type))?;
        self.values = state.values().to_vec();
        self.seen = (0..state.len()).map(|group| state.is_valid(group)).collect();
        Ok(())
    }

    fn state_width(&self) -> Result<usize> {
        Ok(1)
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.seen.capacity()
    }
}
