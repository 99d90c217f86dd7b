//! Reading a piece: file after file, batch after batch, each cut and stamped by the watermark.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetFileReaderFactory, ParquetAccessPlan, RowGroupAccess,
};
use datafusion::datasource::physical_plan::{
    CsvSource, FileGroup, FileScanConfigBuilder, FileSource, JsonSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::TaskContext;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::StreamExt;

use crate::config::StreamlinesOptions;
use crate::operator::{Stamp, WATERMARK_MIN};
use crate::sql::FileFormat;

use super::csv_rows::CsvRows;
use super::key_check::{KeyCheck, ReaderKeys};
use super::pieces::{Chunk, Division, Piece};
use super::table::{Inner, StreamFile, StreamTable};
use super::unreadable::while_reading;
use super::watermark::WatermarkGenerator;

/// What one scan of a stream reads: one piece for each pipeline.
#[derive(Debug)]
pub(crate) struct ReplayPlan {
    table: StreamTable,
    pieces: Vec<Piece>,
    schema: SchemaRef,
    /// Columns that are read: the projection, and the event time if that is not among them.
    columns: Vec<usize>,
    /// Position of the event time among `columns`, if watermarks are wanted.
    time: Option<usize>,
    keys: std::sync::OnceLock<Arc<KeyCheck>>,
}

impl ReplayPlan {
    pub(super) fn try_new(
        table: StreamTable,
        projection: Option<&Vec<usize>>,
        division: Division,
        pieces: Vec<Piece>,
    ) -> Result<Self> {
        let inner = &table.inner;
        let mut columns = match projection {
            Some(projection) => projection.clone(),
            None => (0..inner.schema.fields().len()).collect(),
        };
        let schema = Arc::new(inner.schema.project(&columns)?);
        let event_time = inner.event_time.as_ref().filter(|_| division.timed).map(|time| time.index);
        let time = event_time.map(|index| match columns.iter().position(|column| *column == index) {
            Some(position) => position,
            None => {
                columns.push(index);
                columns.len() - 1
            }
        });
        Ok(Self { table, pieces, schema, columns, time, keys: Default::default() })
    }

    /// One piece for each pipeline, in order of the data.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// What a piece reads, for a person.
    pub(crate) fn piece_name(&self, piece: &Piece) -> String {
        let name = |chunk: &Chunk| {
            let file = self.file(chunk).map_or("", |file| file.name.as_str());
            match &chunk.row_groups {
                Some(groups) => format!("{file}[{}..{}]", groups.start, groups.end),
                None => file.to_string(),
            }
        };
        match piece.chunks.as_slice() {
            [] => "nothing".to_string(),
            [only] => name(only),
            [first, .., last] => format!("{} … {}", name(first), name(last)),
        }
    }

    /// The schema of the batches.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The share of rows whose keys were checked against a declared `partitioned_by`, from 0 to 1.
    pub(crate) fn checked_share(&self) -> Option<f64> {
        self.keys.get()?.checked_share()
    }

    /// Opens a piece.
    ///
    /// # Errors
    /// There is no such piece.
    pub(crate) fn open(self: &Arc<Self>, piece: usize, task: Arc<TaskContext>) -> Result<Reader> {
        let found = self.pieces.get(piece).ok_or_else(|| internal_datafusion_err!("there is no piece {piece}"))?;
        let last_partition = found.chunks.last().map(|chunk| chunk.partition);
        Ok(Reader {
            plan: Arc::clone(self),
            keys: self.key_check(&task).map(|check| (check, ReaderKeys::default())),
            task,
            piece,
            chunks: found.chunks.clone().into(),
            last_partition,
            current_partition: None,
            current: None,
            watermarks: None,
            cut: VecDeque::new(),
            skipped_rows: 0,
        })
    }

    fn file(&self, chunk: &Chunk) -> Option<&StreamFile> {
        self.table.inner.partitions.get(chunk.partition)?.get(chunk.file)
    }

    /// The check of declared keys, if they were declared and all of them are read.
    fn key_check(&self, task: &TaskContext) -> Option<Arc<KeyCheck>> {
        let names = self.table.partitioned_by().filter(|_| self.table.inner.checks_keys && self.pieces.len() > 1)?;
        let columns: Vec<usize> = names.iter().map(|name| self.schema.index_of(name).ok()).collect::<Option<_>>()?;
        let options = task.session_config().options().extensions.get::<StreamlinesOptions>();
        let bytes_max = options.map_or(0, |options| options.key_check_bytes);
        Some(Arc::clone(self.keys.get_or_init(|| Arc::new(KeyCheck::new(columns, names.to_vec(), bytes_max)))))
    }
}

/// Reads one piece of a stream.
pub(crate) struct Reader {
    plan: Arc<ReplayPlan>,
    task: Arc<TaskContext>,
    piece: usize,
    chunks: VecDeque<Chunk>,
    last_partition: Option<usize>,
    current_partition: Option<usize>,
    current: Option<OpenChunk>,
    /// The watermarks of the data partition that is being read.
    watermarks: Option<WatermarkGenerator>,
    /// What is left of a batch that was cut.
    cut: VecDeque<(RecordBatch, Stamp)>,
    keys: Option<(Arc<KeyCheck>, ReaderKeys)>,
    skipped_rows: u64,
}

struct OpenChunk {
    chunk: Chunk,
    name: String,
    rows: Rows,
}

enum Rows {
    DataFusion(SendableRecordBatchStream),
    Csv(Box<CsvRows>),
}

impl Reader {
    /// The next batch with its stamp; none at the end.
    ///
    /// # Errors
    /// A file that cannot be read, named, with the row where that is known; a key in two files.
    pub(crate) async fn next(&mut self) -> Result<Option<(RecordBatch, Stamp)>> {
        loop {
            if let Some(next) = self.cut.pop_front() {
                return Ok(Some(next));
            }
            let Some(batch) = self.read().await? else {
                return Ok(None);
            };
            self.stamp(batch)?;
        }
    }

    /// Rows that could not be parsed and were left out.
    pub(crate) fn skipped_rows(&self) -> u64 {
        self.skipped_rows
    }

    /// The next batch of files, without a stamp.
    async fn read(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some(open) = &mut self.current else {
                let Some(chunk) = self.chunks.pop_front() else {
                    return Ok(None);
                };
                self.current = Some(self.open_chunk(chunk)?);
                continue;
            };
            let batch = match &mut open.rows {
                Rows::DataFusion(stream) => stream.next().await.transpose(),
                Rows::Csv(csv) => csv.next(&mut self.skipped_rows),
            };
            match batch.map_err(|error| {
                let inner = &self.plan.table.inner;
                while_reading(&open.name, inner.format, &inner.options, error)
            })? {
                Some(batch) if batch.num_rows() == 0 => {}
                Some(batch) => return Ok(Some(batch)),
                None => self.current = None,
            }
        }
    }

    fn stamp(&mut self, batch: RecordBatch) -> Result<()> {
        let (partition, name) = match &self.current {
            Some(open) => (open.chunk.partition, open.name.as_str()),
            None => return Err(internal_datafusion_err!("a batch of no file")),
        };
        if let Some((check, keys)) = &mut self.keys {
            keys.check(check, &batch, name)?;
        }
        let (Some(time), Some(watermarks)) = (self.plan.time, &mut self.watermarks) else {
            self.cut.push_back((batch, Stamp::timeless(self.piece)));
            return Ok(());
        };
        let segments = watermarks.segments(batch.column(time))?;
        let width = self.plan.schema.fields().len();
        let batch = match batch.num_columns() > width {
            true => batch.project(&(0..width).collect::<Vec<_>>())?,
            false => batch,
        };
        for segment in segments {
            let mut stamp = segment.stamp;
            // Before the last of several partitions nothing is known of those that are still to be read.
            if self.last_partition != Some(partition) {
                stamp.next_watermark = WATERMARK_MIN;
            }
            self.cut.push_back((batch.slice(segment.offset, segment.length), stamp));
        }
        Ok(())
    }

    fn open_chunk(&mut self, chunk: Chunk) -> Result<OpenChunk> {
        let inner = &self.plan.table.inner;
        let file = self.plan.file(&chunk).ok_or_else(|| internal_datafusion_err!("there is no such file"))?;
        let continues = self.current_partition == Some(chunk.partition);
        if !continues {
            let bound = inner.event_time.as_ref().and_then(|time| time.bound);
            self.watermarks = Some(WatermarkGenerator::new(self.piece, bound, chunk.highest_before));
        }
        self.current_partition = Some(chunk.partition);
        let rows = match inner.options.reads_csv_by_rows() {
            true => Rows::Csv(Box::new(CsvRows::open(inner, file, &self.plan.columns, &self.task)?)),
            false => Rows::DataFusion(open_file(inner, file, &chunk, &self.plan.columns, &self.task)?),
        };
        Ok(OpenChunk { name: file.name.clone(), chunk, rows })
    }
}

/// Reads a file through DataFusion's own reader for its format.
fn open_file(
    inner: &Inner,
    file: &StreamFile,
    chunk: &Chunk,
    columns: &[usize],
    task: &Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    let url = ObjectStoreUrl::local_filesystem();
    let schema = TableSchema::builder(Arc::clone(&inner.file_schema))
        .with_table_partition_cols(inner.hive_columns.clone())
        .build();
    let source: Arc<dyn FileSource> = match inner.format {
        FileFormat::Parquet => {
            let runtime = task.runtime_env();
            let cache = runtime.cache_manager.get_file_metadata_cache();
            let files = CachedParquetFileReaderFactory::new(runtime.object_store(&url)?, cache);
            let source = ParquetSource::new(schema).with_table_parquet_options(inner.parquet.clone());
            Arc::new(source.with_parquet_file_reader_factory(Arc::new(files)))
        }
        FileFormat::Csv => {
            let mut options = inner.options.csv.clone();
            options.newlines_in_values = Some(options.newlines_in_values.unwrap_or(false));
            Arc::new(CsvSource::new(schema).with_csv_options(options))
        }
        FileFormat::Json => Arc::new(JsonSource::new(schema)),
    };
    let mut partitioned = PartitionedFile::new_from_meta(file.object.clone()).with_partition_values(file.hive.clone());
    if let (Some(range), Some(all)) = (&chunk.row_groups, &file.row_groups) {
        let access = (0..all.len()).map(|index| match range.contains(&index) {
            true => RowGroupAccess::Scan,
            false => RowGroupAccess::Skip,
        });
        partitioned = partitioned.with_extension(ParquetAccessPlan::new(access.collect()));
    }
    let config = FileScanConfigBuilder::new(url, source)
        .with_file_group(FileGroup::new(vec![partitioned]))
        .with_file_compression_type(file.compression.into())
        .with_projection_indices(Some(columns.to_vec()))?
        .with_preserve_order(true)
        .build();
    DataSourceExec::from_data_source(config).execute(0, Arc::clone(task))
}
