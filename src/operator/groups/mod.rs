//! The groups of one window: which keys there are, and accumulators of all groups.
//!
//! Most aggregates have an accumulator each; those that ask simple things of one column share a pass over it.

mod columns;
mod single_group;
mod summaries;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::aggregate_spec::{self, AggregateSpec, Evaluated};
use super::keys::Keys;
use single_group::SingleGroup;
use summaries::{Summaries, summaries};

/// The groups of one window with their accumulators.
pub(super) struct Groups {
    keys: Keys,
    accumulators: Vec<Part>,
    /// Bytes held, as of the last change.
    pub(super) size: usize,
}

/// An accumulator with the aggregates that it is of, and the one whose arguments it takes.
struct Part {
    aggregates: Vec<usize>,
    reads: usize,
    accumulator: PartAccumulator,
}

enum PartAccumulator {
    Alone(Box<dyn GroupsAccumulator>),
    Together(Box<dyn Summaries>),
}

impl Groups {
    pub(super) fn try_new(spec: &AggregateSpec) -> Result<Self> {
        let part = |part: aggregate_spec::Part| {
            let reads = part.aggregates[0];
            let aggregate = &spec.aggregates[reads];
            let accumulator = match part.pass {
                Some(pass) => PartAccumulator::Together(summaries(pass)),
                None if spec.has_one_group() => PartAccumulator::Alone(single_group(aggregate)?),
                None => PartAccumulator::Alone(groups_accumulator(aggregate)?),
            };
            Ok(Part { aggregates: part.aggregates, reads, accumulator })
        };
        let accumulators = spec.parts().map(part).collect::<Result<_>>()?;
        Ok(Self { keys: Keys::new(spec), accumulators, size: 0 })
    }

    /// Aggregates a batch's rows.
    pub(super) fn update(&mut self, rows: &Evaluated) -> Result<()> {
        self.keys.intern(&rows.keys, rows.rows)?;
        let (groups, total) = (&self.keys.groups, self.keys.len());
        for part in &mut self.accumulators {
            let (arguments, filter) = (&rows.arguments[part.reads], rows.filters[part.reads].as_ref());
            match &mut part.accumulator {
                PartAccumulator::Alone(accumulator) => accumulator.update_batch(arguments, groups, filter, total)?,
                PartAccumulator::Together(summaries) => summaries.update(&arguments[0], groups, filter, total)?,
            }
        }
        self.measure();
        Ok(())
    }

    /// Takes everything out as final values: keys, then aggregates.
    pub(super) fn finish(mut self) -> Result<(usize, Vec<ArrayRef>)> {
        let rows = self.keys.len();
        let mut columns = self.keys.emit()?;
        let values = self.by_aggregate(|accumulator| match accumulator {
            PartAccumulator::Alone(accumulator) => Ok(vec![accumulator.evaluate(EmitTo::All)?]),
            PartAccumulator::Together(summaries) => Ok(summaries.values(rows)),
        })?;
        columns.extend(values);
        Ok((rows, columns))
    }

    /// Takes everything out as partial states, in the form of [`AggregateSpec::state_schema`].
    pub(super) fn into_state(mut self, spec: &AggregateSpec) -> Result<RecordBatch> {
        let rows = self.keys.len();
        let mut columns = self.keys.emit()?;
        let states = self.by_aggregate(|accumulator| match accumulator {
            PartAccumulator::Alone(accumulator) => Ok(vec![accumulator.state(EmitTo::All)?]),
            PartAccumulator::Together(summaries) => Ok(summaries.states(rows)),
        })?;
        columns.extend(states.into_iter().flatten());
        with_types(spec, columns, rows)
    }

    /// What each aggregate gives, given how an accumulator gives it for those that it is of.
    fn by_aggregate<T>(&mut self, mut give: impl FnMut(&mut PartAccumulator) -> Result<Vec<T>>) -> Result<Vec<T>> {
        let mut given = vec![];
        for part in &mut self.accumulators {
            given.extend(part.aggregates.iter().copied().zip(give(&mut part.accumulator)?));
        }
        given.sort_by_key(|(aggregate, _)| *aggregate);
        Ok(given.into_iter().map(|(_, given)| given).collect())
    }

    /// Adds partial states of that form.
    pub(super) fn merge(&mut self, spec: &AggregateSpec, state: &RecordBatch) -> Result<()> {
        let (keys, mut rest) = state.columns().split_at(spec.keys.len());
        self.keys.intern(keys, state.num_rows())?;
        let mut states = vec![];
        for width in spec.state_widths()? {
            let (own, others) = rest.split_at(*width);
            states.push(own);
            rest = others;
        }
        let (groups, total) = (&self.keys.groups, self.keys.len());
        for part in &mut self.accumulators {
            match &mut part.accumulator {
                PartAccumulator::Alone(accumulator) => accumulator.merge_batch(states[part.reads], groups, total)?,
                PartAccumulator::Together(summaries) => {
                    let states: Vec<&[ArrayRef]> = part.aggregates.iter().map(|index| states[*index]).collect();
                    summaries.merge(&states, groups, total)?;
                }
            }
        }
        self.measure();
        Ok(())
    }

    fn measure(&mut self) {
        let accumulators = self.accumulators.iter().map(|part| match &part.accumulator {
            PartAccumulator::Alone(accumulator) => accumulator.size(),
            PartAccumulator::Together(summaries) => summaries.size(),
        });
        self.size = self.keys.size() + accumulators.sum::<usize>();
    }
}

/// Bytes of partial states, of which several aggregates may share a column.
pub(super) fn state_size(states: &RecordBatch) -> usize {
    let columns = states.columns();
    let is_first =
        |(index, column): &(usize, &ArrayRef)| !columns[..*index].iter().any(|other| Arc::ptr_eq(other, column));
    columns.iter().enumerate().filter(is_first).map(|(_, column)| column.get_array_memory_size()).sum()
}

/// A state batch; some accumulators give other, equivalent types than they declare (views, dictionaries).
fn with_types(spec: &AggregateSpec, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let schema = spec.state_schema()?;
    let cast = columns.into_iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            Ok(column)
        } else {
            arrow::compute::cast(&column, field.data_type())
        }
    });
    let columns = cast.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

fn single_group(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    Ok(Box::new(SingleGroup(aggregate.create_accumulator()?)))
}

/// An accumulator for all groups at once: the aggregate's own, or one small accumulator for each group.
fn groups_accumulator(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    // DataFusion's accumulator of all groups for bit_xor overlooks DISTINCT, and its state is not the one declared.
    let overlooks_distinct = aggregate.is_distinct() && aggregate.fun().name() == "bit_xor";
    if aggregate.groups_accumulator_supported() && !overlooks_distinct {
        return aggregate.create_groups_accumulator();
    }
    let aggregate = Arc::clone(aggregate);
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())))
}
