//! What a pass holds of a group, so that many groups are near: in one of three sizes, without the extremes and without the
//! number of nulls where nobody asks for them.

use arrow::array::ArrowNativeTypeOp;

use crate::operator::summary::Summary;

/// All that can be asked of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole<N> {
    pub(super) summary: Summary<N>,
    /// Its rows without a value.
    pub(super) nulls: i64,
}

impl<N: ArrowNativeTypeOp> Default for Whole<N> {
    fn default() -> Self {
        Self { summary: Summary::default(), nulls: 0 }
    }
}

/// The same without the least and the greatest value.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Total<N> {
    count: i64,
    sum: N,
    nulls: i64,
}

/// What is held of a group.
pub(super) trait Held<N>: Clone + Default + Send + 'static {
    /// Takes a value in, given its rank.
    fn take(&mut self, value: N, rank: i64);

    /// Takes a row without a value in.
    fn take_null(&mut self);

    /// Takes in what another has of later rows.
    fn merge(&mut self, later: Self);

    /// What it says; what it does not hold is that of no row.
    fn whole(&self) -> Whole<N>;

    fn of(whole: Whole<N>) -> Self;

    /// Something of both its ends, which may lie in two lines of the cache.
    fn glance(&self) -> u64;
}

impl<N: ArrowNativeTypeOp> Held<N> for Whole<N> {
    #[inline(always)]
    fn take(&mut self, value: N, rank: i64) {
        self.summary.take(value, rank);
    }

    fn take_null(&mut self) {
        self.nulls += 1;
    }

    fn merge(&mut self, later: Self) {
        self.summary.merge(&later.summary);
        self.nulls += later.nulls;
    }

    #[inline(always)]
    fn whole(&self) -> Whole<N> {
        *self
    }

    fn of(whole: Whole<N>) -> Self {
        whole
    }

    #[inline(always)]
    fn glance(&self) -> u64 {
        (self.summary.count ^ self.nulls) as u64
    }
}

impl<N: ArrowNativeTypeOp> Held<N> for Summary<N> {
    #[inline(always)]
    fn take(&mut self, value: N, rank: i64) {
        Self::take(self, value, rank);
    }

    fn take_null(&mut self) {}

    fn merge(&mut self, later: Self) {
        Self::merge(self, &later);
    }

    #[inline(always)]
    fn whole(&self) -> Whole<N> {
        Whole { summary: *self, nulls: 0 }
    }

    fn of(whole: Whole<N>) -> Self {
        whole.summary
    }

    #[inline(always)]
    fn glance(&self) -> u64 {
        (self.count ^ self.greatest) as u64
    }
}

impl<N: ArrowNativeTypeOp> Held<N> for Total<N> {
    #[inline(always)]
    fn take(&mut self, value: N, _: i64) {
        self.count += 1;
        self.sum = self.sum.add_wrapping(value);
    }

    fn take_null(&mut self) {
        self.nulls += 1;
    }

    fn merge(&mut self, later: Self) {
        self.count += later.count;
        self.sum = self.sum.add_wrapping(later.sum);
        self.nulls += later.nulls;
    }

    #[inline(always)]
    fn whole(&self) -> Whole<N> {
        let Self { count, sum, nulls } = *self;
        Whole { summary: Summary { count, sum, ..Summary::default() }, nulls }
    }

    fn of(Whole { summary: Summary { count, sum, .. }, nulls }: Whole<N>) -> Self {
        Self { count, sum, nulls }
    }

    #[inline(always)]
    fn glance(&self) -> u64 {
        (self.count ^ self.nulls) as u64
    }
}
