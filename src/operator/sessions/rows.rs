//! Rows with the bounds of their sessions: what a session table function gives, when the session has ended.
//!
//! Rows are held in a pool; those of a session are a chain, so that joining sessions joins their chains.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, UInt64Array, new_empty_array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::DiskManager;
use datafusion::physical_expr::PhysicalExpr;

use super::cold_rows::ColdSessionRows;
use super::open::{Apart, Asks, OpenSessions, Session};
use crate::operator::aggregate_spec::{AggregateSpec, Derived, Evaluated, WindowSpec};
use crate::operator::keys::Keys;
use crate::operator::pool::{Pool, RELEASED_ROWS_MAX, RowId};
use crate::operator::snapshot::{counters_batch, split_counters};
use crate::operator::spill::first_rows;
use crate::operator::{Counters, Missed, MissedRows, Operator, Stamp, WATERMARK_MAX, WATERMARK_MIN, WindowShape};

/// The sessions of rows. Output: the input's columns, then start and end of the row's session.
#[derive(Debug)]
pub(crate) struct SessionRowsSpec {
    /// The event time, the gap, and what sessions go by; no aggregates.
    pub(super) groups: AggregateSpec,
    apart: Apart,
    pub(super) input_schema: SchemaRef,
    pub(crate) schema: SchemaRef,
}

impl SessionRowsSpec {
    /// What makes sessions, as a GROUP BY without aggregates.
    pub(crate) fn groups(&self) -> &AggregateSpec {
        &self.groups
    }

    /// Sessions of rows of `input` by their times and keys.
    ///
    /// # Errors
    /// Windows that are no sessions, and keys that have no type over this input.
    pub(crate) fn try_new(
        time: Arc<dyn PhysicalExpr>,
        shape: WindowShape,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        input: &SchemaRef,
        schema: SchemaRef,
    ) -> Result<Self> {
        let mut fields: Vec<_> = schema.fields().iter().skip(input.fields().len()).cloned().collect();
        let mut named = vec![];
        for (index, key) in keys.into_iter().enumerate() {
            let name = format!("key{index}");
            fields.push(Arc::new(Field::new(&name, key.data_type(input)?, true)));
            named.push((key, name));
        }
        let groups = AggregateSpec {
            window: Some(WindowSpec { start: time, shape }),
            keys: named,
            aggregates: vec![],
            filters: vec![],
            schema: Arc::new(Schema::new(fields)),
            is_ordered: false,
            is_numbered: false,
            totals: vec![],
            ttl: None,
            derived: Derived::default(),
        };
        let apart = Apart::of(&groups)?;
        Ok(Self { groups, apart, input_schema: Arc::clone(input), schema })
    }
}

impl fmt::Display for SessionRowsSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.groups.keys.iter().map(|(key, _)| key.to_string()).collect();
        if let Some(window) = &self.groups.window {
            write!(f, "window={} {}, ", window.start, window.shape)?;
        }
        write!(f, "by=[{}]", keys.join(", "))
    }
}

/// Gives rows their sessions.
pub(crate) struct SessionRows {
    pub(super) spec: Arc<SessionRowsSpec>,
    pub(super) state: State,
    missed: MissedRows,
}

/// Where a row came from: data partition, and place among the pipeline's rows.
type Arrival = (u64, u64);

/// Columns of a row that say so.
const ARRIVAL_COLUMNS: usize = 2;

const NONE: RowId = RowId::MAX;

/// All that changes while rows pass.
pub(super) struct State {
    pub(super) keys: Keys,
    pub(super) sessions: OpenSessions,
    rows: Pool,
    /// By row: the next one of its session.
    next: Vec<RowId>,
    arrivals: Vec<Arrival>,
    /// By slot: the first and last row of a session's chain.
    chains: Vec<(RowId, RowId)>,
    pub(super) cold: ColdSessionRows,
    has_ended: bool,
    pub(super) counters: Counters,
}

impl State {
    fn new(spec: &SessionRowsSpec) -> Self {
        Self {
            keys: Keys::new(&spec.groups),
            sessions: OpenSessions::new(spec.apart),
            rows: Pool::default(),
            next: vec![],
            arrivals: vec![],
            chains: vec![],
            cold: ColdSessionRows::default(),
            has_ended: false,
            counters: Counters::default(),
        }
    }

    /// Adds chain `from` to the end of another.
    fn append(&mut self, slot: usize, from: (RowId, RowId)) {
        let (first, last) = &mut self.chains[slot];
        match *first {
            NONE => (*first, *last) = from,
            _ => {
                self.next[*last as usize] = from.0;
                *last = from.1;
            }
        }
    }

    /// The rows of a session.
    pub(super) fn chain(&self, slot: usize) -> impl Iterator<Item = RowId> {
        let after = |row: RowId| (row != NONE).then_some(row);
        std::iter::successors(after(self.chains[slot].0), move |row| after(self.next[*row as usize]))
    }
}

impl SessionRows {
    pub(crate) fn new(spec: Arc<SessionRowsSpec>) -> Self {
        Self { state: State::new(&spec), spec, missed: MissedRows::default() }
    }

    /// Takes rows, and before them what is on disk of their keys.
    fn take(&mut self, batch: &RecordBatch, watermark: i64, arrival: impl Fn(u32) -> Arrival) -> Result<()> {
        let rows = self.spec.groups.evaluate(batch)?;
        let known = self.state.keys.len();
        self.state.keys.intern(&rows.keys, rows.rows)?;
        if let Some(back) = self.state.take_cold(known, &rows.keys)? {
            self.put_back(&back)?;
            self.state.keys.intern(&rows.keys, rows.rows)?;
        }
        self.state.cold.touch(&self.state.keys);
        self.place(batch, rows, watermark, arrival)
    }

    /// Takes rows whose keys have been numbered.
    fn place(
        &mut self,
        batch: &RecordBatch,
        rows: Evaluated,
        watermark: i64,
        arrival: impl Fn(u32) -> Arrival,
    ) -> Result<()> {
        let times = rows.starts.ok_or_else(|| internal_datafusion_err!("sessions without an event time"))?;
        let state = &mut self.state;
        let placed = state.sessions.place(&state.keys.groups, state.keys.len(), &times, watermark, Asks::Nothing);
        state.counters.used_rows += placed.rows.len() as u64;
        state.counters.late_rows += placed.late.len() as u64;
        state.counters.null_time_rows += times.null_count() as u64;
        for (row, window) in &placed.late {
            self.missed.add(*row, Missed::All, || Some(*window));
        }
        let arrivals = placed.rows.iter().map(|row| arrival(*row));
        let arrivals: Vec<Arrival> = arrivals.collect();
        let kept = match placed.late.is_empty() {
            true => batch.clone(),
            false => take_record_batch(batch, &UInt32Array::from(placed.rows))?,
        };
        let ids = state.rows.add(kept.columns().to_vec(), kept.num_rows(), 1);
        state.next.resize(state.rows.ids(), NONE);
        state.arrivals.resize(state.rows.ids(), Arrival::default());
        state.chains.resize(state.sessions.slots(), (NONE, NONE));
        for ((id, slot), arrival) in ids.into_iter().zip(placed.slots).zip(arrivals) {
            state.next[id as usize] = NONE;
            state.arrivals[id as usize] = arrival;
            state.append(slot, (id, id));
        }
        for join in placed.joins {
            let chain = std::mem::replace(&mut state.chains[join.from.0], (NONE, NONE));
            state.append(join.into.0, chain);
        }
        state.sessions.release_joined();
        Ok(())
    }

    /// Gives the rows of the sessions that the watermark has passed: by end and start of the session, then by partition
    /// and place.
    pub(super) fn close(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        self.close_cold(watermark, output)?;
        let state = &mut self.state;
        let closed = state.sessions.close(watermark);
        if closed.is_empty() {
            return Ok(());
        }
        state.counters.windows_closed += closed.iter().filter(|session| session.bounds.has_time()).count() as u64;
        let of_session = |session: &Session| {
            // Those without a time come last.
            let end = session.bounds.end(self.spec.apart.gap);
            let row =
                |id: RowId| (!session.bounds.has_time(), end, session.bounds.start, state.arrivals[id as usize], id);
            state.chain(session.slot).map(row).collect::<Vec<_>>()
        };
        let mut rows: Vec<_> = closed.iter().flat_map(of_session).collect();
        rows.sort_unstable();
        for rows in rows.chunks(RELEASED_ROWS_MAX) {
            let ids: Vec<RowId> = rows.iter().map(|row| row.4).collect();
            let bounds = rows.iter().map(|(is_timeless, end, start, ..)| (!is_timeless).then_some((*start, *end)));
            output.push(self.rows(&ids, bounds)?);
        }
        let state = &mut self.state;
        rows.iter().for_each(|row| state.rows.release(row.4));
        closed.iter().for_each(|session| state.chains[session.slot] = (NONE, NONE));
        state.rows.compact()?;
        self.forget_keys()
    }

    /// Rows with these starts and ends of their sessions.
    fn rows(&self, ids: &[RowId], bounds: impl Iterator<Item = Option<(i64, i64)>> + Clone) -> Result<RecordBatch> {
        let input = self.spec.input_schema.fields().len();
        let columns = (0..input).map(|column| self.state.rows.gather(ids, column));
        let mut columns = columns.collect::<Result<Vec<_>>>()?;
        let starts = Int64Array::from_iter(bounds.clone().map(|bounds| bounds.map(|(start, _)| start)));
        let ends = Int64Array::from_iter(bounds.map(|bounds| bounds.map(|(_, end)| end)));
        for (times, field) in [starts, ends].iter().zip(&self.spec.schema.fields()[input..]) {
            columns.push(cast(times, field.data_type())?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.spec.schema), columns)?)
    }

    /// Numbers the keys anew when most of them have no session any more.
    fn forget_keys(&mut self) -> Result<()> {
        let keys = self.state.keys.len();
        if keys > 1024 && keys > 4 * self.state.sessions.open() {
            self.restart(&self.in_order())?;
        }
        Ok(())
    }

    /// All rows in memory, in the order in which they came.
    fn in_order(&self) -> Vec<RowId> {
        let mut ids = self.state.rows.held();
        ids.sort_unstable_by_key(|id| self.state.arrivals[*id as usize].1);
        ids
    }

    /// Rows after where they came from.
    pub(super) fn rows_of(&self, ids: &[RowId]) -> Result<RecordBatch> {
        let state = &self.state;
        let arrival = |part: fn(&Arrival) -> u64| {
            let values = ids.iter().map(|id| part(&state.arrivals[*id as usize]));
            Arc::new(UInt64Array::from_iter_values(values)) as ArrayRef
        };
        let mut columns = vec![arrival(|arrival| arrival.0), arrival(|arrival| arrival.1)];
        for (column, field) in self.spec.input_schema.fields().iter().enumerate() {
            columns.push(match ids.is_empty() {
                true => new_empty_array(field.data_type()),
                false => state.rows.gather(ids, column)?,
            });
        }
        let arrivals = ["partition", "row"].map(|name| Arc::new(Field::new(name, DataType::UInt64, false)));
        let fields = arrivals.iter().chain(self.spec.input_schema.fields()).cloned();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?)
    }

    /// Takes such rows in, as they had been taken before: nothing is counted, and none is late.
    pub(super) fn put(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let wrong = || internal_datafusion_err!("a snapshot of other sessions");
        let [partitions, numbers, columns @ ..] = rows.columns() else { return Err(wrong()) };
        let partitions = partitions.as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?;
        let numbers = numbers.as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?;
        let batch = RecordBatch::try_new(Arc::clone(&self.spec.input_schema), columns.to_vec())?;
        let rows = self.spec.groups.evaluate(&batch)?;
        let counters = self.state.counters;
        self.state.keys.intern(&rows.keys, rows.rows)?;
        let arrival = |row: u32| (partitions.value(row as usize), numbers.value(row as usize));
        self.place(&batch, rows, WATERMARK_MIN, arrival)?;
        self.state.counters = counters;
        Ok(())
    }

    /// Makes all that is in memory anew: of these rows, and with those that are on disk.
    pub(super) fn restart(&mut self, ids: &[RowId]) -> Result<()> {
        let rows = self.rows_of(ids)?;
        let State { mut cold, mut keys, counters, has_ended, .. } =
            std::mem::replace(&mut self.state, State::new(&self.spec));
        self.put(&rows)?;
        // Each had another number before.
        keys.intern(&self.keys_of(&rows)?, rows.num_rows())?;
        let first = first_rows(&self.state.keys.groups, 0);
        cold.keep(&first.into_iter().map(|row| keys.groups[row as usize]).collect::<Vec<_>>());
        self.state = State { cold, counters, has_ended, ..std::mem::replace(&mut self.state, State::new(&self.spec)) };
        Ok(())
    }

    /// The keys of such rows.
    pub(super) fn keys_of(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let columns = rows.columns()[ARRIVAL_COLUMNS..].to_vec();
        let batch = RecordBatch::try_new(Arc::clone(&self.spec.input_schema), columns)?;
        Ok(self.spec.groups.evaluate(&batch)?.keys)
    }
}

impl Operator for SessionRows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn push(&mut self, batch: &RecordBatch, stamp: Stamp, output: &mut Vec<RecordBatch>) -> Result<()> {
        if batch.num_rows() > 0 {
            let first = self.state.counters.used_rows + self.state.counters.late_rows;
            self.take(batch, stamp.watermark, |row| (stamp.partition as u64, first + u64::from(row)))?;
        }
        self.close(stamp.next_watermark, output)
    }

    fn finish(&mut self, output: &mut Vec<RecordBatch>) -> Result<()> {
        self.state.has_ended = true;
        self.close(WATERMARK_MAX, output)
    }

    fn more(&mut self, output: &mut Vec<RecordBatch>) -> Result<bool> {
        match self.state.has_ended {
            true => self.end_cold(output),
            false => Ok(false),
        }
    }

    /// The counters, the rows that are held, and where they came from: their sessions follow from them. Those on disk come last.
    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let mut snapshot = vec![counters_batch(&self.state.counters)?, self.rows_of(&self.in_order())?];
        snapshot.extend(self.state.cold.batches().collect::<Result<Vec<_>>>()?);
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let (counters, rows) = split_counters(snapshot)?;
        self.state = State::new(&self.spec);
        rows.iter().try_for_each(|rows| self.put(rows))?;
        self.state.counters = counters;
        Ok(())
    }

    fn memory(&self) -> usize {
        let State { keys, sessions, rows, next, arrivals, chains, cold, .. } = &self.state;
        keys.size()
            + cold.size()
            + sessions.size()
            + rows.size()
            + next.capacity() * size_of::<RowId>()
            + arrivals.capacity() * size_of::<Arrival>()
            + chains.capacity() * size_of::<(RowId, RowId)>()
    }

    fn can_spill(&self) -> bool {
        !self.spec.groups.keys.is_empty()
    }

    fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        if self.can_spill() { self.spill_rows(disk) } else { Ok(0) }
    }

    fn counters(&self) -> Counters {
        let open = self.state.sessions.open() + self.state.cold.sessions;
        Counters { windows_open: open as u64, ..self.state.counters }
    }

    fn missed(&mut self) -> &mut MissedRows {
        &mut self.missed
    }
}
