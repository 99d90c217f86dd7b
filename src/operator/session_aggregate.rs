//! GROUP BY with session windows: rows of a key that are less than a gap apart are one session, whatever order they
//! come in.
//!
//! An open session is a slot of the running aggregates. A row that comes to one of its key extends it, one that comes
//! to two joins them, and any other row begins a new one. A session ends when the watermark has passed its last row by
//! the gap; its slot is then used again. Under EMIT CHANGES a row gives the new values of its session, and withdraws
//! what was told of the sessions that it has changed the bounds of.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef};
use datafusion::common::{Result, internal_datafusion_err};

use super::accumulators::{RunningAggregate, running_aggregate};
use super::aggregate_spec::{AggregateSpec, Evaluated};
use super::changes::{ChangesSpec, Op, Ops};
use super::key_values::KeyValues;
use super::keys::Keys;
use super::latest_rows::LatestRows;
use super::open_sessions::{Bounds, Join, OpenSessions, Placed};
use super::session_changes::SessionChanges;
use super::snapshot::{counters_batch, split_counters};
use super::{Counters, Missed, MissedRows, Operator, Stamp, WATERMARK_MAX};

/// Aggregates rows by session and key.
pub(crate) struct SessionAggregate {
    spec: Arc<AggregateSpec>,
    /// None for final values.
    changes: Option<ChangesSpec>,
    schema: SchemaRef,
    gap: i64,
    state: State,
    missed: MissedRows,
}

/// All that changes while rows pass.
struct State {
    keys: Keys,
    values: KeyValues,
    sessions: OpenSessions,
    aggregates: Vec<Box<dyn RunningAggregate>>,
    latest: LatestRows,
    counters: Counters,
}

impl State {
    fn try_new(spec: &AggregateSpec, gap: i64) -> Result<Self> {
        Ok(Self {
            keys: Keys::new(spec),
            values: KeyValues::new(&spec.key_schema()),
            sessions: OpenSessions::new(gap),
            aggregates: spec.aggregates.iter().map(running_aggregate).collect::<Result<_>>()?,
            latest: LatestRows::default(),
            counters: Counters::default(),
        })
    }
}

impl SessionAggregate {
    /// Sessions `gap` ticks apart; none for changes gives final values.
    ///
    /// # Errors
    /// Aggregates that DataFusion cannot make.
    pub(crate) fn try_new(spec: Arc<AggregateSpec>, gap: i64, changes: Option<ChangesSpec>) -> Result<Self> {
        let schema = changes.as_ref().map_or_else(|| Arc::clone(&spec.schema), |changes| changes.schema(&spec.schema));
        let state = State::try_new(&spec, gap)?;
        Ok(Self { spec, changes, schema, gap, state, missed: MissedRows::default() })
    }

    fn take(&mut self, batch: &RecordBatch, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        let rows = self.spec.evaluate(batch)?;
        let Some(times) = &rows.starts else { return Err(internal_datafusion_err!("sessions without an event time")) };
        let state = &mut self.state;
        state.keys.intern(&rows.keys, rows.rows)?;
        state.values.learn(&state.keys.groups, state.keys.len(), &rows.keys)?;
        let (keys, wants_bounds) = (&state.keys, self.changes.is_some());
        let placed = state.sessions.place(&keys.groups, keys.len(), times, watermark, wants_bounds);
        state.counters.used_rows += placed.rows.len() as u64;
        state.counters.late_rows += placed.late.len() as u64;
        for (row, window) in &placed.late {
            self.missed.add(*row, Missed::All, || Some(*window));
        }
        state.counters.null_time_rows += times.null_count() as u64;
        let mut begin = 0;
        // Where nobody sees the order, all rows are taken at once, and what they have brought together is joined then.
        let in_order = self.changes.is_some() || self.spec.is_ordered;
        for join in placed.joins.iter().filter(|_| in_order) {
            self.update(&rows, &placed, begin..join.at, output)?;
            self.join(join, output)?;
            begin = join.at;
        }
        self.update(&rows, &placed, begin..placed.rows.len(), output)?;
        for join in placed.joins.iter().filter(|_| !in_order) {
            self.join(join, output)?;
        }
        self.state.sessions.release_joined();
        Ok(())
    }

    /// Takes placed rows, none of which but the first joins sessions.
    fn update(
        &mut self,
        rows: &Evaluated,
        placed: &Placed,
        range: Range<usize>,
        output: &mut Vec<RecordBatch>,
    ) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let slots = &placed.slots[range.clone()];
        let rows = rows.select(placed.rows[range.clone()].to_vec())?;
        let State { sessions, aggregates, latest, .. } = &mut self.state;
        let total = sessions.slots();
        let mut changes = match &self.changes {
            Some(spec) => Some(SessionChanges::new(spec.ops, slots, &placed.bounds[range], latest, aggregates)?),
            None => None,
        };
        for ((aggregate, arguments), filter) in aggregates.iter_mut().zip(&rows.arguments).zip(&rows.filters) {
            match &mut changes {
                Some(changes) => changes.push(&aggregate.update(slots, total, arguments, filter.as_ref())?)?,
                None => aggregate.accumulate(slots, total, arguments, filter.as_ref())?,
            }
        }
        if let (Some(changes), Some(spec)) = (changes, &self.changes) {
            let told = changes.finish(&self.state.sessions);
            let keys = self.state.values.columns(&told.keys)?;
            let rows = self.rows(&told.bounds, [keys, told.values].concat())?;
            output.push(spec.output(&self.schema, &told.ops, rows)?);
        }
        Ok(())
    }

    /// Joins sessions that a row has brought together, whose own change comes next.
    fn join(&mut self, join: &Join, output: &mut Vec<RecordBatch>) -> Result<()> {
        let (into, _) = join.into;
        if let Some(spec) = self.changes.as_ref().filter(|spec| spec.ops != Ops::None) {
            let (slots, bounds): (Vec<usize>, Vec<Bounds>) =
                [join.into].iter().chain(&join.joined).map(|(slot, bounds)| (*slot, *bounds)).unzip();
            let keys = self.state.values.columns(&self.state.sessions.keys(&slots))?;
            let values = self.state.aggregates.iter_mut().map(|aggregate| aggregate.values(&slots));
            let values = values.collect::<Result<Vec<_>>>()?;
            let rows = self.rows(&bounds, [keys, values].concat())?;
            output.push(spec.output(&self.schema, &vec![Op::Delete; slots.len()], rows)?);
        }
        for (from, _) in &join.joined {
            self.state.aggregates.iter_mut().try_for_each(|aggregate| aggregate.merge(into, *from))?;
        }
        Ok(())
    }

    /// Rows of sessions with these bounds.
    fn rows(&self, bounds: &[Bounds], columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        let starts = Int64Array::from_iter(bounds.iter().map(|bounds| bounds.map(|(start, _)| start)));
        let ends = bounds.iter().map(|bounds| bounds.map(|(_, last)| last.saturating_add(self.gap)));
        let times = [starts, Int64Array::from_iter(ends)];
        let columns = times.into_iter().map(|times| Arc::new(times) as ArrayRef).chain(columns);
        let columns = columns.zip(self.spec.schema.fields()).map(|(column, field)| {
            let same = column.data_type() == field.data_type();
            if same { Ok(column) } else { Ok(cast(&column, field.data_type())?) }
        });
        let options = RecordBatchOptions::new().with_row_count(Some(bounds.len()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.spec.schema), columns, &options)?)
    }

    /// Ends the sessions that the watermark has passed, earliest first.
    fn close(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        let closed = self.state.sessions.close(watermark);
        if closed.is_empty() {
            return Ok(());
        }
        let state = &mut self.state;
        let slots: Vec<usize> = closed.iter().map(|session| session.slot).collect();
        state.counters.windows_closed += closed.iter().filter(|session| session.bounds.is_some()).count() as u64;
        if self.changes.is_none() {
            let keys: Vec<usize> = closed.iter().map(|session| session.key).collect();
            let mut columns = state.values.columns(&keys)?;
            for aggregate in &mut state.aggregates {
                columns.push(aggregate.values(&slots)?);
            }
            let bounds: Vec<Bounds> = closed.iter().map(|session| session.bounds).collect();
            output.push(self.rows(&bounds, columns)?);
        }
        self.state.aggregates.iter_mut().try_for_each(|aggregate| aggregate.clear(&slots))?;
        self.forget_keys()
    }

    /// Numbers the keys anew when most of them have no session any more.
    fn forget_keys(&mut self) -> Result<()> {
        let keys = self.state.keys.len();
        if keys > 1024 && keys > 4 * self.state.sessions.open() {
            self.snapshot()?;
        }
        Ok(())
    }
}

impl Operator for SessionAggregate {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn push(&mut self, batch: &RecordBatch, stamp: Stamp, output: &mut Vec<RecordBatch>) -> Result<()> {
        if batch.num_rows() > 0 {
            self.take(batch, stamp.watermark, output)?;
        }
        self.close(stamp.next_watermark, output)
    }

    fn finish(&mut self, output: &mut Vec<RecordBatch>) -> Result<()> {
        self.close(WATERMARK_MAX, output)
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let state = &mut self.state;
        let open = state.sessions.in_order();
        let bound = |of: fn((i64, i64)) -> i64| {
            Arc::new(Int64Array::from_iter(open.iter().map(|session| session.bounds.map(of)))) as ArrayRef
        };
        let mut columns = vec![bound(|(start, _)| start), bound(|(_, last)| last)];
        columns.extend(state.values.columns(&open.iter().map(|session| session.key).collect::<Vec<_>>())?);
        let slots = UInt32Array::from_iter_values(open.iter().map(|session| session.slot as u32));
        for aggregate in &mut state.aggregates {
            for column in aggregate.state()? {
                columns.push(take(&column, &slots, None)?);
            }
        }
        let field = |(index, column): (usize, &ArrayRef)| {
            Field::new(format!("column_{index}"), column.data_type().clone(), true)
        };
        let schema = Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>());
        let snapshot = vec![counters_batch(&state.counters)?, RecordBatch::try_new(Arc::new(schema), columns)?];
        self.restore(&snapshot)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let wrong = || internal_datafusion_err!("a snapshot of another session window");
        let (counters, rest) = split_counters(snapshot)?;
        let sessions = rest.first().ok_or_else(wrong)?;
        let mut state = State { counters, ..State::try_new(&self.spec, self.gap)? };
        let (bounds, rest) = sessions.columns().split_at_checked(2).ok_or_else(wrong)?;
        let (keys, mut states) = rest.split_at_checked(self.spec.keys.len()).ok_or_else(wrong)?;
        if sessions.num_rows() > 0 {
            state.keys.intern(keys, sessions.num_rows())?;
            state.values.learn(&state.keys.groups, state.keys.len(), keys)?;
            let times = |index: usize| bounds[index].as_primitive_opt::<Int64Type>().ok_or_else(wrong);
            state.sessions.restore(&state.keys.groups, state.keys.len(), times(0)?, times(1)?);
            for aggregate in &mut state.aggregates {
                let (own, rest) = states.split_at_checked(aggregate.state_width()?).ok_or_else(wrong)?;
                aggregate.restore(own)?;
                states = rest;
            }
        }
        self.state = state;
        Ok(())
    }

    fn memory(&self) -> usize {
        let State { keys, values, sessions, aggregates, latest, .. } = &self.state;
        let aggregates = aggregates.iter().map(|aggregate| aggregate.size());
        keys.size() + values.size() + sessions.size() + latest.size() + aggregates.sum::<usize>()
    }

    fn counters(&self) -> Counters {
        Counters { windows_open: self.state.sessions.open() as u64, ..self.state.counters }
    }

    fn missed(&mut self) -> &mut MissedRows {
        &mut self.missed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::changes::Often;
    use super::super::testing::{
        Naive, Row, Text, assert_same, assert_snapshot_law, batch_lengths, or_null, rows, run, session_group_by,
        sorted, stamped, text, with_watermarks,
    };
    use super::*;

    /// A session of the model: its first and last time, and its rows.
    type Session = (Bounds, Vec<Row>);

    /// The rows of all sessions with their keys, and how many rows are late.
    fn model(rows: &[Row], bound: i64, gap: i64, keyed: bool) -> (Text, u64) {
        let (mut open, mut closed) = (BTreeMap::<Vec<String>, Vec<Session>>::new(), vec![]);
        let mut late_rows = 0;
        for (row, watermark) in with_watermarks(rows, bound) {
            for (key, sessions) in &mut open {
                let has_ended = |session: &mut Session| session.0.is_some_and(|(_, last)| last + gap <= watermark);
                closed.extend(sessions.extract_if(.., has_ended).map(|session| (key.clone(), session)));
            }
            let key: Vec<String> = keyed.then(|| or_null(row.key)).into_iter().collect();
            let is_near = |session: &mut Session| match (session.0, row.time) {
                (Some((start, last)), Some(time)) => time - last < gap && start - time < gap,
                (None, None) => true,
                _ => false,
            };
            let sessions = open.entry(key).or_default();
            let mut near: Vec<Session> = sessions.extract_if(.., is_near).collect();
            near.push((row.time.map(|time| (time, time)), vec![row]));
            let joined = near.into_iter().reduce(|(a, mut rows), (b, more)| {
                rows.extend(more);
                (a.zip(b).map(|(a, b)| (a.0.min(b.0), a.1.max(b.1))), rows)
            });
            let (bounds, rows) = joined.unwrap();
            match bounds.is_some_and(|(_, last)| last + gap <= watermark) {
                true => late_rows += 1,
                false => sessions.push((bounds, rows)),
            }
        }
        closed.extend(open.into_iter().flat_map(|(key, all)| all.into_iter().map(move |one| (key.clone(), one))));
        let cells = |(key, (bounds, rows)): (Vec<String>, Session)| {
            let mut naive = Naive::default();
            rows.into_iter().for_each(|row| naive.take(row));
            let (start, end) = (bounds.map(|(start, _)| start), bounds.map(|(_, last)| last + gap));
            [vec![or_null(start), or_null(end)], key, naive.cells()].concat()
        };
        (closed.into_iter().map(cells).collect(), late_rows)
    }

    /// What is left of changes, and a check that rows do what they say.
    fn folded(rows: Text, ops: Ops, keyed: bool) -> Text {
        let mut latest: Text = vec![];
        for mut row in rows {
            let op = row.remove(0);
            let is = |other: &Vec<String>| other[..2] == row[..2] && (!keyed || other[2] == row[2]);
            let known = latest.iter().position(is);
            match op.as_str() {
                "+I" => assert_eq!(known, None),
                "+U" => {
                    assert_eq!(known.is_none(), ops == Ops::Retractions);
                    known.map(|known| latest.remove(known));
                }
                op => {
                    assert!(op == "-D" || ops == Ops::Retractions);
                    assert_eq!(latest.remove(known.unwrap()), row);
                    continue;
                }
            }
            latest.push(row);
        }
        latest
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn equals_the_naive_model(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..90, gap in 1i64..60, keyed: bool,
        ) {
            let spec = session_group_by(gap, keyed);
            let mut operator = SessionAggregate::try_new(Arc::clone(&spec), gap, None).unwrap();
            let output = run(&mut operator, &stamped(&rows, &lengths, bound, 0, None));
            let (expected, late_rows) = model(&rows, bound, gap, keyed);
            assert_same(&spec.schema, &sorted(text(&output)), &sorted(expected));
            prop_assert_eq!(operator.counters().late_rows, late_rows);
            prop_assert_eq!(operator.counters().windows_open, 0);
        }

        #[test]
        fn changes_fold_to_the_final_answer(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..90, gap in 1i64..60, keyed: bool,
            ops in prop_oneof![Just(Ops::Op), Just(Ops::Retractions)],
        ) {
            let spec = session_group_by(gap, keyed);
            let changes = ChangesSpec { often: Often::EachRow, ops, repeats: true };
            let mut operator = SessionAggregate::try_new(Arc::clone(&spec), gap, Some(changes)).unwrap();
            let output = run(&mut operator, &stamped(&rows, &lengths, bound, 0, None));
            let (expected, _) = model(&rows, bound, gap, keyed);
            assert_same(&spec.schema, &sorted(folded(text(&output), ops, keyed)), &sorted(expected));
        }

        #[test]
        fn snapshots_change_nothing(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..90, gap in 1i64..60, keyed: bool,
            ops in prop::option::of(prop_oneof![Just(Ops::None), Just(Ops::Op), Just(Ops::Retractions)]),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        ) {
            let spec = session_group_by(gap, keyed);
            let changes = ops.map(|ops| ChangesSpec { often: Often::EachRow, ops, repeats: true });
            let fresh = || SessionAggregate::try_new(Arc::clone(&spec), gap, changes.clone()).unwrap();
            assert_snapshot_law(fresh, &stamped(&rows, &lengths, bound, 0, None), &cuts);
        }
    }
}
