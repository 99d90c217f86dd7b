//! Running average of floats.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion::common::{Result, internal_datafusion_err};

use super::{RunningAggregate, live_rows};

/// Sums and counts of all groups, side by side because they are always used together.
#[derive(Debug, Default)]
pub(super) struct RunningAvg {
    groups: Vec<(f64, i64)>,
}

impl RunningAggregate for RunningAvg {
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<ArrayRef> {
        let argument = arguments.first().and_then(|argument| argument.as_primitive_opt::<Float64Type>());
        let argument = argument.ok_or_else(|| internal_datafusion_err!("avg over what is no float"))?;
        self.groups.resize(groups_total, (0.0, 0));
        let state = &mut self.groups;
        let Some(live) = live_rows(argument, filter) else {
            let values = groups.iter().zip(argument.values()).map(|(group, value)| {
                let (sum, count) = &mut state[*group];
                *sum += value;
                *count += 1;
                *sum / *count as f64
            });
            return Ok(Arc::new(Float64Array::from(values.collect::<Vec<_>>())));
        };
        let mut seen = Vec::with_capacity(groups.len());
        let values = groups.iter().zip(argument.values()).zip(&live).map(|((group, value), live)| {
            let (sum, count) = &mut state[*group];
            if live {
                *sum += value;
                *count += 1;
            }
            seen.push(*count > 0);
            *sum / *count as f64
        });
        let values: Vec<f64> = values.collect();
        Ok(Arc::new(Float64Array::new(values.into(), Some(NullBuffer::from(seen)))))
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>> {
        let sums: Float64Array = self.groups.iter().map(|(sum, _)| Some(*sum)).collect();
        let counts: Int64Array = self.groups.iter().map(|(_, count)| Some(*count)).collect();
        Ok(vec![Arc::new(sums), Arc::new(counts)])
    }

    fn restore(&mut self, state: &[ArrayRef]) -> Result<()> {
        let [sums, counts] = state else {
            return Err(internal_datafusion_err!("avg keeps a sum and a count"));
        };
        let (sums, counts) = (sums.as_primitive::<Float64Type>(), counts.as_primitive::<Int64Type>());
        self.groups = sums.values().iter().copied().zip(counts.values().iter().copied()).collect();
        Ok(())
    }

    fn state_width(&self) -> Result<usize> {
        Ok(2)
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<(f64, i64)>()
    }
}
