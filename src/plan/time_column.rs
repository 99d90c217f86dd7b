//! What syntax alone does not say of a window, and the columns that a query reads do.
//!
//! `WINDOW TUMBLING (SIZE 1 HOUR)` names no column: the event time of what the query reads is filled in. The syntax
//! comes here as `tumble(size)`, whose first argument is no time but a length. The FROM clause of that SELECT is planned by itself, with the WITH
//! clauses around it, and the first of its columns that is an event time is the one.
//!
//! `window_start` beside `date_bin(…)` is the bin's start, unless what the query reads has a column of that name. Beside
//! `tumble(…)` and the other windows by name it is refused then: it may well be meant either way.

use std::ops::ControlFlow;

use datafusion::common::{Result, TableReference};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, OrderBy, Query, Select,
    SelectItem, SetExpr, Spanned, Statement as SqlStatement, VisitMut, VisitorMut, WildcardAdditionalOptions, With,
};

use crate::error::{Error, Location};
use crate::sql::names::{
    WINDOW_TIME, WindowNames, for_each_select, is_window_function, is_window_name, resolve_names, window_names,
};

use super::event_time::trace_index;

/// Fills the event-time column into every `tumble(size)` of a statement, and in place of the names of a bin's ends what
/// they mean.
pub(crate) async fn fill_in_time_columns(statement: &mut Statement, state: &SessionState) -> Result<()> {
    match statement {
        Statement::Statement(statement) => fill_in(statement.as_mut(), state).await,
        Statement::Explain(explain) => Box::pin(fill_in_time_columns(&mut explain.statement, state)).await,
        Statement::CopyTo(copy) => match &mut copy.source {
            datafusion::sql::parser::CopyToSource::Query(query) => fill_in(query.as_mut(), state).await,
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

async fn fill_in<T: VisitMut>(syntax: &mut T, state: &SessionState) -> Result<()> {
    // SELECTs that are left as they are.
    let mut left = 0;
    loop {
        let mut finder = Selects::new(left, None);
        let _ = syntax.visit(&mut finder);
        let Some(open) = finder.found else { return Ok(()) };
        let answer = match open.question {
            Question::Time => Some(Answer::Time(event_time_of(open.with, *open.select, state).await?)),
            Question::Names(names) if names.used.is_empty() => Some(Answer::Names),
            Question::Names(names) => match columns_of(open.with, *open.select, state).await {
                Ok(plan) if names.is_bin => {
                    let is_taken = plan.schema().fields().iter().any(|field| is_window_name(field.name()));
                    (!is_taken).then_some(Answer::Names)
                }
                Ok(plan) => refuse_taken(&names.used, &plan).map(|()| Some(Answer::Names))?,
                // What is wrong with the query is told when it is planned as a whole.
                Err(_) => (!names.is_bin).then_some(Answer::Names),
            },
        };
        match answer {
            Some(answer) => {
                let _ = syntax.visit(&mut Selects::new(left, Some(answer)));
            }
            None => left += 1,
        }
    }
}

/// Names that mean the window that a SELECT groups by and columns that it reads.
fn refuse_taken(used: &[Ident], read: &LogicalPlan) -> Result<()> {
    let is_taken = |name: &&Ident| read.schema().has_column_with_unqualified_name(&name.value.to_lowercase());
    let Some(used) = used.iter().find(is_taken) else { return Ok(()) };
    let name = used.value.to_lowercase();
    let help = format!(
        "for the column write its table, q.{name}, or rename it in the sub-query; for the window leave the column out of what \
         the query reads, or select the window's own call with an alias"
    );
    let place = Location { line: used.span.start.line, column: used.span.start.column };
    let message = format!("{name} means two things: a column that the query reads, and the window that it groups by");
    Err(Error::sql(message).at(Some(place)).help(help).into())
}

/// What a SELECT leaves open.
enum Question {
    /// Which column `tumble(size)` is over.
    Time,
    /// Whether `window_start` is that of the window.
    Names(WindowNames),
}

enum Answer {
    Time(Vec<Ident>),
    Names,
}

/// A SELECT that leaves something open, with the WITH clauses that it sees.
struct Open {
    question: Question,
    with: Option<With>,
    select: Box<Select>,
}

/// Visits the SELECTs that leave something open, inner ones and those of WITH clauses first, and finds or answers one.
struct Selects {
    /// How many to pass over.
    skip: usize,
    answer: Option<Answer>,
    found: Option<Open>,
    /// The queries around the one at hand.
    frames: Vec<Frame>,
}

/// A query that is being visited.
struct Frame {
    /// The WITH queries that it sees besides its own.
    scope: Vec<Cte>,
    own: Vec<Cte>,
    /// How many of its own have been visited.
    visited: usize,
}

impl Selects {
    fn new(skip: usize, answer: Option<Answer>) -> Self {
        Self { skip, answer, found: None, frames: vec![] }
    }

    fn look(&mut self, select: &mut Select, order_by: Option<&mut OrderBy>, with: &[Cte]) {
        let Some(question) = question(select, order_by.as_deref()) else { return };
        if self.found.is_some() || self.skip > 0 {
            self.skip = self.skip.saturating_sub(1);
            return;
        }
        let ctes = with.to_vec();
        let with = With { with_token: AttachedToken::empty(), recursive: false, cte_tables: ctes };
        let with = (!with.cte_tables.is_empty()).then_some(with);
        self.found = Some(Open { question, with, select: Box::new(select.clone()) });
        match self.answer.take() {
            Some(Answer::Time(column)) => {
                let mut call = Call { column };
                let _ = select.visit(&mut call);
                // ORDER BY stands outside of the SELECT that it belongs to.
                if let Some(order_by) = order_by {
                    let _ = order_by.visit(&mut call);
                }
            }
            Some(Answer::Names) => resolve_names(select, order_by),
            None => {}
        }
    }
}

fn question(select: &Select, order_by: Option<&OrderBy>) -> Option<Question> {
    if lacks_time(select) {
        return Some(Question::Time);
    }
    window_names(select, order_by).map(Question::Names)
}

impl VisitorMut for Selects {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let scope = match self.frames.last_mut() {
            None => vec![],
            Some(around) => {
                // The WITH queries come first, and each sees those before it.
                let seen = around.visited.min(around.own.len());
                around.visited += 1;
                around.scope.iter().chain(&around.own[..seen]).cloned().collect()
            }
        };
        let own = query.with.iter().flat_map(|with| with.cte_tables.clone()).collect();
        self.frames.push(Frame { scope, own, visited: 0 });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(frame) = self.frames.pop() {
            let own = query.with.iter().flat_map(|with| with.cte_tables.clone());
            let mut with: Vec<Cte> = vec![];
            for cte in frame.scope.into_iter().chain(own) {
                with.retain(|known| known.alias.name.value != cte.alias.name.value);
                with.push(cte);
            }
            for_each_select(query, &mut |select, order_by| self.look(select, order_by, &with));
        }
        ControlFlow::Continue(())
    }
}

/// Puts one column, the parts of its name, into the calls of one query.
struct Call {
    column: Vec<Ident>,
}

impl VisitorMut for Call {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        // Errors about the window are told at the column, so it stands where the call stands.
        let span = expr.span();
        if let Some(arguments) = timeless_arguments(expr) {
            let mut parts: Vec<_> = self.column.iter().map(|part| Ident { span, ..part.clone() }).collect();
            let column = match parts.len() {
                1 => Expr::Identifier(parts.remove(0)),
                _ => Expr::CompoundIdentifier(parts),
            };
            arguments.insert(0, FunctionArg::Unnamed(FunctionArgExpr::Expr(column)));
        }
        ControlFlow::Continue(())
    }
}

fn lacks_time(select: &Select) -> bool {
    match &select.group_by {
        GroupByExpr::Expressions(exprs, _) => exprs.iter().any(|expr| timeless_arguments(&mut expr.clone()).is_some()),
        GroupByExpr::All(_) => false,
    }
}

fn timeless_arguments(expr: &mut Expr) -> Option<&mut Vec<FunctionArg>> {
    match expr {
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. })
            if is_window_function(&name.to_string())
                && matches!(
                    list.args.first(),
                    Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Interval(_))))
                ) =>
        {
            Some(&mut list.args)
        }
        _ => None,
    }
}

/// The event-time column among those that a SELECT reads: its name, qualified where another has the same.
async fn event_time_of(with: Option<With>, select: Select, state: &SessionState) -> Result<Vec<Ident>> {
    let start = select.group_by.span().start;
    let at = Location { line: start.line, column: start.column };
    let plan = columns_of(with, select, state).await?;
    let is_event_time = |index: &usize| trace_index(*index, &plan).is_some_and(|column| column.is_event_time());
    let is_window_time = |index: &usize| plan.schema().field(*index).name() == WINDOW_TIME;
    let all = || 0..plan.schema().fields().len();
    // A windowed result goes by its windows' times.
    match all().find(is_event_time).or_else(|| all().find(is_window_time)) {
        Some(index) => {
            let (qualifier, field) = plan.schema().qualified_field(index);
            let is_alone = plan.schema().fields_with_unqualified_name(field.name()).len() == 1;
            let qualifier = qualifier.filter(|_| !is_alone).map(TableReference::to_vec).unwrap_or_default();
            Ok(qualifier.iter().chain([field.name()]).map(|part| Ident::with_quote('"', part)).collect())
        }
        None => Err(Error::sql("a window without a time column, over rows that declare no event time")
            .at(Some(at))
            .help("name the column: WINDOW TUMBLING (ts, SIZE 1 HOUR), or declare WATERMARK FOR ts in CREATE STREAM")
            .into()),
    }
}

/// All columns that a SELECT reads.
async fn columns_of(with: Option<With>, select: Select, state: &SessionState) -> Result<LogicalPlan> {
    let mut from = select;
    from.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
    from.selection = None;
    (from.having, from.qualify, from.distinct) = (None, None, None);
    from.named_window = vec![];
    from.group_by = GroupByExpr::Expressions(vec![], vec![]);
    let query = Query {
        with,
        body: Box::new(SetExpr::Select(Box::new(from))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    };
    let statement = SqlStatement::Query(Box::new(query));
    state.statement_to_plan(Statement::Statement(Box::new(statement))).await
}
