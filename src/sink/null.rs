//! A sink that counts rows and drops them: for measuring a query without its output.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::error::Result;

use super::{Epochs, InEpoch, Sink, Writer, Written};

/// Counts rows; every pipeline by itself.
#[derive(Debug, Default)]
pub struct NullSink;

impl Sink for NullSink {
    fn per_pipeline(&self) -> bool {
        true
    }

    fn writer(&self, _: usize, _: SchemaRef) -> Result<Box<dyn Writer>> {
        Ok(Box::new(NullWriter::default()))
    }

    fn epochs(&self) -> Option<Arc<dyn Epochs>> {
        Some(Arc::new(Self))
    }
}

#[async_trait]
impl Epochs for NullSink {
    async fn begin(&self) -> Result<()> {
        Ok(())
    }

    fn staging_writer(&self, _: InEpoch, _: SchemaRef) -> Result<Box<dyn Writer>> {
        Ok(Box::new(NullWriter::default()))
    }

    async fn publish(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn recover(&self, _: usize, _: u64, _: &[String]) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct NullWriter {
    written: Written,
}

#[async_trait]
impl Writer for NullWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.written.rows += batch.num_rows() as u64;
        Ok(())
    }

    async fn close(&mut self) -> Result<Written> {
        Ok(self.written.clone())
    }
}
