//! A stream's files as a table without some of their rows: what plain DataFusion answers when it does not see them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;

use super::pieces::{Division, Split};
use super::reader::{Read, Reader};
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

impl StreamTable {
    /// The stream as a table without these rows.
    ///
    /// # Errors
    /// None for a stream that can be read.
    pub(crate) fn without(&self, left_out: Arc<LeftOut>) -> Result<StreamingTable> {
        let schema = self.schema();
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
        let reader = Reader::open(&self.plan, self.piece, Arc::default(), task, &Arc::default());
        let left_out = Arc::clone(&self.left_out);
        let rows = stream::try_unfold(reader, move |reader| {
            let left_out = Arc::clone(&left_out);
            async move {
                let mut reader = reader?;
                let Some(read) = reader.next().await? else { return Ok(None) };
                Ok(Some((left_out.rest(&read)?, Ok(reader))))
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}
