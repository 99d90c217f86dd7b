//! The clauses that sqlparser does not know: EMIT, cut out; ROWS WINDOW BUFFER, rewritten.

use datafusion::common::Result;
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::error::Error;

use super::tokens::{Tokens, are_words, closing, is, is_word, location, location_at, snippet, text, word};
use super::{Emit, EmitMode};

/// Cuts EMIT from the end of the outermost query.
///
/// # Errors
/// An EMIT elsewhere, and forms that are not supported.
pub(super) fn cut_emit(tokens: &mut Tokens) -> Result<Option<Emit>> {
    let is_emit = |index: &usize| {
        is_word(tokens, *index, "EMIT")
            && (is_word(tokens, index + 1, "FINAL") || is_word(tokens, index + 1, "CHANGES"))
    };
    let found: Vec<usize> = (0..tokens.len()).filter(is_emit).collect();
    let Some(&index) = found.last() else { return Ok(None) };
    let at = location(&tokens[index]);
    refuse_variants(tokens, index)?;
    if let Some(inner) = found.iter().find(|index| !ends_outermost_query(tokens, **index + 2)) {
        let what = match word(tokens, inner + 2).as_deref() {
            Some(after @ ("limit" | "offset" | "order")) => format!("EMIT before {}", after.to_uppercase()),
            Some("emit") => "EMIT twice".to_string(),
            _ => "EMIT in a sub-query".to_string(),
        };
        return Err(Error::sql(what)
            .at(location_at(tokens, *inner))
            .help("EMIT stands once, at the end of the outermost query, after ORDER BY and LIMIT")
            .into());
    }
    let mode = if is_word(tokens, index + 1, "CHANGES") { EmitMode::Changes } else { EmitMode::Final };
    tokens.drain(index..index + 2);
    Ok(Some(Emit { mode, at }))
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

fn refuse_variants(tokens: &Tokens, emit: usize) -> Result<()> {
    let variants: [&[&str]; 4] = [&["PER", "BATCH"], &["EVERY"], &["WITH", "OP"], &["WITH", "RETRACTIONS"]];
    match variants.iter().find(|words| are_words(tokens, emit + 2, words)) {
        Some(words) => Err(Error::refused(
            format!("EMIT CHANGES {}", words.join(" ")),
            "this form is not supported",
            "EMIT CHANGES gives the new values for each row",
        )
        .at(location_at(tokens, emit))
        .into()),
        None => Ok(()),
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

/// A duration at the start of a list of tokens: `INTERVAL '1' HOUR`, `1 HOUR`, `1h`, each also after SIZE. Gives an
/// interval expression.
///
/// # Errors
/// Anything else.
pub(super) fn duration(tokens: &[datafusion::sql::sqlparser::tokenizer::TokenWithSpan]) -> Result<String> {
    let tokens = if is_word(tokens, 0, "SIZE") { &tokens[1..] } else { tokens };
    if is_word(tokens, 0, "INTERVAL") && tokens.len() > 1 {
        return Ok(text(tokens));
    }
    let number = match tokens.first().map(|token| &token.token) {
        Some(Token::Number(number, _)) => number.clone(),
        _ => return Err(no_duration(tokens)),
    };
    // `1h` is one number and one word to the tokenizer, like `1 HOUR`.
    let unit = match (word(tokens, 1).as_deref(), tokens.len()) {
        (Some("ms" | "millisecond" | "milliseconds"), 2) => "milliseconds",
        (Some("s" | "sec" | "second" | "seconds"), 2) => "seconds",
        (Some("m" | "min" | "minute" | "minutes"), 2) => "minutes",
        (Some("h" | "hour" | "hours"), 2) => "hours",
        (Some("d" | "day" | "days"), 2) => "days",
        (Some("w" | "week" | "weeks"), 2) => "weeks",
        (Some("month" | "months"), 2) => "months",
        (Some("year" | "years"), 2) => "years",
        _ => return Err(no_duration(tokens)),
    };
    Ok(format!("INTERVAL '{number} {unit}'"))
}

fn no_duration(tokens: &[datafusion::sql::sqlparser::tokenizer::TokenWithSpan]) -> datafusion::error::DataFusionError {
    Error::sql(format!("'{}' is no duration", text(tokens)))
        .at(location_at(tokens, 0))
        .help("write INTERVAL '1' HOUR, 1 HOUR or 1h")
        .into()
}
