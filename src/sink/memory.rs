//! Rows in memory: for who looks at them next, and as the table that CREATE TABLE … AS makes.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::SchemaError;
use datafusion::datasource::MemTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::CreateMemoryTable;
use parking_lot::Mutex;

use super::{Sink, Writer, Written};

/// Keeps the rows of each pipeline.
#[derive(Debug, Default)]
pub(crate) struct MemorySink {
    partitions: Arc<Mutex<Vec<Vec<RecordBatch>>>>,
}

impl MemorySink {
    /// Takes the rows out, pipeline by pipeline.
    pub(crate) fn take(&self) -> Vec<Vec<RecordBatch>> {
        std::mem::take(&mut *self.partitions.lock())
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn per_pipeline(&self) -> bool {
        true
    }

    fn writer(&self, pipeline: usize, _: SchemaRef) -> Result<Box<dyn Writer>> {
        Ok(Box::new(MemoryWriter { pipeline, rows: vec![], partitions: Arc::clone(&self.partitions) }))
    }
}

/// Keeps rows, a partition of the table for each pipeline, and registers the table when all of them are there.
pub(crate) struct TableSink {
    ctx: SessionContext,
    table: CreateMemoryTable,
    schema: SchemaRef,
    rows: MemorySink,
}

impl TableSink {
    /// The table that a statement creates in `ctx`, of rows of this schema.
    ///
    /// # Errors
    /// Two columns of the same name.
    pub(crate) fn try_new(ctx: &SessionContext, table: CreateMemoryTable, schema: SchemaRef) -> Result<Self> {
        let mut names = HashSet::new();
        if let Some(field) = schema.fields().iter().find(|field| !names.insert(field.name())) {
            let error = SchemaError::DuplicateUnqualifiedField { name: field.name().clone() };
            return Err(DataFusionError::SchemaError(Box::new(error), Box::new(None)));
        }
        Ok(Self { ctx: ctx.clone(), table, schema, rows: MemorySink::default() })
    }
}

impl fmt::Debug for TableSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}", self.table.name)
    }
}

#[async_trait]
impl Sink for TableSink {
    fn per_pipeline(&self) -> bool {
        true
    }

    fn writer(&self, pipeline: usize, schema: SchemaRef) -> Result<Box<dyn Writer>> {
        self.rows.writer(pipeline, schema)
    }

    async fn closed(&self, _: &[String]) -> Result<()> {
        let defaults = self.table.column_defaults.iter().cloned().collect();
        let table = MemTable::try_new(Arc::clone(&self.schema), self.rows.take())?
            .with_constraints(self.table.constraints.clone())
            .with_column_defaults(defaults);
        if self.table.or_replace {
            self.ctx.deregister_table(self.table.name.clone())?;
        }
        self.ctx.register_table(self.table.name.clone(), Arc::new(table))?;
        Ok(())
    }
}

struct MemoryWriter {
    pipeline: usize,
    rows: Vec<RecordBatch>,
    partitions: Arc<Mutex<Vec<Vec<RecordBatch>>>>,
}

#[async_trait]
impl Writer for MemoryWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows.push(batch);
        Ok(())
    }

    async fn close(&mut self) -> Result<Written> {
        let rows = std::mem::take(&mut self.rows);
        let written = Written {
            files: vec![],
            rows: rows.iter().map(|batch| batch.num_rows() as u64).sum(),
            bytes: rows.iter().map(|batch| batch.get_array_memory_size() as u64).sum(),
        };
        let mut partitions = self.partitions.lock();
        let count = partitions.len().max(self.pipeline + 1);
        partitions.resize(count, vec![]);
        partitions[self.pipeline] = rows;
        Ok(written)
    }
}
