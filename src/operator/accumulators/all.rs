//! The running values of all aggregates of a GROUP BY.

use arrow::array::ArrayRef;
use datafusion::common::{Result, internal_datafusion_err};

use super::pass::pass;
use super::{RunningAggregate, Slots, running_aggregate};
use crate::operator::aggregate_spec::{self, AggregateSpec, Evaluated};

/// The values of a GROUP BY's aggregates in slots, as [`RunningAggregate`] has those of one.
pub(in crate::operator) struct RunningAggregates {
    parts: Vec<Part>,
    aggregates: usize,
}

/// One aggregate, or several that share a pass, and the one whose arguments are taken.
struct Part {
    aggregates: Vec<usize>,
    reads: usize,
    values: PartValues,
}

enum PartValues {
    Alone(Box<dyn RunningAggregate>),
    Together(Box<dyn RunningAggregate<Vec<ArrayRef>>>),
}

/// Does the same with either.
macro_rules! either {
    ($part:expr, $values:ident => $do:expr) => {
        match &mut $part.values {
            PartValues::Alone($values) => $do,
            PartValues::Together($values) => $do,
        }
    };
}

impl RunningAggregates {
    pub(in crate::operator) fn try_new(spec: &AggregateSpec) -> Result<Self> {
        let part = |part: aggregate_spec::Part| {
            let reads = part.aggregates[0];
            let values = match part.pass {
                Some(shared) => PartValues::Together(pass(shared)),
                None => PartValues::Alone(running_aggregate(&spec.aggregates[reads])?),
            };
            Ok(Part { aggregates: part.aggregates, reads, values })
        };
        let parts = spec.parts().map(part).collect::<Result<_>>()?;
        Ok(Self { parts, aggregates: spec.aggregates.len() })
    }

    /// Takes a batch's rows in order and gives, for each, the values of its slot after it.
    pub(in crate::operator) fn update(&mut self, slots: Slots, rows: &Evaluated) -> Result<Vec<ArrayRef>> {
        self.columns(|part| {
            let (arguments, filter) = (&rows.arguments[part.reads], rows.filters[part.reads].as_ref());
            match &mut part.values {
                PartValues::Alone(values) => Ok(vec![values.update(slots, arguments, filter)?]),
                PartValues::Together(values) => values.update(slots, arguments, filter),
            }
        })
    }

    /// Takes rows like [`Self::update`], but gives no values.
    pub(in crate::operator) fn accumulate(&mut self, slots: Slots, rows: &Evaluated) -> Result<()> {
        for part in &mut self.parts {
            let (arguments, filter) = (&rows.arguments[part.reads], rows.filters[part.reads].as_ref());
            either!(part, values => values.accumulate(slots, arguments, filter)?);
        }
        Ok(())
    }

    /// The values of some slots now, in that order.
    pub(in crate::operator) fn values(&mut self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        self.columns(|part| match &mut part.values {
            PartValues::Alone(values) => Ok(vec![values.values(slots)?]),
            PartValues::Together(values) => values.values(slots),
        })
    }

    /// The same, and empties them, so that they can be used for other groups.
    pub(in crate::operator) fn take(&mut self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        self.columns(|part| match &mut part.values {
            PartValues::Alone(values) => Ok(vec![values.take(slots)?]),
            PartValues::Together(values) => values.take(slots),
        })
    }

    /// The columns of the aggregates in their order, given those of a part.
    fn columns(&mut self, mut of: impl FnMut(&mut Part) -> Result<Vec<ArrayRef>>) -> Result<Vec<ArrayRef>> {
        let mut columns = vec![None; self.aggregates];
        for part in &mut self.parts {
            for (column, aggregate) in of(part)?.into_iter().zip(&part.aggregates) {
                columns[*aggregate] = Some(column);
            }
        }
        let columns: Option<Vec<ArrayRef>> = columns.into_iter().collect();
        columns.ok_or_else(|| internal_datafusion_err!("an aggregate without a value"))
    }

    /// Empties slots, so that they can be used for other groups.
    pub(in crate::operator) fn clear(&mut self, slots: &[usize]) -> Result<()> {
        self.parts.iter_mut().try_for_each(|part| either!(part, values => values.clear(slots)))
    }

    /// The state of all slots, one row for each. The aggregates go on as before.
    pub(in crate::operator) fn state(&mut self) -> Result<Vec<ArrayRef>> {
        let mut columns = vec![];
        for part in &mut self.parts {
            columns.extend(either!(part, values => values.state()?));
        }
        Ok(columns)
    }

    /// Puts a state, which `columns` begin with, into fresh aggregates, and gives the columns after it.
    pub(in crate::operator) fn restore<'a>(&mut self, columns: &'a [ArrayRef]) -> Result<&'a [ArrayRef]> {
        let total = columns.first().map_or(0, |column| column.len());
        self.put(&(0..total).collect::<Vec<_>>(), total, columns)
    }

    /// Puts rows of a state, which `columns` begin with, into slots that are empty, of `total`, and gives the columns after it.
    pub(in crate::operator) fn put<'a>(
        &mut self,
        slots: &[usize],
        total: usize,
        columns: &'a [ArrayRef],
    ) -> Result<&'a [ArrayRef]> {
        let mut rest = columns;
        for part in &mut self.parts {
            let width = either!(part, values => values.state_width()?);
            let wrong = || internal_datafusion_err!("the state of other aggregates");
            let (own, others) = rest.split_at_checked(width).ok_or_else(wrong)?;
            either!(part, values => values.put(slots, total, own)?);
            rest = others;
        }
        Ok(rest)
    }

    /// Bytes held.
    pub(in crate::operator) fn size(&self) -> usize {
        let size = |part: &Part| match &part.values {
            PartValues::Alone(values) => values.size(),
            PartValues::Together(values) => values.size(),
        };
        self.parts.iter().map(size).sum()
    }
}
