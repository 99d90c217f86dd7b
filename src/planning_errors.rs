//! What the planner says of a query, with what it leaves out: the place, and the nearest name that there is.

use datafusion::common::{DataFusionError, SchemaError, TableReference};
use datafusion::execution::context::SessionContext;
use datafusion::sql::parser::Statement;

use crate::error::{Error, Location, place_of};
use crate::plan::WINDOW_FUNCTIONS;
use crate::sql::{self, places};

/// An error of planning `statement` as it is told to a person.
pub(crate) fn told(ctx: &SessionContext, statement: &Statement, error: DataFusionError) -> DataFusionError {
    if let Some(own) = Error::find(&error)
        && own.location().is_none()
    {
        let place = match own {
            Error::Refused { what, about: Some(name), .. } => clause(statement, what)
                .or_else(|| places::relation(statement, name))
                .or_else(|| places::call(statement, name)),
            // Errors of these functions are ours, and know no place.
            _ => WINDOW_FUNCTIONS.iter().find_map(|name| places::call(statement, name)),
        };
        return Error::locate(error, place);
    }
    if let DataFusionError::SchemaError(inner, _) = error.find_root()
        && let SchemaError::FieldNotFound { field, valid_fields } = inner.as_ref()
    {
        let at = place_of(&error).or_else(|| places::column(statement, &field.name));
        let told = Error::sql(format!("there is no column {field}")).at(at);
        let names = valid_fields.iter().map(|column| column.name.as_str());
        return match sql::nearest(&field.name, names.clone()) {
            Some(nearest) => told.help(format!("did you mean {nearest}?")).into(),
            None => told.help(format!("columns are {}", names.collect::<Vec<_>>().join(", "))).into(),
        };
    }
    let message = error.find_root().strip_backtrace();
    let between = |before: &str, after: char| message.split_once(before).and_then(|(_, rest)| rest.split(after).next());
    if let Some(call) = between("given name and argument types '", '\'') {
        return unfit_arguments(statement, call, &message);
    }
    if let Some(told) = name_or_frame(statement, &message)
        .or_else(|| over(statement, &message))
        .or_else(|| literal(statement, &message))
        .or_else(|| interval(statement, &message))
        .or_else(|| limit(statement, &message))
        .or_else(|| aggregate(ctx, statement, &message))
    {
        return told.into();
    }
    let quoted = |before: &str| message.split_once(before).and_then(|(_, rest)| rest.split('\'').next());
    if let Some(name) = quoted("Invalid function '") {
        return unknown_function(ctx, name).at(place_of(&error).or_else(|| places::call(statement, name))).into();
    }
    match quoted("table '").filter(|_| message.ends_with("' not found") && !message.contains("table function '")) {
        Some(name) => {
            let bare = name.rsplit('.').next().unwrap_or(name);
            let at = place_of(&error).or_else(|| places::relation(statement, bare));
            unknown(ctx, "stream or table", name).at(at).into()
        }
        None => error,
    }
}

/// The place of the clause that a refusal begins with, whose expressions may have lost theirs.
fn clause(statement: &Statement, what: &str) -> Option<Location> {
    match what {
        _ if what.starts_with("ORDER BY") => places::order_by(statement),
        // Which DISTINCT is, too.
        _ if what.starts_with("GROUP BY") => places::distinct(statement),
        _ if what.contains("FULL JOIN") => places::full_join(statement),
        _ => None,
    }
}

/// What is wrong with names that two things share, or with the frame of an OVER.
fn name_or_frame(statement: &Statement, message: &str) -> Option<Error> {
    let after = |text: &str| message.split_once(text).map(|(_, rest)| rest);
    if let Some(frame) = after("Invalid window frame: ") {
        let error = Error::sql(format!("a window frame whose {frame}")).at(places::over(statement));
        return Some(error.help("the first bound is the earlier one: ROWS BETWEEN 3 PRECEDING AND CURRENT ROW"));
    }
    if let Some(name) = after("Schema contains duplicate qualified field name ") {
        let relation = name.rsplit_once('.').map_or(name, |(relation, _)| relation);
        let bare = relation.rsplit('.').next().unwrap_or(relation);
        let error = Error::sql(format!("{bare} is read twice under one name")).at(places::relation(statement, bare));
        return Some(error.help(format!("give each a name: FROM {bare} AS a, {bare} AS b")));
    }
    let ambiguous = || after(" and unqualified field name ").and_then(|rest| rest.split(' ').next());
    repeated_name(message).or_else(ambiguous).map(|name| two_columns(statement, name))
}

/// What DataFusion says of OVER in its own words: these, what it is told as, and what helps.
const OVER: [(&str, &str, &str); 8] = [
    (
        "Physical plan does not support logical expression WindowFunction",
        "OVER in WHERE, GROUP BY or HAVING",
        "write QUALIFY …, or OVER in a sub-query",
    ),
    ("NTILE requires a positive integer", "ntile of what is no positive number", "write ntile(4)"),
    (
        "There is only support Literal types for field",
        "a parameter that is no constant",
        "write a number: lag(v, 1), nth_value(v, 2), ntile(4)",
    ),
    ("Expected an integer value", "a number of rows that is not whole", "write a whole number: lag(v, 2)"),
    ("Expected a signed integer literal", "a parameter that is no whole number", "write a number: nth_value(v, 2)"),
    (
        "RANGE requires exactly one ORDER BY column",
        "RANGE over rows in order of several columns, or of none",
        "ORDER BY one column, or take ROWS",
    ),
    ("GROUPS requires an ORDER BY clause", "GROUPS over rows in no order", "write ORDER BY"),
    (
        "FILTER clause can only be used with aggregate window functions",
        "FILTER for a function that is no aggregate",
        "filter the rows in a sub-query",
    ),
];

/// What is wrong with an OVER.
fn over(statement: &Statement, message: &str) -> Option<Error> {
    if let Some((_, rest)) = message.split_once("The window ")
        && let Some((name, _)) = rest.split_once(" is not defined!")
    {
        let error = Error::sql(format!("there is no window {name}")).at(places::over(statement));
        return Some(
            error.help(format!("name it after the WHERE and GROUP BY: WINDOW {name} AS (PARTITION BY … ORDER BY …)")),
        );
    }
    let (_, told, help) = OVER.into_iter().find(|(needle, ..)| message.contains(needle))?;
    Some(Error::sql(told).at(places::over(statement)).help(help))
}

/// A LIMIT or OFFSET that is no number.
fn limit(statement: &Statement, message: &str) -> Option<Error> {
    let clause = message.split_once("Expected ")?.1.split_once(" to be an integer or null")?.0;
    let error = Error::sql(format!("{clause} of what is no whole number"));
    Some(error.at(places::limit(statement, clause == "OFFSET")).help(format!("write {clause} 10")))
}

/// Text that stands for a value of another type, and is none.
fn literal(statement: &Statement, message: &str) -> Option<Error> {
    let between = |before: &str, after: &str| Some(message.split_once(before)?.1.split_once(after)?.0);
    if let Some(text) = between("Error parsing timestamp from '", "': ") {
        let error = Error::sql(format!("'{text}' is no timestamp")).at(Some(places::text(statement, text)?));
        return Some(error.help("write '2024-03-01T12:00:00'"));
    }
    let text = between("Cannot cast string '", "' to value of ")?;
    let data_type = between("' to value of ", " type")?;
    let error = Error::sql(format!("'{text}' is no {data_type}")).at(Some(places::text(statement, text)?));
    Some(error.help("compare values of one type, or cast the column to text"))
}

/// Text that is no interval, or too long a one.
fn interval(statement: &Statement, message: &str) -> Option<Error> {
    let between = |before: &str, after: &str| Some(message.split_once(before)?.1.split_once(after)?.0);
    if let Some(length) = between("Unable to represent ", " in a signed") {
        let number = length.split(' ').next().unwrap_or(length);
        let at = places::text(statement, length).or_else(|| places::text(statement, number));
        return Some(Error::sql(format!("an interval of {length} is too long")).at(at).help("write INTERVAL '1 hour'"));
    }
    if let Some(number) = between("Overflow happened on: ", " * ") {
        let is_it = |text: &str| text.split(|part: char| !part.is_ascii_digit()).any(|part| part == number);
        let at = places::text_that(statement, is_it)?;
        let error = Error::sql(format!("an interval of {number} of its unit is too long")).at(Some(at));
        return Some(error.help("write INTERVAL '1 hour'"));
    }
    let text = between("Invalid input syntax for type interval: \"", "\"")?;
    let error = Error::sql(format!("'{text}' is no interval")).at(places::text(statement, text));
    Some(error.help("write INTERVAL '1 hour', INTERVAL '5' MINUTE or INTERVAL '1 day 2 hours'"))
}

/// An aggregate where there can be none.
fn aggregate(ctx: &SessionContext, statement: &Statement, message: &str) -> Option<Error> {
    if !message.contains("Aggregate functions are not allowed in the WHERE clause") {
        return None;
    }
    let state = ctx.state();
    let at = places::call_in_where(statement, &|name| state.aggregate_functions().contains_key(name));
    let error = Error::sql("an aggregate in WHERE, which is about single rows").at(at);
    Some(error.help("write it into HAVING, after GROUP BY"))
}

/// The name of a SELECT's columns that `message` says are called the same.
fn repeated_name(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("require unique expression names but the expression \"")?;
    let (expr, _) = rest.split_once("\" at position")?;
    let name = expr.rsplit_once(" AS ").map_or(expr, |(_, name)| name);
    Some(name.rsplit('.').next().unwrap_or(name).trim_matches('"'))
}

/// Two columns of one name, of which a window may have made one.
fn two_columns(statement: &Statement, name: &str) -> Error {
    let (what, help) = match name.starts_with("window_") {
        true => (
            format!("there are two columns {name}: the rows have one, and the window adds one"),
            format!("name it otherwise where the rows come from: SELECT {name} AS …"),
        ),
        false => (
            format!("two columns of one SELECT are called {name}"),
            "give one of them another name with AS".to_string(),
        ),
    };
    Error::sql(what).at(places::column(statement, name)).help(help)
}

/// A function that takes no such arguments: `call` is its name and their types.
fn unfit_arguments(statement: &Statement, call: &str, message: &str) -> DataFusionError {
    let name = call.split('(').next().unwrap_or_default();
    let error = Error::sql(format!("there is no {call}")).at(places::call(statement, name));
    let candidates: Vec<_> = message.lines().map(str::trim).filter(|line| line.starts_with(name)).collect();
    error.help(format!("cast the argument; {name} is one of {}", candidates.join(", "))).into()
}

fn unknown_function(ctx: &SessionContext, name: &str) -> Error {
    let state = ctx.state();
    let scalar = state.scalar_functions().keys();
    let names: Vec<&String> =
        scalar.chain(state.aggregate_functions().keys()).chain(state.window_functions().keys()).collect();
    if state.window_functions().contains_key(&name.to_lowercase()) {
        let error = Error::sql(format!("{name} without OVER"));
        return error.help(format!("write {name}(…) OVER (ORDER BY …)"));
    }
    let error = Error::sql(format!("there is no function {name}"));
    match sql::nearest(name, names.iter().map(|name| name.as_str())) {
        Some(nearest) => error.help(format!("did you mean {nearest}?")),
        None => error.help("SHOW FUNCTIONS lists what there is"),
    }
}

/// The error that `kind` `name` is not there, with the nearest name that is.
pub(crate) fn unknown(ctx: &SessionContext, kind: &str, name: &str) -> Error {
    let state = ctx.state();
    let catalog = &state.config_options().catalog;
    let defaults = [&catalog.default_catalog, &catalog.default_schema];
    let name = defaults.into_iter().fold(name, |name, default| {
        name.strip_prefix(default.as_str()).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
    });
    let known = state.schema_for_ref(TableReference::bare("any")).map(|schema| schema.table_names());
    let error = Error::sql(format!("there is no {kind} {name}"));
    match sql::nearest(name.rsplit('.').next().unwrap_or(name), known.unwrap_or_default().iter().map(String::as_str)) {
        Some(nearest) => error.help(format!("did you mean {nearest}?")),
        None => error.help("SHOW TABLES lists what there is; CREATE STREAM … makes a stream of files"),
    }
}
