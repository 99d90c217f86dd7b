//! The rows of a file, by the decoder for its format: our own for Parquet and for CSV with special wishes, DataFusion's
//! for other text.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::{CsvSource, FileGroup, FileScanConfigBuilder, FileSource, JsonSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::TaskContext;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::StreamExt;

use crate::sql::FileFormat;

use super::csv_rows::CsvRows;
use super::parquet_rows::ParquetRows;
use super::table::{Inner, StreamFile};

/// What is wanted of a file.
pub(super) struct Wanted<'a> {
    pub(super) inner: &'a Inner,
    /// The stream's columns that are read, in their order.
    pub(super) columns: &'a [usize],
    /// Position among them of a text column that may come as codes.
    pub(super) coded: Option<usize>,
    pub(super) task: &'a Arc<TaskContext>,
}

impl Wanted<'_> {
    /// The schema of the columns that are read.
    pub(super) fn schema(&self) -> Result<SchemaRef> {
        Ok(Arc::new(self.inner.schema.project(self.columns)?))
    }

    pub(super) fn batch_rows(&self) -> usize {
        self.task.session_config().batch_size()
    }
}

/// The rows of one file.
pub(super) enum Rows {
    DataFusion(SendableRecordBatchStream),
    Csv(Box<CsvRows>),
    Parquet(Box<ParquetRows>),
}

impl Rows {
    /// Opens a file, or some row groups of one.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) async fn open(file: &StreamFile, row_groups: Option<Range<usize>>, wanted: &Wanted<'_>) -> Result<Self> {
        let options = &wanted.inner.options;
        Ok(match wanted.inner.format {
            FileFormat::Parquet => {
                let runtime = wanted.task.runtime_env();
                let store = runtime.object_store(ObjectStoreUrl::local_filesystem())?;
                let footer = DFParquetMetadata::new(store.as_ref(), &file.object)
                    .with_file_metadata_cache(Some(runtime.cache_manager.get_file_metadata_cache()))
                    .fetch_metadata()
                    .await?;
                let groups = row_groups.unwrap_or(0..footer.num_row_groups());
                Self::Parquet(Box::new(ParquetRows::open(file, &footer, groups, wanted)?))
            }
            FileFormat::Csv if options.reads_csv_by_rows() => Self::Csv(Box::new(CsvRows::open(file, wanted)?)),
            FileFormat::Csv => {
                let mut csv = options.csv.clone();
                csv.newlines_in_values = Some(csv.newlines_in_values.unwrap_or(false));
                let source = CsvSource::new(table_schema(wanted.inner)).with_csv_options(csv);
                Self::DataFusion(open_text(file, Arc::new(source), wanted)?)
            }
            FileFormat::Json => {
                let source = JsonSource::new(table_schema(wanted.inner));
                Self::DataFusion(open_text(file, Arc::new(source), wanted)?)
            }
        })
    }

    /// The next batch; none at the end. Bad rows that are left out are added to `skipped_rows`.
    ///
    /// # Errors
    /// Rows that cannot be read.
    pub(super) async fn next(&mut self, skipped_rows: &mut u64) -> Result<Option<RecordBatch>> {
        match self {
            Self::DataFusion(stream) => stream.next().await.transpose(),
            Self::Csv(csv) => csv.next(skipped_rows),
            Self::Parquet(parquet) => parquet.next(),
        }
    }
}

fn table_schema(inner: &Inner) -> TableSchema {
    TableSchema::builder(Arc::clone(&inner.file_schema)).with_table_partition_cols(inner.hive_columns.clone()).build()
}

/// Reads a text file through DataFusion's reader.
fn open_text(file: &StreamFile, source: Arc<dyn FileSource>, wanted: &Wanted) -> Result<SendableRecordBatchStream> {
    let partitioned = PartitionedFile::new_from_meta(file.object.clone()).with_partition_values(file.hive.clone());
    let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
        .with_file_group(FileGroup::new(vec![partitioned]))
        .with_file_compression_type(file.compression.into())
        .with_projection_indices(Some(wanted.columns.to_vec()))?
        .with_preserve_order(true)
        .build();
    DataSourceExec::from_data_source(config).execute(0, Arc::clone(wanted.task))
}
