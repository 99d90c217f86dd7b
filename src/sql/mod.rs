//! Text to syntax. This module knows no table and no column.
//!
//! ```text
//!   SQL text ─ tokens ─▶ clauses cut out or rewritten ─▶ sqlparser ─▶ StreamStatement
//! ```

mod clauses;
mod create_stream;
mod duration;
pub(crate) mod names;
pub(crate) mod places;
mod tokens;
mod windows;

use datafusion::common::{DataFusionError, Result};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::parser::ParserError;

use crate::error::{Error, Location};

use tokens::{Tokens, are_words};

/// Reads a text of statements.
///
/// # Errors
/// [`Error::Sql`] or [`Error::Refused`] with the place in the text.
pub(crate) fn parse(sql: &str, dialect: &dyn Dialect) -> Result<Vec<StreamStatement>> {
    let located = |tokens: Tokens| {
        let end = tokens::location_at(&tokens, tokens.len());
        parse_statement(tokens, dialect).map_err(|error| Error::locate(error, end))
    };
    // Some editors begin a file with a mark of its byte order.
    let sql = sql.strip_prefix('\u{feff}').unwrap_or(sql);
    tokens::statements(sql, dialect)?.into_iter().map(located).collect()
}

fn parse_statement(mut tokens: Tokens, dialect: &dyn Dialect) -> Result<StreamStatement> {
    if let Some(statement) = create_stream::parse(&tokens, dialect) {
        return statement;
    }
    if are_words(&tokens, 0, &["SHOW", "STREAMS"]) {
        let span = tokens[0].span;
        tokens = tokens::snippet("SHOW TABLES", span, dialect)?;
    }
    let quoted = tokens::quoted(&tokens);
    let emit = clauses::cut_emit(&mut tokens)?;
    clauses::rewrite_buffers(&mut tokens, dialect)?;
    windows::rewrite_table_functions(&mut tokens, dialect)?;
    windows::rewrite_clauses(&mut tokens, dialect)?;
    let mut parser = DFParserBuilder::new(tokens).with_dialect(dialect).build()?;
    let mut statements = parser.parse_statements().map_err(located_error)?;
    let mut statement = statements.pop_front().ok_or_else(|| Error::sql("no statement"))?;
    unquote_partitions(&mut statement);
    Ok(StreamStatement::Query { statement: Box::new(statement), emit, quoted })
}

/// The columns of PARTITIONED BY as every other name is read: DataFusion's parser leaves their quotes on.
fn unquote_partitions(statement: &mut Statement) {
    match statement {
        Statement::Explain(explain) => unquote_partitions(&mut explain.statement),
        Statement::CopyTo(copy) => copy.partitioned_by.iter_mut().for_each(|column| {
            let quoted = column.strip_prefix('"').and_then(|column| column.strip_suffix('"'));
            *column = quoted.map_or_else(|| column.to_lowercase(), |quoted| quoted.replace("\"\"", "\""));
        }),
        _ => {}
    }
}

fn located_error(error: DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::SQL(error, _) => located(*error),
        DataFusionError::Diagnostic(_, inner) => located_error(*inner),
        other => other,
    }
}

/// A parser's error, with the place that its message ends with.
fn located(error: ParserError) -> DataFusionError {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => "the statement is nested too deeply".to_string(),
    };
    let (message, at) = match message.rsplit_once(" at Line: ") {
        Some((message, place)) => (message.to_string(), parse_place(place)),
        None => (message, None),
    };
    let error = Error::sql(&message).at(at);
    match message.ends_with("found: EMIT") {
        true => error.help(clauses::EMIT_FORMS).into(),
        false => error.into(),
    }
}

fn parse_place(place: &str) -> Option<Location> {
    let (line, column) = place.split_once(", Column: ")?;
    Some(Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
}

/// The candidate that is most like `name`, if one is like it at all.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// One statement of a text.
#[derive(Debug, Clone)]
pub enum StreamStatement {
    /// `CREATE STREAM …`
    CreateStream(CreateStream),
    /// `DROP STREAM [IF EXISTS] name`
    DropStream {
        /// The stream, as written: parts of the name, already normalised (unquoted parts are lower case).
        name: Vec<String>,
        /// Whether a missing stream is fine.
        if_exists: bool,
        /// Where the name stands.
        at: Location,
    },
    /// Every other statement, in DataFusion's syntax, and the EMIT clause that stood at its end.
    Query {
        /// The statement without our clauses.
        statement: Box<Statement>,
        /// The EMIT clause.
        emit: Option<Emit>,
        /// Quoted texts and where they stand: a relation that is a path has no place in sqlparser's syntax.
        quoted: Vec<(String, Location)>,
    },
}

impl StreamStatement {
    /// Where the EMIT clause begins, if there is one: it is the end of the statement.
    pub fn emit_at(&self) -> Option<Location> {
        match self {
            Self::Query { emit, .. } => emit.map(|emit| emit.at),
            Self::CreateStream(_) | Self::DropStream { .. } => None,
        }
    }

    /// Whether there is an EMIT clause that asks for changes.
    pub fn emits_changes(&self) -> bool {
        matches!(self, Self::Query { emit: Some(emit), .. } if emit.mode.is_changes())
    }

    /// Whether the statement is a query whose rows are its result, unlike DDL, COPY, INSERT or SET.
    pub fn is_query(&self) -> bool {
        use datafusion::sql::sqlparser::ast::Statement as Sql;
        match self {
            Self::Query { statement, .. } => match statement.as_ref() {
                Statement::Statement(statement) => matches!(
                    statement.as_ref(),
                    Sql::Query(_)
                        | Sql::Explain { .. }
                        | Sql::ExplainTable { .. }
                        | Sql::ShowColumns { .. }
                        | Sql::ShowFunctions { .. }
                        | Sql::ShowTables { .. }
                        | Sql::ShowVariable { .. }
                ),
                Statement::Explain(_) => true,
                _ => false,
            },
            Self::CreateStream(_) | Self::DropStream { .. } => false,
        }
    }
}

/// The EMIT clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emit {
    /// What it asks for.
    pub mode: EmitMode,
    /// Where the word EMIT stands.
    pub at: Location,
}

/// When an aggregate emits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EmitMode {
    /// `EMIT FINAL`: one row for each window and key, when the window closes.
    Final,
    /// `EMIT CHANGES …`: the new values for rows that reach the aggregate.
    Changes(Changes),
}

impl EmitMode {
    /// Whether changes are asked for.
    pub(crate) fn is_changes(self) -> bool {
        matches!(self, Self::Changes(_))
    }

    /// The clause that asks for changes: what FINAL with it lacks is leaving it out.
    pub(crate) fn clause(self) -> &'static str {
        match self {
            Self::Changes(Changes { when: When::AtClose { .. }, .. }) => "ALLOWED LATENESS",
            _ => "EMIT CHANGES",
        }
    }

    /// Whether rows say what they do to earlier ones.
    pub(crate) fn has_ops(self) -> bool {
        matches!(self, Self::Changes(Changes { ops, .. }) if ops != Ops::None)
    }
}

impl std::fmt::Display for EmitMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Changes(changes) = self else { return f.write_str("Final") };
        f.write_str("Changes")?;
        match changes.when {
            When::EachRow => {}
            When::EachBatch => f.write_str(" per batch")?,
            When::Every { interval_ns } => write!(f, " every {interval_ns} ns")?,
            When::AtClose { lateness_ns } => write!(f, " at close, {lateness_ns} ns late at most")?,
        }
        match changes.ops {
            Ops::None => Ok(()),
            Ops::Op => f.write_str(" with op"),
            Ops::Retractions => f.write_str(" with retractions"),
        }
    }
}

/// The form of `EMIT CHANGES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Changes {
    /// How often a key's change is told.
    pub when: When,
    /// Whether rows say what they do to earlier ones.
    pub ops: Ops,
}

/// How often a key's change is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum When {
    /// For each row.
    EachRow,
    /// `PER BATCH`: only the last change of each key in each batch of input.
    EachBatch,
    /// `EVERY INTERVAL …`: only the last change of each key in each interval of the highest event time so far.
    Every {
        /// Length of the interval.
        interval_ns: i64,
    },
    /// `ALLOWED LATENESS INTERVAL …`: when a window ends, and again for each row that comes later, as long as the
    /// watermark has not passed the end by so much.
    AtClose {
        /// How late rows may be.
        lateness_ns: i64,
    },
}

/// What a first column `op` says of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ops {
    /// There is no such column: the latest row of a key wins.
    None,
    /// `WITH OP`: `+I` for a key's first row, `+U` for a later one, `-D` for one that is withdrawn.
    Op,
    /// `WITH RETRACTIONS`: the same, and before each `+U` the `-U` row that it replaces.
    Retractions,
}

/// `CREATE [OR REPLACE] STREAM [IF NOT EXISTS] …` as written.
#[derive(Debug, Clone)]
pub struct CreateStream {
    /// Parts of the name, normalised.
    pub name: Vec<String>,
    /// Where the name stands.
    pub at: Location,
    /// OR REPLACE.
    pub or_replace: bool,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// The columns as listed; empty means: infer them.
    pub columns: Vec<datafusion::sql::sqlparser::ast::ColumnDef>,
    /// The watermark clause.
    pub watermark: Option<Watermark>,
    /// STORED AS; none means: by the extension of the files.
    pub format: Option<FileFormat>,
    /// PARTITIONED BY (…): the columns that Hive folders hold, with a type where one is given.
    pub partitioned_by: Vec<(String, Option<datafusion::sql::sqlparser::ast::DataType>)>,
    /// LOCATION, as written.
    pub location: String,
    /// Where the location's text stands.
    pub location_at: Location,
    /// OPTIONS, keys in lower case.
    pub options: Vec<(String, String)>,
}

/// `WATERMARK FOR column [AS column - INTERVAL …]`
#[derive(Debug, Clone)]
pub struct Watermark {
    /// The event-time column, normalised.
    pub column: String,
    /// Where it stands.
    pub at: Location,
    /// How far a row may be behind, in nanoseconds; none means exact.
    pub bound_ns: Option<i64>,
}

/// How a stream's files are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileFormat {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values.
    Csv,
    /// One JSON object a line.
    Json,
}
