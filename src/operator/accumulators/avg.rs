//! avg: sums and counts, side by side because they are always used together.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::types::{
    Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Float64Type, Int64Type, UInt64Type,
};
use arrow::array::{ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, UInt64Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::DecimalCast;
use arrow::datatypes::{ArrowNativeType, DataType};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion_functions_aggregate_common::utils::DecimalAverager;

use super::RunningAggregate;
use super::column::{Column, Numbers, Primitives, column_of, values_of};
use super::typed::{Kind, typed};

/// The running average.
pub(super) fn avg(aggregate: &AggregateFunctionExpr) -> Option<Box<dyn RunningAggregate>> {
    let output = aggregate.field().data_type().clone();
    // DataFusion chooses a type for the sums of decimals in which there is room.
    let sums = aggregate.state_fields().ok()?.get(1)?.data_type().clone();
    use DataType::*;
    match (&output, &sums) {
        (Float64, Float64) => {
            of::<Float64Type, Float64Type, _>(&output, &sums, |sum: f64, count: u64| Ok(sum / count as f64))
        }
        (Duration(_), Duration(_)) => {
            of::<Int64Type, Int64Type, _>(&output, &sums, |sum: i64, count: u64| Ok(sum / count as i64))
        }
        (Decimal32(_, _), Decimal64(_, _)) => decimal::<Decimal32Type, Decimal64Type>(&output, &sums),
        (Decimal32(_, _), Decimal128(_, _)) => decimal::<Decimal32Type, Decimal128Type>(&output, &sums),
        (Decimal64(_, _), Decimal64(_, _)) => decimal::<Decimal64Type, Decimal64Type>(&output, &sums),
        (Decimal64(_, _), Decimal128(_, _)) => decimal::<Decimal64Type, Decimal128Type>(&output, &sums),
        (Decimal128(_, _), Decimal128(_, _)) => decimal::<Decimal128Type, Decimal128Type>(&output, &sums),
        (Decimal128(_, _), Decimal256(_, _)) => decimal::<Decimal128Type, Decimal256Type>(&output, &sums),
        (Decimal256(_, _), Decimal256(_, _)) => decimal::<Decimal256Type, Decimal256Type>(&output, &sums),
        _ => None,
    }
}

fn decimal<T, S>(output: &DataType, sums: &DataType) -> Option<Box<dyn RunningAggregate>>
where
    T: DecimalType<Native: Into<S::Native> + DecimalCast>,
    S: DecimalType<Native: DecimalCast>,
{
    let (scale, (precision, output_scale)) = (decimal_type(sums)?.1, decimal_type(output)?);
    let averager = DecimalAverager::<S>::try_new(scale, precision, output_scale).ok()?;
    let mean = move |sum: S::Native, count: u64| {
        let count = usize::try_from(count).ok().and_then(S::Native::from_usize);
        let count = count.ok_or_else(|| exec_datafusion_err!("more rows than an average of decimals can count"))?;
        let mean = T::Native::from_decimal(averager.avg(sum, count)?);
        mean.ok_or_else(|| exec_datafusion_err!("an average of decimals that its type cannot hold"))
    };
    of::<T, S, _>(output, sums, mean)
}

/// Precision and scale.
fn decimal_type(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}

/// Average of values of type `T` by sums of type `S`.
struct Avg<T, S, M> {
    output: DataType,
    sums: DataType,
    mean: M,
    types: PhantomData<fn() -> (T, S)>,
}

/// Averages in the making.
struct Means<N> {
    means: Numbers<N>,
    /// What is wrong with one that cannot be.
    failed: Result<()>,
}

fn of<T, S, M>(output: &DataType, sums: &DataType, mean: M) -> Option<Box<dyn RunningAggregate>>
where
    T: ArrowPrimitiveType<Native: Into<S::Native>>,
    S: ArrowPrimitiveType,
    M: Fn(S::Native, u64) -> Result<T::Native> + Send + 'static,
{
    Some(typed(Avg::<T, S, M> { output: output.clone(), sums: sums.clone(), mean, types: PhantomData }))
}

impl<T, S, M> Kind for Avg<T, S, M>
where
    T: ArrowPrimitiveType<Native: Into<S::Native>>,
    S: ArrowPrimitiveType,
    M: Fn(S::Native, u64) -> Result<T::Native> + Send + 'static,
{
    type Slot = (S::Native, u64);
    type Input = ScalarBuffer<T::Native>;
    type Output = Means<T::Native>;
    type Values = ArrayRef;

    fn input(&self, arguments: &[ArrayRef]) -> Result<Self::Input> {
        values_of::<Primitives<T>>(arguments, 0)
    }

    #[inline(always)]
    fn take(&self, (sum, count): &mut Self::Slot, input: &Self::Input, row: usize) {
        *sum = sum.add_wrapping(input[row].into());
        *count += 1;
    }

    fn merge(&self, (sum, count): &mut Self::Slot, from: Self::Slot) {
        *sum = sum.add_wrapping(from.0);
        *count += from.1;
    }

    fn output(&self, rows: usize) -> Self::Output {
        Means { means: Primitives::<T>::builder(rows), failed: Ok(()) }
    }

    #[inline(always)]
    fn write(&self, (sum, count): &Self::Slot, output: &mut Self::Output) {
        if *count == 0 {
            return output.means.append(None);
        }
        match (self.mean)(*sum, *count) {
            Ok(mean) => output.means.append(Some(mean)),
            Err(error) => output.failed = Err(error),
        }
    }

    fn finish(&self, output: Self::Output) -> Result<ArrayRef> {
        output.failed?;
        Primitives::<T>::finish(output.means, &self.output)
    }

    fn state(&self, slots: &[Self::Slot]) -> Result<Vec<ArrayRef>> {
        let counts = UInt64Array::from_iter_values(slots.iter().map(|(_, count)| *count));
        let sums = column_of::<Primitives<S>>(slots.iter().map(|(sum, _)| Some(sum)), &self.sums)?;
        Ok(vec![Arc::new(counts), sums])
    }

    fn restore(&self, state: &[ArrayRef]) -> Result<Vec<Self::Slot>> {
        let counts = values_of::<Primitives<UInt64Type>>(state, 0)?;
        let sums = values_of::<Primitives<S>>(state, 1)?;
        Ok(sums.iter().copied().zip(counts.iter().copied()).collect())
    }

    fn glance(slot: &Self::Slot) -> u64 {
        slot.1
    }

    fn state_width(&self) -> usize {
        2
    }
}
