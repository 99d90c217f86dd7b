//! The best rows of each group, at most a fixed number of them.
//!
//! ```text
//!   batch ─▶ begin ─▶ offer each row: is it better than the worst that its group keeps? ─▶ end: copy the survivors
//! ```
//!
//! A group is a short list of places, best first; the rows themselves lie in chunks, which the batch at hand is one of
//! while its rows are offered. Rows that come too late to be among the best of a full group are turned away by the
//! first bytes of their keys, before anything is copied. Of equal rows the one that came first is the better.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{SortOptions, interleave, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::row::{Row, RowConverter, Rows, SortField};
use datafusion::common::{HashMap, Result, internal_datafusion_err};

use crate::operator::pool::array_without_slack;

/// Rows of a chunk that is still joined with its neighbour.
const JOINED_ROWS_MAX: usize = 8192;
/// Rows that have left and may still be held, besides as many as there are.
const DEAD_ROWS_MAX: usize = 1024;

/// Where a row lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    chunk: u32,
    row: u32,
}

/// A row that has come among the best of its group.
pub(super) struct Entered {
    /// Its rank, from 0.
    pub(super) rank: usize,
    /// The row that is no longer among them.
    pub(super) evicted: Option<Place>,
}

/// A row of a snapshot.
pub(super) struct Listed {
    pub(super) group: u32,
    /// Whether it is of what a list was when its changes were last told.
    pub(super) is_told: bool,
    /// The row of the list now that is the same.
    pub(super) same: Option<u32>,
}

/// What rows are kept, and by which order.
#[derive(Debug, Clone)]
pub(crate) struct BestRowsSpec {
    /// How many rows of a group are kept.
    pub(crate) at_most: usize,
    /// Types of what rows are ordered by, and which way.
    pub(crate) order: Vec<(DataType, SortOptions)>,
}

/// The best rows of each group.
pub(super) struct BestRows {
    at_most: usize,
    converter: RowConverter,
    chunks: Vec<Chunk>,
    /// By group, best first.
    groups: Vec<Vec<Place>>,
    /// By group, the first bytes of the worst key that is kept, if the group is full.
    bounds: Vec<u128>,
    /// What the lists of some groups were when their changes were last told, in the order in which they changed.
    told: HashMap<u32, Vec<Place>>,
    told_order: Vec<u32>,
    /// Groups that rows of the batch at hand have entered.
    touched: Vec<u32>,
    /// Rows in all lists, and in all chunks.
    kept: usize,
    stored: usize,
    /// Room for the keys of the next batch.
    spare_keys: Option<Rows>,
    bytes: usize,
}

/// Rows, and the keys that they are ordered by.
struct Chunk {
    columns: Vec<ArrayRef>,
    keys: Rows,
    /// The group of each row; none for a batch that is being offered.
    owners: Vec<u32>,
    bytes: usize,
}

impl Chunk {
    fn new(columns: Vec<ArrayRef>, keys: Rows, owners: Vec<u32>) -> Self {
        let arrays = columns.iter().map(|column| column.get_array_memory_size());
        let bytes = arrays.sum::<usize>() + keys.size() + owners.capacity() * size_of::<u32>();
        Self { columns, keys, owners, bytes }
    }
}

/// The first bytes of a key: of two keys, one that begins lower is lower.
fn prefix(key: Row<'_>) -> u128 {
    let mut bytes = [0; 16];
    let data = key.data();
    let length = data.len().min(16);
    bytes[..length].copy_from_slice(&data[..length]);
    u128::from_be_bytes(bytes)
}

impl BestRows {
    pub(super) fn try_new(spec: &BestRowsSpec) -> Result<Self> {
        let field =
            |(data_type, options): &(DataType, SortOptions)| SortField::new_with_options(data_type.clone(), *options);
        Ok(Self {
            at_most: spec.at_most,
            converter: RowConverter::new(spec.order.iter().map(field).collect())?,
            chunks: vec![],
            groups: vec![],
            bounds: vec![],
            told: HashMap::default(),
            told_order: vec![],
            touched: vec![],
            kept: 0,
            stored: 0,
            spare_keys: None,
            bytes: 0,
        })
    }

    /// Begins to offer the rows of a batch: the columns that are kept, and those that rows are ordered by.
    pub(super) fn begin(&mut self, columns: &[ArrayRef], order: &[ArrayRef], groups_total: usize) -> Result<()> {
        let mut keys = match self.spare_keys.take() {
            Some(mut keys) => {
                keys.clear();
                keys
            }
            None => self.converter.empty_rows(0, 0),
        };
        self.converter.append(&mut keys, order)?;
        self.groups.resize_with(groups_total, Vec::new);
        self.bounds.resize(groups_total, u128::MAX);
        self.chunks.push(Chunk { columns: columns.to_vec(), keys, owners: vec![], bytes: 0 });
        Ok(())
    }

    /// Whether a row of the batch comes among the best of its group. Groups are numbered from 0, below the total.
    pub(super) fn offer(&mut self, row: usize, group: usize) -> Option<Entered> {
        let chunk = self.chunks.last()?;
        let key = chunk.keys.row(row);
        let begins = prefix(key);
        let places = self.groups.get(group)?;
        let is_full = places.len() == self.at_most;
        if is_full {
            let bound = self.bounds[group];
            if begins > bound || (begins == bound && places.last().is_none_or(|worst| self.key(*worst) <= key)) {
                return None;
            }
        }
        let rank = places.partition_point(|place| self.key(*place) <= key);
        let place = Place { chunk: (self.chunks.len() - 1) as u32, row: row as u32 };
        let places = &mut self.groups[group];
        let evicted = if is_full { places.pop() } else { None };
        places.insert(rank, place);
        self.touched.push(group as u32);
        self.kept += usize::from(evicted.is_none());
        if places.len() == self.at_most
            && let Some(worst) = places.last().copied()
        {
            self.bounds[group] = prefix(self.key(worst));
        }
        Some(Entered { rank, evicted })
    }

    /// The rows of a group, best first.
    pub(super) fn places(&self, group: usize) -> &[Place] {
        self.groups.get(group).map_or(&[], Vec::as_slice)
    }

    fn key(&self, place: Place) -> Row<'_> {
        self.chunks[place.chunk as usize].keys.row(place.row as usize)
    }

    /// Ends the batch: what it has of its own is copied, and it is let go.
    pub(super) fn end(&mut self) -> Result<()> {
        let Some(batch) = self.chunks.pop() else { return Ok(()) };
        let current = self.chunks.len() as u32;
        let (mut rows, mut owners) = (vec![], vec![]);
        self.touched.sort_unstable();
        self.touched.dedup();
        for group in self.touched.drain(..) {
            let of_group = rows.len();
            let own = |place: &&mut Place| place.chunk == current;
            for place in self.groups.get_mut(group as usize).into_iter().flatten().filter(own) {
                let row = std::mem::replace(&mut place.row, rows.len() as u32);
                rows.push(row);
            }
            // A row may be in both lists.
            for place in self.told.get_mut(&group).into_iter().flatten().filter(own) {
                let known = rows[of_group..].iter().position(|row| *row == place.row);
                let row = std::mem::replace(&mut place.row, known.map_or(rows.len(), |known| of_group + known) as u32);
                if known.is_none() {
                    rows.push(row);
                }
            }
            owners.resize(rows.len(), group);
        }
        if !rows.is_empty() {
            let mut keys = self.converter.empty_rows(rows.len(), 0);
            rows.iter().for_each(|row| keys.push(batch.keys.row(*row as usize)));
            self.stored += rows.len();
            let rows = UInt32Array::from(rows);
            let copied = |column: &ArrayRef| Ok::<_, ArrowError>(array_without_slack(&take(column, &rows, None)?));
            let columns = batch.columns.iter().map(copied).collect::<Result<_, _>>()?;
            let chunk = Chunk::new(columns, keys, owners);
            self.bytes += chunk.bytes;
            self.chunks.push(chunk);
        }
        self.spare_keys = Some(batch.keys);
        self.settle()
    }

    /// Joins small neighbours, as digits carry in a binary counter, and lets go of rows that have left.
    fn settle(&mut self) -> Result<()> {
        let told = self.told.values().map(Vec::len).sum::<usize>();
        if self.stored > 2 * (self.kept + told) + DEAD_ROWS_MAX {
            return self.join(0);
        }
        while let [.., older, newer] = self.chunks.as_slice() {
            let (older_rows, newer_rows) = (older.owners.len(), newer.owners.len());
            if older_rows > 2 * newer_rows || older_rows + newer_rows > JOINED_ROWS_MAX {
                break;
            }
            self.join(self.chunks.len() - 2)?;
        }
        Ok(())
    }

    /// Makes one chunk of those from `from` on.
    fn join(&mut self, from: usize) -> Result<()> {
        let chunks = self.chunks.split_off(from);
        let mut keys = self.converter.empty_rows(0, 0);
        let (mut sources, mut owners) = (vec![], vec![]);
        for (index, chunk) in chunks.iter().enumerate() {
            self.bytes -= chunk.bytes;
            self.stored -= chunk.owners.len();
            for (row, group) in chunk.owners.iter().enumerate() {
                let old = Place { chunk: (from + index) as u32, row: row as u32 };
                // New places are at or before the old ones, so none of them is looked for again.
                let new = Place { chunk: from as u32, row: sources.len() as u32 };
                let lists = [self.groups.get_mut(*group as usize), self.told.get_mut(group)];
                let mut lives = false;
                for place in lists.into_iter().flatten().flatten().filter(|place| **place == old) {
                    *place = new;
                    lives = true;
                }
                if lives {
                    sources.push((index, row));
                    owners.push(*group);
                    keys.push(chunk.keys.row(row));
                }
            }
        }
        if owners.is_empty() {
            return Ok(());
        }
        let width = chunks.first().map_or(0, |chunk| chunk.columns.len());
        let chunks: Vec<&Chunk> = chunks.iter().collect();
        let joined = |column| interleaved(&chunks, column, &sources).map(|column| array_without_slack(&column));
        let columns = (0..width).map(joined).collect::<Result<_>>()?;
        let chunk = Chunk::new(columns, keys, owners);
        self.bytes += chunk.bytes;
        self.stored += chunk.owners.len();
        self.chunks.push(chunk);
        Ok(())
    }

    /// The kept columns of some rows, in that order; of a batch too that is still being offered.
    pub(super) fn gather(&self, places: &[Place]) -> Result<Vec<ArrayRef>> {
        let sources: Vec<_> = places.iter().map(|place| (place.chunk as usize, place.row as usize)).collect();
        let chunks: Vec<&Chunk> = self.chunks.iter().collect();
        let width = chunks.first().map_or(0, |chunk| chunk.columns.len());
        (0..width).map(|column| interleaved(&chunks, column, &sources)).collect()
    }

    /// What some rows are ordered by.
    pub(super) fn gather_order(&self, places: &[Place]) -> Result<Vec<ArrayRef>> {
        Ok(self.converter.convert_rows(places.iter().map(|place| self.key(*place)))?)
    }

    /// Takes all lists out: how many rows each has, and their places.
    pub(super) fn take_lists(&mut self) -> (Vec<usize>, Vec<Place>) {
        let groups = std::mem::take(&mut self.groups);
        self.bounds.clear();
        let lengths = groups.iter().map(Vec::len).collect();
        (lengths, groups.concat())
    }

    /// Remembers what the list of a group was before a row entered it, if its changes have all been told.
    pub(super) fn remember_before(&mut self, group: usize, entered: &Entered) {
        let index = group as u32;
        if self.told.contains_key(&index) {
            return;
        }
        let mut before = self.places(group).to_vec();
        before.remove(entered.rank);
        before.extend(entered.evicted);
        self.told.insert(index, before);
        self.told_order.push(index);
    }

    /// Takes out what the lists were that have changed.
    pub(super) fn take_told(&mut self) -> Vec<(usize, Vec<Place>)> {
        let order = std::mem::take(&mut self.told_order);
        let mut told = std::mem::take(&mut self.told);
        order.into_iter().filter_map(|group| Some((group as usize, told.remove(&group)?))).collect()
    }

    /// Whether changes of a group's list are still to be told.
    pub(super) fn has_told(&self, group: usize) -> bool {
        self.told.contains_key(&(group as u32))
    }

    /// Tells nothing of the lists of groups whose keys have begun anew.
    pub(super) fn leave_out(&mut self, groups: &[usize]) {
        let removed = groups.iter().filter(|group| self.told.remove(&(**group as u32)).is_some()).count();
        if removed > 0 {
            self.told_order.retain(|group| self.told.contains_key(group));
        }
    }

    /// The lists that have changed, and what they were.
    pub(super) fn told(&self) -> impl Iterator<Item = (usize, &[Place])> {
        self.told_order.iter().filter_map(|group| Some((*group as usize, self.told.get(group)?.as_slice())))
    }

    /// Puts back the rows of all lists, best first, and of what lists were.
    pub(super) fn restore(
        &mut self,
        columns: &[ArrayRef],
        order: &[ArrayRef],
        listed: &[Listed],
        groups_total: usize,
    ) -> Result<()> {
        self.begin(columns, order, groups_total)?;
        let chunk = (self.chunks.len() - 1) as u32;
        for (row, Listed { group, is_told, same }) in listed.iter().enumerate() {
            let place = Place { chunk, row: same.unwrap_or(row as u32) };
            if *is_told {
                self.told.entry(*group).or_default().push(place);
            } else {
                let wrong = || internal_datafusion_err!("a row of a group that is not known");
                self.groups.get_mut(*group as usize).ok_or_else(wrong)?.push(place);
                self.kept += 1;
            }
            self.touched.push(*group);
        }
        for group in 0..groups_total {
            if self.groups[group].len() == self.at_most
                && let Some(worst) = self.groups[group].last().copied()
            {
                self.bounds[group] = prefix(self.key(worst));
            }
        }
        self.end()
    }

    /// Notes that the lists of these groups have changed, in that order; those that were empty have no rows to say so.
    pub(super) fn restore_told(&mut self, groups: Vec<u32>) {
        groups.iter().for_each(|group| {
            self.told.entry(*group).or_default();
        });
        self.told_order = groups;
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        let lists = self.groups.capacity() * (size_of::<Vec<Place>>() + size_of::<u128>());
        let spare = self.spare_keys.as_ref().map_or(0, Rows::size);
        self.bytes + spare + lists + self.kept * size_of::<Place>()
    }
}

fn interleaved(chunks: &[&Chunk], column: usize, sources: &[(usize, usize)]) -> Result<ArrayRef> {
    let arrays: Vec<_> = chunks.iter().map(|chunk| chunk.columns[column].as_ref()).collect();
    Ok(interleave(&arrays, sources)?)
}
