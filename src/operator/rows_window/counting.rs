//! row_number, rank and dense_rank: a key's place is counted, and no row is kept.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, StructArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{Result, internal_datafusion_err};

use super::RowsState;
use super::spec::RowsFunctionKind;
use crate::operator::ticks;

/// The state of a function that counts; none if it does not.
pub(super) fn state(kind: &RowsFunctionKind) -> Option<Box<dyn RowsState>> {
    let counts = match kind {
        RowsFunctionKind::RowNumber => |place: &Place| place.rows,
        RowsFunctionKind::Rank => |place: &Place| place.rank,
        RowsFunctionKind::DenseRank => |place: &Place| place.dense_rank,
        _ => return None,
    };
    Some(Box::new(Counting { counts, groups: vec![] }))
}

/// How far a key has come.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    rows: i64,
    rank: i64,
    dense_rank: i64,
    time: Option<i64>,
}

struct Counting {
    counts: fn(&Place) -> i64,
    groups: Vec<Place>,
}

impl RowsState for Counting {
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        _: Option<&BooleanArray>,
    ) -> Result<ArrayRef> {
        let times = arguments.first().ok_or_else(|| internal_datafusion_err!("a rank without an order"))?;
        self.groups.resize(groups_total, Place::default());
        let times = ticks(times)?;
        let values = groups.iter().zip(&times).map(|(group, time)| {
            let place = &mut self.groups[*group];
            if place.rows == 0 || place.time != time {
                place.rank = place.rows + 1;
                place.dense_rank += 1;
                place.time = time;
            }
            place.rows += 1;
            (self.counts)(place) as u64
        });
        Ok(Arc::new(values.collect::<UInt64Array>()))
    }

    fn forget(&mut self, groups: &[usize]) -> Result<()> {
        for group in groups {
            if let Some(place) = self.groups.get_mut(*group) {
                *place = Place::default();
            }
        }
        Ok(())
    }

    fn rows_of(&mut self, groups: &[usize]) -> Result<ArrayRef> {
        let places: Vec<Place> =
            groups.iter().map(|group| self.groups.get(*group).copied().unwrap_or_default()).collect();
        let column = |of: fn(&Place) -> i64| places.iter().map(of).collect::<Int64Array>();
        let times: Int64Array = places.iter().map(|place| place.time).collect();
        let counts = [column(|place| place.rows), column(|place| place.rank), column(|place| place.dense_rank), times];
        let fields = ["rows", "rank", "dense_rank", "time"].map(|name| Field::new(name, DataType::Int64, true));
        let columns = counts.map(|column| Arc::new(column) as ArrayRef);
        Ok(Arc::new(StructArray::try_new(fields.to_vec().into(), columns.to_vec(), None)?))
    }

    fn put(&mut self, groups: &[usize], groups_total: usize, rows: &ArrayRef) -> Result<()> {
        let wrong = || internal_datafusion_err!("the state of another function");
        let columns = rows.as_struct_opt().ok_or_else(wrong)?.columns().iter();
        let columns: Option<Vec<_>> = columns.map(|column| column.as_primitive_opt::<Int64Type>()).collect();
        let [counts, rank, dense_rank, time] = columns.as_deref().unwrap_or_default() else { return Err(wrong()) };
        self.groups.resize(groups_total, Place::default());
        for ((row, time), group) in time.iter().enumerate().zip(groups) {
            let (rank, dense_rank) = (rank.value(row), dense_rank.value(row));
            self.groups[*group] = Place { rows: counts.value(row), rank, dense_rank, time };
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Place>()
    }
}
