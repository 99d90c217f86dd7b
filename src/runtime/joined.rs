//! Small batches joined to larger ones, for a tail that goes over all rows anyway: DataFusion's sort takes each batch
//! as a run of its own, and merges them all at once.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::BatchCoalescer;
use datafusion::common::Result;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};

/// The same rows in batches of `rows` rows; those of half as many and more pass as they are.
pub(super) fn joined(batches: SendableRecordBatchStream, rows: usize) -> SendableRecordBatchStream {
    let schema = batches.schema();
    let coalescer = BatchCoalescer::new(schema.clone(), rows).with_biggest_coalesce_batch_size(Some(rows.div_ceil(2)));
    let output = stream::try_unfold((batches, coalescer), |(mut batches, mut coalescer)| async move {
        Ok(next(&mut batches, &mut coalescer).await?.map(|batch| (batch, (batches, coalescer))))
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, output))
}

async fn next(batches: &mut SendableRecordBatchStream, coalescer: &mut BatchCoalescer) -> Result<Option<RecordBatch>> {
    while !coalescer.has_completed_batch() {
        match batches.next().await {
            Some(batch) => coalescer.push_batch(batch?)?,
            None => {
                coalescer.finish_buffered_batch()?;
                break;
            }
        }
    }
    Ok(coalescer.next_completed_batch())
}
