//! `window_start`, `window_end` and `window_time` by name, where a SELECT groups by `tumble(…)`.
//!
//! The names are replaced by what they mean, over the very call that the query groups by, so that DataFusion's
//! planner sees expressions over a group key and nothing new.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident,
    ObjectName, OrderByKind, Query, Select, SelectItem, SetExpr, Value, VisitMut, VisitorMut,
};

const NAMES: [&str; 3] = ["window_start", "window_end", "window_time"];

/// Replaces the names in every SELECT of a statement.
pub(super) fn resolve_window_names<T: VisitMut>(statement: &mut T) {
    struct Queries;
    impl VisitorMut for Queries {
        type Break = ();
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            resolve_in_query(query);
            ControlFlow::Continue(())
        }
    }
    let _ = statement.visit(&mut Queries);
}

fn resolve_in_query(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    let Some(call) = window_call(select) else { return };
    let mut names = Names { call: &call, depth: 0 };
    for item in &mut select.projection {
        name_item(item);
        let _ = item.visit(&mut names);
    }
    if let Some(having) = &mut select.having {
        let _ = having.visit(&mut names);
    }
    let outputs: Vec<String> = select.projection.iter().filter_map(output_name).collect();
    let Some(order_by) = &mut query.order_by else { return };
    let OrderByKind::Expressions(exprs) = &mut order_by.kind else {
        return;
    };
    for order in exprs {
        let is_output = matches!(&order.expr, Expr::Identifier(name) if outputs.contains(&name.value));
        if !is_output {
            let _ = order.visit(&mut names);
        }
    }
}

/// The call of tumble that a SELECT groups by: written there, by number, or by an alias of the projection.
fn window_call(select: &Select) -> Option<Function> {
    let GroupByExpr::Expressions(groups, _) = &select.group_by else {
        return None;
    };
    groups.iter().find_map(|group| match group {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => {
                let index = number.parse::<usize>().ok()?.checked_sub(1)?;
                as_tumble(item_expr(select.projection.get(index)?)?)
            }
            _ => None,
        },
        Expr::Identifier(name) => select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if alias.value == name.value => as_tumble(expr),
            _ => None,
        }),
        group => as_tumble(group),
    })
}

fn as_tumble(expr: &Expr) -> Option<Function> {
    match expr {
        Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case("tumble") => Some(call.clone()),
        _ => None,
    }
}

fn item_expr(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

fn output_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.value.clone()),
        _ => None,
    }
}

/// A bare name keeps its name, and a bare `tumble(…)` is `window_start`.
fn name_item(item: &mut SelectItem) {
    let SelectItem::UnnamedExpr(expr) = item else { return };
    let alias = match &*expr {
        Expr::Identifier(name) if window_name(name).is_some() => name.clone(),
        expr if as_tumble(expr).is_some() => Ident::new(NAMES[0]),
        _ => return,
    };
    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
}

fn window_name(name: &Ident) -> Option<&'static str> {
    let folded = if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() };
    NAMES.into_iter().find(|known| *known == folded)
}

/// Replaces names, but not inside sub-queries: those have columns of their own.
struct Names<'a> {
    call: &'a Function,
    depth: usize,
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr
            && self.depth == 0
            && let Some(known) = window_name(name)
        {
            *expr = self.meaning(known);
        }
        ControlFlow::Continue(())
    }
}

impl Names<'_> {
    fn meaning(&self, name: &str) -> Expr {
        let start = Expr::Function(self.call.clone());
        if name == NAMES[0] {
            return start;
        }
        let mut call = self.call.clone();
        call.name = ObjectName::from(vec![Ident::new(name)]);
        let size = match &self.call.args {
            FunctionArguments::List(list) => list.args.last().cloned(),
            _ => None,
        };
        call.args = FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: std::iter::once(FunctionArg::Unnamed(FunctionArgExpr::Expr(start))).chain(size).collect(),
            clauses: vec![],
        });
        Expr::Function(call)
    }
}
