//! What variances, covariances and correlations hold of a group: a count, means, and sums of products around the
//! means, by Welford's algorithm and with DataFusion's roundings.
//!
//! Welford, B. P. (1962). "Note on a method for calculating corrected sums of squares and products". Technometrics
//! 4 (3): 419-420.

use std::sync::Arc;

use arrow::array::types::{Float64Type, UInt64Type};
use arrow::array::{ArrayRef, Float64Array, Float64Builder, UInt64Array};
use arrow::buffer::ScalarBuffer;
use datafusion::common::Result;

use super::RunningAggregate;
use super::column::{Primitives, values_of};
use super::typed::{Kind, typed};

/// Statistics of one column or two that are made of `N` floats, in the order of DataFusion's state.
pub(super) trait Moments<const N: usize>: Send + 'static {
    /// Takes the row in that makes the count `count`. `y` is `x` if there is one column.
    fn take(floats: &mut [f64; N], count: f64, x: f64, y: f64);

    /// Takes in what was seen elsewhere, given the numbers of rows here and there, neither of them zero.
    fn merge(into: &mut [f64; N], from: &[f64; N], here: f64, there: f64);

    /// The value, if there is one.
    fn value(&self, count: u64, floats: &[f64; N]) -> Option<f64>;
}

/// The running statistics.
pub(super) fn moments<const N: usize>(of: impl Moments<N>) -> Option<Box<dyn RunningAggregate>> {
    Some(typed(Welford(of)))
}

struct Welford<M, const N: usize>(M);

/// The count and floats of one group.
#[derive(Clone)]
struct Slot<const N: usize> {
    count: u64,
    floats: [f64; N],
}

impl<const N: usize> Default for Slot<N> {
    fn default() -> Self {
        Self { count: 0, floats: [0.0; N] }
    }
}

type Floats = Primitives<Float64Type>;

impl<const N: usize, M: Moments<N>> Kind for Welford<M, N> {
    type Slot = Slot<N>;
    type Input = (ScalarBuffer<f64>, ScalarBuffer<f64>);
    type Output = Float64Builder;
    type Values = ArrayRef;

    fn input(&self, arguments: &[ArrayRef]) -> Result<Self::Input> {
        let last = arguments.len().saturating_sub(1);
        Ok((values_of::<Floats>(arguments, 0)?, values_of::<Floats>(arguments, last)?))
    }

    #[inline(always)]
    fn take(&self, slot: &mut Self::Slot, (xs, ys): &Self::Input, row: usize) {
        slot.count += 1;
        M::take(&mut slot.floats, slot.count as f64, xs[row], ys[row]);
    }

    fn merge(&self, into: &mut Self::Slot, from: Self::Slot) {
        match (into.count, from.count) {
            (_, 0) => {}
            (0, _) => *into = from,
            (here, there) => {
                M::merge(&mut into.floats, &from.floats, here as f64, there as f64);
                into.count += from.count;
            }
        }
    }

    fn output(&self, rows: usize) -> Self::Output {
        Float64Builder::with_capacity(rows)
    }

    #[inline(always)]
    fn write(&self, slot: &Self::Slot, output: &mut Self::Output) {
        output.append_option(self.0.value(slot.count, &slot.floats));
    }

    fn finish(&self, mut output: Self::Output) -> Result<ArrayRef> {
        Ok(Arc::new(output.finish()))
    }

    fn state(&self, slots: &[Self::Slot]) -> Result<Vec<ArrayRef>> {
        let counts = UInt64Array::from_iter_values(slots.iter().map(|slot| slot.count));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(counts)];
        for float in 0..N {
            columns.push(Arc::new(Float64Array::from_iter_values(slots.iter().map(|slot| slot.floats[float]))));
        }
        Ok(columns)
    }

    fn restore(&self, state: &[ArrayRef]) -> Result<Vec<Self::Slot>> {
        let counts = values_of::<Primitives<UInt64Type>>(state, 0)?;
        let columns = (1..=N).map(|column| values_of::<Floats>(state, column)).collect::<Result<Vec<_>>>()?;
        let slot = |(row, count): (usize, &u64)| Slot {
            count: *count,
            floats: std::array::from_fn(|column| columns[column][row]),
        };
        Ok(counts.iter().enumerate().map(slot).collect())
    }

    fn glance(slot: &Self::Slot) -> u64 {
        slot.count
    }

    fn state_width(&self) -> usize {
        N + 1
    }
}
