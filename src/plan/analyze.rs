//! The analyzer rule that turns DataFusion's logical plan over streams into a streaming plan.
//!
//! It walks from the root down with the EMIT clause and back up with what flows: rows of a stream, results of the
//! one stateful operator of a pipeline, or, above the boundary, a tail that can only answer when the stream ends
//! and that DataFusion runs unchanged.
//!
//! ```text
//!   Sort                      tail
//!     Pipelines               where the pipelines meet
//!       Projection            results
//!         WindowAggregate
//!           Filter            rows
//!             TableScan
//! ```

use std::path::Path;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, internal_datafusion_err};
use datafusion::logical_expr::dml::CopyTo;
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, Extension, Join, JoinType, LogicalPlan, LogicalPlanBuilder, SubqueryAlias,
    Union, UserDefinedLogicalNodeCore,
};
use datafusion::optimizer::AnalyzerRule;

use crate::config::StreamlinesOptions;
use crate::error::{Error, Location};
use crate::sink::{OutputFormat, compresses};
use crate::source::{ReadOrder, Speed};
use crate::sql::{Changes, EmitMode, When};

use super::aggregate::Grouping;
use super::event_time::{first_stream, reads_stream};
use super::explode::{calls_overlapping, expand_or_explode, explode, explode_aggregate, explode_projection};
use super::nodes::{Emit, Pipelines, Repeats, WriteFiles};
use super::over::Stack;
use super::overlapping::calls_session;
use super::pull_up::{with_hops_pulled_up, with_window_filter_above};
use super::result_time::comes_out_by_time;
use super::routing::{KeyedState, Routings, Stage};
use super::session_rows::SessionRows;
use super::top_n_node::Ranked;
use super::{aggregate, changes, grouping_sets, over, ranked, refuse, refuse_endless, refuse_joins, ties, top_n, ttl};

/// What flows out of a plan node.
pub(super) enum Shape {
    /// No stream is read below.
    Table,
    /// Rows of a stream, one by one.
    Rows,
    /// Output of the pipeline's stateful operator.
    Results,
    /// Already past the boundary.
    Tail,
}

/// A rewritten plan and what flows out of it.
pub(super) struct Flow {
    pub(super) plan: LogicalPlan,
    pub(super) shape: Shape,
    /// What the pipeline's operators keep by key, the first one's first.
    pub(super) stages: Vec<Stage>,
    /// The stream's column whose progress the state follows.
    pub(super) time: Option<usize>,
    /// Whether rows are changes of earlier ones.
    pub(super) is_changelog: bool,
}

impl Flow {
    pub(super) fn stateless(plan: LogicalPlan, shape: Shape) -> Self {
        Self { plan, shape, stages: vec![], time: None, is_changelog: false }
    }

    /// The stages, with one more after them.
    pub(super) fn with_stage(&self, state: KeyedState, keys: Vec<String>, is_free_of_order: bool) -> Vec<Stage> {
        self.stages.iter().cloned().chain([Stage { state, keys, is_free_of_order }]).collect()
    }
}

/// Makes plans over streams stream.
#[derive(Debug, Default)]
pub(crate) struct StreamAnalyzer;

impl AnalyzerRule for StreamAnalyzer {
    fn name(&self) -> &str {
        "streamlines"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let options = config.extensions.get::<StreamlinesOptions>().cloned().unwrap_or_default();
        options.check()?;
        if options.strategy == "batch" || !reads_stream(&plan) {
            return explode(without_emit(plan, &options)?);
        }
        let mut emit_at = None;
        plan.apply(|node| {
            emit_at = emit_at.or(emit_of(node).map(|emit| emit.at));
            Ok(TreeNodeRecursion::Continue)
        })?;
        let plan = Rewriter { options, emit_at }.root(plan)?;
        refuse_endless::answers_at_end(&plan)?;
        explode(plan)
    }
}

/// Over tables, which end, EMIT FINAL says nothing and EMIT CHANGES has no rows to follow.
fn without_emit(plan: LogicalPlan, options: &StreamlinesOptions) -> Result<LogicalPlan> {
    let stripped = plan.transform_down(|node| match emit_of(&node) {
        Some(Emit { mode, at, .. }) if mode.is_changes() => {
            Err(refuse::changes_without_stream(*mode, options, *at).into())
        }
        Some(Emit { input, .. }) => Ok(Transformed::yes(input.as_ref().clone())),
        None => Ok(Transformed::no(node)),
    })?;
    Ok(stripped.data)
}

fn emit_of(plan: &LogicalPlan) -> Option<&Emit> {
    match plan {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
        _ => None,
    }
}

pub(super) fn extension(node: impl UserDefinedLogicalNodeCore) -> LogicalPlan {
    LogicalPlan::Extension(Extension { node: Arc::new(node) })
}

struct Rewriter {
    options: StreamlinesOptions,
    /// Where the EMIT clause stands.
    emit_at: Option<Location>,
}

impl Rewriter {
    /// Rewrites a whole query: what flows out of it meets at the end.
    fn root(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let flow = self.rewrite(plan, EmitMode::Final)?;
        self.close(flow)
    }

    /// Ends the pipelines here: what is above is a tail.
    fn close(&self, flow: Flow) -> Result<LogicalPlan> {
        if matches!(flow.shape, Shape::Table | Shape::Tail) {
            return Ok(flow.plan);
        }
        let stream = first_stream(&flow.plan).ok_or_else(|| internal_datafusion_err!("a stream without a scan"))?;
        let by_time = Speed::parse(&self.options.speed)?.goes_by_event_time();
        let time = flow.time.or(stream.event_time().map(|time| time.index));
        let routing = match by_time {
            true => Routings::by_event_time(&stream, &flow.stages, time.is_some(), &self.options)?,
            false => Routings::pick(&stream, &flow.stages, &self.options)?,
        };
        refuse_endless::windows_without_bound(&stream, flow.time, self.emit_at)?;
        refuse::spread_lateness(&flow.stages, &routing, &stream, self.emit_at)?;
        // Where rows of several partitions meet, it is in the order of their event time, whether windows want it or not.
        let is_ordered =
            routing.first().reads_several() && routing.order != ReadOrder::Sequence && stream.partitions() > 1;
        let time = flow.time.or(time.filter(|_| is_ordered || by_time));
        Ok(extension(Pipelines { input: Arc::new(flow.plan), routing, time }))
    }

    fn rewrite(&self, plan: LogicalPlan, emit: EmitMode) -> Result<Flow> {
        if !reads_stream(&plan) {
            return Ok(Flow::stateless(plan, Shape::Table));
        }
        if let Some(Emit { input, mode, at, .. }) = emit_of(&plan) {
            let flow = self.rewrite(input.as_ref().clone(), *mode)?;
            let waits = matches!(mode, EmitMode::Changes(Changes { when: When::AtClose { .. }, .. }));
            if waits && !flow.is_changelog {
                return Err(refuse::lateness_without_window().at(Some(*at)).into());
            }
            let flow = top_n::told_by(flow, *mode).map_err(|error| Error::locate(error, Some(*at)))?;
            return changes::with_op_in_front(flow, *mode);
        }
        refuse_joins::streams_in_subqueries(&plan)?;
        match plan {
            LogicalPlan::TableScan(_) => Ok(Flow::stateless(plan, Shape::Rows)),
            LogicalPlan::Filter(filter) => match ranked::ranked(&filter)? {
                Some(first_rows) => self.rewrite(first_rows, emit),
                None => self.pass(LogicalPlan::Filter(filter), emit),
            },
            LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Unnest(_) => {
                self.pass(plan, emit)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate, emit, Repeats::All),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
                let input = match self.options.ttl_ns()? {
                    Some(_) if emit.is_changes() => ttl::with_time(&input)?,
                    _ => input,
                };
                self.aggregate(Aggregate::try_new(input, columns, vec![])?, changes::for_distinct(emit), Repeats::None)
            }
            LogicalPlan::Window(_) => self.over(plan, emit),
            LogicalPlan::Join(join) => self.join(join, emit),
            LogicalPlan::Copy(copy) => self.copy(copy, emit),
            LogicalPlan::Sort(_) => {
                refuse::sorted_changes(emit, self.emit_at)?;
                self.tail(plan, emit)
            }
            LogicalPlan::Distinct(Distinct::On(_)) => {
                refuse::distinct_changes(emit, self.emit_at)?;
                let LogicalPlan::Distinct(Distinct::On(on)) = ties::in_order(plan)? else {
                    return Err(internal_datafusion_err!("DISTINCT ON stays what it is"));
                };
                let flow = self.rewrite(on.input.as_ref().clone(), emit)?;
                let input = Arc::new(self.close(flow)?);
                let on = DistinctOn::try_new(on.on_expr, on.select_expr, on.sort_expr, input)?;
                Ok(Flow::stateless(LogicalPlan::Distinct(Distinct::On(on)), Shape::Tail))
            }
            LogicalPlan::Extension(node) if node.node.as_any().is::<Ranked>() => {
                let ranked = node.node.as_any().downcast_ref::<Ranked>();
                self.top_n(ranked.ok_or_else(|| internal_datafusion_err!("a rank is a rank"))?, emit)
            }
            LogicalPlan::Extension(node) if node.node.as_any().is::<SessionRows>() => {
                let rows = node.node.as_any().downcast_ref::<SessionRows>();
                self.session_rows(rows.ok_or_else(|| internal_datafusion_err!("sessions are sessions"))?)
            }
            // CREATE TABLE … AS is planned as a whole, and its query once more when it is carried out.
            LogicalPlan::Extension(node) if node.node.as_any().is::<Pipelines>() => {
                Ok(Flow::stateless(LogicalPlan::Extension(node), Shape::Tail))
            }
            LogicalPlan::Limit(ref limit) if ties::sort_below(&limit.input).is_some() => match ties::in_order(plan)? {
                LogicalPlan::Projection(projection) => self.pass(LogicalPlan::Projection(projection), emit),
                first_rows => self.tail(first_rows, emit),
            },
            LogicalPlan::Union(union) => self.union(union, emit),
            LogicalPlan::Limit(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_) => self.tail(plan, emit),
            LogicalPlan::RecursiveQuery(query) => Err(refuse_joins::recursion(&query).into()),
            other => Err(refuse::node(&other).into()),
        }
    }

    /// A node that handles each row by itself.
    fn pass(&self, plan: LogicalPlan, emit: EmitMode) -> Result<Flow> {
        let input = only_input(&plan)?;
        if let LogicalPlan::Filter(filter) = &plan {
            refuse_joins::not_in_with_nulls(filter)?;
        }
        if let LogicalPlan::Projection(projection) = &plan
            && projection.expr.iter().any(calls_session)
        {
            return self.rewrite(explode_projection(projection.clone())?, emit);
        }
        let is_filter = matches!(plan, LogicalPlan::Filter(_));
        let flow = self.rewrite(input, if is_filter { changes::for_filter(emit) } else { emit })?;
        let plan = match plan {
            LogicalPlan::Filter(filter) if flow.is_changelog => {
                return changes::filter(filter, flow, emit).map_err(|error| Error::locate(error, self.emit_at));
            }
            LogicalPlan::Projection(projection) if flow.is_changelog => changes::project(projection, &flow)?,
            LogicalPlan::SubqueryAlias(alias) => {
                LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(flow.plan.clone()), alias.alias)?)
            }
            plan => plan.with_new_exprs(plan.expressions(), vec![flow.plan.clone()])?,
        };
        Ok(Flow { plan, ..flow })
    }

    /// A node that DataFusion runs above the pipelines.
    fn tail(&self, plan: LogicalPlan, emit: EmitMode) -> Result<Flow> {
        let (mut inputs, mut is_changelog) = (vec![], false);
        for input in plan.inputs() {
            let flow = self.rewrite(input.clone(), emit)?;
            is_changelog |= flow.is_changelog;
            inputs.push(self.close(flow)?);
        }
        let plan = plan.with_new_exprs(plan.expressions(), inputs)?;
        Ok(Flow { is_changelog, ..Flow::stateless(plan, Shape::Tail) })
    }

    /// Rows side by side: where those of one input say what they do to earlier ones, all of them do.
    fn union(&self, union: Union, emit: EmitMode) -> Result<Flow> {
        let rewritten = union.inputs.iter().map(|input| {
            let flow = self.rewrite(input.as_ref().clone(), emit)?;
            top_n::told_by(flow, emit).map_err(|error| Error::locate(error, self.emit_at))
        });
        let flows = rewritten.collect::<Result<Vec<_>>>()?;
        let is_changelog = flows.iter().any(|flow| flow.is_changelog);
        let has_op = is_changelog && emit.has_ops();
        let closed = flows.into_iter().map(|flow| self.close(if has_op { changes::with_op(flow)? } else { flow }));
        let inputs = closed.collect::<Result<Vec<_>>>()?;
        let plan = match has_op {
            true => LogicalPlan::Union(Union::try_new_with_loose_types(inputs.into_iter().map(Arc::new).collect())?),
            false => LogicalPlan::Union(union).with_new_exprs(vec![], inputs)?,
        };
        Ok(Flow { is_changelog, ..Flow::stateless(plan, Shape::Tail) })
    }

    /// COPY: the pipelines write files themselves, unless DataFusion is to compress text as only it can.
    fn copy(&self, copy: CopyTo, emit: EmitMode) -> Result<Flow> {
        let format = copy.file_type.get_ext().trim_start_matches('.').parse::<OutputFormat>();
        let compression = copy.options.iter().find(|(key, _)| key.trim_start_matches("format.") == "compression");
        let foreign = compression.and_then(|(_, name)| name.parse().ok()).is_some_and(|name| !compresses(name));
        let by_pipelines = !foreign || matches!(format, Ok(OutputFormat::Parquet));
        let (Ok(format), true) = (format, by_pipelines) else {
            return self.tail(LogicalPlan::Copy(copy), emit);
        };
        // DataFusion calls one object a line JSON.
        let format = if format == OutputFormat::Json { OutputFormat::Ndjson } else { format };
        let input = self.rewrite(copy.input.as_ref().clone(), emit).and_then(|flow| self.close(flow))?;
        let mut options: Vec<_> = copy.options.into_iter().collect();
        options.sort();
        let schema = copy.output_schema;
        // As DataFusion has it, a path without an extension is a folder.
        let is_file = Path::new(&copy.output_url).extension().is_some() && copy.partition_by.is_empty();
        let is_folder = !is_file && !copy.output_url.ends_with('/');
        let path = if is_folder { format!("{}/", copy.output_url) } else { copy.output_url };
        let (input, partition_by) = (Arc::new(input), copy.partition_by);
        let node = WriteFiles { input, path, format, options, partition_by, schema };
        Ok(Flow::stateless(extension(node), Shape::Tail))
    }

    fn aggregate(&self, aggregate: Aggregate, emit: EmitMode, repeats: Repeats) -> Result<Flow> {
        if let Some(filtered) = with_window_filter_above(&aggregate)? {
            return self.rewrite(filtered, emit);
        }
        if grouping_sets::has_sets(&aggregate) {
            return self.sets(aggregate, emit);
        }
        if aggregate::is_to_explode(&aggregate)? {
            return self.rewrite(explode_aggregate(aggregate)?, emit);
        }
        let (input, grouping) = Grouping::of(&aggregate)?;
        let flow = self.rewrite(input, EmitMode::Final)?;
        let (is_whole, ttl_ns) = (!grouping.is_pulled_up, self.options.ttl_ns()?);
        match flow.shape {
            Shape::Rows if grouping.nests_windows(&flow.plan) => self.rewrite(explode_aggregate(aggregate)?, emit),
            Shape::Rows => aggregate::stream(flow, grouping, &aggregate, emit, repeats, ttl_ns)
                .map_err(|error| Error::locate(error, self.emit_at)),
            Shape::Results if aggregate::follows(&flow, &grouping, emit) => {
                aggregate::stream(flow, grouping, &aggregate, emit, repeats, ttl_ns)
                    .map_err(|error| Error::locate(error, self.emit_at))
            }
            Shape::Results | Shape::Table | Shape::Tail => {
                let flow = match is_whole {
                    true => flow,
                    false => self.rewrite(aggregate.input.as_ref().clone(), EmitMode::Final)?,
                };
                refuse::changes_of_results(&aggregate, emit, self.emit_at)?;
                self.aggregate_at_end(aggregate, flow)
            }
        }
    }

    /// A GROUP BY that DataFusion answers when the pipelines have ended.
    fn aggregate_at_end(&self, aggregate: Aggregate, input: Flow) -> Result<Flow> {
        let input = self.close(input)?;
        let plan = LogicalPlan::Aggregate(aggregate);
        Ok(Flow::stateless(plan.with_new_exprs(plan.expressions(), vec![input])?, Shape::Tail))
    }

    /// A GROUP BY of several sets of keys: where its rows stream, one of a single set; else DataFusion's own.
    fn sets(&self, aggregate: Aggregate, emit: EmitMode) -> Result<Flow> {
        if let Some(pulled_up) = with_hops_pulled_up(&aggregate)? {
            return self.rewrite(pulled_up, emit);
        }
        if aggregate.group_expr.iter().any(calls_overlapping) {
            return self.rewrite(expand_or_explode(aggregate)?, emit);
        }
        let input = self.rewrite(aggregate.input.as_ref().clone(), EmitMode::Final)?;
        if !matches!(input.shape, Shape::Tail) {
            let flow = self.rewrite(grouping_sets::expand(aggregate.clone())?, emit)?;
            if matches!(flow.shape, Shape::Results) {
                return Ok(Flow { plan: grouping_sets::with_totals(flow.plan, &aggregate)?, ..flow });
            }
        }
        refuse::changes_of_results(&aggregate, emit, self.emit_at)?;
        self.aggregate_at_end(aggregate, input)
    }

    /// OVER columns: a pipeline keeps all those that follow the event time, the others are a tail.
    fn over(&self, plan: LogicalPlan, emit: EmitMode) -> Result<Flow> {
        let stack = Stack::under(&plan)?;
        let flow = self.rewrite_below(&stack.below, emit)?;
        if flow.is_changelog {
            return Err(refuse::over_changes(emit).at(self.emit_at).into());
        }
        let streams = match flow.shape {
            Shape::Rows => true,
            Shape::Results => comes_out_by_time(&flow.plan),
            Shape::Table | Shape::Tail => false,
        };
        match stack.divide(&flow.plan) {
            (Some((time, columns)), others) if streams && others.is_empty() => {
                over::stream(flow, time, columns, self.options.ttl_ns()?)
            }
            (streaming, others) if streams => self.over_at_end(others, streaming, plan.schema().columns(), emit),
            _ => self.over_at_end(stack, None, plan.schema().columns(), emit),
        }
    }

    /// OVER columns that DataFusion computes, where rows tie in the order of the stream, above those that stream.
    fn over_at_end(
        &self,
        stack: Stack,
        streaming: Option<(Expr, Vec<Expr>)>,
        columns: Vec<Column>,
        emit: EmitMode,
    ) -> Result<Flow> {
        let windows = match ties::in_order(stack.plan()?)? {
            LogicalPlan::Projection(projection) => Arc::unwrap_or_clone(projection.input),
            windows => windows,
        };
        let stack = Stack::under(&windows)?;
        let flow = self.rewrite_below(&stack.below, emit)?;
        over::at_end(&stack, &flow.plan)?;
        let flow = match streaming {
            Some((time, functions)) => over::stream(flow, time, functions, self.options.ttl_ns()?)?,
            None => flow,
        };
        let plan = Stack { below: self.close(flow)?, ..stack }.plan()?;
        let plan = LogicalPlanBuilder::from(plan).project(columns.into_iter().map(Expr::Column))?.build()?;
        Ok(Flow::stateless(plan, Shape::Tail))
    }

    /// What OVER columns and ranks are over: results of windows are final, and do not change when they have come out.
    fn rewrite_below(&self, plan: &LogicalPlan, emit: EmitMode) -> Result<Flow> {
        let flow = self.rewrite(plan.clone(), EmitMode::Final)?;
        match emit.is_changes() && !comes_out_by_time(&flow.plan) {
            true => self.rewrite(plan.clone(), emit),
            false => Ok(flow),
        }
    }

    /// The first rows of a row number, where they can be kept without the others; else like any OVER column.
    fn top_n(&self, ranked: &Ranked, emit: EmitMode) -> Result<Flow> {
        let (input, query) = top_n::Query::of(ranked)?;
        let (flow, ttl_ns) = (self.rewrite_below(&input, emit)?, self.options.ttl_ns()?);
        let found = match flow.shape {
            Shape::Rows => query.over_rows(&flow, emit, ttl_ns).map_err(|error| Error::locate(error, self.emit_at))?,
            Shape::Results => match query.over_results(&flow)? {
                None if comes_out_by_time(&flow.plan) => query.over_rows(&flow, emit, ttl_ns)?,
                found => found,
            },
            Shape::Table | Shape::Tail => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let flow = self.over(ranked.window.as_ref().clone(), emit)?;
        Ok(Flow { plan: ranked.filter(flow.plan.clone())?, ..flow })
    }

    /// The rows of sessions: of those that have ended, or all of them when the stream has.
    fn session_rows(&self, rows: &SessionRows) -> Result<Flow> {
        let flow = self.rewrite(rows.input.as_ref().clone(), EmitMode::Final)?;
        match rows.can_stream(&flow) {
            true => rows.stream(flow),
            false => Ok(Flow::stateless(extension(rows.over(self.close(flow)?)?), Shape::Tail)),
        }
    }

    /// A lookup: the stream's rows pass, the table is read first.
    fn join(&self, join: Join, emit: EmitMode) -> Result<Flow> {
        let stream_is_left = match (reads_stream(&join.left), reads_stream(&join.right)) {
            (true, true) => return Err(refuse_joins::join_of_streams(&join).into()),
            (left, _) => left,
        };
        let (stream, table) = if stream_is_left { (&join.left, &join.right) } else { (&join.right, &join.left) };
        let flow = self.rewrite(stream.as_ref().clone(), emit)?;
        let passes = match join.join_type {
            JoinType::Inner => true,
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => stream_is_left,
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => !stream_is_left,
            _ => false,
        };
        if matches!(flow.shape, Shape::Rows) && !passes {
            return Err(refuse_joins::join_type(&join, table).into());
        }
        let follows_results = join
            .on
            .iter()
            .flat_map(|(left, right)| [left, right])
            .chain(&join.filter)
            .any(|expr| aggregate::reads_results(expr, &flow.plan));
        if flow.is_changelog && (follows_results || !passes) {
            return Err(refuse::joined_changes(emit).at(self.emit_at).into());
        }
        let flow = match passes {
            true => flow,
            false => Flow::stateless(self.close(flow)?, Shape::Tail),
        };
        let table = table.as_ref().clone();
        let inputs = if stream_is_left { vec![flow.plan, table] } else { vec![table, flow.plan] };
        let plan = LogicalPlan::Join(join);
        let plan = plan.with_new_exprs(plan.expressions(), inputs)?;
        Ok(Flow { plan, ..flow })
    }
}

fn only_input(plan: &LogicalPlan) -> Result<LogicalPlan> {
    match plan.inputs().as_slice() {
        [input] => Ok((*input).clone()),
        _ => Err(internal_datafusion_err!("{} has exactly one input", plan.display())),
    }
}
