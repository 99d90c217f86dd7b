//! Rows that are held, each by a number of its own until nobody needs it any more.
//!
//! Rows come in chunks of columns. A chunk whose last row is let go is freed at once, and now and then the rows that
//! are left of many chunks are copied into one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::interleave;
use arrow::datatypes::DataType;
use datafusion::common::Result;

/// Rows of a batch that leaves.
pub(super) const RELEASED_ROWS_MAX: usize = 16_384;
/// Chunks before it is asked whether copying pays.
const CHUNKS_FEW: usize = 64;
/// Chunks in any case.
const CHUNKS_MAX: usize = 1024;

/// A row's number.
pub(super) type RowId = u32;

/// Where a row is, and how many need it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    chunk: u32,
    row: u32,
    holders: u32,
}

#[derive(Default)]
struct Chunk {
    columns: Vec<ArrayRef>,
    held: usize,
    bytes: usize,
}

/// The rows.
#[derive(Default)]
pub(super) struct Pool {
    chunks: Vec<Chunk>,
    entries: Vec<Entry>,
    free: Vec<RowId>,
    /// Rows of all chunks, those that nobody holds included.
    chunk_rows: usize,
    bytes: usize,
}

impl Pool {
    /// Takes rows in, each with so many holders.
    pub(super) fn add(&mut self, columns: Vec<ArrayRef>, rows: usize, holders: u32) -> Vec<RowId> {
        let chunk = self.chunks.len() as u32;
        self.add_chunk(columns, rows);
        let ids = (0..rows as u32).map(|row| {
            let entry = Entry { chunk, row, holders };
            match self.free.pop() {
                Some(id) => {
                    self.entries[id as usize] = entry;
                    id
                }
                None => {
                    self.entries.push(entry);
                    self.entries.len() as RowId - 1
                }
            }
        });
        ids.collect()
    }

    fn add_chunk(&mut self, columns: Vec<ArrayRef>, rows: usize) {
        let bytes = columns.iter().map(bytes_of).sum();
        self.bytes += bytes;
        self.chunk_rows += rows;
        self.chunks.push(Chunk { columns, held: rows, bytes });
    }

    /// Numbers given out so far, let go or not.
    pub(super) fn ids(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn retain(&mut self, id: RowId) {
        self.entries[id as usize].holders += 1;
    }

    /// One holder less.
    pub(super) fn release(&mut self, id: RowId) {
        let entry = &mut self.entries[id as usize];
        entry.holders -= 1;
        if entry.holders > 0 {
            return;
        }
        self.free.push(id);
        let chunk = &mut self.chunks[entry.chunk as usize];
        chunk.held -= 1;
        if chunk.held == 0 {
            self.chunk_rows -= chunk.columns.first().map_or(0, |column| column.len());
            self.bytes -= chunk.bytes;
            *chunk = Chunk::default();
        }
    }

    /// The chunk and row of a row.
    pub(super) fn place(&self, id: RowId) -> (usize, usize) {
        let entry = self.entries[id as usize];
        (entry.chunk as usize, entry.row as usize)
    }

    /// One column in every chunk; none where a chunk is gone.
    pub(super) fn column(&self, column: usize) -> impl Iterator<Item = Option<&ArrayRef>> {
        self.chunks.iter().map(move |chunk| chunk.columns.get(column))
    }

    /// One column of some rows, of which there is one at least.
    pub(super) fn gather(&self, ids: &[RowId], column: usize) -> Result<ArrayRef> {
        self.gather_or(&ids.iter().copied().map(Some).collect::<Vec<_>>(), column, None)
    }

    /// The same with `default`, an array of one value, where there is no row.
    pub(super) fn gather_or(
        &self,
        ids: &[Option<RowId>],
        column: usize,
        default: Option<&ArrayRef>,
    ) -> Result<ArrayRef> {
        const UNUSED: usize = usize::MAX;
        let mut used = vec![UNUSED; self.chunks.len()];
        let mut arrays: Vec<&dyn Array> = default.iter().map(|default| default.as_ref() as _).collect();
        let places: Vec<(usize, usize)> = ids
            .iter()
            .map(|id| {
                let Some(id) = id else { return (0, 0) };
                let (chunk, row) = self.place(*id);
                if used[chunk] == UNUSED {
                    used[chunk] = arrays.len();
                    arrays.push(self.chunks[chunk].columns[column].as_ref());
                }
                (used[chunk], row)
            })
            .collect();
        Ok(interleave(&arrays, &places)?)
    }

    /// Rows that somebody holds, in the order of their numbers.
    pub(super) fn held(&self) -> Vec<RowId> {
        let held = |(entry, id): (&Entry, RowId)| (entry.holders > 0).then_some(id);
        self.entries.iter().zip(0..).filter_map(held).collect()
    }

    /// Copies the rows that are held into one chunk, when that frees half of the rows or chunks are very many.
    pub(super) fn compact(&mut self) -> Result<()> {
        let held: usize = self.entries.len() - self.free.len();
        let pays = self.chunk_rows >= 2 * held || self.chunks.len() >= CHUNKS_MAX;
        if self.chunks.len() < CHUNKS_FEW || !pays {
            return Ok(());
        }
        let ids = self.held();
        let width = self.chunks.iter().map(|chunk| chunk.columns.len()).max().unwrap_or(0);
        let columns = match ids.is_empty() {
            true => vec![],
            false => {
                let column = |column| Ok(array_without_slack(&self.gather(&ids, column)?));
                (0..width).map(column).collect::<Result<Vec<_>>>()?
            }
        };
        (self.chunks, self.chunk_rows, self.bytes) = (vec![], 0, 0);
        for (id, row) in ids.iter().zip(0..) {
            let entry = &mut self.entries[*id as usize];
            (entry.chunk, entry.row) = (0, row);
        }
        if !ids.is_empty() {
            self.add_chunk(columns, ids.len());
        }
        Ok(())
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        self.bytes
            + self.entries.capacity() * size_of::<Entry>()
            + self.free.capacity() * size_of::<RowId>()
            + self.chunks.capacity() * size_of::<Chunk>()
    }
}

/// Bytes of an array's own values, where it shares buffers with others.
pub(super) fn bytes_of(array: &ArrayRef) -> usize {
    let outside = match array.data_type() {
        DataType::Utf8View => array.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => array.as_binary_view().total_buffer_bytes_used(),
        _ => 0,
    };
    array.to_data().get_slice_memory_size().map_or_else(|_| array.get_array_memory_size(), |bytes| bytes + outside)
}

/// The same array without the texts that it no longer points at: a copied view still holds all of its buffer.
pub(super) fn array_without_slack(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        _ => Arc::clone(array),
    }
}
