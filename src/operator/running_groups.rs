//! The groups of one window under EMIT CHANGES: their running values, and the changes that are still to be told.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter, interleave, take};
use arrow::datatypes::{Field, Schema};
use datafusion::common::{Result, internal_datafusion_err};

use super::accumulators::{RunningAggregates, Slots};
use super::aggregate_spec::{AggregateSpec, Evaluated};
use super::changes::{ChangesSpec, Op, Ops};
use super::key_values::{KeyValues, one_zero};
use super::keys::Keys;
use super::latest_rows::LatestRows;
use super::lifetimes::{Lifetimes, Living, moments_of};
use super::open_windows::{SLICE_COLUMNS, Slice, slice_columns};

/// Rows that a batch has made, and what each of them does.
pub(super) struct ChangedRows {
    pub(super) ops: Vec<Op>,
    /// Keys, then aggregates.
    pub(super) columns: Vec<ArrayRef>,
}

/// The groups of one window and their running values.
pub(super) struct RunningGroups {
    keys: Keys,
    /// Where keys are forgotten: a key is another group then, each time that it begins anew.
    lifetimes: Option<Lifetimes>,
    aggregates: RunningAggregates,
    /// Whether a group is told of again.
    repeats: bool,
    /// How many groups have been told of: the first ones.
    told: usize,
    pending: Option<Pending>,
    latest: LatestRows,
    pub(super) size: usize,
}

/// Changes that are still to be told.
struct Pending {
    keys: KeyValues,
    /// The groups that have changed, in the order of their first changes.
    groups: Vec<usize>,
    is_pending: Vec<bool>,
    /// Whether the values before are wanted, and those of groups that had been told of: each time a batch made some
    /// groups pending, the columns of their values.
    wants_before: bool,
    before: Vec<Vec<ArrayRef>>,
    /// Where in `before` a pending group's values are.
    places: Vec<Option<(usize, usize)>>,
}

impl RunningGroups {
    /// Groups whose changes are told at once, or when [`RunningGroups::flush`] asks for them.
    pub(super) fn try_new(spec: &AggregateSpec, is_deferred: bool, changes: &ChangesSpec) -> Result<Self> {
        let pending = match is_deferred {
            true => Some(Pending::try_new(spec, changes.ops == Ops::Retractions)?),
            false => None,
        };
        Ok(Self {
            keys: Keys::new(spec),
            lifetimes: spec.ttl.as_ref().map(|ttl| Lifetimes::new(ttl.ticks)),
            aggregates: RunningAggregates::try_new(spec)?,
            repeats: changes.repeats,
            told: 0,
            pending,
            latest: LatestRows::default(),
            size: 0,
        })
    }

    /// Numbers the groups of rows, and gives those whose keys begin anew.
    fn number(&mut self, rows: &Evaluated) -> Result<Vec<usize>> {
        self.keys.intern(&rows.keys, rows.rows)?;
        Ok(match &mut self.lifetimes {
            Some(lifetimes) => lifetimes.assign(&mut self.keys.groups, &rows.moments),
            None => vec![],
        })
    }

    /// How many groups there are.
    fn total(&self) -> usize {
        self.lifetimes.as_ref().map_or_else(|| self.keys.len(), Lifetimes::groups)
    }

    /// Whether there may be many keys to forget.
    pub(super) fn are_many(&self) -> bool {
        self.lifetimes.as_ref().is_some_and(Lifetimes::are_many)
    }

    /// Takes the number of keys that have been forgotten since it was taken.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        self.lifetimes.as_mut().map_or(0, Lifetimes::take_forgotten)
    }

    /// Counts the keys whose time was over when the last row came.
    pub(super) fn end(&mut self) {
        self.lifetimes.iter_mut().for_each(Lifetimes::end);
    }

    /// Takes rows, and gives the change that each of them makes; none if they make none.
    pub(super) fn changes(&mut self, rows: Evaluated, ops: Ops) -> Result<Option<ChangedRows>> {
        self.number(&rows)?;
        let total = self.total();
        if !self.repeats {
            return self.new_groups(&rows, total);
        }
        let changed = match ops {
            Ops::None => ChangedRows { ops: vec![], columns: self.update(&rows, total)? },
            Ops::Op => {
                let ops = first_rows(&self.keys.groups, self.told, total);
                ChangedRows { ops, columns: self.update(&rows, total)? }
            }
            Ops::Retractions => self.replacements(&rows, total)?,
        };
        self.told = total;
        self.measure();
        Ok(Some(changed))
    }

    /// The first rows of groups that are new, of which nothing else is told.
    fn new_groups(&mut self, rows: &Evaluated, total: usize) -> Result<Option<ChangedRows>> {
        let ops = first_rows(&self.keys.groups, self.told, total);
        let is_first = |(row, op): (usize, &Op)| (*op == Op::Insert).then_some(row as u32);
        let first: Vec<u32> = ops.iter().enumerate().filter_map(is_first).collect();
        self.told = total;
        self.measure();
        if first.is_empty() {
            return Ok(None);
        }
        let ops = vec![Op::Insert; first.len()];
        let keys = rows.select(first)?.keys;
        Ok(Some(ChangedRows { ops, columns: keys.into_iter().map(one_zero).collect::<Result<_>>()? }))
    }

    /// The columns of the rows' keys and of the values after each of them.
    fn update(&mut self, rows: &Evaluated, total: usize) -> Result<Vec<ArrayRef>> {
        let mut columns = rows.keys.iter().cloned().map(one_zero).collect::<Result<Vec<_>>>()?;
        columns.extend(self.aggregates.update(Slots::new(&self.keys.groups, total), rows)?);
        Ok(columns)
    }

    /// For each row the one that it replaces, if there is one, and then itself.
    fn replacements(&mut self, rows: &Evaluated, total: usize) -> Result<ChangedRows> {
        // Values before: of an earlier row of the batch, or of those that were there before it.
        let (mut ops, mut sources, mut rows_of_keys, mut known) = (vec![], vec![], vec![], vec![]);
        for (row, group) in self.keys.groups.iter().enumerate() {
            let before = match self.latest.replace(*group, row) {
                Some(earlier) => Some((1, earlier)),
                None if *group >= self.told => None,
                None => {
                    known.push(*group);
                    Some((0, known.len() - 1))
                }
            };
            if let Some(before) = before {
                ops.push(Op::Before);
                sources.push(before);
                rows_of_keys.push(row as u32);
            }
            ops.push(if before.is_some() { Op::After } else { Op::Insert });
            sources.push((1, row));
            rows_of_keys.push(row as u32);
        }
        self.latest.forget(&self.keys.groups);
        let before = self.aggregates.values(&known)?;
        let rows_of_keys = UInt32Array::from(rows_of_keys);
        let mut columns =
            rows.keys.iter().map(|key| one_zero(take(key, &rows_of_keys, None)?)).collect::<Result<Vec<_>>>()?;
        let after = self.update(rows, total)?.split_off(columns.len());
        for (before, after) in before.iter().zip(&after) {
            columns.push(interleave(&[before.as_ref(), after.as_ref()], &sources)?);
        }
        Ok(ChangedRows { ops, columns })
    }

    /// Takes rows, whose changes are told later.
    pub(super) fn defer(&mut self, rows: &Evaluated) -> Result<()> {
        let ended = self.number(rows)?;
        let total = self.total();
        if let Some(pending) = &mut self.pending {
            let keys = rows.keys.iter().cloned().map(one_zero).collect::<Result<Vec<_>>>()?;
            let known = pending.note(&self.keys.groups, total, self.told, self.repeats, &keys)?;
            if !known.is_empty() {
                pending.before.push(self.aggregates.values(&known)?);
            }
            pending.leave_out(&ended);
        }
        self.aggregates.accumulate(Slots::new(&self.keys.groups, total), rows)?;
        self.measure();
        Ok(())
    }

    /// The changes since the last time; none if there are none.
    pub(super) fn flush(&mut self) -> Result<Option<ChangedRows>> {
        let total = self.total();
        let told = std::mem::replace(&mut self.told, total);
        let Some(mut pending) = self.pending.take_if(|pending| !pending.groups.is_empty()) else { return Ok(None) };
        let mut groups = std::mem::take(&mut pending.groups);
        groups.sort_unstable();
        let after = self.aggregates.values(&groups)?;
        let chunks = pending.before.len();
        let (mut ops, mut sources, mut groups_of_rows) = (vec![], vec![], vec![]);
        for (row, group) in groups.iter().enumerate() {
            if let Some(place) = pending.places[*group].take() {
                ops.push(Op::Before);
                sources.push(place);
                groups_of_rows.push(*group);
            }
            ops.push(if *group < told { Op::After } else { Op::Insert });
            sources.push((chunks, row));
            groups_of_rows.push(*group);
            pending.is_pending[*group] = false;
        }
        let mut columns = pending.keys.columns(&groups_of_rows)?;
        for (index, after) in after.iter().enumerate() {
            let mut arrays: Vec<&dyn Array> = pending.before.iter().map(|chunk| chunk[index].as_ref()).collect();
            arrays.push(after.as_ref());
            columns.push(interleave(&arrays, &sources)?);
        }
        pending.before.clear();
        self.pending = Some(pending);
        self.measure();
        Ok(Some(ChangedRows { ops, columns }))
    }

    /// Takes everything out: for each group whether it has been told of, where keys are forgotten the moment of its last row,
    /// its key, its state, whether its change is still to be told, and its values before that. Keys whose time is over by
    /// `watermark`, and that have nothing to tell, stay behind.
    pub(super) fn state(&mut self, slice: Option<Slice>, watermark: i64) -> Result<RecordBatch> {
        let (total, told) = (self.total(), self.told);
        let pending = self.pending.take();
        let stays = |group| pending.as_ref().is_some_and(|pending| pending.is_pending(group));
        let living = self.lifetimes.as_mut().map(|lifetimes| lifetimes.living(watermark, stays));
        let rows = living.as_ref().map_or(total, Vec::len);
        let by = |number: fn(&Living) -> usize| {
            living
                .as_ref()
                .map(|living| UInt32Array::from_iter_values(living.iter().map(|living| number(living) as u32)))
        };
        let (keys, groups) = (by(|living| living.key), by(|living| living.group));
        let pick = |column: ArrayRef, of: &Option<UInt32Array>| match of {
            Some(of) => take(&column, of, None),
            None => Ok(column),
        };
        let told: ArrayRef = Arc::new(BooleanArray::from_iter((0..total).map(|group| Some(group < told))));
        let mut columns = slice_columns(slice, rows);
        columns.push(pick(told, &groups)?);
        columns.extend(living.iter().map(|living| moments_of(living)));
        for key in self.keys.emit()? {
            columns.push(pick(key, &keys)?);
        }
        let before = pending.map(|pending| pending.state(total)).transpose()?.unwrap_or_default();
        for column in self.aggregates.state()?.into_iter().chain(before) {
            columns.push(pick(column, &groups)?);
        }
        let fields = columns
            .iter()
            .enumerate()
            .map(|(index, column)| Field::new(format!("column_{index}"), column.data_type().clone(), true));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?)
    }

    /// Puts such a batch into fresh groups.
    pub(super) fn restore(&mut self, spec: &AggregateSpec, state: &RecordBatch) -> Result<()> {
        let wrong = || internal_datafusion_err!("the state of another changelog");
        let (told, rest) = state.columns()[SLICE_COLUMNS..].split_first().ok_or_else(wrong)?;
        self.told = told.as_boolean().true_count();
        let rest = match &mut self.lifetimes {
            Some(lifetimes) => {
                let (moments, rest) = rest.split_first().ok_or_else(wrong)?;
                lifetimes.restore(moments)?;
                rest
            }
            None => rest,
        };
        let (keys, states) = rest.split_at_checked(spec.keys.len()).ok_or_else(wrong)?;
        self.keys.intern(keys, state.num_rows())?;
        let rest = self.aggregates.restore(states)?;
        if let (Some(pending), Some((is_pending, before))) = (&mut self.pending, rest.split_first()) {
            pending.restore(&self.keys.groups, keys, is_pending.as_boolean(), before, self.told)?;
        }
        self.measure();
        Ok(())
    }

    fn measure(&mut self) {
        let pending = self.pending.as_ref().map_or(0, Pending::size);
        let lifetimes = self.lifetimes.as_ref().map_or(0, Lifetimes::size);
        self.size = self.keys.size() + lifetimes + self.aggregates.size() + pending + self.latest.size();
    }
}

impl Pending {
    fn try_new(spec: &AggregateSpec, wants_before: bool) -> Result<Self> {
        let keys = KeyValues::new(&spec.key_schema());
        Ok(Self { keys, groups: vec![], is_pending: vec![], wants_before, before: vec![], places: vec![] })
    }

    /// Notes that these rows' groups change, and gives those of them whose values before are wanted.
    fn note(
        &mut self,
        groups: &[usize],
        total: usize,
        told: usize,
        repeats: bool,
        keys: &[ArrayRef],
    ) -> Result<Vec<usize>> {
        self.keys.learn(groups, total, keys)?;
        self.is_pending.resize(total, false);
        self.places.resize(total, None);
        let mut known = vec![];
        for group in groups {
            let is_over = !repeats && *group < told;
            if is_over || std::mem::replace(&mut self.is_pending[*group], true) {
                continue;
            }
            self.groups.push(*group);
            if self.wants_before && *group < told {
                self.places[*group] = Some((self.before.len(), known.len()));
                known.push(*group);
            }
        }
        Ok(known)
    }

    /// Whether a group's change is still to be told.
    fn is_pending(&self, group: usize) -> bool {
        self.is_pending.get(group) == Some(&true)
    }

    /// Tells nothing of groups whose keys have begun anew: of each key only the last change is told.
    fn leave_out(&mut self, groups: &[usize]) {
        if groups.is_empty() {
            return;
        }
        for group in groups {
            self.is_pending[*group] = false;
            self.places[*group] = None;
        }
        self.groups.retain(|group| self.is_pending[*group]);
    }

    /// For each group whether its change is to be told, and its values before.
    fn state(mut self, groups_total: usize) -> Result<Vec<ArrayRef>> {
        self.is_pending.resize(groups_total, false);
        self.places.resize(groups_total, None);
        let mut columns: Vec<ArrayRef> = vec![Arc::new(BooleanArray::from(self.is_pending))];
        if !self.wants_before {
            return Ok(columns);
        }
        for index in 0..self.before.first().map_or(0, Vec::len) {
            let nothing = arrow::array::new_null_array(self.before[0][index].data_type(), 1);
            let mut arrays: Vec<&dyn Array> = self.before.iter().map(|chunk| chunk[index].as_ref()).collect();
            arrays.push(nothing.as_ref());
            let places: Vec<_> = self.places.iter().map(|place| place.unwrap_or((arrays.len() - 1, 0))).collect();
            columns.push(interleave(&arrays, &places)?);
        }
        Ok(columns)
    }

    fn restore(
        &mut self,
        groups: &[usize],
        keys: &[ArrayRef],
        is_pending: &BooleanArray,
        before: &[ArrayRef],
        told: usize,
    ) -> Result<()> {
        self.keys.learn(groups, groups.len(), keys)?;
        self.is_pending = is_pending.iter().map(|pending| pending == Some(true)).collect();
        self.groups = (0..groups.len()).filter(|group| self.is_pending[*group]).collect();
        self.places = vec![None; groups.len()];
        if self.wants_before && !before.is_empty() {
            let with_before: Vec<bool> =
                (0..groups.len()).map(|group| self.is_pending[group] && group < told).collect();
            let known = (0..groups.len()).filter(|group| with_before[*group]);
            known.enumerate().for_each(|(row, group)| self.places[group] = Some((0, row)));
            let mask = BooleanArray::from(with_before);
            self.before = vec![before.iter().map(|column| Ok(filter(column, &mask)?)).collect::<Result<_>>()?];
        }
        Ok(())
    }

    fn size(&self) -> usize {
        let before = self.before.iter().flatten().map(|column| column.get_array_memory_size());
        self.keys.size() + before.sum::<usize>() + self.places.len() * size_of::<(usize, usize)>()
    }
}

/// What each row does, where rows come in order: the first row of a group that has not been told of is new.
fn first_rows(groups: &[usize], told: usize, total: usize) -> Vec<Op> {
    let mut is_told = vec![false; total.saturating_sub(told)];
    let op = |group: &usize| {
        let new = group.checked_sub(told).and_then(|new| is_told.get_mut(new));
        let was_told = new.is_none_or(|is_told| std::mem::replace(is_told, true));
        if was_told { Op::After } else { Op::Insert }
    };
    groups.iter().map(op).collect()
}
