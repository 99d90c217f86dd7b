//! The ledger of late rows: each with the file and row that it comes from, the window that it missed, and the row that had
//! set the watermark by then.
//!
//! A pipeline writes the late rows of a batch when it has done with the batch, into a writer of its own or, if the ledger
//! is one file, into one that pipelines share: late rows are few. A job that saves itself writes a ledger in epochs, as its
//! other output (`durable/`).

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, Float64Array, PrimitiveArray, RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use datafusion::arrow::compute::{cast, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::common::{Result, internal_datafusion_err, internal_err};
use datafusion::prelude::SessionConfig;
use tokio::sync::Mutex;

use crate::error::Error;
use crate::exec::context::LateRows;
use crate::operator::{Missed, MissedRow, PartId, WATERMARK_MIN, ticks};
use crate::sink::{Epochs, FileSink, InEpoch, MemorySink, OutputFormat, Sink, Writer};
use crate::source::{EventTime, ReplayPlan, StreamTable};

/// The value of `streamlines.late` that stands for a ledger in memory.
pub(crate) const IN_MEMORY: &str = ":memory:";

/// Where late rows of a run go.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Files(Arc<FileSink>),
    Memory(Arc<MemorySink>),
}

impl Place {
    /// The place that `streamlines.late` names.
    ///
    /// # Errors
    /// A path that cannot be written to, or not by this session, or whose extension says no format.
    pub(super) fn named(setting: &str, config: &SessionConfig) -> Result<Self> {
        if setting == IN_MEMORY {
            return Ok(Self::Memory(Arc::default()));
        }
        let format = match OutputFormat::of_path(setting) {
            Some(format) => format,
            None if setting.ends_with('/') => OutputFormat::Parquet,
            None => {
                let error = Error::data("its extension says no format for late rows").in_file(setting);
                return Err(error.help("late.parquet, late.csv, late.ndjson, or a folder with / at its end").into());
            }
        };
        Ok(Self::Files(Arc::new(FileSink::local(setting, format)?.confined_by(config)?)))
    }

    fn sink(&self) -> Arc<dyn Sink> {
        match self {
            Self::Files(files) => Arc::clone(files) as _,
            Self::Memory(memory) => Arc::clone(memory) as _,
        }
    }
}

/// The ledger of one run.
pub(super) struct Ledger {
    sink: Arc<dyn Sink>,
    schema: SchemaRef,
    /// Where it goes epoch by epoch, of a job that saves itself.
    epochs: Option<Arc<dyn Epochs>>,
    /// One for each pipeline, which begins with the epoch's first late row; or one for all.
    writers: Vec<Mutex<Option<Box<dyn Writer>>>>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "late rows to {:?}", self.sink)
    }
}

impl Ledger {
    /// A ledger of rows of `schema` from so many pipelines.
    ///
    /// # Errors
    /// A place that cannot be written to.
    pub(super) fn open(place: &Place, schema: &SchemaRef, pipelines: usize) -> Result<Self> {
        let sink = place.sink();
        let writers = if sink.per_pipeline() { pipelines.max(1) } else { 1 };
        let writer = |pipeline| Ok(Mutex::new(Some(sink.writer(pipeline, Arc::clone(schema))?)));
        let writers = (0..writers).map(writer).collect::<Result<_>>()?;
        Ok(Self { sink, schema: Arc::clone(schema), epochs: None, writers })
    }

    /// The same of a job that saves itself.
    ///
    /// # Errors
    /// A place that cannot take rows epoch by epoch.
    pub(super) fn in_epochs(place: &Place, schema: &SchemaRef, pipelines: usize) -> Result<Self> {
        let sink = place.sink();
        let epochs = sink.epochs().ok_or_else(|| internal_datafusion_err!("a ledger that is no folder"))?;
        let writers = (0..pipelines).map(|_| Mutex::default()).collect();
        Ok(Self { sink, schema: Arc::clone(schema), epochs: Some(epochs), writers })
    }

    /// Where it goes epoch by epoch.
    pub(super) fn epochs(&self) -> Option<Arc<dyn Epochs>> {
        self.epochs.clone()
    }

    /// Writes late rows of a pipeline, in the epoch that is at hand.
    ///
    /// # Errors
    /// What keeps them from being written.
    pub(super) async fn write(&self, pipeline: usize, PartId { epoch, run }: PartId, rows: RecordBatch) -> Result<()> {
        let mut writer = self.writer(pipeline)?.lock().await;
        if let (None, Some(epochs)) = (&*writer, &self.epochs) {
            *writer = Some(epochs.staging_writer(InEpoch { pipeline, epoch, run }, Arc::clone(&self.schema))?);
        }
        match writer.as_mut() {
            Some(writer) => writer.write(rows).await,
            None => internal_err!("the ledger is closed"),
        }
    }

    /// Stages the late rows of a pipeline's epoch, and gives the names of their files.
    ///
    /// # Errors
    /// What keeps them from being written.
    pub(super) async fn stage(&self, pipeline: usize) -> Result<Vec<String>> {
        let Some(mut writer) = self.writer(pipeline)?.lock().await.take() else { return Ok(vec![]) };
        writer.finish().await?;
        Ok(writer.close().await?.files)
    }

    fn writer(&self, pipeline: usize) -> Result<&Mutex<Option<Box<dyn Writer>>>> {
        let writer = self.writers.get(pipeline % self.writers.len().max(1));
        writer.ok_or_else(|| internal_datafusion_err!("a ledger without writers"))
    }

    /// All pipelines have ended: the ledger becomes visible.
    ///
    /// # Errors
    /// What keeps it from being whole; nothing is left of it then.
    pub(super) async fn close(&self) -> Result<()> {
        if self.epochs.is_some() {
            return Ok(());
        }
        let mut writers = self.take().await;
        match close(&mut writers).await {
            Ok(files) => self.sink.closed(&files).await,
            Err(error) => {
                abort(writers, self.sink.as_ref()).await;
                Err(error)
            }
        }
    }

    /// The run has failed: nothing is left.
    pub(super) async fn abort(&self) {
        abort(self.take().await, self.sink.as_ref()).await;
    }

    async fn take(&self) -> Vec<Box<dyn Writer>> {
        let mut taken = vec![];
        for writer in &self.writers {
            taken.extend(writer.lock().await.take());
        }
        taken
    }
}

/// Closes writers, and gives the names of their files.
async fn close(writers: &mut [Box<dyn Writer>]) -> Result<Vec<String>> {
    for writer in writers.iter_mut() {
        writer.finish().await?;
    }
    let mut files = vec![];
    for writer in writers {
        files.extend(writer.close().await?.files);
    }
    Ok(files)
}

async fn abort(writers: Vec<Box<dyn Writer>>, sink: &dyn Sink) {
    for writer in writers {
        writer.abort().await;
    }
    sink.aborted().await;
}

/// The columns of a ledger: those of the stream, then what is known of the row.
///
/// `_file`, `_row` (counted from 1); `_missed` (`all` of its windows, or `some` of several); `_window_start`, `_window_end`
/// of the last window that it missed, null for OVER; `_watermark`, the one that it missed; `_behind_s`, seconds from
/// its event time to that; `_set_by_file`, `_set_by_row`: the earlier row that had set it.
pub(super) fn ledger_schema(stream: &StreamTable, time: Option<&EventTime>) -> SchemaRef {
    let stream = stream.declared_schema();
    let time = match time.map(|time| stream.field(time.index).data_type()) {
        // As windows over dates are told.
        Some(DataType::Date32) => DataType::Timestamp(TimeUnit::Second, None),
        Some(DataType::Date64) => DataType::Timestamp(TimeUnit::Millisecond, None),
        Some(time) => time.clone(),
        None => DataType::Int64,
    };
    let mut fields = stream.fields().iter().cloned().collect::<Vec<_>>();
    let own = [
        ("_file", DataType::Utf8),
        ("_row", DataType::UInt64),
        ("_missed", DataType::Utf8),
        ("_window_start", time.clone()),
        ("_window_end", time.clone()),
        ("_watermark", time),
        ("_behind_s", DataType::Float64),
        ("_set_by_file", DataType::Utf8),
        ("_set_by_row", DataType::UInt64),
    ];
    for (name, data_type) in own {
        // A stream may have such a column itself.
        let mut name = name.to_string();
        while fields.iter().any(|field| field.name() == &name) {
            name.insert(0, '_');
        }
        fields.push(Arc::new(Field::new(name, data_type, true)));
    }
    Arc::new(Schema::new(fields))
}

/// Rows of a ledger.
///
/// # Errors
/// Rows of another stream.
pub(super) fn ledger_rows(late: LateRows, replay: &ReplayPlan, schema: &SchemaRef) -> Result<RecordBatch> {
    let LateRows { rows, origin, watermark } = late;
    // A row without an event time may come before any that has one.
    let known = (watermark != WATERMARK_MIN).then_some(watermark);
    let missed: Vec<MissedRow> = rows.into_iter().filter(|row| row.missed != Missed::Between).collect();
    let indices = UInt32Array::from_iter_values(missed.iter().map(|row| row.row));
    let rows = take_record_batch(&origin.rows, &indices)?;
    let places: Vec<_> = missed.iter().map(|row| origin.places.at(row.row as usize)).collect();
    let kind = |row: &MissedRow| if row.missed == Missed::All { "all" } else { "some" };
    let window = |bound: fn((i64, i64)) -> i64| -> ArrayRef {
        Arc::new(missed.iter().map(|row| row.window.map(bound)).collect::<PrimitiveArray<Int64Type>>())
    };
    let set_by = |count| std::iter::repeat_n(origin.set_by.as_ref(), count);
    let own: [ArrayRef; 9] = [
        Arc::new(StringArray::from_iter_values(places.iter().map(|place| &place.file))),
        Arc::new(UInt64Array::from_iter_values(places.iter().map(|place| place.row))),
        Arc::new(StringArray::from_iter_values(missed.iter().map(kind))),
        window(|(start, _)| start),
        window(|(_, end)| end),
        Arc::new(PrimitiveArray::<Int64Type>::from_iter(missed.iter().map(|_| known))),
        Arc::new(behind(&rows, replay, watermark)?),
        Arc::new(set_by(missed.len()).map(|place| Some(place?.file.to_string())).collect::<StringArray>()),
        Arc::new(set_by(missed.len()).map(|place| Some(place?.row)).collect::<UInt64Array>()),
    ];
    let columns = rows.columns().iter().cloned().chain(own).zip(schema.fields());
    let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
        true => Ok(column),
        false => cast(&column, field.data_type()),
    });
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<std::result::Result<_, _>>()?)?)
}

/// Seconds from each row's event time to the watermark.
fn behind(rows: &RecordBatch, replay: &ReplayPlan, watermark: i64) -> Result<Float64Array> {
    let time = replay.event_time().ok_or_else(|| internal_datafusion_err!("late rows without an event time"))?;
    let tick_ns = i128::from(time.tick_ns().unwrap_or(1));
    let times = ticks(rows.column(time.index))?;
    let behind_ns = |time: i64| (i128::from(watermark) - i128::from(time)) * tick_ns;
    Ok(times.iter().map(|time| Some(behind_ns(time?) as f64 / 1e9)).collect())
}
