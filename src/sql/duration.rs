//! Lengths of time as clauses have them: `INTERVAL '1' HOUR`, `1 HOUR`, `1h`.

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::Error;

use super::tokens::{is_word, location_at, text, word};

/// Whether tokens look like a length of time.
pub(super) fn is_duration(tokens: &[TokenWithSpan]) -> bool {
    let is_number = matches!(tokens.first().map(|token| &token.token), Some(Token::Number(_, _)));
    is_number || is_word(tokens, 0, "INTERVAL") && tokens.len() > 1
}

/// A length of time as an interval expression.
///
/// # Errors
/// Anything else.
pub(super) fn duration(tokens: &[TokenWithSpan]) -> Result<String> {
    if is_word(tokens, 0, "INTERVAL") && tokens.len() > 1 {
        return Ok(text(tokens));
    }
    let number = match tokens.first().map(|token| &token.token) {
        Some(Token::Number(number, _)) => number.clone(),
        _ => return Err(no_duration(tokens)),
    };
    // `1h` is one number and one word to the tokenizer, like `1 HOUR`.
    let unit = match (word(tokens, 1).as_deref(), tokens.len()) {
        (Some("us" | "microsecond" | "microseconds"), 2) => "microseconds",
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

fn no_duration(tokens: &[TokenWithSpan]) -> DataFusionError {
    Error::sql(format!("'{}' is no duration", text(tokens)))
        .at(location_at(tokens, 0))
        .help("write INTERVAL '1' HOUR, 1 HOUR or 1h")
        .into()
}

/// A length of time in nanoseconds.
///
/// # Errors
/// What is no length, or none that is fixed (months), or not positive.
pub(super) fn nanoseconds(tokens: &[TokenWithSpan]) -> Result<i64> {
    let parts = if is_word(tokens, 0, "INTERVAL") { &tokens[1..] } else { tokens };
    let text_of = |token: &TokenWithSpan| match &token.token {
        Token::SingleQuotedString(text) | Token::Number(text, _) => text.clone(),
        other => other.to_string(),
    };
    let interval = parts.iter().map(text_of).collect::<Vec<_>>().join(" ");
    let parsed = parse_interval_month_day_nano(&interval).ok().filter(|parsed| parsed.months == 0);
    let ns = parsed
        .and_then(|parsed| i64::from(parsed.days).checked_mul(86_400_000_000_000)?.checked_add(parsed.nanoseconds));
    match ns {
        Some(ns) if ns > 0 => Ok(ns),
        Some(_) => Err(Error::sql(format!("'{}' is not positive", text(tokens)))
            .at(location_at(tokens, 0))
            .help("write INTERVAL '1' SECOND or longer")
            .into()),
        None => Err(no_duration(tokens)),
    }
}
