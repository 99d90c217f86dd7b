//! Keys of OVER that are on disk.
//!
//! ```text
//!   row ─▶ key in memory? ─ yes ─▶ its state
//!                │ no                 ▲
//!                └─▶ key on disk? ─ yes ─▶ comes back
//! ```
//!
//! A key on disk is a row: its columns, the state of each function, and what is held of it. It is nowhere in memory then: the
//! keys that stay are numbered anew, and all that goes by their numbers is made anew with them, so that the room of those
//! that have gone is free. A key that is new in memory may be on disk, so it is looked for there before its first
//! row is answered. At the end, rows of keys on disk that have waited for later ones are answered some keys at a time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_arrays;
use arrow::datatypes::{Field, Int64Type, Schema};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::DiskManager;

use super::{RowsWindow, fresh_held, rows_state};
use crate::operator::WATERMARK_MAX;
use crate::operator::spill::{ColdRows, Warmth, first_rows, hashes_of};

/// The keys of a partitioning that are on disk, and which of the others are likely to go there.
#[derive(Default)]
pub(super) struct ColdKeys {
    rows: ColdRows,
    warmth: Warmth,
}

impl ColdKeys {
    /// Bytes held in memory.
    pub(super) fn size(&self) -> usize {
        self.rows.size() + self.warmth.size()
    }
}

impl RowsWindow {
    /// Whether keys of a partitioning can go to disk.
    pub(super) fn can_go(&self, index: usize) -> bool {
        self.partitions[index].can_spill() && self.held.can_spill(index)
    }

    /// Brings the colder half of a partitioning's keys to disk, of those that can go; how many bytes they are there.
    pub(super) fn spill_keys(&mut self, index: usize, disk: &Arc<DiskManager>) -> Result<u64> {
        if !self.can_go(index) {
            return Ok(0);
        }
        let may_go = self.held.may_go(index, self.partitions[index].len());
        let going = (0..may_go.len()).filter(|group| may_go[*group]).collect();
        let going = self.cold[index].warmth.coldest(going);
        if going.is_empty() {
            return Ok(0);
        }
        let mut stays = vec![true; may_go.len()];
        going.iter().for_each(|group| stays[*group] = false);
        let staying: Vec<usize> = (0..stays.len()).filter(|group| stays[*group]).collect();
        let keys = self.partitions[index].take_keys()?;
        let going_keys = taken(&keys, &going)?;
        let hashes = hashes_of(&going_keys, going.len())?;
        let rows = self.take_out(index, going_keys, &going)?;
        let bytes = self.cold[index].rows.put(disk, hashes, vec![], &rows)?;
        self.cold[index].warmth.watch();
        self.keep(index, &taken(&keys, &staying)?, &staying)?;
        Ok(bytes)
    }

    /// Keys with all that is known of them, a row for each. What is held of them is no more.
    fn take_out(&mut self, index: usize, keys: Vec<ArrayRef>, groups: &[usize]) -> Result<RecordBatch> {
        let mut columns = keys;
        for function in self.functions.iter_mut().filter(|function| function.partitioning == index) {
            columns.push(function.state.rows_of(groups)?);
        }
        columns.extend(self.held.take_out(index, groups)?);
        batch_of(columns)
    }

    /// Makes all anew that goes by the numbers of a partitioning's keys: of these, in that order.
    fn keep(&mut self, index: usize, keys: &[ArrayRef], groups: &[usize]) -> Result<()> {
        let numbers: Vec<usize> = (0..groups.len()).collect();
        for function in self.functions.iter_mut().filter(|function| function.partitioning == index) {
            let rows = function.state.rows_of(groups)?;
            let fresh = rows_state(&self.spec.functions[function.index], &self.spec)?;
            function.state = fresh.ok_or_else(|| internal_datafusion_err!("a function of another kind"))?;
            function.state.put(&numbers, numbers.len(), &rows)?;
        }
        if self.held.holds(index) {
            let snapshot = self.held.snapshot(Some(groups))?;
            self.held = fresh_held(&self.spec, &self.partitions, &self.functions)?;
            self.held.restore(&snapshot)?;
        }
        if !groups.is_empty() {
            self.partitions[index].put_keys(keys)?;
        }
        self.cold[index].warmth.keep(groups);
        Ok(())
    }

    /// The keys of rows that have been numbered, those from `known` on for the first time: what is on disk of them comes back.
    pub(super) fn bring_back(&mut self, index: usize, known: usize, keys: &[ArrayRef]) -> Result<()> {
        let (partitioning, cold) = (&self.partitions[index], &mut self.cold[index]);
        let total = partitioning.len();
        if total > known && !cold.rows.is_empty() {
            let first = first_rows(&partitioning.groups, known);
            let hashes = hashes_of(&take_arrays(keys, &UInt32Array::from(first), None)?, total - known)?;
            if let Some(rows) = cold.rows.take(&hashes)? {
                self.put_back(index, &rows)?;
            }
        }
        let partitioning = &self.partitions[index];
        self.cold[index].warmth.touch(&partitioning.groups, partitioning.len());
        Ok(())
    }

    /// Puts keys with all that is known of them into memory.
    fn put_back(&mut self, index: usize, rows: &RecordBatch) -> Result<()> {
        let wrong = || internal_datafusion_err!("the state of other OVER columns");
        let width = self.partitions[index].exprs.len();
        let (keys, states) = rows.columns().split_at_checked(width).ok_or_else(wrong)?;
        let groups = self.partitions[index].put_keys(keys)?;
        let (total, mut states) = (self.partitions[index].len(), states.iter());
        for function in self.functions.iter_mut().filter(|function| function.partitioning == index) {
            function.state.put(&groups, total, states.next().ok_or_else(wrong)?)?;
        }
        match self.held.holds(index) {
            true => self.held.put(index, &groups, total, states.next().ok_or_else(wrong)?),
            false => Ok(()),
        }
    }

    /// After the end, with nothing in memory that waits: answers rows of some keys on disk. Whether there were any.
    pub(super) fn answer_cold(&mut self, output: &mut Vec<RecordBatch>) -> Result<bool> {
        for index in 0..self.partitions.len() {
            if !self.held.holds(index) || !self.held.waits_for_rows() {
                continue;
            }
            if let Some(rows) = self.cold[index].rows.take_some()? {
                self.partitions[index].take_keys()?;
                self.keep(index, &[], &[])?;
                self.put_back(index, &rows)?;
                for answered in self.held.answer(WATERMARK_MAX)? {
                    output.push(self.complete(answered.columns, answered.values)?);
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds what is on disk to a snapshot: how many batches of each partitioning there are, and these.
    pub(super) fn save_cold(&self, snapshot: &mut Vec<RecordBatch>) -> Result<()> {
        let (mut counts, mut batches) = (vec![], vec![]);
        for cold in &self.cold {
            let before = batches.len();
            for rows in cold.rows.batches() {
                batches.push(rows?);
            }
            counts.push((batches.len() - before) as i64);
        }
        snapshot.push(batch_of(vec![Arc::new(Int64Array::from(counts))])?);
        snapshot.append(&mut batches);
        Ok(())
    }

    /// Puts that back, into memory.
    pub(super) fn restore_cold(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let wrong = || internal_datafusion_err!("a snapshot of other OVER columns");
        let (counts, mut batches) = snapshot.split_first().ok_or_else(wrong)?;
        let counts = counts.columns().first().and_then(|counts| counts.as_primitive_opt::<Int64Type>());
        for (index, count) in counts.ok_or_else(wrong)?.values().iter().enumerate().take(self.partitions.len()) {
            let (own, others) = batches.split_at_checked(*count as usize).ok_or_else(wrong)?;
            own.iter().try_for_each(|rows| self.put_back(index, rows))?;
            batches = others;
        }
        Ok(())
    }
}

fn taken(keys: &[ArrayRef], groups: &[usize]) -> Result<Vec<ArrayRef>> {
    let rows = UInt32Array::from_iter_values(groups.iter().map(|group| *group as u32));
    Ok(take_arrays(keys, &rows, None)?)
}

/// A batch of columns whose names are of no account.
pub(super) fn batch_of(columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let field =
        |(index, column): (usize, &ArrayRef)| Field::new(format!("column_{index}"), column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>());
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}
