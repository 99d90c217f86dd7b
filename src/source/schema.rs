//! A stream's columns: inferred from its files, or as listed and checked against them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::{CreateExternalTable, Statement};
use datafusion::sql::sqlparser::ast::{ColumnDef, Ident, ObjectName};

use crate::error::{Error, plain};
use crate::sql::{FileFormat, nearest};

/// Arrow fields of SQL column definitions, as DataFusion reads them.
///
/// # Errors
/// Types that DataFusion does not know.
pub(super) async fn listed_columns(columns: Vec<ColumnDef>, state: &dyn Session) -> Result<Vec<Field>> {
    if columns.is_empty() {
        return Ok(vec![]);
    }
    let state = state
        .as_any()
        .downcast_ref::<SessionState>()
        .ok_or_else(|| internal_datafusion_err!("streams are created by a SessionState"))?;
    let names_watermark = columns.iter().any(|column| column.name.value.eq_ignore_ascii_case("watermark"));
    let statement = CreateExternalTable {
        name: ObjectName::from(vec![Ident::new("columns")]),
        columns,
        file_type: "PARQUET".to_string(),
        locations: vec!["columns".to_string()],
        table_partition_cols: vec![],
        order_exprs: vec![],
        if_not_exists: false,
        or_replace: false,
        temporary: false,
        unbounded: false,
        options: vec![],
        constraints: vec![],
    };
    let plan = state.statement_to_plan(Statement::CreateExternalTable(statement)).await;
    let plan = plan.map_err(|error| match names_watermark {
        true => {
            Error::sql(format!("column watermark: {}", plain(&error))).help("an event time is WATERMARK FOR ts").into()
        }
        false => error,
    });
    match plan? {
        LogicalPlan::Ddl(DdlStatement::CreateExternalTable(table)) => {
            Ok(table.schema.fields().iter().map(|field| field.as_ref().clone()).collect())
        }
        other => Err(internal_datafusion_err!("columns are not read as {}", other.display())),
    }
}

/// One schema for all files, each given with its name.
///
/// # Errors
/// Files that differ: which file, which column, how.
pub(super) fn common_schema(files: &[(String, SchemaRef)], format: FileFormat) -> Result<SchemaRef> {
    let Some(((first_name, first), rest)) = files.split_first() else {
        return Err(Error::data("a stream needs at least one file").into());
    };
    let mut fields: Vec<Field> = first.fields().iter().map(|field| field.as_ref().clone()).collect();
    let names = || first.fields().iter().map(|field| field.name());
    if let Some((_, twice)) =
        names().enumerate().find(|(index, name)| names().take(*index).any(|before| before == *name))
    {
        let error = Error::data(format!("has two columns '{twice}'")).in_file(first_name);
        return Err(error.help("give each column a name of its own").into());
    }
    for (name, schema) in rest {
        let pairs = || first.fields().iter().zip(schema.fields());
        let same_names =
            pairs().all(|(a, b)| schema.field_with_name(a.name()).is_ok() && first.field_with_name(b.name()).is_ok());
        // Text has its columns by their place.
        if format == FileFormat::Csv
            && same_names
            && let Some((column, other)) = pairs().find(|(column, other)| column.name() != other.name())
        {
            let how = format!("has column '{}' where '{}' is", other.name(), column.name());
            return Err(differs(name, first_name, how).into());
        }
        for field in &mut fields {
            let Ok(other) = schema.field_with_name(field.name()) else {
                return Err(differs(name, first_name, format!("has no column '{}'", field.name())).into());
            };
            match common_type(field.data_type(), other.data_type(), format) {
                Some(data_type) => {
                    let nullable = field.is_nullable() || other.is_nullable();
                    *field = field.clone().with_data_type(data_type).with_nullable(nullable);
                }
                None => {
                    let how = format!(
                        "has column '{}' as {} and not as {}",
                        field.name(),
                        other.data_type(),
                        field.data_type()
                    );
                    return Err(differs(name, first_name, how).into());
                }
            }
        }
        if let Some(extra) = schema.fields().iter().find(|field| first.field_with_name(field.name()).is_err()) {
            return Err(differs(name, first_name, format!("has a further column '{}'", extra.name())).into());
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn differs(file: &str, first: &str, how: String) -> Error {
    Error::data(format!("{how}, unlike {first}"))
        .in_file(file)
        .help("list the columns that all files have in CREATE STREAM name (…), or name fewer files in LOCATION")
}

/// What two files' types for a column have in common. Text formats are guessed from their first rows, so there a
/// narrower guess gives way to a wider one.
fn common_type(a: &DataType, b: &DataType, format: FileFormat) -> Option<DataType> {
    use DataType::{Float64, Int64, Null};
    match (a, b) {
        _ if a == b => Some(a.clone()),
        _ if format == FileFormat::Parquet => None,
        (Null, other) | (other, Null) => Some(other.clone()),
        (Int64, Float64) | (Float64, Int64) => Some(Float64),
        (DataType::Timestamp(unit, zone), DataType::Timestamp(other, other_zone)) if zone == other_zone => {
            Some(DataType::Timestamp(*unit.max(other), zone.clone()))
        }
        _ => None,
    }
}

/// The listed columns, checked against the schema of the files.
///
/// Parquet files know their types, so a listed type only has to be of the same kind; text is parsed as listed.
///
/// # Errors
/// A column that the files do not have, or have as something else.
pub(super) fn check_listed(listed: Vec<Field>, file: &str, found: &SchemaRef, format: FileFormat) -> Result<SchemaRef> {
    if format == FileFormat::Csv && listed.len() != found.fields().len() {
        let message = format!("has {} columns, and {} are listed", found.fields().len(), listed.len());
        return Err(Error::data(message).in_file(file).help("list every column of a CSV file, in its order").into());
    }
    let mut fields = vec![];
    for (index, field) in listed.into_iter().enumerate() {
        let Ok(in_file) = found.field_with_name(field.name()) else {
            let error = Error::data(format!("has no column '{}'", field.name())).in_file(file);
            let names = found.fields().iter().map(|field| field.name().as_str());
            return Err(match nearest(field.name(), names) {
                Some(nearest) => error.help(format!("did you mean '{nearest}'?")).into(),
                None => error.help("list columns of the files, or none at all").into(),
            });
        };
        if format == FileFormat::Csv && found.field(index).name() != field.name() {
            let message = format!("column {} is '{}', not '{}'", index + 1, found.field(index).name(), field.name());
            return Err(Error::data(message).in_file(file).help("list the columns in the order of the file").into());
        }
        match format {
            FileFormat::Parquet if !same_kind(field.data_type(), in_file.data_type()) => {
                let message =
                    format!("column '{}' is {}, not {}", field.name(), in_file.data_type(), field.data_type());
                let help =
                    format!("a Parquet file knows its types: list it as {} has it, or list no columns at all", file);
                return Err(Error::data(message).in_file(file).help(help).into());
            }
            FileFormat::Parquet => fields.push(in_file.clone()),
            _ => fields.push(field),
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn same_kind(a: &DataType, b: &DataType) -> bool {
    let is_text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match (a, b) {
        (DataType::Timestamp(_, zone), DataType::Timestamp(_, other)) => zone.is_some() == other.is_some(),
        (DataType::Decimal128(_, scale), DataType::Decimal128(_, other)) => scale == other,
        (listed, DataType::Dictionary(_, value)) if !matches!(listed, DataType::Dictionary(_, _)) => {
            same_kind(listed, value)
        }
        _ => a == b || (is_text(a) && is_text(b)),
    }
}

/// An error for a column that is not there, with the nearest name.
pub(super) fn no_column(name: &str, schema: &SchemaRef, what: &str) -> Error {
    let error = Error::sql(format!("{what} that is not there: {name}"));
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    match nearest(name, names.iter().copied()) {
        Some(nearest) => error.help(format!("did you mean {nearest}?")),
        None => error.help(format!("columns are {}", names.join(", "))),
    }
}
