//! Text of an object store, piece by piece: the next ranges are fetched while the rows of one are decoded.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::buf::Reader;
use bytes::{Buf, Bytes, BytesMut};
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use futures::TryStreamExt;
use futures::stream::{self, BoxStream, StreamExt};
use memchr::memchr_iter;

use super::place::StoredFile;
use super::reader::ReaderCounts;

/// Bytes of a range whose rows are decoded together, and how many of them are fetched ahead.
const RANGE_BYTES: u64 = 4 * 1024 * 1024;
const AHEAD: usize = 2;
/// Bytes of a range where only the beginning of a file is looked at.
const HEAD_BYTES: u64 = 64 * 1024;

/// Text as it comes, decompressed.
pub(super) struct StoredText(BoxStream<'static, Result<Bytes>>);

impl StoredText {
    /// Some of the bytes of a file, or all where it is compressed; its own bytes are counted.
    ///
    /// # Errors
    /// A compression that is not known.
    pub(super) fn open(
        file: &StoredFile,
        bytes: Range<u64>,
        compression: CompressionTypeVariant,
        counts: Option<&Arc<ReaderCounts>>,
    ) -> Result<Self> {
        Self::of_ranges(file, bytes, RANGE_BYTES, compression, counts)
    }

    fn of_ranges(
        file: &StoredFile,
        bytes: Range<u64>,
        step: u64,
        compression: CompressionTypeVariant,
        counts: Option<&Arc<ReaderCounts>>,
    ) -> Result<Self> {
        let (file, counts, end) = (file.clone(), counts.cloned().unwrap_or_default(), bytes.end);
        let fetch = move |start: u64| {
            let (file, counts) = (file.clone(), Arc::clone(&counts));
            SpawnedTask::spawn(async move {
                let bytes = file.bytes(start..end.min(start + step)).await?;
                counts.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok::<_, DataFusionError>(bytes)
            })
        };
        let fetched = stream::iter(bytes.step_by(step as usize)).map(fetch).buffered(AHEAD);
        let fetched =
            fetched.map(|fetched| fetched.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?);
        Ok(Self(FileCompressionType::from(compression).convert_stream(fetched.boxed())?))
    }

    /// What comes next; none at the end.
    ///
    /// # Errors
    /// An object that cannot be read, or that has changed; text that is not compressed as it should be.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        self.0.try_next().await
    }
}

/// The first lines of a file, or all of it if there are not so many.
///
/// # Errors
/// As [`StoredText::next`].
pub(super) async fn first_lines(
    file: &StoredFile,
    lines: usize,
    compression: CompressionTypeVariant,
) -> Result<Reader<Bytes>> {
    let mut text = StoredText::of_ranges(file, 0..file.object.size, HEAD_BYTES, compression, None)?;
    let (mut begun, mut missing) = (BytesMut::new(), lines);
    while let Some(piece) = text.next().await? {
        match memchr_iter(b'\n', &piece).nth(missing.saturating_sub(1)) {
            Some(end) => {
                begun.extend_from_slice(&piece[..=end]);
                break;
            }
            None => {
                missing -= memchr_iter(b'\n', &piece).count();
                begun.extend_from_slice(&piece);
            }
        }
    }
    Ok(begun.freeze().reader())
}
