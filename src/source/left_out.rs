//! What is left out of a stream that is read as a table: what plain DataFusion answers when it does not see that.

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

/// Rows, and windows of others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Rows by file and number, counted from 1.
    rows: HashMap<String, HashSet<u64>>,
    /// The end of the last window that a row is not in, in ticks of its event time, by the row's place.
    windows: HashMap<i64, i64>,
}

impl LeftOut {
    pub(crate) fn add_row(&mut self, file: &str, row: u64) {
        self.rows.entry(file.to_string()).or_default().insert(row);
    }

    pub(crate) fn add_windows(&mut self, place: i64, last_end: i64) {
        let last = self.windows.entry(place).or_insert(last_end);
        *last = last_end.max(*last);
    }

    /// Whether the row of a place is in its window that ends at `end`.
    pub(crate) fn has_in_window(&self, place: i64, end: i64) -> bool {
        self.windows.get(&place).is_none_or(|last| end > *last)
    }

    fn rest(&self, read: &Read) -> Result<RecordBatch> {
        let Some(origin) = &read.origin else { return Ok(read.batch.clone()) };
        let is_kept = |row| {
            let place = origin.places.at(row);
            !self.rows.get(place.file.as_ref()).is_some_and(|rows| rows.contains(&place.row))
        };
        let kept: BooleanArray = (0..read.batch.num_rows()).map(|row| Some(is_kept(row))).collect();
        Ok(filter_record_batch(&read.batch, &kept)?)
    }
}

impl StreamTable {
    /// The same stream without what is left out, where it is read as a table.
    pub(crate) fn leaving_out(&self, left_out: LeftOut) -> Self {
        Self { left_out: Some(Arc::new(left_out)), ..self.clone() }
    }

    /// The stream as a table without the rows that are left out.
    ///
    /// # Errors
    /// None for a stream that can be read.
    pub(crate) fn without_rows(&self) -> Result<StreamingTable> {
        let left_out = self.left_out().cloned().unwrap_or_default();
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
