//! Aggregates that share a pass: a summary of each group, and the values of all of them after each row.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Int64Type};
use datafusion::common::{Result, internal_datafusion_err};

use super::column::{Column, Numbers, Primitives, column_of, values_of};
use super::held::{Held, Total, Whole};
use super::typed::{Kind, typed};
use super::{RunningAggregate, passed_rows};
use crate::operator::passes::{Asks, Pass};
use crate::operator::summary::{Measure, Summary};

/// The running aggregates of a pass.
pub(super) fn pass(pass: &Pass) -> Box<dyn RunningAggregate<Vec<ArrayRef>>> {
    let asks = pass.members.iter().map(|(_, asks)| *asks).collect();
    match pass.data_type {
        DataType::Float16 => pass_of::<Float16Type>(asks),
        DataType::Float32 => pass_of::<Float32Type>(asks),
        DataType::Float64 => pass_of::<Float64Type>(asks),
        _ => pass_of::<Int64Type>(asks),
    }
}

/// A pass that holds what is asked for.
fn pass_of<T: Measure>(asks: Vec<Asks>) -> Box<dyn RunningAggregate<Vec<ArrayRef>>> {
    let has_extremes = asks.iter().any(|asks| matches!(asks, Asks::Min | Asks::Max));
    match (has_extremes, asks.contains(&Asks::Rows)) {
        (false, _) => typed(PassValues::<T, Total<T::Native>> { asks, of: PhantomData }),
        (true, false) => typed(PassValues::<T, Summary<T::Native>> { asks, of: PhantomData }),
        (true, true) => typed(PassValues::<T, Whole<T::Native>> { asks, of: PhantomData }),
    }
}

struct PassValues<T, S> {
    asks: Vec<Asks>,
    of: PhantomData<fn() -> (T, S)>,
}

/// The columns that are asked for, in the making.
#[derive(Default)]
struct Columns<N> {
    rows: Option<Vec<i64>>,
    counts: Option<Vec<i64>>,
    sums: Option<Numbers<N>>,
    means: Option<Numbers<f64>>,
    least: Option<Numbers<N>>,
    greatest: Option<Numbers<N>>,
}

impl<T: Measure, S: Held<T::Native>> Kind for PassValues<T, S> {
    type Slot = S;
    type Input = (ScalarBuffer<T::Native>, Option<NullBuffer>);
    type Output = Columns<T::Native>;
    type Values = Vec<ArrayRef>;

    fn input(&self, arguments: &[ArrayRef]) -> Result<Self::Input> {
        let nulls = arguments.first().and_then(|values| values.nulls().cloned());
        Ok((values_of::<Primitives<T>>(arguments, 0)?, nulls.filter(|nulls| nulls.null_count() > 0)))
    }

    /// Rows without a value, too, where rows are asked for.
    fn live(&self, _: &[ArrayRef], filter: Option<&BooleanArray>) -> Option<BooleanBuffer> {
        passed_rows(filter)
    }

    #[inline(always)]
    fn take(&self, slot: &mut Self::Slot, (values, nulls): &Self::Input, row: usize) {
        match nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
            true => slot.take(values[row], T::rank(values[row])),
            false => slot.take_null(),
        }
    }

    fn has_all_values(&self, (_, nulls): &Self::Input) -> bool {
        nulls.is_none()
    }

    #[inline(always)]
    fn take_value(&self, slot: &mut Self::Slot, (values, _): &Self::Input, row: usize) {
        slot.take(values[row], T::rank(values[row]));
    }

    fn merge(&self, into: &mut Self::Slot, from: Self::Slot) {
        into.merge(from);
    }

    fn output(&self, rows: usize) -> Self::Output {
        let wants = |asks| self.asks.contains(&asks);
        let numbers = |asks| wants(asks).then(|| Primitives::<T>::builder(rows));
        let counts = |asks| wants(asks).then(|| Vec::with_capacity(rows));
        Columns {
            rows: counts(Asks::Rows),
            counts: counts(Asks::Count),
            sums: numbers(Asks::Sum),
            means: wants(Asks::Avg).then(|| Primitives::<Float64Type>::builder(rows)),
            least: numbers(Asks::Min),
            greatest: numbers(Asks::Max),
        }
    }

    #[inline(always)]
    fn write(&self, slot: &Self::Slot, output: &mut Self::Output) {
        let Whole { summary, nulls } = slot.whole();
        let is_seen = summary.count > 0;
        if let Some(rows) = &mut output.rows {
            rows.push(summary.count + nulls);
        }
        if let Some(counts) = &mut output.counts {
            counts.push(summary.count);
        }
        if let Some(sums) = &mut output.sums {
            sums.append(is_seen.then_some(summary.sum));
        }
        if let Some(means) = &mut output.means {
            means.append(is_seen.then(|| T::mean(summary.sum, summary.count)));
        }
        if let Some(least) = &mut output.least {
            least.append(is_seen.then(|| T::of_rank(summary.least)));
        }
        if let Some(greatest) = &mut output.greatest {
            greatest.append(is_seen.then(|| T::of_rank(summary.greatest)));
        }
    }

    fn finish(&self, output: Self::Output) -> Result<Vec<ArrayRef>> {
        let counts = |counts: Option<Vec<i64>>| counts.map(|counts| Arc::new(Int64Array::from(counts)) as ArrayRef);
        let numbers = |numbers: Option<Numbers<T::Native>>| {
            numbers.map(|numbers| Primitives::<T>::finish(numbers, &T::DATA_TYPE)).transpose()
        };
        let means =
            output.means.map(|means| Primitives::<Float64Type>::finish(means, &DataType::Float64)).transpose()?;
        let (rows, values) = (counts(output.rows), counts(output.counts));
        let (sums, least, greatest) = (numbers(output.sums)?, numbers(output.least)?, numbers(output.greatest)?);
        let column = |asks: &Asks| {
            let column = match asks {
                Asks::Rows => &rows,
                Asks::Count => &values,
                Asks::Sum => &sums,
                Asks::Avg => &means,
                Asks::Min => &least,
                Asks::Max => &greatest,
            };
            column.clone().ok_or_else(|| internal_datafusion_err!("a pass without what it was asked for"))
        };
        self.asks.iter().map(column).collect()
    }

    fn state(&self, slots: &[Self::Slot]) -> Result<Vec<ArrayRef>> {
        let slots: Vec<Whole<T::Native>> = slots.iter().map(Held::whole).collect();
        let column =
            |of: fn(&Whole<T::Native>) -> i64| Arc::new(Int64Array::from_iter_values(slots.iter().map(of))) as ArrayRef;
        Ok(vec![
            column_of::<Primitives<T>>(slots.iter().map(|slot| Some(&slot.summary.sum)), &T::DATA_TYPE)?,
            column(|slot| slot.nulls),
            column(|slot| slot.summary.count),
            column(|slot| slot.summary.least),
            column(|slot| slot.summary.greatest),
        ])
    }

    fn restore(&self, state: &[ArrayRef]) -> Result<Vec<Self::Slot>> {
        let sums = values_of::<Primitives<T>>(state, 0)?;
        let column = |index| values_of::<Primitives<Int64Type>>(state, index);
        let [nulls, counts, least, greatest] = [column(1)?, column(2)?, column(3)?, column(4)?];
        let slot = |row: usize| {
            let summary = Summary { count: counts[row], sum: sums[row], least: least[row], greatest: greatest[row] };
            S::of(Whole { summary, nulls: nulls[row] })
        };
        Ok((0..sums.len()).map(slot).collect())
    }

    fn glance(slot: &Self::Slot) -> u64 {
        slot.glance()
    }

    fn state_width(&self) -> usize {
        5
    }
}
