//! Reading a piece: file after file, batch after batch, each cut and stamped by the watermark.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use parking_lot::Mutex;

use crate::config::StreamlinesOptions;
use crate::operator::{Stamp, WATERMARK_MIN, ticks};

use super::event_time::overlap;
use super::key_check::{KeyCheck, ReaderKeys};
use super::pieces::{Chunk, Division, Piece};
use super::rows::{Rows, Wanted};
use super::table::{StreamFile, StreamTable};
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
    /// Position among `columns` of a text column that may come as codes into a dictionary of distinct values.
    coded: Option<usize>,
    keys: OnceLock<Arc<KeyCheck>>,
    /// What was found while reading that a user should know.
    warnings: Mutex<Vec<String>>,
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
        Ok(Self {
            table,
            pieces,
            schema,
            columns,
            time,
            coded: None,
            keys: OnceLock::new(),
            warnings: Mutex::default(),
        })
    }

    /// The same with the text column at `position` as codes, where a file holds it so: its batches then have a
    /// dictionary array there, whatever their declared schema says.
    pub(crate) fn with_codes(mut self, position: Option<usize>) -> Self {
        self.coded = position;
        self
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

    /// What was found while reading that a user should know.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
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
            last_file: None,
            current: None,
            watermarks: None,
            cut: VecDeque::new(),
            skipped_rows: 0,
        })
    }

    fn unreadable(&self, chunk: &Chunk, error: DataFusionError) -> DataFusionError {
        let Some(file) = self.file(chunk) else {
            return error;
        };
        let inner = &self.table.inner;
        let of_files: Vec<_> =
            self.columns.iter().copied().filter(|column| *column < inner.file_schema.fields().len()).collect();
        match inner.file_schema.project(&of_files) {
            Ok(schema) => while_reading(file, inner.format, &inner.options, Arc::new(schema), error),
            Err(_) => error,
        }
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
        Some(Arc::clone(
            self.keys.get_or_init(|| Arc::new(KeyCheck::new(columns, names.to_vec(), &self.schema, bytes_max))),
        ))
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
    last_file: Option<String>,
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
    /// The file before it in its data partition, and the watermark that it left, as long as no row is behind that.
    follows: Option<(String, i64)>,
}

impl OpenChunk {
    /// Tells, once, that rows of this file are behind the watermark that the file before it left.
    fn warn_of_overlap(&mut self, times: &dyn Array, plan: &ReplayPlan) -> Result<()> {
        let Some((before, watermark)) = &self.follows else { return Ok(()) };
        if arrow::compute::min(&ticks(times)?).is_some_and(|lowest| lowest < *watermark) {
            let warning = overlap(before, &self.name);
            tracing::warn!("{warning}");
            plan.warnings.lock().push(warning);
            self.follows = None;
        }
        Ok(())
    }
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
                self.current = Some(self.open_chunk(chunk).await?);
                continue;
            };
            match open.rows.next(&mut self.skipped_rows).await {
                Ok(Some(batch)) if batch.num_rows() == 0 => {}
                Ok(Some(batch)) => return Ok(Some(batch)),
                Ok(None) => self.current = None,
                Err(error) => return Err(self.plan.unreadable(&open.chunk, error)),
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
        if let Some(open) = &mut self.current {
            open.warn_of_overlap(batch.column(time), &self.plan)?;
        }
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

    async fn open_chunk(&mut self, chunk: Chunk) -> Result<OpenChunk> {
        let inner = &self.plan.table.inner;
        let file = self.plan.file(&chunk).ok_or_else(|| internal_datafusion_err!("there is no such file"))?;
        let continues = self.current_partition == Some(chunk.partition);
        // Where footers tell the event times, overlaps were seen when the stream was declared.
        let follows = match (&self.last_file, &self.watermarks) {
            (Some(name), Some(before)) if continues && file.row_groups.is_none() => {
                Some((name.clone(), before.watermark()))
            }
            _ => None,
        };
        self.last_file = Some(file.name.clone());
        if !continues {
            let bound = inner.event_time.as_ref().and_then(|time| time.bound);
            self.watermarks = Some(WatermarkGenerator::new(self.piece, bound, chunk.highest_before));
        }
        self.current_partition = Some(chunk.partition);
        let wanted = Wanted { inner, columns: &self.plan.columns, coded: self.plan.coded, task: &self.task };
        let rows = Rows::open(file, chunk.row_groups.clone(), &wanted).await?;
        Ok(OpenChunk { name: file.name.clone(), chunk, rows, follows })
    }
}
