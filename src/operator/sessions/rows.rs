//! Rows with the bounds of their sessions: what a session table function gives, when the session has ended.
//!
//! Rows are held in a pool; those of a session are a chain, so that joining sessions joins their chains.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::physical_expr::PhysicalExpr;

use super::open::{Apart, Asks, OpenSessions, Session};
use crate::operator::aggregate_spec::{AggregateSpec, Derived, WindowSpec};
use crate::operator::keys::Keys;
use crate::operator::pool::{Pool, RELEASED_ROWS_MAX, RowId};
use crate::operator::snapshot::{counters_batch, split_counters};
use crate::operator::{Counters, Missed, MissedRows, Operator, Stamp, WATERMARK_MAX, WATERMARK_MIN, WindowShape};

/// The sessions of rows. Output: the input's columns, then start and end of the row's session.
#[derive(Debug)]
pub(crate) struct SessionRowsSpec {
    /// The event time, the gap, and what sessions go by; no aggregates.
    groups: AggregateSpec,
    apart: Apart,
    input_schema: SchemaRef,
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
    spec: Arc<SessionRowsSpec>,
    state: State,
    missed: MissedRows,
}

/// Where a row came from: data partition, and place among the pipeline's rows.
type Arrival = (u64, u64);

const NONE: RowId = RowId::MAX;

/// All that changes while rows pass.
struct State {
    keys: Keys,
    sessions: OpenSessions,
    rows: Pool,
    /// By row: the next one of its session.
    next: Vec<RowId>,
    arrivals: Vec<Arrival>,
    /// By slot: the first and last row of a session's chain.
    chains: Vec<(RowId, RowId)>,
    counters: Counters,
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
    fn chain(&self, slot: usize) -> impl Iterator<Item = RowId> {
        let after = |row: RowId| (row != NONE).then_some(row);
        std::iter::successors(after(self.chains[slot].0), move |row| after(self.next[*row as usize]))
    }
}

impl SessionRows {
    pub(crate) fn new(spec: Arc<SessionRowsSpec>) -> Self {
        Self { state: State::new(&spec), spec, missed: MissedRows::default() }
    }

    fn take(&mut self, batch: &RecordBatch, watermark: i64, arrival: impl Fn(u32) -> Arrival) -> Result<()> {
        let rows = self.spec.groups.evaluate(batch)?;
        let times = rows.starts.ok_or_else(|| internal_datafusion_err!("sessions without an event time"))?;
        let state = &mut self.state;
        state.keys.intern(&rows.keys, rows.rows)?;
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
    fn close(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
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
            let snapshot = self.snapshot()?;
            self.restore(&snapshot)?;
        }
        Ok(())
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
        self.close(WATERMARK_MAX, output)
    }

    /// The counters, the rows that are held, and where they came from: their sessions follow from them.
    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let state = &self.state;
        let mut ids = state.rows.held();
        ids.sort_unstable_by_key(|id| state.arrivals[*id as usize].1);
        let arrival = |part: fn(&Arrival) -> u64| {
            let values = ids.iter().map(|id| part(&state.arrivals[*id as usize]));
            Arc::new(UInt64Array::from_iter_values(values)) as ArrayRef
        };
        let fields = ["partition", "row"].map(|name| Field::new(name, DataType::UInt64, false));
        let arrivals = vec![arrival(|arrival| arrival.0), arrival(|arrival| arrival.1)];
        let arrivals = RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), arrivals)?;
        let rows = match ids.is_empty() {
            true => RecordBatch::new_empty(Arc::clone(&self.spec.input_schema)),
            false => {
                let column = |column| state.rows.gather(&ids, column);
                let columns = (0..self.spec.input_schema.fields().len()).map(column).collect::<Result<Vec<_>>>()?;
                RecordBatch::try_new(Arc::clone(&self.spec.input_schema), columns)?
            }
        };
        Ok(vec![counters_batch(&state.counters)?, arrivals, rows])
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let wrong = || internal_datafusion_err!("a snapshot of other sessions");
        let (counters, parts) = split_counters(snapshot)?;
        let [arrivals, rows] = parts else { return Err(wrong()) };
        let arrivals = match arrivals.columns() {
            [partitions, numbers] => partitions.as_primitive_opt::<UInt64Type>().zip(numbers.as_primitive_opt()),
            _ => None,
        };
        let (partitions, numbers) = arrivals.ok_or_else(wrong)?;
        let numbers: &UInt64Array = numbers;
        self.state = State::new(&self.spec);
        if rows.num_rows() > 0 {
            let arrival = |row: u32| (partitions.value(row as usize), numbers.value(row as usize));
            self.take(rows, WATERMARK_MIN, arrival)?;
        }
        self.state.counters = counters;
        Ok(())
    }

    fn memory(&self) -> usize {
        let State { keys, sessions, rows, next, arrivals, chains, .. } = &self.state;
        keys.size()
            + sessions.size()
            + rows.size()
            + next.capacity() * size_of::<RowId>()
            + arrivals.capacity() * size_of::<Arrival>()
            + chains.capacity() * size_of::<(RowId, RowId)>()
    }

    fn counters(&self) -> Counters {
        Counters { windows_open: self.state.sessions.open() as u64, ..self.state.counters }
    }

    fn missed(&mut self) -> &mut MissedRows {
        &mut self.missed
    }
}
