//! The clauses that sqlparser does not know: EMIT, cut out; ROWS WINDOW BUFFER, rewritten.

use datafusion::common::{DataFusionError, Result};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::error::Error;

use super::duration::nanoseconds;
use super::tokens::{Tokens, are_words, closing, is, is_word, location, location_at, snippet, word};
use super::{Changes, Emit, EmitMode, Ops, When};

/// How EMIT is written.
pub(super) const EMIT_FORMS: &str = "EMIT FINAL [ALLOWED LATENESS INTERVAL '1' HOUR [WITH OP | WITH RETRACTIONS]], or \
    EMIT CHANGES [PER BATCH | EVERY INTERVAL '1' SECOND] [WITH OP | WITH RETRACTIONS]";

/// Cuts EMIT from the end of the outermost query.
///
/// # Errors
/// An EMIT elsewhere, and forms that there are not.
pub(super) fn cut_emit(tokens: &mut Tokens) -> Result<Option<Emit>> {
    let is_emit = |index: &usize| {
        is_word(tokens, *index, "EMIT")
            && (is_word(tokens, index + 1, "FINAL") || is_word(tokens, index + 1, "CHANGES"))
    };
    let found: Vec<usize> = (0..tokens.len()).filter(is_emit).collect();
    let Some(&index) = found.last() else { return Ok(None) };
    let at = location(&tokens[index]);
    let (mode, end) = emit_mode(tokens, index)?;
    let misplaced = found.iter().find(|inner| match **inner == index {
        true => !ends_outermost_query(tokens, end),
        false => true,
    });
    if let Some(inner) = misplaced {
        let after = if *inner == index { end } else { inner + 2 };
        let what = match word(tokens, after).as_deref() {
            Some(after @ ("limit" | "offset" | "order")) => format!("EMIT before {}", after.to_uppercase()),
            Some("emit") => "EMIT twice".to_string(),
            Some(after @ ("per" | "every" | "with" | "allowed")) => {
                format!("EMIT … {}, which there is not", after.to_uppercase())
            }
            _ => "EMIT in a sub-query".to_string(),
        };
        return Err(Error::sql(what)
            .at(location_at(tokens, *inner))
            .help(format!(
                "EMIT stands once, at the end of the outermost query, after ORDER BY and LIMIT: {EMIT_FORMS}"
            ))
            .into());
    }
    tokens.drain(index..end);
    Ok(Some(Emit { mode, at }))
}

/// What the clause at `emit` says, and where it ends.
fn emit_mode(tokens: &Tokens, emit: usize) -> Result<(EmitMode, usize)> {
    let mut end = emit + 2;
    let is_over = |index: &usize| {
        let is_next_clause = |word: &&str| is_word(tokens, *index, word);
        *index == tokens.len()
            || is(tokens, *index, &Token::RParen)
            || ["WITH", "EMIT", "ORDER", "LIMIT", "OFFSET"].iter().any(is_next_clause)
    };
    let interval = |begin: usize| {
        let over = (begin..=tokens.len()).find(is_over).unwrap_or(tokens.len());
        Ok::<_, DataFusionError>((interval_ns(tokens, begin, over)?, over))
    };
    let mut changes = Changes { when: When::EachRow, ops: Ops::None };
    if is_word(tokens, emit + 1, "FINAL") {
        if !are_words(tokens, end, &["ALLOWED", "LATENESS"]) {
            return Ok((EmitMode::Final, end));
        }
        let (lateness_ns, over) = interval(end + 2)?;
        changes.when = When::AtClose { lateness_ns };
        end = over;
    } else if are_words(tokens, end, &["PER", "BATCH"]) {
        changes.when = When::EachBatch;
        end += 2;
    } else if is_word(tokens, end, "EVERY") {
        let (interval_ns, over) = interval(end + 1)?;
        changes.when = When::Every { interval_ns };
        end = over;
    }
    for (words, ops) in [(["WITH", "OP"], Ops::Op), (["WITH", "RETRACTIONS"], Ops::Retractions)] {
        if are_words(tokens, end, &words) {
            changes.ops = ops;
            end += 2;
            break;
        }
    }
    Ok((EmitMode::Changes(changes), end))
}

fn interval_ns(tokens: &Tokens, begin: usize, end: usize) -> Result<i64> {
    let interval = tokens.get(begin..end).unwrap_or_default();
    nanoseconds(interval).map_err(|error| Error::locate(error, location_at(tokens, begin)))
}

/// The statement ends here, or the parenthesis of a COPY that holds all of its query.
fn ends_outermost_query(tokens: &Tokens, index: usize) -> bool {
    if index >= tokens.len() {
        return true;
    }
    let copies = (0..tokens.len()).find(|index| is_word(tokens, *index, "COPY"));
    match copies {
        Some(copy) if copy <= 1 && is(tokens, copy + 1, &Token::LParen) => {
            closing(tokens, copy + 1).ok() == Some(index)
        }
        _ => false,
    }
}

/// `OVER (ROWS WINDOW BUFFER n ROWS …)` becomes `OVER (… ROWS BETWEEN n-1 PRECEDING AND CURRENT ROW)`.
///
/// # Errors
/// A count that is no positive whole number.
pub(super) fn rewrite_buffers(tokens: &mut Tokens, dialect: &dyn Dialect) -> Result<()> {
    let mut index = 0;
    while index < tokens.len() {
        if are_words(tokens, index, &["ROWS", "WINDOW", "BUFFER"]) && is(tokens, index.wrapping_sub(1), &Token::LParen)
        {
            rewrite_buffer(tokens, index, dialect)?;
        }
        index += 1;
    }
    Ok(())
}

fn rewrite_buffer(tokens: &mut Tokens, index: usize, dialect: &dyn Dialect) -> Result<()> {
    let count = match tokens.get(index + 3).map(|token| &token.token) {
        Some(Token::Number(number, _)) => number.parse::<u64>().ok().filter(|count| *count > 0),
        _ => None,
    };
    let (Some(count), true) = (count, is_word(tokens, index + 4, "ROWS")) else {
        return Err(Error::sql("a buffer is a positive number of rows")
            .at(location_at(tokens, index + 3))
            .help("OVER (ROWS WINDOW BUFFER 100 ROWS PARTITION BY k ORDER BY ts)")
            .into());
    };
    let span = tokens[index].span;
    tokens.drain(index..index + 5);
    let close = closing(tokens, index - 1)?;
    let frame = format!("ROWS BETWEEN {} PRECEDING AND CURRENT ROW", count - 1);
    tokens.splice(close..close, snippet(&frame, span, dialect)?);
    Ok(())
}
