//! What has no answer over a stream that does not end: one whose files are followed.

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{CreateMemoryTable, DdlStatement, Distinct, Expr, LogicalPlan, Sort, SortExpr, Window};

use crate::config::StreamlinesOptions;
use crate::error::{Error, Location};
use crate::exec::operator::OperatorSpec;
use crate::exec::state_bound::StateBound;
use crate::operator::RowsWindowSpec;
use crate::source::{PLACE, StreamTable};
use crate::sql::EmitMode;

use super::event_time::{first_stream, trace};
use super::nodes::{Pipelines, WindowAggregate};
use super::over::window_function;
use super::refuse::{place_of, refuse_if};
use super::result_time::result_time;

/// What stands above the pipelines of such a stream begins when it has ended; a GROUP BY without a window answers then.
pub(super) fn answers_at_end(plan: &LogicalPlan) -> Result<()> {
    plan.apply(|node| {
        if let Some(pipelines) = own::<Pipelines>(node) {
            if is_endless(&pipelines.input) {
                pipelines
                    .input
                    .apply(|node| own(node).map_or(Ok(()), group_by).map(|()| TreeNodeRecursion::Continue))?;
            }
            return Ok(TreeNodeRecursion::Jump);
        }
        if is_endless(node) {
            tail(node)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// CREATE TABLE … AS of such a stream would never be done.
pub(crate) fn table(plan: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(CreateMemoryTable { input: query, .. })) = plan else {
        return Ok(());
    };
    refuse_if(is_endless(query), || {
        let help = "COPY (SELECT …) TO 'folder/', with streamlines.checkpoint_dir, writes rows as they come";
        at_end("CREATE TABLE AS", help).about(first_stream(query).as_ref().map(|stream| stream.name()))
    })
}

/// Nothing grows for ever that nobody has asked for. `exprs` say where the node stands.
pub(super) fn growing<'a>(
    spec: &OperatorSpec,
    input: &LogicalPlan,
    exprs: impl IntoIterator<Item = &'a Expr>,
    options: &StreamlinesOptions,
) -> Result<()> {
    refuse_if(!options.allow_unbounded_state && StateBound::of(spec).grows() && is_endless(input), || {
        let (what, bounded) = match spec {
            OperatorSpec::RowsWindow(_) => ("OVER with such a frame", "a RANGE frame that rows leave"),
            OperatorSpec::ChangelogTopN(..) => ("a ranking without a window", "windows in its PARTITION BY"),
            _ => ("GROUP BY without a window", "GROUP BY tumble(ts, INTERVAL '1 hour')"),
        };
        let waits = |spec: &RowsWindowSpec| spec.functions.iter().any(|function| !function.forgets());
        let ttl = match (StateBound::of(spec), spec) {
            (_, OperatorSpec::RowsWindow(spec)) if waits(spec) => "",
            (StateBound::EveryKey, _) => {
                "SET streamlines.state_ttl = '1h', which forgets keys that have no row for so long; "
            }
            _ => "",
        };
        let kept = if StateBound::of(spec) == StateBound::EveryKey { "something of every key" } else { "every value" };
        Error::refused(
            format!("{what} over a stream that is followed"),
            format!("{kept} is kept for ever, so that state grows as long as new ones come"),
            format!("SET streamlines.allow_unbounded_state = true, if there are not too many; {ttl}or {bounded}"),
        )
        .at(place_of(exprs))
        .about(first_stream(input).as_ref().map(|stream| stream.name()))
    })
}

/// Windows of such a stream close by a bound.
pub(super) fn windows_without_bound(stream: &StreamTable, time: Option<usize>, at: Option<Location>) -> Result<()> {
    let has_bound = |index| stream.event_time().is_some_and(|time| time.index == index && time.bound.is_some());
    refuse_if(stream.is_arriving() && time.is_some_and(|index| !has_bound(index)), || {
        let comes = if stream.is_read_once() { "whose rows come only once" } else { "which is followed" };
        Error::refused(
            format!("a window over stream {}, {comes}, without a bound of lateness,", stream.name()),
            "without a bound it is known only at the end that no earlier row comes",
            "WATERMARK FOR ts AS ts - INTERVAL '10' SECOND in CREATE STREAM",
        )
        .at(at)
        .about(Some(stream.name()))
    })
}

fn is_endless(plan: &LogicalPlan) -> bool {
    first_stream(plan).is_some_and(|stream| stream.is_endless())
}

fn own<T: 'static>(plan: &LogicalPlan) -> Option<&T> {
    match plan {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
        _ => None,
    }
}

fn tail(plan: &LogicalPlan) -> Result<()> {
    let (what, help) = match plan {
        LogicalPlan::Window(window) => return Err(over(window).into()),
        LogicalPlan::Sort(_) => {
            ("ORDER BY", "leave it out, or rank within windows: ROW_NUMBER() OVER (PARTITION BY window_start …) <= 3")
        }
        LogicalPlan::Aggregate(aggregate) if is_over_union(&aggregate.input) => (
            "GROUP BY over a UNION",
            "GROUP BY windows in each branch, or a stream of the files of all: LOCATION 'a/, b/'",
        ),
        LogicalPlan::Aggregate(_) => ("this GROUP BY", "GROUP BY windows of the event time"),
        LogicalPlan::Distinct(Distinct::On(_)) => ("DISTINCT ON", "ROW_NUMBER() OVER (…) = 1 with EMIT CHANGES"),
        LogicalPlan::Join(_) => ("this join", "join the stream's rows, below a GROUP BY"),
        LogicalPlan::Dml(_) => {
            ("INSERT", "COPY (SELECT …) TO 'folder/' with streamlines.checkpoint_dir writes rows as they come")
        }
        _ => return Ok(()),
    };
    let place = match plan {
        LogicalPlan::Sort(Sort { expr, .. }) => place_of(expr.iter().map(|sort| &sort.expr)),
        plan => place_of(&plan.expressions()),
    };
    Err(at_end(what, help).at(place).about(first_stream(plan).as_ref().map(|stream| stream.name())).into())
}

/// Whether rows come out of a UNION, whose branches go their own ways.
fn is_over_union(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Union(_) => true,
        plan => plan.inputs().first().is_some_and(|input| is_over_union(input)),
    }
}

/// Why OVER columns wait for the end of the stream.
fn over(window: &Window) -> Error {
    let stream = first_stream(&window.input);
    let time = stream.as_ref().and_then(|stream| stream.event_time());
    let time = time.map_or("the event time", |time| time.column.as_str());
    let call = window.window_expr.iter().find_map(window_function);
    // Ties are broken already.
    let is_place = |order: &&SortExpr| matches!(&order.expr, Expr::Column(column) if column.name == PLACE);
    let order = call.iter().flat_map(|call| &call.params.order_by).filter(|order| !is_place(order));
    let (what, help) = match call.map(|call| (call, order.collect::<Vec<_>>())) {
        Some((_, order)) if order.is_empty() => (
            "OVER without ORDER BY".to_string(),
            format!("OVER (… ORDER BY {time}), or GROUP BY tumble({time}, INTERVAL '1 hour')"),
        ),
        Some((call, order)) if matches!(order.as_slice(), [order] if order.asc && is_by_time(&order.expr, window)) => {
            match call.params.window_frame.end_bound.is_unbounded() && !ranks(call) {
                true => (
                    "OVER with a frame up to the last row".to_string(),
                    "a frame that ends before: ROWS BETWEEN CURRENT ROW AND 9 FOLLOWING".to_string(),
                ),
                false => (
                    format!("{}, which takes all rows of its key,", call.fun.name()),
                    format!("row_number() or rank() OVER (… ORDER BY {time}), or GROUP BY windows of {time}"),
                ),
            }
        }
        Some((call, _)) if ranks(call) => (
            format!("{} in an order other than that of {time}", call.fun.name()),
            "the first rows of windows, PARTITION BY window_start, window_end …; or those so far, with EMIT CHANGES and \
             SET streamlines.allow_unbounded_state = true"
                .to_string(),
        ),
        _ => (format!("OVER in an order other than that of {time}"), format!("OVER (… ORDER BY {time})")),
    };
    let place = place_of(&window.window_expr);
    at_end(&what, &help).at(place).about(stream.as_ref().map(|stream| stream.name()))
}

fn ranks(call: &WindowFunction) -> bool {
    matches!(call.fun.name(), "row_number" | "rank" | "dense_rank")
}

/// Whether an expression over a tail is the event time of what flows into it.
fn is_by_time(expr: &Expr, window: &Window) -> bool {
    let mut input = window.input.as_ref();
    while let LogicalPlan::Window(below) = input {
        input = &below.input;
    }
    let input = own::<Pipelines>(input).map_or(input, |pipelines| &pipelines.input);
    trace(expr, input).is_some_and(|column| column.bears_windows()) || result_time(expr, input).is_some()
}

fn group_by(aggregate: &WindowAggregate) -> Result<()> {
    let answers_at_end = aggregate.window.is_none() && aggregate.emit == EmitMode::Final && aggregate.results.is_none();
    let place = || place_of(aggregate.keys.iter().chain(&aggregate.aggregates).collect::<Vec<&Expr>>());
    refuse_if(answers_at_end, || {
        let help = "GROUP BY tumble(ts, INTERVAL '1 hour'), or EMIT CHANGES after SET streamlines.allow_unbounded_state = true";
        let error = at_end("GROUP BY without a window", help);
        error.at(place()).about(first_stream(&aggregate.input).as_ref().map(|stream| stream.name()))
    })
}

fn at_end(what: &str, help: &str) -> Error {
    Error::refused(
        format!("{what} over a stream that is followed"),
        "the answer is known only when the stream ends",
        help,
    )
}
