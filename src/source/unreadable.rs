//! What is wrong with a file: its name, the row where that is known, and what to do.

use datafusion::common::DataFusionError;

use crate::error::Error;
use crate::sql::FileFormat;

use super::options::StreamOptions;

/// The error of a file whose columns or footer could not be read.
pub(super) fn while_opening(name: &str, format: FileFormat, options: &StreamOptions, error: &DataFusionError) -> Error {
    if let Some(own) = Error::find(error) {
        return named(own, name);
    }
    let message = message(error);
    let what = Error::data(format!("cannot be read: {message}")).in_file(name);
    match (format, number_after(&message, " at line ").filter(|_| format == FileFormat::Csv)) {
        (FileFormat::Parquet, _) => {
            what.help("the file is truncated or no Parquet file: write it again, or leave it out of LOCATION")
        }
        (_, Some(line)) => what.in_row(line.saturating_sub(header_lines(options))).help(
            "mend the row, or list the columns in CREATE STREAM and count such rows with OPTIONS ('on_error' 'skip')",
        ),
        (FileFormat::Csv, None) => what.help("check the options of the stream: delimiter, quote, header, compression"),
        (FileFormat::Json, None) => what.help("a JSON file holds one object a line; compression is an option"),
    }
}

/// The error of a file whose rows are being read.
pub(super) fn while_reading(
    name: &str,
    format: FileFormat,
    options: &StreamOptions,
    error: DataFusionError,
) -> DataFusionError {
    if let Some(own) = Error::find(&error) {
        return named(own, name).into();
    }
    let message = message(&error);
    let what = match csv_row(&message, options).filter(|_| format == FileFormat::Csv) {
        Some(row) => Error::data(&message).in_file(name).in_row(row),
        None => Error::data(format!("cannot be read: {message}")).in_file(name),
    };
    what.help(match format {
        FileFormat::Parquet => "the file is damaged: write it again, or leave it out of LOCATION",
        FileFormat::Csv => {
            "mend the row, list the column's type in CREATE STREAM, or count such rows with OPTIONS ('on_error' 'skip')"
        }
        FileFormat::Json => "mend the row, or list the column's type in CREATE STREAM",
    })
    .into()
}

fn named(own: &Error, name: &str) -> Error {
    match own {
        Error::Data { file: None, .. } => own.clone().in_file(name),
        own => own.clone(),
    }
}

fn message(error: &DataFusionError) -> String {
    error.find_root().strip_backtrace().trim_start_matches("Arrow error: ").replace('\n', " ")
}

fn header_lines(options: &StreamOptions) -> u64 {
    u64::from(options.csv.has_header != Some(false))
}

/// The row that a message of arrow's CSV reader names. It counts records from 1 and with the header where one has too
/// few or too many fields, and from 0 where a field cannot be parsed.
fn csv_row(message: &str, options: &StreamOptions) -> Option<u64> {
    let record = match number_after(message, " for line ") {
        Some(record) => Some(record),
        None => number_after(message, " at line ").map(|record| record + 1),
    };
    record?.checked_sub(header_lines(options))
}

fn number_after(message: &str, words: &str) -> Option<u64> {
    let (_, after) = message.split_once(words)?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
