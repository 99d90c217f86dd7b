//! The accumulators of a pass: a summary of each group.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Int64Array, PrimitiveArray, UInt64Array,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Int64Type};
use datafusion::common::{Result, internal_datafusion_err};

use super::columns::Columns;
use crate::operator::passes::{Asks, Pass};
use crate::operator::summary::{Measure, Summary};

/// The groups of one pass, for the aggregates in it.
pub(super) trait Summaries: Send {
    /// Takes the values of a batch's rows that the filter lets pass in, each into its group of `total`.
    fn update(
        &mut self,
        column: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()>;

    /// Adds the partial states of the pass's aggregates, in their order.
    fn merge(&mut self, states: &[&[ArrayRef]], groups: &[usize], total: usize) -> Result<()>;

    /// The value of each aggregate for `total` groups.
    fn values(&mut self, total: usize) -> Vec<ArrayRef>;

    /// The partial states of each aggregate for `total` groups, as DataFusion's accumulators have them.
    fn states(&mut self, total: usize) -> Vec<Vec<ArrayRef>>;

    /// Bytes held.
    fn size(&self) -> usize;
}

/// No groups yet.
pub(super) fn summaries(pass: &Pass) -> Box<dyn Summaries> {
    let asks = pass.members.iter().map(|(_, asks)| *asks).collect();
    match pass.data_type {
        DataType::Float16 => Box::new(PassGroups::<Float16Type>::new(asks)),
        DataType::Float32 => Box::new(PassGroups::<Float32Type>::new(asks)),
        DataType::Float64 => Box::new(PassGroups::<Float64Type>::new(asks)),
        _ => Box::new(PassGroups::<Int64Type>::new(asks)),
    }
}

struct PassGroups<T: Measure> {
    asks: Vec<Asks>,
    groups: Vec<Summary<T::Native>>,
    /// The rows of each group that do not count, as far as there are any.
    nulls: Vec<i64>,
}

impl<T: Measure> PassGroups<T> {
    fn new(asks: Vec<Asks>) -> Self {
        Self { asks, groups: vec![], nulls: vec![] }
    }

    fn grow(&mut self, total: usize) {
        if self.groups.len() < total {
            self.groups.resize(total, Summary::default());
        }
    }

    fn rows(&self, counts: &ScalarBuffer<i64>) -> ScalarBuffer<i64> {
        if self.nulls.iter().all(|nulls| *nulls == 0) {
            return counts.clone();
        }
        let nulls = self.nulls.iter().copied().chain(std::iter::repeat(0));
        counts.iter().zip(nulls).map(|(count, nulls)| count + nulls).collect()
    }
}

impl<T: Measure> Summaries for PassGroups<T> {
    fn update(
        &mut self,
        column: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        let column = column.as_primitive_opt::<T>().ok_or_else(|| wrong_type(column))?;
        self.grow(total);
        let values = column.values().iter().zip(groups);
        let valid = column.nulls().filter(|nulls| nulls.null_count() > 0);
        match (valid, filter, self.groups.as_mut_slice()) {
            (None, None, [group]) => {
                // In registers, not in memory.
                let mut only = *group;
                column.values().iter().for_each(|value| only.take(*value, T::rank(*value)));
                *group = only;
            }
            (None, None, all) => values.for_each(|(value, group)| all[*group].take(*value, T::rank(*value))),
            (valid, filter, all) => {
                self.nulls.resize(total.max(self.nulls.len()), 0);
                for (row, (value, group)) in values.enumerate() {
                    let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
                    match valid.is_none_or(|valid| valid.is_valid(row)) {
                        _ if !passes => {}
                        true => all[*group].take(*value, T::rank(*value)),
                        false => self.nulls[*group] += 1,
                    }
                }
            }
        }
        Ok(())
    }

    fn merge(&mut self, states: &[&[ArrayRef]], groups: &[usize], total: usize) -> Result<()> {
        let states = States::<T>::try_new(&self.asks, states)?;
        self.grow(total);
        if let Some(rows) = states.rows {
            self.nulls.resize(total.max(self.nulls.len()), 0);
            for ((index, count), rows) in groups.iter().zip(&states.counts).zip(rows.values()) {
                self.nulls[*index] += rows - count;
            }
        }
        let counts = groups.iter().zip(&states.counts);
        match (states.sums, states.least, states.greatest) {
            (Some(sums), Some(least), Some(greatest)) => {
                let values = sums.iter().zip(least).zip(greatest);
                for ((index, count), ((sum, least), greatest)) in
                    counts.zip(values).filter(|((_, count), _)| **count > 0)
                {
                    let (least, greatest) = (T::rank(*least), T::rank(*greatest));
                    self.groups[*index].merge(&Summary { count: *count, sum: *sum, least, greatest });
                }
            }
            (sums, least, greatest) => {
                for (row, (index, count)) in counts.enumerate().filter(|(_, (_, count))| **count > 0) {
                    let nothing = Summary::<T::Native>::default();
                    self.groups[*index].merge(&Summary {
                        count: *count,
                        sum: sums.map_or(nothing.sum, |sums| sums[row]),
                        least: least.map_or(nothing.least, |least| T::rank(least[row])),
                        greatest: greatest.map_or(nothing.greatest, |greatest| T::rank(greatest[row])),
                    });
                }
            }
        }
        Ok(())
    }

    fn values(&mut self, total: usize) -> Vec<ArrayRef> {
        self.grow(total);
        let arrays = Columns::<T>::of(&self.asks, &self.groups).arrays();
        let count = |counts: ScalarBuffer<i64>| Arc::new(Int64Array::new(counts, None)) as ArrayRef;
        let value = |asks: &Asks| match asks {
            Asks::Rows => count(self.rows(&arrays.counts)),
            Asks::Count => count(arrays.counts.clone()),
            Asks::Sum => Arc::clone(&arrays.sums) as _,
            Asks::Avg => arrays.means(),
            Asks::Min => Arc::clone(&arrays.least) as _,
            Asks::Max => Arc::clone(&arrays.greatest) as _,
        };
        self.asks.iter().map(value).collect()
    }

    /// What several aggregates keep is one array that they share, or one buffer.
    fn states(&mut self, total: usize) -> Vec<Vec<ArrayRef>> {
        self.grow(total);
        let arrays = Columns::<T>::of(&self.asks, &self.groups).arrays();
        let counts: ArrayRef = Arc::new(Int64Array::new(arrays.counts.clone(), None));
        let has_nulls = self.nulls.iter().any(|nulls| *nulls > 0);
        let state = |asks: &Asks| -> Vec<ArrayRef> {
            match asks {
                Asks::Rows if has_nulls => vec![Arc::new(Int64Array::new(self.rows(&arrays.counts), None))],
                Asks::Rows | Asks::Count => vec![Arc::clone(&counts)],
                Asks::Sum => vec![Arc::clone(&arrays.sums) as _],
                // Without values the count is null, too: DataFusion makes a mean of every state that has one.
                Asks::Avg => {
                    let counts = ScalarBuffer::from(arrays.counts.inner().clone());
                    let counts = UInt64Array::new(counts, arrays.unseen.clone());
                    vec![Arc::new(counts), Arc::clone(&arrays.sums) as _]
                }
                Asks::Min => vec![Arc::clone(&arrays.least) as _],
                Asks::Max => vec![Arc::clone(&arrays.greatest) as _],
            }
        };
        self.asks.iter().map(state).collect()
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Summary<T::Native>>() + self.nulls.capacity() * size_of::<i64>()
    }
}

/// The partial states of a pass, what several aggregates keep only once.
struct States<'a, T: Measure> {
    /// Where not all rows have a value.
    rows: Option<&'a Int64Array>,
    /// How many values a state is of; where nobody has counted, whether it is of any.
    counts: ScalarBuffer<i64>,
    sums: Option<&'a [T::Native]>,
    least: Option<&'a [T::Native]>,
    greatest: Option<&'a [T::Native]>,
}

impl<'a, T: Measure> States<'a, T> {
    fn try_new(asks: &[Asks], states: &[&'a [ArrayRef]]) -> Result<Self> {
        let state = |wanted: Asks, column: usize| {
            let index = asks.iter().position(|asks| *asks == wanted)?;
            states.get(index)?.get(column)
        };
        let [sum, mean] = [state(Asks::Sum, 0), state(Asks::Avg, 1)];
        let [least, greatest] = [state(Asks::Min, 0), state(Asks::Max, 0)];
        let counts = match (state(Asks::Count, 0), state(Asks::Avg, 0), sum.or(least).or(greatest)) {
            (Some(counts), ..) => typed::<Int64Type>(counts)?.values().clone(),
            (_, Some(counts), _) => counts_of_means(typed(counts)?),
            (.., Some(values)) => (0..values.len()).map(|row| i64::from(values.is_valid(row))).collect(),
            _ => return Err(internal_datafusion_err!("a pass over no column")),
        };
        let rows = state(Asks::Rows, 0).map(typed::<Int64Type>).transpose()?;
        let is_same = |rows: &&Int64Array| rows.values().inner().as_ptr() == counts.inner().as_ptr();
        let values = |column: Option<&'a ArrayRef>| -> Result<Option<&'a [T::Native]>> {
            Ok(column.map(typed::<T>).transpose()?.map(|column| &column.values()[..]))
        };
        Ok(Self {
            rows: rows.filter(|rows| !is_same(rows)),
            sums: values(sum.or(mean))?,
            least: values(least)?,
            greatest: values(greatest)?,
            counts,
        })
    }
}

/// Without values the count of a mean is null.
fn counts_of_means(counts: &UInt64Array) -> ScalarBuffer<i64> {
    match counts.null_count() {
        0 => ScalarBuffer::from(counts.values().inner().clone()),
        _ => counts.iter().map(|count| count.unwrap_or(0) as i64).collect(),
    }
}

fn typed<T: ArrowPrimitiveType>(column: &ArrayRef) -> Result<&PrimitiveArray<T>> {
    column.as_primitive_opt::<T>().ok_or_else(|| wrong_type(column))
}

fn wrong_type(column: &ArrayRef) -> datafusion::common::DataFusionError {
    internal_datafusion_err!("a pass over numbers has a column of {}", column.data_type())
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;
    use datafusion::functions_aggregate::average::avg_udaf;
    use datafusion::functions_aggregate::count::count_udaf;
    use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
    use datafusion::functions_aggregate::sum::sum_udaf;
    use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
    use datafusion::physical_expr::GroupsAccumulatorAdapter;
    use proptest::collection::vec;
    use proptest::option::weighted;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::*;
    use crate::operator::testing::{aggregate, cells, is_near};

    const ASKS: [Asks; 6] = [Asks::Rows, Asks::Count, Asks::Sum, Asks::Avg, Asks::Min, Asks::Max];

    /// DataFusion's plain accumulators for what is asked of the column "price".
    fn accumulator(asks: Asks) -> Box<dyn GroupsAccumulator> {
        let aggregate = aggregate(
            match asks {
                Asks::Rows | Asks::Count => count_udaf(),
                Asks::Sum => sum_udaf(),
                Asks::Avg => avg_udaf(),
                Asks::Min => min_udaf(),
                Asks::Max => max_udaf(),
            },
            "price",
        );
        Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator()))
    }

    fn floats() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => -99f64..99.0,
            1 => select(vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
        ]
    }

    proptest! {
        /// Batches go to one of two, whose states are merged by the other kind, for they say the same.
        #[test]
        fn equals_the_accumulators_that_it_stands_for(
            asks in subsequence(ASKS.to_vec(), 1..=6),
            batches in vec((0usize..2, any::<bool>(), vec((weighted(0.8, floats()), 0usize..4, weighted(0.9, any::<bool>())), 0..9)), 0..5),
            total in 1usize..5,
        ) {
            prop_assume!(asks.iter().any(|asks| !matches!(asks, Asks::Rows | Asks::Count)));
            let mut summaries = [0, 1].map(|_| PassGroups::<Float64Type>::new(asks.clone()));
            let mut expected = [0, 1].map(|_| asks.iter().map(|asks| accumulator(*asks)).collect::<Vec<_>>());
            for (part, filtered, rows) in batches {
                let column: ArrayRef = Arc::new(rows.iter().map(|(value, ..)| *value).collect::<Float64Array>());
                let ones: ArrayRef = Arc::new(Int64Array::from(vec![1; rows.len()]));
                let groups: Vec<usize> = rows.iter().map(|(_, group, _)| group % total).collect();
                let filter = filtered.then(|| rows.iter().map(|(.., passes)| *passes).collect::<BooleanArray>());
                summaries[part].update(&column, &groups, filter.as_ref(), total).unwrap();
                for (accumulator, asks) in expected[part].iter_mut().zip(&asks) {
                    let argument = if *asks == Asks::Rows { &ones } else { &column };
                    accumulator.update_batch(&[Arc::clone(argument)], &groups, filter.as_ref(), total).unwrap();
                }
            }
            let ([mut all, mut other], [mut expected, mut others]) = (summaries, expected);
            let groups: Vec<usize> = (0..total).rev().collect();
            let nothing: ArrayRef = Arc::new(Float64Array::new_null(0));
            for other in &mut others {
                other.update_batch(&[Arc::clone(&nothing)], &[], None, total).unwrap();
            }
            for (accumulator, state) in expected.iter_mut().zip(other.states(total)) {
                accumulator.merge_batch(&state, &groups, total).unwrap();
            }
            let states: Vec<_> = others.iter_mut().map(|other| other.state(EmitTo::All).unwrap()).collect();
            all.merge(&states.iter().map(Vec::as_slice).collect::<Vec<_>>(), &groups, total).unwrap();
            for (value, mut accumulator) in all.values(total).into_iter().zip(expected) {
                let (values, expected) = (cells(value), cells(accumulator.evaluate(EmitTo::All).unwrap()));
                let all_near = values.iter().zip(&expected).all(|(value, expected)| is_near(value, expected));
                prop_assert!(all_near && values.len() == expected.len(), "{values:?} instead of {expected:?}");
            }
        }
    }
}
