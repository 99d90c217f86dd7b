//! first_value and last_value in order of arrival. Nulls are values, unless they are to be ignored.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;
use datafusion::common::Result;

use super::column::{Booleans, Column, Kept, any_column, column_of, kept_values, values_of};
use super::typed::{Kind, typed};
use super::{RunningAggregate, live_rows, passed_rows};

/// The first value of a group.
pub(super) fn first(data_type: DataType, ignore_nulls: bool) -> Option<Box<dyn RunningAggregate>> {
    any_column!(data_type => end_of(data_type, ignore_nulls, First))
}

/// The last value of a group.
pub(super) fn last(data_type: DataType, ignore_nulls: bool) -> Option<Box<dyn RunningAggregate>> {
    any_column!(data_type => end_of(data_type, ignore_nulls, Last))
}

fn end_of<C: Column, E: End>(data_type: DataType, ignore_nulls: bool, _: E) -> Option<Box<dyn RunningAggregate>> {
    Some(typed(FirstLast::<C, E> { data_type, ignore_nulls, types: PhantomData }))
}

/// Which end of a group's rows.
trait End: 'static {
    const IS_FIRST: bool;
}

struct First;

impl End for First {
    const IS_FIRST: bool = true;
}

struct Last;

impl End for Last {
    const IS_FIRST: bool = false;
}

struct FirstLast<C, E> {
    data_type: DataType,
    ignore_nulls: bool,
    types: PhantomData<fn() -> (C, E)>,
}

impl<C: Column, E: End> Kind for FirstLast<C, E> {
    /// None until the first row that counts.
    type Slot = Option<Option<Kept<C>>>;
    type Input = (C::Values, Option<NullBuffer>);
    type Output = C::Builder;
    type Values = ArrayRef;

    fn input(&self, arguments: &[ArrayRef]) -> Result<Self::Input> {
        let nulls = arguments.first().and_then(|argument| argument.logical_nulls());
        Ok((values_of::<C>(arguments, 0)?, nulls))
    }

    fn live(&self, arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Option<BooleanBuffer> {
        match self.ignore_nulls {
            true => live_rows(arguments, filter),
            false => passed_rows(filter),
        }
    }

    #[inline(always)]
    fn take(&self, slot: &mut Self::Slot, (values, nulls): &Self::Input, row: usize) {
        if E::IS_FIRST && slot.is_some() {
            return;
        }
        let value = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)).then(|| C::value(values, row));
        match (slot, value) {
            (Some(Some(kept)), Some(value)) => value.clone_into(kept),
            (slot, value) => *slot = Some(value.map(ToOwned::to_owned)),
        }
    }

    fn merge(&self, into: &mut Self::Slot, from: Self::Slot) {
        if into.is_none() || (!E::IS_FIRST && from.is_some()) {
            *into = from;
        }
    }

    fn output(&self, rows: usize) -> Self::Output {
        C::builder(rows)
    }

    #[inline(always)]
    fn write(&self, slot: &Self::Slot, output: &mut Self::Output) {
        C::append(output, slot.as_ref().and_then(Option::as_ref).map(Borrow::borrow));
    }

    fn finish(&self, output: Self::Output) -> Result<ArrayRef> {
        C::finish(output, &self.data_type)
    }

    fn state(&self, slots: &[Self::Slot]) -> Result<Vec<ArrayRef>> {
        let values = column_of::<C>(slots.iter().map(|slot| slot.as_ref().and_then(Option::as_ref)), &self.data_type)?;
        let are_set: BooleanArray = slots.iter().map(|slot| Some(slot.is_some())).collect();
        Ok(vec![values, Arc::new(are_set)])
    }

    fn restore(&self, state: &[ArrayRef]) -> Result<Vec<Self::Slot>> {
        let are_set = values_of::<Booleans>(state, 1)?;
        let values = kept_values::<C>(state, 0)?;
        Ok(values.into_iter().zip(&are_set).map(|(value, is_set)| is_set.then_some(value)).collect())
    }

    fn glance(slot: &Self::Slot) -> u64 {
        slot.is_some().into()
    }

    fn state_width(&self) -> usize {
        2
    }

    fn heap(slot: &Self::Slot) -> usize {
        slot.as_ref().and_then(Option::as_ref).map_or(0, C::heap)
    }
}
