//! What is held of keys as columns with a row for each key, for those that go to disk and come back.
//!
//! Of a key that goes no row waits for anything but later rows of its own: what other frames have given of its rows, or
//! when the watermark passes them, is nowhere but in memory.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StructArray, new_empty_array};
use arrow::datatypes::{Field, Fields, Int64Type};
use datafusion::common::{Result, internal_datafusion_err};

use super::frames::Marks;
use super::held::Held;
use super::history::Moment;
use super::lists::{lists, of_lists};
use crate::operator::pool::{RowId, array_without_slack};
use crate::operator::ticks;

impl Held {
    /// Whether keys of a partitioning can go to disk: no other one holds their rows too.
    pub(super) fn can_spill(&self, partitioning: usize) -> bool {
        self.histories[partitioning].is_none() || self.histories.iter().flatten().count() == 1
    }

    /// Whether it holds rows by a partitioning.
    pub(super) fn holds(&self, partitioning: usize) -> bool {
        self.histories[partitioning].is_some()
    }

    /// Which of a partitioning's keys may go now.
    pub(super) fn may_go(&self, partitioning: usize, groups_total: usize) -> Vec<bool> {
        let framings = || self.framings.iter().filter(|framing| framing.partitioning == partitioning);
        if framings().next().is_some() && self.types.is_none() {
            return vec![false; groups_total];
        }
        let next = |group: usize, marks: &[Marks]| marks.get(group).map_or(0, |marks| marks.next);
        let is_even = |group: usize| {
            let mut nexts = framings().map(|framing| next(group, &framing.state.marks));
            let first = nexts.next();
            nexts.all(|next| Some(next) == first)
        };
        let mut may_go: Vec<bool> = (0..groups_total).map(is_even).collect();
        for awaited in framings().flat_map(|framing| &framing.state.awaited) {
            may_go[awaited.group] = false;
        }
        may_go
    }

    /// Takes out all that is held of some keys of a partitioning; none if it holds nothing.
    pub(super) fn take_out(&mut self, partitioning: usize, groups: &[usize]) -> Result<Option<ArrayRef>> {
        let Some(history) = &self.histories[partitioning] else { return Ok(None) };
        let (mut bases, mut pinned, mut rows) = (vec![], (vec![], vec![]), (vec![], vec![]));
        for group in groups {
            let (base, stay, others) = history.parts(*group);
            // The others are among the key's rows.
            let stay = &stay[..stay.len().min(base)];
            bases.push(base as i64);
            pinned.0.push(stay.len());
            pinned.1.extend_from_slice(stay);
            rows.0.push(others.len());
            rows.1.extend(others);
        }
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(bases))];
        columns.push(lists(pinned.0, self.rows(&pinned.1)?)?);
        columns.push(lists(rows.0, self.rows(&rows.1)?)?);
        for framing in &mut self.framings {
            let marks = groups.iter().map(|group| framing.state.marks.get(*group).copied().unwrap_or_default());
            columns.extend(columns_of(&marks.collect::<Vec<_>>()));
            for column in &mut framing.columns {
                columns.push(column.function.rows_of(groups)?);
            }
        }
        self.let_go(partitioning, groups);
        Ok(Some(Arc::new(StructArray::try_new(fields_of(&columns), columns, None)?)))
    }

    /// Rows of the pool as one column.
    fn rows(&self, ids: &[RowId]) -> Result<ArrayRef> {
        let column = |(column, data_type)| match ids.is_empty() {
            true => Ok(new_empty_array(data_type)),
            false => Ok(array_without_slack(&self.pool.gather(ids, column)?)),
        };
        let columns = self.types.iter().flatten().enumerate().map(column).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(StructArray::try_new_with_length(fields_of(&columns), columns, None, ids.len())?))
    }

    /// Lets go of the rows of keys, also of those that wait for later ones.
    fn let_go(&mut self, partitioning: usize, groups: &[usize]) {
        let Some(history) = &mut self.histories[partitioning] else { return };
        for group in groups {
            for id in history.parts(*group).2 {
                if std::mem::take(&mut self.missing[id as usize]) > 0 {
                    self.pool.release(id);
                }
            }
            history.restart(*group, &mut self.pool);
        }
    }

    /// Puts what was taken out of keys into these groups, of which nothing is held yet.
    pub(super) fn put(
        &mut self,
        partitioning: usize,
        groups: &[usize],
        groups_total: usize,
        column: &ArrayRef,
    ) -> Result<()> {
        let mut columns = column.as_struct_opt().ok_or_else(wrong)?.columns().iter();
        let mut next = || columns.next().ok_or_else(wrong);
        let bases = next()?.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        let (pinned, rows) = (self.put_rows(next()?)?, self.put_rows(next()?)?);
        for framing in &mut self.framings {
            let (nexts, starts, ends) = (next()?, next()?, next()?);
            framing.state.marks.resize(groups_total, Marks::default());
            for (group, marks) in groups.iter().zip(marks_of([nexts, starts, ends])?) {
                framing.state.marks[*group] = marks;
            }
            for column in &mut framing.columns {
                column.function.put(groups, next()?, &framing.state.marks)?;
            }
        }
        let Some(history) = &mut self.histories[partitioning] else { return Err(wrong()) };
        for (((group, base), pinned), rows) in groups.iter().zip(bases.values()).zip(pinned).zip(rows) {
            let ids: Vec<RowId> = rows.iter().map(|(_, id)| *id).collect();
            let mut pinned: Vec<RowId> = pinned.into_iter().map(|(_, id)| id).collect();
            let among_rows = (pinned.len()..history.pins).map_while(|row| ids.get(row.checked_sub(*base as usize)?));
            let among_rows: Vec<RowId> = among_rows.copied().collect();
            among_rows.iter().for_each(|id| self.pool.retain(*id));
            pinned.extend(among_rows);
            history.restore(*group, *base as usize, pinned, rows);
            for framing in &self.framings {
                let answered = framing.state.marks[*group].next.saturating_sub(*base as usize).min(ids.len());
                ids[answered..].iter().for_each(|id| self.missing[*id as usize] += 1);
            }
            ids.iter().filter(|id| self.missing[**id as usize] > 0).for_each(|id| self.pool.retain(*id));
        }
        Ok(())
    }

    /// Puts rows into the pool, each for its history to hold: those of each list with their moments.
    fn put_rows(&mut self, column: &ArrayRef) -> Result<Vec<Vec<(Moment, RowId)>>> {
        let (rows, ranges) = of_lists(column)?;
        let columns = rows.as_struct_opt().ok_or_else(wrong)?.columns().to_vec();
        let moments = Moment::all(&ticks(columns.get(self.spec.time).ok_or_else(wrong)?)?);
        let ids = match rows.is_empty() {
            true => vec![],
            false => self.pool.add(columns, rows.len(), 1),
        };
        self.missing.resize(self.pool.ids(), 0);
        ids.iter().for_each(|id| self.missing[*id as usize] = 0);
        for framing in &mut self.framings {
            framing.answers.resize(self.pool.ids(), None);
        }
        Ok(ranges.map(|rows| rows.map(|row| (moments[row], ids[row])).collect()).collect())
    }
}

fn wrong() -> datafusion::common::DataFusionError {
    internal_datafusion_err!("the state of other OVER columns")
}

/// Fields for columns whose names are of no account.
fn fields_of(columns: &[ArrayRef]) -> Fields {
    let field =
        |(index, column): (usize, &ArrayRef)| Field::new(format!("column_{index}"), column.data_type().clone(), true);
    columns.iter().enumerate().map(field).collect()
}

fn columns_of(marks: &[Marks]) -> [ArrayRef; 3] {
    let column = |mark: fn(&Marks) -> usize| {
        Arc::new(Int64Array::from_iter_values(marks.iter().map(|marks| mark(marks) as i64))) as ArrayRef
    };
    [column(|marks| marks.next), column(|marks| marks.start), column(|marks| marks.end)]
}

fn marks_of(columns: [&ArrayRef; 3]) -> Result<Vec<Marks>> {
    let columns: Option<Vec<&Int64Array>> = columns.iter().map(|column| column.as_primitive_opt()).collect();
    let Some([nexts, starts, ends]) = columns.as_deref() else { return Err(wrong()) };
    let mark = |column: &Int64Array, row: usize| column.value(row) as usize;
    let marks = |row| Marks { next: mark(nexts, row), start: mark(starts, row), end: mark(ends, row) };
    Ok((0..nexts.len()).map(marks).collect())
}
