//! What a pass keeps of each group, if all of it is asked for: how many values, their sum, the least and the greatest.

use arrow::array::{ArrowNativeTypeOp, ArrowPrimitiveType};
use arrow::datatypes::{Float16Type, Float32Type, Float64Type, Int64Type};

/// Numbers that can be added, and that have a rank: their order as integers, which for floats is the total order of
/// IEEE 754, so that the order of rows is of no account where one is NaN.
pub(super) trait Measure: ArrowPrimitiveType {
    fn rank(value: Self::Native) -> i64;
    fn of_rank(rank: i64) -> Self::Native;
    fn mean(sum: Self::Native, count: i64) -> f64;
}

impl Measure for Int64Type {
    fn rank(value: i64) -> i64 {
        value
    }

    fn of_rank(rank: i64) -> i64 {
        rank
    }

    fn mean(sum: i64, count: i64) -> f64 {
        sum as f64 / count as f64
    }
}

/// All bits but the sign of a negative number: what is greater as a float is then less.
macro_rules! flipped {
    ($bits:expr, $integer:ty, $unsigned:ty) => {{
        let bits = $bits;
        bits ^ (((bits >> (<$integer>::BITS - 1)) as $unsigned) >> 1) as $integer
    }};
}

/// Floats of some width, whose bits are integers of that width.
macro_rules! float_measure {
    ($float:ty, $integer:ty, $unsigned:ty) => {
        impl Measure for $float {
            fn rank(value: Self::Native) -> i64 {
                i64::from(flipped!(value.to_bits() as $integer, $integer, $unsigned))
            }

            fn of_rank(rank: i64) -> Self::Native {
                Self::Native::from_bits(flipped!(rank as $integer, $integer, $unsigned) as $unsigned)
            }

            fn mean(sum: Self::Native, count: i64) -> f64 {
                f64::from(sum) / count as f64
            }
        }
    };
}

float_measure!(Float16Type, i16, u16);
float_measure!(Float32Type, i32, u32);
float_measure!(Float64Type, i64, u64);

/// The values of a group; all of it in one place of memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary<N> {
    /// Values that are not null.
    pub(super) count: i64,
    pub(super) sum: N,
    /// Ranks.
    pub(super) least: i64,
    pub(super) greatest: i64,
}

impl<N: ArrowNativeTypeOp> Default for Summary<N> {
    fn default() -> Self {
        Self { count: 0, sum: N::ZERO, least: i64::MAX, greatest: i64::MIN }
    }
}

impl<N: ArrowNativeTypeOp> Summary<N> {
    /// Takes a value in.
    #[inline(always)]
    pub(super) fn take(&mut self, value: N, rank: i64) {
        self.count += 1;
        self.sum = self.sum.add_wrapping(value);
        self.least = self.least.min(rank);
        self.greatest = self.greatest.max(rank);
    }

    /// Takes in what another has of later values.
    pub(super) fn merge(&mut self, later: &Self) {
        self.count += later.count;
        self.sum = self.sum.add_wrapping(later.sum);
        self.least = self.least.min(later.least);
        self.greatest = self.greatest.max(later.greatest);
    }
}
