//! What the groups of a pass hold, as columns: those that several aggregates ask for are made once.

use std::sync::Arc;

use arrow::array::{ArrayRef, PrimitiveArray};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::Float64Type;

use crate::operator::passes::Asks;
use crate::operator::summary::{Measure, Summary};

/// Groups that are in the processor's nearest cache while each of their columns is written.
const BLOCK_GROUPS: usize = 256;

/// What groups hold, as far as it is asked for.
pub(super) struct Columns<T: Measure> {
    counts: Vec<i64>,
    sums: Option<Vec<T::Native>>,
    least: Option<Vec<T::Native>>,
    greatest: Option<Vec<T::Native>>,
}

impl<T: Measure> Columns<T> {
    /// The columns of what is asked for.
    pub(super) fn of(asks: &[Asks], groups: &[Summary<T::Native>]) -> Self {
        let is_wanted = |wanted: &[Asks]| asks.iter().any(|asks| wanted.contains(asks));
        let column = |wanted: &[Asks]| is_wanted(wanted).then(|| Vec::with_capacity(groups.len()));
        let mut columns = Self {
            counts: Vec::with_capacity(groups.len()),
            sums: column(&[Asks::Sum, Asks::Avg]),
            least: column(&[Asks::Min]),
            greatest: column(&[Asks::Max]),
        };
        groups.chunks(BLOCK_GROUPS).for_each(|groups| columns.add(groups));
        columns
    }

    fn add(&mut self, groups: &[Summary<T::Native>]) {
        self.counts.extend(groups.iter().map(|group| group.count));
        self.sums.iter_mut().for_each(|sums| sums.extend(groups.iter().map(|group| group.sum)));
        self.least.iter_mut().for_each(|least| least.extend(groups.iter().map(|group| T::of_rank(group.least))));
        let greatest = |group: &Summary<_>| T::of_rank(group.greatest);
        self.greatest.iter_mut().for_each(|column| column.extend(groups.iter().map(greatest)));
    }

    pub(super) fn arrays(self) -> Arrays<T> {
        let is_seen = |count: &i64| *count > 0;
        let unseen =
            (!self.counts.iter().all(is_seen)).then(|| self.counts.iter().map(is_seen).collect::<NullBuffer>());
        let array = |values: Option<Vec<T::Native>>| {
            let values = ScalarBuffer::from(values.unwrap_or_default());
            let unseen = unseen.clone().filter(|_| !values.is_empty());
            Arc::new(PrimitiveArray::<T>::new(values, unseen))
        };
        Arrays {
            sums: array(self.sums),
            least: array(self.least),
            greatest: array(self.greatest),
            counts: self.counts.into(),
            unseen,
        }
    }
}

/// The same as arrays, null where a group has no value.
pub(super) struct Arrays<T: Measure> {
    pub(super) counts: ScalarBuffer<i64>,
    pub(super) unseen: Option<NullBuffer>,
    pub(super) sums: Arc<PrimitiveArray<T>>,
    pub(super) least: Arc<PrimitiveArray<T>>,
    pub(super) greatest: Arc<PrimitiveArray<T>>,
}

impl<T: Measure> Arrays<T> {
    /// The mean of each group.
    pub(super) fn means(&self) -> ArrayRef {
        let means = self.sums.values().iter().zip(&self.counts).map(|(sum, count)| T::mean(*sum, *count));
        Arc::new(PrimitiveArray::<Float64Type>::new(means.collect(), self.unseen.clone()))
    }
}
