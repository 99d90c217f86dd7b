//! The rows of a file, by the decoder for its format.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, UInt64Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::execution::TaskContext;

use crate::config::StreamlinesOptions;
use crate::panics::{caught, caught_in};
use crate::sql::FileFormat;

use super::csv_rows::CsvRows;
use super::live::{Came, LiveRows};
use super::pacing::batch_rows_at_most;
use super::parquet_rows::ParquetRows;
use super::pieces::{Part, TextStart};
use super::reader::ReaderCounts;
use super::share::Own;
use super::table::{Inner, StreamFile};
use super::text_rows::TextRows;

/// What is wanted of a file.
pub(super) struct Wanted<'a> {
    pub(super) inner: &'a Inner,
    /// The stream's columns that are read, in their order.
    pub(super) columns: &'a [usize],
    /// Position among them of a text column that may come as codes.
    pub(super) coded: Option<usize>,
    /// Where pipelines share the rows by their keys: what tells those of one, and the positions of what is needed of all
    /// rows.
    pub(super) own: Option<(Own, Vec<usize>)>,
    pub(super) task: &'a Arc<TaskContext>,
    /// Where to count the bytes of text.
    pub(super) counts: Option<&'a Arc<ReaderCounts>>,
}

impl Wanted<'_> {
    /// The schema of the columns that are read.
    pub(super) fn schema(&self) -> Result<SchemaRef> {
        Ok(Arc::new(self.inner.schema.project(self.columns)?))
    }

    pub(super) fn batch_rows(&self) -> usize {
        batch_rows(self.task)
    }
}

/// Rows of a batch at most: room is made for as many before one is read.
const BATCH_ROWS_MOST: usize = 1 << 20;

/// How many rows a batch has.
pub(super) fn batch_rows(task: &TaskContext) -> usize {
    let config = task.session_config();
    let rows = match config.options().extensions.get::<StreamlinesOptions>() {
        Some(StreamlinesOptions { batch_rows: rows @ 1.., .. }) => *rows,
        _ => config.batch_size(),
    };
    rows.min(batch_rows_at_most(task)).min(BATCH_ROWS_MOST)
}

/// The rows of one file.
pub(super) enum Rows {
    Text(Box<TextRows>),
    Csv(Box<CsvRows>),
    Parquet(Box<ParquetRows>),
    /// Text of an object store, which comes piece by piece.
    Stored(Box<LiveRows>),
}

impl Rows {
    /// Opens a file, or a part of one; text, where it begins or at the row `from`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) async fn open(
        file: &StreamFile,
        part: &Part,
        from: Option<TextStart>,
        wanted: &Wanted<'_>,
    ) -> Result<Self> {
        caught_in(Self::try_open(file, part, from, wanted)).await
    }

    async fn try_open(file: &StreamFile, part: &Part, from: Option<TextStart>, wanted: &Wanted<'_>) -> Result<Self> {
        let options = &wanted.inner.options;
        Ok(match wanted.inner.format {
            FileFormat::Parquet => {
                let runtime = wanted.task.runtime_env();
                let store = file.place.store(&runtime)?;
                let footer = DFParquetMetadata::new(store.as_ref(), &file.object)
                    .with_file_metadata_cache(Some(runtime.cache_manager.get_file_metadata_cache()))
                    .fetch_metadata()
                    .await?;
                let groups = part.row_groups().unwrap_or(0..footer.num_row_groups());
                Self::Parquet(Box::new(ParquetRows::open(file, &footer, groups, wanted)?))
            }
            FileFormat::Csv | FileFormat::Json if file.stored().is_some() => {
                Self::Stored(Box::new(LiveRows::of_stored(file, part, from, wanted).await?))
            }
            FileFormat::Csv if options.reads_csv_by_rows() => Self::Csv(Box::new(CsvRows::open(file, from, wanted)?)),
            FileFormat::Csv | FileFormat::Json => Self::Text(Box::new(TextRows::open(file, part, from, wanted).await?)),
        })
    }

    /// The rows of the file that the last batch holds, counted from 1; none if they are the next ones.
    pub(super) fn numbers(&self) -> Option<UInt64Array> {
        match self {
            Self::Csv(csv) => csv.numbers(),
            Self::Stored(text) => text.numbers(),
            Self::Text(_) | Self::Parquet(_) => None,
        }
    }

    /// Where the next row begins, in text that is read as it is in the file.
    pub(super) fn next_row(&self) -> Option<TextStart> {
        match self {
            Self::Text(text) => Some(text.next_row()),
            Self::Csv(csv) => Some(csv.next_row()),
            Self::Stored(text) => text.next_row(),
            Self::Parquet(_) => None,
        }
    }

    /// Which rows of the last batch are the pipeline's own, if that is known.
    pub(super) fn own_rows(&self) -> Option<&BooleanArray> {
        match self {
            Self::Parquet(parquet) => parquet.own_rows(),
            Self::Text(_) | Self::Csv(_) | Self::Stored(_) => None,
        }
    }

    /// The next batch; none at the end. Bad rows that are left out are added to `skipped_rows`.
    ///
    /// # Errors
    /// Rows that cannot be read.
    pub(super) async fn next(&mut self, skipped_rows: &mut u64) -> Result<Option<RecordBatch>> {
        match self {
            Self::Text(text) => caught(|| text.next()),
            Self::Csv(csv) => caught(|| csv.next(skipped_rows)),
            Self::Parquet(parquet) => caught_in(parquet.next()).await,
            Self::Stored(text) => match text.next(skipped_rows).await? {
                Came::Rows(rows) => Ok(Some(rows)),
                Came::Later | Came::End => Ok(None),
            },
        }
    }
}
