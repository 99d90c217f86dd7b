//! What a changelog amounts to: the latest row of each key, without those that were withdrawn.

use std::collections::HashMap;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::OwnedRow;
use datafusion::common::cast::as_string_array;
use datafusion::common::{DataFusionError, Result};

use crate::error::Error;
use crate::operator::ticks;

use super::rows::{converted, converter, text_rows};

/// Folds the rows of a changelog, in which those of a key come in order, by the columns `keys`. The column `op`, if
/// there is one, says what a row does (`+I`, `+U`, `-U`, `-D`) and is no column of the result.
///
/// # Errors
/// A change that does not fit those before it: a first row of a key that is there, a row withdrawn that is not.
pub fn fold(batches: &[RecordBatch], schema: &SchemaRef, keys: &[usize], op: Option<usize>) -> Result<RecordBatch> {
    let changes = concat_batches(schema, batches)?;
    let converter = converter(schema, keys)?;
    let keys = converted(&converter, &changes, keys)?;
    let columns: Vec<usize> = (0..schema.fields().len()).filter(|column| Some(*column) != op).collect();
    let changes_only = changes.project(&columns)?;
    let ops = op.map(|op| cast(changes.column(op), &DataType::Utf8)).transpose()?;
    let mut folded = Folded { changes: &changes_only, latest: HashMap::new() };
    for row in 0..changes.num_rows() {
        folded.take(keys.row(row).owned(), row, op_of(ops.as_ref(), row)?)?;
    }
    let mut rows: Vec<u64> = folded.latest.into_values().map(|row| row as u64).collect();
    rows.sort_unstable();
    Ok(take_record_batch(&changes_only, &UInt64Array::from(rows))?)
}

/// Folds the rows of a changelog in which whole rows come (`+I`, `+U`) and go (`-D`, `-U`), each perhaps several times.
/// The column `op` says which and is no column of the result.
///
/// # Errors
/// A row that goes and is not there.
pub fn fold_rows(batches: &[RecordBatch], schema: &SchemaRef, op: usize) -> Result<RecordBatch> {
    let changes = concat_batches(schema, batches)?;
    let columns: Vec<usize> = (0..schema.fields().len()).filter(|column| *column != op).collect();
    let contents = converted(&converter(schema, &columns)?, &changes, &columns)?;
    let changes_only = changes.project(&columns)?;
    let ops = cast(changes.column(op), &DataType::Utf8)?;
    let mut there = HashMap::<OwnedRow, Vec<u64>>::new();
    for row in 0..changes.num_rows() {
        let copies = there.entry(contents.row(row).owned()).or_default();
        match as_string_array(&ops)?.value(row) {
            "+I" | "+U" => copies.push(row as u64),
            "-D" | "-U" if copies.pop().is_some() => {}
            other => return Err(unfit(other, &changes_only, row)),
        }
    }
    let mut rows = there.into_values().flatten().collect::<Vec<_>>();
    rows.sort_unstable();
    Ok(take_record_batch(&changes_only, &UInt64Array::from(rows))?)
}

/// Folds the rows of a changelog of sessions that does not say what rows do, by the columns `keys`: a row takes the place
/// of those of its key that lie within its bounds, the columns `session`.
///
/// # Errors
/// Bounds that are no times.
pub fn fold_sessions(
    batches: &[RecordBatch],
    schema: &SchemaRef,
    keys: &[usize],
    session: [usize; 2],
) -> Result<RecordBatch> {
    let changes = concat_batches(schema, batches)?;
    let keys = converted(&converter(schema, keys)?, &changes, keys)?;
    let bounds = session_bounds(&changes, session)?;
    let mut latest = HashMap::<OwnedRow, Sessions<u64>>::new();
    for (row, bounds) in bounds.into_iter().enumerate() {
        latest.entry(keys.row(row).owned()).or_default().take(bounds, row as u64);
    }
    let mut rows: Vec<u64> = latest.into_values().flat_map(Sessions::into_rows).collect();
    rows.sort_unstable();
    Ok(take_record_batch(&changes, &UInt64Array::from(rows))?)
}

/// Start and end of a session; none is that of null event times.
type Bounds = Option<(i64, i64)>;

/// The bounds of each row's session, given the columns of starts and ends.
pub(super) fn session_bounds(batch: &RecordBatch, session: [usize; 2]) -> Result<Vec<Bounds>> {
    let [starts, ends] = session.map(|column| ticks(batch.column(column)));
    Ok(starts?.iter().zip(&ends?).map(|(start, end)| start.zip(end)).collect())
}

/// The latest rows of the sessions of one key.
#[derive(Debug)]
pub(super) struct Sessions<T>(Vec<(Bounds, T)>);

impl<T> Default for Sessions<T> {
    fn default() -> Self {
        Self(vec![])
    }
}

impl<T> Sessions<T> {
    /// A row takes the place of those that lie within its bounds.
    pub(super) fn take(&mut self, bounds: Bounds, row: T) {
        self.0.retain(|(before, _)| match (before, bounds) {
            (Some((first, last)), Some((start, end))) => *first < start || end < *last,
            (before, bounds) => *before != bounds,
        });
        self.0.push((bounds, row));
    }

    pub(super) fn into_rows(self) -> impl Iterator<Item = T> {
        self.0.into_iter().map(|(_, row)| row)
    }
}

fn unfit(op: &str, changes: &RecordBatch, row: usize) -> DataFusionError {
    match text_rows(&changes.slice(row, 1)) {
        Ok(cells) => {
            let cells = cells.concat().join(" | ");
            Error::data(format!("a change {op} that fits no row before it: {cells}")).into()
        }
        Err(error) => error,
    }
}

fn op_of(ops: Option<&ArrayRef>, row: usize) -> Result<Option<&str>> {
    ops.map(|ops| Ok(as_string_array(ops)?.value(row))).transpose()
}

struct Folded<'a> {
    changes: &'a RecordBatch,
    latest: HashMap<OwnedRow, usize>,
}

impl Folded<'_> {
    fn take(&mut self, key: OwnedRow, row: usize, op: Option<&str>) -> Result<()> {
        let before = self.latest.get(&key).copied();
        let fits = match op {
            None => true,
            Some("+I") => before.is_none(),
            // An update may stand for itself, or follow the withdrawal of the row before it.
            Some("+U") => true,
            Some("-U" | "-D") => match before {
                Some(before) => text_rows(&self.changes.slice(before, 1))? == text_rows(&self.changes.slice(row, 1))?,
                None => false,
            },
            Some(_) => false,
        };
        if !fits {
            return Err(unfit(op.unwrap_or_default(), self.changes, row));
        }
        match op {
            Some("-U" | "-D") => self.latest.remove(&key),
            _ => self.latest.insert(key, row),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, TimestampSecondArray};
    use proptest::prelude::*;

    use super::*;

    type Change = (&'static str, Option<i64>, i64);

    fn folded(changes: &[Change], op: bool) -> Result<Vec<String>> {
        let columns: [(&str, ArrayRef); 3] = [
            ("op", Arc::new(StringArray::from_iter_values(changes.iter().map(|change| change.0)))),
            ("k", Arc::new(Int64Array::from_iter(changes.iter().map(|change| change.1)))),
            ("v", Arc::new(Int64Array::from_iter_values(changes.iter().map(|change| change.2)))),
        ];
        let columns = columns.into_iter().map(|(name, column)| (name, column, true));
        let mut batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let (mut keys, mut op) = (vec![1], op.then_some(0));
        if op.is_none() {
            batch = batch.project(&[1, 2]).unwrap();
            (keys, op) = (vec![0], None);
        }
        let schema = batch.schema();
        // Batches of few rows.
        let batches: Vec<_> =
            (0..batch.num_rows()).step_by(2).map(|row| batch.slice(row, 2.min(batch.num_rows() - row))).collect();
        let rows = text_rows(&fold(&batches, &schema, &keys, op)?)?;
        let mut rows: Vec<_> = rows.into_iter().map(|row| row.join(" ")).collect();
        rows.sort();
        Ok(rows)
    }

    proptest! {
        /// Changes of keys as an aggregate that may also withdraw a key emits them, and what stays of them.
        #[test]
        fn what_stays_is_the_latest(
            steps in proptest::collection::vec((proptest::option::of(0i64..4), 0i64..9, any::<bool>()), 0..40),
            retracts: bool,
        ) {
            let (mut changes, mut now) = (vec![], BTreeMap::new());
            for (key, value, withdraws) in steps {
                match now.get(&key).copied() {
                    Some(before) if withdraws => {
                        changes.push(("-D", key, before));
                        now.remove(&key);
                        continue;
                    }
                    Some(before) if retracts => changes.extend([("-U", key, before), ("+U", key, value)]),
                    Some(_) => changes.push(("+U", key, value)),
                    None => changes.push(("+I", key, value)),
                }
                now.insert(key, value);
            }
            let text = |key: Option<i64>, value| format!("{} {value}", key.map_or("NULL".to_string(), |key| key.to_string()));
            let mut expected: Vec<_> = now.into_iter().map(|(key, value)| text(key, value)).collect();
            expected.sort();
            prop_assert_eq!(folded(&changes, true).unwrap(), expected);
        }
    }

    #[test]
    fn without_op_the_latest_row_wins() {
        let changes = [("", Some(1), 1), ("", None, 2), ("", Some(1), 3), ("", None, 2)];
        assert_eq!(folded(&changes, false).unwrap(), ["1 3", "NULL 2"]);
        assert_eq!(folded(&[], false).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_session_takes_the_place_of_those_within_it() {
        let rows = [(1, Some((10, 20))), (1, Some((30, 40))), (2, Some((10, 20))), (1, None), (1, Some((8, 20)))];
        let rows = rows.into_iter().chain([(1, Some((8, 40))), (1, None), (2, Some((20, 30))), (1, Some((50, 60)))]);
        let rows: Vec<(i64, Option<(i64, i64)>)> = rows.collect();
        let time = |bound: fn((i64, i64)) -> i64| {
            let times = rows.iter().map(|(_, bounds)| bounds.map(bound));
            Arc::new(TimestampSecondArray::from_iter(times)) as ArrayRef
        };
        let key = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(key, _)| *key))) as ArrayRef;
        let number = Arc::new(Int64Array::from_iter_values(0..rows.len() as i64)) as ArrayRef;
        let columns = [("k", key), ("s", time(|bounds| bounds.0)), ("e", time(|bounds| bounds.1)), ("n", number)];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let folded = fold_sessions(&[batch.slice(0, 4), batch.slice(4, 5)], &batch.schema(), &[0], [1, 2]).unwrap();
        let left: Vec<String> = text_rows(&folded).unwrap().iter().map(|row| row[3].clone()).collect();
        assert_eq!(left, ["2", "5", "6", "7", "8"]);
    }

    #[test]
    fn changes_that_fit_nothing_are_an_error() {
        let wrong: [&[Change]; 5] = [
            &[("+I", Some(1), 1), ("+I", Some(1), 2)],
            &[("-D", Some(1), 1)],
            &[("+I", Some(1), 1), ("-U", Some(1), 2)],
            &[("+I", Some(1), 1), ("-D", Some(1), 1), ("-D", Some(1), 1)],
            &[("?", Some(1), 1)],
        ];
        for changes in wrong {
            assert!(folded(changes, true).is_err_and(|error| error.to_string().contains("fits no row before it")));
        }
    }
}
