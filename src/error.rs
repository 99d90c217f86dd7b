//! One error type for everything that this crate has to say to a person.
//!
//! DataFusion's own errors pass through unchanged. Ours travel inside [`DataFusionError::External`], so that every
//! function of the crate and of DataFusion shares one `Result`, and [`Error::find`] gets ours back out.

use std::fmt;

use arrow::error::ArrowError;
use datafusion::common::Span;
use datafusion::error::DataFusionError;

/// A place in SQL text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// Line of the text.
    pub line: u64,
    /// Character of that line.
    pub column: u64,
}

impl From<Span> for Location {
    fn from(span: Span) -> Self {
        Self { line: span.start.line, column: span.start.column }
    }
}

/// What went wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// SQL that cannot be read or planned.
    Sql {
        /// What is wrong.
        message: String,
        /// Where in the text.
        at: Option<Location>,
        /// What to write instead.
        help: Option<String>,
    },
    /// A query that is understood and that cannot run as a stream.
    Refused {
        /// The clause or operator that is refused.
        what: String,
        /// Why.
        reason: String,
        /// The nearest thing that works.
        instead: String,
        /// Where in the text.
        at: Option<Location>,
        /// The relation or function that it is about, to find the place by where a plan does not keep it.
        about: Option<String>,
    },
    /// Data that cannot be read, or a place that cannot be read or written.
    Data {
        /// What is wrong.
        message: String,
        /// The file or folder.
        file: Option<String>,
        /// The row of the file, counted from 1 (a CSV header is not counted).
        row: Option<u64>,
        /// What to do about it.
        help: Option<String>,
    },
}

impl Error {
    /// SQL that cannot be read or planned.
    pub fn sql(message: impl Into<String>) -> Self {
        Self::Sql { message: message.into(), at: None, help: None }
    }

    /// A query that cannot run as a stream: what is refused, why, and what works instead.
    pub fn refused(what: impl Into<String>, reason: impl Into<String>, instead: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), reason: reason.into(), instead: instead.into(), at: None, about: None }
    }

    /// Bad data or a place that cannot be used.
    pub fn data(message: impl Into<String>) -> Self {
        Self::Data { message: message.into(), file: None, row: None, help: None }
    }

    /// The same error with its place in the SQL text; an error about data has none and stays as it is.
    pub fn at(mut self, location: Option<Location>) -> Self {
        if let Self::Sql { at, .. } | Self::Refused { at, .. } = &mut self {
            *at = location;
        }
        self
    }

    /// The same error with the relation or function that it is about.
    pub(crate) fn about(mut self, name: Option<&str>) -> Self {
        if let Self::Refused { about, .. } = &mut self {
            *about = name.map(str::to_string);
        }
        self
    }

    /// Gives our error inside `error` a place, if it has none yet (the end of a text has line 0).
    pub(crate) fn locate(error: DataFusionError, place: Option<Location>) -> DataFusionError {
        match Self::find(&error) {
            Some(own) if own.location().is_none_or(|at| at.line == 0) => own.clone().at(place).into(),
            _ => error,
        }
    }

    /// The same error with the file that it is about.
    pub fn in_file(mut self, path: impl Into<String>) -> Self {
        if let Self::Data { file, .. } = &mut self {
            *file = Some(path.into());
        }
        self
    }

    /// The same error with the row of the file that it is about.
    pub fn in_row(mut self, number: u64) -> Self {
        if let Self::Data { row, .. } = &mut self {
            *row = Some(number);
        }
        self
    }

    /// The same error with what to do about it.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::Sql { help, .. } | Self::Data { help, .. } => *help = Some(text.into()),
            Self::Refused { instead, .. } => *instead = text.into(),
        }
        self
    }

    /// The place in the SQL text, if this error has one.
    pub fn location(&self) -> Option<Location> {
        match self {
            Self::Sql { at, .. } | Self::Refused { at, .. } => *at,
            Self::Data { .. } => None,
        }
    }

    /// Our error inside a DataFusion error, however deep it is wrapped.
    pub fn find(error: &DataFusionError) -> Option<&Self> {
        match error {
            DataFusionError::External(inner) => {
                inner.downcast_ref::<Self>().or_else(|| inner.downcast_ref::<DataFusionError>().and_then(Self::find))
            }
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => Self::find(inner),
            DataFusionError::Shared(inner) => Self::find(inner),
            DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
                ArrowError::ExternalError(inner) => inner
                    .downcast_ref::<Self>()
                    .or_else(|| inner.downcast_ref::<DataFusionError>().and_then(Self::find)),
                ArrowError::IoError(_, inner) => inner.get_ref()?.downcast_ref::<Self>(),
                _ => None,
            },
            DataFusionError::IoError(inner) => inner.get_ref()?.downcast_ref::<Self>(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql { message, at, help } => {
                write!(f, "{message}")?;
                write_location(f, *at)?;
                write_help(f, help.as_deref())
            }
            Self::Refused { what, reason, instead, at, .. } => {
                write!(f, "{what} cannot run as a stream: {reason}")?;
                write_location(f, *at)?;
                write_help(f, Some(instead))
            }
            Self::Data { message, file, row, help } => {
                if let Some(file) = file {
                    write!(f, "{file}: ")?;
                }
                if let Some(row) = row {
                    write!(f, "row {row}: ")?;
                }
                write!(f, "{message}")?;
                write_help(f, help.as_deref())
            }
        }
    }
}

fn write_location(f: &mut fmt::Formatter<'_>, at: Option<Location>) -> fmt::Result {
    match at {
        Some(Location { line, column }) => write!(f, " (line {line}, column {column})"),
        None => Ok(()),
    }
}

fn write_help(f: &mut fmt::Formatter<'_>, help: Option<&str>) -> fmt::Result {
    match help {
        Some(text) => write!(f, "\n  help: {text}"),
        None => Ok(()),
    }
}

impl std::error::Error for Error {}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

/// An error for a person: the message, the line of `sql` that it is about with a caret under the place, and what to
/// do. DataFusion's planning errors carry places too, if the session collects them
/// (`datafusion.sql_parser.collect_spans`).
pub fn render_error(sql: &str, error: &DataFusionError) -> String {
    if let Some(own) = Error::find(error) {
        return with_caret(sql, &own.to_string(), own.location());
    }
    let (message, at) = match diagnostic(error) {
        Some(diagnostic) => {
            let notes = diagnostic.notes.iter().map(|note| note.message.clone());
            let helps = diagnostic.helps.iter().map(|help| help.message.clone());
            let help: Vec<String> = notes.chain(helps).collect();
            let at = diagnostic.span.map(Location::from);
            let message = match help.is_empty() {
                true => plain(error),
                false => format!("{}\n  help: {}", diagnostic.message, help.join("; ")),
            };
            (message, at)
        }
        None => (plain(error), None),
    };
    with_caret(sql, &message, at)
}

/// What an error says in the end, and on the way there, without the kinds of errors that it has been.
pub(crate) fn plain(error: &DataFusionError) -> String {
    let message = match error {
        DataFusionError::Context(context, inner) if context.starts_with("Optimizer rule") => plain(inner),
        DataFusionError::Context(context, inner) => format!("{context}: {}", plain(inner)),
        DataFusionError::Diagnostic(_, inner) => plain(inner),
        DataFusionError::Shared(inner) => plain(inner),
        DataFusionError::External(inner) => inner.downcast_ref().map_or_else(|| inner.to_string(), plain),
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::CastError(message)
            | ArrowError::ComputeError(message)
            | ArrowError::InvalidArgumentError(message)
            | ArrowError::ParseError(message) => message.clone(),
            ArrowError::ExternalError(inner) => inner.downcast_ref().map_or_else(|| inner.to_string(), plain),
            inner => inner.to_string(),
        },
        DataFusionError::Plan(message)
        | DataFusionError::Execution(message)
        | DataFusionError::Configuration(message) => message.clone(),
        other => other.to_string(),
    };
    message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default().to_string()
}

/// The place that DataFusion's planner gives to an error, if the session collects places.
pub(crate) fn place_of(error: &DataFusionError) -> Option<Location> {
    diagnostic(error)?.span.map(Location::from)
}

fn diagnostic(error: &DataFusionError) -> Option<&datafusion::common::Diagnostic> {
    match error {
        DataFusionError::Diagnostic(diagnostic, _) => Some(diagnostic),
        DataFusionError::Context(_, inner) => diagnostic(inner),
        DataFusionError::Shared(inner) => diagnostic(inner),
        DataFusionError::Collection(all) => all.first().and_then(diagnostic),
        _ => None,
    }
}

/// The message with the line of the text below its first line.
fn with_caret(sql: &str, message: &str, at: Option<Location>) -> String {
    let line = at.and_then(|at| sql.lines().nth(usize::try_from(at.line).ok()?.checked_sub(1)?));
    let (Some(at), Some(line)) = (at, line) else { return message.to_string() };
    let (first, rest) = message.split_once('\n').map_or((message, ""), |(first, rest)| (first, rest));
    let before = usize::try_from(at.column).unwrap_or(1).saturating_sub(1);
    // Tabs stay tabs, so that the caret stands where the character stands.
    let indent: String = line.chars().take(before).map(|c| if c == '\t' { c } else { ' ' }).collect();
    let number = at.line.to_string();
    let margin = " ".repeat(number.len());
    let place =
        if first.contains("(line ") { String::new() } else { format!(" (line {}, column {})", at.line, at.column) };
    let shown = format!("{first}{place}\n {number} | {line}\n {margin} | {indent}^");
    if rest.is_empty() { shown } else { format!("{shown}\n{rest}") }
}
