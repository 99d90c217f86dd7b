//! Every aggregate over columns of every type, against DataFusion's accumulator over the same rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, Float64Array, Int64Array,
    PrimitiveArray, RecordBatch, StringArray, UInt32Array, downcast_primitive,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Int64Type, IntervalUnit, Schema, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, Volatility, create_udaf};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::Column;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::testing::{aggregates_over, cells, computed_freshly, is_near, through_ipc};
use super::{Joined, RunningAggregate, Slots, running_aggregate, typed};

const GROUPS: usize = 4;
/// Number of values in a palette.
const VALUES: usize = 7;

/// A row: its group, which values of the palette it has, and what the filter says of it.
#[derive(Debug, Clone, Copy)]
struct Row {
    group: usize,
    values: (u32, u32),
    passes: Option<bool>,
}

fn row() -> impl Strategy<Value = Row> {
    let values = (0..VALUES as u32, 0..VALUES as u32);
    let passes = prop::option::weighted(0.9, prop::bool::weighted(0.7));
    (0..GROUPS, values, passes).prop_map(|(group, values, passes)| Row { group, values, passes })
}

fn types() -> Vec<DataType> {
    use DataType::*;
    use TimeUnit::*;
    let plain = [Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float16, Float32, Float64, Boolean];
    let bytes = [Utf8, LargeUtf8, Utf8View, Binary, LargeBinary, BinaryView];
    let decimals =
        [Decimal32(9, 2), Decimal64(5, 1), Decimal64(18, 4), Decimal128(10, 2), Decimal128(38, 10), Decimal256(70, 3)];
    let times = [
        Date32,
        Date64,
        Time32(Second),
        Time64(Nanosecond),
        Timestamp(Second, None),
        Timestamp(Nanosecond, Some("Europe/Berlin".into())),
        Duration(Millisecond),
        Duration(Nanosecond),
        Interval(IntervalUnit::YearMonth),
        Interval(IntervalUnit::DayTime),
        Interval(IntervalUnit::MonthDayNano),
    ];
    [plain.to_vec(), bytes.to_vec(), decimals.to_vec(), times.to_vec()].concat()
}

/// The values that the rows of a column choose from: null, ends of the range, and what compares or rounds oddly.
fn palette(data_type: &DataType, with_nan: bool) -> ArrayRef {
    fn of<T: ArrowPrimitiveType>(data_type: &DataType) -> ArrayRef {
        let (zero, one) = (T::Native::ZERO, T::Native::ONE);
        let two = one.add_wrapping(one);
        // The ends are beyond the precision of decimals, and would not print as times.
        let is_plain = data_type.is_integer() || matches!(data_type, DataType::Duration(_));
        let (least, greatest) = match is_plain {
            true => (T::Native::MIN_TOTAL_ORDER, T::Native::MAX_TOTAL_ORDER),
            false => (one, two.add_wrapping(one)),
        };
        let values = [None, Some(zero), Some(one), Some(two), Some(least), Some(greatest), Some(two)];
        Arc::new(PrimitiveArray::<T>::from_iter(values).with_data_type(data_type.clone()))
    }
    macro_rules! primitive {
        ($t:ty) => {
            of::<$t>(data_type)
        };
    }
    if data_type.is_floating() {
        return floats(data_type, with_nan);
    }
    downcast_primitive! {
        data_type => (primitive),
        DataType::Boolean => {
            let values = [None, Some(true), Some(true), Some(true), Some(false), Some(true), None];
            Arc::new(BooleanArray::from_iter(values))
        },
        _ => {
            let long = "longer than a view holds itself";
            let values = [None, Some(""), Some("a"), Some("ab"), Some("é"), Some(long), Some("longer than")];
            cast(&StringArray::from_iter(values), data_type).unwrap()
        }
    }
}

fn floats(data_type: &DataType, with_nan: bool) -> ArrayRef {
    let nans = if with_nan { [f64::NAN, -f64::NAN] } else { [7.25, -1e4] };
    // Sums of a few of these are exact: the rounding of equal values would be all that corr divides by.
    let values = [None, Some(0.0), Some(-0.0), Some(0.25), Some(-3.5), Some(nans[0]), Some(nans[1])];
    cast(&Float64Array::from_iter(values), data_type).unwrap()
}

/// A stream of rows with two columns of one type, in batches.
struct Stream {
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    rows: Vec<Row>,
    batch: RecordBatch,
    lengths: Vec<usize>,
}

impl Stream {
    fn new(data_type: &DataType, with_nan: bool, rows: Vec<Row>, lengths: Vec<usize>) -> Self {
        let field = |name| Field::new(name, data_type.clone(), true);
        let schema = Arc::new(Schema::new(vec![field("x"), field("y")]));
        let column = |name| Arc::new(Column::new_with_schema(name, &schema).unwrap()) as Arc<dyn PhysicalExpr>;
        let aggregates = aggregates_over(&schema, &[vec![column("x")], vec![column("x"), column("y")]]);
        let palette = palette(data_type, with_nan);
        let of = |of: fn(&Row) -> u32| take(&palette, &UInt32Array::from_iter_values(rows.iter().map(of)), None);
        let columns = vec![of(|row| row.values.0).unwrap(), of(|row| row.values.1).unwrap()];
        Self { aggregates, batch: RecordBatch::try_new(schema, columns).unwrap(), rows, lengths }
    }

    /// The bounds of the batches.
    fn batches(&self) -> Vec<std::ops::Range<usize>> {
        let (mut batches, mut first) = (vec![], 0);
        for length in self.lengths.iter().cycle() {
            if first == self.rows.len() {
                break;
            }
            let end = self.rows.len().min(first + length);
            batches.push(first..end);
            first = end;
        }
        batches
    }

    fn arguments(&self, aggregate: &AggregateFunctionExpr) -> Vec<ArrayRef> {
        let array = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(&self.batch).unwrap().into_array(self.rows.len());
        aggregate.expressions().iter().map(|expr| array(expr).unwrap()).collect()
    }

    /// What DataFusion makes of some rows.
    fn expected(&self, aggregate: &AggregateFunctionExpr, rows: &[usize]) -> String {
        let rows = rows.iter().filter(|row| self.rows[**row].passes == Some(true));
        let rows = UInt32Array::from_iter_values(rows.map(|row| *row as u32));
        let arguments = self.arguments(aggregate);
        computed_freshly(aggregate, &arrow::compute::take_arrays(&arguments, &rows, None).unwrap())
    }

    /// The rows of a group before some row.
    fn of_group(&self, group: usize, end: usize) -> Vec<usize> {
        (0..end).filter(|row| self.rows[*row].group == group).collect()
    }

    /// The groups, arguments and filter of a batch.
    fn input(
        &self,
        aggregate: &AggregateFunctionExpr,
        batch: &std::ops::Range<usize>,
    ) -> (Vec<usize>, Vec<ArrayRef>, BooleanArray) {
        let arguments = self.arguments(aggregate);
        let arguments = arguments.iter().map(|argument| argument.slice(batch.start, batch.len())).collect();
        let rows = &self.rows[batch.clone()];
        (rows.iter().map(|row| row.group).collect(), arguments, rows.iter().map(|row| row.passes).collect())
    }

    /// Joins slots, without rows.
    fn join(&self, of: &AggregateFunctionExpr, running: &mut dyn RunningAggregate, joins: &[(usize, usize)]) {
        let joins: Vec<Joined> = joins.iter().map(|(into, from)| Joined { at: 0, into: *into, from: *from }).collect();
        let (_, arguments, _) = self.input(of, &(0..0));
        running.accumulate(Slots { rows: &[], total: GROUPS + 3, joins: &joins }, &arguments, None).unwrap();
    }

    fn accumulate(&self, aggregate: &AggregateFunctionExpr, running: &mut dyn RunningAggregate) {
        for batch in self.batches() {
            let (groups, arguments, filter) = self.input(aggregate, &batch);
            running.accumulate(Slots::new(&groups, GROUPS), &arguments, Some(&filter)).unwrap();
        }
    }
}

fn assert_near(aggregate: &AggregateFunctionExpr, got: &[String], expected: &[String]) {
    let near = got.len() == expected.len() && got.iter().zip(expected).all(|(got, expected)| is_near(got, expected));
    assert!(near, "{}: {got:?}, not {expected:?}", aggregate.name());
}

/// A fresh aggregate with the state that a checkpoint gives back.
fn restored(aggregate: &Arc<AggregateFunctionExpr>, running: &mut dyn RunningAggregate) -> Box<dyn RunningAggregate> {
    let state = running.state().unwrap();
    assert_eq!(state.len(), running.state_width().unwrap());
    let names = (0..state.len()).map(|column| column.to_string());
    let batch = RecordBatch::try_from_iter_with_nullable(names.zip(state).map(|(name, column)| (name, column, true)));
    let mut restored = running_aggregate(aggregate).unwrap();
    restored.restore(through_ipc(&batch.unwrap()).columns()).unwrap();
    restored
}

/// Sketches, whose answers hang on the pieces that their rows came in.
fn is_sketch(aggregate: &AggregateFunctionExpr) -> bool {
    aggregate.fun().name().starts_with("approx_")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn values_are_those_of_the_rows_so_far(
        data_type in select(types()), with_nan: bool, rows in prop::collection::vec(row(), 1..40),
        lengths in prop::collection::vec(1usize..9, 1..4), cut: prop::sample::Index,
    ) {
        let stream = Stream::new(&data_type, with_nan, rows, lengths);
        let (batches, every_slot) = (stream.batches(), (0..=GROUPS).collect::<Vec<_>>());
        for aggregate in &stream.aggregates {
            let mut running = running_aggregate(aggregate).unwrap();
            let mut silent = running_aggregate(aggregate).unwrap();
            for (index, batch) in batches.iter().enumerate() {
                // DataFusion's digests do not take back the states that they give for zeros of both signs alone.
                if index == cut.index(batches.len()) && !(is_sketch(aggregate) && data_type.is_floating()) {
                    running = restored(aggregate, running.as_mut());
                    silent.state().unwrap();
                }
                let (groups, arguments, filter) = stream.input(aggregate, batch);
                let got = running.update(Slots::new(&groups, GROUPS), &arguments, Some(&filter)).unwrap();
                prop_assert_eq!(got.data_type(), &aggregate.field().data_type().clone());
                let prefix = |row: usize| stream.of_group(stream.rows[row].group, row + 1);
                let expected: Vec<_> = batch.clone().map(|row| stream.expected(aggregate, &prefix(row))).collect();
                assert_near(aggregate, &cells(got), &expected);

                silent.accumulate(Slots::new(&groups, GROUPS), &arguments, Some(&filter)).unwrap();
                let expected = cells(running.values(&every_slot).unwrap());
                if !is_sketch(aggregate) {
                    assert_near(aggregate, &cells(silent.values(&every_slot).unwrap()), &expected);
                }
            }
            let expected: Vec<_> = every_slot
                .iter()
                .map(|group| stream.expected(aggregate, &stream.of_group(*group, stream.rows.len())))
                .collect();
            assert_near(aggregate, &cells(running.values(&every_slot).unwrap()), &expected);
        }
    }

    #[test]
    fn slots_are_joined_between_rows(
        data_type in select(types()), rows in prop::collection::vec(row(), 1..40), at: prop::sample::Index,
    ) {
        let total = rows.len();
        let stream = Stream::new(&data_type, false, rows, vec![total]);
        let at = at.index(total + 1);
        for aggregate in stream.aggregates.iter().filter(|of| !is_sketch(of)) {
let [mut cut, mut silent, mut whole] = [(); 3].map(|()| running_aggregate(aggregate).unwrap());
            let pieces = [0..at, at..total].map(|piece| {
                let (groups, arguments, filter) = stream.input(aggregate, &piece);
                move |running: &mut dyn RunningAggregate| {
                    cells(running.update(Slots::new(&groups, GROUPS), &arguments, Some(&filter)).unwrap())
                }
            });
            let mut expected = pieces[0](cut.as_mut());
            stream.join(aggregate, cut.as_mut(), &[(2, 0)]);
            expected.extend(pieces[1](cut.as_mut()));
            let (groups, arguments, filter) = stream.input(aggregate, &(0..total));
            let joins = [Joined { at, into: 2, from: 0 }];
            let slots = Slots { rows: &groups, total: GROUPS, joins: &joins };
            assert_near(aggregate, &cells(whole.update(slots, &arguments, Some(&filter)).unwrap()), &expected);
            silent.accumulate(slots, &arguments, Some(&filter)).unwrap();
            let every_slot: Vec<usize> = (0..GROUPS).collect();
            let expected = cells(cut.values(&every_slot).unwrap());
            for mut other in [whole, silent] {
                assert_near(aggregate, &cells(other.values(&every_slot).unwrap()), &expected);
            }
        }
    }

    #[test]
    fn slots_merge_and_are_used_again(
        data_type in select(types()), with_nan: bool, rows in prop::collection::vec(row(), 1..40),
        lengths in prop::collection::vec(1usize..9, 1..4),
    ) {
        let stream = Stream::new(&data_type, with_nan, rows, lengths);
        let of = |group| stream.of_group(group, stream.rows.len());
        // DataFusion's median of an even number of values with NaN hangs on their order.
        let hangs_on_order = |aggregate: &AggregateFunctionExpr| with_nan && aggregate.fun().name() == "median";
        for aggregate in stream.aggregates.iter().filter(|of| !is_sketch(of) && !hangs_on_order(of)) {
            let mut running = running_aggregate(aggregate).unwrap();
            stream.accumulate(aggregate, running.as_mut());
            stream.join(aggregate, running.as_mut(), &[(2, 0), (GROUPS + 1, GROUPS + 2)]);
            running.clear(&[1, GROUPS]).unwrap();
            let expected = [vec![], vec![], [of(2), of(0)].concat(), of(3)];
            let expected = expected.map(|rows| stream.expected(aggregate, &rows));
            assert_near(aggregate, &cells(running.values(&[0, 1, 2, 3]).unwrap()), &expected);

            let mut running = restored(aggregate, running.as_mut());
            stream.accumulate(aggregate, running.as_mut());
            let expected = [of(0), of(1), [of(2), of(0), of(2)].concat(), [of(3), of(3)].concat()];
            let expected = expected.map(|rows| stream.expected(aggregate, &rows));
            assert_near(aggregate, &cells(running.values(&[0, 1, 2, 3]).unwrap()), &expected);
        }
    }
}

#[test]
fn the_usual_aggregates_are_typed() {
    const TYPED: [&str; 18] = [
        "count",
        "sum",
        "avg",
        "min",
        "max",
        "first_value",
        "last_value",
        "bool_and",
        "bool_or",
        "bit_and",
        "bit_or",
        "bit_xor",
        "stddev",
        "stddev_pop",
        "var",
        "var_pop",
        "covar_samp",
        "covar_pop",
    ];
    for data_type in types() {
        for aggregate in Stream::new(&data_type, false, vec![], vec![]).aggregates {
            let is_usual = TYPED.contains(&aggregate.fun().name()) || aggregate.fun().name() == "corr";
            assert_eq!(typed(&aggregate).is_some(), is_usual && !aggregate.is_distinct(), "{}", aggregate.name());
        }
    }
}

/// A count that forgets its rows when it is asked for its value.
#[derive(Debug, Default)]
struct Forgetful(i64);

impl Accumulator for Forgetful {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0 += values[0].len() as i64;
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::from(std::mem::take(&mut self.0)))
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0 += arrow::compute::sum(states[0].as_primitive::<Int64Type>()).unwrap_or_default();
        Ok(())
    }
}

#[test]
fn accumulators_of_others_may_forget() {
    let (int, accumulator) = (DataType::Int64, Arc::new(|_: AccumulatorArgs| Ok(Box::<Forgetful>::default() as _)));
    let state = Arc::new(vec![int.clone()]);
    let function = create_udaf("f", vec![int.clone()], Arc::new(int), Volatility::Immutable, accumulator, state);
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    let argument = Arc::new(Column::new("x", 0)) as Arc<dyn PhysicalExpr>;
    let builder = AggregateExprBuilder::new(Arc::new(function), vec![argument]).schema(schema).alias("f");
    let mut running = running_aggregate(&Arc::new(builder.build().unwrap())).unwrap();
    let rows = || vec![Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef];
    assert_eq!(cells(running.update(Slots::new(&[0, 1, 0], 2), &rows(), None).unwrap()), ["1", "1", "2"]);
    running.accumulate(Slots::new(&[0, 1, 1], 2), &rows(), None).unwrap();
    assert_eq!(cells(running.values(&[1, 0, 1]).unwrap()), ["3", "3", "3"]);
    let slots = Slots { joins: &[Joined { at: 0, into: 0, from: 1 }], ..Slots::new(&[0, 1, 2], 3) };
    assert_eq!(cells(running.update(slots, &rows(), None).unwrap()), ["7", "1", "1"]);
}
