//! Top-N with EMIT CHANGES: what each row, batch or interval of event time changes of the best rows of its key.
//!
//! Told by rank, a row that comes in at one rank moves those below it, so each of these ranks has a new row. Told by
//! rows, one comes in and one may leave. A key of one row is told by rank: its later row takes the place of the one
//! before it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef, UInt32Type};
use datafusion::common::{Result, internal_datafusion_err};

use super::TopNSpec;
use super::best_rows::{BestRows, Entered, Listed, Place};
use crate::operator::aggregate_spec::Evaluated;
use crate::operator::changes::{ChangesSpec, Often, Op, Ops, highest_batch, highest_of};
use crate::operator::keys::Keys;
use crate::operator::lifetimes::{Lifetimes, Living, moments_of};
use crate::operator::open_windows::{OpenWindows, SLICE_COLUMNS, Slice, slice_columns, slice_of};
use crate::operator::snapshot::{counters_batch, split_counters};
use crate::operator::{Counters, MissedRows, Operator, Stamp, WATERMARK_MAX, WATERMARK_MIN};

/// Gives the changes of the best rows of each key.
pub(crate) struct ChangelogTopN {
    spec: Arc<TopNSpec>,
    form: Form,
    changes: ChangesSpec,
    schema: SchemaRef,
    state: State,
    missed: MissedRows,
}

/// All that changes while rows pass.
#[derive(Default)]
struct State {
    windows: OpenWindows<Ranked>,
    /// The highest event time so far, where changes are told by it.
    highest: Option<i64>,
    counters: Counters,
}

/// The best rows of one window, or of all there are.
struct Ranked {
    keys: Keys,
    /// Where keys are forgotten: a key is another group then, each time that it begins anew.
    lifetimes: Option<Lifetimes>,
    best: BestRows,
}

/// How changes are told.
#[derive(Debug, Clone, Copy)]
struct Form {
    by_rank: bool,
    ops: Ops,
}

/// Rows to tell.
#[derive(Default)]
struct Told {
    ops: Vec<Op>,
    places: Vec<Place>,
    ranks: Vec<u64>,
}

impl Told {
    fn push(&mut self, op: Op, place: Place, rank: usize) {
        self.ops.push(op);
        self.places.push(place);
        self.ranks.push(rank as u64 + 1);
    }

    /// The change of one rank.
    fn rank(&mut self, ops: Ops, rank: usize, before: Option<Place>, after: Place) {
        if let Some(before) = before.filter(|_| ops == Ops::Retractions) {
            self.push(Op::Before, before, rank);
        }
        self.push(if before.is_some() { Op::After } else { Op::Insert }, after, rank);
    }

    /// The change that one row makes to a list.
    fn entered(&mut self, form: Form, entered: &Entered, now: &[Place]) {
        if !form.by_rank {
            self.replaced(entered.evicted, now.get(entered.rank).copied());
            return;
        }
        for (rank, after) in now.iter().enumerate().skip(entered.rank) {
            let before = now.get(rank + 1).copied().or(entered.evicted);
            self.rank(form.ops, rank, before, *after);
        }
    }

    /// The changes between two states of a list, which never gets shorter.
    fn changed(&mut self, form: Form, before: &[Place], now: &[Place]) {
        if form.by_rank {
            for (rank, after) in now.iter().enumerate().filter(|(rank, after)| before.get(*rank) != Some(after)) {
                self.rank(form.ops, rank, before.get(rank).copied(), *after);
            }
            return;
        }
        before.iter().filter(|place| !now.contains(place)).for_each(|place| self.replaced(Some(*place), None));
        now.iter().filter(|place| !before.contains(place)).for_each(|place| self.replaced(None, Some(*place)));
    }

    /// A row that leaves, and one that comes. Of such rows the rank is not told.
    fn replaced(&mut self, before: Option<Place>, after: Option<Place>) {
        before.into_iter().for_each(|place| self.push(Op::Delete, place, 0));
        after.into_iter().for_each(|place| self.push(Op::Insert, place, 0));
    }
}

impl Ranked {
    fn try_new(spec: &TopNSpec) -> Result<Self> {
        let lifetimes = spec.groups.ttl.as_ref().map(|ttl| Lifetimes::new(ttl.ticks));
        Ok(Self { keys: Keys::new(&spec.groups), lifetimes, best: BestRows::try_new(&spec.best)? })
    }

    /// How many groups there are.
    fn total(&self) -> usize {
        self.lifetimes.as_ref().map_or_else(|| self.keys.len(), Lifetimes::groups)
    }

    fn take_forgotten(&mut self) -> u64 {
        self.lifetimes.as_mut().map_or(0, Lifetimes::take_forgotten)
    }

    /// Takes rows, and gives the changes that each of them makes if they are to be told at once, with their columns.
    fn take(&mut self, spec: &TopNSpec, rows: &Evaluated, now: Option<Form>) -> Result<(Told, Vec<ArrayRef>)> {
        self.keys.intern(&rows.keys, rows.rows)?;
        let ended = match &mut self.lifetimes {
            Some(lifetimes) => lifetimes.assign(&mut self.keys.groups, &rows.moments),
            None => vec![],
        };
        let total = self.total();
        let arguments = rows.arguments.first().map_or(&[][..], Vec::as_slice);
        let (columns, order) = arguments
            .split_at_checked(spec.kept)
            .ok_or_else(|| internal_datafusion_err!("rows without what they are ranked by"))?;
        self.best.begin(columns, order, total)?;
        let mut told = Told::default();
        for (row, group) in self.keys.groups.iter().enumerate() {
            let Some(entered) = self.best.offer(row, *group) else { continue };
            match now {
                Some(form) => told.entered(form, &entered, self.best.places(*group)),
                None => self.best.remember_before(*group, &entered),
            }
        }
        self.best.leave_out(&ended);
        let columns = self.best.gather(&told.places)?;
        self.best.end()?;
        Ok((told, columns))
    }

    /// The changes that are still to be told.
    fn flush(&mut self, form: Form) -> Result<(Told, Vec<ArrayRef>)> {
        let mut told = Told::default();
        for (group, before) in self.best.take_told() {
            told.changed(form, &before, self.best.places(group));
        }
        let columns = self.best.gather(&told.places)?;
        Ok((told, columns))
    }

    /// The keys, where they are forgotten with the moments of their last rows; the rows of all lists and of what they were,
    /// each with its group, whether it is of what was, and the row of the list that it is the same as; and the groups whose
    /// changes are to be told. Keys whose time is over by `watermark`, and that have nothing to tell, stay behind. Leaves
    /// no keys.
    fn state(&mut self, slice: Option<Slice>, watermark: i64) -> Result<[RecordBatch; 3]> {
        let living =
            self.lifetimes.as_mut().map(|lifetimes| lifetimes.living(watermark, |group| self.best.has_told(group)));
        let groups_now: Vec<usize> = match &living {
            Some(living) => living.iter().map(|living| living.group).collect(),
            None => (0..self.keys.len()).collect(),
        };
        let mut numbers = vec![0; self.total()];
        let (mut groups, mut is_told, mut same, mut places) = (vec![], vec![], vec![], vec![]);
        let mut begins = vec![];
        for (number, group) in groups_now.iter().enumerate() {
            numbers[*group] = number;
            begins.push(places.len());
            places.extend_from_slice(self.best.places(*group));
            groups.resize(places.len(), number as u32);
        }
        is_told.resize(places.len(), false);
        same.resize(places.len(), None);
        for (group, list) in self.best.told() {
            let (now, number) = (self.best.places(group), numbers[group]);
            let known = |place| now.iter().position(|other| other == place).map(|rank| (begins[number] + rank) as u32);
            same.extend(list.iter().map(known));
            places.extend_from_slice(list);
            groups.resize(places.len(), number as u32);
            is_told.resize(places.len(), true);
        }
        let pending = self.best.told().map(|(group, _)| numbers[group] as u32);
        let pending: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from_iter_values(pending))];
        let mut rows: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(groups)),
            Arc::new(BooleanArray::from(is_told)),
            Arc::new(UInt32Array::from(same)),
        ];
        rows.extend(self.best.gather(&places)?);
        rows.extend(self.best.gather_order(&places)?);
        let mut keys = slice_columns(slice, groups_now.len());
        keys.extend(self.living_keys(living.as_deref())?);
        Ok([unnamed(keys)?, unnamed(rows)?, unnamed(pending)?])
    }

    /// Takes all keys out; of those that are forgotten some time the living ones, after the moments of their last rows.
    fn living_keys(&mut self, living: Option<&[Living]>) -> Result<Vec<ArrayRef>> {
        let keys = self.keys.emit()?;
        let Some(living) = living else { return Ok(keys) };
        let numbers = UInt32Array::from_iter_values(living.iter().map(|living| living.key as u32));
        let keys = keys.iter().map(|key| Ok(take(key, &numbers, None)?));
        std::iter::once(Ok(moments_of(living))).chain(keys).collect()
    }

    fn restore(&mut self, spec: &TopNSpec, state: &[RecordBatch]) -> Result<()> {
        let wrong = || internal_datafusion_err!("the state of another changelog");
        let [keys, rows, pending] = state else { return Err(wrong()) };
        let key_columns = match (&mut self.lifetimes, &keys.columns()[SLICE_COLUMNS..]) {
            (Some(lifetimes), [moments, key_columns @ ..]) => {
                lifetimes.restore(moments)?;
                key_columns
            }
            (_, key_columns) => key_columns,
        };
        self.keys.intern(key_columns, keys.num_rows())?;
        let [groups, is_told, same, columns @ ..] = rows.columns() else { return Err(wrong()) };
        let groups = groups.as_primitive_opt::<UInt32Type>().ok_or_else(wrong)?;
        let is_told = is_told.as_boolean_opt().ok_or_else(wrong)?;
        let same = same.as_primitive_opt::<UInt32Type>().ok_or_else(wrong)?;
        let lists = groups.values().iter().zip(is_told.values()).zip(same);
        let listed = lists.map(|((group, is_told), same)| Listed { group: *group, is_told, same });
        let listed: Vec<_> = listed.collect();
        let (columns, order) = columns.split_at_checked(spec.kept).ok_or_else(wrong)?;
        let pending = pending.columns().first().and_then(|groups| groups.as_primitive_opt::<UInt32Type>());
        self.best.restore_told(pending.ok_or_else(wrong)?.values().to_vec());
        self.best.restore(columns, order, &listed, self.keys.len())
    }
}

fn unnamed(columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let field = |(index, column): (usize, &ArrayRef)| Field::new(format!("c{index}"), column.data_type().clone(), true);
    let fields: Vec<_> = columns.iter().enumerate().map(field).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

impl ChangelogTopN {
    /// `by_rank` says whether changes are told by rank, if there are several.
    pub(crate) fn new(spec: Arc<TopNSpec>, changes: ChangesSpec, by_rank: bool) -> Self {
        let form = Form { by_rank: by_rank || spec.best.at_most == 1, ops: changes.ops };
        let schema = changes.schema(&spec.schema);
        Self { spec, form, changes, schema, state: State::default(), missed: MissedRows::default() }
    }

    fn take(&mut self, batch: &RecordBatch, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        let rows = spec.groups.evaluate_at(batch, watermark)?;
        let Some(window) = &spec.groups.window else {
            self.state.counters.used_rows += rows.rows as u64;
            return self.change(None, &rows, output);
        };
        let divided = rows.by_window(window, watermark, &mut self.missed);
        self.state.counters.add(&divided.counters);
        divided.apart()?.into_iter().try_for_each(|part| self.change(part.slice, &part.rows, output))
    }

    fn change(&mut self, slice: Option<Slice>, rows: &Evaluated, output: &mut Vec<RecordBatch>) -> Result<()> {
        let now = matches!(self.changes.often, Often::EachRow).then_some(self.form);
        let ranked = self.state.windows.open(slice, || Ranked::try_new(&self.spec))?;
        let (told, columns) = ranked.take(&self.spec, rows, now)?;
        self.tell(slice, told, columns, output)
    }

    fn tell(
        &self,
        slice: Option<Slice>,
        told: Told,
        columns: Vec<ArrayRef>,
        output: &mut Vec<RecordBatch>,
    ) -> Result<()> {
        let rows = told.places.len();
        if rows == 0 {
            return Ok(());
        }
        let mut columns = columns;
        let bounds = [slice.map(|slice| slice.pane), slice.map(|slice| slice.next_end)];
        for bound in bounds.into_iter().take(self.spec.groups.window_columns()) {
            let times = PrimitiveArray::<Int64Type>::from_iter(std::iter::repeat_n(bound, rows));
            columns.push(cast(&times, self.spec.schema.field(columns.len()).data_type())?);
        }
        columns.push(Arc::new(UInt64Array::from(told.ranks)));
        let rows = self.spec.output(&self.spec.schema, columns, rows)?;
        output.push(self.changes.output(&self.schema, &told.ops, rows)?);
        Ok(())
    }

    /// Tells all changes that are still to be told.
    fn flush(&mut self, output: &mut Vec<RecordBatch>) -> Result<()> {
        let form = self.form;
        let flushed = self.state.windows.entries().map(|(slice, ranked)| Ok((slice, ranked.flush(form)?)));
        let flushed = flushed.collect::<Result<Vec<_>>>()?;
        flushed.into_iter().try_for_each(|(slice, (told, columns))| self.tell(slice, told, columns, output))
    }

    /// Forgets keys that no row has come for long enough, once they may be many: rows of theirs would begin them anew.
    fn forget(&mut self, watermark: i64) -> Result<()> {
        let Some(mut ranked) = self.state.windows.take_last() else { return Ok(()) };
        if ranked.lifetimes.as_ref().is_some_and(Lifetimes::are_many) {
            let state = ranked.state(None, watermark)?;
            self.state.counters.forgotten_keys += ranked.take_forgotten();
            ranked = Ranked::try_new(&self.spec)?;
            ranked.restore(&self.spec, &state)?;
        }
        self.state.counters.forgotten_keys += ranked.take_forgotten();
        self.state.windows.open(None, || Ok(ranked)).map(|_| ())
    }

    /// Forgets the windows that end at or before the watermark: no row can change them any more.
    fn close(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        for (slice, mut ranked) in self.state.windows.due(watermark) {
            self.state.counters.windows_closed += 1;
            let (told, columns) = ranked.flush(self.form)?;
            self.tell(Some(slice), told, columns, output)?;
        }
        Ok(())
    }
}

impl Operator for ChangelogTopN {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn push(&mut self, batch: &RecordBatch, stamp: Stamp, output: &mut Vec<RecordBatch>) -> Result<()> {
        if batch.num_rows() > 0 {
            for (run, rows) in self.changes.runs(batch, &mut self.state.highest)?.into_iter().enumerate() {
                if run > 0 {
                    self.flush(output)?;
                }
                self.missed.begin_at(rows.start);
                self.take(&batch.slice(rows.start, rows.len()), stamp.watermark, output)?;
            }
        }
        if matches!(self.changes.often, Often::EachBatch) {
            self.flush(output)?;
        }
        if self.spec.groups.ttl.is_some() {
            self.forget(stamp.next_watermark)?;
        }
        self.close(stamp.next_watermark, output)
    }

    fn finish(&mut self, output: &mut Vec<RecordBatch>) -> Result<()> {
        self.close(WATERMARK_MAX, output)?;
        self.flush(output)?;
        if let Some(mut ranked) = self.state.windows.take_last() {
            ranked.lifetimes.iter_mut().for_each(Lifetimes::end);
            self.state.counters.forgotten_keys += ranked.take_forgotten();
        }
        self.state.windows = OpenWindows::default();
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let mut snapshot = vec![counters_batch(&self.state.counters)?, highest_batch(self.state.highest)?];
        for (slice, mut ranked) in self.state.windows.take() {
            snapshot.extend(ranked.state(slice, WATERMARK_MIN)?);
        }
        // Taking the keys out has emptied them.
        self.restore(&snapshot)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let (counters, rest) = split_counters(snapshot)?;
        let wrong = || internal_datafusion_err!("a changelog's snapshot is too short");
        let (highest, windows) = rest.split_first().ok_or_else(wrong)?;
        self.state = State { counters, highest: highest_of(highest), ..State::default() };
        for window in windows.chunks(3) {
            let slice = slice_of(window.first().ok_or_else(wrong)?)?;
            let ranked = self.state.windows.open(slice, || Ranked::try_new(&self.spec))?;
            ranked.restore(&self.spec, window)?;
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        let size = |ranked: &Ranked| {
            ranked.keys.size() + ranked.lifetimes.as_ref().map_or(0, Lifetimes::size) + ranked.best.size()
        };
        self.state.windows.groups().map(size).sum()
    }

    fn counters(&self) -> Counters {
        Counters { windows_open: self.state.windows.count(), ..self.state.counters }
    }

    fn missed(&mut self) -> &mut MissedRows {
        &mut self.missed
    }
}
