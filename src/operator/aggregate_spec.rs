//! The fixed parameters of the aggregating operators, and what they say of a batch.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::{HashMap, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::ticks;

/// The window of a GROUP BY.
#[derive(Debug)]
pub(crate) struct WindowSpec {
    /// Start of a row's window, of a timestamp type; null where the event time is.
    pub(crate) start: Arc<dyn PhysicalExpr>,
    /// Length in ticks of that type.
    pub(crate) size: i64,
}

impl WindowSpec {
    /// Whether the window that begins at `start` has ended when the watermark is `watermark`.
    pub(super) fn is_closed(&self, start: i64, watermark: i64) -> bool {
        start.saturating_add(self.size) <= watermark
    }
}

/// What a GROUP BY computes. Output: the window's start if there is a window, the keys, the aggregates.
#[derive(Debug)]
pub(crate) struct AggregateSpec {
    pub(crate) window: Option<WindowSpec>,
    /// Group keys besides the window, with their names.
    pub(crate) keys: Vec<(Arc<dyn PhysicalExpr>, String)>,
    pub(crate) aggregates: Vec<Arc<AggregateFunctionExpr>>,
    /// The FILTER of each aggregate.
    pub(crate) filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    pub(crate) schema: SchemaRef,
}

impl fmt::Display for AggregateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(window) = &self.window {
            write!(f, "window={} of {} ticks, ", window.start, window.size)?;
        }
        let keys: Vec<_> = self.keys.iter().map(|(key, _)| key.to_string()).collect();
        let aggregates: Vec<_> = self.aggregates.iter().map(|aggregate| aggregate.name()).collect();
        write!(f, "gby=[{}], aggr=[{}]", keys.join(", "), aggregates.join(", "))
    }
}

impl AggregateSpec {
    /// The fields of the keys in the output.
    pub(super) fn key_fields(&self) -> Vec<FieldRef> {
        let first = usize::from(self.window.is_some());
        self.schema.fields().iter().skip(first).take(self.keys.len()).cloned().collect()
    }

    pub(super) fn key_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.key_fields()))
    }

    /// One window with its groups and their partial states: start in ticks (null for the window of null event
    /// times, or without a window), the keys, the states of each aggregate.
    pub(super) fn state_schema(&self) -> Result<SchemaRef> {
        let mut fields = vec![Arc::new(Field::new("window_start", DataType::Int64, true))];
        fields.extend(self.key_fields().into_iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))));
        for aggregate in &self.aggregates {
            let states = aggregate.state_fields()?;
            fields.extend(states.into_iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))));
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    /// An output batch of one window's columns after the window's start.
    pub(super) fn output(&self, start: Option<i64>, rows: usize, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        let mut all = Vec::with_capacity(columns.len() + 1);
        if self.window.is_some() {
            let starts = PrimitiveArray::<Int64Type>::from_iter(std::iter::repeat_n(start, rows));
            all.push(cast(&starts, self.schema.field(0).data_type())?);
        }
        for (column, field) in columns.into_iter().zip(self.schema.fields().iter().skip(all.len())) {
            all.push(if column.data_type() == field.data_type() { column } else { cast(&column, field.data_type())? });
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), all, &options)?)
    }

    /// Whether there is a row even if no row came in: without keys and without a window.
    pub(super) fn always_answers(&self) -> bool {
        self.window.is_none() && self.keys.is_empty()
    }

    /// That row: what every aggregate says of nothing.
    pub(super) fn empty_answer(&self) -> Result<RecordBatch> {
        let values = self.aggregates.iter().map(|aggregate| aggregate.create_accumulator()?.evaluate()?.to_array());
        self.output(None, 1, values.collect::<Result<_>>()?)
    }

    /// Evaluates every expression over a batch.
    pub(super) fn evaluate(&self, batch: &RecordBatch) -> Result<Evaluated> {
        let array = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(batch)?.into_array(batch.num_rows());
        let starts = match &self.window {
            Some(window) => Some(ticks(&array(&window.start)?)?),
            None => None,
        };
        let keys = self.keys.iter().map(|(key, _)| array(key)).collect::<Result<_>>()?;
        let mut arguments = vec![];
        for aggregate in &self.aggregates {
            let exprs = aggregate.all_expressions();
            let all = exprs.args.iter().chain(&exprs.order_by_exprs).map(array).collect::<Result<Vec<_>>>()?;
            arguments.push(all);
        }
        let filter = |filter: &Option<Arc<dyn PhysicalExpr>>| match filter {
            Some(filter) => Ok(Some(array(filter)?.as_boolean().clone())),
            None => Ok(None),
        };
        let filters = self.filters.iter().map(filter).collect::<Result<_>>()?;
        Ok(Evaluated { rows: batch.num_rows(), starts, keys, arguments, filters })
    }
}

/// A batch as the operators see it.
#[derive(Debug, Clone)]
pub(super) struct Evaluated {
    pub(super) rows: usize,
    /// Starts of windows in ticks, if there is a window.
    pub(super) starts: Option<PrimitiveArray<Int64Type>>,
    pub(super) keys: Vec<ArrayRef>,
    /// Arguments of each aggregate, those of its ORDER BY after them.
    pub(super) arguments: Vec<Vec<ArrayRef>>,
    pub(super) filters: Vec<Option<BooleanArray>>,
}

/// Rows of one window.
pub(super) struct WindowRows {
    /// None for null event times.
    pub(super) start: Option<i64>,
    pub(super) rows: Evaluated,
}

/// A batch by windows.
pub(super) struct ByWindow {
    /// In order of their first rows.
    pub(super) windows: Vec<WindowRows>,
    pub(super) late_rows: u64,
    pub(super) null_time_rows: u64,
}

impl Evaluated {
    /// Divides the rows by window and leaves out those whose window closed before them. The usual batch touches one
    /// window and is not copied.
    pub(super) fn by_window(self, spec: &WindowSpec, watermark: i64) -> Result<ByWindow> {
        let Some(starts) = self.starts.clone() else {
            let windows = vec![WindowRows { start: None, rows: self }];
            return Ok(ByWindow { windows, late_rows: 0, null_time_rows: 0 });
        };
        let mut divided = ByWindow { windows: vec![], late_rows: 0, null_time_rows: starts.null_count() as u64 };
        if self.rows == 0 {
            return Ok(divided);
        }
        if starts.null_count() == 0
            && let Some(&start) = starts.values().first()
            && !spec.is_closed(start, watermark)
            && starts.values().iter().fold(0, |differs, other| differs | (other ^ start)) == 0
        {
            divided.windows.push(WindowRows { start: Some(start), rows: self });
            return Ok(divided);
        }
        for (start, rows) in rows_of_windows(&starts, spec, watermark, &mut divided.late_rows) {
            divided.windows.push(WindowRows { start, rows: self.select(rows)? });
        }
        Ok(divided)
    }

    /// Some of the rows, ascending.
    fn select<'a>(&'a self, rows: Vec<u32>) -> Result<Self> {
        let contiguous = match (rows.first(), rows.last()) {
            (Some(first), Some(last)) if (last - first) as usize + 1 == rows.len() => Some(*first as usize),
            _ => None,
        };
        let length = rows.len();
        let indices = UInt32Array::from(rows);
        // Aggregates of one column share an array, which is copied once.
        let mut copies: Vec<(&ArrayRef, ArrayRef)> = vec![];
        let mut select = |array| {
            if let Some((_, copy)) = copies.iter().find(|(known, _)| Arc::ptr_eq(known, array)) {
                return Ok(Arc::clone(copy));
            }
            let copy = match contiguous {
                Some(first) => array.slice(first, length),
                None => take(array, &indices, None)?,
            };
            copies.push((array, Arc::clone(&copy)));
            Ok::<_, ArrowError>(copy)
        };
        let mut all = |arrays: &'a [ArrayRef]| arrays.iter().map(&mut select).collect::<Result<Vec<_>, _>>();
        let keys = all(&self.keys)?;
        let arguments = self.arguments.iter().map(|arguments| all(arguments)).collect::<Result<_, _>>()?;
        let filter = |filter: &Option<BooleanArray>| match filter {
            Some(filter) => Ok(Some(take(filter, &indices, None)?.as_boolean().clone())),
            None => Ok::<_, ArrowError>(None),
        };
        let filters = self.filters.iter().map(filter).collect::<Result<_, _>>()?;
        Ok(Self { rows: length, starts: None, keys, arguments, filters })
    }
}

/// The rows of each window, in order of the windows' first rows. Few windows are open at a time, and neighbours
/// mostly share one, so they are searched from the one found last.
fn rows_of_windows(
    starts: &PrimitiveArray<Int64Type>,
    spec: &WindowSpec,
    watermark: i64,
    late_rows: &mut u64,
) -> Vec<(Option<i64>, Vec<u32>)> {
    let mut windows: Vec<(Option<i64>, Vec<u32>)> = vec![];
    let mut places = HashMap::new();
    let mut last = usize::MAX;
    for (row, start) in starts.iter().enumerate() {
        if start.is_some_and(|start| spec.is_closed(start, watermark)) {
            *late_rows += 1;
            continue;
        }
        if windows.get(last).is_none_or(|(known, _)| *known != start) {
            last = *places.entry(start).or_insert_with(|| {
                windows.push((start, vec![]));
                windows.len() - 1
            });
        }
        windows[last].1.push(row as u32);
    }
    windows
}
