//! The spellings of windows that sqlparser does not read: window table functions and the WINDOW … (…) clauses.
//!
//! A table function becomes a sub-query that adds the window's columns; a clause becomes one more group expression.

use datafusion::common::Result;
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::Error;

use super::duration::{duration, is_duration};
use super::tokens::{Tokens, are_words, closing, depths, is, is_word, list_items, location_at, snippet, text, word};

/// A window table function: its name, the names of its lengths, and how it is written.
struct TableFunction {
    name: &'static str,
    /// Parameters after the time column; the one that is [`TableFunction::length`] closes the required ones.
    parameters: &'static [&'static str],
    /// Which parameter `window_end` takes.
    length: usize,
    usage: &'static str,
}

const TABLE_FUNCTIONS: [TableFunction; 4] = [
    TableFunction {
        name: "tumble",
        parameters: &["SIZE", "OFFSET"],
        length: 0,
        usage: "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)",
    },
    TableFunction {
        name: "hop",
        parameters: &["SLIDE", "SIZE", "OFFSET"],
        length: 1,
        usage: "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTES, INTERVAL '1' HOUR)",
    },
    TableFunction {
        name: "cumulate",
        parameters: &["STEP", "SIZE", "OFFSET"],
        length: 1,
        usage: "CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' MINUTES, INTERVAL '1' HOUR)",
    },
    TableFunction {
        name: "session",
        parameters: &["GAP"],
        length: 0,
        usage: "SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '30' MINUTES)",
    },
];

/// Rewrites `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), size))` and its like, innermost first.
///
/// # Errors
/// Wrong arguments.
pub(super) fn rewrite_table_functions(tokens: &mut Tokens, dialect: &dyn Dialect) -> Result<()> {
    while let Some((call, function)) = (0..tokens.len()).rev().find_map(|index| table_function(tokens, index)) {
        let close = closing(tokens, call + 1)?;
        let subquery = function.subquery(tokens, call, close)?;
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

fn table_function(tokens: &Tokens, index: usize) -> Option<(usize, &'static TableFunction)> {
    let name = word(tokens, index)?;
    let function = TABLE_FUNCTIONS.iter().find(|function| function.name == name)?;
    let has_data = is_word(tokens, index + 2, "TABLE")
        || (is_word(tokens, index + 2, "DATA") && is(tokens, index + 3, &Token::RArrow));
    (is(tokens, index + 1, &Token::LParen) && has_data).then_some((index, function))
}

impl TableFunction {
    fn subquery(&self, tokens: &Tokens, call: usize, close: usize) -> Result<String> {
        let usage = |message: String| Error::sql(message).at(location_at(tokens, call)).help(self.usage);
        let name = self.name.to_uppercase();
        let items = list_items(&tokens[call + 2..close]);
        let is_time = |item: &&[TokenWithSpan]| is_word(argument(item, "TIMECOL"), 0, "DESCRIPTOR");
        let Some(time_at) = items.iter().position(is_time) else {
            return Err(usage(format!("{name} takes a table and DESCRIPTOR(time column)")).into());
        };
        let time = argument(items[time_at], "TIMECOL");
        if !is(time, 1, &Token::LParen) || time.len() < 4 {
            return Err(usage("the time column stands in DESCRIPTOR(…)".to_string()).into());
        }
        let time = &time[2..time.len() - 1];
        if list_items(time).len() != 1 {
            return Err(usage("DESCRIPTOR takes the time column alone".to_string()).into());
        }
        let time = text(time);
        let (data, keys) = self
            .data(&items[..time_at])
            .ok_or_else(|| usage(format!("the first argument of {name} is TABLE and a name")))?;
        let lengths = self.lengths(&items[time_at + 1..]).map_err(|error| Error::locate(error, None))?;
        let Some(lengths) = lengths else {
            let parameters = self.parameters.join(", ").to_lowercase();
            return Err(usage(format!("{name} takes a table, a time column and {parameters}")).into());
        };
        let length = &lengths[self.length];
        let window = match keys.as_str() {
            "" => format!("{}({time}, {})", self.name, lengths.join(", ")),
            keys => format!("{}({time}, {}, {keys})", self.name, lengths.join(", ")),
        };
        Ok(format!(
            "(SELECT *, {window} AS window_start, window_end({window}, {length}) AS window_end, \
             window_time({window}, {length}) AS window_time FROM {data})"
        ))
    }

    /// The table, and what its sessions go by.
    fn data(&self, items: &[&[TokenWithSpan]]) -> Option<(String, String)> {
        let (first, more) = items.split_first()?;
        let data = argument(first, "DATA");
        if !is_word(data, 0, "TABLE") || data.len() < 2 {
            return None;
        }
        let partition = (1..data.len()).find(|index| are_words(data, *index, &["PARTITION", "BY"]));
        match partition {
            Some(partition) if self.name == "session" => {
                let keys = &data[partition + 2..];
                let keys = match keys {
                    [open, inner @ .., close] if open.token == Token::LParen && close.token == Token::RParen => inner,
                    keys => keys,
                };
                let keys: Vec<String> = [keys].iter().chain(more).map(|key| text(key)).collect();
                Some((text(&data[1..partition]), keys.join(", ")))
            }
            None if more.is_empty() => {
                // Without keys, all rows are in the same sessions.
                let keys = if self.name == "session" { "TRUE" } else { "" };
                Some((text(&data[1..]), keys.to_string()))
            }
            _ => None,
        }
    }

    /// The lengths in order, by name or by place; none if there are too few or too many.
    fn lengths(&self, items: &[&[TokenWithSpan]]) -> Result<Option<Vec<String>>> {
        let mut lengths: Vec<Option<String>> = vec![None; self.parameters.len()];
        for (place, item) in items.iter().enumerate() {
            let named = self.parameters.iter().position(|name| argument(item, name).len() < item.len());
            if named.is_none() && is(item, 1, &Token::RArrow) {
                let message = format!("{} has no argument {}", self.name.to_uppercase(), text(&item[..1]));
                return Err(Error::sql(message).at(location_at(item, 0)).help(self.usage).into());
            }
            let Some(slot) = lengths.get_mut(named.unwrap_or(place)) else { return Ok(None) };
            let name = named.and_then(|named| self.parameters.get(named)).unwrap_or(&"");
            *slot = Some(duration(argument(item, name))?);
        }
        let given: Vec<String> = lengths.iter().map_while(Clone::clone).collect();
        let all = lengths.iter().flatten().count() == given.len();
        Ok((all && given.len() > self.length).then_some(given))
    }
}

/// An argument without its name, if it has one.
fn argument<'a>(tokens: &'a [TokenWithSpan], name: &str) -> &'a [TokenWithSpan] {
    if is_word(tokens, 0, name) && is(tokens, 1, &Token::RArrow) { &tokens[2..] } else { tokens }
}

/// Rewrites `… GROUP BY k WINDOW TUMBLING (ts, SIZE 1 HOUR)` and its like.
///
/// # Errors
/// Wrong arguments.
pub(super) fn rewrite_clauses(tokens: &mut Tokens, dialect: &dyn Dialect) -> Result<()> {
    while let Some((clause, kind)) = (0..tokens.len()).find_map(|index| clause(tokens, index)) {
        let close = closing(tokens, clause + 2)?;
        let window = kind.call(&tokens[clause + 3..close])?;
        let span = tokens[clause].span;
        tokens.drain(clause..=close);
        if let Some(second) = another_clause(tokens, clause) {
            return Err(Error::sql("a second WINDOW clause")
                .at(location_at(tokens, second))
                .help("a SELECT has one window; another one over its results takes a sub-query")
                .into());
        }
        let (at, text) = match group_by(tokens, clause) {
            Some(GroupBy::Before { end }) => (end, format!(", {window}")),
            Some(GroupBy::After { begin }) => (begin, format!("{window},")),
            None => (clause, format!("GROUP BY {window}")),
        };
        tokens.splice(at..at, snippet(&text, span, dialect)?);
    }
    Ok(())
}

/// A window clause.
struct Clause {
    name: &'static str,
    function: &'static str,
    /// The words before each length, in the order of the clause, and its place in the function.
    lengths: &'static [(&'static [&'static str], usize)],
    usage: &'static str,
}

const CLAUSES: [Clause; 5] = [
    Clause {
        name: "tumbling",
        function: "tumble",
        lengths: &[(&["SIZE"], 0)],
        usage: "WINDOW TUMBLING (ts, INTERVAL '1' HOUR)",
    },
    Clause {
        name: "hopping",
        function: "hop",
        lengths: &[(&["SIZE"], 1), (&["ADVANCE", "BY"], 0)],
        usage: "WINDOW HOPPING (ts, SIZE 1 HOUR, ADVANCE BY 5 MINUTES)",
    },
    Clause {
        name: "sliding",
        function: "hop",
        lengths: &[(&["SIZE"], 1), (&["ADVANCE", "BY"], 0)],
        usage: "WINDOW SLIDING (ts, 1 HOUR, 5 MINUTES)",
    },
    Clause {
        name: "cumulating",
        function: "cumulate",
        lengths: &[(&["STEP"], 0), (&["SIZE"], 1)],
        usage: "WINDOW CUMULATING (ts, STEP 10 MINUTES, SIZE 1 HOUR)",
    },
    Clause {
        name: "session",
        function: "session",
        lengths: &[(&["GAP"], 0)],
        usage: "WINDOW SESSION (ts, 30 MINUTES)",
    },
];

fn clause(tokens: &Tokens, index: usize) -> Option<(usize, &'static Clause)> {
    let kind = CLAUSES.iter().find(|kind| is_word(tokens, index + 1, kind.name))?;
    (is_word(tokens, index, "WINDOW") && is(tokens, index + 2, &Token::LParen)).then_some((index, kind))
}

/// Another clause of the SELECT that had one at `from`.
fn another_clause(tokens: &Tokens, from: usize) -> Option<usize> {
    let depths = depths(tokens);
    let depth = *depths.get(from)?;
    let same_select =
        |index: &usize| depths[*index] > depth || depths[*index] == depth && !is_word(tokens, *index, "SELECT");
    let is_clause = |index: &usize| depths[*index] == depth && clause(tokens, *index).is_some();
    (from..tokens.len()).take_while(same_select).find(is_clause)
}

impl Clause {
    /// `(ts, size)` or `(size)` as a call of the function; without a column the planner fills in the event time.
    fn call(&self, tokens: &[TokenWithSpan]) -> Result<String> {
        let mut items = list_items(tokens);
        let is_named = |item: &[TokenWithSpan]| self.lengths.iter().any(|(words, _)| are_words(item, 0, words));
        let has_time = items.first().is_some_and(|first| !is_named(first) && !is_duration(first));
        let mut arguments = if has_time { vec![text(items.remove(0))] } else { vec![] };
        let mut lengths = vec![None; self.lengths.len()];
        for (item, (_, place)) in items.iter().zip(self.lengths) {
            let named = self.lengths.iter().find(|(words, _)| are_words(item, 0, words));
            let (words, place) = named.map_or((0, place), |(words, place)| (words.len(), place));
            lengths[*place] = Some(duration(&item[words..])?);
        }
        arguments.extend(lengths.into_iter().flatten());
        if items.len() != self.lengths.len() || arguments.len() != self.lengths.len() + usize::from(has_time) {
            let words: Vec<_> = self.lengths.iter().map(|(words, _)| words.join(" ")).collect();
            let message = format!("WINDOW {} takes a time column and {}", self.name.to_uppercase(), words.join(", "));
            return Err(Error::sql(message).at(location_at(tokens, 0)).help(self.usage).into());
        }
        Ok(format!("{}({})", self.function, arguments.join(", ")))
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
