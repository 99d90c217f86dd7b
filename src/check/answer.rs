//! A query's rows, and what is to be known of them to compare them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::dataframe::DataFrame;

use crate::plan::{Changelog, Keyed, changelog};
use crate::runtime::Job;
use crate::sink::MemorySink;

use super::changelog::{fold, fold_rows, fold_sessions};
use super::compare::{Difference, compare, compare_by_key};
use super::ledger::Ledger;
use super::rows::with_sorted_lists;

/// The rows that a query has given.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Their columns.
    pub schema: SchemaRef,
    /// Those of a key in order, if they are changes.
    pub batches: Vec<RecordBatch>,
    /// Rows that the query left out because they came after their window had closed.
    pub late_rows: u64,
    /// Those rows, if they were kept.
    pub ledger: Option<Ledger>,
    changelog: Changelog,
}

impl Answer {
    /// Runs a query as it is planned in its session.
    ///
    /// # Errors
    /// What is wrong with the query or its data, or why it cannot run as a stream.
    pub async fn of(query: DataFrame) -> Result<Self> {
        let (state, plan) = query.clone().into_parts();
        let changelog = changelog(&state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?);
        let job = Job::new(query).await?;
        let sink = MemorySink::default();
        let summary = job.run(&sink).await?;
        Ok(Self {
            schema: job.schema(),
            batches: sink.take().concat(),
            late_rows: summary.progress.late_rows,
            ledger: job.take_late_rows().map(|(schema, scans)| Ledger::new(schema, scans)),
            changelog,
        })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// What differs in another answer to the same question: as multisets, and where rows are changes, in their order
    /// for each key.
    ///
    /// # Errors
    /// An answer of other columns.
    pub fn difference(&self, other: &Self) -> Result<Option<Difference>> {
        match self.difference_of_rows(other)? {
            None => self.difference_of_late_rows(other),
            difference => Ok(difference),
        }
    }

    /// Late rows are the same ones however a query runs.
    fn difference_of_late_rows(&self, other: &Self) -> Result<Option<Difference>> {
        match (&self.ledger, &other.ledger) {
            (Some(own), Some(others)) => own.difference(others),
            _ => Ok(None),
        }
    }

    fn difference_of_rows(&self, other: &Self) -> Result<Option<Difference>> {
        match &self.changelog {
            Changelog::Keyed(Keyed { is_by_batch: true, .. }) | Changelog::Rows { is_by_batch: true, .. } => {
                let (folded, other) = (self.folded()?, other.folded()?);
                compare(&folded.batches, &other.batches, &folded.schema)
            }
            Changelog::Keyed(Keyed { keys, session, .. }) => {
                let keys: Vec<usize> = keys.iter().copied().chain(session.iter().flatten().copied()).collect();
                compare_by_key(&self.batches, &other.batches, &self.schema, &keys)
            }
            Changelog::None | Changelog::Rows { .. } | Changelog::Unkeyed { .. } => {
                compare(&self.batches, &other.batches, &self.schema)
            }
        }
    }

    /// The same with the values of each list in their own order.
    ///
    /// # Errors
    /// None that is known of.
    pub fn with_sorted_lists(&self) -> Result<Self> {
        let batches = self.batches.iter().map(with_sorted_lists).collect::<Result<_>>()?;
        Ok(Self { batches, ..self.clone() })
    }

    /// Whether rows take the place of others.
    pub fn is_changelog(&self) -> bool {
        self.changelog != Changelog::None
    }

    /// What differs between the final answer of plain DataFusion and this one, or what its changes amount to.
    ///
    /// # Errors
    /// As [`Answer::difference`] and [`Answer::folded`].
    pub fn difference_from_batch(&self, batch: &Self) -> Result<Option<Difference>> {
        let folded = self.folded()?;
        // Where no row has come there is no change, but without keys there is an answer.
        match &self.changelog {
            Changelog::Keyed(Keyed { keys, .. }) if keys.is_empty() && folded.rows() == 0 => Ok(None),
            _ => batch.difference(&folded),
        }
    }

    /// Why changes cannot be folded, if rows are changes and their keys are not among the columns.
    pub fn why_not_folded(&self) -> Option<&str> {
        match &self.changelog {
            Changelog::Unkeyed { why, .. } => Some(why),
            Changelog::None | Changelog::Keyed(_) | Changelog::Rows { .. } => None,
        }
    }

    /// Why the changes of two runs cannot be compared, if their batches decide which there are and they cannot be folded.
    pub fn why_not_compared(&self) -> Option<&str> {
        match &self.changelog {
            Changelog::Unkeyed { why, is_by_batch: true } => Some(why),
            _ => None,
        }
    }

    /// The final answer that changes amount to; rows that are none are final.
    ///
    /// # Errors
    /// Changes that contradict each other.
    pub fn folded(&self) -> Result<Self> {
        let rows = match &self.changelog {
            Changelog::Keyed(Keyed { keys, session: Some(session), .. }) => {
                fold_sessions(&self.batches, &self.schema, keys, *session)?
            }
            Changelog::Keyed(Keyed { keys, op, .. }) => fold(&self.batches, &self.schema, keys, *op)?,
            Changelog::Rows { op, .. } => fold_rows(&self.batches, &self.schema, *op)?,
            Changelog::None | Changelog::Unkeyed { .. } => return Ok(self.clone()),
        };
        let schema = rows.schema();
        Ok(Self { schema, batches: vec![rows], late_rows: self.late_rows, ledger: None, changelog: Changelog::None })
    }
}
