//! The plan node of a stateful operator.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, SendableRecordBatchStream,
};

use crate::operator::{
    AggregateSpec, ChangelogAggregate, ChangelogTopN, ChangesSpec, CompleteWindows, Mode, Operator, ResultTime,
    RowsWindow, RowsWindowSpec, SessionAggregate, SessionRows, SessionRowsSpec, TopNSpec, WindowAggregate, WindowTopN,
};

use super::operator_stream::OperatorStream;
use super::source_rows::SourceRows;
use super::state_bound::StateBound;
use super::state_size::StateSize;
use super::{no_expressions, streaming_node, streaming_properties};

/// Which operator a node hosts, and its parameters.
#[derive(Debug, Clone)]
pub(crate) enum OperatorSpec {
    /// GROUP BY … EMIT FINAL: windows come out when they close.
    WindowAggregate(Arc<AggregateSpec>),
    /// The same where a window's rows are spread over pipelines: partial states meet in the merger.
    MergedWindowAggregate(Arc<AggregateSpec>),
    /// GROUP BY … EMIT CHANGES.
    ChangelogAggregate(Arc<AggregateSpec>, ChangesSpec),
    /// GROUP BY sessions; none for changes gives final values.
    SessionAggregate(Arc<AggregateSpec>, Option<ChangesSpec>),
    /// Rows with their sessions, which come out when these end.
    SessionRows(Arc<SessionRowsSpec>),
    /// OVER (… ORDER BY event time …).
    RowsWindow(Arc<RowsWindowSpec>),
    /// The best rows of each window: they come out when it closes.
    WindowTopN(Arc<TopNSpec>),
    /// The same where a window's rows are spread over pipelines.
    MergedWindowTopN(Arc<TopNSpec>),
    /// The best rows of each key with EMIT CHANGES, by rank if that is told.
    ChangelogTopN(Arc<TopNSpec>, ChangesSpec, bool),
}

impl OperatorSpec {
    /// The schema of the rows that leave the node.
    pub(super) fn schema(&self) -> SchemaRef {
        match self {
            Self::WindowAggregate(spec) | Self::MergedWindowAggregate(spec) => Arc::clone(&spec.schema),
            Self::ChangelogAggregate(spec, changes) | Self::SessionAggregate(spec, Some(changes)) => {
                changes.schema(&spec.schema)
            }
            Self::SessionAggregate(spec, None) => Arc::clone(&spec.schema),
            Self::SessionRows(spec) => Arc::clone(&spec.schema),
            Self::RowsWindow(spec) => Arc::clone(&spec.schema),
            Self::WindowTopN(spec) | Self::MergedWindowTopN(spec) => Arc::clone(&spec.schema),
            Self::ChangelogTopN(spec, changes, _) => changes.schema(&spec.schema),
        }
    }

    /// The operator whose windows are merged, if this one's are to be; it has none of its own if they are already.
    pub(crate) fn merging(&self) -> Option<Self> {
        match self {
            Self::WindowAggregate(spec) => Some(Self::MergedWindowAggregate(Arc::clone(spec))),
            Self::WindowTopN(spec) => Some(Self::MergedWindowTopN(Arc::clone(spec))),
            _ => None,
        }
    }

    /// The GROUP BY whose partial states a merger brings together.
    pub(crate) fn merged(&self) -> Option<&Arc<AggregateSpec>> {
        match self {
            Self::MergedWindowAggregate(spec) => Some(spec),
            Self::MergedWindowTopN(spec) => Some(&spec.groups),
            _ => None,
        }
    }

    /// The rows of the next windows whose partial states are all there, or of a part of one; none if there are no more.
    pub(super) fn merge_next(&self, windows: &mut CompleteWindows) -> Result<Option<Vec<RecordBatch>>> {
        match self {
            Self::MergedWindowTopN(spec) => {
                let lists = windows.merge_next(&spec.groups)?;
                lists.map(|lists| lists.iter().map(|lists| spec.rows(lists)).collect()).transpose()
            }
            Self::MergedWindowAggregate(spec) => windows.merge_next(spec),
            _ => Err(internal_datafusion_err!("{} merges no windows", self.name())),
        }
    }

    /// The parameters of a GROUP BY.
    pub(crate) fn aggregate(&self) -> Option<&AggregateSpec> {
        match self {
            Self::WindowAggregate(spec)
            | Self::MergedWindowAggregate(spec)
            | Self::ChangelogAggregate(spec, _)
            | Self::SessionAggregate(spec, ..) => Some(spec),
            Self::SessionRows(_)
            | Self::RowsWindow(_)
            | Self::WindowTopN(_)
            | Self::MergedWindowTopN(_)
            | Self::ChangelogTopN(..) => None,
        }
    }

    /// What is null where the event time is, if it goes by one.
    pub(super) fn time(&self) -> Option<Arc<dyn PhysicalExpr>> {
        let groups = match self {
            Self::RowsWindow(spec) => return Some(Arc::new(Column::new("event time", spec.time))),
            Self::SessionRows(spec) => spec.groups(),
            _ => self.groups()?,
        };
        let forgets = groups.ttl.as_ref().map(|ttl| &ttl.time);
        groups.window.as_ref().map(|window| &window.start).or(forgets).cloned()
    }

    /// Whether it forgets keys by the event times of their rows: a row without one is late then, even where the stream ends.
    pub(super) fn forgets(&self) -> bool {
        match self {
            Self::RowsWindow(spec) => spec.ttl.is_some(),
            _ => self.groups().is_some_and(|groups| groups.ttl.is_some()),
        }
    }

    /// The keys of a GROUP BY or a Top-N.
    fn groups(&self) -> Option<&AggregateSpec> {
        match self {
            Self::WindowTopN(spec) | Self::MergedWindowTopN(spec) | Self::ChangelogTopN(spec, ..) => Some(&spec.groups),
            _ => self.aggregate(),
        }
    }

    pub(super) fn build(&self) -> Result<Box<dyn Operator>> {
        Ok(match self {
            Self::WindowAggregate(spec) => Box::new(WindowAggregate::new(Arc::clone(spec), Mode::Final)),
            Self::MergedWindowAggregate(spec) => Box::new(WindowAggregate::new(Arc::clone(spec), Mode::Partial)),
            Self::ChangelogAggregate(spec, changes) => {
                Box::new(ChangelogAggregate::new(Arc::clone(spec), changes.clone()))
            }
            Self::SessionAggregate(spec, changes) => {
                Box::new(SessionAggregate::try_new(Arc::clone(spec), changes.clone())?)
            }
            Self::SessionRows(spec) => Box::new(SessionRows::new(Arc::clone(spec))),
            Self::RowsWindow(spec) => Box::new(RowsWindow::try_new(Arc::clone(spec))?),
            Self::WindowTopN(spec) => Box::new(WindowTopN::new(Arc::clone(spec))),
            Self::MergedWindowTopN(spec) => Box::new(WindowAggregate::new(Arc::clone(&spec.groups), Mode::Partial)),
            Self::ChangelogTopN(spec, changes, by_rank) => {
                Box::new(ChangelogTopN::new(Arc::clone(spec), changes.clone(), *by_rank))
            }
        })
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::WindowAggregate(_) | Self::MergedWindowAggregate(_) => "WindowAggregate",
            Self::ChangelogAggregate(..) => "ChangelogAggregate",
            Self::SessionAggregate(..) => "SessionAggregate",
            Self::SessionRows(_) => "SessionRows",
            Self::RowsWindow(_) => "RowsWindow",
            Self::WindowTopN(_) | Self::MergedWindowTopN(_) => "WindowTopN",
            Self::ChangelogTopN(..) => "ChangelogTopN",
        }
    }
}

/// Hosts a stateful operator.
#[derive(Debug)]
pub(crate) struct OperatorExec {
    spec: OperatorSpec,
    input: Arc<dyn ExecutionPlan>,
    /// Which bound of earlier windows the event time is; none where the source says how far it has come.
    results: Option<ResultTime>,
    /// How many operators are before this one.
    stage: usize,
    /// Of a pipeline's first operator, how rows of its input stand for rows of the source, which it accounts for.
    rows: Option<SourceRows>,
    properties: Arc<PlanProperties>,
}

impl OperatorExec {
    /// Over rows of a source, or over results of windows whose bound `results` is the event time.
    pub(crate) fn new(spec: OperatorSpec, input: Arc<dyn ExecutionPlan>, results: Option<ResultTime>) -> Self {
        let properties = streaming_properties(spec.schema(), input.output_partitioning().partition_count());
        let stage = operator_below(&input).map_or(0, |operator| operator.stage + 1);
        Self { spec, input, results, stage, rows: None, properties }
    }

    /// The same over `input`, accounting for the rows of the source. Their numbers, if there are any, are for nobody else.
    pub(crate) fn accounting(&self, rows: SourceRows, input: Arc<dyn ExecutionPlan>) -> Self {
        Self { rows: Some(rows), ..self.over(input) }
    }

    fn over(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        Self { rows: self.rows, ..Self::new(self.spec.clone(), input, self.results.clone()) }
    }

    /// How many operators are before this one.
    pub(crate) fn stage(&self) -> usize {
        self.stage
    }

    pub(crate) fn rows(&self) -> Option<SourceRows> {
        self.rows
    }

    /// Which bounds of earlier windows the event times of this operator and of those before it are, the first one's
    /// first.
    pub(crate) fn bounds(&self) -> Vec<ResultTime> {
        let below = operator_below(&self.input).map(Self::bounds).unwrap_or_default();
        below.into_iter().chain(self.results.clone()).collect()
    }

    /// The operators of a plan, the one nearest to the source first.
    pub(crate) fn all(plan: &Arc<dyn ExecutionPlan>) -> Vec<&Self> {
        let mut all: Vec<_> =
            std::iter::successors(operator_below(plan), |operator| operator_below(&operator.input)).collect();
        all.reverse();
        all
    }

    pub(crate) fn spec(&self) -> &OperatorSpec {
        &self.spec
    }

    pub(crate) fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    /// The same node with another operator of the same schema.
    pub(crate) fn with_spec(&self, spec: OperatorSpec) -> Self {
        Self { rows: self.rows, ..Self::new(spec, Arc::clone(&self.input), self.results.clone()) }
    }
}

/// The first operator on the stream's way down a plan.
fn operator_below(plan: &Arc<dyn ExecutionPlan>) -> Option<&OperatorExec> {
    plan.downcast_ref().or_else(|| plan.children().into_iter().find_map(operator_below))
}

impl DisplayAs for OperatorExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}Exec: ", self.spec.name())?;
        match &self.spec {
            OperatorSpec::WindowAggregate(spec) => write!(f, "{spec}"),
            OperatorSpec::SessionAggregate(spec, None) => write!(f, "{spec}"),
            OperatorSpec::ChangelogAggregate(spec, changes) | OperatorSpec::SessionAggregate(spec, Some(changes)) => {
                write!(f, "{spec}, changes={changes}")
            }
            OperatorSpec::MergedWindowAggregate(spec) => write!(f, "{spec}, merged on close"),
            OperatorSpec::SessionRows(spec) => write!(f, "{spec}"),
            OperatorSpec::RowsWindow(spec) => write!(f, "{spec}"),
            OperatorSpec::WindowTopN(spec) => write!(f, "{spec}"),
            OperatorSpec::MergedWindowTopN(spec) => write!(f, "{spec}, merged on close"),
            OperatorSpec::ChangelogTopN(spec, changes, by_rank) => {
                write!(f, "{spec}, changes={changes}{}", if *by_rank { " by rank" } else { "" })
            }
        }?;
        match &self.results {
            Some(results) => write!(f, ", over windows by their {results}"),
            None => Ok(()),
        }?;
        write!(f, ", state={}{}", StateBound::of(&self.spec), StateSize::of(&self.spec, &self.input))
    }
}

impl ExecutionPlan for OperatorExec {
    streaming_node!(|node, mut children| Ok(node.over(children.remove(0))));

    fn name(&self) -> &str {
        "OperatorExec"
    }
    no_expressions!();
    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Ok(Box::pin(OperatorStream::open(self, partition, task)?))
    }
}
