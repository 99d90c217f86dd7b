//! Windowed Top-N: a window's best rows come out when the watermark has passed its end, those of a key in order of
//! rank. Rows of a window that has closed are late.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::DiskManager;

use super::TopNSpec;
use crate::operator::{Counters, MissedRows, Mode, Operator, Stamp, WindowAggregate};

/// Keeps the best rows of each window and key.
pub(crate) struct WindowTopN {
    spec: Arc<TopNSpec>,
    windows: WindowAggregate,
}

impl WindowTopN {
    pub(crate) fn new(spec: Arc<TopNSpec>) -> Self {
        let windows = WindowAggregate::new(Arc::clone(&spec.groups), Mode::Final);
        Self { spec, windows }
    }

    fn give(&self, closed: Vec<RecordBatch>, output: &mut Vec<RecordBatch>) -> Result<()> {
        for lists in closed {
            output.push(self.spec.rows(&lists)?);
        }
        Ok(())
    }
}

impl Operator for WindowTopN {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn push(&mut self, batch: &RecordBatch, stamp: Stamp, output: &mut Vec<RecordBatch>) -> Result<()> {
        let mut closed = vec![];
        self.windows.push(batch, stamp, &mut closed)?;
        self.give(closed, output)
    }

    fn finish(&mut self, output: &mut Vec<RecordBatch>) -> Result<()> {
        let mut closed = vec![];
        self.windows.finish(&mut closed)?;
        self.give(closed, output)
    }

    fn more(&mut self, output: &mut Vec<RecordBatch>) -> Result<bool> {
        let mut closed = vec![];
        let has_more = self.windows.more(&mut closed)?;
        self.give(closed, output)?;
        Ok(has_more)
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        self.windows.snapshot()
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        self.windows.restore(snapshot)
    }

    fn memory(&self) -> usize {
        self.windows.memory()
    }

    fn can_spill(&self) -> bool {
        self.windows.can_spill()
    }

    fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        self.windows.spill(disk)
    }

    fn counters(&self) -> Counters {
        self.windows.counters()
    }

    fn missed(&mut self) -> &mut MissedRows {
        self.windows.missed()
    }
}
