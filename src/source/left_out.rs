//! A stream's files as a table without some of their rows, or with the places of all: what plain DataFusion answers when
//! it does not see them, or when it knows their order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;

use super::pieces::{Division, Split};
use super::reader::{Read, Reader, ReaderCounts};
use super::replay::ReplayPlan;
use super::table::StreamTable;

/// Rows by file and number, counted from 1. As an extension of a session's configuration it holds for all streams that
/// are read as tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeftOut(HashMap<String, HashSet<u64>>);

impl LeftOut {
    pub(crate) fn add(&mut self, file: &str, row: u64) {
        self.0.entry(file.to_string()).or_default().insert(row);
    }

    fn rest(&self, read: &Read) -> Result<RecordBatch> {
        let Some(origin) = &read.origin else { return Ok(read.batch.clone()) };
        let is_kept = |row| {
            let place = origin.places.at(row);
            !self.0.get(place.file.as_ref()).is_some_and(|rows| rows.contains(&place.row))
        };
        let kept: BooleanArray = (0..read.batch.num_rows()).map(|row| Some(is_kept(row))).collect();
        Ok(filter_record_batch(&read.batch, &kept)?)
    }
}

/// The column of rows' places in the stream, by partition and row: none that a file has.
pub(crate) const PLACE: &str = "__place";
/// Places of one partition, more than a file has rows.
const PLACES: i64 = 1 << 40;

impl StreamTable {
    /// The stream as a table without these rows.
    ///
    /// # Errors
    /// None for a stream that can be read.
    pub(crate) fn without(&self, left_out: Arc<LeftOut>) -> Result<StreamingTable> {
        self.rest(left_out, self.schema())
    }

    /// The same, with each row's place as a last column.
    ///
    /// # Errors
    /// None for a stream that can be read.
    pub(crate) fn placed_without(&self, left_out: Arc<LeftOut>) -> Result<StreamingTable> {
        let place = Arc::new(Field::new(PLACE, DataType::Int64, false));
        let fields: Vec<_> = self.schema().fields().iter().cloned().chain([place]).collect();
        self.rest(left_out, Arc::new(Schema::new(fields)))
    }

    fn rest(&self, left_out: Arc<LeftOut>, schema: SchemaRef) -> Result<StreamingTable> {
        let plan = self.replay(None, &Division { split: Split::Partitions, keys: vec![], time: None })?;
        let plan = Arc::new(plan.with_origin());
        let partition = |piece| -> Arc<dyn PartitionStream> {
            let (plan, schema, left_out) = (Arc::clone(&plan), Arc::clone(&schema), Arc::clone(&left_out));
            Arc::new(Rest { plan, piece, schema, left_out })
        };
        StreamingTable::try_new(Arc::clone(&schema), (0..plan.pieces().len()).map(partition).collect())
    }
}

/// The rows of a data partition that are not left out.
#[derive(Debug)]
struct Rest {
    plan: Arc<ReplayPlan>,
    piece: usize,
    schema: SchemaRef,
    left_out: Arc<LeftOut>,
}

impl PartitionStream for Rest {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, task: Arc<TaskContext>) -> SendableRecordBatchStream {
        let reader = Reader::open(&self.plan, self.piece, Arc::new(ReaderCounts::default()), task);
        let (left_out, schema) = (Arc::clone(&self.left_out), Arc::clone(&self.schema));
        let first = self.piece as i64 * PLACES;
        let rows = stream::try_unfold((reader, first), move |(reader, first)| {
            let (left_out, schema) = (Arc::clone(&left_out), Arc::clone(&schema));
            async move {
                let mut reader = reader?;
                let Some(Read { batch, stamp, origin }) = reader.next().await? else { return Ok(None) };
                let next = first + batch.num_rows() as i64;
                let batch = placed(batch, first..next, &schema)?;
                let rest = left_out.rest(&Read { batch, stamp, origin })?;
                Ok(Some((rest, (Ok(reader), next))))
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

/// Rows with their places after them, if the schema has these.
fn placed(batch: RecordBatch, places: std::ops::Range<i64>, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.num_columns() == schema.fields().len() {
        return Ok(batch);
    }
    let places: ArrayRef = Arc::new(Int64Array::from_iter_values(places));
    Ok(RecordBatch::try_new(Arc::clone(schema), batch.columns().iter().cloned().chain([places]).collect())?)
}
