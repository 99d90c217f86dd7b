//! What the aggregates hold of groups that somebody else numbers.
//!
//! Most aggregates have an accumulator each; those that ask simple things of one column share a pass over it.

use std::sync::Arc;

use arrow::array::ArrayRef;
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::single_group::SingleGroup;
use super::summaries::{Summaries, summaries};
use crate::operator::aggregate_spec::{self, AggregateSpec, Evaluated};

/// The accumulators of a GROUP BY.
pub(super) struct Accumulators(Vec<Part>);

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

impl Accumulators {
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
        spec.parts().map(part).collect::<Result<_>>().map(Self)
    }

    /// Aggregates rows, each into its group of `total`.
    pub(super) fn update(&mut self, rows: &Evaluated, groups: &[usize], total: usize) -> Result<()> {
        for part in &mut self.0 {
            let (arguments, filter) = (&rows.arguments[part.reads], rows.filters[part.reads].as_ref());
            match &mut part.accumulator {
                PartAccumulator::Alone(accumulator) => accumulator.update_batch(arguments, groups, filter, total)?,
                PartAccumulator::Together(summaries) => summaries.update(&arguments[0], groups, filter, total)?,
            }
        }
        Ok(())
    }

    /// Adds partial states, the columns of one aggregate after those of the other.
    pub(super) fn merge(
        &mut self,
        spec: &AggregateSpec,
        states: &[ArrayRef],
        groups: &[usize],
        total: usize,
    ) -> Result<()> {
        let (mut rest, mut own) = (states, vec![]);
        for width in spec.state_widths()? {
            let (states, others) = rest.split_at(*width);
            own.push(states);
            rest = others;
        }
        for part in &mut self.0 {
            match &mut part.accumulator {
                PartAccumulator::Alone(accumulator) => accumulator.merge_batch(own[part.reads], groups, total)?,
                PartAccumulator::Together(summaries) => {
                    let states: Vec<&[ArrayRef]> = part.aggregates.iter().map(|index| own[*index]).collect();
                    summaries.merge(&states, groups, total)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the value of each aggregate out, for all groups.
    pub(super) fn values(&mut self, total: usize) -> Result<Vec<ArrayRef>> {
        self.by_aggregate(|accumulator| match accumulator {
            PartAccumulator::Alone(accumulator) => Ok(vec![accumulator.evaluate(EmitTo::All)?]),
            PartAccumulator::Together(summaries) => Ok(summaries.values(total)),
        })
    }

    /// Takes the partial states of each aggregate out, for all groups.
    pub(super) fn states(&mut self, total: usize) -> Result<Vec<ArrayRef>> {
        let states = self.by_aggregate(|accumulator| match accumulator {
            PartAccumulator::Alone(accumulator) => Ok(vec![accumulator.state(EmitTo::All)?]),
            PartAccumulator::Together(summaries) => Ok(summaries.states(total)),
        })?;
        Ok(states.into_iter().flatten().collect())
    }

    /// What each aggregate gives, given how an accumulator gives it for those that it is of.
    fn by_aggregate<T>(&mut self, mut give: impl FnMut(&mut PartAccumulator) -> Result<Vec<T>>) -> Result<Vec<T>> {
        let mut given = vec![];
        for part in &mut self.0 {
            given.extend(part.aggregates.iter().copied().zip(give(&mut part.accumulator)?));
        }
        given.sort_by_key(|(aggregate, _)| *aggregate);
        Ok(given.into_iter().map(|(_, given)| given).collect())
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        let sizes = self.0.iter().map(|part| match &part.accumulator {
            PartAccumulator::Alone(accumulator) => accumulator.size(),
            PartAccumulator::Together(summaries) => summaries.size(),
        });
        sizes.sum()
    }
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
