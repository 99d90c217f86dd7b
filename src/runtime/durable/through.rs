//! Output that is written as it comes, of a job that saves itself: where the job has to begin again, rows since the last
//! checkpoint of their pipeline come again. That is all that a terminal or a pipe allows.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use tokio::sync::Mutex;

use crate::sink::{Epochs, InEpoch, Writer, Written};

/// One writer for all pipelines.
pub(super) struct Through {
    writer: Arc<Mutex<Box<dyn Writer>>>,
}

impl Through {
    pub(super) fn new(writer: Box<dyn Writer>) -> Self {
        Self { writer: Arc::new(Mutex::new(writer)) }
    }

    /// All pipelines have ended, or have been stopped.
    ///
    /// # Errors
    /// An output that cannot be written.
    pub(super) async fn close(&self) -> Result<Written> {
        let mut writer = self.writer.lock().await;
        writer.finish().await?;
        writer.close().await
    }
}

#[async_trait]
impl Epochs for Through {
    async fn begin(&self) -> Result<()> {
        Ok(())
    }

    fn staging_writer(&self, _: InEpoch, _: SchemaRef) -> Result<Box<dyn Writer>> {
        Ok(Box::new(Part { writer: Arc::clone(&self.writer), rows: 0 }))
    }

    async fn publish(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn recover(&self, _: usize, _: u64, _: &[String]) -> Result<()> {
        Ok(())
    }
}

/// What a pipeline writes in an epoch.
struct Part {
    writer: Arc<Mutex<Box<dyn Writer>>>,
    rows: u64,
}

#[async_trait]
impl Writer for Part {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.writer.lock().await.write(batch).await
    }

    async fn close(&mut self) -> Result<Written> {
        Ok(Written { rows: self.rows, ..Written::default() })
    }
}
