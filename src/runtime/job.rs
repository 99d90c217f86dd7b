//! A query at work: run it into a sink, watch it, stop it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::{Result, ScalarValue};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{CreateMemoryTable, LogicalPlan};
use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties, SendableRecordBatchStream, displayable, execute_stream_partitioned,
};

use crate::config::StreamlinesOptions;
use crate::error::Error;
use crate::exec::context::PipelineMetrics;
use crate::operator::{WATERMARK_MAX, WATERMARK_MIN};
use crate::plan::first_stream;
use crate::sink::{Sink, TableSink};
use crate::source::{Latency, ReplayPlan, StreamTable};

use super::boundary::PipelinesExec;
use super::ledger::{Ledger, Place, ledger_schema};
use super::run::LedgerPart;
use super::scan_only::scan_only;
use super::stop::Stop;
use super::write::{self, WriteExec};

/// A planned query that is ready to run.
///
/// Dropping the future of [`Job::run`] ends all of its tasks. Besides the program, a library user can take a
/// DataFrame's own `collect` or `execute_stream`: they run the same plan.
#[derive(Debug)]
pub struct Job {
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    gives_rows: bool,
    started: Instant,
    stop: Stop,
    late: Option<Place>,
    /// A stream that the query is over, whether the plan still reads it or not.
    stream: Option<Arc<StreamTable>>,
    /// The late rows of the last run, if they were to be kept in memory.
    late_rows: Mutex<Option<KeptRows>>,
}

/// The late rows of each pipeline.
type KeptRows = (SchemaRef, Vec<Vec<RecordBatch>>);

/// How far a job has come.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Rows read, those that could not be parsed among them.
    pub rows_in: u64,
    /// Rows that left the pipelines (before a last ORDER BY or LIMIT).
    pub rows_out: u64,
    /// Rows that there are to read, where the files say so.
    pub rows_total: Option<u64>,
    /// Rows that went into windows, running values or the output. Of the rows that have been read and are not on their way,
    /// each is used, filtered, late, between windows or skipped.
    pub used_rows: u64,
    /// Rows that WHERE, a join or an empty list left out.
    pub filtered_rows: u64,
    /// Rows dropped because they came after their window had closed.
    pub late_rows: u64,
    /// Rows that came after some of their overlapping windows had closed, and are in the others.
    pub late_partial_rows: u64,
    /// Rows that no window holds: those between hopping windows that do not touch.
    pub between_rows: u64,
    /// Rows whose event time is null.
    pub null_time_rows: u64,
    /// Rows that could not be parsed, under `'on_error' 'skip'`.
    pub skipped_rows: u64,
    /// Bytes read and to read of files of text, which do not say how many rows they have.
    pub bytes: (u64, u64),
    /// Rows of early passes over event times, which files without statistics take before they are read.
    pub early_rows: u64,
    /// Windows that have closed.
    pub windows_closed: u64,
    /// Windows that are open now.
    pub windows_open: u64,
    /// Keys that were forgotten because no row had come for them for as long as `streamlines.state_ttl` says.
    pub forgotten_keys: u64,
    /// Bytes of operator state in memory now.
    pub state_bytes: u64,
    /// Bytes of operator state that went to disk because memory was short.
    pub spilled_bytes: u64,
    /// Checkpoints that pipelines have made of themselves in this run.
    pub checkpoints: u64,
    /// Their bytes.
    pub checkpoint_bytes: u64,
    /// How long pipelines stood still for them, all together; staging their output is not in it.
    pub checkpoint_time: Duration,
    /// The event time that every pipeline has reached, of the event-time column's type.
    pub event_time: Option<ScalarValue>,
    /// The share of rows whose keys were checked against a declared `partitioned_by`, from 0 to 1.
    pub keys_checked: Option<f64>,
    /// Time since the job was planned.
    pub elapsed: Duration,
    /// Each pipeline by itself, in order of the data.
    pub pipelines: Vec<PipelineProgress>,
}

/// How far one pipeline has come.
#[derive(Debug, Clone, Default)]
pub struct PipelineProgress {
    /// What it reads.
    pub name: String,
    /// Rows read.
    pub rows_in: u64,
    /// Rows that left the pipeline.
    pub rows_out: u64,
    /// Late rows.
    pub late_rows: u64,
    /// Windows that have closed.
    pub windows_closed: u64,
    /// The highest event time seen, less the bound of lateness.
    pub watermark: Option<ScalarValue>,
}

/// What a finished run has to say.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The counts at the end.
    pub progress: Progress,
    /// Rows that reached the sink.
    pub rows_written: u64,
    /// Whether [`Job::stop`] ended the run before its input.
    pub interrupted: bool,
    /// What the user should know of the streams that were read.
    pub warnings: Vec<String>,
}

impl Job {
    /// Plans a query.
    ///
    /// # Errors
    /// Whatever is wrong with the query, or the reason why it cannot run as a stream.
    pub async fn new(query: DataFrame) -> Result<Self> {
        let gives_rows = !query.schema().fields().is_empty();
        let task = Arc::new(query.task_ctx());
        let options = task.session_config().options().extensions.get::<StreamlinesOptions>();
        let late = options.map(|options| options.late.as_str()).filter(|late| !late.is_empty());
        let late = late.map(|late| Place::named(late, task.session_config())).transpose()?;
        let stream = match query.logical_plan() {
            LogicalPlan::Explain(_) | LogicalPlan::Ddl(_) => None,
            plan => first_stream(plan),
        };
        let plan = query.create_physical_plan().await?;
        let (started, stop) = (Instant::now(), Stop::default());
        Ok(Self { plan, task, gives_rows, started, stop, late, stream, late_rows: Mutex::default() })
    }

    /// Plans the query whose rows fill a table in memory, which is there when the job has run.
    pub(crate) async fn into_table(ctx: &SessionContext, table: CreateMemoryTable) -> Result<Self> {
        let query = DataFrame::new(ctx.state(), table.input.as_ref().clone());
        let job = Self::new(query).await?;
        let sink = Arc::new(TableSink::try_new(ctx, table, job.schema())?);
        Ok(Self { plan: Arc::new(WriteExec::new(Arc::clone(&job.plan), sink)), gives_rows: false, ..job })
    }

    /// The schema of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// The plan as text: above the boundary the tail, below it what every pipeline runs.
    pub fn display(&self) -> String {
        displayable(self.plan.as_ref()).indent(false).to_string()
    }

    /// Whether the statement gives rows at all; DDL and SET do not.
    pub fn gives_rows(&self) -> bool {
        self.gives_rows
    }

    /// Whether there is a stream to read.
    pub fn reads_stream(&self) -> bool {
        !self.boundaries().is_empty()
    }

    /// How many writers a sink with one writer for each pipeline is asked for.
    pub fn partitions(&self) -> usize {
        self.plan.output_partitioning().partition_count()
    }

    /// What the user should know of the streams that are read: of their declaration, then what reading has shown.
    pub fn warnings(&self) -> Vec<String> {
        let scans = || self.boundaries().into_iter().filter_map(PipelinesExec::scan);
        let declared = scans().flat_map(|scan| scan.table().warnings().to_vec());
        declared.chain(scans().flat_map(|scan| scan.replay().warnings())).collect()
    }

    /// Runs the query and writes its rows.
    ///
    /// # Errors
    /// The first error of any pipeline, which ends all of them; nothing is left in the sink then.
    pub async fn run(&self, sink: &dyn Sink) -> Result<Summary> {
        // Pipelines stop by themselves, between two batches; rows of tables alone are cut off.
        let stop = (!self.reads_stream()).then_some(&self.stop);
        let ledger = self.open_ledger()?;
        let written = write::write(Arc::clone(&self.plan), Arc::clone(&self.task), sink, stop).await;
        if let Some(part) = ledger {
            match &written {
                Ok(_) => part.ledger.close().await?,
                Err(_) => part.ledger.abort().await,
            }
            if let Some(Place::Memory(rows)) = &self.late {
                *self.late_rows.lock() = Some((part.schema, rows.take()));
            }
        }
        let written = written?;
        Ok(Summary {
            progress: self.progress(),
            rows_written: written.rows,
            interrupted: self.stop.is_stopped(),
            warnings: self.warnings().into_iter().chain(self.repeats(sink)).collect(),
        })
    }

    /// What the user should know of an output that cannot be written exactly once.
    fn repeats(&self, sink: &dyn Sink) -> Option<String> {
        let repeats = self.saves() && sink.writes_through() && write::reads_stream(&self.plan);
        let told =
            "the output takes no row back: where this job begins again, rows since its last checkpoint come again";
        repeats.then(|| told.to_string())
    }

    fn saves(&self) -> bool {
        let options = self.task.session_config().options().extensions.get::<StreamlinesOptions>();
        options.is_some_and(StreamlinesOptions::saves)
    }

    /// Opens the ledger of late rows, if one is asked for and there is a stream to read.
    fn open_ledger(&self) -> Result<Option<LedgerPart>> {
        let Some(place) = &self.late else { return Ok(None) };
        let boundaries = self.boundaries();
        let all = || boundaries.iter().filter_map(|boundary| Some((boundary, boundary.scan()?.replay())));
        // No row is late without a bound: then the ledger is empty, with the columns of the first stream.
        let bounded = all().filter(|(_, replay)| replay.has_bound()).count();
        let streams = || all().filter(|(_, replay)| replay.has_bound() || bounded == 0).take(bounded.max(1));
        let schema_of = |replay: &ReplayPlan| ledger_schema(replay.stream(), replay.event_time());
        let mut schemas = streams().map(|(_, replay)| schema_of(replay));
        let Some(schema) = schemas.next() else {
            return self.stream.as_ref().map(|stream| self.open_empty_ledger(place, stream)).transpose();
        };
        if matches!(place, Place::Files(_)) && schemas.any(|other| other != schema) {
            return Err(several_streams().into());
        }
        let pipelines = streams().map(|(_, replay)| replay.pieces().len()).sum();
        let ledger = match self.saves() && matches!(place, Place::Files(files) if files.per_pipeline()) {
            true => Ledger::in_epochs(place, &schema, pipelines)?,
            false => Ledger::open(place, &schema, pipelines)?,
        };
        let ledger = Arc::new(ledger);
        let mut first = 0;
        for (boundary, replay) in streams() {
            let part = LedgerPart { ledger: Arc::clone(&ledger), schema: schema_of(replay), first };
            boundary.runs().set_ledger(part);
            first += replay.pieces().len();
        }
        Ok(Some(LedgerPart { ledger, schema, first: 0 }))
    }

    /// The ledger of a run that reads no row: the optimizer has found that none can pass.
    fn open_empty_ledger(&self, place: &Place, stream: &StreamTable) -> Result<LedgerPart> {
        let options = self.task.session_config().options().extensions.get::<StreamlinesOptions>();
        if options.is_some_and(|options| options.strategy == "batch") {
            let error = Error::sql("a ledger of late rows under strategy batch, which has none");
            return Err(error.help("leave --late out (RESET streamlines.late), or take another strategy").into());
        }
        let schema = ledger_schema(stream, stream.event_time());
        Ok(LedgerPart { ledger: Arc::new(Ledger::open(place, &schema, 1)?), schema, first: 0 })
    }

    /// The late rows of the last run as a table, under `SET streamlines.late = ':memory:'`: the columns of the stream, then
    /// `_file` and `_row` (counted from 1); `_missed` (`all` of its windows or `some`); `_window_start` and `_window_end` of
    /// the last window that it missed (null for OVER); `_watermark`, and `_behind_s`, the seconds from the row's event time
    /// to it; `_set_by_file` and `_set_by_row`: the earlier row that had set that watermark.
    ///
    /// # Errors
    /// Rows of several streams whose columns differ.
    pub fn late_rows(&self) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some((schema, rows)) = self.late_rows.lock().clone() else { return Ok(None) };
        match rows.iter().flatten().all(|rows| rows.schema() == schema) {
            true => Ok(Some(Arc::new(MemTable::try_new(schema, rows)?))),
            false => Err(several_streams().into()),
        }
    }

    /// The same, taken out as batches: those of each scan of a stream, by its number.
    pub(crate) fn take_late_rows(&self) -> Option<KeptRows> {
        let (schema, rows) = self.late_rows.lock().take()?;
        let (mut rows, mut scans) = (rows.into_iter(), vec![]);
        for boundary in self.boundaries().into_iter().filter(|boundary| boundary.runs().ledger().is_some()) {
            let Some(number) = boundary.scan().map(|scan| scan.table().number()) else { continue };
            scans.resize(scans.len().max(number + 1), vec![]);
            scans[number].extend(rows.by_ref().take(boundary.pipelines()).flatten());
        }
        Some((schema, scans))
    }

    /// How long rows took from when they were due until what they caused had left the pipelines and was written, under
    /// `SET streamlines.speed = '1000rows/s'`.
    pub fn latency(&self) -> Option<Latency> {
        let mut total = None;
        for run in self.boundaries().into_iter().filter_map(|boundary| boundary.runs().latest()) {
            run.metrics().iter().for_each(|metrics| metrics.reader.latency.add_to(&mut total));
        }
        total
    }

    /// Reads what the query's pipelines would read, as many of them at once, and does nothing with it: how fast the query
    /// could be at most. Gives the number of rows.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub async fn scan_only(&self) -> Result<u64> {
        let mut rows = 0;
        for boundary in self.boundaries() {
            if let Some(scan) = boundary.scan() {
                let workers = boundary.properties().output_partitioning().partition_count();
                rows += scan_only(scan.replay(), workers, &self.task).await?;
            }
        }
        Ok(rows)
    }

    /// The result as one stream for each worker, to be driven by the caller.
    ///
    /// # Errors
    /// What the plan's nodes have to say when they are executed.
    pub fn execute_partitioned(&self) -> Result<Vec<SendableRecordBatchStream>> {
        execute_stream_partitioned(Arc::clone(&self.plan), Arc::clone(&self.task))
    }

    /// Tells the pipelines to read no more. The run then ends well with what has been written so far; open windows
    /// stay unanswered.
    pub fn stop(&self) {
        self.stop.stop();
        self.boundaries().into_iter().for_each(|boundary| boundary.runs().stop());
    }

    /// Tells pipelines that follow files to read those that are there, and then to end: their windows close. Others go on
    /// to the end of their rows.
    pub fn drain(&self) {
        self.boundaries().into_iter().for_each(|boundary| boundary.runs().drain());
    }

    /// How far the job has come: a few atomic loads for each pipeline.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress { elapsed: self.started.elapsed(), ..Progress::default() };
        let boundaries = self.boundaries();
        progress.rows_total = boundaries.iter().map(|boundary| rows_total(boundary)).sum();
        for boundary in boundaries {
            add_boundary(&mut progress, boundary);
        }
        progress
    }

    fn boundaries(&self) -> Vec<&PipelinesExec> {
        let mut found = vec![];
        collect_boundaries(&self.plan, &mut found);
        found
    }
}

fn several_streams() -> Error {
    let error = Error::sql("late rows of several streams, whose columns differ, in one ledger");
    error.help("ask for a ledger of one of them at a time")
}

pub(super) fn collect_boundaries<'a>(plan: &'a Arc<dyn ExecutionPlan>, found: &mut Vec<&'a PipelinesExec>) {
    match plan.downcast_ref::<PipelinesExec>() {
        Some(boundary) => found.push(boundary),
        None => plan.children().into_iter().for_each(|child| collect_boundaries(child, found)),
    }
}

fn rows_total(boundary: &PipelinesExec) -> Option<u64> {
    boundary.scan()?.replay().rows_total()
}

fn add_boundary(progress: &mut Progress, boundary: &PipelinesExec) {
    let (Some(run), Some(scan)) = (boundary.runs().latest(), boundary.scan()) else {
        return;
    };
    let mut reached = WATERMARK_MAX;
    for (metrics, piece) in run.metrics().iter().zip(scan.replay().pieces()) {
        let pipeline = pipeline_progress(metrics, scan.replay(), scan.replay().piece_name(piece));
        progress.rows_in += pipeline.rows_in;
        progress.rows_out += pipeline.rows_out;
        progress.late_rows += pipeline.late_rows;
        progress.windows_closed += pipeline.windows_closed;
        progress.used_rows += metrics.used_rows.load(Ordering::Relaxed);
        progress.filtered_rows += metrics.filtered_rows.load(Ordering::Relaxed);
        progress.late_partial_rows += metrics.late_partial_rows.load(Ordering::Relaxed);
        progress.between_rows += metrics.between_rows.load(Ordering::Relaxed);
        progress.null_time_rows += metrics.null_time_rows.load(Ordering::Relaxed);
        progress.skipped_rows += metrics.reader.skipped_rows.load(Ordering::Relaxed);
        progress.bytes.0 += metrics.reader.bytes.load(Ordering::Relaxed);
        progress.early_rows += metrics.reader.early_rows.load(Ordering::Relaxed);
        progress.windows_open += metrics.windows_open.load(Ordering::Relaxed);
        progress.forgotten_keys += metrics.forgotten_keys.load(Ordering::Relaxed);
        progress.state_bytes += metrics.state_bytes.load(Ordering::Relaxed);
        progress.checkpoints += metrics.checkpoints.load(Ordering::Relaxed);
        progress.checkpoint_bytes += metrics.checkpoint_bytes.load(Ordering::Relaxed);
        progress.checkpoint_time += Duration::from_nanos(metrics.checkpoint_ns.load(Ordering::Relaxed));
        progress.spilled_bytes += metrics.spilled_bytes.load(Ordering::Relaxed);
        if !metrics.finished.load(Ordering::Relaxed) {
            reached = reached.min(metrics.watermark.load(Ordering::Relaxed));
        }
        progress.pipelines.push(pipeline);
    }
    progress.bytes.1 += scan.replay().bytes_of_text();
    progress.keys_checked = scan.replay().checked_share();
    progress.event_time = scan.replay().event_time_value(reached);
}

fn pipeline_progress(metrics: &PipelineMetrics, replay: &ReplayPlan, name: String) -> PipelineProgress {
    let watermark = metrics.watermark.load(Ordering::Relaxed);
    PipelineProgress {
        name,
        rows_in: metrics.rows_in.load(Ordering::Relaxed) + metrics.reader.skipped_rows.load(Ordering::Relaxed),
        rows_out: metrics.rows_out.load(Ordering::Relaxed),
        late_rows: metrics.late_rows.load(Ordering::Relaxed),
        windows_closed: metrics.windows_closed.load(Ordering::Relaxed),
        watermark: (watermark != WATERMARK_MIN).then(|| replay.event_time_value(watermark)).flatten(),
    }
}
