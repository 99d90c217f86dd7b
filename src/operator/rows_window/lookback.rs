//! first_value, last_value and lag: functions that look at earlier rows themselves.
//!
//! A key remembers where its last rows are: a chunk (the argument column of some released rows) and a row in it.
//! Values of any type are then picked with one `interleave`. Chunks pile up while some key points into them, so now
//! and then what is still pointed at is copied into one new chunk.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, new_empty_array};
use arrow::compute::interleave;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};

use super::RowsState;
use super::lists::{lists, of_lists};
use super::spec::RowsFunctionKind;
use crate::operator::pool::{array_without_slack, bytes_of};

/// Chunks before it is asked whether copying pays.
const CHUNKS_FEW: usize = 64;
/// Chunks in any case.
const CHUNKS_MAX: usize = 4096;

/// Where a value is: chunk and row.
type Place = (usize, usize);

/// The state of a function that looks back over so many rows, all without a limit; none if it is of another kind.
pub(super) fn state(
    kind: &RowsFunctionKind,
    preceding: Option<Option<usize>>,
    argument: DataType,
) -> Option<Box<dyn RowsState>> {
    let (looks, keeps) = match kind {
        RowsFunctionKind::LastValue => preceding.map(|_| (Looks::Current, Some(0)))?,
        // The first row of a key's frame: the oldest of those kept.
        RowsFunctionKind::FirstValue => (Looks::Oldest, preceding?.map(|rows| rows.saturating_add(1))),
        RowsFunctionKind::Shift { offset: offset @ ..=0, default } => {
            let offset = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
            (Looks::Back { offset, default: default.clone() }, Some(offset.saturating_add(1)))
        }
        _ => return None,
    };
    Some(Box::new(Lookback {
        looks,
        keeps,
        argument,
        chunks: vec![],
        groups: vec![],
        kept_rows: 0,
        chunk_rows: 0,
        chunk_bytes: 0,
    }))
}

/// The place of a row before a key's first.
const NOWHERE: Place = (usize::MAX, 0);

/// What a function wants of the rows that are kept.
enum Looks {
    Current,
    Oldest,
    Back { offset: usize, default: ScalarValue },
}

struct Lookback {
    looks: Looks,
    /// Rows to remember for each key, the current one included; none without a limit.
    keeps: Option<usize>,
    argument: DataType,
    chunks: Vec<ArrayRef>,
    groups: Vec<VecDeque<Place>>,
    /// Rows that keys point at.
    kept_rows: usize,
    /// Rows of all chunks.
    chunk_rows: usize,
    /// Bytes of all chunks.
    chunk_bytes: usize,
}

impl Lookback {
    fn remember(&mut self, group: usize, place: Place) {
        let kept = &mut self.groups[group];
        // Of all rows, first_value needs only the first.
        if matches!(self.looks, Looks::Oldest) && self.keeps.is_none() && !kept.is_empty() {
            return;
        }
        if self.keeps.is_some_and(|keeps| kept.len() >= keeps.max(1)) {
            kept.pop_front();
            self.kept_rows -= 1;
        }
        kept.push_back(place);
        self.kept_rows += 1;
    }

    fn pick(&self, places: &[Place]) -> Result<ArrayRef> {
        if places.is_empty() {
            return Ok(new_empty_array(&self.argument));
        }
        let chunks: Vec<&dyn Array> = self.chunks.iter().map(AsRef::as_ref).collect();
        Ok(interleave(&chunks, places)?)
    }

    /// The values at these places, and `default` where there is none.
    fn pick_or(&self, places: &[Place], default: &ScalarValue) -> Result<ArrayRef> {
        let default = default.cast_to(&self.argument)?.to_array()?;
        let mut chunks: Vec<&dyn Array> = self.chunks.iter().map(AsRef::as_ref).collect();
        chunks.push(&default);
        let last = chunks.len() - 1;
        let places = places.iter().map(|place| if *place == NOWHERE { (last, 0) } else { *place });
        Ok(interleave(&chunks, &places.collect::<Vec<_>>())?)
    }

    /// Copies what is still pointed at into one chunk, when that frees half of the rows or chunks are very many.
    fn compact(&mut self) -> Result<()> {
        let pays = self.chunk_rows >= 2 * self.kept_rows || self.chunks.len() >= CHUNKS_MAX;
        if self.chunks.len() < CHUNKS_FEW || !pays {
            return Ok(());
        }
        let places: Vec<Place> = self.groups.iter().flatten().copied().collect();
        let chunk = array_without_slack(&self.pick(&places)?);
        self.groups.iter_mut().flatten().enumerate().for_each(|(row, place)| *place = (0, row));
        (self.chunks, self.chunk_rows, self.chunk_bytes) = (vec![], 0, 0);
        self.add_chunk(chunk);
        Ok(())
    }

    fn add_chunk(&mut self, chunk: ArrayRef) {
        self.chunk_rows += chunk.len();
        self.chunk_bytes += bytes_of(&chunk);
        self.chunks.push(chunk);
    }
}

impl RowsState for Lookback {
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        _: Option<&BooleanArray>,
    ) -> Result<ArrayRef> {
        let argument = arguments.first().ok_or_else(|| internal_datafusion_err!("a value without an argument"))?;
        if matches!(self.looks, Looks::Current) {
            return Ok(Arc::clone(argument));
        }
        self.compact()?;
        self.groups.resize(groups_total, VecDeque::new());
        let chunk = self.chunks.len();
        self.add_chunk(Arc::clone(argument));
        let mut places = Vec::with_capacity(groups.len());
        for (row, group) in groups.iter().enumerate() {
            self.remember(*group, (chunk, row));
            let kept = &self.groups[*group];
            match &self.looks {
                Looks::Oldest => places.extend(kept.front().copied()),
                Looks::Back { offset, .. } => {
                    let index = kept.len().checked_sub(offset.saturating_add(1));
                    places.push(index.and_then(|index| kept.get(index)).copied().unwrap_or(NOWHERE));
                }
                Looks::Current => {}
            }
        }
        match &self.looks {
            Looks::Back { default, .. } => self.pick_or(&places, default),
            _ => self.pick(&places),
        }
    }

    fn forget(&mut self, groups: &[usize]) -> Result<()> {
        for group in groups {
            if let Some(kept) = self.groups.get_mut(*group) {
                self.kept_rows -= kept.len();
                *kept = VecDeque::new();
            }
        }
        Ok(())
    }

    fn rows_of(&mut self, groups: &[usize]) -> Result<ArrayRef> {
        let none = VecDeque::new();
        let kept = |group: &usize| self.groups.get(*group).unwrap_or(&none);
        let places: Vec<Place> = groups.iter().flat_map(kept).copied().collect();
        lists(groups.iter().map(|group| kept(group).len()), array_without_slack(&self.pick(&places)?))
    }

    fn put(&mut self, groups: &[usize], groups_total: usize, rows: &ArrayRef) -> Result<()> {
        let (values, ranges) = of_lists(rows)?;
        self.groups.resize(groups_total, VecDeque::new());
        let chunk = self.chunks.len();
        self.kept_rows += values.len();
        self.add_chunk(values);
        for (group, rows) in groups.iter().zip(ranges) {
            self.groups[*group] = rows.map(|row| (chunk, row)).collect();
        }
        Ok(())
    }

    fn size(&self) -> usize {
        let places = self.groups.iter().map(|kept| kept.capacity() * size_of::<Place>());
        self.chunk_bytes + places.sum::<usize>()
    }
}
