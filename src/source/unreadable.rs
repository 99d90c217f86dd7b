//! What is wrong with a file: its name, the row where that is known, and what to do.

use std::io::BufReader;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use datafusion::common::DataFusionError;

use crate::error::Error;
use crate::sql::FileFormat;

use super::options::StreamOptions;
use super::table::StreamFile;

/// The error of a file whose columns or footer could not be read.
pub(super) fn while_opening(
    file: &StreamFile,
    format: FileFormat,
    options: &StreamOptions,
    error: &DataFusionError,
) -> Error {
    if let Some(own) = Error::find(error) {
        return named(own, &file.name);
    }
    let message = message(error);
    let row = match format {
        FileFormat::Parquet => None,
        FileFormat::Csv => number_after(&message, " at line ").map(|line| line.saturating_sub(header_lines(options))),
        FileFormat::Json => json_row(file, Arc::new(Schema::empty())),
    };
    told(file, &message, row).help(match (format, row) {
        (FileFormat::Parquet, _) => {
            "the file is truncated or no Parquet file: write it again, or leave it out of LOCATION"
        }
        (FileFormat::Csv, Some(_)) => {
            "mend the row, or list the columns in CREATE STREAM and count such rows with OPTIONS ('on_error' 'skip')"
        }
        (FileFormat::Csv, None) => "check the options of the stream: delimiter, quote, header, compression",
        (FileFormat::Json, _) => "a JSON file holds one object a line; compression is an option",
    })
}

/// A file, or a part of one, whose rows are being read.
pub(super) struct Reading<'a> {
    pub(super) file: &'a StreamFile,
    pub(super) format: FileFormat,
    pub(super) options: &'a StreamOptions,
    /// The columns of the file.
    pub(super) columns: &'a Schema,
    /// Whether the part begins with the file, which may have a header.
    pub(super) is_first: bool,
    /// Rows of the file before the part.
    pub(super) rows_before: u64,
}

/// The error of a file whose rows are being read; of a JSON file, as columns of this schema.
pub(super) fn while_reading(reading: &Reading, json_schema: SchemaRef, error: DataFusionError) -> DataFusionError {
    let Reading { file, format, .. } = *reading;
    if let Some(own) = Error::find(&error) {
        return named(own, &file.name).into();
    }
    let message = message(&error);
    let row = match format {
        FileFormat::Parquet => None,
        FileFormat::Csv => csv_row(&message, reading),
        FileFormat::Json => json_row(file, json_schema),
    };
    told(file, &with_name(&message, reading.columns), row)
        .help(match format {
            // Of an object nobody looks for the row.
            FileFormat::Json if file.stored().is_some() => "mend the row, or list the column's type in CREATE STREAM",
            _ if row.is_none() => "the file is damaged or cut off: write it again, or leave it out of LOCATION",
            FileFormat::Parquet => "the file is damaged: write it again, or leave it out of LOCATION",
            FileFormat::Csv => {
                "mend the row, list the column's type in CREATE STREAM, or count such rows with OPTIONS ('on_error' 'skip')"
            }
            FileFormat::Json => "mend the row, or list the column's type in CREATE STREAM",
        })
        .into()
}

fn told(file: &StreamFile, message: &str, row: Option<u64>) -> Error {
    // The row says where, in one way of counting.
    let mut message = message.to_string();
    if row.is_some() {
        message.truncate(message.find(". Row data:").unwrap_or(message.len()));
        if let Some(line) = number_after(&message, " at line ") {
            message = message.replace(&format!(" at line {line}"), "");
        }
        if let Some(line) = number_after(&message, " for line ") {
            message = message.replace(&format!(" for line {line}"), "");
        }
    }
    let what = Error::data(format!("cannot be read: {message}")).in_file(&file.name);
    match row {
        Some(row) => what.in_row(row),
        None => what,
    }
}

/// A message that names the column which it counts.
fn with_name(message: &str, columns: &Schema) -> String {
    let counted = number_after(message, " column ");
    match counted.and_then(|column| Some((column, columns.fields().get(usize::try_from(column).ok()?)?))) {
        Some((column, field)) => {
            message.replacen(&format!(" column {column}"), &format!(" column {}", field.name()), 1)
        }
        None => message.to_string(),
    }
}

fn named(own: &Error, name: &str) -> Error {
    match own {
        Error::Data { file: None, .. } => own.clone().in_file(name),
        own => own.clone(),
    }
}

fn message(error: &DataFusionError) -> String {
    error
        .find_root()
        .strip_backtrace()
        .trim_start_matches("Arrow error: ")
        .replace("Parser error: ", "")
        .replace('\n', " ")
}

fn header_lines(options: &StreamOptions) -> u64 {
    u64::from(options.csv.has_header != Some(false))
}

/// The row that a message of arrow's CSV reader names. It counts records from 1 and with the header where one has too
/// few or too many fields, and from 0 where a field cannot be parsed.
fn csv_row(message: &str, reading: &Reading) -> Option<u64> {
    let record = match number_after(message, " for line ") {
        Some(record) => Some(record),
        None => number_after(message, " at line ").map(|record| record + 1),
    };
    let header = if reading.is_first { header_lines(reading.options) } else { 0 };
    Some(reading.rows_before + record?.checked_sub(header)?)
}

fn number_after(message: &str, words: &str) -> Option<u64> {
    let (_, after) = message.split_once(words)?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The first row of a JSON file that cannot be read: arrow's reader does not say, so the file is read again, row by row.
fn json_row(file: &StreamFile, schema: SchemaRef) -> Option<u64> {
    let text = BufReader::new(file.open_text(None, None).ok()?);
    let mut rows = ReaderBuilder::new(schema).with_batch_size(1).build(text).ok()?;
    rows.position(|row| row.is_err()).map(|good| good as u64 + 1)
}
