//! What one scan of a stream reads: its columns, its pieces, and what all of its readers share.

use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_datafusion_err};
use datafusion::execution::TaskContext;
use parking_lot::Mutex;

use crate::config::StreamlinesOptions;

use super::event_time::EventTime;
use super::key_check::KeyCheck;
use super::pieces::{Chunk, Division, Part, Piece, ReadOrder, Split, cut};
use super::reader::Read;
use super::share::{Share, Sharing};
use super::table::{Coming, StreamFile, StreamTable};
use super::unreadable::{Reading, while_reading};

/// What one scan of a stream reads: one piece for each pipeline.
#[derive(Debug)]
pub(crate) struct ReplayPlan {
    pub(super) table: StreamTable,
    pieces: Vec<Piece>,
    schema: SchemaRef,
    /// Columns that are read: the projection, and the event time if that is not among them.
    pub(super) columns: Vec<usize>,
    /// Position in the schema of the rows' places, if they are wanted.
    pub(super) place: Option<usize>,
    /// The event time and its position among `columns`, if watermarks are wanted.
    pub(super) time: Option<(EventTime, usize)>,
    /// Position among `columns` of a text column that may come as codes into a dictionary of distinct values.
    pub(super) coded: Option<usize>,
    /// Positions among `columns` of all columns of the stream, if it is wanted where rows come from.
    pub(super) full: Option<Vec<usize>>,
    order: ReadOrder,
    /// How pipelines that read the same files share the rows.
    share: Option<Share>,
    keys: OnceLock<Arc<KeyCheck>>,
    /// What was found while reading that a user should know.
    warnings: Mutex<Vec<String>>,
}

/// What of a chunk need not be read.
pub(super) struct Passed {
    pub(super) rows: u64,
    /// Whether nothing is left.
    pub(super) is_all: bool,
}

/// Where a column of the stream is among those that are read: at the end, if nobody has asked for it.
fn position_of(columns: &mut Vec<usize>, column: usize) -> usize {
    columns.iter().position(|known| *known == column).unwrap_or_else(|| {
        columns.push(column);
        columns.len() - 1
    })
}

impl ReplayPlan {
    pub(super) fn try_new(table: StreamTable, projection: Option<&Vec<usize>>, division: &Division) -> Result<Self> {
        let inner = &table.inner;
        let mut columns = match projection {
            Some(projection) => projection.clone(),
            None => (0..table.schema().fields().len()).collect(),
        };
        let schema = Arc::new(table.schema().project(&columns)?);
        let of_files = inner.schema.fields().len();
        let place = columns.iter().position(|column| *column == of_files);
        columns.retain(|column| *column < of_files);
        let time = division.time.map(|index| {
            let declared = inner.event_time.clone().filter(|time| time.index == index);
            let position = position_of(&mut columns, index);
            (declared.unwrap_or_else(|| EventTime::exact(index, &inner.schema)), position)
        });
        let pieces = cut(inner, division.split, time.as_ref().map(|(time, _)| time));
        let order = match division.split {
            Split::All { order, .. } if time.is_some() && inner.partitions.len() > 1 => order,
            _ => ReadOrder::Sequence,
        };
        let share = match division.split {
            Split::All { pipelines: pipelines @ 2.., way, .. } => {
                let keys = division.keys.iter().map(|key| position_of(&mut columns, *key)).collect();
                Some(Share { keys, pipelines, way })
            }
            _ => None,
        };
        Ok(Self {
            table,
            pieces,
            schema,
            columns,
            place,
            time,
            coded: None,
            full: None,
            order,
            share,
            keys: OnceLock::new(),
            warnings: Mutex::default(),
        })
    }

    /// The same with the text column at `position` as codes, where a file holds it so: its batches then have a
    /// dictionary array there, whatever their declared schema says.
    pub(crate) fn with_codes(mut self, position: Option<usize>) -> Self {
        // Rows of several files come together, or are hashed as text: codes of one dictionary do not do.
        self.coded = position.filter(|_| self.order != ReadOrder::Canonical && !self.is_exchanged());
        self
    }

    /// The type of a text column that may come as codes.
    pub(super) fn coded_type(&self) -> Option<DataType> {
        self.coded.map(|position| self.schema.field(position).data_type().clone())
    }

    /// Whether a text column comes as codes.
    pub(crate) fn is_coded(&self) -> bool {
        self.coded.is_some()
    }

    /// The same with all columns of the stream, to say of each row where it comes from.
    pub(crate) fn with_origin(mut self) -> Self {
        let all = 0..self.table.inner.schema.fields().len();
        self.full = Some(all.map(|column| position_of(&mut self.columns, column)).collect());
        self
    }

    /// Whether rows may be late: without a bound none is.
    pub(crate) fn has_bound(&self) -> bool {
        self.event_time().is_some_and(|time| time.bound.is_some())
    }

    /// Whether it is known of each row where it comes from.
    pub(crate) fn keeps_origin(&self) -> bool {
        self.full.is_some()
    }

    /// The stream that is read.
    pub(crate) fn stream(&self) -> &StreamTable {
        &self.table
    }

    /// One piece for each pipeline, in order of the data.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// One of them.
    ///
    /// # Errors
    /// There is no such piece.
    pub(super) fn piece(&self, piece: usize) -> Result<&Piece> {
        self.pieces.get(piece).ok_or_else(|| internal_datafusion_err!("there is no piece {piece}"))
    }

    /// Whether files that appear later are read, too.
    pub(crate) fn is_endless(&self) -> bool {
        self.table.is_endless()
    }

    /// Rows of all files, where they say so.
    pub(crate) fn rows_total(&self) -> Option<u64> {
        if self.table.is_arriving() {
            return None;
        }
        let rows = |file: &StreamFile| Some(file.footer.as_ref()?.rows.iter().sum::<u64>());
        self.table.inner.partitions.iter().flatten().map(rows).sum()
    }

    /// In which order a piece of several partitions is read.
    pub(super) fn order(&self) -> ReadOrder {
        self.order
    }

    /// How pipelines that read the same files share the rows.
    pub(super) fn share(&self) -> Option<&Share> {
        self.share.as_ref()
    }

    /// Whether one reader sends the rows of all pipelines.
    pub(crate) fn is_exchanged(&self) -> bool {
        self.share().is_some_and(|share| share.way == Sharing::Exchange)
    }

    /// Rows that the one reader has read, for each pipeline its own.
    ///
    /// # Errors
    /// A type of key that has no hash.
    pub(crate) fn shares(&self, read: Read) -> Result<Vec<Read>> {
        match &self.share {
            Some(share) => share.divide(&read),
            None => Ok(vec![read]),
        }
    }

    /// What a piece reads, for a person.
    pub(crate) fn piece_name(&self, piece: &Piece) -> String {
        let name = |chunk: &Chunk| {
            let file = self.file(chunk).map_or("", |file| file.name.as_str());
            match &chunk.part {
                Part::Whole | Part::Live => file.to_string(),
                Part::RowGroups(groups) => format!("{file}[{}..{}]", groups.start, groups.end),
                Part::Text { parts, of } => format!("{file}[{}..{} of {of}]", parts.start, parts.end),
            }
        };
        match piece.chunks.as_slice() {
            [] => "nothing".to_string(),
            [only] => name(only),
            [first, .., last] => format!("{} … {}", name(first), name(last)),
        }
    }

    /// Bytes to read, of text: there rows are not known before they are read.
    pub(crate) fn bytes_of_text(&self) -> u64 {
        let chunks = self.pieces.iter().flat_map(|piece| &piece.chunks);
        let bytes = |chunk: &Chunk| {
            let size = self.file(chunk).ok().filter(|file| file.footer.is_none())?.object.size;
            Some(match &chunk.part {
                Part::Text { parts, of } => size * parts.len() as u64 / *of as u64,
                Part::Whole | Part::RowGroups(_) | Part::Live => size,
            })
        };
        chunks.filter_map(bytes).sum()
    }

    /// The share of all rows that a piece has, by what the files say of rows or bytes; none where so many workers take
    /// several pieces, or share the files.
    pub(crate) fn share_of_piece(&self, piece: usize, workers: usize) -> Option<f64> {
        if self.share.is_some() || self.pieces.len() > workers {
            return None;
        }
        let bytes =
            |piece: &Piece| piece.chunks.iter().filter_map(|chunk| Some(self.file(chunk).ok()?.object.size)).sum();
        let sizes: Vec<u64> = match self.pieces.iter().map(|piece| piece.rows).collect::<Option<_>>() {
            Some(rows) => rows,
            None => self.pieces.iter().map(bytes).collect(),
        };
        let total = sizes.iter().sum::<u64>();
        sizes.get(piece).filter(|_| total > 0).map(|size| *size as f64 / total as f64)
    }

    /// The schema of the batches.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The schema of batches as they are read.
    ///
    /// # Errors
    /// None for the columns of this stream.
    pub(super) fn read_schema(&self) -> Result<SchemaRef> {
        Ok(Arc::new(self.table.inner.schema.project(&self.columns)?))
    }

    /// The columns of a batch that were asked for: the event time, and others that the ledger wants, may not have been.
    ///
    /// # Errors
    /// None for a batch of this plan.
    pub(super) fn asked_for(&self, batch: &RecordBatch, places: Option<ArrayRef>) -> Result<RecordBatch> {
        let width = self.schema.fields().len() - usize::from(self.place.is_some());
        let asked_for = match batch.num_columns() > width {
            true => batch.project(&(0..width).collect::<Vec<_>>())?,
            false => batch.clone(),
        };
        let Some((position, places)) = self.place.zip(places) else { return Ok(asked_for) };
        let mut fields = asked_for.schema_ref().fields().to_vec();
        fields.insert(position, Arc::clone(&self.schema.fields()[position]));
        let mut columns = asked_for.columns().to_vec();
        columns.insert(position, places);
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// The event time, if watermarks are wanted.
    pub(crate) fn event_time(&self) -> Option<&EventTime> {
        self.time.as_ref().map(|(time, _)| time)
    }

    /// A watermark as a value of the event-time column.
    pub(crate) fn event_time_value(&self, watermark: i64) -> Option<ScalarValue> {
        self.event_time()?.value(watermark)
    }

    /// The share of rows whose keys were checked against a declared `partitioned_by`, from 0 to 1.
    pub(crate) fn checked_share(&self) -> Option<f64> {
        self.keys.get()?.checked_share()
    }

    /// Tells the user something.
    pub(crate) fn warn(&self, warning: String) {
        tracing::warn!("{warning}");
        self.warnings.lock().push(warning);
    }

    /// What was found while reading that a user should know.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }

    /// An error while a chunk is read, with its file and row; so many rows of the file are before the chunk.
    pub(super) fn unreadable(&self, chunk: &Chunk, error: DataFusionError, rows_before: u64) -> DataFusionError {
        let Ok(file) = self.file(chunk) else {
            return error;
        };
        let inner = &self.table.inner;
        let of_files: Vec<_> =
            self.columns.iter().copied().filter(|column| *column < inner.file_schema.fields().len()).collect();
        match inner.file_schema.project(&of_files) {
            Ok(schema) => {
                let is_first = chunk.part.text_before().is_none() && chunk.from.is_none_or(|from| from.byte == 0);
                let (format, options, columns) = (inner.format, &inner.options, inner.file_schema.as_ref());
                let read = Reading { file, format, options, columns, is_first, rows_before };
                while_reading(&read, Arc::new(schema), error)
            }
            Err(_) => error,
        }
    }

    /// Takes the row groups of the first `rows` rows away from a chunk, as far as their event times are known where they are
    /// wanted.
    pub(super) fn pass_over(&self, chunk: &mut Chunk, rows: u64) -> Passed {
        let mut passed = Passed { rows: 0, is_all: false };
        let as_found = chunk.clone();
        let Some(footer) = self.file(&as_found).ok().and_then(|file| file.footer.as_ref()) else { return passed };
        let groups = chunk.part.row_groups().unwrap_or(0..footer.rows.len());
        let times = self.event_time().map(|time| footer.times(time.index));
        let mut begin = groups.start;
        for group in groups.clone() {
            let known = match times {
                None => Some(None),
                Some(times) => times.and_then(|times| times.get(group)?.as_ref()).map(|times| times.range),
            };
            let Some(range) = known.filter(|_| passed.rows + footer.rows[group] <= rows) else { break };
            passed.rows += footer.rows[group];
            chunk.highest_before = chunk.highest_before.max(range.map(|(_, highest)| highest));
            begin = group + 1;
        }
        if begin > groups.start {
            chunk.part = Part::RowGroups(begin..groups.end);
        }
        passed.is_all = begin == groups.end;
        passed
    }

    /// What all pieces read before a chunk in its data partition, in order, part by part.
    pub(super) fn chunks_before<'a>(&'a self, chunk: &'a Chunk) -> impl Iterator<Item = Chunk> + 'a {
        let chunks = self.pieces.iter().flat_map(|piece| &piece.chunks).flat_map(Chunk::single);
        chunks.filter(|other| other.is_before(chunk))
    }

    /// What is read, and how: the files, each with its size and the time of its last change, the columns and the options.
    pub(crate) fn versions(&self) -> Vec<String> {
        let inner = &self.table.inner;
        let columns =
            inner.schema.fields().iter().map(|field| format!("column {} of {}", field.name(), field.data_type()));
        let files = inner.partitions.iter().flatten();
        let version = |file: &StreamFile| format!("{}, {}", file.place.name(), file.version());
        let options = [format!("{:?}", inner.options)];
        // What has been read the checkpoints know.
        let of = match &inner.coming {
            Coming::Nothing => return files.map(version).chain(columns).chain(options).collect(),
            Coming::Files(location) => format!("files of {location}"),
            Coming::Lines(path) => format!("lines of {}", path.display()),
            Coming::Bytes(bytes) => bytes.place.to_string(),
            Coming::Batches { .. } => inner.name.clone(),
        };
        columns.chain([of]).chain(options).collect()
    }

    /// The file of a chunk.
    pub(super) fn file<'a>(&'a self, chunk: &'a Chunk) -> Result<&'a StreamFile> {
        if let Some(found) = &chunk.found {
            return Ok(found);
        }
        let file = self.table.inner.partitions.get(chunk.partition).and_then(|files| files.get(chunk.file));
        file.ok_or_else(|| internal_datafusion_err!("there is no file {} of partition {}", chunk.file, chunk.partition))
    }

    /// The check of declared keys, if they were declared and all of them are read.
    pub(super) fn key_check(&self, task: &TaskContext) -> Option<Arc<KeyCheck>> {
        let names = self.table.partitioned_by().filter(|_| self.table.inner.checks_keys && self.pieces.len() > 1)?;
        let columns: Vec<usize> = names.iter().map(|name| self.schema.index_of(name).ok()).collect::<Option<_>>()?;
        let options = task.session_config().options().extensions.get::<StreamlinesOptions>();
        let bytes_max = options.map_or(0, |options| options.key_check_bytes);
        Some(Arc::clone(
            self.keys.get_or_init(|| Arc::new(KeyCheck::new(columns, names.to_vec(), &self.schema, bytes_max))),
        ))
    }
}
