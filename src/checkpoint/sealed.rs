//! The bytes of what is saved: a header, batches, and a checksum over all of it.
//!
//! ```text
//!   magic (8)  version (4)  length of the header (4)  header (JSON)
//!   for each batch: length (8), the batch as an Arrow IPC stream
//!   CRC-32 of all before (4)
//! ```
//!
//! Numbers are little-endian.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use datafusion::common::Result;
use serde_json::Value;

use crate::operator::without_slack;

pub(super) const VERSION: u32 = 3;

/// The bytes, piece by piece: large state would be copied again and again while one buffer grew for all of it.
///
/// # Errors
/// Batches that Arrow IPC cannot hold.
pub(super) fn seal<'a>(
    magic: &[u8; 8],
    header: &Value,
    batches: impl Iterator<Item = &'a RecordBatch>,
) -> Result<Vec<Bytes>> {
    let header = header.to_string().into_bytes();
    let header = [&magic[..], &VERSION.to_le_bytes(), &(header.len() as u32).to_le_bytes(), &header].concat();
    let mut pieces = vec![header];
    for batch in batches {
        let mut piece = vec![0; 8];
        let mut writer = StreamWriter::try_new(&mut piece, &batch.schema())?;
        writer.write(&without_slack(batch)?)?;
        writer.finish()?;
        let length = (piece.len() - 8) as u64;
        piece[..8].copy_from_slice(&length.to_le_bytes());
        pieces.push(piece);
    }
    let mut sum = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| sum.update(piece));
    pieces.push(sum.finalize().to_le_bytes().to_vec());
    Ok(pieces.into_iter().map(Bytes::from).collect())
}

/// The header, and the batches after it.
///
/// # Errors
/// What is wrong with the bytes, in words.
pub(super) fn unseal<'a>(magic: &[u8; 8], bytes: &'a [u8]) -> std::result::Result<(Value, Batches<'a>), String> {
    let (content, sum) = bytes.split_last_chunk::<4>().ok_or("it is cut short")?;
    if !content.starts_with(magic) {
        return Err("it is no checkpoint".to_string());
    }
    if crc32fast::hash(content) != u32::from_le_bytes(*sum) {
        return Err("its checksum is wrong".to_string());
    }
    let mut rest = Batches { content, next: magic.len() };
    let version = u32::from_le_bytes(rest.array()?);
    if version != VERSION {
        return Err(format!("it has version {version} of the format, and this program writes {VERSION}"));
    }
    let length = u32::from_le_bytes(rest.array()?) as usize;
    let header = serde_json::from_slice(rest.take(length)?).map_err(|error| error.to_string())?;
    Ok((header, rest))
}

/// Batches that are read one after the other.
pub(super) struct Batches<'a> {
    content: &'a [u8],
    next: usize,
}

impl<'a> Batches<'a> {
    fn take(&mut self, length: usize) -> std::result::Result<&'a [u8], String> {
        let range: Range<usize> = self.next..self.next.checked_add(length).ok_or("a length that cannot be")?;
        self.next = range.end;
        self.content.get(range).ok_or_else(|| "it is cut short".to_string())
    }

    fn array<const N: usize>(&mut self) -> std::result::Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| "it is cut short".to_string())
    }

    /// As many as the header says.
    pub(super) fn read(&mut self, number: &Value) -> std::result::Result<Vec<RecordBatch>, String> {
        (0..number.as_u64().ok_or("a number of batches that is none")?).map(|_| self.batch()).collect()
    }

    fn batch(&mut self) -> std::result::Result<RecordBatch, String> {
        let length = u64::from_le_bytes(self.array()?);
        let bytes = self.take(usize::try_from(length).map_err(|error| error.to_string())?)?;
        let mut reader = StreamReader::try_new(bytes, None).map_err(|error| error.to_string())?;
        let batch = reader.next().ok_or("a batch that is not there")?;
        batch.map_err(|error| error.to_string())
    }
}
