//! Running count.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::Int64Type;
use datafusion::common::{Result, internal_datafusion_err};

use super::{RunningAggregate, live_rows};

/// Counts of all groups.
#[derive(Debug, Default)]
pub(super) struct RunningCount {
    counts: Vec<i64>,
}

impl RunningAggregate for RunningCount {
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<ArrayRef> {
        let argument = arguments.first().ok_or_else(|| internal_datafusion_err!("count without an argument"))?;
        self.counts.resize(groups_total, 0);
        let counts = &mut self.counts;
        let values: Vec<i64> = match live_rows(argument, filter) {
            None => groups
                .iter()
                .map(|group| {
                    counts[*group] += 1;
                    counts[*group]
                })
                .collect(),
            Some(live) => groups
                .iter()
                .zip(&live)
                .map(|(group, live)| {
                    counts[*group] += i64::from(live);
                    counts[*group]
                })
                .collect(),
        };
        Ok(Arc::new(Int64Array::from(values)))
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(Int64Array::from(self.counts.clone()))])
    }

    fn restore(&mut self, state: &[ArrayRef]) -> Result<()> {
        self.counts = state.iter().flat_map(|state| state.as_primitive::<Int64Type>().values().to_vec()).collect();
        Ok(())
    }

    fn state_width(&self) -> Result<usize> {
        Ok(1)
    }

    fn size(&self) -> usize {
        self.counts.capacity() * size_of::<i64>()
    }
}
