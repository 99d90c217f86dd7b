//! OVER (PARTITION BY … ORDER BY event time …): each row once, with its values.
//!
//! Rows wait until the watermark has passed them; then nothing can come before them any more, and they leave sorted
//! by event time (rows of one time in order of arrival, null times at the very end), so that every value is the
//! batch answer. Where every frame ends with the current row of ROWS, they leave with their values at once, and a key
//! keeps what its frame reaches back to and no more. Other frames hold rows until theirs are complete.
//!
//! | file | what |
//! |---|---|
//! | `waiting.rs` | rows that the watermark has not passed |
//! | `sliding.rs` (by `two_stacks.rs`), `running.rs`, `lookback.rs`, `counting.rs` | values at once |
//! | `held.rs`, `pool.rs`, `history.rs`, `frames.rs`, `framed.rs` | rows and values of any other frame |
//! | `cold.rs`, `held_rows.rs`, `lists.rs` | keys that are on disk, a row for each |

mod cold;
mod counting;
mod framed;
mod frames;
mod held;
mod held_rows;
mod held_snapshot;
mod history;
mod lists;
mod lookback;
mod partitioning;
mod running;
mod sliding;
mod spec;
#[cfg(test)]
mod tests;
mod two_stacks;
mod waiting;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, concat_batches, filter, filter_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::DiskManager;
use datafusion::physical_expr::PhysicalExpr;

use super::snapshot::{counters_batch, split_counters};
use super::{Counters, Missed, MissedRows, Operator, Stamp, WATERMARK_MAX, ticks};
use cold::ColdKeys;
use held::Held;
use partitioning::Partitioning;
pub(crate) use spec::{Frame, RangeBound, RowsFunction, RowsFunctionKind, RowsWindowSpec};
use waiting::Waiting;

/// One function's state of all keys, if its values are known at once.
trait RowsState: Send {
    /// The values of rows that come in order, given the key of each.
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        live: Option<&BooleanArray>,
    ) -> Result<ArrayRef>;
    /// Empties keys, so that others can have their numbers.
    fn forget(&mut self, groups: &[usize]) -> Result<()>;
    /// The state of some keys as a column, a row for each.
    fn rows_of(&mut self, groups: &[usize]) -> Result<ArrayRef>;
    /// Puts such rows in, of keys of which there is nothing yet.
    fn put(&mut self, groups: &[usize], groups_total: usize, rows: &ArrayRef) -> Result<()>;
    /// Bytes held.
    fn size(&self) -> usize;
}

/// Computes OVER columns.
pub(crate) struct RowsWindow {
    spec: Arc<RowsWindowSpec>,
    partitions: Vec<Partitioning>,
    functions: Vec<FunctionState>,
    /// Rows of functions whose values are not known at once.
    held: Held,
    /// Keys of each partitioning that are on disk.
    cold: Vec<ColdKeys>,
    waiting: Waiting,
    has_ended: bool,
    counters: Counters,
    missed: MissedRows,
}

/// A function whose values are known at once.
struct FunctionState {
    /// Place of the function in the query.
    index: usize,
    /// Which partitioning the function goes by.
    partitioning: usize,
    state: Box<dyn RowsState>,
}

impl RowsWindow {
    pub(crate) fn try_new(spec: Arc<RowsWindowSpec>) -> Result<Self> {
        let mut partitions: Vec<Partitioning> = vec![];
        let mut functions = vec![];
        for (index, function) in spec.functions.iter().enumerate() {
            let known = partitions.iter().position(|known| known.is_of(function, &spec));
            let partitioning = match known {
                Some(known) => known,
                None => {
                    partitions.push(Partitioning::try_new(function, &spec)?);
                    partitions.len() - 1
                }
            };
            functions.extend(rows_state(function, &spec)?.map(|state| FunctionState { index, partitioning, state }));
        }
        Ok(Self {
            held: fresh_held(&spec, &partitions, &functions)?,
            cold: partitions.iter().map(|_| ColdKeys::default()).collect(),
            spec,
            partitions,
            functions,
            waiting: Waiting::default(),
            has_ended: false,
            counters: Counters::default(),
            missed: MissedRows::default(),
        })
    }

    /// Leaves out rows behind the watermark, and keeps the others waiting.
    fn admit(&mut self, batch: &RecordBatch, watermark: i64) -> Result<()> {
        let times = ticks(batch.column(self.spec.time))?;
        self.counters.null_time_rows += times.null_count() as u64;
        self.counters.used_rows += times.len() as u64;
        // A null one may hold any number: then the rows are looked at once more, and all is well.
        if !times.values().iter().any(|time| *time < watermark) {
            return self.waiting.admit(batch.clone(), &times);
        }
        let in_time = |time: Option<i64>| Some(time.is_none_or(|time| time >= watermark));
        let in_time = BooleanArray::from_iter(times.iter().map(in_time));
        let late_rows = (in_time.len() - in_time.true_count()) as u64;
        self.counters.late_rows += late_rows;
        self.counters.used_rows -= late_rows;
        for row in in_time.values().iter().enumerate().filter_map(|(row, in_time)| (!in_time).then_some(row)) {
            self.missed.add(row, Missed::All, || None);
        }
        let times = filter(&times, &in_time)?;
        self.waiting.admit(filter_record_batch(batch, &in_time)?, times.as_primitive())
    }

    /// The rows' columns, and after them the values that are known at once.
    fn compute(&mut self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let times = ticks(rows.column(self.spec.time))?;
        for index in 0..self.partitions.len() {
            let known = self.partitions[index].len();
            let keys = self.partitions[index].number(rows, &times)?;
            self.bring_back(index, known, &keys)?;
        }
        let mut columns = rows.columns().to_vec();
        for function in &mut self.functions {
            let partitioning = &self.partitions[function.partitioning];
            let spec = &self.spec.functions[function.index];
            let evaluate = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(rows)?.into_array(rows.num_rows());
            let arguments = spec.arguments.iter().map(evaluate).collect::<Result<Vec<_>>>()?;
            let live = spec.filter.as_ref().map(evaluate).transpose()?;
            let live = live.as_ref().map(|live| live.as_boolean());
            columns.push(function.state.update(&partitioning.groups, partitioning.len(), &arguments, live)?);
        }
        Ok(columns)
    }

    /// Rows with all values: `columns` as [`Self::compute`] gives them, and values by the places of their functions.
    fn complete(&self, columns: Vec<ArrayRef>, values: Vec<(usize, ArrayRef)>) -> Result<RecordBatch> {
        let (input, at_once) = columns.split_at(self.spec.input_schema.fields().len());
        let at_once = self.functions.iter().zip(at_once).map(|(function, column)| (function.index, Arc::clone(column)));
        let mut values: Vec<(usize, ArrayRef)> = at_once.chain(values).collect();
        values.sort_by_key(|(index, _)| *index);
        let mut columns = input.to_vec();
        for ((_, column), function) in values.into_iter().zip(&self.spec.functions) {
            let data_type = function.field.data_type();
            columns.push(if column.data_type() == data_type { column } else { cast(&column, data_type)? });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.spec.schema), columns)?)
    }

    fn emit(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        let released = match watermark {
            WATERMARK_MAX => self.waiting.release_all()?,
            _ => self.waiting.release(watermark)?,
        };
        for rows in released {
            let columns = self.compute(&rows)?;
            match self.held.is_empty() {
                true => output.push(self.complete(columns, vec![])?),
                false => self.held.add(&rows, columns, &self.partitions)?,
            }
        }
        for answered in self.held.answer(watermark)? {
            output.push(self.complete(answered.columns, answered.values)?);
        }
        match self.spec.ttl {
            Some(_) => self.forget(watermark),
            None => Ok(()),
        }
    }

    /// Forgets keys that no row has come for long enough. All of their rows have been answered.
    fn forget(&mut self, watermark: i64) -> Result<()> {
        for (index, partitioning) in self.partitions.iter_mut().enumerate() {
            let groups = partitioning.forget(watermark)?;
            self.counters.forgotten_keys += partitioning.take_forgotten(watermark == WATERMARK_MAX);
            if groups.is_empty() {
                continue;
            }
            for function in self.functions.iter_mut().filter(|function| function.partitioning == index) {
                function.state.forget(&groups)?;
            }
            self.held.restart(index, &groups)?;
        }
        Ok(())
    }
}

/// Nothing held of the functions that are not among those whose values are known at once.
fn fresh_held(spec: &Arc<RowsWindowSpec>, partitions: &[Partitioning], at_once: &[FunctionState]) -> Result<Held> {
    let mut held = Held::new(spec, spec.input_schema.fields().len() + at_once.len(), partitions.len());
    for (index, function) in spec.functions.iter().enumerate() {
        let partitioning = partitions.iter().position(|known| known.is_of(function, spec));
        if let Some(partitioning) = partitioning.filter(|_| at_once.iter().all(|known| known.index != index)) {
            held.add_function(index, function, partitioning)?;
        }
    }
    Ok(held)
}

/// The state of a function whose values are known at once; none if they may not be.
fn rows_state(function: &RowsFunction, spec: &RowsWindowSpec) -> Result<Option<Box<dyn RowsState>>> {
    let argument = spec.argument_type(function)?;
    let preceding = function.frame.preceding();
    if let RowsFunctionKind::Aggregate(aggregate) = &function.kind {
        let Some(preceding) = preceding else { return Ok(None) };
        return match (sliding::state(aggregate, &argument, preceding), preceding) {
            (Some(sliding), _) => Ok(Some(sliding)),
            (None, None) => running::state(aggregate).map(Some),
            (None, Some(_)) => Ok(None),
        };
    }
    Ok(counting::state(&function.kind).or_else(|| lookback::state(&function.kind, preceding, argument)))
}

impl Operator for RowsWindow {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn push(&mut self, batch: &RecordBatch, stamp: Stamp, output: &mut Vec<RecordBatch>) -> Result<()> {
        if batch.num_rows() > 0 {
            self.admit(batch, stamp.watermark)?;
        }
        self.emit(stamp.next_watermark, output)
    }

    fn finish(&mut self, output: &mut Vec<RecordBatch>) -> Result<()> {
        self.has_ended = true;
        self.emit(WATERMARK_MAX, output)
    }

    fn more(&mut self, output: &mut Vec<RecordBatch>) -> Result<bool> {
        match self.has_ended {
            true => self.answer_cold(output),
            false => Ok(false),
        }
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let mut snapshot = vec![counters_batch(&self.counters)?];
        snapshot.push(concat_batches(&self.spec.input_schema, &self.waiting.rows()?)?);
        for partitioning in &mut self.partitions {
            snapshot.push(partitioning.snapshot(&self.spec.input_schema)?);
        }
        for function in &mut self.functions {
            let groups: Vec<usize> = (0..self.partitions[function.partitioning].len()).collect();
            snapshot.push(cold::batch_of(vec![function.state.rows_of(&groups)?])?);
        }
        if !self.held.is_empty() {
            snapshot.extend(self.held.snapshot(None)?);
        }
        self.save_cold(&mut snapshot)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let (counters, parts) = split_counters(snapshot)?;
        let (waiting, parts) = parts.split_first().ok_or_else(|| internal_datafusion_err!("a snapshot too short"))?;
        if parts.len() < self.partitions.len() + self.functions.len() {
            return Err(internal_datafusion_err!("a snapshot of other OVER columns"));
        }
        let times = ticks(waiting.column(self.spec.time))?;
        self.waiting.admit(waiting.clone(), &times)?;
        self.counters = counters;
        let (keys, states) = parts.split_at(self.partitions.len());
        let (states, rest) = states.split_at(self.functions.len());
        for (partitioning, keys) in self.partitions.iter_mut().zip(keys) {
            partitioning.restore(keys)?;
        }
        for (function, state) in self.functions.iter_mut().zip(states) {
            let total = self.partitions[function.partitioning].len();
            let rows = state.columns().first().ok_or_else(|| internal_datafusion_err!("a snapshot too short"))?;
            function.state.put(&(0..total).collect::<Vec<_>>(), total, rows)?;
        }
        let cold = if self.held.is_empty() { rest } else { self.held.restore(rest)? };
        self.restore_cold(cold)
    }

    fn memory(&self) -> usize {
        let keys = self.partitions.iter().map(Partitioning::size);
        let functions = self.functions.iter().map(|function| function.state.size());
        let cold = self.cold.iter().map(ColdKeys::size);
        self.waiting.size() + self.held.size() + keys.sum::<usize>() + functions.sum::<usize>() + cold.sum::<usize>()
    }

    fn can_spill(&self) -> bool {
        (0..self.partitions.len()).any(|index| self.can_go(index))
    }

    fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        (0..self.partitions.len()).map(|index| self.spill_keys(index, disk)).sum()
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn missed(&mut self) -> &mut MissedRows {
        &mut self.missed
    }
}
