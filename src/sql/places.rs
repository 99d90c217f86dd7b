//! Where a column or a call stands in a statement, for errors that come without a place.

use std::ops::ControlFlow;

use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::{Expr, Ident, Visit, Visitor};

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

fn find(statement: &Statement, ident: impl Fn(&Expr) -> Option<&Ident>) -> Option<Location> {
    let mut finder = Finder { ident, found: None };
    let _ = match statement {
        Statement::Statement(statement) => statement.visit(&mut finder),
        Statement::Explain(explain) => return find(&explain.statement, finder.ident),
        Statement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => query.visit(&mut finder),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    };
    finder.found
}

struct Finder<F> {
    ident: F,
    found: Option<Location>,
}

impl<F: Fn(&Expr) -> Option<&Ident>> Visitor for Finder<F> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let place = (self.ident)(expr).map(|ident| ident.span.start);
        self.found = place.filter(|at| at.line > 0).map(|at| Location { line: at.line, column: at.column });
        match self.found {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }
}
