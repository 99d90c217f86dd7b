//! What folds values: a value for each group, and a step that takes the next one in.

use std::borrow::Borrow;
use std::marker::PhantomData;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::Result;

use super::RunningAggregate;
use super::column::{Column, Kept, column_of, kept_values, values_of};
use super::typed::{Kind, typed};

/// How values become one.
pub(super) trait Step<C: Column>: 'static {
    /// What is kept of the first value.
    fn first(value: &C::Value) -> Kept<C> {
        value.to_owned()
    }

    /// Takes the next value in.
    fn next(kept: &mut Kept<C>, value: &C::Value);

    /// Takes the first value or the next one in.
    #[inline(always)]
    fn take(slot: &mut Option<Kept<C>>, value: &C::Value) {
        match slot {
            Some(kept) => Self::next(kept, value),
            None => *slot = Some(Self::first(value)),
        }
    }
}

/// A folded value for each group, none until the first row that counts.
struct Fold<C, S> {
    data_type: DataType,
    types: PhantomData<fn() -> (C, S)>,
}

/// The running fold by a step.
pub(super) fn fold<C: Column, S: Step<C>>(data_type: DataType, _: S) -> Option<Box<dyn RunningAggregate>> {
    Some(typed(Fold::<C, S> { data_type, types: PhantomData }))
}

impl<C: Column, S: Step<C>> Kind for Fold<C, S> {
    type Slot = Option<Kept<C>>;
    type Input = C::Values;
    type Output = C::Builder;
    type Values = ArrayRef;

    fn input(&self, arguments: &[ArrayRef]) -> Result<Self::Input> {
        values_of::<C>(arguments, 0)
    }

    #[inline(always)]
    fn take(&self, slot: &mut Self::Slot, input: &Self::Input, row: usize) {
        S::take(slot, C::value(input, row));
    }

    fn merge(&self, into: &mut Self::Slot, from: Self::Slot) {
        match (into, from) {
            (Some(kept), Some(from)) => S::next(kept, from.borrow()),
            (into, Some(from)) => *into = Some(from),
            (_, None) => {}
        }
    }

    fn output(&self, rows: usize) -> Self::Output {
        C::builder(rows)
    }

    #[inline(always)]
    fn write(&self, slot: &Self::Slot, output: &mut Self::Output) {
        C::append(output, slot.as_ref().map(Borrow::borrow));
    }

    fn finish(&self, output: Self::Output) -> Result<ArrayRef> {
        C::finish(output, &self.data_type)
    }

    fn state(&self, slots: &[Self::Slot]) -> Result<Vec<ArrayRef>> {
        Ok(vec![column_of::<C>(slots.iter().map(Option::as_ref), &self.data_type)?])
    }

    fn restore(&self, state: &[ArrayRef]) -> Result<Vec<Self::Slot>> {
        kept_values::<C>(state, 0)
    }

    fn glance(slot: &Self::Slot) -> u64 {
        slot.is_some().into()
    }

    fn state_width(&self) -> usize {
        1
    }

    fn heap(slot: &Self::Slot) -> usize {
        slot.as_ref().map_or(0, C::heap)
    }
}
