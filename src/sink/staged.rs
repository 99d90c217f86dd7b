//! Files of a whole run that end before the run does: staged as they end, and visible together at its end.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::error::Result;

use super::files::FileSink;
use super::folder::staged;
use super::{Epochs, Writer, Written};

/// Makes visible at the end what another writer has staged.
pub(super) struct StagedWriter {
    sink: FileSink,
    staging: Box<dyn Writer>,
    /// What has been staged, when all of it has.
    staged: Written,
    /// The names under which files are visible.
    visible: Vec<String>,
}

impl StagedWriter {
    pub(super) fn new(sink: FileSink, staging: Box<dyn Writer>) -> Self {
        Self { sink, staging, staged: Written::default(), visible: vec![] }
    }
}

#[async_trait]
impl Writer for StagedWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.staging.write(batch).await
    }

    async fn finish(&mut self) -> Result<()> {
        self.staging.finish().await?;
        self.staged = self.staging.close().await?;
        Ok(())
    }

    async fn close(&mut self) -> Result<Written> {
        for file in &self.staged.files {
            self.sink.publish(file).await?;
            self.visible.push(self.sink.visible(file).to_string());
        }
        Ok(Written { files: self.visible.clone(), ..self.staged })
    }

    async fn abort(mut self: Box<Self>) {
        let staged = self.staged.files.iter().skip(self.visible.len()).map(|file| staged(file));
        self.sink.remove_all(staged.chain(self.visible.iter().cloned())).await;
        self.staging.abort().await;
    }
}
