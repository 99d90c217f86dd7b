//! What syntax alone does not say of a window, and the columns that a query reads do.
//!
//! `WINDOW TUMBLING (SIZE 1 HOUR)` names no column: the event time of what the query reads is filled in. The syntax
//! comes here as `tumble(size)` with one argument. The FROM clause of that SELECT is planned by itself, with the WITH
//! clauses around it, and the first of its columns that is an event time is the one.
//!
//! `window_start` beside `date_bin(…)` is the bin's start, unless what the query reads has a column of that name.

use std::ops::ControlFlow;

use datafusion::common::{Result, TableReference};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Query, Select, SelectItem,
    SetExpr, Spanned, Statement as SqlStatement, VisitMut, VisitorMut, WildcardAdditionalOptions, With,
};

use crate::error::{Error, Location};
use crate::sql::names::{is_window_name, names_bins, resolve_bin_names};

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
    name_bins(syntax, state).await;
    let mut finder = Finder::default();
    let _ = syntax.visit(&mut finder);
    let mut columns = vec![];
    for (with, select) in finder.found {
        columns.push(event_time_of(with, *select, state).await?);
    }
    let mut filler = Filler { columns: columns.into_iter() };
    let _ = syntax.visit(&mut filler);
    Ok(())
}

/// Gives the names of bins their meaning where no column has them.
async fn name_bins<T: VisitMut>(syntax: &mut T, state: &SessionState) {
    let mut bins = Bins::default();
    let _ = syntax.visit(&mut bins);
    let mut free = vec![];
    for (with, select) in bins.found {
        // What is wrong with the query is told when it is planned as a whole.
        let columns = columns_of(with, *select, state).await;
        let is_taken = |plan: LogicalPlan| plan.schema().fields().iter().any(|field| is_window_name(field.name()));
        free.push(!columns.is_ok_and(is_taken));
    }
    let _ = syntax.visit(&mut NameBins { free: free.into_iter() });
}

/// Finds the queries that name the ends of a bin, in the order in which they are visited.
#[derive(Default)]
struct Bins {
    withs: Vec<Option<With>>,
    found: Vec<(Option<With>, Box<Select>)>,
}

impl VisitorMut for Bins {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.withs.push(query.with.clone());
        if let SetExpr::Select(select) = query.body.as_ref()
            && names_bins(query)
        {
            let with = self.withs.iter().rev().flatten().next().cloned();
            self.found.push((with, select.clone()));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.withs.pop();
        ControlFlow::Continue(())
    }
}

/// Gives the names their meaning in the queries that are free for it, in the same order.
struct NameBins<I: Iterator<Item = bool>> {
    free: I,
}

impl<I: Iterator<Item = bool>> VisitorMut for NameBins<I> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if names_bins(query) && self.free.next() == Some(true) {
            resolve_bin_names(query);
        }
        ControlFlow::Continue(())
    }
}

/// Finds the SELECTs that group by a window without a column, in the order in which they are visited.
#[derive(Default)]
struct Finder {
    withs: Vec<Option<With>>,
    found: Vec<(Option<With>, Box<Select>)>,
}

impl VisitorMut for Finder {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.withs.push(query.with.clone());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.withs.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if lacks_time(select) {
            let with = self.withs.iter().rev().flatten().next().cloned();
            self.found.push((with, Box::new(select.clone())));
        }
        ControlFlow::Continue(())
    }
}

/// Puts the columns in, SELECT by SELECT in the same order.
struct Filler<I: Iterator<Item = Vec<Ident>>> {
    columns: I,
}

impl<I: Iterator<Item = Vec<Ident>>> VisitorMut for Filler<I> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // ORDER BY stands outside of the SELECT that it belongs to, so the whole query is filled from here.
        if let SetExpr::Select(select) = query.body.as_ref()
            && lacks_time(select)
            && let Some(column) = self.columns.next()
        {
            let _ = query.visit(&mut Call { column });
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
            if name.to_string().eq_ignore_ascii_case("tumble") && list.args.len() == 1 =>
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
    match (0..plan.schema().fields().len()).find(is_event_time) {
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
    from.having = None;
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
