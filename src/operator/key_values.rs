//! The values of keys by their numbers, for operators that give rows of some groups while they keep others.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::{Result, internal_datafusion_err};

/// Keys as rows, in the order in which they were met.
pub(super) struct KeyValues {
    types: Vec<DataType>,
    /// None without keys.
    rows: Option<(RowConverter, Rows)>,
    /// The row of each group.
    places: Vec<usize>,
}

const UNKNOWN: usize = usize::MAX;

impl KeyValues {
    /// An empty store of keys of some columns.
    pub(super) fn try_new(schema: &SchemaRef) -> Result<Self> {
        let types: Vec<DataType> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let rows = match types.as_slice() {
            [] => None,
            types => {
                let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
                let rows = converter.empty_rows(0, 0);
                Some((converter, rows))
            }
        };
        Ok(Self { types, rows, places: vec![] })
    }

    /// Remembers the keys of groups that are new, given the group of each row.
    pub(super) fn learn(&mut self, groups: &[usize], groups_total: usize, keys: &[ArrayRef]) -> Result<()> {
        self.places.resize(groups_total, UNKNOWN);
        let Some((converter, rows)) = &mut self.rows else { return Ok(()) };
        let (mut new, mut next) = (vec![], rows.num_rows());
        for (row, group) in groups.iter().enumerate() {
            if self.places[*group] == UNKNOWN {
                self.places[*group] = next;
                next += 1;
                new.push(row as u32);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let new = UInt32Array::from(new);
        let columns =
            keys.iter().zip(&self.types).map(|(key, data_type)| Ok(cast(&take(key, &new, None)?, data_type)?));
        converter.append(rows, &columns.collect::<Result<Vec<_>>>()?)?;
        Ok(())
    }

    /// The key columns of some groups, in that order.
    pub(super) fn columns(&self, groups: &[usize]) -> Result<Vec<ArrayRef>> {
        let Some((converter, rows)) = &self.rows else { return Ok(vec![]) };
        let row =
            |group: &usize| self.places.get(*group).filter(|place| **place != UNKNOWN).map(|place| rows.row(*place));
        let found: Option<Vec<_>> = groups.iter().map(row).collect();
        let found = found.ok_or_else(|| internal_datafusion_err!("a group whose key is not known"))?;
        Ok(converter.convert_rows(found)?)
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        let rows = self.rows.as_ref().map_or(0, |(converter, rows)| converter.size() + rows.size());
        rows + self.places.capacity() * size_of::<usize>()
    }
}
