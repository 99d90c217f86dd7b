//! `streamlines.state_ttl`: how long what is kept of a key without a window lives, by which event time.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

use crate::error::Error;

use super::aggregate::event_time_column;
use super::event_time::trace;
use super::refuse;

/// Name of an event time that nobody has selected: none that a column has.
const TIME: &str = "__event_time";

/// How long keys live after their last row.
pub(super) struct Ttl {
    pub(super) ns: i64,
    /// The event time that goes on.
    pub(super) time: Expr,
    /// The stream's column that it is; none over the results of windows.
    pub(super) of_stream: Option<usize>,
}

impl Ttl {
    /// Of the keys of rows that come out of `input`; none without keys, for of one group there is nothing to forget.
    ///
    /// # Errors
    /// Rows without an event time, and an endless stream that does not say how far rows may be behind.
    pub(super) fn of_keys(ns: Option<i64>, keys: &[Expr], input: &LogicalPlan) -> Result<Option<Self>> {
        let Some(ns) = ns.filter(|_| !keys.is_empty()) else { return Ok(None) };
        let time = event_time_column(input).ok_or_else(without_time)?;
        let column = trace(&time, input);
        let is_guess = column.as_ref().is_some_and(|column| column.stream.is_endless() && !column.is_event_time());
        refuse::refuse_if(is_guess, without_time)?;
        Ok(Some(Self { ns, time, of_stream: column.map(|column| column.index) }))
    }
}

/// What a DISTINCT is over, with the event time as one more column where it has none: its keys are all columns that are told.
pub(super) fn with_time(input: &Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
    match input.as_ref() {
        LogicalPlan::Projection(projection) if event_time_column(input).is_none() => {
            let Some(time) = event_time_column(&projection.input) else { return Ok(Arc::clone(input)) };
            let columns = projection.expr.iter().cloned().chain([time.alias(TIME)]).collect();
            Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(columns, Arc::clone(&projection.input))?)))
        }
        _ => Ok(Arc::clone(input)),
    }
}

fn without_time() -> Error {
    Error::refused(
        "state_ttl over rows without an event time",
        "what is kept of a key lives on in event time",
        "WATERMARK FOR ts AS ts - INTERVAL '10' SECOND in CREATE STREAM, and ts among the columns of a sub-query; or \
         RESET streamlines.state_ttl",
    )
}
