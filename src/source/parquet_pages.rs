//! The pages of a Parquet file: of this machine read when their rows are due, so that what is held is a page of each column;
//! of an object store fetched for a whole row group, those columns that are decoded, and for the next one meanwhile.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result};
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::parquet::file::reader::{ChunkReader, Length};
use object_store::{OBJECT_STORE_COALESCE_DEFAULT, coalesce_ranges};

use super::place::StoredFile;
use super::table::StreamFile;
use super::unchanged::Version;

/// Where pages come from.
pub(super) enum Pages {
    Local(File, Version),
    Stored(Box<StoredPages>),
}

impl Pages {
    /// # Errors
    /// A file that is not there any more, or is another one.
    pub(super) fn open(file: &StreamFile) -> Result<Self> {
        Ok(match file.stored() {
            Some(stored) => Self::Stored(Box::new(StoredPages::new(stored))),
            None => Self::Local(file.open()?, Version::of(file)),
        })
    }

    /// Row groups are to be decoded, the first one now: these columns of them.
    ///
    /// # Errors
    /// What cannot be fetched.
    pub(super) async fn begin(
        &mut self,
        mut groups: Range<usize>,
        columns: &ProjectionMask,
        footer: &ParquetMetaData,
    ) -> Result<()> {
        let Self::Stored(stored) = self else { return Ok(()) };
        if let Some(group) = groups.next() {
            let of_group = chunks(group, columns, footer);
            let next = groups.next().map(|group| chunks(group, columns, footer));
            stored.begin(of_group, next).await?;
        }
        Ok(())
    }

    /// All of them have been decoded.
    ///
    /// # Errors
    /// The file has changed in between.
    pub(super) fn end(&self) -> Result<()> {
        match self {
            Self::Local(file, version) => Ok(version.check_ended(file)?),
            // Each range was that of the same version.
            Self::Stored(_) => Ok(()),
        }
    }
}

/// Where the columns of a row group are.
fn chunks(group: usize, columns: &ProjectionMask, footer: &ParquetMetaData) -> Vec<Range<u64>> {
    let leaves = footer.row_groups().get(group).map_or(&[][..], |group| group.columns());
    let wanted = leaves.iter().enumerate().filter(|(leaf, _)| columns.leaf_included(*leaf));
    let range = |(start, bytes): (u64, u64)| start..start.saturating_add(bytes);
    wanted.map(|(_, chunk)| range(chunk.byte_range())).collect()
}

/// Row groups of an object.
pub(super) struct StoredPages {
    file: StoredFile,
    current: Fetched,
    next: Option<SpawnedTask<Result<Fetched>>>,
}

impl StoredPages {
    fn new(file: StoredFile) -> Self {
        Self { current: Fetched { bytes: file.object.size, parts: Arc::new([]) }, file, next: None }
    }

    async fn begin(&mut self, chunks: Vec<Range<u64>>, next: Option<Vec<Range<u64>>>) -> Result<()> {
        let fetched = match self.next.take() {
            Some(fetched) => fetched,
            None => fetch(self.file.clone(), chunks),
        };
        self.next = next.map(|next| fetch(self.file.clone(), next));
        self.current = fetched.await.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))??;
        Ok(())
    }

    /// The row group that has begun.
    pub(super) fn current(&self) -> Fetched {
        self.current.clone()
    }
}

fn fetch(file: StoredFile, chunks: Vec<Range<u64>>) -> SpawnedTask<Result<Fetched>> {
    SpawnedTask::spawn(async move {
        let parts = coalesce_ranges(&chunks, |range| file.bytes(range), OBJECT_STORE_COALESCE_DEFAULT).await?;
        let parts = chunks.iter().map(|chunk| chunk.start).zip(parts).collect();
        Ok(Fetched { bytes: file.object.size, parts })
    })
}

/// Parts of a file that have been fetched, each with its place in the file.
#[derive(Clone)]
pub(super) struct Fetched {
    /// Of the whole file.
    bytes: u64,
    parts: Arc<[(u64, Bytes)]>,
}

impl Fetched {
    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let holding = |(begin, bytes): &&(u64, Bytes)| (*begin..begin + bytes.len() as u64).contains(&start);
        match self.parts.iter().find(holding) {
            Some((begin, bytes)) => Ok(bytes.slice((start - begin) as usize..)),
            None => Err(ParquetError::EOF(format!("byte {start} is in no column that is read"))),
        }
    }
}

impl Length for Fetched {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Fetched {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let bytes = self.from(start)?;
        match length <= bytes.len() {
            true => Ok(bytes.slice(..length)),
            false => Err(ParquetError::EOF(format!("a page at byte {start} goes beyond its column"))),
        }
    }
}
