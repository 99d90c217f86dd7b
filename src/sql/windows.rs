//! The spellings of windows that sqlparser does not read: window table functions and the WINDOW TUMBLING clause.
//!
//! A table function becomes a sub-query that adds the window's columns; a clause becomes one more group expression.

use datafusion::common::Result;
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::Error;

use super::clauses::duration;
use super::tokens::{Tokens, are_words, closing, depths, is, is_word, list_items, location_at, snippet, text, word};

/// Rewrites `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), size))`, innermost first.
///
/// # Errors
/// Other windows, wrong arguments.
pub(super) fn rewrite_table_functions(tokens: &mut Tokens, dialect: &dyn Dialect) -> Result<()> {
    while let Some(call) = (0..tokens.len()).rev().find(|index| is_table_function(tokens, *index)) {
        refuse_other_windows(tokens, call, &["tumble"], "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)")?;
        let close = closing(tokens, call + 1)?;
        let subquery = table_function(tokens, call, close)?;
        let in_table = call >= 2
            && is(tokens, call - 1, &Token::LParen)
            && is_word(tokens, call - 2, "TABLE")
            && is(tokens, close + 1, &Token::RParen);
        let (begin, end) = if in_table { (call - 2, close + 2) } else { (call, close + 1) };
        let span = tokens[call].span;
        tokens.splice(begin..end, snippet(&subquery, span, dialect)?);
    }
    Ok(())
}

fn is_table_function(tokens: &Tokens, index: usize) -> bool {
    let named = ["tumble", "hop", "cumulate", "session"].iter().any(|name| is_word(tokens, index, name));
    let has_data = is_word(tokens, index + 2, "TABLE")
        || (is_word(tokens, index + 2, "DATA") && is(tokens, index + 3, &Token::RArrow));
    named && is(tokens, index + 1, &Token::LParen) && has_data
}

fn refuse_other_windows(tokens: &Tokens, index: usize, supported: &[&str], instead: &str) -> Result<()> {
    let name = word(tokens, index).unwrap_or_default();
    if supported.contains(&name.as_str()) {
        return Ok(());
    }
    Err(Error::refused(format!("{} window", name.to_uppercase()), "the one kind of window is TUMBLE", instead)
        .at(location_at(tokens, index))
        .into())
}

fn table_function(tokens: &Tokens, call: usize, close: usize) -> Result<String> {
    let usage = |message: &str| {
        Error::sql(message).at(location_at(tokens, call)).help("TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)")
    };
    let items = list_items(&tokens[call + 2..close]);
    let (data, time, size, offset) = match items.as_slice() {
        [data, time, size] => (data, time, size, None),
        [data, time, size, offset] => (data, time, size, Some(duration(argument(offset, "OFFSET"))?)),
        _ => return Err(usage("TUMBLE takes a table, a time column, a size and maybe an offset").into()),
    };
    let data = argument(data, "DATA");
    let time = argument(time, "TIMECOL");
    let size = duration(argument(size, "SIZE"))?;
    if !is_word(data, 0, "TABLE") || data.len() < 2 {
        return Err(usage("the first argument of TUMBLE is TABLE and a name").into());
    }
    if !is_word(time, 0, "DESCRIPTOR") || !is(time, 1, &Token::LParen) || time.len() < 4 {
        return Err(usage("the second argument of TUMBLE is DESCRIPTOR(time column)").into());
    }
    let (data, time) = (text(&data[1..]), text(&time[2..time.len() - 1]));
    let start = match offset {
        Some(offset) => format!("tumble({time}, {size}, {offset})"),
        None => format!("tumble({time}, {size})"),
    };
    Ok(format!(
        "(SELECT *, {start} AS window_start, window_end({start}, {size}) AS window_end, \
         window_time({start}, {size}) AS window_time FROM {data})"
    ))
}

/// An argument without its name, if it has one.
fn argument<'a>(tokens: &'a [TokenWithSpan], name: &str) -> &'a [TokenWithSpan] {
    if is_word(tokens, 0, name) && is(tokens, 1, &Token::RArrow) { &tokens[2..] } else { tokens }
}

/// Rewrites `… GROUP BY k WINDOW TUMBLING (ts, SIZE 1 HOUR)`.
///
/// # Errors
/// Other windows, wrong arguments.
pub(super) fn rewrite_clauses(tokens: &mut Tokens, dialect: &dyn Dialect) -> Result<()> {
    while let Some(clause) = (0..tokens.len()).find(|index| is_clause(tokens, *index)) {
        refuse_other_windows(tokens, clause + 1, &["tumbling"], "WINDOW TUMBLING (ts, INTERVAL '1' HOUR)")?;
        let close = closing(tokens, clause + 2)?;
        let window = tumbling(&tokens[clause + 3..close])?;
        let span = tokens[clause].span;
        tokens.drain(clause..=close);
        let (at, text) = match group_by(tokens, clause) {
            Some(GroupBy::Before { end }) => (end, format!(", {window}")),
            Some(GroupBy::After { begin }) => (begin, format!("{window},")),
            None => (clause, format!("GROUP BY {window}")),
        };
        tokens.splice(at..at, snippet(&text, span, dialect)?);
    }
    Ok(())
}

fn is_clause(tokens: &Tokens, index: usize) -> bool {
    let kinds = ["tumbling", "hopping", "sliding", "session", "cumulating"];
    is_word(tokens, index, "WINDOW")
        && kinds.iter().any(|kind| is_word(tokens, index + 1, kind))
        && is(tokens, index + 2, &Token::LParen)
}

/// `(ts, size)` or `(size)` as a call of tumble; without a column the planner fills in the event time.
fn tumbling(tokens: &[TokenWithSpan]) -> Result<String> {
    match list_items(tokens).as_slice() {
        [size] => Ok(format!("tumble({})", duration(size)?)),
        [time, size] => Ok(format!("tumble({}, {})", text(time), duration(size)?)),
        _ => Err(Error::sql("WINDOW TUMBLING takes a time column and a size")
            .at(location_at(tokens, 0))
            .help("WINDOW TUMBLING (ts, INTERVAL '1' HOUR)")
            .into()),
    }
}

/// Where the GROUP BY of the clause's SELECT is.
enum GroupBy {
    /// Before the clause: its list ends before token `end`.
    Before { end: usize },
    /// After the clause: its list begins at token `begin`.
    After { begin: usize },
}

fn group_by(tokens: &Tokens, clause: usize) -> Option<GroupBy> {
    let depths = depths(tokens);
    let depth = match depths.get(clause) {
        // The clause was the last thing before a closing parenthesis.
        Some(depth) if is(tokens, clause, &Token::RParen) => *depth + 1,
        Some(depth) => *depth,
        None => 0,
    };
    let same = |index: &usize| depths.get(*index) == Some(&depth);
    if are_words(tokens, clause, &["GROUP", "BY"]) {
        return Some(GroupBy::After { begin: clause + 2 });
    }
    let select = (0..clause).rev().filter(same).find(|index| is_word(tokens, *index, "SELECT")).unwrap_or(0);
    let group = (select..clause).filter(same).find(|index| are_words(tokens, *index, &["GROUP", "BY"]))?;
    let having = (group..clause).filter(same).find(|index| is_word(tokens, *index, "HAVING"));
    Some(GroupBy::Before { end: having.unwrap_or(clause) })
}
