//! When two answers are the same: as multisets of rows, or row by row for each key, and floats within 1e-9 relative.

use std::cmp::Ordering;
use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use datafusion::common::Result;

use super::rows::{converted, converter, floats as floats_of, one_batch, text_rows};

/// How far two floats that are the same may be apart, relative to the larger of them.
const FLOAT_TOLERANCE: f64 = 1e-9;
/// Rows of each side that a difference shows.
const SHOWN: usize = 5;

/// What two answers differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Rows that were expected and are not there.
    pub missing: usize,
    /// Rows that are there and were not expected.
    pub extra: usize,
    /// The first of them, `-` before those that are missing and `+` before the others.
    pub rows: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows missing, {} rows more", self.missing, self.extra)?;
        self.rows.iter().try_for_each(|row| write!(f, "\n{row}"))
    }
}

/// Compares rows as multisets.
///
/// # Errors
/// Rows of other columns than the expected ones.
pub fn compare(expected: &[RecordBatch], found: &[RecordBatch], schema: &SchemaRef) -> Result<Option<Difference>> {
    let pair = Pair::try_new(expected, found, schema, None)?;
    let mut unequal = Unequal::default();
    for (expected, found) in pair.groups() {
        pair.match_rows(expected, found, &mut unequal);
    }
    pair.difference(unequal)
}

/// Compares the order of rows too, for each key (the columns `keys`) by itself.
///
/// # Errors
/// As [`compare`].
pub fn compare_by_key(
    expected: &[RecordBatch],
    found: &[RecordBatch],
    schema: &SchemaRef,
    keys: &[usize],
) -> Result<Option<Difference>> {
    let pair = Pair::try_new(expected, found, schema, Some(keys))?;
    let mut unequal = Unequal::default();
    for (expected, found) in pair.groups() {
        pair.match_in_order(expected, found, &mut unequal);
    }
    pair.difference(unequal)
}

/// Whether two floats are the same.
fn floats_agree(left: f64, right: f64) -> bool {
    left == right
        || (left.is_nan() && right.is_nan())
        || (left - right).abs() <= FLOAT_TOLERANCE * left.abs().max(right.abs())
}

/// One side of a comparison.
struct Side {
    batch: RecordBatch,
    /// The columns by which rows are grouped: the keys, or all that must be equal to the bit.
    exact: Rows,
    /// What else must be equal to the bit.
    rest: Rows,
    floats: Vec<Vec<Option<f64>>>,
    /// Rows by `exact`, then as the comparison wants them.
    order: Vec<usize>,
}

/// Two sides, grouped alike.
struct Pair {
    expected: Side,
    found: Side,
}

#[derive(Default)]
struct Unequal {
    missing: Vec<usize>,
    extra: Vec<usize>,
}

impl Pair {
    fn try_new(
        expected: &[RecordBatch],
        found: &[RecordBatch],
        schema: &SchemaRef,
        keys: Option<&[usize]>,
    ) -> Result<Self> {
        let is_float = |column: &usize| schema.field(*column).data_type().is_floating();
        let (floats, others): (Vec<_>, Vec<_>) = (0..schema.fields().len()).partition(is_float);
        let (exact, rest) = match keys {
            Some(keys) => (keys.to_vec(), others),
            None => (others, vec![]),
        };
        let converters = (converter(schema, &exact)?, converter(schema, &rest)?);
        let side = |batches: &[RecordBatch]| -> Result<Side> {
            let batch = one_batch(batches, schema)?;
            let values = floats.iter().filter_map(|column| floats_of(batch.column(*column)).transpose());
            // Zero has two signs that are equal.
            let unsigned = |values: Vec<Option<f64>>| values.into_iter().map(|value| value.map(|value| value + 0.0));
            let mut side = Side {
                exact: converted(&converters.0, &batch, &exact)?,
                rest: converted(&converters.1, &batch, &rest)?,
                floats: values.map(|values| Ok(unsigned(values?).collect())).collect::<Result<_>>()?,
                order: (0..batch.num_rows()).collect(),
                batch,
            };
            let mut order = std::mem::take(&mut side.order);
            match keys {
                Some(_) => order.sort_by_key(|row| side.exact.row(*row)),
                None => order.sort_by(|a, b| {
                    side.exact.row(*a).cmp(&side.exact.row(*b)).then_with(|| side.order_of_floats(*a, *b))
                }),
            }
            Ok(Side { order, ..side })
        };
        Ok(Self { expected: side(expected)?, found: side(found)? })
    }

    /// Rows of both sides that are equal in the columns that group them.
    fn groups(&self) -> Vec<(&[usize], &[usize])> {
        let (mut expected, mut found) = (self.expected.order.as_slice(), self.found.order.as_slice());
        let mut groups = vec![];
        while !expected.is_empty() || !found.is_empty() {
            let order = match (expected.first(), found.first()) {
                (Some(left), Some(right)) => self.expected.exact.row(*left).cmp(&self.found.exact.row(*right)),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            let left = if order.is_le() { self.expected.group(expected) } else { 0 };
            let right = if order.is_ge() { self.found.group(found) } else { 0 };
            groups.push((&expected[..left], &found[..right]));
            (expected, found) = (&expected[left..], &found[right..]);
        }
        groups
    }

    fn agree(&self, expected: usize, found: usize) -> bool {
        let floats = self.expected.floats.iter().zip(&self.found.floats);
        self.expected.rest.row(expected) == self.found.rest.row(found)
            && floats.into_iter().all(|(left, right)| match (left[expected], right[found]) {
                (Some(left), Some(right)) => floats_agree(left, right),
                (left, right) => left.is_none() && right.is_none(),
            })
    }

    /// Finds a partner for each row of a group, which is sorted by its floats.
    fn match_rows(&self, expected: &[usize], found: &[usize], unequal: &mut Unequal) {
        let in_order = || expected.iter().zip(found).all(|(left, right)| self.agree(*left, *right));
        if expected.len() == found.len() && in_order() {
            return;
        }
        let mut free = vec![true; found.len()];
        // Floats that are almost the same may stand in another order, but not far.
        let first = |side: &Side, row: usize| side.floats.first().and_then(|values| values[row]).unwrap_or(f64::MIN);
        for row in expected {
            let own = first(&self.expected, *row);
            let near = |other: f64| floats_agree(own, other);
            let begin = found.partition_point(|row| {
                let other = first(&self.found, *row);
                other.total_cmp(&own).is_lt() && !near(other)
            });
            let candidates = found.iter().enumerate().skip(begin);
            let mut candidates = candidates.take_while(|(_, row)| {
                let other = first(&self.found, **row);
                other.total_cmp(&own).is_le() || near(other)
            });
            match candidates.find(|(place, other)| free[*place] && self.agree(*row, **other)) {
                Some((place, _)) => free[place] = false,
                None => unequal.missing.push(*row),
            }
        }
        unequal.extra.extend(found.iter().zip(free).filter(|(_, free)| *free).map(|(row, _)| *row));
    }

    fn match_in_order(&self, expected: &[usize], found: &[usize], unequal: &mut Unequal) {
        for place in 0..expected.len().max(found.len()) {
            match (expected.get(place), found.get(place)) {
                (Some(left), Some(right)) if self.agree(*left, *right) => {}
                (left, right) => {
                    unequal.missing.extend(left);
                    unequal.extra.extend(right);
                }
            }
        }
    }

    fn difference(&self, unequal: Unequal) -> Result<Option<Difference>> {
        if unequal.missing.is_empty() && unequal.extra.is_empty() {
            return Ok(None);
        }
        let mut rows = self.expected.text("-", &unequal.missing)?;
        rows.extend(self.found.text("+", &unequal.extra)?);
        Ok(Some(Difference { missing: unequal.missing.len(), extra: unequal.extra.len(), rows }))
    }
}

impl Side {
    /// How many of the first rows are of one group.
    fn group(&self, rows: &[usize]) -> usize {
        rows.first()
            .map_or(0, |first| rows.iter().take_while(|row| self.exact.row(**row) == self.exact.row(*first)).count())
    }

    fn order_of_floats(&self, left: usize, right: usize) -> Ordering {
        let order = |values: &Vec<Option<f64>>| match (values[left], values[right]) {
            (Some(left), Some(right)) => left.total_cmp(&right),
            (left, right) => left.is_some().cmp(&right.is_some()),
        };
        self.floats.iter().map(order).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }

    fn text(&self, sign: &str, rows: &[usize]) -> Result<Vec<String>> {
        let line = |row: &usize| -> Result<String> {
            let cells = text_rows(&self.batch.slice(*row, 1))?.concat();
            Ok(format!("{sign} {}", cells.join(" | ")))
        };
        rows.iter().take(SHOWN).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array};
    use proptest::prelude::*;

    use super::*;

    type Row = (Option<i64>, Option<f64>, f64);

    fn batch(rows: &[Row]) -> RecordBatch {
        let columns: [(&str, ArrayRef, bool); 3] = [
            ("a", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0))), true),
            ("b", Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.1))), true),
            ("c", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2))), false),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let float = prop_oneof![-2.0..2.0, Just(0.0), Just(-0.0), Just(f64::NAN), Just(1e300), Just(1.0)];
        let row = (proptest::option::of(0i64..3), proptest::option::of(float.clone()), float);
        proptest::collection::vec(row, 0..12)
    }

    fn counts(expected: &[Row], found: &[Row]) -> (usize, usize) {
        let (expected, found) = (batch(expected), batch(found));
        let difference = compare(std::slice::from_ref(&expected), &[found], &expected.schema()).unwrap();
        difference.map_or((0, 0), |difference| (difference.missing, difference.extra))
    }

    proptest! {
        #[test]
        fn order_and_the_last_digits_do_not_matter(
            (rows, shuffled) in rows().prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())),
        ) {
            let nudged: Vec<Row> =
                shuffled.iter().map(|row| (row.0, row.1.map(|b| b * (1.0 + 1e-11)), row.2 * (1.0 - 1e-11))).collect();
            prop_assert_eq!(counts(&rows, &nudged), (0, 0));
        }

        #[test]
        fn rows_that_lack_or_are_others_are_counted(
            rows in rows().prop_filter("some", |rows| !rows.is_empty()), at: prop::sample::Index,
        ) {
            let at = at.index(rows.len());
            let mut fewer = rows.clone();
            fewer.remove(at);
            prop_assert_eq!(counts(&rows, &fewer), (1, 0));
            prop_assert_eq!(counts(&fewer, &rows), (0, 1));
            let mut other = rows.clone();
            other[at].2 = -7.0;
            prop_assert_eq!(counts(&rows, &other), (1, 1));
        }
    }

    #[test]
    fn by_key_the_order_matters() {
        let row = |key, value| (Some(key), None, value);
        let by_key = |expected: &[Row], found: &[Row]| {
            let (expected, found) = (batch(expected), batch(found));
            let schema = expected.schema();
            compare_by_key(&[expected], &[found], &schema, &[0]).unwrap().map(|difference| difference.rows)
        };
        let changes = [row(1, 1.0), row(2, 5.0), row(1, 2.0)];
        assert_eq!(by_key(&changes, &[row(2, 5.0), row(1, 1.0), row(1, 2.0)]), None);
        let swapped = by_key(&changes, &[row(2, 5.0), row(1, 2.0), row(1, 1.0)]).unwrap();
        assert_eq!(swapped, ["- 1 | NULL | 1", "- 1 | NULL | 2", "+ 1 | NULL | 2", "+ 1 | NULL | 1"]);
        assert_eq!(by_key(&changes, &changes[..2]).unwrap(), ["- 1 | NULL | 2"]);
        assert_eq!(by_key(&changes[..2], &changes).unwrap(), ["+ 1 | NULL | 2"]);
    }

    #[test]
    fn other_columns_are_an_error() {
        let (rows, schema) = (batch(&[]), batch(&[]).schema());
        let fewer = rows.project(&[0, 1]).unwrap();
        let error = compare(&[rows], &[fewer], &schema).unwrap_err().to_string();
        assert!(error.contains("columns of Int64, Float64 instead of Int64, Float64, Float64"), "{error}");
    }
}
