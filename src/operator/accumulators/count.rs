//! count: the number of rows without nulls.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use datafusion::common::{Result, internal_datafusion_err};

use super::RunningAggregate;
use super::typed::{Kind, typed};

/// The running count.
pub(super) fn count() -> Box<dyn RunningAggregate> {
    typed(Count)
}

struct Count;

impl Kind for Count {
    type Slot = i64;
    type Input = ();
    type Output = Vec<i64>;
    type Values = ArrayRef;

    fn input(&self, _: &[ArrayRef]) -> Result<()> {
        Ok(())
    }

    #[inline(always)]
    fn take(&self, slot: &mut i64, _: &(), _: usize) {
        *slot += 1;
    }

    fn merge(&self, into: &mut i64, from: i64) {
        *into += from;
    }

    fn output(&self, rows: usize) -> Vec<i64> {
        Vec::with_capacity(rows)
    }

    #[inline(always)]
    fn write(&self, slot: &i64, output: &mut Vec<i64>) {
        output.push(*slot);
    }

    fn finish(&self, output: Vec<i64>) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(output)))
    }

    fn state(&self, slots: &[i64]) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(Int64Array::from(slots.to_vec()))])
    }

    fn restore(&self, state: &[ArrayRef]) -> Result<Vec<i64>> {
        let counts = state.first().and_then(|counts| counts.as_primitive_opt::<Int64Type>());
        let counts = counts.ok_or_else(|| internal_datafusion_err!("count keeps a number"))?;
        Ok(counts.values().to_vec())
    }

    fn glance(slot: &Self::Slot) -> u64 {
        *slot as u64
    }

    fn state_width(&self) -> usize {
        1
    }
}
