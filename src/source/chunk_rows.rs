//! The rows of a chunk that a sequence has opened, whether they are there or still to come, and where the next one is.

use std::sync::Arc;

use arrow::array::{BooleanArray, UInt64Array};
use datafusion::common::Result;

use super::live::{Came, LiveRows};
use super::pieces::{Chunk, TextStart};
use super::position::TextPosition;
use super::rows::Rows;

/// A chunk that is being read.
pub(super) struct OpenChunk {
    pub(super) chunk: Chunk,
    pub(super) name: Arc<str>,
    pub(super) rows: ChunkRows,
    /// The next row of the file, counted from 1.
    pub(super) next_row: u64,
    /// Whether a file's bytes are its text.
    pub(super) is_plain: bool,
    /// Rows whose event times have been seen.
    pub(super) seen: u64,
}

impl OpenChunk {
    /// Where the next row is, after so many chunks and rows.
    pub(super) fn position(&self, chunk: usize, rows: u64, highest: Option<i64>) -> Option<TextPosition> {
        let next = self.rows.next_row().filter(|_| self.is_plain)?;
        let file = match &self.rows {
            ChunkRows::Live(rows) => rows.identity(),
            ChunkRows::Found(_) => None,
        };
        Some(TextPosition { rows, chunk, next, seen: self.seen, highest, file })
    }
}

/// The rows of a chunk: there, or still to come.
pub(super) enum ChunkRows {
    Found(Rows),
    Live(LiveRows),
}

impl ChunkRows {
    pub(super) async fn next(&mut self, skipped_rows: &mut u64) -> Result<Came> {
        match self {
            Self::Found(rows) => Ok(rows.next(skipped_rows).await?.map_or(Came::End, Came::Rows)),
            Self::Live(rows) => rows.next(skipped_rows).await,
        }
    }

    pub(super) fn numbers(&self) -> Option<UInt64Array> {
        match self {
            Self::Found(rows) => rows.numbers(),
            Self::Live(rows) => rows.numbers(),
        }
    }

    fn next_row(&self) -> Option<TextStart> {
        match self {
            Self::Found(rows) => rows.next_row(),
            Self::Live(rows) => rows.next_row(),
        }
    }

    pub(super) fn own_rows(&self) -> Option<&BooleanArray> {
        match self {
            Self::Found(rows) => rows.own_rows(),
            Self::Live(_) => None,
        }
    }
}
