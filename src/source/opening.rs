//! Opening a stream: its files are found, what they say of their columns is checked, and its partitions are fixed.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::config::TableParquetOptions;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use datafusion::parquet::file::metadata::ParquetMetaData;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::confinement::{self, Access};
use crate::error::{Error, Location};
use crate::panics::{caught, caught_in};
use crate::sql::{CreateStream, FileFormat, Watermark};

use super::apart::Apart;
use super::csv_rows;
use super::early_pass::FoundTimes;
use super::event_time::{EventTime, overlap};
use super::files::{self, FoundFile, Search, format_of};
use super::footer::Footer;
use super::live::Place;
use super::options::{StreamOptions, compression_of};
use super::schema::{check_listed, common_schema, listed_columns, no_column};
use super::statistics::FileStatistics;
use super::table::{Coming, Inner, StreamFile, StreamTable};
use super::text_parts::TextParts;
use super::unreadable::while_opening;

/// How many files are asked of what they hold at once.
const REQUESTS: usize = 8;

impl StreamTable {
    /// Finds the files of a declared stream, reads what they say of their columns, and fixes the partitions.
    ///
    /// # Errors
    /// No files; files that cannot be read or that differ; columns that are not there; a watermark on what is no
    /// timestamp.
    pub(crate) async fn open(definition: &CreateStream, state: &dyn Session) -> Result<Self> {
        let at = Some(definition.location_at);
        if let Some(place) = Place::of(&definition.location) {
            return Self::open_bytes(definition, place, state).await;
        }
        for place in files::places(&definition.location) {
            confinement::check(state.config(), &place, Access::Read)?;
        }
        let search = Search { runtime: state.runtime_env(), config: state.config() };
        let found = found_files(definition, at, search).await?;
        let by_name = || format_of(&found.first()?.place.name());
        let format = match definition.format.or_else(by_name) {
            Some(format) => format,
            None => {
                let error = Error::sql("the format of the files is not known by their extension").at(at);
                let help =
                    "STORED AS in CREATE STREAM is PARQUET, CSV or JSON; a quoted path ends in .parquet, .csv or .json";
                return Err(error.help(help).into());
            }
        };
        let is_other = |file: &&FoundFile| {
            let of_file = format_of(&file.place.name());
            definition.format.is_none() && of_file.is_some_and(|other| other != format)
        };
        if let Some(other) = found.iter().find(is_other) {
            let message = format!("{} and {} are of two formats", found[0].place.shown(), other.place.shown());
            return Err(Error::sql(message).at(at).help("name files of one format, or write STORED AS").into());
        }
        let options = StreamOptions::parse(&definition.options, format, definition.location_at)?;
        let listed = listed_columns(definition.columns.clone(), state).await?;
        let mut hive_types = listed_types(&definition.partitioned_by, state).await?;
        // A column of the folders may be listed among those of the files, as CREATE EXTERNAL TABLE wants it.
        let is_of_folders =
            |field: &Field| found.first().is_some_and(|file| file.hive.iter().any(|(name, _)| name == field.name()));
        let (of_folders, listed): (Vec<_>, Vec<_>) = listed.into_iter().partition(is_of_folders);
        for field in of_folders {
            hive_types.retain(|(name, _)| name != field.name());
            hive_types.push((field.name().clone(), field.data_type().clone()));
        }
        let location = definition.location.clone();
        Opening { name: definition.name.join("."), location, format, options, at: definition.location_at }
            .open(found, listed, hive_types, definition.watermark.as_ref(), state)
            .await
    }

    /// Files without a declaration: columns are inferred, and no column is declared the event time.
    ///
    /// # Errors
    /// As [`StreamTable::open`].
    pub(crate) async fn from_path(path: &str, at: Location, state: &dyn Session) -> Result<Self> {
        let definition = CreateStream {
            name: vec![path.to_string()],
            at,
            or_replace: false,
            if_not_exists: false,
            columns: vec![],
            watermark: None,
            format: None,
            partitioned_by: vec![],
            location: path.to_string(),
            location_at: at,
            options: vec![],
        };
        Self::open(&definition, state).await
    }
}

async fn listed_types(
    columns: &[(String, Option<datafusion::sql::sqlparser::ast::DataType>)],
    state: &dyn Session,
) -> Result<Vec<(String, DataType)>> {
    use datafusion::sql::sqlparser::ast::{ColumnDef, DataType as SqlType, Ident};
    let definitions = columns.iter().map(|(name, data_type)| ColumnDef {
        name: Ident::with_quote('"', name),
        data_type: data_type.clone().unwrap_or(SqlType::Text),
        options: vec![],
    });
    let fields = listed_columns(definitions.collect(), state).await?;
    Ok(fields.into_iter().map(|field| (field.name().clone(), field.data_type().clone())).collect())
}

/// A stream that is being opened.
struct Opening {
    name: String,
    location: String,
    format: FileFormat,
    options: StreamOptions,
    at: Location,
}

impl Opening {
    async fn open(
        self,
        found: Vec<FoundFile>,
        listed: Vec<Field>,
        hive_types: Vec<(String, DataType)>,
        watermark: Option<&Watermark>,
        state: &dyn Session,
    ) -> Result<StreamTable> {
        let parquet = state.default_table_options().parquet;
        let hive_columns = self.hive_columns(&found, hive_types)?;
        let open = |file| stream_file(file, &hive_columns, &self.options, state.runtime_env()).boxed();
        let opened: Vec<BoxFuture<'_, _>> = found.iter().map(open).collect();
        let mut files: Vec<StreamFile> = stream::iter(opened).buffered(REQUESTS).try_collect().await?;
        let schemas = self.file_schemas(&files, listed.is_empty(), &parquet, state).await?;
        let file_schema = match listed.is_empty() {
            true => common_schema(&schemas, self.format)?,
            false => self.listed_schema(listed, &schemas)?,
        };
        let mut builder = arrow::datatypes::SchemaBuilder::from(file_schema.as_ref());
        hive_columns.iter().for_each(|field| builder.push(Arc::clone(field)));
        let schema = Arc::new(builder.finish());
        let event_time = watermark.map(|watermark| EventTime::declared(watermark, &schema)).transpose()?;
        self.check_follows(&hive_columns, watermark)?;
        let mut statistics = FileStatistics::default();
        if self.format == FileFormat::Parquet {
            // Where none is declared, a window may be built on any of them.
            let times: Vec<usize> = match &event_time {
                Some(time) => vec![time.index],
                None => (0..file_schema.fields().len()).collect(),
            };
            let mut footers = vec![];
            let asked: Vec<BoxFuture<'_, _>> = files.iter().map(|file| self.metadata(file, state).boxed()).collect();
            let mut found = stream::iter(asked).buffered(REQUESTS);
            for file in &files {
                let Some(metadata) = found.try_next().await? else { break };
                let read = caught(|| {
                    statistics.add(&metadata, &file_schema);
                    Footer::read(&metadata, &file_schema, &times)
                });
                footers.push(read.map_err(|error| while_opening(file, self.format, &self.options, &error))?);
            }
            drop(found);
            files.iter_mut().zip(footers).for_each(|(file, footer)| file.footer = Some(footer));
        }
        let (partitioned_by, checks_keys) = self.partition_columns(&hive_columns, &schema)?;
        let partitions = self.partitions(files, &found, &hive_columns);
        let columns_apart = self.columns_apart(&partitions, &file_schema, state).await?;
        let warnings = self.overlap_warnings(&partitions, event_time.as_ref());
        let coming = self.coming()?;
        let inner = Inner {
            name: self.name,
            format: self.format,
            schema,
            file_schema,
            hive_columns,
            event_time,
            partitioned_by,
            checks_keys,
            columns_apart,
            statistics,
            partitions,
            coming,
            options: self.options,
            parquet,
            warnings,
        };
        Ok(StreamTable::of(inner))
    }

    /// What comes while the stream is read: lines of a file that is one and text, or files.
    fn coming(&self) -> Result<Coming> {
        Ok(match (self.options.follow, files::only_file(&self.location, self.format)?) {
            (false, _) => Coming::Nothing,
            (true, Some(file)) => Coming::Lines(file),
            (true, None) => Coming::Files(self.location.clone()),
        })
    }

    /// The columns that Hive folders add: as declared, or as the folders say.
    fn hive_columns(&self, found: &[FoundFile], declared: Vec<(String, DataType)>) -> Result<Vec<FieldRef>> {
        let names: Vec<&String> = found.first().map_or(vec![], |file| file.hive.iter().map(|(name, _)| name).collect());
        for file in found {
            if file.hive.iter().map(|(name, _)| name).collect::<Vec<_>>() != names {
                let message = "lies in other key=value folders than the files before it";
                return Err(Error::data(message).in_file(file.place.name()).into());
            }
        }
        if let Some((name, _)) = declared.iter().find(|(name, _)| !names.contains(&name)) {
            return Err(Error::sql(format!("no folder {name}=… holds the files of stream {}", self.name))
                .at(Some(self.at))
                .help("PARTITIONED BY names Hive folders; for files that each hold keys of their own write OPTIONS ('partitioned_by' 'column')")
                .into());
        }
        let type_of = |name: &String| {
            declared.iter().find(|(known, _)| known == name).map_or(DataType::Utf8, |(_, data_type)| data_type.clone())
        };
        let is_missing = |name: &String| {
            found.iter().any(|file| file.hive.iter().any(|(column, value)| column == name && value.is_none()))
        };
        let field = |name| Arc::new(Field::new(name, type_of(name), is_missing(name)));
        Ok(names.into_iter().map(field).collect())
    }

    /// What is followed is one sequence of rows, of which nobody knows what is still to come.
    fn check_follows(&self, hive: &[FieldRef], watermark: Option<&Watermark>) -> Result<()> {
        let wrong = |what: &str, at: Location, help: &str| Err(Error::sql(what).at(Some(at)).help(help).into());
        if !self.options.follow {
            return Ok(());
        }
        if files::is_object(&self.location, self.format) {
            let what = "'follow' of one object, to whose end no rows can be written";
            return wrong(what, self.at, "name a folder, ending in /, or a glob");
        }
        if let Some(file) = files::only_file(&self.location, self.format)? {
            let compression = self.options.compression.unwrap_or_else(|| compression_of(&file.to_string_lossy()));
            if self.format == FileFormat::Parquet || compression != CompressionTypeVariant::UNCOMPRESSED {
                let what = "'follow' of one file, to whose end no rows can be written";
                return wrong(what, self.at, "name a folder or a glob, or a file of plain text");
            }
        }
        if self.options.partitions_are_files || !self.options.partitioned_by.is_empty() || !hive.is_empty() {
            let what = "'follow' of several partitions: files that appear belong to one sequence of rows";
            return wrong(what, self.at, "leave out 'partitioned_by' and 'partitions', and key=value folders");
        }
        match watermark {
            Some(watermark) if watermark.bound_ns.is_none() => wrong(
                "an exact watermark of a stream that is followed: what is still to come is not known",
                watermark.at,
                "WATERMARK FOR ts AS ts - INTERVAL '10' SECOND",
            ),
            _ => Ok(()),
        }
    }

    async fn file_schemas(
        &self,
        files: &[StreamFile],
        infers: bool,
        parquet: &TableParquetOptions,
        state: &dyn Session,
    ) -> Result<Vec<(String, SchemaRef)>> {
        let mut schemas = vec![];
        for file in files {
            if file.object.size == 0 {
                let are_all_empty = files.iter().all(|file| file.object.size == 0);
                if infers && are_all_empty || self.format == FileFormat::Parquet {
                    let error = Error::data("is empty").in_file(&file.name);
                    return Err(error.help("leave it out of LOCATION, or list the columns of the stream").into());
                }
                continue;
            }
            if self.format == FileFormat::Csv && !infers {
                // Listed columns need the names only: a bad row is told, or skipped, when it is read.
                if self.options.csv.has_header != Some(false) {
                    schemas.push((file.name.clone(), csv_rows::header(file, &self.options.csv).await?));
                }
                continue;
            }
            if self.format == FileFormat::Csv {
                if self.options.timestamp_format.is_some() {
                    let error =
                        Error::sql("'timestamp_format' where no column is listed as a timestamp").at(Some(self.at));
                    return Err(error.help("list the columns: CREATE STREAM name (ts TIMESTAMP, …)").into());
                }
                let schema = csv_rows::infer(file, &self.options).await;
                let schema = schema.map_err(|error| while_opening(file, self.format, &self.options, &error))?;
                schemas.push((file.name.clone(), schema));
                continue;
            }
            let format = self.options.format(self.format, file.compression, parquet.clone());
            let store = file.place.store(state.runtime_env())?;
            let schema = caught_in(format.infer_schema(state, &store, std::slice::from_ref(&file.object))).await;
            // What cannot be guessed of JSON may be in fields that are not listed; the others are checked as they come.
            if self.format == FileFormat::Json && !infers && schema.is_err() {
                continue;
            }
            let schema = schema.map_err(|error| while_opening(file, self.format, &self.options, &error))?;
            // Without a header there are no names to compare.
            schemas.push((file.name.clone(), schema));
        }
        Ok(schemas)
    }

    fn listed_schema(&self, listed: Vec<Field>, schemas: &[(String, SchemaRef)]) -> Result<SchemaRef> {
        let has_names = self.format != FileFormat::Csv || self.options.csv.has_header != Some(false);
        let mut checked = None;
        for (name, schema) in schemas.iter().filter(|_| has_names) {
            let schema = check_listed(listed.clone(), name, schema, self.format)?;
            let first: &SchemaRef = checked.get_or_insert_with(|| Arc::clone(&schema));
            common_schema(&[(schemas[0].0.clone(), Arc::clone(first)), (name.clone(), schema)], self.format)?;
        }
        Ok(checked.unwrap_or_else(|| Arc::new(Schema::new(listed))))
    }

    async fn metadata(&self, file: &StreamFile, state: &dyn Session) -> Result<Arc<ParquetMetaData>> {
        let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
        let store = file.place.store(state.runtime_env())?;
        let metadata = DFParquetMetadata::new(store.as_ref(), &file.object).with_file_metadata_cache(Some(cache));
        let metadata = caught_in(metadata.fetch_metadata()).await;
        Ok(metadata.map_err(|error| while_opening(file, self.format, &self.options, &error))?)
    }

    /// Columns that no two partitions have a value of.
    async fn columns_apart(
        &self,
        partitions: &[Vec<StreamFile>],
        schema: &SchemaRef,
        state: &dyn Session,
    ) -> Result<Vec<String>> {
        if self.format != FileFormat::Parquet || partitions.len() == 1 {
            return Ok(vec![]);
        }
        let mut apart = Apart::new(Arc::clone(schema));
        for files in partitions {
            if apart.is_empty() {
                break;
            }
            let mut metadata = vec![];
            for file in files {
                metadata.push(self.metadata(file, state).await?);
            }
            caught(|| apart.add(&metadata))?;
        }
        Ok(apart.names())
    }

    /// Columns that keep a key in one partition, and whether that is to be checked.
    fn partition_columns(&self, hive: &[FieldRef], schema: &SchemaRef) -> Result<(Option<Vec<String>>, bool)> {
        let declared = &self.options.partitioned_by;
        for name in declared {
            if schema.field_with_name(name).is_err() {
                return Err(no_column(name, schema, "'partitioned_by' names a column").at(Some(self.at)).into());
            }
        }
        let names: Vec<String> = hive.iter().map(|field| field.name().clone()).collect();
        // Files of one folder share its key.
        let names = if self.options.partitions_are_files { vec![] } else { names };
        Ok(match (declared.is_empty(), names.is_empty()) {
            (false, _) => (Some(declared.clone()), true),
            (true, false) => (Some(names), false),
            (true, true) => (None, false),
        })
    }

    /// Each file, or each folder, or all files together.
    fn partitions(&self, files: Vec<StreamFile>, found: &[FoundFile], hive: &[FieldRef]) -> Vec<Vec<StreamFile>> {
        if self.options.partitions_are_files || !self.options.partitioned_by.is_empty() {
            return files.into_iter().map(|file| vec![file]).collect();
        }
        if hive.is_empty() {
            return vec![files];
        }
        let mut partitions: Vec<Vec<StreamFile>> = vec![];
        let mut folders: Vec<&[(String, Option<String>)]> = vec![];
        for (file, found) in files.into_iter().zip(found) {
            match folders.iter().position(|folder| *folder == found.hive.as_slice()) {
                Some(known) => partitions[known].push(file),
                None => {
                    folders.push(&found.hive);
                    partitions.push(vec![file]);
                }
            }
        }
        partitions
    }

    /// Files that one sequence of rows would make late by the second of them.
    fn overlap_warnings(&self, partitions: &[Vec<StreamFile>], time: Option<&EventTime>) -> Vec<String> {
        let Some((column, bound)) = time.and_then(|time| Some((time.index, time.bound?))) else {
            return vec![];
        };
        let range = |file: &StreamFile| {
            let groups = file.footer.as_ref()?.times(column)?;
            let ranges = groups.iter().flatten().filter_map(|group| group.range);
            ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
        };
        let mut warnings = vec![];
        for files in partitions {
            for pair in files.windows(2) {
                if let [first, second] = pair
                    && let (Some(before), Some(after)) = (range(first), range(second))
                    && after.0 < before.1.saturating_sub(bound)
                {
                    warnings.push(overlap(&first.name, &second.name));
                    break;
                }
            }
        }
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        warnings
    }
}

/// The files of a stream. Where further ones are looked for, there may be none yet if it is said what they hold.
async fn found_files(definition: &CreateStream, at: Option<Location>, search: Search<'_>) -> Result<Vec<FoundFile>> {
    let follows = definition.options.iter().any(|(name, value)| name == "follow" && value.eq_ignore_ascii_case("true"));
    match follows && !definition.columns.is_empty() && definition.format.is_some() {
        true => files::find_any(&definition.location, definition.format, search).await,
        false => files::find(&definition.location, definition.format, at, search).await,
    }
}

/// A file that has appeared while a stream is read.
///
/// # Errors
/// A file that cannot be read, or that has other columns.
pub(super) async fn follow_file(inner: &Inner, found: &FoundFile, runtime: &RuntimeEnv) -> Result<StreamFile> {
    let mut file = stream_file(found, &inner.hive_columns, &inner.options, runtime).await?;
    let listed = || inner.file_schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    match inner.format {
        FileFormat::Parquet => {
            let store = file.place.store(runtime)?;
            let metadata = DFParquetMetadata::new(store.as_ref(), &file.object);
            let metadata = caught_in(metadata.fetch_metadata()).await;
            let metadata = metadata.map_err(|error| while_opening(&file, inner.format, &inner.options, &error))?;
            let parquet = metadata.file_metadata();
            let schema = parquet_to_arrow_schema(parquet.schema_descr(), parquet.key_value_metadata())?;
            check_listed(listed(), &file.name, &Arc::new(schema), inner.format)?;
            let times: Vec<usize> = inner.event_time.iter().map(|time| time.index).collect();
            let read = caught(|| Footer::read(&metadata, &inner.file_schema, &times));
            let footer = read.map_err(|error| while_opening(&file, inner.format, &inner.options, &error))?;
            file.footer = Some(footer);
        }
        FileFormat::Csv if file.object.size > 0 && inner.options.csv.has_header != Some(false) => {
            check_listed(listed(), &file.name, &csv_rows::header(&file, &inner.options.csv).await?, inner.format)?;
        }
        FileFormat::Csv | FileFormat::Json => {}
    }
    Ok(file)
}

async fn stream_file(
    file: &FoundFile,
    hive: &[FieldRef],
    options: &StreamOptions,
    runtime: &RuntimeEnv,
) -> Result<StreamFile> {
    let name = file.place.shown();
    // A listing that says a version says enough.
    let object = match file.object.clone().filter(|object| object.e_tag.is_some()) {
        Some(object) => object,
        None => file.place.object(runtime).await?,
    };
    let values = hive.iter().zip(&file.hive).map(|(field, (_, value))| {
        let of_type = field.data_type();
        let Some(value) = value else { return ScalarValue::try_from(of_type) };
        let wrong = |_| Error::data(format!("folder {}={value} is no {of_type}", field.name())).in_file(&name);
        Ok(ScalarValue::try_from_string(value.clone(), of_type).map_err(wrong)?)
    });
    let hive = values.collect::<Result<_>>()?;
    let compression = options.compression.unwrap_or_else(|| compression_of(&name));
    Ok(StreamFile {
        name,
        place: file.place.clone(),
        object,
        hive,
        compression,
        footer: None,
        found: FoundTimes::default(),
        parts: TextParts::default(),
    })
}
