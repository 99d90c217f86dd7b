//! first_value, last_value, lag, and any other aggregate: functions that look at earlier rows themselves.
//!
//! A key remembers where its last rows are: a chunk (the argument column of some released rows) and a row in it.
//! Values of any type are then picked with one `interleave`. Chunks pile up while some key points into them, so now
//! and then what is still pointed at is copied into one new chunk.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array, new_empty_array};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::{RowsFunction, RowsFunctionKind, RowsState};

const CHUNKS_MAX: usize = 64;

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
    Ok(Box::new(Lookback { looks, keeps, argument, chunks: vec![], groups: vec![] }))
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
        }
        kept.push_back(place);
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

    /// Copies what is still pointed at into one chunk.
    fn compact(&mut self) -> Result<()> {
        if self.chunks.len() < CHUNKS_MAX {
            return Ok(());
        }
        let places: Vec<Place> = self.groups.iter().flatten().copied().collect();
        let chunk = self.pick(&places)?;
        self.groups.iter_mut().flatten().enumerate().for_each(|(row, place)| *place = (0, row));
        self.chunks = vec![chunk];
        Ok(())
    }
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
        if live.is_some() {
            return Err(internal_datafusion_err!("FILTER in this OVER column has no streaming form"));
        }
        self.compact()?;
        self.groups.resize(groups_total, VecDeque::new());
        let chunk = self.chunks.len();
        self.chunks.push(Arc::clone(argument));
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

    fn snapshot(&self) -> Result<RecordBatch> {
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
        self.chunks = vec![Arc::clone(values)];
        self.groups = vec![];
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
        let chunks = self.chunks.iter().map(|chunk| chunk.get_array_memory_size());
        let places = self.groups.iter().map(|kept| kept.capacity() * size_of::<Place>());
        chunks.sum::<usize>() + places.sum::<usize>()
    }
}
