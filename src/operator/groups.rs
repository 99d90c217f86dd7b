//! The groups of one window: which keys there are, and an accumulator of all groups for each aggregate.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use datafusion::common::Result;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::aggregate_spec::{AggregateSpec, Evaluated};
use super::float_extreme::FloatExtreme;
use super::keys::Keys;
use super::open_windows::{SLICE_COLUMNS, Slice, slice_columns};
use super::single_group::SingleGroup;

/// The groups of one window with their accumulators.
pub(super) struct Groups {
    keys: Keys,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// Bytes held, as of the last change.
    pub(super) size: usize,
}

impl Groups {
    pub(super) fn try_new(spec: &AggregateSpec) -> Result<Self> {
        let accumulator = |aggregate| match spec.keys.is_empty() && spec.window.is_none() {
            true => single_group(aggregate),
            false => groups_accumulator(aggregate),
        };
        let accumulators = spec.aggregates.iter().map(accumulator).collect::<Result<_>>()?;
        Ok(Self { keys: Keys::new(spec), accumulators, size: 0 })
    }

    /// Aggregates a batch's rows.
    pub(super) fn update(&mut self, rows: &Evaluated) -> Result<()> {
        self.keys.intern(&rows.keys, rows.rows)?;
        let total = self.keys.len();
        for ((accumulator, arguments), filter) in self.accumulators.iter_mut().zip(&rows.arguments).zip(&rows.filters) {
            accumulator.update_batch(arguments, &self.keys.groups, filter.as_ref(), total)?;
        }
        self.measure();
        Ok(())
    }

    /// Takes everything out as final values: keys, then aggregates.
    pub(super) fn finish(mut self) -> Result<(usize, Vec<ArrayRef>)> {
        let rows = self.keys.len();
        let mut columns = self.keys.emit()?;
        for accumulator in &mut self.accumulators {
            columns.push(accumulator.evaluate(EmitTo::All)?);
        }
        Ok((rows, columns))
    }

    /// Takes everything out as partial states, in the form of [`AggregateSpec::state_schema`].
    pub(super) fn into_state(mut self, spec: &AggregateSpec, slice: Option<Slice>) -> Result<RecordBatch> {
        let rows = self.keys.len();
        let mut columns = slice_columns(slice, rows);
        columns.extend(self.keys.emit()?);
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        with_types(spec, columns)
    }

    /// Adds the partial states of a window.
    pub(super) fn merge(&mut self, spec: &AggregateSpec, state: &RecordBatch) -> Result<()> {
        let (keys, mut states) = state.columns()[SLICE_COLUMNS..].split_at(spec.keys.len());
        self.keys.intern(keys, state.num_rows())?;
        let total = self.keys.len();
        for (accumulator, width) in self.accumulators.iter_mut().zip(spec.state_widths()?) {
            let (own, rest) = states.split_at(*width);
            accumulator.merge_batch(own, &self.keys.groups, total)?;
            states = rest;
        }
        self.measure();
        Ok(())
    }

    fn measure(&mut self) {
        let accumulators = self.accumulators.iter().map(|accumulator| accumulator.size());
        self.size = self.keys.size() + accumulators.sum::<usize>();
    }
}

/// A state batch; some accumulators give other, equivalent types than they declare (views, dictionaries).
fn with_types(spec: &AggregateSpec, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let schema = spec.state_schema()?;
    let cast = columns.into_iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            Ok(column)
        } else {
            arrow::compute::cast(&column, field.data_type())
        }
    });
    let columns = cast.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn single_group(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    Ok(Box::new(SingleGroup(aggregate.create_accumulator()?)))
}

/// An accumulator for all groups at once: the aggregate's own, or one small accumulator for each group.
fn groups_accumulator(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    // DataFusion's accumulator of all groups for bit_xor overlooks DISTINCT, and its state is not the one declared.
    let overlooks_distinct = aggregate.is_distinct() && aggregate.fun().name() == "bit_xor";
    if aggregate.groups_accumulator_supported() && !overlooks_distinct {
        let function: &dyn Any = aggregate.fun().inner().as_ref();
        let (is_max, is_float) = (function.is::<Max>(), aggregate.field().data_type().is_floating());
        return Ok(match aggregate.create_groups_accumulator()? {
            numbers if is_float && (is_max || function.is::<Min>()) => Box::new(FloatExtreme::new(numbers, is_max)),
            accumulator => accumulator,
        });
    }
    let aggregate = Arc::clone(aggregate);
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())))
}
