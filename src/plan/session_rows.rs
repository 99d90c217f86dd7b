//! The rows of a session table function, each with the bounds of its session.
//!
//! A row's session is known when it has ended. Where no row may be late, or where what follows keeps windowed state and
//! so leaves late rows out, a pipeline holds rows until then. Elsewhere all rows are to come out, late ones with the
//! sessions that they still join, and only the end of the stream tells: then sessions are found as SQL finds them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::Field;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DFSchema, DFSchemaRef, Result};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::operator::{ResultTime, WindowShape};
use crate::sql::EmitMode;

use super::analyze::{Flow, Shape, extension};
use super::event_time::{first_stream, stream_key};
use super::explode::with_session;
use super::nodes::{column_indices, list, only};
use super::result_time::{comes_out_by_time, result_time};
use super::routing::KeyedState;
use super::window::{check_time, time_index};

/// The sessions of rows. Output: the input's columns, start and end of the row's session.
#[derive(Debug, Clone)]
pub(crate) struct SessionRows {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) time: Expr,
    /// A constant, and the same as a shape of windows.
    gap: Expr,
    pub(crate) shape: WindowShape,
    /// What sessions go by.
    pub(crate) keys: Vec<Expr>,
    /// Whether a pipeline holds the rows.
    streams: bool,
    /// Over the results of windows, which bound of theirs the time is.
    pub(crate) results: Option<ResultTime>,
    schema: DFSchemaRef,
}

/// The parameters of [`SessionRows`] besides its input.
pub(super) struct Sessions {
    pub(super) time: Expr,
    pub(super) gap: Expr,
    pub(super) shape: WindowShape,
    pub(super) keys: Vec<Expr>,
}

impl SessionRows {
    /// Sessions whose bounds become columns of these names.
    pub(super) fn try_new(input: LogicalPlan, sessions: Sessions, start: &str, end: &str) -> Result<Self> {
        let Sessions { time, gap, shape, keys } = sessions;
        let data_type = time.get_type(input.schema())?;
        let bounds = [start, end].map(|name| (None, Arc::new(Field::new(name, data_type.clone(), true))));
        let columns = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
        let metadata = input.schema().metadata().clone();
        let schema = Arc::new(DFSchema::new_with_metadata(columns.chain(bounds).collect(), metadata)?);
        let input = Arc::new(input);
        Ok(Self { input, time, gap, shape, keys, streams: false, results: None, schema })
    }

    /// The same over another input of the same columns, after which only the end of the stream tells.
    pub(super) fn over(&self, input: LogicalPlan) -> Result<Self> {
        let Self { time, gap, shape, keys, .. } = self.clone();
        let sessions = Sessions { time, gap, shape, keys };
        let [start, end] = self.bounds();
        Self::try_new(input, sessions, &start, &end)
    }

    /// The names of the columns of bounds.
    fn bounds(&self) -> [String; 2] {
        [0, 1].map(|bound| self.schema.field(self.width() + bound).name().clone())
    }

    /// Number of the input's columns.
    pub(super) fn width(&self) -> usize {
        self.input.schema().fields().len()
    }

    /// Whether a pipeline can hold the rows of `below` until their sessions end.
    pub(super) fn can_stream(&self, below: &Flow) -> bool {
        let follows = match below.shape {
            Shape::Rows => true,
            Shape::Results => comes_out_by_time(&below.plan),
            Shape::Table | Shape::Tail => false,
        };
        follows && check_time(&self.time, &below.plan, "session").is_ok()
    }

    /// The sessions of what flows out of a plan, held by a pipeline.
    pub(super) fn stream(&self, below: Flow) -> Result<Flow> {
        let input = &below.plan;
        let of_results = || result_time(&self.time, input).unwrap_or(ResultTime::Unknown);
        let results = (!below.stages.is_empty()).then(of_results);
        let keys = self.keys.iter().filter_map(|key| stream_key(key, input)).collect();
        let time = below.time.or_else(|| time_index(&self.time, input));
        let stages = below.with_stage(KeyedState::Sessions(EmitMode::Final), keys, true);
        let shape = shape_over(self.shape.clone(), &below);
        let node = Self { streams: true, results, shape, ..self.over(below.plan)? };
        Ok(Flow { plan: extension(node), shape: Shape::Results, stages, time, is_changelog: false })
    }
}

/// Windows of a shape over what flows: sessions of rows that may be late wait for what joins them.
pub(super) fn shape_over(shape: WindowShape, below: &Flow) -> WindowShape {
    match below.stages.is_empty() && !is_never_late(&below.plan) {
        true => shape.of_late_rows(),
        false => shape,
    }
}

/// Whether the stream of a plan calls no row late.
fn is_never_late(plan: &LogicalPlan) -> bool {
    first_stream(plan).is_some_and(|stream| stream.event_time().is_none_or(|time| time.bound.is_none()))
}

/// Finds the sessions of tables, and of streams that have ended, as SQL finds them.
pub(super) fn as_sql(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| match &node {
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<SessionRows>() {
            Some(rows) if !rows.streams => {
                let ([start, end], input) = (rows.bounds(), rows.input.as_ref().clone());
                let (time, gap, keys) = (rows.time.clone(), rows.gap.clone(), rows.keys.clone());
                with_session(input, time, gap, keys, &start, &end).map(Transformed::yes)
            }
            _ => Ok(Transformed::no(node)),
        },
        _ => Ok(Transformed::no(node)),
    })
    .data()
}

// The schema follows from the rest.
impl PartialEq for SessionRows {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input
            && self.time == other.time
            && self.shape == other.shape
            && self.keys == other.keys
            && self.streams == other.streams
            && self.results == other.results
    }
}
impl Eq for SessionRows {}
impl Hash for SessionRows {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, &self.time, &self.shape, &self.keys).hash(state);
        (self.streams, &self.results).hash(state);
    }
}
impl PartialOrd for SessionRows {
    fn partial_cmp(&self, _: &Self) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for SessionRows {
    fn name(&self) -> &str {
        "SessionRows"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }
    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }
    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(&self.keys).cloned().collect()
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SessionRows: window=[{} {}], by=[[{}]]", self.time, self.shape, list(&self.keys))
    }
    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let keys = exprs.split_off(1);
        let input = only(inputs, "SessionRows")?.as_ref().clone();
        let same = Self { time: exprs.remove(0), keys, ..self.clone() };
        Ok(Self { streams: self.streams, results: self.results.clone(), ..same.over(input)? })
    }
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let mut needed = column_indices(self.expressions().iter(), &self.input);
        needed.extend(output_columns.iter().filter(|column| **column < self.width()));
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
