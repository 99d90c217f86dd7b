//! Held rows as Arrow batches and back.
//!
//! Rows of the pool are told by their places in the first batch. Which rows wait for which values follows from the
//! marks of the frames.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{Field, Int64Type, Schema};
use datafusion::common::{Result, internal_datafusion_err};

use super::frames::{Awaited, Marks};
use super::held::{Framing, Held};
use super::history::Moment;
use crate::operator::pool::RowId;
use crate::operator::ticks;

const PINNED: i64 = 1;

impl Held {
    /// The state of all keys; or of some, whose numbers are their places among these from now on, where one PARTITION BY has
    /// all of the frames and the others hold no rows.
    pub(super) fn snapshot(&mut self, keys: Option<&[usize]>) -> Result<Vec<RecordBatch>> {
        let ids = self.pool.held();
        let mut places = vec![0; self.pool.ids()];
        ids.iter().zip(0..).for_each(|(id, place)| places[*id as usize] = place);
        let width = if ids.is_empty() { 0 } else { self.given + self.reads.len() };
        let mut snapshot =
            vec![unnamed((0..width).map(|column| self.pool.gather(&ids, column)).collect::<Result<_>>()?)?];
        for history in self.histories.iter().flatten() {
            let (mut bases, mut rows) = (vec![], vec![]);
            let keys = keys.map_or_else(|| (0..history.keys.len()).collect(), <[usize]>::to_vec);
            for (group, key) in keys.into_iter().enumerate() {
                let (base, pinned, others) = history.parts(key);
                bases.push([base as i64]);
                rows.extend(pinned.iter().map(|id| [group as i64, PINNED, places[*id as usize]]));
                rows.extend(others.iter().map(|id| [group as i64, 0, places[*id as usize]]));
            }
            snapshot.extend([numbers(&bases)?, numbers(&rows)?]);
        }
        for framing in &mut self.framings {
            framing.snapshot(&places, keys, &mut snapshot)?;
        }
        Ok(snapshot)
    }

    /// Puts a snapshot, which `snapshot` begins with, into what holds nothing, and gives what comes after it.
    pub(super) fn restore<'a>(&mut self, snapshot: &'a [RecordBatch]) -> Result<&'a [RecordBatch]> {
        let mut parts = snapshot.iter();
        let rows = next(&mut parts)?;
        if rows.num_columns() > 0 {
            self.types = Some(rows.columns().iter().map(|column| column.data_type().clone()).collect());
        }
        let ids = self.pool.add(rows.columns().to_vec(), rows.num_rows(), 0);
        let id = |place: i64| ids.get(place as usize).copied().ok_or_else(wrong);
        let moments = match rows.num_rows() {
            0 => vec![],
            _ => Moment::all(&ticks(rows.columns().get(self.spec.time).ok_or_else(wrong)?)?),
        };
        self.missing = vec![0; ids.len()];
        for history in self.histories.iter_mut().flatten() {
            let bases = rows_of::<1>(next(&mut parts)?)?;
            let mut keys = vec![(vec![], vec![]); bases.len()];
            for [group, kind, place] in rows_of::<3>(next(&mut parts)?)? {
                let (pinned, others) = keys.get_mut(group as usize).ok_or_else(wrong)?;
                self.pool.retain(id(place)?);
                match kind {
                    PINNED => pinned.push(id(place)?),
                    _ => others.push((moments[place as usize], id(place)?)),
                }
            }
            for (group, ([base], (pinned, others))) in bases.into_iter().zip(keys).enumerate() {
                history.restore(group, base as usize, pinned, others);
            }
        }
        for framing in &mut self.framings {
            framing.restore(&ids, &mut parts)?;
            let history = self.histories[framing.partitioning].as_ref().ok_or_else(wrong)?;
            for (marks, key) in framing.state.marks.iter().zip(&history.keys) {
                (marks.next..key.len()).for_each(|row| self.missing[key.id(row) as usize] += 1);
            }
        }
        ids.iter().filter(|id| self.missing[**id as usize] > 0).for_each(|id| self.pool.retain(*id));
        Ok(parts.as_slice())
    }
}

impl Framing {
    fn snapshot(&mut self, places: &[i64], keys: Option<&[usize]>, snapshot: &mut Vec<RecordBatch>) -> Result<()> {
        let keys = keys.map_or_else(|| (0..self.state.marks.len()).collect(), <[usize]>::to_vec);
        let numbers_of =
            |key: usize| keys.binary_search(&key).map_err(|_| internal_datafusion_err!("a key that waits"));
        let marks = keys.iter().map(|key| self.state.marks.get(*key).copied().unwrap_or_default());
        let marks = marks.map(|marks| [marks.next, marks.start, marks.end].map(|mark| mark as i64));
        snapshot.push(numbers(&marks.collect::<Vec<_>>())?);
        let awaited = self.state.awaited.iter().map(|awaited| {
            let (first, last) = (awaited.first, awaited.last);
            let key = numbers_of(awaited.group)? as i64;
            Ok([key, i64::from(first.beyond), first.ticks, i64::from(last.beyond), last.ticks])
        });
        snapshot.push(numbers(&awaited.collect::<Result<Vec<_>>>()?)?);
        let answered =
            self.answers.iter().enumerate().filter_map(|(id, answer)| answer.map(|answer| (places[id], answer)));
        let (rows, answers): (Vec<i64>, Vec<RowId>) = answered.unzip();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(rows))];
        if !answers.is_empty() {
            let column = |column| self.values.gather(&answers, column);
            columns.extend((0..self.columns.len()).map(column).collect::<Result<Vec<_>>>()?);
        }
        snapshot.push(unnamed(columns)?);
        for column in &mut self.columns {
            snapshot.push(unnamed(vec![column.function.rows_of(&keys)?])?);
        }
        Ok(())
    }

    fn restore<'a>(&mut self, ids: &[RowId], parts: &mut impl Iterator<Item = &'a RecordBatch>) -> Result<()> {
        let marks = rows_of::<3>(next(parts)?)?.into_iter().map(|row| row.map(|mark| mark as usize));
        self.state.marks = marks.map(|[next, start, end]| Marks { next, start, end }).collect();
        let awaited = rows_of::<5>(next(parts)?)?.into_iter().map(|[group, first_beyond, first, last_beyond, last]| {
            let moment = |beyond, ticks| Moment { beyond: beyond as u8, ticks };
            Awaited { group: group as usize, first: moment(first_beyond, first), last: moment(last_beyond, last) }
        });
        self.state.awaited = awaited.collect();
        let answered = next(parts)?;
        let (places, values) = answered.columns().split_first().ok_or_else(wrong)?;
        self.answers = vec![None; ids.len()];
        let answers = self.values.add(values.to_vec(), answered.num_rows(), 1);
        for (place, answer) in places.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?.values().iter().zip(answers) {
            let id = ids.get(*place as usize).ok_or_else(wrong)?;
            self.answers[*id as usize] = Some(answer);
        }
        for column in &mut self.columns {
            let rows = next(parts)?.columns().first().ok_or_else(wrong)?;
            column.function.put(&(0..self.state.marks.len()).collect::<Vec<_>>(), rows, &self.state.marks)?;
        }
        Ok(())
    }
}

fn wrong() -> datafusion::common::DataFusionError {
    internal_datafusion_err!("a snapshot of other OVER columns")
}

fn next<'a>(parts: &mut impl Iterator<Item = &'a RecordBatch>) -> Result<&'a RecordBatch> {
    parts.next().ok_or_else(wrong)
}

/// A batch of columns whose names are of no account.
fn unnamed(columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let field =
        |(index, column): (usize, &ArrayRef)| Field::new(format!("column_{index}"), column.data_type().clone(), true);
    let fields: Vec<Field> = columns.iter().enumerate().map(field).collect();
    let options =
        arrow::array::RecordBatchOptions::new().with_row_count(columns.first().map(|column| column.len()).or(Some(0)));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

fn numbers<const WIDTH: usize>(rows: &[[i64; WIDTH]]) -> Result<RecordBatch> {
    let column = |column| Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row[column]))) as ArrayRef;
    unnamed((0..WIDTH).map(column).collect())
}

fn rows_of<const WIDTH: usize>(batch: &RecordBatch) -> Result<Vec<[i64; WIDTH]>> {
    let columns: Option<Vec<&Int64Array>> = batch.columns().iter().map(|column| column.as_primitive_opt()).collect();
    let columns: [&Int64Array; WIDTH] = columns.and_then(|columns| columns.try_into().ok()).ok_or_else(wrong)?;
    Ok((0..batch.num_rows()).map(|row| columns.map(|column| column.value(row))).collect())
}
