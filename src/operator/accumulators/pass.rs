//! Aggregates that share a pass: a summary of each group, and the values of all of them after each row.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Int64Type};
use datafusion::common::{Result, internal_datafusion_err};

use super::column::{Column, Numbers, Primitives, column_of, values_of};
use super::typed::{Kind, typed};
use super::{RunningAggregate, passed_rows};
use crate::operator::passes::{Asks, Pass};
use crate::operator::summary::{Measure, Summary};

/// The running aggregates of a pass.
pub(super) fn pass(pass: &Pass) -> Box<dyn RunningAggregate<Vec<ArrayRef>>> {
    let asks = pass.members.iter().map(|(_, asks)| *asks).collect();
    match pass.data_type {
        DataType::Float16 => typed(PassValues::<Float16Type> { asks, of: PhantomData }),
        DataType::Float32 => typed(PassValues::<Float32Type> { asks, of: PhantomData }),
        DataType::Float64 => typed(PassValues::<Float64Type> { asks, of: PhantomData }),
        _ => typed(PassValues::<Int64Type> { asks, of: PhantomData }),
    }
}

struct PassValues<T> {
    asks: Vec<Asks>,
    of: PhantomData<fn() -> T>,
}

/// What is held of a group.
#[derive(Debug, Clone, Copy)]
struct Slot<N> {
    summary: Summary<N>,
    /// Its rows without a value.
    nulls: i64,
}

impl<N> Default for Slot<N>
where
    Summary<N>: Default,
{
    fn default() -> Self {
        Self { summary: Summary::default(), nulls: 0 }
    }
}

/// The columns that are asked for, in the making.
struct Columns<T: Measure> {
    /// Copies of slots that are still to be written: one column after the other is faster than all for each row.
    block: Vec<Slot<T::Native>>,
    rows: Option<Vec<i64>>,
    counts: Option<Vec<i64>>,
    sums: Option<Numbers<T::Native>>,
    means: Option<Numbers<f64>>,
    least: Option<Numbers<T::Native>>,
    greatest: Option<Numbers<T::Native>>,
}

/// So few that they stay in the processor's nearest cache.
const BLOCK: usize = 128;

impl<T: Measure> Columns<T> {
    fn write_block(&mut self) {
        let block = &self.block;
        let counts = block.iter().map(|slot| slot.summary.count);
        let is_seen = counts.clone().all(|count| count > 0);
        if let Some(rows) = &mut self.rows {
            rows.extend(block.iter().map(|slot| slot.summary.count + slot.nulls));
        }
        if let Some(values) = &mut self.counts {
            values.extend(counts);
        }
        write(&mut self.sums, block, is_seen, |summary| summary.sum);
        write(&mut self.means, block, is_seen, |summary| T::mean(summary.sum, summary.count));
        write(&mut self.least, block, is_seen, |summary| T::of_rank(summary.least));
        write(&mut self.greatest, block, is_seen, |summary| T::of_rank(summary.greatest));
        self.block.clear();
    }
}

/// Writes something of each summary that has a value, which all have if `is_seen`.
fn write<N: Default, S>(
    numbers: &mut Option<Numbers<N>>,
    block: &[Slot<S>],
    is_seen: bool,
    of: impl Fn(&Summary<S>) -> N,
) {
    let Some(numbers) = numbers else { return };
    match is_seen {
        true => numbers.extend(block.iter().map(|slot| of(&slot.summary))),
        false => block.iter().for_each(|slot| numbers.append((slot.summary.count > 0).then(|| of(&slot.summary)))),
    }
}

impl<T: Measure> Kind for PassValues<T> {
    type Slot = Slot<T::Native>;
    type Input = (ScalarBuffer<T::Native>, Option<NullBuffer>);
    type Output = Columns<T>;
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
            true => slot.summary.take(values[row], T::rank(values[row])),
            false => slot.nulls += 1,
        }
    }

    fn merge(&self, into: &mut Self::Slot, from: Self::Slot) {
        into.summary.merge(&from.summary);
        into.nulls += from.nulls;
    }

    fn output(&self, rows: usize) -> Self::Output {
        let wants = |asks| self.asks.contains(&asks);
        let numbers = |asks| wants(asks).then(|| Primitives::<T>::builder(rows));
        let counts = |asks| wants(asks).then(|| Vec::with_capacity(rows));
        Columns {
            block: Vec::with_capacity(BLOCK),
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
        output.block.push(*slot);
        if output.block.len() == BLOCK {
            output.write_block();
        }
    }

    fn finish(&self, mut output: Self::Output) -> Result<Vec<ArrayRef>> {
        output.write_block();
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
        let column =
            |of: fn(&Self::Slot) -> i64| Arc::new(Int64Array::from_iter_values(slots.iter().map(of))) as ArrayRef;
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
        let slot = |row: usize| Slot {
            summary: Summary { count: counts[row], sum: sums[row], least: least[row], greatest: greatest[row] },
            nulls: nulls[row],
        };
        Ok((0..sums.len()).map(slot).collect())
    }

    fn state_width(&self) -> usize {
        5
    }
}
