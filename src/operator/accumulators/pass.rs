//! Aggregates that share a pass: a summary of each group, and the values of all of them after each row.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Int64Type};
use datafusion::common::Result;

use super::column::{Primitives, column_of, values_of};
use super::typed::{Kind, typed};
use super::{RunningAggregate, passed_rows};
use crate::operator::passes::{Asks, Pass};
use crate::operator::summary::{Measure, Summary};
use crate::operator::summary_columns::{BLOCK_GROUPS, Columns, values};

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

/// What groups hold at some time, as columns in the making.
struct Held<T: Measure> {
    columns: Columns<T>,
    /// Those that are not in the columns yet: a column of many is written faster than many columns of one.
    block: Vec<Summary<T::Native>>,
    /// Their rows without a value, if rows are asked for.
    nulls: Option<Vec<i64>>,
}

impl<T: Measure> Kind for PassValues<T> {
    type Slot = Slot<T::Native>;
    type Input = (ScalarBuffer<T::Native>, Option<NullBuffer>);
    type Output = Held<T>;
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
        let nulls = self.asks.contains(&Asks::Rows).then(|| Vec::with_capacity(rows));
        Held { columns: Columns::with_capacity(&self.asks, rows), block: Vec::with_capacity(BLOCK_GROUPS), nulls }
    }

    #[inline(always)]
    fn write(&self, Slot { summary, nulls }: &Self::Slot, output: &mut Self::Output) {
        output.block.push(*summary);
        if output.block.len() == BLOCK_GROUPS {
            output.columns.add(&output.block);
            output.block.clear();
        }
        if let Some(column) = &mut output.nulls {
            column.push(*nulls);
        }
    }

    fn finish(&self, Held { mut columns, block, nulls }: Self::Output) -> Result<Vec<ArrayRef>> {
        columns.add(&block);
        Ok(values(&self.asks, columns, nulls.as_deref().unwrap_or_default()))
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
