//! OVER (PARTITION BY … ORDER BY event time ROWS …): each row once, in order of event time, with its values.
//!
//! Rows wait until the watermark has passed them; then nothing can come before them any more, and they leave sorted
//! by event time (rows of one time in order of arrival, null times at the very end), so that every value is the
//! batch answer. A key keeps what its frame reaches back to and no more.

mod lookback;
mod running;
mod sliding;
mod waiting;

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, new_empty_array};
use arrow::compute::{concat_batches, filter, filter_record_batch};
use arrow::datatypes::{
    DataType, Field, FieldRef, Float16Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Schema,
    SchemaRef,
};
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::snapshot::{counters_batch, split_counters};
use super::{Counters, Operator, Stamp, WATERMARK_MAX, ticks};
use waiting::Waiting;

/// The rows before the current one that a function sees, besides the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// How many; none means all.
    pub(crate) preceding: Option<usize>,
}

/// What a function computes.
#[derive(Debug, Clone)]
pub(crate) enum RowsFunctionKind {
    /// count(*) and count(x): without an argument every row counts.
    Count,
    Sum,
    Avg,
    Min,
    Max,
    FirstValue,
    LastValue,
    /// The value `offset` rows before, or `default`; the frame is of no account.
    Lag {
        offset: usize,
        default: ScalarValue,
    },
    /// Any other aggregate, computed anew for each row where its frame has a beginning.
    Aggregate(Arc<AggregateFunctionExpr>),
}

/// One OVER column.
#[derive(Debug, Clone)]
pub(crate) struct RowsFunction {
    pub(crate) kind: RowsFunctionKind,
    pub(crate) argument: Option<Arc<dyn PhysicalExpr>>,
    pub(crate) partition_by: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) frame: Frame,
    pub(crate) filter: Option<Arc<dyn PhysicalExpr>>,
    /// The output column.
    pub(crate) field: FieldRef,
}

/// What an OVER query computes. Output: the input's columns, then one column for each function.
#[derive(Debug)]
pub(crate) struct RowsWindowSpec {
    pub(crate) input_schema: SchemaRef,
    pub(crate) schema: SchemaRef,
    /// The event-time column of the input.
    pub(crate) time: usize,
    pub(crate) functions: Vec<RowsFunction>,
}

impl fmt::Display for RowsWindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.functions.iter().map(|function| function.field.name().as_str()).collect();
        write!(f, "order_by={}, over=[{}]", self.input_schema.field(self.time).name(), names.join(", "))
    }
}

/// One function's state of all keys.
trait RowsState: Send {
    /// The values of rows that come in order, given the key of each.
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        argument: &ArrayRef,
        live: Option<&BooleanArray>,
    ) -> Result<ArrayRef>;
    /// The state as rows.
    fn snapshot(&mut self) -> Result<RecordBatch>;
    /// Puts such rows into a fresh state.
    fn restore(&mut self, state: &RecordBatch) -> Result<()>;
    /// Bytes held.
    fn size(&self) -> usize;
}

/// Computes OVER columns.
pub(crate) struct RowsWindow {
    spec: Arc<RowsWindowSpec>,
    partitions: Vec<Partitioning>,
    functions: Vec<FunctionState>,
    waiting: Waiting,
    counters: Counters,
}

/// The keys of one PARTITION BY; functions with the same one share it.
struct Partitioning {
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    keys: Option<Box<dyn GroupValues>>,
    groups: Vec<usize>,
}

struct FunctionState {
    /// Which partitioning the function goes by.
    partitioning: usize,
    state: Box<dyn RowsState>,
}

impl RowsWindow {
    pub(crate) fn try_new(spec: Arc<RowsWindowSpec>) -> Result<Self> {
        let mut partitions: Vec<Partitioning> = vec![];
        let mut functions = vec![];
        for function in &spec.functions {
            let known = partitions.iter().position(|known| same_exprs(&known.exprs, &function.partition_by));
            let partitioning = match known {
                Some(known) => known,
                None => {
                    partitions.push(Partitioning::try_new(function, &spec)?);
                    partitions.len() - 1
                }
            };
            functions.push(FunctionState { partitioning, state: rows_state(function, &spec)? });
        }
        Ok(Self { spec, partitions, functions, waiting: Waiting::default(), counters: Counters::default() })
    }

    /// Leaves out rows behind the watermark, and keeps the others waiting.
    fn admit(&mut self, batch: &RecordBatch, watermark: i64) -> Result<()> {
        let times = ticks(batch.column(self.spec.time))?;
        self.counters.null_time_rows += times.null_count() as u64;
        // A null one may hold any number: then the rows are looked at once more, and all is well.
        if !times.values().iter().any(|time| *time < watermark) {
            return self.waiting.admit(batch.clone(), &times);
        }
        let in_time = |time: Option<i64>| Some(time.is_none_or(|time| time >= watermark));
        let in_time = BooleanArray::from_iter(times.iter().map(in_time));
        self.counters.late_rows += (in_time.len() - in_time.true_count()) as u64;
        let times = filter(&times, &in_time)?;
        self.waiting.admit(filter_record_batch(batch, &in_time)?, times.as_primitive())
    }

    /// The rows with their values.
    fn compute(&mut self, rows: RecordBatch) -> Result<RecordBatch> {
        for partitioning in &mut self.partitions {
            partitioning.number(&rows)?;
        }
        let mut columns = rows.columns().to_vec();
        for (function, spec) in self.functions.iter_mut().zip(&self.spec.functions) {
            let partitioning = &self.partitions[function.partitioning];
            let evaluate = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(&rows)?.into_array(rows.num_rows());
            let argument = match &spec.argument {
                Some(argument) => evaluate(argument)?,
                None => Arc::new(Int64Array::from(vec![0; rows.num_rows()])),
            };
            let live = spec.filter.as_ref().map(evaluate).transpose()?;
            let live = live.as_ref().map(|live| live.as_boolean());
            let column = function.state.update(&partitioning.groups, partitioning.len(), &argument, live)?;
            let data_type = spec.field.data_type();
            columns.push(if column.data_type() == data_type {
                column
            } else {
                arrow::compute::cast(&column, data_type)?
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.spec.schema), columns)?)
    }

    fn emit(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        let released = match watermark {
            WATERMARK_MAX => self.waiting.release_all()?,
            _ => self.waiting.release(watermark)?,
        };
        for rows in released {
            output.push(self.compute(rows)?);
        }
        Ok(())
    }
}

fn same_exprs(a: &[Arc<dyn PhysicalExpr>], b: &[Arc<dyn PhysicalExpr>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.as_ref() == b.as_ref())
}

fn rows_state(function: &RowsFunction, spec: &RowsWindowSpec) -> Result<Box<dyn RowsState>> {
    let argument_type = match &function.argument {
        Some(argument) => argument.data_type(&spec.input_schema)?,
        None => DataType::Int64,
    };
    if let Some(state) = sliding::state(function, &argument_type) {
        return Ok(state);
    }
    match (&function.kind, function.frame.preceding) {
        (RowsFunctionKind::Aggregate(aggregate), None) => running::state(aggregate),
        _ => lookback::state(function, argument_type),
    }
}

impl Partitioning {
    fn try_new(function: &RowsFunction, spec: &RowsWindowSpec) -> Result<Self> {
        let exprs = function.partition_by.clone();
        let keys = match exprs.is_empty() {
            true => None,
            false => Some(new_group_values(key_schema(&exprs, &spec.input_schema)?, &GroupOrdering::None)?),
        };
        Ok(Self { exprs, keys, groups: vec![] })
    }

    /// Numbers the keys of rows.
    fn number(&mut self, rows: &RecordBatch) -> Result<()> {
        let Some(keys) = &mut self.keys else {
            self.groups = vec![0; rows.num_rows()];
            return Ok(());
        };
        let columns = self.exprs.iter().map(|expr| Ok(as_bits(expr.evaluate(rows)?.into_array(rows.num_rows())?)));
        keys.intern(&columns.collect::<Result<Vec<_>>>()?, &mut self.groups)
    }

    fn len(&self) -> usize {
        self.keys.as_ref().map_or(1, |keys| keys.len())
    }

    /// All keys in order; they stay.
    fn snapshot(&mut self, spec: &RowsWindowSpec) -> Result<RecordBatch> {
        let schema = key_schema(&self.exprs, &spec.input_schema)?;
        let columns = match &mut self.keys {
            Some(keys) if !keys.is_empty() => keys.emit(datafusion::logical_expr::EmitTo::All)?,
            _ => return Ok(RecordBatch::new_empty(schema)),
        };
        let batch = RecordBatch::try_new(schema, columns)?;
        self.restore(&batch)?;
        Ok(batch)
    }

    fn restore(&mut self, keys: &RecordBatch) -> Result<()> {
        match &mut self.keys {
            Some(own) if keys.num_rows() > 0 => own.intern(keys.columns(), &mut self.groups),
            _ => Ok(()),
        }
    }
}

fn key_schema(exprs: &[Arc<dyn PhysicalExpr>], input: &Schema) -> Result<SchemaRef> {
    let fields = exprs.iter().map(|expr| {
        let bits = as_bits(new_empty_array(&expr.data_type(input)?));
        Ok(Field::new(expr.to_string(), bits.data_type().clone(), true))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// DataFusion tells zero from minus zero where it sorts by a key, as it does here, and only there.
fn as_bits(keys: ArrayRef) -> ArrayRef {
    match keys.data_type() {
        DataType::Float16 => {
            Arc::new(keys.as_primitive::<Float16Type>().unary::<_, Int16Type>(|key| key.to_bits() as i16))
        }
        DataType::Float32 => {
            Arc::new(keys.as_primitive::<Float32Type>().unary::<_, Int32Type>(|key| key.to_bits() as i32))
        }
        DataType::Float64 => {
            Arc::new(keys.as_primitive::<Float64Type>().unary::<_, Int64Type>(|key| key.to_bits() as i64))
        }
        _ => keys,
    }
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
        self.emit(WATERMARK_MAX, output)
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let mut snapshot = vec![counters_batch(&self.counters)?];
        snapshot.push(concat_batches(&self.spec.input_schema, &self.waiting.rows()?)?);
        for partitioning in &mut self.partitions {
            snapshot.push(partitioning.snapshot(&self.spec)?);
        }
        for function in &mut self.functions {
            snapshot.push(function.state.snapshot()?);
        }
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let (counters, parts) = split_counters(snapshot)?;
        let (waiting, parts) = parts.split_first().ok_or_else(|| internal_datafusion_err!("a snapshot too short"))?;
        if parts.len() != self.partitions.len() + self.functions.len() {
            return Err(internal_datafusion_err!("a snapshot of other OVER columns"));
        }
        let times = ticks(waiting.column(self.spec.time))?;
        self.waiting.admit(waiting.clone(), &times)?;
        self.counters = counters;
        let (keys, states) = parts.split_at(self.partitions.len());
        for (partitioning, keys) in self.partitions.iter_mut().zip(keys) {
            partitioning.restore(keys)?;
        }
        for (function, state) in self.functions.iter_mut().zip(states) {
            function.state.restore(state)?;
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        let keys = self.partitions.iter().flat_map(|partitioning| &partitioning.keys).map(|keys| keys.size());
        let functions = self.functions.iter().map(|function| function.state.size());
        self.waiting.size() + keys.sum::<usize>() + functions.sum::<usize>()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use datafusion::functions_aggregate::average::avg_udaf;
    use datafusion::functions_aggregate::min_max::min_udaf;
    use proptest::prelude::*;

    use super::super::testing::{
        Row, Text, aggregate, assert_same, assert_snapshot_law, batch_lengths, column, input_schema, is_positive,
        or_null, rows, run, stamped, text, with_watermarks,
    };
    use super::*;

    /// Which of the functions see which rows.
    #[derive(Debug, Clone, Copy)]
    struct Over {
        frame: Frame,
        keyed: bool,
        offset: usize,
        default: Option<i64>,
    }

    fn overs() -> impl Strategy<Value = Over> {
        let preceding = proptest::option::weighted(0.8, 0usize..6);
        (preceding, any::<bool>(), 0usize..4, proptest::option::of(Just(77)))
            .prop_map(|(preceding, keyed, offset, default)| Over { frame: Frame { preceding }, keyed, offset, default })
    }

    impl Over {
        fn function(
            self,
            kind: RowsFunctionKind,
            argument: Option<&str>,
            filter: Option<Arc<dyn PhysicalExpr>>,
            data_type: DataType,
        ) -> RowsFunction {
            let name = format!("{kind:?} of {argument:?}");
            RowsFunction {
                kind,
                argument: argument.map(column),
                partition_by: if self.keyed { vec![column("key")] } else { vec![] },
                frame: self.frame,
                filter,
                field: Arc::new(Field::new(name, data_type, true)),
            }
        }

        fn functions(self) -> Vec<RowsFunction> {
            use RowsFunctionKind::*;
            let lag = Lag { offset: self.offset, default: ScalarValue::Int64(self.default) };
            vec![
                self.function(Count, None, None, DataType::Int64),
                self.function(Count, Some("key"), None, DataType::Int64),
                self.function(Sum, Some("value"), None, DataType::Int64),
                self.function(Sum, Some("price"), Some(is_positive()), DataType::Float64),
                self.function(Avg, Some("price"), None, DataType::Float64),
                self.function(Min, Some("price"), None, DataType::Float64),
                self.function(Max, Some("value"), None, DataType::Int64),
                self.function(FirstValue, Some("key"), None, DataType::Utf8),
                self.function(LastValue, Some("price"), None, DataType::Float64),
                self.function(lag, Some("value"), None, DataType::Int64),
                self.function(Aggregate(aggregate(avg_udaf(), "price")), Some("price"), None, DataType::Float64),
                self.function(
                    Aggregate(aggregate(min_udaf(), "key")),
                    Some("key"),
                    Some(is_positive()),
                    DataType::Utf8,
                ),
            ]
        }

        /// The cells of the functions, given a row's key so far, itself the last.
        fn naive(self, so_far: &[Row]) -> Vec<String> {
            let first = self.frame.preceding.map_or(0, |preceding| so_far.len().saturating_sub(preceding + 1));
            let frame = &so_far[first..];
            let values = || frame.iter().filter_map(|row| row.value);
            let prices = || frame.iter().filter_map(|row| row.price);
            let positive = frame.iter().filter(|row| row.value.is_some_and(|value| value > 0));
            let average = or_null(prices().reduce(|a, b| a + b).map(|sum| sum / prices().count() as f64));
            let lag = match so_far.len().checked_sub(self.offset + 1) {
                Some(back) => so_far[back].value,
                None => self.default,
            };
            vec![
                frame.len().to_string(),
                frame.iter().filter(|row| row.key.is_some()).count().to_string(),
                or_null(values().reduce(|a, b| a + b)),
                or_null(positive.clone().filter_map(|row| row.price).reduce(|a, b| a + b)),
                average.clone(),
                or_null(prices().reduce(f64::min)),
                or_null(values().max()),
                or_null(frame[0].key),
                or_null(frame[frame.len() - 1].price),
                or_null(lag),
                average,
                or_null(positive.filter_map(|row| row.key).min()),
            ]
        }
    }

    fn spec(overs: &[Over]) -> Arc<RowsWindowSpec> {
        let functions: Vec<RowsFunction> = overs.iter().flat_map(|over| over.functions()).collect();
        let input_schema = input_schema();
        let fields = input_schema.fields().iter().chain(functions.iter().map(|function| &function.field));
        let schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        Arc::new(RowsWindowSpec { input_schema, schema, time: 0, functions })
    }

    /// The rows that are not late, by time and arrival, with their cells.
    fn model(rows: &[Row], bound: i64, overs: &[Over]) -> Text {
        let in_time = |(row, watermark): &(Row, i64)| row.time.is_none_or(|time| time >= *watermark);
        let in_time = with_watermarks(rows, bound).into_iter().filter(in_time);
        let mut rows: Vec<Row> = in_time.map(|(row, _)| row).collect();
        rows.sort_by_key(|row| (row.time.is_none(), row.time));
        let cells = |(index, row): (usize, &Row)| {
            let mut cells = vec![or_null(row.time), or_null(row.key), or_null(row.value), or_null(row.price)];
            for over in overs {
                let so_far = rows[..=index].iter().filter(|other| !over.keyed || other.key == row.key);
                cells.extend(over.naive(&so_far.copied().collect::<Vec<_>>()));
            }
            cells
        };
        rows.iter().enumerate().map(cells).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn equals_the_naive_model(
            rows in rows(80), lengths in batch_lengths(), bound in 0i64..60,
            overs in prop::collection::vec(overs(), 1..4),
        ) {
            let spec = spec(&overs);
            let mut operator = RowsWindow::try_new(Arc::clone(&spec)).unwrap();
            let output = run(&mut operator, &stamped(&rows, &lengths, bound, 0, None));
            let expected = model(&rows, bound, &overs);
            assert_same(&spec.schema, &text(&output), &expected);
            prop_assert_eq!(operator.counters().late_rows as usize, rows.len() - expected.len());
        }

        #[test]
        fn snapshots_change_nothing(
            rows in rows(80), lengths in batch_lengths(), bound in 0i64..60,
            overs in prop::collection::vec(overs(), 1..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        ) {
            let spec = spec(&overs);
            let fresh = || RowsWindow::try_new(Arc::clone(&spec)).unwrap();
            assert_snapshot_law(fresh, &stamped(&rows, &lengths, bound, 0, None), &cuts);
        }
    }

    #[test]
    fn values_are_still_found_after_many_batches() {
        let over = Over { frame: Frame { preceding: None }, keyed: true, offset: 3, default: None };
        let rows: Vec<Row> = (0..1000)
            .map(|index| Row {
                time: Some(index),
                key: Some(if index % 97 == 0 { "rare" } else { "usual" }),
                value: Some(index),
                price: Some(index as f64),
            })
            .collect();
        let spec = spec(&[over]);
        let mut operator = RowsWindow::try_new(Arc::clone(&spec)).unwrap();
        let output = run(&mut operator, &stamped(&rows, &[1, 2], 0, 0, None));
        assert_same(&spec.schema, &text(&output), &model(&rows, 0, &[over]));
    }
}
