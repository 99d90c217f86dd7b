//! sum: of each group, and whether it has seen a value.

use std::marker::PhantomData;

use arrow::array::{ArrayRef, ArrowNativeTypeOp};
use arrow::datatypes::DataType;
use datafusion::common::Result;

use super::RunningAggregate;
use super::column::{Column, column_of, kept_values, primitive_column, values_of};
use super::typed::{Kind, typed};

/// The running sum, for types that DataFusion sums into: integers wrap, as DataFusion's do.
pub(super) fn sum(data_type: DataType) -> Option<Box<dyn RunningAggregate>> {
    primitive_column!(data_type => sum_of(data_type))
}

fn sum_of<C, N>(data_type: DataType) -> Option<Box<dyn RunningAggregate>>
where
    C: Column<Value = N>,
    N: ArrowNativeTypeOp + ToOwned<Owned = N> + Send,
{
    Some(typed(Sum::<C> { data_type, values: PhantomData }))
}

struct Sum<C> {
    data_type: DataType,
    values: PhantomData<fn() -> C>,
}

/// Zero before the first value, so that to take one in needs no branch: where groups are small, whether a value is the first
/// one is anybody's guess.
#[derive(Clone, Default)]
struct Slot<N> {
    sum: N,
    is_seen: bool,
}

impl<N> Slot<N> {
    fn value(&self) -> Option<&N> {
        self.is_seen.then_some(&self.sum)
    }
}

impl<C, N> Kind for Sum<C>
where
    C: Column<Value = N>,
    N: ArrowNativeTypeOp + ToOwned<Owned = N> + Send,
{
    type Slot = Slot<N>;
    type Input = C::Values;
    type Output = C::Builder;
    type Values = ArrayRef;

    fn input(&self, arguments: &[ArrayRef]) -> Result<Self::Input> {
        values_of::<C>(arguments, 0)
    }

    #[inline(always)]
    fn take(&self, slot: &mut Slot<N>, input: &Self::Input, row: usize) {
        slot.sum = slot.sum.add_wrapping(*C::value(input, row));
        slot.is_seen = true;
    }

    fn merge(&self, into: &mut Slot<N>, from: Slot<N>) {
        into.sum = into.sum.add_wrapping(from.sum);
        into.is_seen |= from.is_seen;
    }

    fn output(&self, rows: usize) -> Self::Output {
        C::builder(rows)
    }

    #[inline(always)]
    fn write(&self, slot: &Slot<N>, output: &mut Self::Output) {
        C::append(output, slot.value());
    }

    fn finish(&self, output: Self::Output) -> Result<ArrayRef> {
        C::finish(output, &self.data_type)
    }

    fn state(&self, slots: &[Slot<N>]) -> Result<Vec<ArrayRef>> {
        Ok(vec![column_of::<C>(slots.iter().map(Slot::value), &self.data_type)?])
    }

    fn restore(&self, state: &[ArrayRef]) -> Result<Vec<Slot<N>>> {
        let slot = |sum: Option<N>| Slot { is_seen: sum.is_some(), sum: sum.unwrap_or_default() };
        Ok(kept_values::<C>(state, 0)?.into_iter().map(slot).collect())
    }

    fn glance(slot: &Slot<N>) -> u64 {
        slot.is_seen.into()
    }

    fn state_width(&self) -> usize {
        1
    }
}
