//! The leaf of a pipeline's plan, and the stream as a DataFusion table.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, RecordBatchStream, SendableRecordBatchStream,
};
use futures::Stream;

use crate::config::StreamlinesOptions;
use crate::source::{Division, ReplayPlan, Split, StreamTable};

use super::context::{LeafPoll, PipelineContext};
use super::source_rows::with_numbers;
use super::{no_expressions, streaming_properties};

#[async_trait]
impl TableProvider for StreamTable {
    fn schema(&self) -> SchemaRef {
        StreamTable::schema(self)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = state.config_options().extensions.get::<StreamlinesOptions>();
        if options.is_some_and(|options| options.strategy == "batch") {
            // Files know nothing of the places of rows.
            return match self.left_out().is_some() || self.is_placed() {
                true => self.without_rows()?.scan(state, projection, filters, limit).await,
                false => self.batch_scan(state, projection, filters, limit).await,
            };
        }
        // Every row counts for the watermark, so neither filters nor a limit are for the reader.
        Ok(Arc::new(StreamScanExec::try_new(
            self.clone(),
            projection.cloned(),
            Division { split: Split::Partitions, keys: vec![], time: None },
        )?))
    }
}

/// The leaf of a pipeline's plan. It reads nothing itself: the pipeline reads and puts each batch here.
#[derive(Debug)]
pub(crate) struct StreamScanExec {
    table: StreamTable,
    projection: Option<Vec<usize>>,
    division: Division,
    /// Position of a column that may come as codes (see [`StreamScanExec::with_codes`]).
    coded: Option<usize>,
    /// Whether rows carry their numbers in the batch, in a last column.
    is_numbered: bool,
    replay: Arc<ReplayPlan>,
    properties: Arc<PlanProperties>,
}

impl StreamScanExec {
    pub(crate) fn try_new(table: StreamTable, projection: Option<Vec<usize>>, division: Division) -> Result<Self> {
        Self::try_new_coded(table, projection, division, None)
    }

    fn try_new_coded(
        table: StreamTable,
        projection: Option<Vec<usize>>,
        division: Division,
        coded: Option<usize>,
    ) -> Result<Self> {
        let replay = Arc::new(table.replay(projection.as_ref(), &division)?.with_codes(coded));
        let properties = streaming_properties(replay.schema(), replay.pieces().len());
        Ok(Self { table, projection, division, coded, is_numbered: false, replay, properties })
    }

    /// The same scan with its rows numbered; `keeps_origin` says where each comes from, for a ledger of late rows.
    pub(crate) fn numbered(&self, keeps_origin: bool) -> Result<Self> {
        let replay = self.table.replay(self.projection.as_ref(), &self.division)?.with_codes(self.coded);
        let replay = Arc::new(if keeps_origin { replay.with_origin() } else { replay });
        let properties = streaming_properties(with_numbers(&replay.schema()), replay.pieces().len());
        Ok(Self {
            table: self.table.clone(),
            projection: self.projection.clone(),
            division: self.division.clone(),
            coded: self.coded,
            is_numbered: true,
            replay,
            properties,
        })
    }

    /// The same scan with its data divided otherwise.
    pub(crate) fn divide(&self, division: Division) -> Result<Self> {
        Self::try_new_coded(self.table.clone(), self.projection.clone(), division, self.coded)
    }

    /// The same scan with the text column at `position` as codes where the files hold it so. The declared schema stays;
    /// whoever reads the column must take a dictionary of distinct values for it.
    pub(crate) fn with_codes(&self, position: usize) -> Result<Self> {
        Self::try_new_coded(self.table.clone(), self.projection.clone(), self.division.clone(), Some(position))
    }

    /// What is to be read, one piece for each pipeline.
    pub(crate) fn replay(&self) -> &Arc<ReplayPlan> {
        &self.replay
    }

    /// The stream that is read.
    pub(crate) fn table(&self) -> &StreamTable {
        &self.table
    }
}

impl DisplayAs for StreamScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let columns: Vec<_> = self.replay.schema().fields().iter().map(|field| field.name().clone()).collect();
        write!(f, "StreamScanExec: stream={}, projection=[{}]", self.table.name(), columns.join(", "))?;
        if let Some(name) = self.coded.filter(|_| self.replay.is_coded()).and_then(|position| columns.get(position)) {
            write!(f, ", as_codes=[{name}]")?;
        }
        match self.replay.event_time() {
            Some(time) => write!(f, ", event_time={}, watermark={}", time.column, time.describe_bound()),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for StreamScanExec {
    fn name(&self) -> &str {
        "StreamScanExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }
    no_expressions!();
    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }
    fn execute(&self, _: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let numbers = self.is_numbered.then(|| UInt32Array::from(Vec::<u32>::new()));
        Ok(Box::pin(LeafStream { schema: self.schema(), numbers, pipeline: PipelineContext::of(&task)? }))
    }
}

struct LeafStream {
    schema: SchemaRef,
    /// Numbers for a batch's rows, if they carry them.
    numbers: Option<UInt32Array>,
    pipeline: Arc<PipelineContext>,
}

impl LeafStream {
    /// The batch with the numbers of its rows. Its own schema stays, which may have codes for text.
    fn numbered(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let Some(numbers) = &mut self.numbers else { return Ok(batch) };
        let rows = batch.num_rows();
        if numbers.len() < rows {
            *numbers = UInt32Array::from_iter_values(0..rows as u32);
        }
        let schema = with_numbers(batch.schema_ref());
        let columns = batch.columns().iter().cloned().chain([Arc::new(numbers.slice(0, rows)) as ArrayRef]);
        Ok(RecordBatch::try_new(schema, columns.collect())?)
    }
}

impl Stream for LeafStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.pipeline.poll_leaf() {
            LeafPoll::Batch(batch) => Poll::Ready(Some(self.numbered(batch))),
            LeafPoll::Ended => Poll::Ready(None),
            // No waker is kept: the pipeline's task sees the note, reads, and polls again.
            LeafPoll::WantsInput => Poll::Pending,
        }
    }
}

impl RecordBatchStream for LeafStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
