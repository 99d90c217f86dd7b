//! The fixed parameters of the aggregating operators, and what they say of a batch.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{FieldRef, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::{HashMap, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::open_windows::{Slice, Window};
use super::passes::{Pass, passes};
use super::window_shape::WindowShape;
use super::{Counters, Missed, MissedRows, ticks};

/// The window of a GROUP BY.
#[derive(Debug, Clone)]
pub(crate) struct WindowSpec {
    /// Start of a row's pane, or of its window where that is one, of a timestamp type; null where the event time is.
    pub(crate) start: Arc<dyn PhysicalExpr>,
    pub(crate) shape: WindowShape,
}

impl WindowSpec {
    /// The slice that a pane's rows are in when the watermark is `watermark`.
    fn place(&self, pane: i64, watermark: i64) -> Place {
        match (self.shape.next_end(pane, watermark), self.shape.next_end(pane, i64::MIN)) {
            (Some(next_end), first) => Place::In { slice: Slice { next_end, pane }, partly: first != Some(next_end) },
            (None, Some(_)) => Place::Late,
            (None, None) => Place::Between,
        }
    }

    /// Start and end of the last of a pane's windows that had closed at `watermark`.
    fn last_missed(&self, pane: i64, watermark: i64) -> Option<(i64, i64)> {
        let first = self.shape.next_end(pane, i64::MIN);
        let ends = std::iter::successors(first, |end| self.shape.next_end(pane, *end));
        let end = ends.take_while(|end| *end <= watermark).last()?;
        Some((self.shape.start(pane, end), end))
    }

    /// The windows of a slice, each as a slice of its own.
    pub(super) fn windows(&self, slice: Slice) -> impl Iterator<Item = Slice> + '_ {
        let ends = std::iter::successors(Some(slice.next_end), move |end| self.shape.next_end(slice.pane, *end));
        ends.map(move |end| Slice { next_end: end, pane: self.shape.start(slice.pane, end) })
    }
}

/// Where rows of a pane belong.
#[derive(Clone, Copy)]
enum Place {
    In {
        slice: Slice,
        /// Whether some of the pane's windows have closed.
        partly: bool,
    },
    /// All of the pane's windows have closed.
    Late,
    /// No window holds the pane.
    Between,
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
}

impl fmt::Display for AggregateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(window) = &self.window {
            write!(f, "window={} {}, ", window.start, window.shape)?;
        }
        let keys: Vec<_> = self.keys.iter().map(|(key, _)| key.to_string()).collect();
        let aggregates: Vec<_> = self.aggregates.iter().map(|aggregate| aggregate.name()).collect();
        write!(f, "gby=[{}], aggr=[{}]", keys.join(", "), aggregates.join(", "))
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
        let schema = Arc::new(Schema::new(fields));
        Ok(self.derived.states.get_or_init(|| States { schema, widths }))
    }

    /// An output batch of one window's columns after those that say which it is.
    pub(super) fn output(&self, window: Option<Window>, rows: usize, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        let mut all = Vec::with_capacity(columns.len() + 2);
        let bounds = [window.map(|window| window.start), window.map(|window| window.end)];
        for bound in bounds.into_iter().take(self.window_columns()) {
            let times = match bound {
                Some(bound) => PrimitiveArray::<Int64Type>::from_value(bound, rows),
                None => PrimitiveArray::new_null(rows),
            };
            all.push(cast(&times, self.schema.field(0).data_type())?);
        }
        for (column, field) in columns.into_iter().zip(self.schema.fields().iter().skip(all.len())) {
            all.push(if column.data_type() == field.data_type() { column } else { cast(&column, field.data_type())? });
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), all, &options)?)
    }

    /// Whether each of the overlapping windows keeps its own groups, because an aggregate asks for its rows in order:
    /// the rows of panes do not come one pane after the other.
    pub(super) fn keeps_whole_windows(&self) -> bool {
        self.window.as_ref().is_some_and(|window| window.shape.pane().is_some()) && self.is_ordered
    }

    /// The slice in the next window that holds it, after its first.
    pub(super) fn next_window(&self, slice: Slice) -> Option<Slice> {
        let window = self.window.as_ref().filter(|_| !self.keeps_whole_windows())?;
        window.shape.next_end(slice.pane, slice.next_end).map(|next_end| Slice { next_end, ..slice })
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

    /// That row: what every aggregate says of nothing.
    pub(super) fn empty_answer(&self) -> Result<RecordBatch> {
        let values = self.aggregates.iter().map(|aggregate| aggregate.create_accumulator()?.evaluate()?.to_array());
        self.output(None, 1, values.collect::<Result<_>>()?)
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

/// Rows of one slice.
pub(super) struct SliceRows {
    /// None for null event times.
    pub(super) slice: Option<Slice>,
    pub(super) rows: Evaluated,
}

/// A batch by slices.
#[derive(Default)]
pub(super) struct BySlice {
    /// In order of their first rows.
    pub(super) slices: Vec<SliceRows>,
    pub(super) counters: Counters,
}

impl Evaluated {
    /// Divides the rows by slice and leaves out those whose windows closed before them. The usual batch touches one
    /// pane and is not copied.
    pub(super) fn by_slice(self, spec: &WindowSpec, watermark: i64, missed: &mut MissedRows) -> Result<BySlice> {
        self.divide(spec, watermark, missed, |slices| slices)
    }

    /// The same by whole windows: a row is in each of its own, and those of a window are in order.
    pub(super) fn by_window(self, spec: &WindowSpec, watermark: i64, missed: &mut MissedRows) -> Result<BySlice> {
        match spec.shape.pane() {
            None => self.by_slice(spec, watermark, missed),
            Some(_) => self.divide(spec, watermark, missed, |slices| rows_of_windows(slices, spec)),
        }
    }

    fn divide(
        self,
        spec: &WindowSpec,
        watermark: i64,
        missed: &mut MissedRows,
        arrange: impl FnOnce(Vec<RowsOfSlice>) -> Vec<RowsOfSlice>,
    ) -> Result<BySlice> {
        let Some(starts) = self.starts.clone() else {
            let counters = Counters { used_rows: self.rows as u64, ..Counters::default() };
            return Ok(BySlice { slices: vec![SliceRows { slice: None, rows: self }], counters });
        };
        let counters = Counters { null_time_rows: starts.null_count() as u64, ..Counters::default() };
        let mut divided = BySlice { slices: vec![], counters };
        if self.rows == 0 {
            return Ok(divided);
        }
        if starts.null_count() == 0
            && let Some(&start) = starts.values().first()
            && let Place::In { slice, partly: false } = spec.place(start, watermark)
            && starts.values().iter().fold(0, |differs, other| differs | (other ^ start)) == 0
        {
            divided.counters.used_rows = self.rows as u64;
            let mut slices = arrange(vec![(Some(slice), vec![])]);
            let last = slices.pop();
            divided.slices.extend(slices.into_iter().map(|(slice, _)| SliceRows { slice, rows: self.clone() }));
            divided.slices.extend(last.map(|(slice, _)| SliceRows { slice, rows: self }));
            return Ok(divided);
        }
        let slices = match rows_of_two_slices(&starts, spec, watermark) {
            Some(slices) => slices,
            None => rows_of_slices(&starts, spec, watermark, &mut divided.counters, missed),
        };
        divided.counters.used_rows = slices.iter().map(|(_, rows)| rows.len() as u64).sum();
        for (slice, rows) in arrange(slices) {
            divided.slices.push(SliceRows { slice, rows: self.select(rows)? });
        }
        Ok(divided)
    }

    /// Some of the rows, ascending.
    pub(super) fn select<'a>(&'a self, rows: Vec<u32>) -> Result<Self> {
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

/// A slice, none for null event times, and its rows, ascending.
type RowsOfSlice = (Option<Slice>, Vec<u32>);

/// The rows of each window of slices, by ends.
fn rows_of_windows(slices: Vec<RowsOfSlice>, spec: &WindowSpec) -> Vec<RowsOfSlice> {
    let mut windows = BTreeMap::<Option<Slice>, Vec<u32>>::new();
    for (slice, rows) in slices {
        match slice {
            None => windows.entry(None).or_default().extend(rows),
            Some(slice) => {
                for window in spec.windows(slice) {
                    windows.entry(Some(window)).or_default().extend_from_slice(&rows);
                }
            }
        }
    }
    windows.values_mut().for_each(|rows| rows.sort_unstable());
    windows.into_iter().collect()
}

/// The rows of two slices, where there are no others and nothing is late: most batches that do not lie in one are so,
/// and rows out of order go back and forth between the two.
fn rows_of_two_slices(
    starts: &PrimitiveArray<Int64Type>,
    spec: &WindowSpec,
    watermark: i64,
) -> Option<Vec<RowsOfSlice>> {
    let panes = starts.values();
    let first = *panes.first().filter(|_| starts.null_count() == 0)?;
    let second = *panes.iter().find(|pane| **pane != first)?;
    let whole_slice = |pane| match spec.place(pane, watermark) {
        Place::In { slice, partly: false } => Some(slice),
        _ => None,
    };
    let slices = [whole_slice(first)?, whole_slice(second)?];
    if panes.iter().fold(false, |other, pane| other | ((*pane != first) & (*pane != second))) {
        return None;
    }
    let mut rows = [vec![0; panes.len()], vec![0; panes.len()]];
    let mut lengths = [0, 0];
    for (row, pane) in panes.iter().enumerate() {
        // Written to both and kept in one, without a branch to guess wrong.
        let is_second = usize::from(*pane != first);
        rows[0][lengths[0]] = row as u32;
        rows[1][lengths[1]] = row as u32;
        lengths[is_second] += 1;
    }
    for (rows, length) in rows.iter_mut().zip(lengths) {
        rows.truncate(length);
    }
    Some(slices.into_iter().map(Some).zip(rows).collect())
}

/// The rows of each slice, in order of the slices' first rows. Few panes are open at a time, and neighbours mostly
/// share one, so they are searched from the one found last.
fn rows_of_slices(
    starts: &PrimitiveArray<Int64Type>,
    spec: &WindowSpec,
    watermark: i64,
    counters: &mut Counters,
    missed: &mut MissedRows,
) -> Vec<RowsOfSlice> {
    let mut slices: Vec<RowsOfSlice> = vec![];
    // Each pane with its place, and where its rows are among the slices'.
    let mut places: Vec<(Option<i64>, Option<Place>, usize)> = vec![];
    let mut by_pane = HashMap::new();
    // Rows out of order mostly go back and forth between two panes.
    let (mut last, mut other) = (usize::MAX, usize::MAX);
    for (row, pane) in starts.iter().enumerate() {
        let is_at = |index: usize| places.get(index).is_some_and(|(known, ..)| *known == pane);
        if !is_at(last) {
            std::mem::swap(&mut last, &mut other);
            if !is_at(last) {
                last = *by_pane.entry(pane).or_insert_with(|| {
                    let place = pane.map(|pane| spec.place(pane, watermark));
                    let slice = match place {
                        None => Some(None),
                        Some(Place::In { slice, .. }) => Some(Some(slice)),
                        Some(_) => None,
                    };
                    slices.extend(slice.map(|slice| (slice, vec![])));
                    places.push((pane, place, if slice.is_some() { slices.len() - 1 } else { usize::MAX }));
                    places.len() - 1
                });
            }
        }
        let (_, place, index) = places[last];
        let window = || spec.last_missed(pane?, watermark);
        match place {
            Some(Place::Late) => {
                counters.late_rows += 1;
                missed.add(row, Missed::All, window);
            }
            Some(Place::Between) => {
                counters.between_rows += 1;
                missed.add(row, Missed::Between, || None);
            }
            Some(Place::In { partly: true, .. }) => {
                counters.late_partial_rows += 1;
                missed.add(row, Missed::Some, window);
            }
            _ => {}
        }
        if let Some((_, rows)) = slices.get_mut(index) {
            rows.push(row as u32);
        }
    }
    slices
}
