//! first_value, last_value, lag, and any other aggregate over a frame that has a beginning: functions that look at
//! earlier rows themselves.
//!
//! A key remembers where its last rows are: a chunk (the argument column of some released rows) and a row in it.
//! Values of any type are then picked with one `interleave`. Chunks pile up while some key points into them, so now
//! and then what is still pointed at is copied into one new chunk.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array, new_empty_array};
use arrow::compute::{interleave, not, nullif, prep_null_mask_filter};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::waiting::{array_without_slack, bytes_of};
use super::{RowsFunction, RowsFunctionKind, RowsState};

/// Chunks before it is asked whether copying pays.
const CHUNKS_FEW: usize = 64;
/// Chunks in any case.
const CHUNKS_MAX: usize = 4096;

/// Where a value is: chunk and row.
type Place = (usize, usize);

/// The state of a function that looks back.
pub(super) fn state(function: &RowsFunction, argument: DataType) -> Result<Box<dyn RowsState>> {
    let (looks, keeps) = match &function.kind {
        RowsFunctionKind::LastValue => (Looks::Current, Some(0)),
        // The first row of a key's frame: the oldest of those kept.
        RowsFunctionKind::FirstValue => (Looks::Oldest, function.frame.preceding.map(|rows| rows.saturating_add(1))),
        RowsFunctionKind::Lag { offset, default } => {
            (Looks::Back { offset: *offset, default: default.clone() }, Some(offset.saturating_add(1)))
        }
        RowsFunctionKind::Aggregate(aggregate) => {
            (Looks::Over(Arc::clone(aggregate)), function.frame.preceding.map(|rows| rows.saturating_add(1)))
        }
        other => {
            return Err(internal_datafusion_err!("{other:?} over {argument} has no streaming form"));
        }
    };
    Ok(Box::new(Lookback {
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
    Over(Arc<AggregateFunctionExpr>),
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

    fn aggregate(&self, aggregate: &AggregateFunctionExpr, kept: &VecDeque<Place>) -> Result<ScalarValue> {
        let places: Vec<Place> = kept.iter().copied().collect();
        let mut accumulator = aggregate.create_accumulator()?;
        accumulator.update_batch(&[self.pick(&places)?])?;
        accumulator.evaluate()
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

/// The values whose rows `live` lets pass, and null for the others. They keep their place in the frame; the
/// aggregates that take a FILTER pass over nulls.
fn only_live(values: &ArrayRef, live: Option<&BooleanArray>) -> Result<ArrayRef> {
    let Some(live) = live else { return Ok(Arc::clone(values)) };
    let live = if live.null_count() > 0 { prep_null_mask_filter(live) } else { live.clone() };
    Ok(nullif(values, &not(&live)?)?)
}

impl RowsState for Lookback {
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        argument: &ArrayRef,
        live: Option<&BooleanArray>,
    ) -> Result<ArrayRef> {
        if matches!(self.looks, Looks::Current) {
            return Ok(Arc::clone(argument));
        }
        if live.is_some() && !matches!(self.looks, Looks::Over(_)) {
            return Err(internal_datafusion_err!("FILTER in this OVER column has no streaming form"));
        }
        self.compact()?;
        self.groups.resize(groups_total, VecDeque::new());
        let chunk = self.chunks.len();
        self.add_chunk(only_live(argument, live)?);
        let (mut places, mut values) = (Vec::with_capacity(groups.len()), vec![]);
        for (row, group) in groups.iter().enumerate() {
            self.remember(*group, (chunk, row));
            let kept = &self.groups[*group];
            match &self.looks {
                Looks::Oldest => places.extend(kept.front().copied()),
                Looks::Back { offset, .. } => {
                    let index = kept.len().checked_sub(offset + 1);
                    places.push(index.and_then(|index| kept.get(index)).copied().unwrap_or(NOWHERE));
                }
                Looks::Over(aggregate) => values.push(self.aggregate(aggregate, kept)?),
                Looks::Current => {}
            }
        }
        match &self.looks {
            Looks::Over(aggregate) if values.is_empty() => Ok(new_empty_array(aggregate.field().data_type())),
            Looks::Over(_) => ScalarValue::iter_to_array(values),
            Looks::Back { default, .. } => self.pick_or(&places, default),
            _ => self.pick(&places),
        }
    }

    fn snapshot(&mut self) -> Result<RecordBatch> {
        let places: Vec<Place> = self.groups.iter().flatten().copied().collect();
        let groups = self.groups.iter().enumerate().flat_map(|(group, kept)| kept.iter().map(move |_| group as u64));
        let columns: Vec<ArrayRef> = vec![Arc::new(UInt64Array::from_iter_values(groups)), self.pick(&places)?];
        let fields = vec![
            Field::new("group", DataType::UInt64, false),
            Field::new("value", columns[1].data_type().clone(), true),
        ];
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    fn restore(&mut self, state: &RecordBatch) -> Result<()> {
        let wrong = || internal_datafusion_err!("a snapshot of another function");
        let [groups, values] = state.columns() else {
            return Err(wrong());
        };
        let groups = groups.as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?;
        self.add_chunk(Arc::clone(values));
        self.kept_rows = values.len();
        for (row, group) in groups.values().iter().enumerate() {
            let group = *group as usize;
            if self.groups.len() <= group {
                self.groups.resize(group + 1, VecDeque::new());
            }
            self.groups[group].push_back((0, row));
        }
        Ok(())
    }

    fn size(&self) -> usize {
        let places = self.groups.iter().map(|kept| kept.capacity() * size_of::<Place>());
        self.chunk_bytes + places.sum::<usize>()
    }
}
