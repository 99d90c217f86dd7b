//! Every function over every frame against a naive model.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Literal;
use proptest::prelude::*;

use super::super::testing::{
    Row, Text, aggregate, assert_same, assert_snapshot_law, assert_spill_law, batch, batch_lengths, column,
    forget_lives, input_schema, is_positive, lives, or_null, rows, run, sorted, stamped, text, with_watermarks,
};
use super::*;

/// A frame and the keys that it goes by. Distances are in rows, or in tens of ticks.
#[derive(Debug, Clone, Copy)]
struct Over {
    is_range: bool,
    start: Option<i64>,
    end: i64,
    keyed: bool,
    offset: i64,
    default: Option<i64>,
}

/// Frames of every kind, and often those whose values are known at once.
fn overs() -> impl Strategy<Value = Over> {
    let bounds = prop_oneof![
        (Just(false), proptest::option::weighted(0.8, -5i64..=0), Just(0)),
        (any::<bool>(), proptest::option::weighted(0.8, -4i64..4), 0i64..4).prop_map(|(is_range, start, more)| (
            is_range,
            start,
            start.unwrap_or(-2) + more
        )),
    ];
    let offset = prop_oneof![-3i64..4, Just(0)];
    (bounds, any::<bool>(), offset, proptest::option::of(Just(77))).prop_map(
        |((is_range, start, end), keyed, offset, default)| Over { is_range, start, end, keyed, offset, default },
    )
}

impl Over {
    fn frame(self) -> Frame {
        let bound = |distance: i64| {
            let interval = ScalarValue::new_interval_mdn(0, 0, distance.abs() * 10_000);
            match distance {
                0 => RangeBound::CurrentRow,
                ..0 => RangeBound::Preceding(interval),
                _ => RangeBound::Following(interval),
            }
        };
        match self.is_range {
            true => Frame::Range { start: self.start.map(bound), end: bound(self.end) },
            false => Frame::Rows { start: self.start, end: self.end },
        }
    }

    fn function(
        self,
        kind: RowsFunctionKind,
        argument: Arc<dyn PhysicalExpr>,
        filter: Option<Arc<dyn PhysicalExpr>>,
        data_type: DataType,
    ) -> RowsFunction {
        let frame = match kind {
            RowsFunctionKind::Shift { offset: offset @ 1.., .. } => Frame::Rows { start: Some(0), end: offset },
            RowsFunctionKind::Shift { offset, .. } => Frame::Rows { start: Some(offset), end: 0 },
            RowsFunctionKind::RowNumber | RowsFunctionKind::Rank | RowsFunctionKind::DenseRank => {
                Frame::Rows { start: None, end: 0 }
            }
            _ => self.frame(),
        };
        RowsFunction {
            field: Arc::new(Field::new(format!("{kind:?} of {argument}"), data_type, true)),
            kind,
            arguments: vec![argument],
            partition_by: if self.keyed { vec![column("key")] } else { vec![] },
            frame,
            filter,
        }
    }

    fn functions(self) -> Vec<RowsFunction> {
        use RowsFunctionKind::*;
        let all: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::Int64(Some(1))));
        let count_all = AggregateExprBuilder::new(count_udaf(), vec![Arc::clone(&all)]).schema(input_schema());
        let count_all = Arc::new(count_all.alias("count(*)").build().unwrap());
        let shift = Shift { offset: self.offset, default: ScalarValue::Int64(self.default) };
        let of = |function, name, filter, data_type| {
            self.function(Aggregate(aggregate(function, name)), column(name), filter, data_type)
        };
        let plain = |kind, name, data_type| self.function(kind, column(name), None, data_type);
        vec![
            self.function(Aggregate(count_all), all, None, DataType::Int64),
            of(count_udaf(), "key", None, DataType::Int64),
            of(sum_udaf(), "value", None, DataType::Int64),
            of(sum_udaf(), "price", Some(is_positive()), DataType::Float64),
            of(avg_udaf(), "price", None, DataType::Float64),
            of(min_udaf(), "price", None, DataType::Float64),
            of(max_udaf(), "value", None, DataType::Int64),
            of(min_udaf(), "key", Some(is_positive()), DataType::Utf8),
            plain(FirstValue, "key", DataType::Utf8),
            plain(LastValue, "price", DataType::Float64),
            plain(NthValue(2), "value", DataType::Int64),
            plain(NthValue(-2), "value", DataType::Int64),
            plain(shift, "value", DataType::Int64),
            plain(RowNumber, "ts", DataType::UInt64),
            plain(Rank, "ts", DataType::UInt64),
            plain(DenseRank, "ts", DataType::UInt64),
        ]
    }

    /// The rows of a key that its row `at` sees.
    fn sees(self, key: &[Row], at: usize) -> Vec<Row> {
        let is_seen = |index: usize| match (self.is_range, key[at].time, key[index].time) {
            (false, _, _) => {
                let distance = index as i64 - at as i64;
                self.start.is_none_or(|start| distance >= start) && distance <= self.end
            }
            (true, Some(now), Some(time)) => {
                self.start.is_none_or(|start| time >= now + start * 10) && time <= now + self.end * 10
            }
            // Null times are equal, and after all others.
            (true, now, time) => now.is_none() && (time.is_none() || self.start.is_none()),
        };
        (0..key.len()).filter(|index| is_seen(*index)).map(|index| key[index]).collect()
    }

    /// The cells of the functions for row `at` of a key's rows.
    fn naive(self, key: &[Row], at: usize) -> Vec<String> {
        let frame = self.sees(key, at);
        let values = || frame.iter().filter_map(|row| row.value);
        let prices = || frame.iter().filter_map(|row| row.price);
        let positive = frame.iter().filter(|row| row.value.is_some_and(|value| value > 0));
        let shifted = usize::try_from(at as i64 + self.offset).ok().and_then(|at| key.get(at));
        let before = key.iter().filter(|row| (row.time.is_none(), row.time) < (key[at].time.is_none(), key[at].time));
        let mut times: Vec<_> = before.clone().map(|row| row.time).collect();
        times.dedup();
        vec![
            frame.len().to_string(),
            frame.iter().filter(|row| row.key.is_some()).count().to_string(),
            or_null(values().reduce(|a, b| a + b)),
            or_null(positive.clone().filter_map(|row| row.price).reduce(|a, b| a + b)),
            or_null(prices().reduce(|a, b| a + b).map(|sum| sum / prices().count() as f64)),
            or_null(prices().reduce(f64::min)),
            or_null(values().max()),
            or_null(positive.filter_map(|row| row.key).min()),
            or_null(frame.first().and_then(|row| row.key)),
            or_null(frame.last().and_then(|row| row.price)),
            or_null(frame.get(1).and_then(|row| row.value)),
            or_null(frame.iter().rev().nth(1).and_then(|row| row.value)),
            or_null(shifted.map_or(self.default, |row| row.value)),
            (at + 1).to_string(),
            (before.count() + 1).to_string(),
            (times.len() + 1).to_string(),
        ]
    }
}

fn spec(overs: &[Over]) -> Arc<RowsWindowSpec> {
    let functions: Vec<RowsFunction> = overs.iter().flat_map(|over| over.functions()).collect();
    let input_schema = input_schema();
    let fields = input_schema.fields().iter().chain(functions.iter().map(|function| &function.field));
    let schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
    Arc::new(RowsWindowSpec { input_schema, schema, time: 0, functions, ttl: None })
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
            let is_of_key = |other: &&Row| !over.keyed || other.key == row.key;
            let key: Vec<Row> = rows.iter().filter(is_of_key).copied().collect();
            cells.extend(over.naive(&key, rows[..index].iter().filter(is_of_key).count()));
        }
        cells
    };
    rows.iter().enumerate().map(cells).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn equals_the_naive_model(
        rows in rows(80), lengths in batch_lengths(), bound in 0i64..60,
        overs in prop::collection::vec(overs(), 1..4),
    ) {
        let spec = spec(&overs);
        let mut operator = RowsWindow::try_new(Arc::clone(&spec)).unwrap();
        let output = run(&mut operator, &stamped(&rows, &lengths, bound, 0, None));
        let expected = model(&rows, bound, &overs);
        assert_same(&spec.schema, &sorted(text(&output)), &sorted(expected.clone()));
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

/// Points to spill or save at.
fn points(most: usize) -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_has_gone_to_disk_comes_back(
        rows in rows(80), lengths in batch_lengths(), bound in 0i64..60,
        overs in prop::collection::vec(overs(), 1..4), spills in points(9), saves in points(3), keyed in any::<bool>(),
    ) {
        let keyed_overs: Vec<Over> = overs.into_iter().map(|over| Over { keyed: over.keyed || keyed, ..over }).collect();
        let spec = spec(&keyed_overs);
        let fresh = || RowsWindow::try_new(Arc::clone(&spec)).unwrap();
        assert_spill_law(fresh, &stamped(&rows, &lengths, bound, 0, None), &spills, &saves);
    }
}

/// The same of functions whose keys are forgotten, and with keys that live so long.
fn forgetful(overs: &[Over], ttl: Option<i64>) -> Arc<RowsWindowSpec> {
    let functions = overs.iter().flat_map(|over| Over { keyed: true, ..*over }.functions());
    let functions: Vec<RowsFunction> = functions.filter(RowsFunction::forgets).collect();
    let input_schema = input_schema();
    let fields = input_schema.fields().iter().chain(functions.iter().map(|function| &function.field));
    let schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
    Arc::new(RowsWindowSpec { input_schema, schema, time: 0, functions, ttl })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A key that is forgotten is another one when it comes back.
    #[test]
    fn each_life_of_a_key_is_a_key_of_its_own(
        rows in rows(80), lengths in batch_lengths(), bound in 0i64..60, ttl in 0i64..60,
        overs in prop::collection::vec(overs(), 1..4), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        // Some functions look at keys, of which each life has a name here.
        let timed: Vec<Row> = rows.into_iter().filter(|row| row.time.is_some() && row.key.is_some()).collect();
        // Rows come out in order of their times, those that are late left out.
        let in_time = with_watermarks(&timed, bound).into_iter().filter(|(row, watermark)| row.time >= Some(*watermark));
        let mut in_order: Vec<Row> = in_time.map(|(row, _)| row).collect();
        in_order.sort_by_key(|row| row.time);
        let (named, over) = lives(&in_order, 1_000, ttl);
        let mut lasting = RowsWindow::try_new(forgetful(&overs, None)).unwrap();
        let expected = text(&run(&mut lasting, &stamped(&named, &[7], 1_000, 0, None)));
        let spec = forgetful(&overs, Some(ttl));
        let fresh = || RowsWindow::try_new(Arc::clone(&spec)).unwrap();
        let (mut operator, input) = (fresh(), stamped(&timed, &lengths, bound, 0, None));
        let got = text(&run(&mut operator, &input));
        assert_same(&spec.schema, &sorted(got), &sorted(forget_lives(expected)));
        if !spec.functions.is_empty() {
            prop_assert_eq!(operator.counters().forgotten_keys, over);
        }
        assert_snapshot_law(fresh, &input, &cuts);
    }
}

/// Keys that come and go do not fill the memory, whatever is kept of them.
#[test]
fn what_is_kept_is_what_lives() {
    let rows = Over { is_range: false, start: Some(-3), end: 0, keyed: true, offset: -2, default: None };
    let running = Over { is_range: true, start: None, ..rows };
    let mut operator = RowsWindow::try_new(forgetful(&[rows, running], Some(100))).unwrap();
    let (mut output, mut most) = (vec![], vec![]);
    for number in 0..200 {
        let row = |index: i64| Row {
            time: Some(number * 100 + index),
            key: Some(format!("key {number} {index}").leak()),
            value: Some(index),
            price: Some(0.5),
        };
        let rows: Vec<Row> = (0..100).map(row).collect();
        let stamp = Stamp { partition: 0, watermark: number * 100 - 1, next_watermark: number * 100 + 99 };
        operator.push(&batch(&rows), stamp, &mut output).unwrap();
        output.clear();
        most.push(operator.memory());
    }
    let (early, late) = (most[..20].iter().max().unwrap(), most[20..].iter().max().unwrap());
    assert!(*late <= early * 2, "{late} bytes after {early}");
}

/// Rows of event times 0, 1, 2 …, most of them of one key.
fn many_rows(keys: &[&'static str]) -> Vec<Row> {
    let row = |index: i64| Row {
        time: Some(index),
        key: Some(keys[index as usize % keys.len()]),
        value: Some(index),
        price: Some(index as f64),
    };
    (0..2000).map(row).collect()
}

#[test]
fn rows_leave_in_order_and_values_are_still_found_after_many_batches() {
    let over = Over { is_range: false, start: None, end: 0, keyed: true, offset: -3, default: None };
    let functions = over.functions().into_iter();
    let at_once = functions.filter(|function| !matches!(function.kind, RowsFunctionKind::NthValue(_)));
    let schema = Arc::new(Schema::new(input_schema().fields().to_vec()));
    let functions: Vec<RowsFunction> = at_once.collect();
    let fields = schema.fields().iter().chain(functions.iter().map(|function| &function.field));
    let schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
    let spec = Arc::new(RowsWindowSpec { input_schema: input_schema(), schema, time: 0, functions, ttl: None });
    let rows = many_rows(&["usual", "usual", "usual", "usual", "rare", "usual"]);
    let mut operator = RowsWindow::try_new(Arc::clone(&spec)).unwrap();
    let output = run(&mut operator, &stamped(&rows, &[1, 2], 0, 0, None));
    let mut expected = model(&rows, 0, &[over]);
    expected.iter_mut().for_each(|cells| drop(cells.drain(14..16)));
    assert_same(&spec.schema, &text(&output), &expected);
}

#[test]
fn frames_of_time_free_what_they_have_passed() {
    let over = Over { is_range: true, start: Some(-2), end: 1, keyed: true, offset: -1, default: None };
    let range = |function: &RowsFunction| matches!(function.frame, Frame::Range { .. });
    let functions: Vec<RowsFunction> = over.functions().into_iter().filter(range).collect();
    let fields = input_schema().fields().iter().cloned().collect::<Vec<_>>();
    let fields = fields.into_iter().chain(functions.iter().map(|function| Arc::clone(&function.field)));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let spec = Arc::new(RowsWindowSpec { input_schema: input_schema(), schema, time: 0, functions, ttl: None });
    let mut operator = RowsWindow::try_new(spec).unwrap();
    // Each key has its time and does not come back.
    let (mut rows, keys) = (many_rows(&["a"]), ["a", "b", "c", "d", "e", "f", "g", "h"]);
    rows.iter_mut().enumerate().for_each(|(index, row)| row.key = Some(keys[index / 250]));
    let (mut output, mut most) = (vec![], 0);
    for (index, (batch, stamp)) in stamped(&rows, &[5], 3, 0, None).into_iter().enumerate() {
        operator.push(&batch, stamp, &mut output).unwrap();
        if index > 20 {
            most = most.max(operator.memory());
        }
    }
    assert!(most < 120_000, "{most} bytes");
}
