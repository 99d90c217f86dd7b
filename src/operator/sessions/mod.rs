//! GROUP BY with session windows: rows of a key that are less than a gap apart are one session, whatever order they
//! come in.
//!
//! An open session is a slot of the running aggregates. A row that comes to one of its key extends it, one that comes
//! to two joins them, and any other row begins a new one. A session ends when the watermark has passed its last row by
//! the gap. A row is late if the session that it would be by itself has ended: that depends on its own partition alone,
//! while whether another session is still there for it to join would depend on how far other partitions have been read.
//! So that all rows in time find what they join, sessions wait for another gap before they come out and their slots are
//! used again, unless no row can be late.
//!
//! Under EMIT CHANGES a row gives the new values of its session, and withdraws what was told of the sessions that it has
//! changed the bounds of; or the rows of a batch or an interval do so together.
//! With ALLOWED LATENESS a session is told of when it ends, and again for each row that comes to it later.
//!
//! | file | what |
//! |---|---|
//! | `open.rs` | the sessions that are open, and where a row belongs |
//! | `bounds.rs` | the first and last time of a session |
//! | `lists.rs` | the sessions of each key |
//! | `by_start.rs` | those of keys that have many at once |
//! | `ends.rs` | when they end |
//! | `by_end.rs` | the order of those that have ended |
//! | `row_changes.rs` | what each row changes |
//! | `rows.rs` | the operator that gives each row its session, without a GROUP BY |
//! | `cold.rs`, `cold_rows.rs` | sessions of keys that are on disk, and those of rows |
//! | `told.rs` | what was told and what is to be told, where that is not each row's change at once |

mod bounds;
mod by_end;
mod by_start;
mod cold;
mod cold_rows;
mod ends;
mod lists;
mod open;
mod row_changes;
mod rows;
#[cfg(test)]
mod tests;
mod told;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::DiskManager;

use super::accumulators::{Joined, RunningAggregates, Slots};
use super::aggregate_spec::{AggregateSpec, Evaluated};
use super::changes::{ChangesSpec, Often, Ops, highest_batch, highest_of};
use super::key_values::KeyValues;
use super::keys::Keys;
use super::latest_rows::LatestRows;
use super::snapshot::{counters_batch, split_counters};
use super::sorted_aggregate::takes_arrival;
use super::{Counters, Missed, MissedRows, Operator, Stamp, WATERMARK_MAX, ticks};
use bounds::{Bounds, times};
use cold::ColdSessions;
use open::{Apart, Asks, OpenSessions, Placed, Session};
use row_changes::{SessionChanges, Told};
pub(crate) use rows::{SessionRows, SessionRowsSpec};
use told::ToldSessions;

/// Aggregates rows by session and key.
pub(crate) struct SessionAggregate {
    spec: Arc<AggregateSpec>,
    /// None for final values.
    changes: Option<ChangesSpec>,
    schema: SchemaRef,
    apart: Apart,
    state: State,
    missed: MissedRows,
}

/// All that changes while rows pass.
struct State {
    keys: Keys,
    values: KeyValues,
    sessions: OpenSessions,
    aggregates: RunningAggregates,
    latest: LatestRows,
    /// Where changes are not told row by row.
    told: Option<ToldSessions>,
    /// The highest event time so far, where changes are told by it.
    highest: Option<i64>,
    /// Keys whose sessions are on disk.
    cold: ColdSessions,
    has_ended: bool,
    counters: Counters,
}

impl State {
    fn try_new(spec: &AggregateSpec, apart: Apart, changes: Option<&ChangesSpec>) -> Result<Self> {
        let told = changes.filter(|changes| !matches!(changes.often, Often::EachRow)).map(|changes| {
            let at_end = matches!(changes.often, Often::AtClose { .. });
            ToldSessions::new(changes.ops, apart.gap, at_end)
        });
        Ok(Self {
            keys: Keys::new(spec),
            values: KeyValues::new(&spec.key_schema()),
            sessions: OpenSessions::new(apart),
            aggregates: RunningAggregates::try_new(spec)?,
            latest: LatestRows::default(),
            told,
            highest: None,
            cold: ColdSessions::default(),
            has_ended: false,
            counters: Counters::default(),
        })
    }
}

impl SessionAggregate {
    /// None for changes gives final values.
    ///
    /// # Errors
    /// Windows that are no sessions, and aggregates that DataFusion cannot make.
    pub(crate) fn try_new(spec: Arc<AggregateSpec>, changes: Option<ChangesSpec>) -> Result<Self> {
        let schema = changes.as_ref().map_or_else(|| Arc::clone(&spec.schema), |changes| changes.schema(&spec.schema));
        let apart = Apart::of(&spec)?;
        let state = State::try_new(&spec, apart, changes.as_ref())?;
        Ok(Self { spec, changes, schema, apart, state, missed: MissedRows::default() })
    }

    fn take(&mut self, batch: &RecordBatch, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut rows = self.spec.evaluate(batch)?;
        self.number(&mut rows);
        let Some(times) = &rows.starts else { return Err(internal_datafusion_err!("sessions without an event time")) };
        let state = &mut self.state;
        let known = state.keys.len();
        state.keys.intern(&rows.keys, rows.rows)?;
        state.values.learn(&state.keys.groups, state.keys.len(), &rows.keys)?;
        state.bring_back(&self.spec, known)?;
        let asks = match self.changes.as_ref().filter(|_| state.told.is_none()) {
            None => Asks::Nothing,
            Some(ChangesSpec { ops: Ops::None, .. }) => Asks::After,
            Some(_) => Asks::Both,
        };
        let keys = &state.keys;
        let placed = state.sessions.place(&keys.groups, keys.len(), times, watermark, asks);
        state.counters.used_rows += placed.rows.len() as u64;
        state.counters.late_rows += placed.late.len() as u64;
        for (row, window) in &placed.late {
            self.missed.add(*row, Missed::All, || Some(*window));
        }
        state.counters.null_time_rows += times.null_count() as u64;
        if let Some(told) = &mut state.told {
            let joined = placed.joins.iter().map(|join| &join.from.0);
            let touched = placed.slots.iter().chain(joined).map(|slot| state.sessions.session(*slot));
            told.note(touched, state.sessions.slots(), &mut state.aggregates)?;
        }
        self.update(&rows, &placed, output)?;
        self.state.sessions.release_joined();
        Ok(())
    }

    /// Numbers rows for the aggregates that put them in the order of their arrival.
    fn number(&self, rows: &mut Evaluated) {
        let first = self.state.counters.used_rows + self.state.counters.late_rows;
        for (aggregate, arguments) in self.spec.aggregates.iter().zip(&mut rows.arguments) {
            if takes_arrival(aggregate)
                && let Some(arrival) = arguments.last_mut()
            {
                *arrival = Arc::new(UInt64Array::from_iter_values(first..first + rows.rows as u64));
            }
        }
    }

    /// Takes placed rows.
    fn update(&mut self, rows: &Evaluated, placed: &Placed, output: &mut Vec<RecordBatch>) -> Result<()> {
        let total = placed.rows.len();
        if total == 0 {
            return Ok(());
        }
        let State { sessions, aggregates, latest, told, .. } = &mut self.state;
        let tells_rows = self.changes.as_ref().filter(|_| told.is_none());
        // Where nobody sees the order, what rows have brought together is joined when all of them are in.
        let in_order = tells_rows.is_some() || self.spec.is_ordered;
        let joined = placed.joins.iter().map(|join| Joined {
            at: if in_order { join.at } else { total },
            into: join.into.0,
            from: join.from.0,
        });
        let joins: Vec<Joined> = joined.collect();
        let slots = Slots { rows: &placed.slots, total: sessions.slots(), joins: &joins };
        let rows = rows.select(placed.rows.clone())?;
        let Some(spec) = tells_rows else {
            if let Some(told) = told {
                joins.iter().for_each(|join| told.join(join.from, sessions.session(join.into).key));
            }
            return aggregates.accumulate(slots, &rows);
        };
        let told = SessionChanges::new(spec.ops, placed, latest).tell(&rows, slots, aggregates, sessions)?;
        self.give(told, output)
    }

    /// Gives rows of changes.
    fn give(&self, told: Told, output: &mut Vec<RecordBatch>) -> Result<()> {
        let Some(spec) = &self.changes else { return Ok(()) };
        let keys = self.state.values.columns(&told.keys)?;
        let rows = self.rows(&told.bounds, [keys, told.values].concat())?;
        output.push(spec.output(&self.schema, &told.ops, rows)?);
        Ok(())
    }

    /// Tells what is due now that the watermark has come to `reached`, and with the last one all that has changed.
    fn tell(&mut self, reached: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        let State { told, sessions, aggregates, .. } = &mut self.state;
        let Some(told) = told else { return Ok(()) };
        let due = sessions.sorted(told.due(reached, sessions));
        match told.tell(&due, reached, aggregates)? {
            Some(told) => self.give(told, output),
            None => Ok(()),
        }
    }

    /// The watermark that ends all corrections.
    fn later(&self, watermark: i64) -> i64 {
        match self.changes.as_ref().map(|changes| &changes.often) {
            Some(Often::AtClose { lateness }) if watermark != WATERMARK_MAX => watermark.saturating_sub(*lateness),
            _ => watermark,
        }
    }

    /// The runs of a batch's rows between which changes are to be told.
    fn runs(&mut self, batch: &RecordBatch, watermark: i64) -> Result<Vec<Range<usize>>> {
        let whole = || std::iter::once(0..batch.num_rows()).collect();
        match (&self.changes, &self.spec.window) {
            (Some(ChangesSpec { often: Often::AtClose { .. }, .. }), Some(window)) => {
                let times = ticks(&window.start.evaluate(batch)?.into_array(batch.num_rows())?)?;
                // Only rows behind the watermark come to sessions that have ended, each of which tells what it changes.
                let is_behind = times.iter().flatten().any(|time| time < watermark);
                Ok(if is_behind { (0..batch.num_rows()).map(|row| row..row + 1).collect() } else { whole() })
            }
            (Some(changes), _) => changes.runs(batch, &mut self.state.highest),
            (None, _) => Ok(whole()),
        }
    }

    /// Rows of sessions with these bounds.
    fn rows(&self, bounds: &[Bounds], columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        let ends = times(bounds, |bounds| bounds.last.saturating_add(self.apart.gap));
        let times = [times(bounds, |bounds| bounds.start), ends];
        let columns = times.into_iter().map(|times| Arc::new(times) as ArrayRef).chain(columns);
        let columns = columns.zip(self.spec.schema.fields()).map(|(column, field)| {
            let same = column.data_type() == field.data_type();
            if same { Ok(column) } else { Ok(cast(&column, field.data_type())?) }
        });
        let options = RecordBatchOptions::new().with_row_count(Some(bounds.len()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.spec.schema), columns, &options)?)
    }

    /// Ends the sessions that the watermark has passed, earliest first, and before them those that are on disk.
    fn close(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        self.close_cold(watermark, output)?;
        let closed = self.state.sessions.close(watermark);
        if closed.is_empty() {
            return Ok(());
        }
        let state = &mut self.state;
        let slots: Vec<usize> = closed.iter().map(|session| session.slot).collect();
        state.counters.windows_closed += closed.iter().filter(|session| session.bounds.has_time()).count() as u64;
        if let Some(told) = &mut state.told {
            let untold: Vec<Session> = closed.iter().filter(|session| told.is_untold(session.slot)).copied().collect();
            let changes = told.tell(&untold, WATERMARK_MAX, &mut state.aggregates)?;
            slots.iter().for_each(|slot| told.forget(*slot));
            changes.map_or(Ok(()), |changes| self.give(changes, output))?;
            self.state.aggregates.clear(&slots)?;
        } else if self.changes.is_none() {
            let keys: Vec<usize> = closed.iter().map(|session| session.key).collect();
            let mut columns = state.values.columns(&keys)?;
            columns.extend(state.aggregates.take(&slots)?);
            let bounds: Vec<Bounds> = closed.iter().map(|session| session.bounds).collect();
            output.push(self.rows(&bounds, columns)?);
        } else {
            state.aggregates.clear(&slots)?;
        }
        self.forget_keys()
    }

    /// What is in memory of some sessions, in order, and all that is not of sessions.
    fn saved(&mut self, sessions: &[Session]) -> Result<Vec<RecordBatch>> {
        let state = &mut self.state;
        let mut snapshot =
            vec![counters_batch(&state.counters)?, state.rows_of(sessions)?, highest_batch(state.highest)?];
        if let Some(told) = &state.told {
            snapshot.extend(told.state(sessions)?);
        }
        Ok(snapshot)
    }

    /// Makes all that is in memory anew from its snapshot, which it gives: only keys that have sessions are numbered then.
    fn rebuild(&mut self) -> Result<Vec<RecordBatch>> {
        let open = self.state.sessions.in_order();
        let snapshot = self.saved(&open)?;
        self.restart(&snapshot, &open)?;
        Ok(snapshot)
    }

    /// Numbers the keys anew when most of them have no session any more.
    fn forget_keys(&mut self) -> Result<()> {
        let keys = self.state.keys.len();
        if keys > 1024 && keys > 4 * self.state.sessions.open() {
            self.rebuild()?;
        }
        Ok(())
    }
}

impl Operator for SessionAggregate {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn push(&mut self, batch: &RecordBatch, stamp: Stamp, output: &mut Vec<RecordBatch>) -> Result<()> {
        let Some(often) = self.changes.as_ref().map(|changes| changes.often.clone()) else {
            self.take(batch, stamp.watermark, output)?;
            return self.close(stamp.next_watermark, output);
        };
        let tells_at_end = matches!(often, Often::AtClose { .. });
        for (run, rows) in self.runs(batch, stamp.watermark)?.into_iter().enumerate() {
            if run > 0 && !tells_at_end {
                self.tell(WATERMARK_MAX, output)?;
            }
            self.missed.begin_at(rows.start);
            self.take(&batch.slice(rows.start, rows.len()), self.later(stamp.watermark), output)?;
            if tells_at_end {
                self.tell(stamp.watermark, output)?;
            }
        }
        match often {
            Often::EachBatch => self.tell(WATERMARK_MAX, output)?,
            Often::AtClose { .. } => self.tell(stamp.next_watermark, output)?,
            Often::EachRow | Often::Every { .. } => {}
        }
        self.close(self.later(stamp.next_watermark), output)
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

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let mut snapshot = self.rebuild()?;
        snapshot.extend(self.state.cold.batches().collect::<Result<Vec<_>>>()?);
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let wrong = || internal_datafusion_err!("a snapshot of another session window");
        let (counters, rest) = split_counters(snapshot)?;
        let [sessions, highest, told @ ..] = rest else { return Err(wrong()) };
        let highest = highest_of(highest);
        let mut state = State { counters, highest, ..State::try_new(&self.spec, self.apart, self.changes.as_ref())? };
        state.put(&self.spec, sessions)?;
        match &mut state.told {
            Some(known) => known.restore(&state.sessions.in_order(), told)?,
            None => told.iter().try_for_each(|cold| state.put(&self.spec, cold))?,
        }
        self.state = state;
        Ok(())
    }

    fn memory(&self) -> usize {
        let State { keys, values, sessions, aggregates, latest, told, cold, .. } = &self.state;
        let told = told.as_ref().map_or(0, ToldSessions::size);
        keys.size() + values.size() + sessions.size() + latest.size() + told + aggregates.size() + cold.size()
    }

    fn can_spill(&self) -> bool {
        self.changes.is_none() && !self.spec.keys.is_empty()
    }

    fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        if self.can_spill() { self.spill_sessions(disk) } else { Ok(0) }
    }

    fn counters(&self) -> Counters {
        let open = self.state.sessions.open() + self.state.cold.len();
        Counters { windows_open: open as u64, ..self.state.counters }
    }

    fn missed(&mut self) -> &mut MissedRows {
        &mut self.missed
    }
}
