//! `window_start`, `window_end` and `window_time` by name, where a SELECT groups by `tumble(…)`, `date_bin(…)` or
//! `date_trunc(…)`.
//!
//! The names are replaced by what they mean, over the very call that the query groups by, so that DataFusion's
//! planner sees expressions over a group key and nothing new. What the query reads may have columns of these names: that
//! is for somebody to say who knows them.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident,
    Interval, ObjectName, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, Value, VisitMut, VisitorMut,
};

/// The event time of a windowed result: the last tick of a window.
pub(crate) const WINDOW_TIME: &str = "window_time";
const NAMES: [&str; 3] = ["window_start", "window_end", WINDOW_TIME];
/// Functions that are windows by name.
const WINDOWS: [&str; 4] = ["tumble", "hop", "cumulate", "session"];

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

/// The names that a SELECT speaks of its window by.
pub(crate) struct WindowNames {
    /// Where it does.
    pub(crate) used: Vec<Ident>,
    /// Whether the window is one of `date_bin` or `date_trunc`, which are common functions.
    pub(crate) is_bin: bool,
}

/// What [`resolve_names`] would replace in a SELECT; none if that is nothing.
pub(crate) fn window_names(select: &Select, order_by: Option<&OrderBy>) -> Option<WindowNames> {
    let is_window = kind_of_window(select)?;
    let (mut resolved, mut order) = (select.clone(), order_by.cloned());
    resolve(&mut resolved, order.as_mut(), is_window);
    let is_resolved = resolved == *select && order.as_ref() == order_by;
    (!is_resolved).then(|| WindowNames { used: used_names(select), is_bin: window_call(select, as_window).is_none() })
}

/// Replaces the names in a SELECT that groups by a window, but not in its sub-queries.
pub(crate) fn resolve_names(select: &mut Select, order_by: Option<&mut OrderBy>) {
    if let Some(is_window) = kind_of_window(select) {
        resolve(select, order_by, is_window);
    }
}

/// What a SELECT groups by is a window by name, or one of bins.
fn kind_of_window(select: &Select) -> Option<IsWindow> {
    [as_window as IsWindow, as_bin].into_iter().find(|is_window| window_call(select, *is_window).is_some())
}

/// The names among the expressions of a SELECT, but for those that are aliases beside the SELECT list.
fn used_names(select: &Select) -> Vec<Ident> {
    let mut select = select.clone();
    let aliases: Vec<String> = select.projection.iter().filter_map(alias).collect();
    let call = kind_of_window(&select).and_then(|is_window| window_call(&select, is_window));
    let (mut listed, mut others) = (vec![], vec![]);
    let of = |found: &mut Vec<Ident>, expr: &Expr| {
        if let Expr::Identifier(name) = expr {
            found.extend(window_name(name).map(|_| name.clone()));
        }
    };
    let mut list = OwnExprs::new(call.as_ref(), |expr: &mut Expr| of(&mut listed, expr));
    let _ = select.projection.visit(&mut list);
    let _ = select.named_window.visit(&mut list);
    let mut rest = OwnExprs::new(call.as_ref(), |expr: &mut Expr| of(&mut others, expr));
    let _ = select.group_by.visit(&mut rest);
    let _ = select.having.visit(&mut rest);
    let _ = select.qualify.visit(&mut rest);
    others.retain(|name| !aliases.contains(&name.value));
    listed.append(&mut others);
    listed
}

/// Whether a column bears one of the names.
pub(crate) fn is_window_name(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Whether a function is a window by name.
pub(crate) fn is_window_function(name: &str) -> bool {
    WINDOWS.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// What makes a window of an expression.
type IsWindow = fn(&Expr) -> Option<Function>;

fn resolve(select: &mut Select, order_by: Option<&mut OrderBy>, is_window: IsWindow) {
    let Some(call) = window_call(select, is_window) else { return };
    let aliases: Vec<String> = select.projection.iter().filter_map(alias).collect();
    group_by_window(select, &Names { call: &call, aliases: &aliases });
    let mut names: Vec<String> = select.projection.iter().filter_map(output_name).collect();
    for item in &mut select.projection {
        name_item(item, is_window, &mut names);
        Names { call: &call, aliases: &[] }.resolve(item);
    }
    for window in &mut select.named_window {
        Names { call: &call, aliases: &[] }.resolve(window);
    }
    // Beside the SELECT list an alias comes first.
    let names = Names { call: &call, aliases: &aliases };
    select.having.iter_mut().chain(&mut select.qualify).for_each(|condition| names.resolve(condition));
    let outputs: Vec<String> = select.projection.iter().filter_map(output_name).collect();
    group_by_ends(select);
    let Some(OrderByKind::Expressions(exprs)) = order_by.map(|order_by| &mut order_by.kind) else {
        return;
    };
    for order in exprs {
        let is_output = matches!(&order.expr, Expr::Identifier(name) if outputs.contains(&name.value));
        if !is_output {
            names.resolve(order);
        }
    }
}

/// A bound among what a SELECT groups by is that of its window: it adds nothing, but for ends that the start does not tell.
fn group_by_window(select: &mut Select, names: &Names) {
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return };
    let mut resolved: Vec<Expr> = vec![];
    for group in groups.drain(..) {
        let name = match &group {
            Expr::Identifier(name) => {
                window_name(name).filter(|known| !names.aliases.iter().any(|alias| alias == known))
            }
            _ => None,
        };
        let group = match name {
            Some(name) if name == NAMES[0] || has_own_end(names.call) => names.meaning(name),
            Some(_) => continue,
            None => group,
        };
        if !resolved.contains(&group) {
            resolved.push(group);
        }
    }
    *groups = resolved;
}

/// Where a window's start does not tell its end, the end is one more thing that the query groups by.
fn group_by_ends(select: &mut Select) {
    let mut found = vec![];
    let mut ends = OwnExprs::new(None, |expr: &mut Expr| {
        if is_own_end(expr) && !found.contains(expr) {
            found.push(expr.clone());
        }
    });
    for item in &mut select.projection {
        let _ = item.visit(&mut ends);
    }
    let _ = select.named_window.visit(&mut ends);
    for condition in select.having.iter_mut().chain(&mut select.qualify) {
        let _ = condition.visit(&mut ends);
    }
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return };
    let add = |groups: &mut Vec<Expr>| {
        let new: Vec<Expr> = found.iter().filter(|end| !groups.contains(end)).cloned().collect();
        groups.extend(new);
    };
    // Where a set leaves the window out, it leaves out its end.
    let has_window = |set: &Vec<Expr>| set.iter().any(|expr| as_window(expr).is_some());
    let mut is_in_sets = false;
    for group in groups.iter_mut().filter(|_| !found.is_empty()) {
        if let Some(sets) = sets_of(group).filter(|sets| sets.iter().any(has_window)) {
            *group = Expr::GroupingSets(sets);
        }
        if let Expr::GroupingSets(sets) = group {
            sets.iter_mut().filter(|set| has_window(set)).for_each(|set| {
                add(set);
                is_in_sets = true;
            });
        }
    }
    if !is_in_sets {
        add(groups);
    }
}

/// The sets that ROLLUP and CUBE stand for.
fn sets_of(group: &Expr) -> Option<Vec<Vec<Expr>>> {
    match group {
        Expr::Rollup(parts) => Some((0..=parts.len()).rev().map(|length| parts[..length].concat()).collect()),
        // As many as DataFusion takes.
        Expr::Cube(parts) if parts.len() < 16 => {
            let set = |chosen: u32| {
                let parts = parts.iter().enumerate().filter(|(index, _)| chosen >> index & 1 == 1);
                parts.flat_map(|(_, part)| part.clone()).collect()
            };
            Some((0..1 << parts.len()).rev().map(set).collect())
        }
        _ => None,
    }
}

fn is_own_end(expr: &Expr) -> bool {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else { return false };
    let is_bound = NAMES[1..].contains(&name.to_string().to_lowercase().as_str());
    let of = match list.args.first() {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(of))) => as_window(of),
        _ => None,
    };
    is_bound && of.is_some_and(|call| has_own_end(&call))
}

fn alias(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        _ => None,
    }
}

/// The window that a SELECT groups by: written there, by number, or by an alias of the projection.
fn window_call(select: &Select, is_window: IsWindow) -> Option<Function> {
    let GroupByExpr::Expressions(groups, _) = &select.group_by else {
        return None;
    };
    groups.iter().find_map(|group| match group {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => {
                let index = number.parse::<usize>().ok()?.checked_sub(1)?;
                is_window(item_expr(select.projection.get(index)?)?)
            }
            _ => None,
        },
        Expr::Identifier(name) => select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if alias.value == name.value => is_window(expr),
            _ => None,
        }),
        Expr::Rollup(sets) | Expr::Cube(sets) | Expr::GroupingSets(sets) => sets.iter().flatten().find_map(is_window),
        group => is_window(group),
    })
}

fn has_own_end(call: &Function) -> bool {
    ["cumulate", "session"].contains(&call.name.to_string().to_lowercase().as_str())
}

fn as_window(expr: &Expr) -> Option<Function> {
    match expr {
        Expr::Function(call) if WINDOWS.contains(&call.name.to_string().to_lowercase().as_str()) => Some(call.clone()),
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

/// The length of a window, and the time zone that it follows.
fn size_of_window(call: &Function) -> Vec<FunctionArg> {
    let FunctionArguments::List(list) = &call.args else { return vec![] };
    let as_expr = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    // A column may be still to come before them, and an offset may follow.
    let has_time = list.args.first().and_then(as_expr).is_some_and(|first| !matches!(first, Expr::Interval(_)));
    let is_double = matches!(call.name.to_string().to_lowercase().as_str(), "hop" | "cumulate");
    let mut rest = list.args.iter().skip(usize::from(has_time) + usize::from(is_double));
    let size = rest.next().cloned();
    let is_text = |arg: &&FunctionArg| matches!(as_expr(arg), Some(Expr::Value(value)) if matches!(value.value, Value::SingleQuotedString(_)));
    let zone = rest.next().filter(is_text).cloned();
    size.into_iter().chain(zone).collect()
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

/// A bare name keeps its name, and the first bare window function is `window_start`, if nothing else is.
fn name_item(item: &mut SelectItem, is_window: IsWindow, names: &mut Vec<String>) {
    let SelectItem::UnnamedExpr(expr) = item else { return };
    let alias = match &*expr {
        Expr::Identifier(name) if window_name(name).is_some() => name.clone(),
        expr if as_window(expr).is_some() && is_window(expr).is_some() => Ident::new(NAMES[0]),
        _ => return,
    };
    if !matches!(&*expr, Expr::Identifier(_)) && names.contains(&alias.value) {
        return;
    }
    names.push(alias.value.clone());
    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
}

fn window_name(name: &Ident) -> Option<&'static str> {
    let folded = if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() };
    NAMES.into_iter().find(|known| *known == folded)
}

/// Visits the expressions of a SELECT, but not those of its sub-queries, which have columns of their own, nor those that
/// its window is over.
struct OwnExprs<'a, F> {
    visit: F,
    window: Option<&'a Function>,
    depth: usize,
}

impl<'a, F: FnMut(&mut Expr)> OwnExprs<'a, F> {
    fn new(window: Option<&'a Function>, visit: F) -> Self {
        Self { visit, window, depth: 0 }
    }

    fn is_window(&self, expr: &Expr) -> bool {
        matches!(expr, Expr::Function(call) if self.window == Some(call))
    }
}

impl<F: FnMut(&mut Expr)> VisitorMut for OwnExprs<'_, F> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.depth += usize::from(self.is_window(expr));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.is_window(expr) {
            self.depth -= 1;
        } else if self.depth == 0 {
            (self.visit)(expr);
        }
        ControlFlow::Continue(())
    }
}

/// What the names mean in a SELECT.
struct Names<'a> {
    call: &'a Function,
    /// Names that mean something else here.
    aliases: &'a [String],
}

impl Names<'_> {
    /// Puts what they mean in place of the names.
    fn resolve<T: VisitMut>(&self, syntax: &mut T) {
        let _ = syntax.visit(&mut OwnExprs::new(Some(self.call), |expr: &mut Expr| {
            if let Expr::Identifier(name) = expr
                && let Some(known) = window_name(name)
                && !self.aliases.iter().any(|alias| alias == known)
            {
                *expr = self.meaning(known);
            }
        }));
    }

    fn meaning(&self, name: &str) -> Expr {
        let start = Expr::Function(self.call.clone());
        if name == NAMES[0] {
            return start;
        }
        let mut call = self.call.clone();
        call.name = ObjectName::from(vec![Ident::new(name)]);
        let size = size_of_bin(self.call).map(|size| vec![size]).unwrap_or_else(|| size_of_window(self.call));
        call.args = FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: std::iter::once(FunctionArg::Unnamed(FunctionArgExpr::Expr(start))).chain(size).collect(),
            clauses: vec![],
        });
        Expr::Function(call)
    }
}
