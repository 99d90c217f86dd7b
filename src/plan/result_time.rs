//! Event time behind a windowed GROUP BY: the bounds of its windows. A column of results is followed down to the
//! [`WindowAggregate`] whose window it is a bound of.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use crate::operator::{Calendar, Length, ResultTime, WindowShape};

use super::event_time::{Below, below, index_of};
use super::functions::{length_of_bound, tumble_offset};
use super::nodes::{RowsWindow, Window, WindowAggregate};
use super::over::window_function;
use super::over_spec::ends_by_row;
use super::session_rows::SessionRows;
use super::top_n_node::{Ranking, TopN};

/// What bound of a result's window an expression over `plan` is.
pub(super) fn result_time(expr: &Expr, plan: &LogicalPlan) -> Option<ResultTime> {
    match expr {
        Expr::Alias(alias) => result_time(&alias.expr, plan),
        Expr::Column(column) => of_column(index_of(column, plan.schema())?, plan),
        Expr::ScalarFunction(call) => of_call(call, plan),
        _ => None,
    }
}

/// Whether the results of windows come out of `plan` as the watermark passes their ends.
pub(super) fn comes_out_by_time(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Unnest(_) => plan.inputs().into_iter().all(comes_out_by_time),
        LogicalPlan::Join(join) => comes_out_by_time(&join.left) || comes_out_by_time(&join.right),
        LogicalPlan::Extension(extension) => {
            let node = extension.node.as_any();
            if let Some(node) = node.downcast_ref::<WindowAggregate>() {
                return node.window.is_some() && !node.emit.is_changes();
            }
            if let Some(node) = node.downcast_ref::<RowsWindow>() {
                return answers_by_time(node);
            }
            if node.is::<SessionRows>() {
                return true;
            }
            let ranking = node.downcast_ref::<TopN>().map(|node| node.ranking);
            matches!(ranking, Some(Ranking::Windows | Ranking::Results))
        }
        _ => false,
    }
}

/// The column of `plan` that is best taken for the event time of windowed results.
pub(super) fn time_of_results(plan: &LogicalPlan) -> Option<(usize, ResultTime)> {
    let all = || (0..plan.schema().fields().len()).filter_map(|index| Some((index, of_column(index, plan)?)));
    let rank = |time: &ResultTime| match time {
        ResultTime::Last { .. } => 0,
        ResultTime::End { .. } => 1,
        _ => 2,
    };
    all().min_by_key(|(_, time)| rank(time))
}

fn of_column(index: usize, plan: &LogicalPlan) -> Option<ResultTime> {
    let LogicalPlan::Extension(extension) = plan else {
        return match below(index, plan)? {
            Below::Computed(expr, input) => result_time(expr, input),
            Below::Passed(index, input) => of_column(index, input),
        };
    };
    let node = extension.node.as_any();
    if let Some(node) = node.downcast_ref::<WindowAggregate>() {
        let window = node.window.as_ref().filter(|_| !node.emit.is_changes())?;
        return bound(index, window, &node.input);
    }
    if let Some(node) = node.downcast_ref::<RowsWindow>() {
        let is_time = matches!(&node.time, Expr::Column(time) if index_of(time, node.input.schema()) == Some(index));
        return (is_time && answers_by_time(node)).then_some(ResultTime::Row);
    }
    if let Some(node) = node.downcast_ref::<SessionRows>() {
        return (index == node.width() + 1).then(|| ResultTime::End { wait: node.shape.wait() });
    }
    let node = node.downcast_ref::<TopN>()?;
    let beyond = index.checked_sub(node.input.schema().fields().len());
    match (node.ranking, beyond) {
        (Ranking::Windows, Some(index)) => bound(index, node.by.window.as_ref()?, &node.input),
        (Ranking::Results, None) => of_column(index, &node.input),
        _ => None,
    }
}

/// Whether each row comes out when the watermark has passed it: no frame waits for what follows.
fn answers_by_time(node: &RowsWindow) -> bool {
    node.functions.iter().filter_map(window_function).all(|call| ends_by_row(call, node.input.schema()))
}

/// The bound that a column of a window over `input` is.
fn bound(index: usize, window: &Window, input: &LogicalPlan) -> Option<ResultTime> {
    let is_session = matches!(window.shape, WindowShape::Session { .. });
    match index {
        0 if !is_session => {
            let offset = tumble_offset(&window.start, input.schema());
            Some(ResultTime::Start { shape: window.shape.clone(), offset })
        }
        1 if window.shape.has_own_end() => Some(ResultTime::End { wait: window.shape.wait() }),
        _ => None,
    }
}

/// `window_end(start, …)` and `window_time(start, …)` of the windows' own length, and the last tick before an end.
fn of_call(call: &ScalarFunction, plan: &LogicalPlan) -> Option<ResultTime> {
    let (of, parameters) = call.args.split_first()?;
    let time = result_time(of, plan)?;
    if parameters.is_empty() {
        return match time {
            ResultTime::End { wait } if call.name() == "last_tick" => Some(ResultTime::Last { wait }),
            _ => None,
        };
    }
    let parameter = |parameter: &Expr| match parameter {
        Expr::Literal(value, _) => Some(value.clone()),
        _ => None,
    };
    let parameters: Vec<ScalarValue> = parameters.iter().map(parameter).collect::<Option<_>>()?;
    let ResultTime::Start { shape, .. } = time else { return None };
    let own = match shape {
        // Where windows begin says nothing of how long they are.
        WindowShape::Tumble(Length::Calendar(calendar)) => Length::Calendar(Calendar { offset: 0, ..calendar }),
        WindowShape::Tumble(length) => length,
        WindowShape::LastTick { .. } => Length::Ticks(1),
        WindowShape::Hop { size, .. } => Length::Ticks(size),
        WindowShape::Cumulate { .. } | WindowShape::Session { .. } => return None,
    };
    match call.name() {
        _ if length_of_bound(&parameters, &of.get_type(plan.schema()).ok()?) != Some(own) => None,
        "window_end" => Some(ResultTime::End { wait: 0 }),
        "window_time" => Some(ResultTime::Last { wait: 0 }),
        _ => None,
    }
}
