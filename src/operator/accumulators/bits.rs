//! bool_and, bool_or, bit_and, bit_or and bit_xor.

use std::ops::{BitAnd, BitOr, BitXor};

use arrow::array::ArrowPrimitiveType;
use arrow::array::types::{Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow::datatypes::DataType;

use super::RunningAggregate;
use super::column::{Booleans, Primitives};
use super::fold::{Step, fold};

/// Whether every value of a group is true, or all bits that they share.
pub(super) fn and(data_type: DataType) -> Option<Box<dyn RunningAggregate>> {
    match data_type {
        DataType::Boolean => fold::<Booleans, And>(data_type, And),
        _ => bits(data_type, And),
    }
}

/// Whether some value of a group is true, or all bits that are in one of them.
pub(super) fn or(data_type: DataType) -> Option<Box<dyn RunningAggregate>> {
    match data_type {
        DataType::Boolean => fold::<Booleans, Or>(data_type, Or),
        _ => bits(data_type, Or),
    }
}

/// The bits that are in an odd number of a group's values.
pub(super) fn xor(data_type: DataType) -> Option<Box<dyn RunningAggregate>> {
    bits(data_type, Xor)
}

fn bits<S>(data_type: DataType, step: S) -> Option<Box<dyn RunningAggregate>>
where
    S: Step<Primitives<Int8Type>>
        + Step<Primitives<Int16Type>>
        + Step<Primitives<Int32Type>>
        + Step<Primitives<Int64Type>>
        + Step<Primitives<UInt8Type>>
        + Step<Primitives<UInt16Type>>
        + Step<Primitives<UInt32Type>>
        + Step<Primitives<UInt64Type>>,
{
    match data_type {
        DataType::Int8 => fold::<Primitives<Int8Type>, S>(data_type, step),
        DataType::Int16 => fold::<Primitives<Int16Type>, S>(data_type, step),
        DataType::Int32 => fold::<Primitives<Int32Type>, S>(data_type, step),
        DataType::Int64 => fold::<Primitives<Int64Type>, S>(data_type, step),
        DataType::UInt8 => fold::<Primitives<UInt8Type>, S>(data_type, step),
        DataType::UInt16 => fold::<Primitives<UInt16Type>, S>(data_type, step),
        DataType::UInt32 => fold::<Primitives<UInt32Type>, S>(data_type, step),
        DataType::UInt64 => fold::<Primitives<UInt64Type>, S>(data_type, step),
        _ => None,
    }
}

struct And;
struct Or;
struct Xor;

impl Step<Booleans> for And {
    fn next(all: &mut bool, value: &bool) {
        *all &= *value;
    }
}

impl Step<Booleans> for Or {
    fn next(any: &mut bool, value: &bool) {
        *any |= *value;
    }
}

impl<T: ArrowPrimitiveType<Native: BitAnd<Output = T::Native>>> Step<Primitives<T>> for And {
    fn next(bits: &mut T::Native, value: &T::Native) {
        *bits = *bits & *value;
    }
}

impl<T: ArrowPrimitiveType<Native: BitOr<Output = T::Native>>> Step<Primitives<T>> for Or {
    fn next(bits: &mut T::Native, value: &T::Native) {
        *bits = *bits | *value;
    }
}

impl<T: ArrowPrimitiveType<Native: BitXor<Output = T::Native>>> Step<Primitives<T>> for Xor {
    fn next(bits: &mut T::Native, value: &T::Native) {
        *bits = *bits ^ *value;
    }
}
