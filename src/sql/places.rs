//! Where a column or a call stands in a statement, for errors that come without a place.

use std::ops::ControlFlow;

use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinOperator, LimitClause, ObjectName, ObjectNamePart, OrderByKind, Query, SetExpr, Spanned,
    TableFactor, Value, Visit, Visitor, visit_expressions,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::error::Location;

/// The first identifier `name` that stands for a column.
pub(crate) fn column(statement: &Statement, name: &str) -> Option<Location> {
    find(statement, |expr| {
        match expr {
            Expr::Identifier(ident) => Some(ident),
            Expr::CompoundIdentifier(parts) => parts.last(),
            _ => None,
        }
        .filter(|ident| ident.value.eq_ignore_ascii_case(name))
    })
}

/// The first call of a function of this name.
pub(crate) fn call(statement: &Statement, name: &str) -> Option<Location> {
    find(statement, |expr| match expr {
        Expr::Function(function) => {
            function.name.0.last()?.as_ident().filter(|ident| ident.value.eq_ignore_ascii_case(name))
        }
        _ => None,
    })
}

/// The first call in a WHERE of a function that `is_wanted` knows by its name.
pub(crate) fn call_in_where(statement: &Statement, is_wanted: &dyn Fn(&str) -> bool) -> Option<Location> {
    first(statement, |part| {
        let Part::Query(Query { body, .. }) = part else { return None };
        let SetExpr::Select(select) = body.as_ref() else { return None };
        let condition = select.selection.as_ref()?;
        let found = visit_expressions(condition, |expr| match expr {
            Expr::Function(function) => match function.name.0.last().and_then(ObjectNamePart::as_ident) {
                Some(ident) if is_wanted(&ident.value.to_lowercase()) => ControlFlow::Break(ident.span),
                _ => ControlFlow::Continue(()),
            },
            _ => ControlFlow::Continue(()),
        });
        found.break_value()
    })
}

/// The first call with an OVER clause.
pub(crate) fn over(statement: &Statement) -> Option<Location> {
    find(statement, |expr| match expr {
        Expr::Function(function) if function.over.is_some() => function.name.0.last()?.as_ident(),
        _ => None,
    })
}

/// The first LIMIT, or the first OFFSET.
pub(crate) fn limit(statement: &Statement, is_offset: bool) -> Option<Location> {
    first(statement, |part| {
        let Part::Query(Query { limit_clause: Some(clause), .. }) = part else { return None };
        match clause {
            LimitClause::LimitOffset { offset: Some(offset), .. } if is_offset => Some(offset.value.span()),
            LimitClause::OffsetCommaLimit { offset, .. } if is_offset => Some(offset.span()),
            LimitClause::LimitOffset { limit: Some(limit), .. } | LimitClause::OffsetCommaLimit { limit, .. } => {
                Some(limit.span())
            }
            LimitClause::LimitOffset { .. } => None,
        }
    })
}

/// The first table of which a sample is wanted.
pub(crate) fn sample(statement: &Statement) -> Option<Location> {
    first(statement, |part| match part {
        Part::Table(TableFactor::Table { name, sample: Some(_), .. }) => Some(name.0.last()?.as_ident()?.span),
        Part::Table(TableFactor::Derived { subquery, sample: Some(_), .. }) => Some(subquery.span()),
        _ => None,
    })
}

/// The first string literal of this text.
pub(crate) fn text(statement: &Statement, text: &str) -> Option<Location> {
    text_that(statement, |found| found == text)
}

/// The first string literal that is looked for.
pub(crate) fn text_that(statement: &Statement, is_it: impl Fn(&str) -> bool) -> Option<Location> {
    first(statement, |part| match part {
        Part::Expr(Expr::Value(value)) => {
            matches!(&value.value, Value::SingleQuotedString(found) if is_it(found)).then_some(value.span)
        }
        _ => None,
    })
}

/// The first ORDER BY of a query.
pub(crate) fn order_by(statement: &Statement) -> Option<Location> {
    first(statement, |part| {
        let Part::Query(Query { order_by: Some(order), .. }) = part else { return None };
        match &order.kind {
            OrderByKind::Expressions(exprs) => Some(exprs.first()?.expr.span()),
            OrderByKind::All(_) => None,
        }
    })
}

/// What the first DISTINCT is of.
pub(crate) fn distinct(statement: &Statement) -> Option<Location> {
    first(statement, |part| {
        let Part::Query(Query { body, .. }) = part else { return None };
        let SetExpr::Select(select) = body.as_ref() else { return None };
        select.distinct.as_ref().and_then(|_| Some(select.projection.first()?.span()))
    })
}

/// What the first FULL JOIN joins.
pub(crate) fn full_join(statement: &Statement) -> Option<Location> {
    first(statement, |part| {
        let Part::Query(Query { body, .. }) = part else { return None };
        let SetExpr::Select(select) = body.as_ref() else { return None };
        let mut joins = select.from.iter().flat_map(|from| &from.joins);
        let full = joins.find(|join| matches!(join.join_operator, JoinOperator::FullOuter(_)))?;
        Some(full.relation.span())
    })
}

/// The first relation of this name.
pub(crate) fn relation(statement: &Statement, name: &str) -> Option<Location> {
    first(statement, |part| match part {
        Part::Relation(relation) => {
            let ident = relation.0.last()?.as_ident().filter(|ident| ident.value.eq_ignore_ascii_case(name))?;
            Some(ident.span)
        }
        _ => None,
    })
}

fn find(statement: &Statement, ident: impl Fn(&Expr) -> Option<&Ident>) -> Option<Location> {
    first(statement, |part| match part {
        Part::Expr(expr) => ident(expr).map(|ident| ident.span),
        _ => None,
    })
}

/// A part of a statement that may be what is looked for.
enum Part<'a> {
    Expr(&'a Expr),
    Query(&'a Query),
    Relation(&'a ObjectName),
    Table(&'a TableFactor),
}

/// The place of the first part that is what is looked for.
fn first(statement: &Statement, place: impl Fn(Part) -> Option<Span>) -> Option<Location> {
    let mut finder = Finder { place, found: None };
    let _ = match statement {
        Statement::Statement(statement) => statement.visit(&mut finder),
        Statement::Explain(explain) => return first(&explain.statement, finder.place),
        Statement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => query.visit(&mut finder),
            CopyToSource::Relation(relation) => finder.pre_visit_relation(relation),
        },
        _ => ControlFlow::Continue(()),
    };
    finder.found
}

struct Finder<F> {
    place: F,
    found: Option<Location>,
}

impl<F: Fn(Part) -> Option<Span>> Finder<F> {
    fn look(&mut self, part: Part) -> ControlFlow<()> {
        let place = (self.place)(part).map(|span| span.start);
        self.found = place.filter(|at| at.line > 0).map(|at| Location { line: at.line, column: at.column });
        match self.found {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }
}

impl<F: Fn(Part) -> Option<Span>> Visitor for Finder<F> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.look(Part::Expr(expr))
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.look(Part::Query(query))
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<()> {
        self.look(Part::Table(table))
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.look(Part::Relation(relation))
    }
}
