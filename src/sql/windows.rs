//! The spellings of windows that sqlparser does not read: window table functions and the WINDOW … (…) clauses.
//!
//! A table function becomes a sub-query that adds the window's columns; a clause becomes one more group expression.

use datafusion::common::{DataFusionError, Result};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::Error;

use super::duration::{duration, is_duration};
use super::nearest;
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
    if !is(tokens, index + 1, &Token::LParen) {
        return None;
    }
    let first = name_of(&tokens[index + 2..]).map_or(index + 2, |_| index + 4);
    let in_table = is(tokens, index.checked_sub(1)?, &Token::LParen) && is_word(tokens, index.checked_sub(2)?, "TABLE");
    (is_word(tokens, first, "TABLE") || first > index + 2 || in_table || reads_bare_table(tokens, index))
        .then_some((index, function))
}

/// Whether a call is that of a table function by its place and by its arguments, as in `FROM TUMBLE(t, ts, size)`. What
/// `EXTRACT(hour FROM tumble(ts, size))` has after its time is a length.
fn reads_bare_table(tokens: &Tokens, call: usize) -> bool {
    let stands_for_table = ["FROM", "JOIN"].iter().any(|word| call > 0 && is_word(tokens, call - 1, word));
    let Some(close) = closing(tokens, call + 1).ok().filter(|_| stands_for_table) else { return false };
    let items = list_items(&tokens[call + 2..close]);
    items.len() > 2 && !is_duration(items[1])
}

/// The arguments of a table function, by what they are.
#[derive(Default)]
struct Arguments<'a> {
    data: Option<&'a [TokenWithSpan]>,
    /// More of what its sessions go by.
    keys: Vec<&'a [TokenWithSpan]>,
    time: Option<&'a [TokenWithSpan]>,
    /// By name or by place.
    lengths: Vec<Option<String>>,
}

impl TableFunction {
    fn subquery(&self, tokens: &Tokens, call: usize, close: usize) -> Result<String> {
        let usage = |message: String| Error::sql(message).at(location_at(tokens, call)).help(self.usage);
        let name = self.name.to_uppercase();
        let arguments = self.arguments(&tokens[call + 2..close])?;
        let time = match arguments.time {
            None => return Err(usage(format!("{name} takes a table and DESCRIPTOR(time column)")).into()),
            Some(time) if !is_word(time, 0, "DESCRIPTOR") => time,
            Some(time) if is(time, 1, &Token::LParen) && time.len() > 3 => &time[2..time.len() - 1],
            Some(_) => return Err(usage("the time column stands in DESCRIPTOR(…)".to_string()).into()),
        };
        if list_items(time).len() != 1 {
            return Err(usage("DESCRIPTOR takes the time column alone".to_string()).into());
        }
        let time = text(time);
        let (data, keys) =
            self.data(&arguments).ok_or_else(|| usage(format!("the first argument of {name} is TABLE and a name")))?;
        let lengths: Vec<String> = arguments.lengths.iter().map_while(Clone::clone).collect();
        let has_gap = arguments.lengths.iter().flatten().count() > lengths.len();
        if has_gap || lengths.len() <= self.length || lengths.len() > self.parameters.len() {
            let parameters = self.parameters.join(", ").to_lowercase();
            return Err(usage(format!("{name} takes a table, a time column and {parameters}")).into());
        }
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

    fn arguments<'a>(&self, tokens: &'a [TokenWithSpan]) -> Result<Arguments<'a>> {
        let mut found = Arguments { lengths: vec![None; self.parameters.len()], ..Arguments::default() };
        let mut place = 0;
        for item in list_items(tokens) {
            let wrong = |message: String| Error::sql(message).at(location_at(item, 0)).help(self.usage);
            let (name, value) = name_of(item).map_or((None, item), |name| (Some(name), &item[2..]));
            let twice = |name: &str| wrong(format!("{} has {name} twice", self.name.to_uppercase()));
            let length = |name: &String| self.parameters.iter().position(|known| known == name);
            match (&name, name.as_ref().map(length)) {
                (Some(name), _) if name == "DATA" => {
                    if found.data.replace(value).is_some() {
                        return Err(twice(name).into());
                    }
                }
                (Some(name), _) if name == "TIMECOL" => {
                    if found.time.replace(value).is_some() {
                        return Err(twice(name).into());
                    }
                }
                (Some(name), Some(Some(at))) => {
                    let length = duration(value).map_err(|error| Error::locate(error, None))?;
                    if found.lengths[at].replace(length).is_some() {
                        return Err(twice(name).into());
                    }
                }
                (Some(_), _) => {
                    let message = format!("{} has no argument {}", self.name.to_uppercase(), text(&item[..1]));
                    return Err(wrong(message).into());
                }
                (None, _) if found.data.is_none() => found.data = Some(value),
                (None, _) if found.time.is_none() && self.is_time(&found, value) => found.time = Some(value),
                (None, _) if found.time.is_none() => found.keys.push(value),
                (None, _) => {
                    let length = duration(value).map_err(|error| Error::locate(error, None))?;
                    match found.lengths.get_mut(place) {
                        Some(slot) => *slot = Some(length),
                        None => found.lengths.push(Some(length)),
                    }
                    place += 1;
                }
            }
        }
        Ok(found)
    }

    /// Whether an argument after the table is the time column: it is, but for more of the keys of sessions.
    fn is_time(&self, found: &Arguments, value: &[TokenWithSpan]) -> bool {
        let has_keys = found.data.is_some_and(|data| partition_of(data).is_some());
        is_word(value, 0, "DESCRIPTOR") || !has_keys && found.data.is_some_and(|data| !is_word(data, 0, "TABLE"))
    }

    /// The table, and what its sessions go by.
    fn data(&self, arguments: &Arguments) -> Option<(String, String)> {
        let data = arguments.data?;
        let data = if is_word(data, 0, "TABLE") { &data[1..] } else { data };
        let partition = partition_of(data);
        match partition {
            _ if data.is_empty() => None,
            Some(partition) if self.name == "session" => {
                let keys = &data[partition + 2..];
                let keys = match keys {
                    [open, inner @ .., close] if open.token == Token::LParen && close.token == Token::RParen => inner,
                    keys => keys,
                };
                let keys: Vec<String> = [keys].iter().chain(&arguments.keys).map(|key| text(key)).collect();
                Some((text(&data[..partition]), keys.join(", ")))
            }
            None if arguments.keys.is_empty() => {
                // Without keys, all rows are in the same sessions.
                let keys = if self.name == "session" { "TRUE" } else { "" };
                Some((text(data), keys.to_string()))
            }
            _ => None,
        }
    }
}

fn partition_of(data: &[TokenWithSpan]) -> Option<usize> {
    (1..data.len()).find(|index| are_words(data, *index, &["PARTITION", "BY"]))
}

/// The name of an argument, if it has one, in capitals. Some names are words of SQL, and quoted therefore.
fn name_of(argument: &[TokenWithSpan]) -> Option<String> {
    match argument {
        [TokenWithSpan { token: Token::Word(name), .. }, arrow, ..] if arrow.token == Token::RArrow => {
            Some(name.value.to_uppercase())
        }
        _ => None,
    }
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
            GroupBy::Before { end } => (end, format!(", {window}")),
            GroupBy::After { begin } => (begin, format!("{window},")),
            GroupBy::Missing { at } => (at, format!("GROUP BY {window}")),
            GroupBy::All { at } => return Err(all_with_window(tokens, at)),
        };
        tokens.splice(at..at, snippet(&text, span, dialect)?);
    }
    if let Some((index, kind)) = (0..tokens.len()).find_map(|index| without_lengths(tokens, index)) {
        let error = Error::sql(format!("WINDOW {} without parentheses", kind.name.to_uppercase()));
        return Err(error.at(location_at(tokens, index)).help(kind.usage).into());
    }
    match (0..tokens.len()).find(|index| is_unknown_clause(tokens, *index)) {
        Some(index) => Err(unknown_clause(tokens, index)),
        None => Ok(()),
    }
}

/// A clause at `index` that names a window, which is no `WINDOW tumbling AS (…)`, and says nothing of it in parentheses.
fn without_lengths(tokens: &Tokens, index: usize) -> Option<(usize, &'static Clause)> {
    let kind = CLAUSES.iter().find(|kind| is_word(tokens, index + 1, kind.name))?;
    let is_clause = is_word(tokens, index, "WINDOW") && !is_word(tokens, index + 2, "AS");
    (is_clause && index > 0 && !is_word(tokens, index - 1, "FROM")).then_some((index + 1, kind))
}

/// Whether `WINDOW word (` begins at `index`, which is no name of a relation or column.
fn is_unknown_clause(tokens: &Tokens, index: usize) -> bool {
    let names = |before: usize| {
        ["SELECT", "FROM", "JOIN", "AS"].iter().any(|word| is_word(tokens, before, word))
            || [Token::Comma, Token::Period].iter().any(|token| is(tokens, before, token))
    };
    is_word(tokens, index, "WINDOW")
        && word(tokens, index + 1).is_some_and(|name| name != "as")
        && is(tokens, index + 2, &Token::LParen)
        && index.checked_sub(1).is_some_and(|before| !names(before))
}

fn unknown_clause(tokens: &Tokens, index: usize) -> DataFusionError {
    let name = word(tokens, index + 1).unwrap_or_default().to_uppercase();
    let kinds: Vec<String> = CLAUSES.iter().map(|clause| clause.name.to_uppercase()).collect();
    let error = Error::sql(format!("there is no window {name}")).at(location_at(tokens, index + 1));
    let error = match nearest(&name, kinds.iter().map(String::as_str)) {
        Some(kind) => error.help(format!("did you mean WINDOW {kind} (…)?")),
        None => error
            .help(format!("WINDOW is followed by {}, or names a window of OVER: WINDOW w AS (…)", kinds.join(", "))),
    };
    error.into()
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
    // The clause was the last thing before a closing parenthesis.
    if is(tokens, from, &Token::RParen) {
        return None;
    }
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
    /// There is none, and this is the place for one.
    Missing { at: usize },
    /// It is by `ALL`, which stands here.
    All { at: usize },
}

/// The clauses, and words between queries, that end a WHERE.
const AFTER_WHERE: [&str; 11] =
    ["GROUP", "HAVING", "WINDOW", "QUALIFY", "ORDER", "LIMIT", "OFFSET", "FETCH", "UNION", "INTERSECT", "EXCEPT"];

/// Finds it, given where the clause was: in the order of SQL, or of ksqlDB, which has windows before WHERE.
fn group_by(tokens: &Tokens, clause: usize) -> GroupBy {
    let depths = depths(tokens);
    let depth = match depths.get(clause) {
        // The clause was the last thing before a closing parenthesis.
        Some(depth) if is(tokens, clause, &Token::RParen) => *depth + 1,
        Some(depth) => *depth,
        None => 0,
    };
    let same = |index: &usize| depths.get(*index) == Some(&depth);
    let by_all = |list: usize| is_word(tokens, list, "ALL").then_some(GroupBy::All { at: list });
    let after = match is_word(tokens, clause, "WHERE") {
        true => {
            let ends = |index: &usize| {
                depths[*index] < depth || same(index) && AFTER_WHERE.iter().any(|word| is_word(tokens, *index, word))
            };
            (clause + 1..tokens.len()).find(ends).unwrap_or(tokens.len())
        }
        false => clause,
    };
    if are_words(tokens, after, &["GROUP", "BY"]) {
        return by_all(after + 2).unwrap_or(GroupBy::After { begin: after + 2 });
    }
    let select = (0..clause).rev().filter(same).find(|index| is_word(tokens, *index, "SELECT")).unwrap_or(0);
    let Some(group) = (select..clause).filter(same).find(|index| are_words(tokens, *index, &["GROUP", "BY"])) else {
        return GroupBy::Missing { at: after };
    };
    let having = (group..clause).filter(same).find(|index| is_word(tokens, *index, "HAVING"));
    by_all(group + 2).unwrap_or(GroupBy::Before { end: having.unwrap_or(clause) })
}

fn all_with_window(tokens: &Tokens, at: usize) -> DataFusionError {
    let error = Error::sql("GROUP BY ALL beside a WINDOW clause").at(location_at(tokens, at));
    error.help("name the keys: GROUP BY k WINDOW TUMBLING (SIZE 1 HOUR)").into()
}
