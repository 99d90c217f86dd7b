//! Opening a stream whose rows come only once, or that a program makes: nothing of it can be looked at before.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::common::parsers::CompressionTypeVariant;

use crate::confinement;
use crate::error::{Error, Location};
use crate::sql::{CreateStream, FileFormat, Watermark};

use super::event_time::EventTime;
use super::live::{Bytes, LiveStream, Place};
use super::options::StreamOptions;
use super::schema::listed_columns;
use super::table::{Coming, Inner, StreamTable};

impl StreamTable {
    /// A stream of bytes that come only once: standard input, a pipe or a connection.
    ///
    /// # Errors
    /// Columns or a format that are not said; what is known of files only; a watermark without a bound.
    pub(super) async fn open_bytes(definition: &CreateStream, place: Place, state: &dyn Session) -> Result<Self> {
        let at = definition.location_at;
        confinement::check_outside(state.config(), &place.to_string())?;
        let wrong = |what: String, help: &str| Err(Error::sql(what).at(Some(at)).help(help).into());
        let format = match definition.format {
            Some(format @ (FileFormat::Csv | FileFormat::Json)) => format,
            _ => {
                let what = format!("the format of {place}, of which text alone can be read while it comes,");
                return wrong(what, "STORED AS CSV or JSON");
            }
        };
        if definition.columns.is_empty() {
            let what = format!("the columns of {place}, whose rows come only once,");
            return wrong(
                what,
                "list them: CREATE STREAM name (ts TIMESTAMP, page VARCHAR, WATERMARK FOR ts AS ts - …)",
            );
        }
        let options = StreamOptions::parse(&definition.options, format, at)?;
        let is_plain = matches!(options.compression, None | Some(CompressionTypeVariant::UNCOMPRESSED));
        if !is_plain {
            return wrong(format!("compression of {place}"), "decompress it before: zcat file.gz | …");
        }
        let has_partitions = options.partitions_are_files || !options.partitioned_by.is_empty();
        if has_partitions || !definition.partitioned_by.is_empty() {
            return wrong(format!("partitions of {place}, which is one sequence of rows"), "leave them out");
        }
        check_bound(definition.watermark.as_ref())?;
        let schema: SchemaRef = Arc::new(Schema::new(listed_columns(definition.columns.clone(), state).await?));
        let coming = Coming::Bytes(Bytes::new(place, options.follow));
        let inner = Inner {
            options,
            event_time: declared(definition.watermark.as_ref(), &schema)?,
            parquet: state.default_table_options().parquet,
            ..Inner::live(definition.name.join("."), format, schema, coming)
        };
        Ok(Self::of(inner))
    }

    /// A stream of batches that a program makes.
    ///
    /// # Errors
    /// A watermark of a column that is not there, or that holds no times.
    pub(crate) fn of_batches(name: &str, live: LiveStream) -> Result<Self> {
        let schema = Arc::clone(&live.schema);
        let watermark = live.watermark.as_ref().map(|(column, bound)| Watermark {
            column: column.clone(),
            at: Location { line: 1, column: 1 },
            bound_ns: Some(i64::try_from(bound.as_nanos()).unwrap_or(i64::MAX)),
        });
        let event_time = declared(watermark.as_ref(), &schema).map_err(|error| match Error::find(&error) {
            // There is no text in which it stands.
            Some(own) => own.clone().at(None).into(),
            None => error,
        })?;
        let options = StreamOptions { idle_timeout: live.idle_timeout, ..StreamOptions::default() };
        let coming = Coming::Batches { is_endless: live.is_endless, batches: live.into_batches() };
        Ok(Self::of(Inner { event_time, options, ..Inner::live(name.to_string(), FileFormat::Json, schema, coming) }))
    }
}

/// What is still to come is not known.
///
/// # Errors
/// A watermark without a bound.
fn check_bound(watermark: Option<&Watermark>) -> Result<()> {
    match watermark {
        Some(watermark) if watermark.bound_ns.is_none() => {
            let what = "an exact watermark of a stream whose rows come only once: what is still to come is not known";
            let error = Error::sql(what).at(Some(watermark.at));
            Err(error.help("WATERMARK FOR ts AS ts - INTERVAL '10' SECOND").into())
        }
        _ => Ok(()),
    }
}

fn declared(watermark: Option<&Watermark>, schema: &SchemaRef) -> Result<Option<EventTime>> {
    watermark.map(|watermark| EventTime::declared(watermark, schema)).transpose()
}

impl Inner {
    /// A stream without files.
    fn live(name: String, format: FileFormat, schema: SchemaRef, coming: Coming) -> Self {
        Self {
            name,
            format,
            file_schema: Arc::clone(&schema),
            schema,
            hive_columns: vec![],
            event_time: None,
            partitioned_by: None,
            checks_keys: false,
            columns_apart: vec![],
            statistics: Default::default(),
            partitions: vec![vec![]],
            coming,
            options: StreamOptions::default(),
            parquet: Default::default(),
            warnings: vec![],
        }
    }
}
