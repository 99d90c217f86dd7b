//! Rows of sessions that are on disk, where each row is given its session.
//!
//! A key goes with all of its rows, so that a key in memory has none on disk. What comes back is taken in as rows are that
//! come for the first time: which sessions they make follows from them. Rows whose session ends on disk are given from
//! there.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_arrays};
use datafusion::common::Result;
use datafusion::execution::DiskManager;

use super::rows::{SessionRows, State};
use crate::operator::keys::Keys;
use crate::operator::pool::RowId;
use crate::operator::spill::{ColdRows, Warmth, first_rows, hashes_of};
use crate::operator::{Operator, WATERMARK_MAX};

/// Rows on disk, and which keys are likely to follow.
#[derive(Default)]
pub(super) struct ColdSessionRows {
    rows: ColdRows,
    warmth: Warmth,
    /// How many sessions the rows make.
    pub(super) sessions: usize,
}

impl ColdSessionRows {
    /// Rows have come to the keys of a batch.
    pub(super) fn touch(&mut self, keys: &Keys) {
        self.warmth.touch(&keys.groups, keys.len());
    }

    /// Keys are numbered anew: these, in that order.
    pub(super) fn keep(&mut self, keys: &[usize]) {
        self.warmth.keep(keys);
    }

    /// All rows, which stay.
    pub(super) fn batches(&self) -> impl Iterator<Item = Result<RecordBatch>> {
        self.rows.batches()
    }

    /// Bytes held in memory.
    pub(super) fn size(&self) -> usize {
        self.rows.size() + self.warmth.size()
    }
}

impl State {
    /// Takes what is on disk of the keys of a batch, those from `known` on for the first time.
    pub(super) fn take_cold(&mut self, known: usize, keys: &[ArrayRef]) -> Result<Option<RecordBatch>> {
        if self.keys.len() == known || self.cold.rows.is_empty() {
            return Ok(None);
        }
        let first = UInt32Array::from(first_rows(&self.keys.groups, known));
        let new = take_arrays(keys, &first, None)?;
        self.cold.rows.take(&hashes_of(&new, self.keys.len() - known)?)
    }
}

impl SessionRows {
    /// Takes rows in that were on disk.
    pub(super) fn put_back(&mut self, rows: &RecordBatch) -> Result<()> {
        let open = self.state.sessions.open();
        self.put(rows)?;
        self.state.cold.sessions -= self.state.sessions.open() - open;
        Ok(())
    }

    /// Brings the rows of the colder half of keys to disk; how many bytes they are there.
    pub(super) fn spill_rows(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        let state = &mut self.state;
        let (going, staying) = state.sessions.by_warmth(&state.cold.warmth);
        if going.is_empty() {
            return Ok(0);
        }
        let (mut ids, mut dues) = (vec![], vec![]);
        for session in &going {
            ids.extend(state.chain(session.slot));
            dues.resize(ids.len(), state.sessions.leaves(session));
        }
        let rows = self.rows_of(&ids)?;
        let hashes = hashes_of(&self.keys_of(&rows)?, rows.num_rows())?;
        let cold = &mut self.state.cold;
        let bytes = cold.rows.put(disk, hashes, dues, &rows)?;
        cold.warmth.watch();
        cold.sessions += going.len();
        let staying: Vec<RowId> = staying.iter().flat_map(|session| self.state.chain(session.slot)).collect();
        self.restart(&staying)?;
        Ok(bytes)
    }

    /// Gives the rows on disk of the sessions that the watermark has passed.
    pub(super) fn close_cold(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        if watermark == WATERMARK_MAX || self.state.cold.rows.is_empty() {
            return Ok(());
        }
        match self.state.cold.rows.take_due(watermark)? {
            Some(rows) => self.give_rows(&rows, output),
            None => Ok(()),
        }
    }

    /// After the end: gives the rows on disk of some keys. Whether there were any.
    pub(super) fn end_cold(&mut self, output: &mut Vec<RecordBatch>) -> Result<bool> {
        let Some(rows) = self.state.cold.rows.take_some()? else { return Ok(false) };
        let hashes = hashes_of(&self.keys_of(&rows)?, rows.num_rows())?;
        let others = self.state.cold.rows.take(&hashes)?;
        let rows = concat_batches(&rows.schema(), std::iter::once(&rows).chain(&others))?;
        self.give_rows(&rows, output)?;
        Ok(true)
    }

    /// Gives rows of whole sessions, which no other row can come to.
    fn give_rows(&mut self, rows: &RecordBatch, output: &mut Vec<RecordBatch>) -> Result<()> {
        let mut apart = Self::new(Arc::clone(&self.spec));
        apart.put(rows)?;
        self.state.cold.sessions -= apart.state.sessions.open();
        apart.close(WATERMARK_MAX, output)?;
        self.state.counters.windows_closed += apart.counters().windows_closed;
        Ok(())
    }
}
