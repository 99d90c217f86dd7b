//! A stream as it was declared: its files, columns, event time and partitions; and the same files as a plain table.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::file_format::FileFormat as DataFusionFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectMeta;

use crate::error::Error;
use crate::sql::FileFormat;

use super::early_pass::FoundTimes;
use super::event_time::EventTime;
use super::footer::Footer;
use super::left_out::LeftOut;
use super::live::{Batches, Bytes};
use super::options::StreamOptions;
use super::pieces::Division;
use super::place::{FilePlace, OpenFile, StoredFile};
use super::reader::ReaderCounts;
use super::replay::ReplayPlan;
use super::statistics::FileStatistics;
use super::stored_text::first_lines;
use super::text_parts::TextParts;
use super::unchanged::{Unchanged, Version};

/// A file of a stream, ready to be read.
#[derive(Debug, Clone)]
pub(super) struct StreamFile {
    /// The path as a person would write it.
    pub(super) name: String,
    pub(super) place: FilePlace,
    pub(super) object: ObjectMeta,
    /// Values of the Hive columns.
    pub(super) hive: Vec<ScalarValue>,
    pub(super) compression: CompressionTypeVariant,
    /// Of a Parquet file.
    pub(super) footer: Option<Footer>,
    /// What an early pass over event times has found.
    pub(super) found: FoundTimes,
    /// Where parts of a file of text begin.
    pub(super) parts: TextParts,
}

impl StreamFile {
    /// The object that it is, if it is in a store.
    pub(super) fn stored(&self) -> Option<StoredFile> {
        match &self.place {
            FilePlace::Local(_) => None,
            FilePlace::Stored(place) => Some(StoredFile { place: place.clone(), object: self.object.clone() }),
        }
    }

    /// What tells it from another file that has its name later.
    pub(super) fn version(&self) -> String {
        match (&self.place, &self.object.e_tag) {
            // A listing and an answer to a request may say other times of one object.
            (FilePlace::Stored(_), Some(tag)) => format!("{} bytes, {tag}", self.object.size),
            _ => format!("{} bytes, of {}", self.object.size, self.object.last_modified.to_rfc3339()),
        }
    }

    /// Opens a file of this machine for reading.
    ///
    /// # Errors
    /// It is not there any more, may not be read, or is another than the one that the stream was declared over.
    pub(super) fn open(&self) -> std::result::Result<File, Error> {
        let wrong = |error: io::Error| Error::data(error.to_string()).in_file(&self.name);
        let FilePlace::Local(path) = &self.place else { return Err(wrong(io::ErrorKind::Unsupported.into())) };
        let file = File::open(path).map_err(wrong)?;
        Version::of(self).check_begun(&file)?;
        Ok(file)
    }

    /// Opens it, to look at its bytes here and there.
    ///
    /// # Errors
    /// As [`StreamFile::open`].
    pub(super) fn open_anywhere(&self) -> Result<OpenFile> {
        Ok(match self.stored() {
            Some(file) => OpenFile::Stored(file),
            None => OpenFile::Local(self.open()?),
        })
    }

    /// The first lines of a file of text, or more.
    ///
    /// # Errors
    /// What cannot be read.
    pub(super) async fn first_lines(&self, lines: usize) -> Result<Box<dyn Read + Send>> {
        match self.stored() {
            Some(file) => Ok(Box::new(first_lines(&file, lines, self.compression).await?)),
            None => self.open_text(None, None),
        }
    }

    /// Opens a file of text of this machine for reading, decompressed, or some of its bytes as they are; its own bytes are counted.
    ///
    /// # Errors
    /// As [`StreamFile::open`].
    pub(super) fn open_text(
        &self,
        bytes: Option<Range<u64>>,
        counts: Option<&Arc<ReaderCounts>>,
    ) -> Result<Box<dyn Read + Send>> {
        let (mut file, counts) = (self.open()?, counts.cloned().unwrap_or_default());
        let bytes = bytes.filter(|_| self.compression == CompressionTypeVariant::UNCOMPRESSED);
        let bytes = bytes.unwrap_or(0..self.object.size);
        file.seek(SeekFrom::Start(bytes.start))?;
        let file = Unchanged { file, left: bytes.end - bytes.start, version: Version::of(self), counts };
        Ok(match self.compression {
            CompressionTypeVariant::UNCOMPRESSED => Box::new(file),
            compression => Box::new(FileCompressionType::from(compression).convert_read(file)?),
        })
    }
}

/// The column of rows' places in the stream, by partition, file and row: none that a file has.
pub(crate) const PLACE: &str = "__place";
/// Places of one file, more than it has rows.
const PLACES: i64 = 1 << 36;

/// A stream over files.
#[derive(Debug, Clone)]
pub(crate) struct StreamTable {
    pub(super) inner: Arc<Inner>,
    /// Whether each row has its place, in a last column [`PLACE`].
    pub(super) is_placed: bool,
    /// What is left out where it is read as a table.
    pub(super) left_out: Option<Arc<LeftOut>>,
    /// Which scan of a plan it is, where somebody has numbered them.
    pub(super) number: usize,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) name: String,
    pub(super) format: FileFormat,
    /// Columns of the files, then Hive columns.
    pub(super) schema: SchemaRef,
    pub(super) file_schema: SchemaRef,
    pub(super) hive_columns: Vec<FieldRef>,
    pub(super) event_time: Option<EventTime>,
    pub(super) partitioned_by: Option<Vec<String>>,
    /// Whether keys were declared to live in one file each, which is checked while reading.
    pub(super) checks_keys: bool,
    /// Columns each of whose values is in one partition only, as the statistics of the files have it.
    pub(super) columns_apart: Vec<String>,
    /// What footers tell of the columns of those files that were there when the stream was created.
    pub(super) statistics: FileStatistics,
    /// Files of each data partition, in order.
    pub(super) partitions: Vec<Vec<StreamFile>>,
    /// What comes besides the files that are there.
    pub(super) coming: Coming,
    pub(super) options: StreamOptions,
    pub(super) parquet: TableParquetOptions,
    pub(super) warnings: Vec<String>,
}

/// What comes of a stream while it is read.
#[derive(Debug)]
pub(super) enum Coming {
    Nothing,
    /// Files that appear at a location.
    Files(String),
    /// Lines at the end of a file.
    Lines(PathBuf),
    /// Bytes that can be read only once.
    Bytes(Bytes),
    /// Batches that a program makes.
    Batches {
        batches: Batches,
        is_endless: bool,
    },
}

impl Coming {
    /// Whether all rows come while they are read, and files do not say anything of them.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Lines(_) | Self::Bytes(_) | Self::Batches { .. })
    }
}

impl StreamTable {
    /// A stream as it was opened.
    pub(super) fn of(inner: Inner) -> Self {
        Self { inner: Arc::new(inner), is_placed: false, left_out: None, number: 0 }
    }

    pub(crate) fn name(&self) -> &str {
        &self.inner.name
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        let declared = &self.inner.schema;
        match self.is_placed {
            false => Arc::clone(declared),
            true => {
                let place = Arc::new(Field::new(PLACE, DataType::Int64, false));
                Arc::new(Schema::new(declared.fields().iter().cloned().chain([place]).collect::<Vec<_>>()))
            }
        }
    }

    /// The columns of its files and folders.
    pub(crate) fn declared_schema(&self) -> &SchemaRef {
        &self.inner.schema
    }

    /// The same stream with the place of each row as a last column.
    pub(crate) fn placed(&self) -> Self {
        Self { is_placed: true, ..self.clone() }
    }

    /// The same stream as a scan of this number.
    pub(crate) fn numbered(&self, number: usize) -> Self {
        Self { number, ..self.clone() }
    }

    /// Which scan of a plan it is, where somebody has numbered them.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// What is left out where it is read as a table.
    pub(crate) fn left_out(&self) -> Option<&Arc<LeftOut>> {
        self.left_out.as_ref()
    }

    /// Whether each row has its place.
    pub(crate) fn is_placed(&self) -> bool {
        self.is_placed
    }

    /// The place before that of the first row of a file.
    pub(super) fn place_before(&self, partition: usize, file: usize) -> i64 {
        let before = self.inner.partitions.iter().take(partition).map(Vec::len).sum::<usize>();
        (before + file) as i64 * PLACES
    }

    /// The place of a row, counted from 1, of the file of this name.
    pub(crate) fn place_of(&self, file: &str, row: u64) -> Option<i64> {
        let before = self.inner.partitions.iter().flatten().position(|known| known.name == file)?;
        Some(before as i64 * PLACES + row as i64)
    }

    pub(crate) fn event_time(&self) -> Option<&EventTime> {
        self.inner.event_time.as_ref()
    }

    /// Columns whose values each live in one partition only.
    pub(crate) fn partitioned_by(&self) -> Option<&[String]> {
        self.inner.partitioned_by.as_deref()
    }

    /// Columns each of whose values lives in one partition only, whether that was declared or not: the files say so.
    pub(crate) fn columns_apart(&self) -> &[String] {
        &self.inner.columns_apart
    }

    /// Number of data partitions.
    pub(crate) fn partitions(&self) -> usize {
        self.inner.partitions.len()
    }

    /// Whether nobody knows of an end.
    pub(crate) fn is_endless(&self) -> bool {
        match &self.inner.coming {
            Coming::Nothing => false,
            Coming::Files(_) | Coming::Lines(_) => true,
            Coming::Bytes(bytes) => bytes.follows,
            Coming::Batches { is_endless, .. } => *is_endless,
        }
    }

    /// Whether rows come while they are read, so that one pipeline takes them as they come and nothing is known of those
    /// that are still to come.
    pub(crate) fn is_arriving(&self) -> bool {
        !matches!(self.inner.coming, Coming::Nothing)
    }

    /// Whether what has been read cannot be read again.
    pub(crate) fn is_read_once(&self) -> bool {
        matches!(self.inner.coming, Coming::Bytes(_) | Coming::Batches { .. })
    }

    /// # Errors
    /// What has been read cannot be read again, so that nobody may read it beside a query.
    pub(super) fn check_reads_again(&self) -> Result<()> {
        if !self.is_read_once() {
            return Ok(());
        }
        let what = format!("stream {} as a table: its rows come only once", self.inner.name);
        Err(Error::sql(what).help("write them to a file first, and read that").into())
    }

    /// What a user should know of this stream.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// What a scan of the columns `projection` reads, divided among pipelines.
    ///
    /// # Errors
    /// A projection of columns that do not exist.
    pub(crate) fn replay(&self, projection: Option<&Vec<usize>>, division: &Division) -> Result<ReplayPlan> {
        ReplayPlan::try_new(self.clone(), projection, division)
    }

    /// The same files as a plain DataFusion table: the batch side of every comparison.
    ///
    /// # Errors
    /// What DataFusion has to say of the files.
    pub(crate) async fn batch_scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = &self.inner;
        self.check_reads_again()?;
        if inner.options.reads_csv_by_rows() {
            let what =
                "a DataFusion table does not read CSV with 'on_error' 'skip', 'null_value' or 'timestamp_format'";
            return Err(Error::sql(what).help("SET streamlines.strategy = 'partitioned'").into());
        }
        let mut urls = vec![];
        for file in inner.partitions.iter().flatten() {
            let base = match &file.place {
                FilePlace::Local(_) => "file://",
                FilePlace::Stored(stored) => &stored.base,
            };
            // Parts of a path are encoded, and so is a URL.
            let parts = file.object.location.parts().map(|part| part.as_ref().to_string());
            let hive_root: Vec<String> = parts.take_while(|part| !part.contains('=')).collect();
            let path = match inner.hive_columns.is_empty() {
                true => format!("{base}/{}", file.object.location),
                false => format!("{base}/{}/", hive_root.join("/")),
            };
            let url = ListingTableUrl::parse(path)?;
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        let first = inner.partitions.iter().flatten().next();
        let compression = first.map_or(CompressionTypeVariant::UNCOMPRESSED, |file| file.compression);
        let format = inner.options.format(inner.format, compression, inner.parquet.clone());
        let columns = inner.hive_columns.iter().map(|field| (field.name().clone(), field.data_type().clone()));
        let options = ListingOptions::new(format).with_file_extension("").with_table_partition_cols(columns.collect());
        let config = ListingTableConfig::new_with_multi_paths(urls)
            .with_listing_options(options)
            .with_schema(Arc::clone(&inner.file_schema));
        ListingTable::try_new(config)?.scan(state, projection, filters, limit).await
    }
}

impl StreamOptions {
    /// DataFusion's format for files of this stream.
    pub(super) fn format(
        &self,
        format: FileFormat,
        compression: CompressionTypeVariant,
        parquet: TableParquetOptions,
    ) -> Arc<dyn DataFusionFormat> {
        match format {
            FileFormat::Parquet => Arc::new(ParquetFormat::default().with_options(parquet)),
            FileFormat::Csv => {
                let mut options = self.csv.clone();
                options.compression = compression;
                Arc::new(CsvFormat::default().with_options(options))
            }
            FileFormat::Json => Arc::new(JsonFormat::default().with_file_compression_type(compression.into())),
        }
    }
}
