//! Logical nodes to plan nodes, and DataFusion's nodes that would hold rows back to ours that do not.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::config::{ConfigFileType, TableOptions};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use crate::config::StreamlinesOptions;
use crate::error::Error;
use crate::exec::changes_filter::ChangesFilterExec;
use crate::exec::filter::StreamFilterExec;
use crate::exec::find;
use crate::exec::lookup::LookupJoinExec;
use crate::exec::operator::{OperatorExec, OperatorSpec};
use crate::exec::rank::RankResultsExec;
use crate::exec::scan::StreamScanExec;
use crate::exec::unnest::StreamUnnestExec;
use crate::exec::used::UsedRowsExec;
use crate::operator::WindowShape;
use crate::runtime::{PipelinesExec, WriteExec, divided_for, strategy, workers};
use crate::sink::{FileSink, Hive, OutputFormat};
use crate::source::{Division, Sharing, Split};
use crate::sql::EmitMode;

use super::changelog::has_rows_of_lists;
use super::coded_keys::with_coded_keys;
use super::nodes::{ChangesFilter, Pipelines, RowsWindow, WindowAggregate, WriteFiles};
use super::operator_spec::{aggregate_spec, changes_spec, session_rows_spec, top_n_spec};
use super::over_spec::rows_window_spec;
use super::routing::{RoutingKind, Routings};
use super::session_rows::SessionRows;
use super::source_rows::accounting;
use super::top_n_node::{Ranking, TopN};
use super::{refuse_endless, refuse_joins};

/// Plans queries over streams; every other query goes to DataFusion's planner as it is.
#[derive(Debug, Default)]
pub(crate) struct StreamQueryPlanner;

#[async_trait]
impl QueryPlanner for StreamQueryPlanner {
    async fn create_physical_plan(
        &self,
        logical_plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(NodePlanner)]);
        if !streams(logical_plan)? {
            return planner.create_physical_plan(logical_plan, session).await;
        }
        let state = streaming_state(session)?;
        let plan = planner.create_physical_plan(logical_plan, &state).await?;
        check_pipelines(&plan)?;
        plan.transform_up(joining_before_sort).data()
    }
}

/// Whether any part of the plan runs as pipelines.
fn streams(plan: &LogicalPlan) -> Result<bool> {
    if let LogicalPlan::Explain(explain) = plan {
        return streams(&explain.plan);
    }
    plan.exists(|node| {
        Ok(matches!(node, LogicalPlan::Extension(extension) if extension.node.as_any().is::<Pipelines>()))
    })
}

/// The session with the settings under which DataFusion's optimizer leaves the pipelines alone.
fn streaming_state(session: &dyn Session) -> Result<SessionState> {
    let mut state = session
        .as_any()
        .downcast_ref::<SessionState>()
        .ok_or_else(|| internal_datafusion_err!("streams are planned by a SessionState"))?
        .clone();
    let optimizer = &mut state.config_mut().options_mut().optimizer;
    optimizer.enable_round_robin_repartition = false;
    // The table of a lookup is read as a whole, once for all pipelines.
    optimizer.repartition_joins = false;
    optimizer.prefer_hash_join = true;
    optimizer.enable_dynamic_filter_pushdown = false;
    Ok(state)
}

struct NodePlanner;

#[async_trait]
impl ExtensionPlanner for NodePlanner {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(input) = physical_inputs.first().cloned() else {
            return Ok(None);
        };
        let node = node.as_any();
        let options = session.config_options().extensions.get::<StreamlinesOptions>().cloned().unwrap_or_default();
        if let Some(node) = node.downcast_ref::<WindowAggregate>() {
            let spec = Arc::new(aggregate_spec(node, &input.schema(), session, context)?);
            let changes = match node.emit {
                EmitMode::Final => None,
                EmitMode::Changes(changes) => Some(changes_spec(changes, node.into(), session, context)?),
            };
            let spec = match (node.window.as_ref().map(|window| &window.shape), changes) {
                (Some(WindowShape::Session { .. }), changes) => OperatorSpec::SessionAggregate(spec, changes),
                (_, None) => OperatorSpec::WindowAggregate(spec),
                (_, Some(changes)) => OperatorSpec::ChangelogAggregate(spec, changes),
            };
            refuse_endless::growing(&spec, &node.input, node.keys.iter().chain(&node.aggregates), &options)?;
            return Ok(Some(Arc::new(OperatorExec::new(spec, input, node.results.clone()))));
        }
        if let Some(node) = node.downcast_ref::<TopN>() {
            let spec = Arc::new(top_n_spec(node, &input.schema(), session, context)?);
            let spec = match (node.ranking, node.emit) {
                (Ranking::Results, _) => return Ok(Some(Arc::new(RankResultsExec::new(spec, input)))),
                (Ranking::Changes { by_rank }, EmitMode::Changes(changes)) => {
                    OperatorSpec::ChangelogTopN(spec, changes_spec(changes, node.into(), session, context)?, by_rank)
                }
                _ => OperatorSpec::WindowTopN(spec),
            };
            refuse_endless::growing(&spec, &node.input, &node.by.keys, &options)?;
            return Ok(Some(Arc::new(OperatorExec::new(spec, input, node.by.results.clone()))));
        }
        if let Some(node) = node.downcast_ref::<ChangesFilter>() {
            let predicate =
                create_physical_expr(&node.predicate, node.input.schema(), session.execution_props(), context)?;
            let has_pairs = !has_rows_of_lists(&node.input);
            return Ok(Some(Arc::new(ChangesFilterExec::try_new(predicate, has_pairs, input)?)));
        }
        if let Some(node) = node.downcast_ref::<RowsWindow>() {
            let spec = OperatorSpec::RowsWindow(Arc::new(rows_window_spec(node, &input.schema(), session, context)?));
            refuse_endless::growing(&spec, &node.input, &node.functions, &options)?;
            return Ok(Some(Arc::new(OperatorExec::new(spec, input, node.results.clone()))));
        }
        if let Some(node) = node.downcast_ref::<SessionRows>() {
            let spec = OperatorSpec::SessionRows(Arc::new(session_rows_spec(node, &input.schema(), session, context)?));
            return Ok(Some(Arc::new(OperatorExec::new(spec, input, node.results.clone()))));
        }
        if let Some(node) = node.downcast_ref::<WriteFiles>() {
            let sink = FileSink::open(&node.path, node.format, session.runtime_env(), session.config())?;
            let sink = sink.confined_by(session.config())?;
            let sink = sink.with_options(output_options(node, session)?).with_hive(hive(node, session)?);
            return Ok(Some(Arc::new(WriteExec::new(input, Arc::new(sink)))));
        }
        if let Some(node) = node.downcast_ref::<Pipelines>() {
            return plan_pipelines(input, node, &options).map(Some);
        }
        Ok(None)
    }
}

/// The session's options for the files of a COPY, and over them its own.
fn output_options(node: &WriteFiles, session: &dyn Session) -> Result<TableOptions> {
    let mut options = session.default_table_options();
    match node.format {
        OutputFormat::Parquet => options.set_config_format(ConfigFileType::PARQUET),
        OutputFormat::Csv => options.set_config_format(ConfigFileType::CSV),
        _ => options.set_config_format(ConfigFileType::JSON),
    }
    for (key, value) in node.options.iter().filter(|(key, _)| key != KEEPS_COLUMNS) {
        options.set(&format!("format.{}", key.strip_prefix("format.").unwrap_or(key)), value)?;
    }
    Ok(options)
}

/// The option of a COPY that keeps the columns in the files by which rows are divided into folders.
const KEEPS_COLUMNS: &str = "execution.keep_partition_by_columns";

/// How the rows of a COPY are divided into folders.
fn hive(node: &WriteFiles, session: &dyn Session) -> Result<Hive> {
    let keeps_columns = match node.options.iter().find(|(key, _)| key == KEEPS_COLUMNS) {
        None => session.config_options().execution.keep_partition_by_columns,
        Some((_, value)) => value
            .parse()
            .map_err(|_| Error::sql(format!("{KEEPS_COLUMNS} '{value}'")).help("write 'true' or 'false'"))?,
    };
    Ok(Hive { columns: node.partition_by.clone(), keeps_columns })
}

fn plan_pipelines(
    input: Arc<dyn ExecutionPlan>,
    node: &Pipelines,
    options: &StreamlinesOptions,
) -> Result<Arc<dyn ExecutionPlan>> {
    let (strategy, workers) = (strategy(options), workers(options));
    let input = input.transform_up(without_holding_back).data()?;
    let (routing, divided_for) = (&node.routing, divided_for(options));
    let all = |pipelines, way| Split::All { pipelines, order: routing.order, way };
    let split = match routing.first() {
        RoutingKind::Aligned if find::<OperatorExec>(&input).is_some() => Split::Partitions,
        RoutingKind::Aligned | RoutingKind::MergeOnClose => Split::Pieces { at_least: divided_for },
        RoutingKind::HashAtSource => all(divided_for, Sharing::AtSource),
        RoutingKind::Exchange => all(divided_for, Sharing::Exchange),
        RoutingKind::Single => all(1, Sharing::AtSource),
    };
    let division = Division { split, keys: routing.hashed.clone(), time: node.time };
    let input = input.transform_up(|node| divide(node, &division, routing)).data()?;
    let input = input.transform_down(with_coded_keys).data()?;
    let input = accounting(input, !options.late.is_empty())?;
    Ok(Arc::new(PipelinesExec::new(input, strategy, routing.clone(), workers, divided_for)))
}

/// A sort over the pipelines' rows gets them in larger batches.
fn joining_before_sort(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let pipelines = |sort: &SortExec| Some(sort.input().downcast_ref::<PipelinesExec>()?.joining_batches());
    match node.downcast_ref::<SortExec>().and_then(pipelines) {
        Some(pipelines) => Ok(Transformed::yes(replace_children_if_necessary(node, vec![Arc::new(pipelines)])?)),
        None => Ok(Transformed::no(node)),
    }
}

/// Divides the leaf's data, and lets aggregates merge if their keys are spread over it.
fn divide(
    node: Arc<dyn ExecutionPlan>,
    division: &Division,
    routing: &Routings,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    if let Some(scan) = node.downcast_ref::<StreamScanExec>() {
        return Ok(Transformed::yes(Arc::new(scan.divide(division.clone())?)));
    }
    if let Some(operator) = node.downcast_ref::<OperatorExec>()
        && let Some(spec) = operator.spec().merging()
        && routing.of_stage(operator.stage()) == RoutingKind::MergeOnClose
    {
        return Ok(Transformed::yes(Arc::new(operator.with_spec(spec))));
    }
    Ok(Transformed::no(node))
}

/// DataFusion's filters and joins on the stream's way gather rows for larger batches: ours give them on at once.
fn without_holding_back(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    if !reads_stream(&node) {
        return Ok(Transformed::no(node));
    }
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        return stream_filter(filter).map(Transformed::yes);
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        if join.null_aware {
            return Err(refuse_joins::not_in().into());
        }
        let stream_is_left = reads_stream(join.left());
        let join = match stream_is_left {
            true => join.swap_inputs(PartitionMode::CollectLeft)?,
            false => join.builder().with_partition_mode(PartitionMode::CollectLeft).build_exec()?,
        };
        return lookup(join).map(Transformed::yes);
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let join = if reads_stream(join.left()) { join.swap_inputs()? } else { node };
        return lookup(join).map(Transformed::yes);
    }
    if let Some(join) = node.downcast_ref::<CrossJoinExec>() {
        let join = if reads_stream(join.left()) { join.swap_inputs()? } else { node };
        return lookup(join).map(Transformed::yes);
    }
    if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
        return Ok(Transformed::yes(Arc::new(StreamUnnestExec::try_new(unnest)?)));
    }
    Ok(Transformed::no(node))
}

/// A join whose inputs were swapped may come with a projection that restores the order of columns.
fn lookup(join: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(projection) = join.downcast_ref::<ProjectionExec>() {
        let inner = Arc::new(LookupJoinExec::try_new(Arc::clone(projection.input()))?);
        return replace_children_if_necessary(join, vec![inner]);
    }
    Ok(Arc::new(LookupJoinExec::try_new(join)?))
}

fn stream_filter(filter: &FilterExec) -> Result<Arc<dyn ExecutionPlan>> {
    let projection = filter.projection().as_ref().map(|columns| columns.to_vec());
    let (predicate, input) = (Arc::clone(filter.predicate()), Arc::clone(filter.input()));
    Ok(Arc::new(StreamFilterExec::try_new(predicate, projection, input)?))
}

fn reads_stream(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<StreamScanExec>() || plan.children().into_iter().any(reads_stream)
}

/// Below a boundary stand only nodes that are known to hold no row back.
fn check_pipelines(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    plan.apply(|node| {
        match node.downcast_ref::<PipelinesExec>() {
            Some(_) => node.children().into_iter().try_for_each(check_node)?,
            None => return Ok(TreeNodeRecursion::Continue),
        }
        Ok(TreeNodeRecursion::Jump)
    })?;
    Ok(())
}

fn check_node(node: &Arc<dyn ExecutionPlan>) -> Result<()> {
    if !reads_stream(node) {
        return Ok(());
    }
    let known = node.is::<StreamScanExec>()
        || node.is::<StreamFilterExec>()
        || node.is::<LookupJoinExec>()
        || node.is::<OperatorExec>()
        || node.is::<ChangesFilterExec>()
        || node.is::<RankResultsExec>()
        || node.is::<ProjectionExec>()
        || node.is::<StreamUnnestExec>()
        || node.is::<UsedRowsExec>()
        || node.is::<CooperativeExec>();
    if !known {
        return Err(Error::refused(
            node.name().to_string(),
            "it may hold rows back until the stream ends",
            "SET streamlines.strategy = 'batch' runs the query as plain DataFusion",
        )
        .into());
    }
    node.children().into_iter().try_for_each(check_node)
}
