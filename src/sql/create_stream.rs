//! `CREATE STREAM` and `DROP STREAM`.

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::common::{DataFusionError, Result};
use datafusion::sql::sqlparser::ast::{ColumnDef, DataType, Ident};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Error, Location};

use super::tokens::{Tokens, are_words, location};
use super::{CreateStream, FileFormat, StreamStatement, Watermark, located};

const USAGE: &str = "CREATE STREAM name [(columns, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)] \
                     STORED AS PARQUET|CSV|JSON LOCATION 'path' [OPTIONS (…)]";

/// Reads the statement if it is one of these.
pub(super) fn parse(tokens: &Tokens, dialect: &dyn Dialect) -> Option<Result<StreamStatement>> {
    let creates =
        are_words(tokens, 0, &["CREATE", "STREAM"]) || are_words(tokens, 0, &["CREATE", "OR", "REPLACE", "STREAM"]);
    let parser = Parser::new(dialect).with_tokens_with_locations(tokens.clone());
    if creates {
        return Some(StreamParser { parser }.create());
    }
    are_words(tokens, 0, &["DROP", "STREAM"]).then(|| StreamParser { parser }.drop())
}

struct StreamParser<'a> {
    parser: Parser<'a>,
}

impl StreamParser<'_> {
    fn create(mut self) -> Result<StreamStatement> {
        self.word("CREATE")?;
        let or_replace = self.words(&["OR", "REPLACE"]);
        self.word("STREAM")?;
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let (name, at) = self.name()?;
        let (columns, watermark) = self.columns()?;
        let mut stream = CreateStream {
            name,
            at,
            or_replace,
            if_not_exists,
            columns,
            watermark,
            format: None,
            partitioned_by: vec![],
            location: String::new(),
            location_at: at,
            options: vec![],
        };
        while self.parser.peek_token().token != Token::EOF {
            self.clause(&mut stream)?;
        }
        if stream.location.is_empty() {
            return Err(Error::sql("a stream needs a LOCATION").at(Some(at)).help(USAGE).into());
        }
        Ok(StreamStatement::CreateStream(stream))
    }

    fn drop(mut self) -> Result<StreamStatement> {
        self.word("DROP")?;
        self.word("STREAM")?;
        let if_exists = self.words(&["IF", "EXISTS"]);
        let (name, at) = self.name()?;
        match self.parser.peek_token() {
            token if token.token == Token::EOF => Ok(StreamStatement::DropStream { name, if_exists, at }),
            token => Err(unexpected(&token, "the end of DROP STREAM")),
        }
    }

    /// One clause after the columns; they come in any order.
    fn clause(&mut self, stream: &mut CreateStream) -> Result<()> {
        if self.words(&["STORED", "AS"]) {
            stream.format = Some(self.format()?);
        } else if self.words(&["PARTITIONED", "BY"]) {
            stream.partitioned_by = self.partition_columns()?;
        } else if self.words(&["LOCATION"]) {
            let token = self.parser.peek_token();
            stream.location = self.parser.parse_literal_string().map_err(located)?;
            stream.location_at = location(&token);
            if stream.location.is_empty() {
                return Err(Error::sql("LOCATION is empty").at(Some(location(&token))).into());
            }
        } else if self.words(&["OPTIONS"]) {
            stream.options = self.options()?;
        } else {
            return Err(unexpected(&self.parser.peek_token(), "STORED AS, PARTITIONED BY, LOCATION or OPTIONS"));
        }
        Ok(())
    }

    fn columns(&mut self) -> Result<(Vec<ColumnDef>, Option<Watermark>)> {
        let (mut columns, mut watermark) = (vec![], None);
        if !self.parser.consume_token(&Token::LParen) {
            return Ok((columns, watermark));
        }
        loop {
            if self.words(&["WATERMARK", "FOR"]) {
                let declared = self.watermark()?;
                let at = declared.at;
                if watermark.replace(declared).is_some() {
                    let error = Error::sql("a second WATERMARK").at(Some(at)).help("a stream has one event time");
                    return Err(error.into());
                }
            } else {
                columns.push(self.parser.parse_column_def().map_err(located)?);
            }
            if self.parser.consume_token(&Token::RParen) {
                return Ok((columns, watermark));
            }
            if !self.parser.consume_token(&Token::Comma) {
                return Err(unexpected(&self.parser.peek_token(), "a comma or ) after a column"));
            }
        }
    }

    fn watermark(&mut self) -> Result<Watermark> {
        let (column, at) = self.identifier()?;
        if !self.words(&["AS"]) {
            return Ok(Watermark { column, at, bound_ns: None });
        }
        let (of, of_at) = self.identifier()?;
        if of != column {
            return Err(Error::sql(format!("the watermark of {column} is computed from {of}"))
                .at(Some(of_at))
                .help(format!("WATERMARK FOR {column} AS {column} - INTERVAL '5' SECOND"))
                .into());
        }
        if !self.parser.consume_token(&Token::Minus) {
            return Ok(Watermark { column, at, bound_ns: Some(0) });
        }
        let token = self.parser.peek_token();
        let bound_ns = self.interval_ns().ok_or_else(|| {
            Error::sql("the bound of a watermark is a constant interval, not negative and without months")
                .at(Some(location(&token)))
                .help(format!("WATERMARK FOR {column} AS {column} - INTERVAL '5' SECOND"))
        })?;
        Ok(Watermark { column, at, bound_ns: Some(bound_ns) })
    }

    /// `INTERVAL '5' SECOND`, `INTERVAL 5 SECOND` or `INTERVAL '1 hour 30 minutes'`.
    fn interval_ns(&mut self) -> Option<i64> {
        if !self.words(&["INTERVAL"]) {
            return None;
        }
        let value = match self.parser.next_token().token {
            Token::SingleQuotedString(text) | Token::Number(text, _) => text,
            _ => return None,
        };
        let unit = match self.parser.peek_token().token {
            Token::Word(word) => {
                self.parser.next_token();
                format!(" {}", word.value)
            }
            _ => String::new(),
        };
        let interval = parse_interval_month_day_nano(&format!("{value}{unit}")).ok()?;
        let ns = i64::from(interval.days).checked_mul(86_400_000_000_000)?.checked_add(interval.nanoseconds)?;
        (interval.months == 0 && ns >= 0).then_some(ns)
    }

    fn format(&mut self) -> Result<FileFormat> {
        let token = self.parser.next_token();
        match token.token.to_string().to_lowercase().as_str() {
            "parquet" => Ok(FileFormat::Parquet),
            "csv" => Ok(FileFormat::Csv),
            "json" | "ndjson" => Ok(FileFormat::Json),
            other => Err(Error::sql(format!("unknown format {}", other.to_uppercase()))
                .at(Some(location(&token)))
                .help("STORED AS PARQUET, CSV or JSON")
                .into()),
        }
    }

    fn partition_columns(&mut self) -> Result<Vec<(String, Option<DataType>)>> {
        self.list(|this| {
            let (name, _) = this.identifier()?;
            let ends = matches!(this.parser.peek_token().token, Token::Comma | Token::RParen);
            let data_type = if ends { None } else { Some(this.parser.parse_data_type().map_err(located)?) };
            Ok((name, data_type))
        })
    }

    fn options(&mut self) -> Result<Vec<(String, String)>> {
        self.list(|this| {
            let mut key = plain(&this.parser.next_token())?;
            while this.parser.consume_token(&Token::Period) {
                key = format!("{key}.{}", plain(&this.parser.next_token())?);
            }
            let _ = this.parser.consume_token(&Token::Eq);
            Ok((key.to_lowercase(), plain(&this.parser.next_token())?))
        })
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.parser.expect_token(&Token::LParen).map_err(located)?;
        let mut items = vec![];
        while !self.parser.consume_token(&Token::RParen) {
            items.push(item(self)?);
            if !self.parser.consume_token(&Token::Comma) && self.parser.peek_token().token != Token::RParen {
                return Err(unexpected(&self.parser.peek_token(), "a comma or )"));
            }
        }
        Ok(items)
    }

    fn name(&mut self) -> Result<(Vec<String>, Location)> {
        let (first, at) = self.identifier()?;
        let mut name = vec![first];
        while self.parser.consume_token(&Token::Period) {
            name.push(self.identifier()?.0);
        }
        Ok((name, at))
    }

    fn identifier(&mut self) -> Result<(String, Location)> {
        let at = location(&self.parser.peek_token());
        let ident: Ident = self.parser.parse_identifier().map_err(located)?;
        let name = if ident.quote_style.is_some() { ident.value } else { ident.value.to_lowercase() };
        Ok((name, at))
    }

    fn word(&mut self, word: &str) -> Result<()> {
        match self.words(&[word]) {
            true => Ok(()),
            false => Err(unexpected(&self.parser.peek_token(), word)),
        }
    }

    /// Takes these words, if they are next.
    fn words(&mut self, words: &[&str]) -> bool {
        let is_next = words.iter().enumerate().all(|(offset, word)| {
            matches!(self.parser.peek_nth_token(offset).token,
                Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
        });
        if is_next {
            words.iter().for_each(|_| {
                self.parser.next_token();
            });
        }
        is_next
    }
}

/// The text of a string, word or number.
fn plain(token: &TokenWithSpan) -> Result<String> {
    match &token.token {
        Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => Ok(text.clone()),
        Token::Word(word) => Ok(word.value.clone()),
        Token::Number(number, _) => Ok(number.clone()),
        _ => Err(unexpected(token, "an option's key or value")),
    }
}

fn unexpected(token: &TokenWithSpan, expected: &str) -> DataFusionError {
    let found = match token.token {
        Token::EOF => "the end".to_string(),
        ref token => token.to_string(),
    };
    located(ParserError::ParserError(format!("Expected: {expected}, found: {found}{}", token.span.start)))
}
