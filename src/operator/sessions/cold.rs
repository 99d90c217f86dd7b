//! Sessions that are on disk, in FINAL.
//!
//! A key goes with all of its sessions, each a row, so that a key in memory has none on disk: whichever of them a later row
//! comes to, or brings together, they are back before it. When they end is known in memory. One that ends on disk
//! is answered from there, without a place in memory.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, UInt64Type};
use datafusion::common::{HashSet, Result, internal_datafusion_err};
use datafusion::execution::DiskManager;

use super::bounds::{self, Bounds};
use super::open::Session;
use super::{SessionAggregate, State};
use crate::operator::accumulators::RunningAggregates;
use crate::operator::aggregate_spec::AggregateSpec;
use crate::operator::spill::{ColdRows, Warmth, hashes_of};
use crate::operator::{Operator, WATERMARK_MAX};

/// The columns of a session before those of its key and its values: first and last time, and in which order it began.
const COLUMNS: usize = 3;

/// Sessions that are on disk, and which keys are likely to follow.
#[derive(Default)]
pub(super) struct ColdSessions {
    rows: ColdRows,
    warmth: Warmth,
}

impl ColdSessions {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// All of them, which stay.
    pub(super) fn batches(&self) -> impl Iterator<Item = Result<RecordBatch>> {
        self.rows.batches()
    }

    /// Bytes held in memory.
    pub(super) fn size(&self) -> usize {
        self.rows.size() + self.warmth.size()
    }
}

/// Sessions as columns.
struct Columns<'a> {
    bounds: Vec<Bounds>,
    numbers: &'a UInt64Array,
    keys: &'a [ArrayRef],
    states: &'a [ArrayRef],
}

impl<'a> Columns<'a> {
    fn of(rows: &'a RecordBatch, spec: &AggregateSpec) -> Result<Self> {
        let wrong = || internal_datafusion_err!("the state of another session window");
        let (own, rest) = rows.columns().split_at_checked(COLUMNS).ok_or_else(wrong)?;
        let (keys, states) = rest.split_at_checked(spec.keys.len()).ok_or_else(wrong)?;
        let bounds = bounds::from_columns(&own[0], &own[1]).ok_or_else(wrong)?;
        let numbers = own[2].as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?;
        Ok(Self { bounds, numbers, keys, states })
    }
}

impl State {
    /// Sessions as rows.
    pub(super) fn rows_of(&mut self, sessions: &[Session]) -> Result<RecordBatch> {
        let bounds: Vec<Bounds> = sessions.iter().map(|session| session.bounds).collect();
        let mut columns = bounds::columns(&bounds);
        let numbers = sessions.iter().map(|session| self.sessions.number(session));
        columns.push(Arc::new(UInt64Array::from_iter_values(numbers)));
        columns.extend(self.values.columns(&sessions.iter().map(|session| session.key).collect::<Vec<_>>())?);
        let slots = UInt32Array::from_iter_values(sessions.iter().map(|session| session.slot as u32));
        for column in self.aggregates.state()? {
            columns.push(take(&column, &slots, None)?);
        }
        let field = |(index, column): (usize, &ArrayRef)| {
            Field::new(format!("column_{index}"), column.data_type().clone(), true)
        };
        let schema = Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>());
        Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
    }

    /// Puts sessions of such rows among the others. The keys of the batch at hand stay.
    pub(super) fn put(&mut self, spec: &AggregateSpec, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let Columns { bounds, numbers, keys, states } = Columns::of(rows, spec)?;
        let at_hand = std::mem::take(&mut self.keys.groups);
        self.keys.intern(keys, rows.num_rows())?;
        let groups = std::mem::replace(&mut self.keys.groups, at_hand);
        self.values.learn(&groups, self.keys.len(), keys)?;
        let slots = self.sessions.put(&groups, self.keys.len(), &bounds, numbers.values());
        self.aggregates.put(&slots, self.sessions.slots(), states).map(|_| ())
    }

    /// Rows have come to keys, those from `known` on for the first time: what is on disk of them comes back.
    pub(super) fn bring_back(&mut self, spec: &AggregateSpec, known: usize) -> Result<()> {
        let total = self.keys.len();
        if total > known && !self.cold.rows.is_empty() {
            let keys = self.values.columns(&(known..total).collect::<Vec<_>>())?;
            if let Some(rows) = self.cold.rows.take(&hashes_of(&keys, total - known)?)? {
                self.put(spec, &rows)?;
            }
        }
        self.cold.warmth.touch(&self.keys.groups, self.keys.len());
        Ok(())
    }
}

impl SessionAggregate {
    /// Brings the sessions of the colder half of keys to disk; how many bytes they are there.
    pub(super) fn spill_sessions(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        let state = &mut self.state;
        let (going, staying) = state.sessions.by_warmth(&state.cold.warmth);
        if going.is_empty() {
            return Ok(0);
        }
        let dues = going.iter().map(|session| state.sessions.leaves(session)).collect();
        let rows = state.rows_of(&going)?;
        let hashes = hashes_of(&rows.columns()[COLUMNS..COLUMNS + self.spec.keys.len()], rows.num_rows())?;
        let bytes = state.cold.rows.put(disk, hashes, dues, &rows)?;
        state.cold.warmth.watch();
        let snapshot = self.saved(&staying)?;
        self.restart(&snapshot, &staying)?;
        Ok(bytes)
    }

    /// Goes on from a snapshot of these sessions, and with those that are on disk.
    pub(super) fn restart(&mut self, snapshot: &[RecordBatch], sessions: &[Session]) -> Result<()> {
        let mut seen = HashSet::new();
        let order: Vec<usize> = sessions.iter().map(|session| session.key).filter(|key| seen.insert(*key)).collect();
        let (mut cold, began) = (std::mem::take(&mut self.state.cold), self.state.sessions.began());
        cold.warmth.keep(&order);
        let has_ended = self.state.has_ended;
        self.restore(snapshot)?;
        (self.state.cold, self.state.has_ended) = (cold, has_ended);
        self.state.sessions.begin_after(began);
        Ok(())
    }

    /// Answers the sessions on disk that the watermark has passed.
    pub(super) fn close_cold(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        if watermark == WATERMARK_MAX || self.state.cold.rows.is_empty() {
            return Ok(());
        }
        match self.state.cold.rows.take_due(watermark)? {
            Some(rows) => self.answer_rows(&rows, output),
            None => Ok(()),
        }
    }

    /// After the end: answers some of the sessions on disk. Whether there were any.
    pub(super) fn end_cold(&mut self, output: &mut Vec<RecordBatch>) -> Result<bool> {
        let Some(rows) = self.state.cold.rows.take_some()? else { return Ok(false) };
        self.answer_rows(&rows, output)?;
        Ok(true)
    }

    fn answer_rows(&mut self, rows: &RecordBatch, output: &mut Vec<RecordBatch>) -> Result<()> {
        let Columns { bounds, keys, states, .. } = Columns::of(rows, &self.spec)?;
        let slots: Vec<usize> = (0..bounds.len()).collect();
        let mut aggregates = RunningAggregates::try_new(&self.spec)?;
        aggregates.put(&slots, slots.len(), states)?;
        let columns = [keys.to_vec(), aggregates.values(&slots)?].concat();
        output.push(self.rows(&bounds, columns)?);
        self.state.counters.windows_closed += bounds.iter().filter(|bounds| bounds.has_time()).count() as u64;
        Ok(())
    }
}
