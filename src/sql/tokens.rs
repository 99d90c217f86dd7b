//! Tokens with their places: splitting a text into statements, finding clauses, putting tokens in.

use datafusion::common::Result;
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer};

use crate::error::{Error, Location};

/// The tokens of a statement, without white space and comments.
pub(super) type Tokens = Vec<TokenWithSpan>;

/// Cuts a text into statements.
///
/// # Errors
/// What is no SQL token, like a string without an end.
pub(super) fn statements(sql: &str, dialect: &dyn Dialect) -> Result<Vec<Tokens>> {
    let tokens = Tokenizer::new(dialect, sql).tokenize_with_location().map_err(|error| {
        let at = Location { line: error.location.line, column: error.location.column };
        Error::sql(error.message).at(Some(at))
    })?;
    let mut statements = vec![vec![]];
    for token in tokens {
        match token.token {
            Token::Whitespace(_) | Token::EOF => {}
            Token::SemiColon => statements.push(vec![]),
            _ => statements.last_mut().into_iter().for_each(|statement: &mut Tokens| statement.push(token.clone())),
        }
    }
    statements.retain(|statement| !statement.is_empty());
    Ok(statements)
}

/// Where a token begins.
pub(super) fn location(token: &TokenWithSpan) -> Location {
    Location { line: token.span.start.line, column: token.span.start.column }
}

/// Strings and quoted names, with their places.
pub(super) fn quoted(tokens: &[TokenWithSpan]) -> Vec<(String, Location)> {
    let text = |token: &TokenWithSpan| match &token.token {
        Token::SingleQuotedString(text) => Some((text.clone(), location(token))),
        Token::Word(word) if word.quote_style.is_some() => Some((word.value.clone(), location(token))),
        _ => None,
    };
    tokens.iter().filter_map(text).collect()
}

/// Where token `index` begins; after the last token, where that one ends.
pub(super) fn location_at(tokens: &[TokenWithSpan], index: usize) -> Option<Location> {
    match (tokens.get(index), tokens.last()) {
        (Some(token), _) => Some(location(token)),
        (None, Some(last)) => Some(Location { line: last.span.end.line, column: last.span.end.column }),
        (None, None) => None,
    }
}

/// Whether token `index` is the unquoted word `word`.
pub(super) fn is_word(tokens: &[TokenWithSpan], index: usize, word: &str) -> bool {
    matches!(tokens.get(index).map(|token| &token.token),
        Some(Token::Word(found)) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

/// Whether the words `words` begin at `index`.
pub(super) fn are_words(tokens: &[TokenWithSpan], index: usize, words: &[&str]) -> bool {
    words.iter().enumerate().all(|(offset, word)| is_word(tokens, index + offset, word))
}

/// The unquoted word at `index`, in lower case.
pub(super) fn word(tokens: &[TokenWithSpan], index: usize) -> Option<String> {
    match &tokens.get(index)?.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
        _ => None,
    }
}

pub(super) fn is(tokens: &[TokenWithSpan], index: usize, token: &Token) -> bool {
    tokens.get(index).is_some_and(|found| found.token == *token)
}

/// The parenthesis that closes the one at `open`.
///
/// # Errors
/// There is none.
pub(super) fn closing(tokens: &[TokenWithSpan], open: usize) -> Result<usize> {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(index);
        }
    }
    Err(Error::sql("this parenthesis is never closed").at(location_at(tokens, open)).into())
}

/// How many parentheses are open before each token.
pub(super) fn depths(tokens: &[TokenWithSpan]) -> Vec<i32> {
    let mut depth = 0;
    let depth_before = |token: &TokenWithSpan| {
        depth -= i32::from(token.token == Token::RParen);
        let before = depth;
        depth += i32::from(token.token == Token::LParen);
        before
    };
    tokens.iter().map(depth_before).collect()
}

/// The parts of a list between parentheses, cut at its own commas.
pub(super) fn list_items(tokens: &[TokenWithSpan]) -> Vec<&[TokenWithSpan]> {
    let depths = depths(tokens);
    let at_comma = |index: &usize| tokens[*index].token == Token::Comma && depths[*index] == 0;
    let mut items = vec![];
    let mut begin = 0;
    for comma in (0..tokens.len()).filter(at_comma) {
        items.push(&tokens[begin..comma]);
        begin = comma + 1;
    }
    if begin < tokens.len() {
        items.push(&tokens[begin..]);
    }
    items
}

/// The tokens of a text of ours, all standing where `span` is.
pub(super) fn snippet(text: &str, span: Span, dialect: &dyn Dialect) -> Result<Tokens> {
    let mut tokens = statements(text, dialect)?.into_iter().flatten().collect::<Tokens>();
    tokens.iter_mut().for_each(|token| token.span = span);
    Ok(tokens)
}

/// Tokens as text that reads back to the same tokens.
pub(super) fn text(tokens: &[TokenWithSpan]) -> String {
    tokens.iter().map(|token| token.token.to_string()).collect::<Vec<_>>().join(" ")
}
