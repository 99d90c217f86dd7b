//! `window_start`, `window_end` and `window_time` by name, where a SELECT groups by `tumble(…)`, `date_bin(…)` or
//! `date_trunc(…)`.
//!
//! The names are replaced by what they mean, over the very call that the query groups by, so that DataFusion's
//! planner sees expressions over a group key and nothing new. `tumble` is a window by name. The other two are common
//! functions, over whose results a table may have such columns of its own, so they wait for somebody who knows.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident,
    Interval, ObjectName, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, Value, VisitMut, VisitorMut,
};

const NAMES: [&str; 3] = ["window_start", "window_end", "window_time"];

/// Replaces the names in every SELECT of a statement that groups by `tumble`.
pub(super) fn resolve_window_names<T: VisitMut>(statement: &mut T) {
    struct Queries;
    impl VisitorMut for Queries {
        type Break = ();
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            for_each_select(query, &mut |select, order_by| resolve(select, order_by, as_tumble));
            ControlFlow::Continue(())
        }
    }
    let _ = statement.visit(&mut Queries);
}

/// Calls `act` with each SELECT of a query, those of a UNION among them, and with the ORDER BY of the only one.
pub(crate) fn for_each_select(query: &mut Query, act: &mut impl FnMut(&mut Select, Option<&mut OrderBy>)) {
    match query.body.as_mut() {
        SetExpr::Select(select) => act(select, query.order_by.as_mut()),
        body => for_each_branch(body, act),
    }
}

fn for_each_branch(body: &mut SetExpr, act: &mut impl FnMut(&mut Select, Option<&mut OrderBy>)) {
    match body {
        SetExpr::Select(select) => act(select, None),
        SetExpr::SetOperation { left, right, .. } => {
            for_each_branch(left, act);
            for_each_branch(right, act);
        }
        _ => {}
    }
}

/// Replaces the names in a SELECT that groups by `date_bin` or `date_trunc`, but not in its sub-queries.
pub(crate) fn resolve_bin_names(select: &mut Select, order_by: Option<&mut OrderBy>) {
    resolve(select, order_by, as_bin);
}

/// Whether a SELECT groups by `date_bin` or `date_trunc` and speaks of a window by name.
pub(crate) fn names_bins(select: &Select, order_by: Option<&OrderBy>) -> bool {
    if window_call(select, as_bin).is_none() {
        return false;
    }
    let (mut resolved, mut order) = (select.clone(), order_by.cloned());
    resolve_bin_names(&mut resolved, order.as_mut());
    resolved != *select || order.as_ref() != order_by
}

/// Whether a column bears one of the names.
pub(crate) fn is_window_name(name: &str) -> bool {
    NAMES.contains(&name)
}

/// What makes a window of an expression.
type AsWindow = fn(&Expr) -> Option<Function>;

fn resolve(select: &mut Select, order_by: Option<&mut OrderBy>, as_window: AsWindow) {
    let Some(call) = window_call(select, as_window) else { return };
    let aliases: Vec<String> = select.projection.iter().filter_map(alias).collect();
    for item in &mut select.projection {
        name_item(item, as_window);
        let _ = item.visit(&mut Names { call: &call, aliases: &[], depth: 0 });
    }
    // Beside the SELECT list an alias comes first.
    let mut names = Names { call: &call, aliases: &aliases, depth: 0 };
    if let Some(having) = &mut select.having {
        let _ = having.visit(&mut names);
    }
    let outputs: Vec<String> = select.projection.iter().filter_map(output_name).collect();
    let Some(OrderByKind::Expressions(exprs)) = order_by.map(|order_by| &mut order_by.kind) else {
        return;
    };
    for order in exprs {
        let is_output = matches!(&order.expr, Expr::Identifier(name) if outputs.contains(&name.value));
        if !is_output {
            let _ = order.visit(&mut names);
        }
    }
}

fn alias(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        _ => None,
    }
}

/// The window that a SELECT groups by: written there, by number, or by an alias of the projection.
fn window_call(select: &Select, as_window: AsWindow) -> Option<Function> {
    let GroupByExpr::Expressions(groups, _) = &select.group_by else {
        return None;
    };
    groups.iter().find_map(|group| match group {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => {
                let index = number.parse::<usize>().ok()?.checked_sub(1)?;
                as_window(item_expr(select.projection.get(index)?)?)
            }
            _ => None,
        },
        Expr::Identifier(name) => select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if alias.value == name.value => as_window(expr),
            _ => None,
        }),
        group => as_window(group),
    })
}

fn as_tumble(expr: &Expr) -> Option<Function> {
    match expr {
        Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case("tumble") => Some(call.clone()),
        _ => None,
    }
}

fn as_bin(expr: &Expr) -> Option<Function> {
    match expr {
        Expr::Function(call) if size_of_bin(call).is_some() => Some(call.clone()),
        _ => None,
    }
}

/// The length of the bins of `date_bin(interval, ts)` or `date_trunc('hour', ts)`.
fn size_of_bin(call: &Function) -> Option<FunctionArg> {
    let FunctionArguments::List(list) = &call.args else {
        return None;
    };
    let first = list.args.first()?;
    match (call.name.to_string().to_lowercase().as_str(), first) {
        ("date_bin", _) => Some(first.clone()),
        ("date_trunc", FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(unit)))) => {
            let unit = unit.value.clone().into_string()?;
            let interval = Interval {
                value: Box::new(Expr::value(Value::SingleQuotedString(format!("1 {unit}")))),
                leading_field: None,
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            };
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Interval(interval))))
        }
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
fn name_item(item: &mut SelectItem, as_window: AsWindow) {
    let SelectItem::UnnamedExpr(expr) = item else { return };
    let alias = match &*expr {
        Expr::Identifier(name) if window_name(name).is_some() => name.clone(),
        expr if as_tumble(expr).is_some() && as_window(expr).is_some() => Ident::new(NAMES[0]),
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
    /// Names that mean something else here.
    aliases: &'a [String],
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
            && !self.aliases.iter().any(|alias| alias == known)
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
        let size = size_of_bin(self.call).or_else(|| match &self.call.args {
            // An offset may follow, and a column may be still to come before it.
            FunctionArguments::List(list) => list.args.get(1).or(list.args.first()).cloned(),
            _ => None,
        });
        call.args = FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: std::iter::once(FunctionArg::Unnamed(FunctionArgExpr::Expr(start))).chain(size).collect(),
            clauses: vec![],
        });
        Expr::Function(call)
    }
}
