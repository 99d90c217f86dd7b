//! The fixed parameters of the aggregating operators, and what they say of a batch.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, FieldRef, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::lifetimes::moments;
use super::open_windows::{Slice, Window};
use super::passes::{Pass, passes};
use super::ticks;
use super::window_shape::WindowShape;

/// The window of a GROUP BY.
#[derive(Debug, Clone)]
pub(crate) struct WindowSpec {
    /// Start of a row's pane, or of its window where that is one, of a timestamp type; null where the event time is.
    pub(crate) start: Arc<dyn PhysicalExpr>,
    pub(crate) shape: WindowShape,
}

/// How long what is kept of a key lives after its last row.
#[derive(Debug, Clone)]
pub(crate) struct Ttl {
    /// The event time.
    pub(crate) time: Arc<dyn PhysicalExpr>,
    /// In ticks of it.
    pub(crate) ticks: i64,
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
    /// Whether an answer depends on the order of rows.
    pub(crate) is_ordered: bool,
    /// Whether the only key is a number that stands for keys, see [`super::shared_keys`].
    pub(crate) is_numbered: bool,
    /// Last keys of the groups without other keys that are there even if no row came in: totals of several sets of keys.
    pub(crate) totals: Vec<ScalarValue>,
    /// Without a window, how long keys live that no row comes for; none for ever.
    pub(crate) ttl: Option<Ttl>,
    /// What follows from the others.
    pub(crate) derived: Derived,
}

/// Aggregates that are done at once.
pub(super) struct Part<'a> {
    /// The arguments of the first are what is read.
    pub(super) aggregates: Vec<usize>,
    /// None where there is only one.
    pub(super) pass: Option<&'a Pass>,
}

/// What is derived once, when it is asked for.
#[derive(Debug, Default)]
pub(crate) struct Derived {
    states: OnceLock<States>,
    passes: OnceLock<Vec<Pass>>,
}

/// What partial states look like.
#[derive(Debug)]
struct States {
    schema: SchemaRef,
    /// Columns of each aggregate.
    widths: Vec<usize>,
    are_small: bool,
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "forgotten after {} ticks of {}", self.ticks, self.time)
    }
}

impl fmt::Display for AggregateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(window) = &self.window {
            write!(f, "window={} {}, ", window.start, window.shape)?;
        }
        let keys: Vec<_> = self.keys.iter().map(|(key, _)| key.to_string()).collect();
        let aggregates: Vec<_> = self.aggregates.iter().map(|aggregate| aggregate.name()).collect();
        write!(f, "gby=[{}], aggr=[{}]", keys.join(", "), aggregates.join(", "))?;
        self.ttl.as_ref().map_or(Ok(()), |ttl| write!(f, ", {ttl}"))
    }
}

impl AggregateSpec {
    /// Number of columns that say which window a row of the output is of.
    pub(crate) fn window_columns(&self) -> usize {
        self.window.as_ref().map_or(0, |window| 1 + usize::from(window.shape.has_own_end()))
    }

    /// The fields of the keys in the output.
    pub(super) fn key_fields(&self) -> Vec<FieldRef> {
        let first = self.window_columns();
        self.schema.fields().iter().skip(first).take(self.keys.len()).cloned().collect()
    }

    pub(super) fn key_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.key_fields()))
    }

    /// Groups with their partial states: the keys, then the states of each aggregate.
    pub(super) fn state_schema(&self) -> Result<SchemaRef> {
        Ok(Arc::clone(&self.states()?.schema))
    }

    /// How many columns the partial states of each aggregate have.
    pub(super) fn state_widths(&self) -> Result<&[usize]> {
        Ok(&self.states()?.widths)
    }

    /// Whether partial states are a few plain values. Lists and sketches are too large to be copied, and too slow to bring
    /// together, for the sake of fewer accumulators.
    pub(super) fn has_small_states(&self) -> Result<bool> {
        Ok(self.states()?.are_small)
    }

    fn states(&self) -> Result<&States> {
        if let Some(states) = self.derived.states.get() {
            return Ok(states);
        }
        let mut fields = self.key_fields();
        let mut widths = vec![];
        for aggregate in &self.aggregates {
            let states = aggregate.state_fields()?;
            widths.push(states.len());
            fields.extend(states);
        }
        let fields: Vec<_> = fields.into_iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let are_small = fields.iter().all(|field| is_small(field.data_type()));
        let schema = Arc::new(Schema::new(fields));
        Ok(self.derived.states.get_or_init(|| States { schema, widths, are_small }))
    }

    /// An output batch of one window's columns after those that say which it is.
    pub(super) fn output(&self, window: Option<Window>, rows: usize, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        let bounds = [window.map(|window| window.start), window.map(|window| window.end)];
        let column = |bound| match bound {
            Some(bound) => PrimitiveArray::from_value(bound, rows),
            None => PrimitiveArray::new_null(rows),
        };
        self.with_bounds(bounds.map(column), rows, columns)
    }

    /// The same of many windows: the rows of each end at its end in `ends`.
    pub(super) fn output_of_many(
        &self,
        windows: &[Window],
        ends: &[usize],
        columns: Vec<ArrayRef>,
    ) -> Result<RecordBatch> {
        let rows = ends.last().copied().unwrap_or(0);
        let column = |bound: fn(&Window) -> i64| {
            let mut bounds = Vec::with_capacity(rows);
            windows.iter().zip(ends).for_each(|(window, end)| bounds.resize(*end, bound(window)));
            PrimitiveArray::new(bounds.into(), None)
        };
        self.with_bounds([column(|window| window.start), column(|window| window.end)], rows, columns)
    }

    fn with_bounds(
        &self,
        bounds: [PrimitiveArray<Int64Type>; 2],
        rows: usize,
        columns: Vec<ArrayRef>,
    ) -> Result<RecordBatch> {
        let mut all = Vec::with_capacity(columns.len() + 2);
        for times in bounds.iter().take(self.window_columns()) {
            all.push(cast(times, self.schema.field(0).data_type())?);
        }
        for (column, field) in columns.into_iter().zip(self.schema.fields().iter().skip(all.len())) {
            all.push(if column.data_type() == field.data_type() { column } else { cast(&column, field.data_type())? });
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), all, &options)?)
    }

    /// How windows lie that share panes. Where an aggregate asks for its rows in order, each window keeps its own groups: the
    /// rows of panes do not come one pane after the other.
    pub(super) fn overlapping(&self) -> Option<&WindowShape> {
        let shape = &self.window.as_ref()?.shape;
        (shape.pane().is_some() && !self.is_ordered).then_some(shape)
    }

    /// The end of the first window that holds a slice's pane, or is the slice, and ends after `above`.
    pub(super) fn window_after(&self, slice: Slice, above: i64) -> Option<i64> {
        match self.overlapping() {
            Some(shape) => shape.next_end(slice.pane, above),
            None => (slice.next_end > above).then_some(slice.next_end),
        }
    }

    /// The slice in the next window that holds it, after its first.
    pub(super) fn next_window(&self, slice: Slice) -> Option<Slice> {
        self.window_after(slice, slice.next_end).map(|next_end| Slice { next_end, ..slice })
    }

    /// Without keys and without a window there is one group, which is there even if no row came in.
    pub(super) fn has_one_group(&self) -> bool {
        self.window.is_none() && self.keys.is_empty()
    }

    /// The aggregates by what is done with them: those of each pass together, then each of the others by itself.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let passes = self.passes();
        let together = |pass: &Pass| pass.members.iter().map(|(aggregate, _)| *aggregate).collect::<Vec<_>>();
        let is_alone = |aggregate: &usize| !passes.iter().any(|pass| together(pass).contains(aggregate));
        let alone = (0..self.aggregates.len()).filter(is_alone).collect::<Vec<_>>();
        let of_passes = passes.iter().map(move |pass| Part { aggregates: together(pass), pass: Some(pass) });
        of_passes.chain(alone.into_iter().map(|aggregate| Part { aggregates: vec![aggregate], pass: None }))
    }

    /// The aggregates that are done together. One group has nothing to find, and is summed up faster one by one.
    pub(super) fn passes(&self) -> &[Pass] {
        self.derived.passes.get_or_init(|| match self.has_one_group() {
            true => vec![],
            false => passes(&self.aggregates, &self.filters),
        })
    }

    /// Whether there is an answer even if no row came in.
    pub(super) fn owes_answer(&self) -> bool {
        self.has_one_group() || !self.totals.is_empty()
    }

    /// That answer: what every aggregate says of nothing.
    pub(super) fn empty_answer(&self) -> Result<RecordBatch> {
        let rows = if self.has_one_group() { 1 } else { self.totals.len() };
        let keys = self.key_fields();
        let mut columns: Vec<_> = keys.iter().map(|key| new_null_array(key.data_type(), rows)).collect();
        if let Some(last) = columns.last_mut() {
            *last = ScalarValue::iter_to_array(self.totals.iter().cloned())?;
        }
        for aggregate in &self.aggregates {
            columns.push(aggregate.create_accumulator()?.evaluate()?.to_array_of_size(rows)?);
        }
        self.output(None, rows, columns)
    }

    /// Evaluates every expression over a batch that `watermark` judges, the moments of rows included.
    pub(super) fn evaluate_at(&self, batch: &RecordBatch, watermark: i64) -> Result<Evaluated> {
        let rows = self.evaluate(batch)?;
        let Some(ttl) = &self.ttl else { return Ok(rows) };
        let times = ticks(&ttl.time.evaluate(batch)?.into_array(batch.num_rows())?)?;
        Ok(Evaluated { moments: moments(&times, watermark), ..rows })
    }

    /// Evaluates every expression over a batch, but for arguments that nobody reads.
    pub(super) fn evaluate(&self, batch: &RecordBatch) -> Result<Evaluated> {
        let array = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(batch)?.into_array(batch.num_rows());
        let starts = match &self.window {
            Some(window) => Some(ticks(&array(&window.start)?)?),
            None => None,
        };
        let keys = self.keys.iter().map(|(key, _)| array(key)).collect::<Result<_>>()?;
        let mut arguments = vec![];
        for (index, aggregate) in self.aggregates.iter().enumerate() {
            if self.passes().iter().any(|pass| pass.only_counts_rows_of(index)) {
                arguments.push(vec![]);
                continue;
            }
            let exprs = aggregate.all_expressions();
            let all = exprs.args.iter().chain(&exprs.order_by_exprs).map(array).collect::<Result<Vec<_>>>()?;
            arguments.push(all);
        }
        let filter = |filter: &Option<Arc<dyn PhysicalExpr>>| match filter {
            Some(filter) => Ok(Some(array(filter)?.as_boolean().clone())),
            None => Ok(None),
        };
        let filters = self.filters.iter().map(filter).collect::<Result<_>>()?;
        Ok(Evaluated { rows: batch.num_rows(), starts, keys, arguments, filters, moments: vec![] })
    }
}

fn is_small(data_type: &DataType) -> bool {
    let is_binary = matches!(
        data_type,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
    );
    // Dictionaries that are brought together may outgrow their codes.
    let is_dictionary = matches!(data_type, DataType::Dictionary(..));
    !data_type.is_nested() && !is_binary && !is_dictionary
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
    /// Where keys are forgotten, see [`moments`].
    pub(super) moments: Vec<i64>,
}

impl Evaluated {
    /// Some of the rows, in that order.
    pub(super) fn select<'a>(&'a self, rows: Vec<u32>) -> Result<Self> {
        let is_contiguous = rows.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1));
        let contiguous = rows.first().filter(|_| is_contiguous).map(|first| *first as usize);
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
        // Keys are forgotten where rows are not divided.
        Ok(Self { rows: length, starts: None, keys, arguments, filters, moments: vec![] })
    }
}
