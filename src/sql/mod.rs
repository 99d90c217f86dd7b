//! Text to syntax. This module knows no table and no column.
//!
//! ```text
//!   SQL text ─ tokens ─▶ clauses cut out or rewritten ─▶ sqlparser ─▶ StreamStatement
//! ```

use datafusion::sql::parser::Statement;

use crate::error::Location;

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
    },
}

/// `EMIT FINAL` or `EMIT CHANGES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emit {
    /// Which of the two.
    pub mode: EmitMode,
    /// Where the word EMIT stands.
    pub at: Location,
}

/// When an aggregate emits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EmitMode {
    /// One row for each window and key, when the window closes.
    Final,
    /// The new values for each row that reaches the aggregate.
    Changes,
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
    /// STORED AS.
    pub format: FileFormat,
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
