//! What the operators' property tests share: generated rows, batches stamped by definition, aggregates, and naive
//! models to compare with.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::DiskManager;
use datafusion::execution::context::ExecutionProps;
use datafusion::functions_aggregate::all_default_aggregate_functions;
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{AggregateUDF, Operator as Op, col, lit};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use super::{AggregateSpec, Derived, Length, Operator, Stamp, Ttl, WATERMARK_MIN, WindowShape, WindowSpec};

/// A row of the generated stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) time: Option<i64>,
    pub(super) key: Option<&'static str>,
    pub(super) value: Option<i64>,
    pub(super) price: Option<f64>,
}

/// Rows as text, a cell for each column.
pub(super) type Text = Vec<Vec<String>>;

/// Rows whose event time moves on and wavers, in some streams by coarse ticks so that many are equal; in some streams most values are null, in others hardly any.
pub(super) fn rows(most: usize) -> impl Strategy<Value = Vec<Row>> {
    let streams = (select(vec![0.1, 0.85, 0.999]), select(vec![1, 10]));
    let rows = streams.prop_flat_map(move |(known, ticks)| {
        let row = (
            weighted(0.93, -40i64..40),
            weighted(0.9, select(vec!["a", "b", "c"])),
            weighted(known, -9i64..10),
            weighted(known, -40i32..40),
        );
        (vec(row, 0..most), Just(ticks))
    });
    rows.prop_map(|(rows, ticks)| {
        let row = |(index, (wavers, key, value, quarters)): (usize, (Option<i64>, _, _, Option<i32>))| Row {
            time: wavers.map(|wavers| (index as i64 * 6 - 100 + wavers) / ticks * ticks),
            key,
            value,
            // Sums of quarters are exact, in whichever order.
            price: quarters.map(|quarters| f64::from(quarters) / 4.0),
        };
        rows.into_iter().enumerate().map(row).collect()
    })
}

/// Lengths of batches, some of them empty, to be taken in turn.
pub(super) fn batch_lengths() -> impl Strategy<Value = Vec<usize>> {
    vec(0usize..12, 0..5).prop_map(|mut lengths| {
        lengths.push(5);
        lengths
    })
}

pub(super) fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("key", DataType::Utf8, true),
        Field::new("value", DataType::Int64, true),
        Field::new("price", DataType::Float64, true),
    ]))
}

pub(super) fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter(rows.iter().map(|row| row.time))),
        Arc::new(StringArray::from_iter(rows.iter().map(|row| row.key))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.value))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.price))),
    ];
    RecordBatch::try_new(input_schema(), columns).unwrap()
}

/// Highest event time of rows, and of what was before them.
pub(super) fn highest(rows: &[Row], before: Option<i64>) -> Option<i64> {
    rows.iter().filter_map(|row| row.time).chain(before).max()
}

/// The watermark when this was the highest event time.
pub(super) fn watermark(highest: Option<i64>, bound: i64) -> i64 {
    highest.map_or(WATERMARK_MIN, |highest| highest - bound)
}

/// Each row with its watermark.
pub(super) fn with_watermarks(rows: &[Row], bound: i64) -> Vec<(Row, i64)> {
    let of = |(index, row): (usize, &Row)| (*row, watermark(highest(&rows[..index], None), bound));
    rows.iter().enumerate().map(of).collect()
}

/// Batches of these lengths, cut where one watermark no longer judges all rows of a batch. `before` is the highest
/// event time of the pieces before.
pub(super) fn stamped(
    rows: &[Row],
    lengths: &[usize],
    bound: i64,
    partition: usize,
    before: Option<i64>,
) -> Vec<(RecordBatch, Stamp)> {
    let (mut batches, mut first) = (vec![], 0);
    for length in lengths.iter().cycle() {
        if first == rows.len() {
            break;
        }
        let end = rows.len().min(first + length);
        let now = |row: usize| watermark(highest(&rows[..row], before), bound);
        let (mut begin, mut judged_by) = (first, now(first));
        for row in first..end {
            if now(row) != judged_by && rows[row].time.is_some_and(|time| time < now(row)) {
                let stamp = Stamp { partition, watermark: judged_by, next_watermark: now(row) };
                batches.push((batch(&rows[begin..row]), stamp));
                (begin, judged_by) = (row, now(row));
            }
        }
        let stamp = Stamp { partition, watermark: judged_by, next_watermark: now(end) };
        batches.push((batch(&rows[begin..end]), stamp));
        first = end;
    }
    batches
}

/// Batches of several partitions as one pipeline reads them, the next one by `picks`: each is judged by the watermark of its
/// own partition, and windows close when all partitions have passed them.
pub(super) fn together(partitions: Vec<Vec<(RecordBatch, Stamp)>>, picks: &[usize]) -> Vec<(RecordBatch, Stamp)> {
    let mut heads: Vec<_> =
        partitions.into_iter().map(|batches| (WATERMARK_MIN, batches.into_iter().peekable())).collect();
    let (mut all, mut picks) = (vec![], picks.iter().cycle());
    loop {
        heads.retain_mut(|(_, batches)| batches.peek().is_some());
        let pick = picks.next().copied().unwrap_or(0) % heads.len().max(1);
        let Some((batch, stamp)) = heads.get_mut(pick).and_then(|(_, batches)| batches.next()) else { return all };
        heads[pick].0 = stamp.next_watermark;
        let still = heads.iter_mut().filter_map(|(reached, batches)| batches.peek().map(|_| *reached));
        let next_watermark = still.min().unwrap_or(stamp.next_watermark);
        all.push((batch, Stamp { next_watermark, ..stamp }));
    }
}

pub(super) fn column(name: &str) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new_with_schema(name, &input_schema()).unwrap())
}

/// `value > 0`.
pub(super) fn is_positive() -> Arc<dyn PhysicalExpr> {
    let zero = Arc::new(Literal::new(ScalarValue::Int64(Some(0))));
    Arc::new(BinaryExpr::new(column("value"), Op::Gt, zero))
}

pub(super) fn aggregate(function: Arc<AggregateUDF>, argument: &str) -> Arc<AggregateFunctionExpr> {
    let name = format!("{}({argument})", function.name());
    let builder = AggregateExprBuilder::new(function, vec![column(argument)]).schema(input_schema()).alias(name);
    Arc::new(builder.build().unwrap())
}

/// A GROUP BY of windows of `size` ticks, if any, and of the key, if `keyed`.
pub(super) fn group_by(
    size: Option<i64>,
    keyed: bool,
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
) -> Arc<AggregateSpec> {
    let window = size.map(|size| {
        let interval = ScalarValue::new_interval_mdn(0, 0, size * 1000);
        let start = crate::plan::functions::tumble(vec![lit(interval)], col("ts"));
        let schema = DFSchema::try_from(input_schema()).unwrap();
        let context = PhysicalPlanningContext::default();
        let start = create_physical_expr(&start, &schema, &ExecutionProps::new(), &context).unwrap();
        WindowSpec { start, shape: WindowShape::Tumble(Length::Ticks(size)) }
    });
    let mut fields = vec![];
    if window.is_some() {
        fields.push(Field::new("window_start", DataType::Timestamp(TimeUnit::Microsecond, None), true));
    }
    let keys = if keyed { vec![(column("key"), "key".to_string())] } else { vec![] };
    fields.extend(keys.iter().map(|(_, name)| Field::new(name, DataType::Utf8, true)));
    let of_aggregate = |expr: &Arc<AggregateFunctionExpr>| {
        Field::new(expr.name(), expr.field().data_type().clone(), expr.field().is_nullable())
    };
    fields.extend(aggregates.iter().map(of_aggregate));
    let schema = Arc::new(Schema::new(fields));
    Arc::new(AggregateSpec {
        window,
        keys,
        aggregates,
        filters,
        schema,
        is_ordered: true,
        is_numbered: false,
        totals: vec![],
        ttl: None,
        derived: Derived::default(),
    })
}

/// The GROUP BY that [`Naive`] is the model of.
pub(super) fn common_group_by(size: Option<i64>, keyed: bool) -> Arc<AggregateSpec> {
    let aggregates = vec![
        aggregate(count_udaf(), "value"),
        aggregate(sum_udaf(), "value"),
        aggregate(min_udaf(), "price"),
        aggregate(max_udaf(), "value"),
        aggregate(avg_udaf(), "price"),
        aggregate(sum_udaf(), "value"),
    ];
    let mut filters = vec![None; 5];
    filters.push(Some(is_positive()));
    group_by(size, keyed, aggregates, filters)
}

/// The same GROUP BY with keys that live so long after their last row.
pub(super) fn forgetting(spec: Arc<AggregateSpec>, ticks: i64) -> Arc<AggregateSpec> {
    let spec = Arc::try_unwrap(spec).unwrap();
    Arc::new(AggregateSpec { ttl: Some(Ttl { time: column("ts"), ticks }), ..spec })
}

/// The rows that have a time, each life of a key under a name of its own, which [`forget_lives`] takes back; and how many
/// lives were over when the last row came.
pub(super) fn lives(rows: &[Row], bound: i64, ttl: i64) -> (Vec<Row>, u64) {
    let timed: Vec<Row> = rows.iter().filter(|row| row.time.is_some()).copied().collect();
    let mut keys = BTreeMap::<&str, (u64, i64)>::new();
    let mut named = timed.clone();
    for (row, (_, watermark)) in named.iter_mut().zip(with_watermarks(&timed, bound)) {
        let (key, moment) = (row.key.unwrap_or("NULL"), row.time.unwrap().max(watermark));
        let (life, touched) = keys.entry(key).or_insert((0, moment));
        *life += u64::from(moment > *touched + ttl);
        *touched = moment.max(*touched);
        row.key = Some(format!("{key} {life}").leak());
    }
    let latest = keys.values().map(|(_, touched)| *touched).max();
    let over = |(life, touched): &(u64, i64)| life + u64::from(Some(touched + ttl) < latest);
    (named, keys.values().map(over).sum())
}

/// Rows with the names of keys that [`lives`] has given each of their lives another one.
pub(super) fn forget_lives(rows: Text) -> Text {
    let cell = |cell: String| match cell.split_once(' ') {
        Some((key, _)) => key.to_string(),
        None => cell,
    };
    rows.into_iter().map(|row| row.into_iter().map(cell).collect()).collect()
}

/// Hopping and cumulating windows, aligned to time 0.
pub(super) fn overlapping_shapes() -> impl Strategy<Value = WindowShape> {
    prop_oneof![
        (1i64..30, 1i64..60).prop_map(|(slide, size)| WindowShape::Hop { slide, size, offset: 0 }),
        (1i64..20, 1i64..16).prop_map(|(step, steps)| WindowShape::Cumulate { step, size: step * steps, offset: 0 }),
    ]
}

/// [`common_group_by`] over such windows, kept by panes or whole.
pub(super) fn overlapping_group_by(shape: &WindowShape, keyed: bool, by_panes: bool) -> Arc<AggregateSpec> {
    let spec = common_group_by(shape.pane(), keyed);
    let spec = Arc::try_unwrap(spec).unwrap();
    let window = spec.window.map(|window| WindowSpec { shape: shape.clone(), ..window });
    let mut fields = spec.schema.fields().to_vec();
    if shape.has_own_end() {
        fields.insert(1, Arc::new(fields[0].as_ref().clone().with_name("window_end")));
    }
    let schema = Arc::new(Schema::new(fields));
    Arc::new(AggregateSpec { window, schema, is_ordered: !by_panes, ..spec })
}

/// [`common_group_by`] over sessions of rows that may be late.
pub(super) fn session_group_by(gap: i64, keyed: bool) -> Arc<AggregateSpec> {
    let shape = WindowShape::Session { gap, wait: gap };
    let spec = Arc::try_unwrap(common_group_by(Some(1), keyed)).unwrap();
    let window = Some(WindowSpec { start: column("ts"), shape });
    let mut fields = spec.schema.fields().to_vec();
    fields.insert(1, Arc::new(fields[0].as_ref().clone().with_name("window_end")));
    Arc::new(AggregateSpec { window, schema: Arc::new(Schema::new(fields)), is_ordered: false, ..spec })
}

/// The windows of a shape that hold a time, by ends.
pub(super) fn windows_of(shape: &WindowShape, time: i64) -> Vec<(i64, i64)> {
    let starts = time - 400..=time;
    let windows = |start: i64| match *shape {
        WindowShape::Hop { slide, size, .. } if start.rem_euclid(slide) == 0 => vec![(start, start + size)],
        WindowShape::Cumulate { step, size, .. } if start.rem_euclid(size) == 0 => {
            (1..=size / step).map(|steps| (start, start + steps * step)).collect()
        }
        _ => vec![],
    };
    let mut windows: Vec<(i64, i64)> = starts.flat_map(windows).filter(|(_, end)| time < *end).collect();
    windows.sort_by_key(|(_, end)| *end);
    windows
}

/// A naive group.
#[derive(Debug, Default, Clone)]
pub(super) struct Naive(Vec<Row>);

impl Naive {
    pub(super) fn take(&mut self, row: Row) {
        self.0.push(row);
    }

    /// What [`common_group_by`] computes.
    pub(super) fn cells(&self) -> Vec<String> {
        let values = || self.0.iter().filter_map(|row| row.value);
        let prices = || self.0.iter().filter_map(|row| row.price);
        let (sum, count) = (prices().sum::<f64>(), prices().count());
        vec![
            values().count().to_string(),
            or_null((values().count() > 0).then(|| values().sum::<i64>())),
            or_null(prices().reduce(f64::min)),
            or_null(values().max()),
            or_null((count > 0).then(|| sum / count as f64)),
            or_null(values().filter(|value| *value > 0).reduce(|a, b| a + b)),
        ]
    }
}

pub(super) fn or_null(cell: Option<impl ToString>) -> String {
    cell.map_or("NULL".to_string(), |cell| cell.to_string())
}

/// Start of a row's window.
pub(super) fn window_of(row: &Row, size: i64) -> Option<i64> {
    row.time.map(|time| time.div_euclid(size) * size)
}

/// The cells of the group that a row belongs to; none if it is late.
pub(super) fn group_of(row: &Row, watermark: i64, size: Option<i64>, keyed: bool) -> Option<Vec<String>> {
    let mut cells = vec![];
    if let Some(size) = size {
        let start = window_of(row, size);
        if start.is_some_and(|start| start + size <= watermark) {
            return None;
        }
        cells.push(or_null(start));
    }
    if keyed {
        cells.push(or_null(row.key));
    }
    Some(cells)
}

/// Rows in order, event times as numbers.
pub(super) fn text(batches: &[RecordBatch]) -> Text {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = vec![];
    for batch in batches {
        let plain = |column: &ArrayRef| match column.data_type() {
            DataType::Timestamp(_, _) => cast(column, &DataType::Int64).unwrap(),
            _ => Arc::clone(column),
        };
        let columns: Vec<ArrayRef> = batch.columns().iter().map(plain).collect();
        let formats: Vec<_> =
            columns.iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
        rows.extend((0..batch.num_rows()).map(|row| formats.iter().map(|f| f.value(row).to_string()).collect()));
    }
    rows
}

pub(super) fn sorted(mut rows: Text) -> Text {
    rows.sort();
    rows
}

/// Asserts that rows are equal in order, floats nearly.
pub(super) fn assert_same(schema: &Schema, got: &Text, expected: &Text) {
    assert_eq!(got.len(), expected.len(), "numbers of rows\n got {got:?}\n expected {expected:?}");
    for (got, expected) in got.iter().zip(expected) {
        assert_eq!(got.len(), expected.len(), "numbers of columns");
        for ((got_cell, expected_cell), field) in got.iter().zip(expected).zip(schema.fields()) {
            let name = field.name();
            assert!(is_near(got_cell, expected_cell), "{name}: {got_cell}, not {expected_cell}, in {got:?}");
        }
    }
}

pub(super) fn is_near(a: &str, b: &str) -> bool {
    a == b
        || match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => (a - b).abs() <= 1e-7 + 1e-9 * a.abs(),
            _ => false,
        }
}

/// Runs an operator from its beginning to its end.
pub(super) fn run(operator: &mut dyn Operator, input: &[(RecordBatch, Stamp)]) -> Vec<RecordBatch> {
    let mut output = vec![];
    for (batch, stamp) in input {
        operator.push(batch, *stamp, &mut output).unwrap();
    }
    operator.finish(&mut output).unwrap();
    output
}

/// The law of snapshots: whoever is snapshot goes on as if nothing had happened, and so does a fresh operator that
/// the snapshot is restored into, wherever the input is cut.
pub(super) fn assert_snapshot_law<O: Operator>(
    fresh: impl Fn() -> O,
    input: &[(RecordBatch, Stamp)],
    cuts: &[prop::sample::Index],
) {
    assert_snapshot_law_of(fresh, input, cuts, |output| sorted(text(output)));
}

/// The same of what output amounts to.
pub(super) fn assert_snapshot_law_of<O: Operator>(
    fresh: impl Fn() -> O,
    input: &[(RecordBatch, Stamp)],
    cuts: &[prop::sample::Index],
    answer: impl Fn(&[RecordBatch]) -> Text,
) {
    let cuts: BTreeSet<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    let (mut whole, mut kept, mut moved) = (fresh(), fresh(), fresh());
    let expected = run(&mut whole, input);
    let (mut from_kept, mut from_moved) = (vec![], vec![]);
    for index in 0..=input.len() {
        if cuts.contains(&index) {
            kept.snapshot().unwrap();
            let snapshot: Vec<_> = moved.snapshot().unwrap().iter().map(through_ipc).collect();
            let counters = moved.counters();
            moved = fresh();
            moved.restore(&snapshot).unwrap();
            assert_eq!(moved.counters(), counters);
        }
        if let Some((batch, stamp)) = input.get(index) {
            kept.push(batch, *stamp, &mut from_kept).unwrap();
            moved.push(batch, *stamp, &mut from_moved).unwrap();
        }
    }
    kept.finish(&mut from_kept).unwrap();
    moved.finish(&mut from_moved).unwrap();
    assert_same(&whole.schema(), &answer(&from_kept), &answer(&expected));
    assert_same(&whole.schema(), &answer(&from_moved), &answer(&expected));
    assert_eq!(kept.counters(), whole.counters());
    assert_eq!(moved.counters(), whole.counters());
}

/// The law of spilling: whoever has brought state to disk, as often and as much as may be, goes on as if nothing had
/// happened, also where it is snapshot then, and where a fresh one goes on from that. Says how many bytes went to disk.
pub(super) fn assert_spill_law<O: Operator>(
    fresh: impl Fn() -> O,
    input: &[(RecordBatch, Stamp)],
    spills: &[prop::sample::Index],
    saves: &[prop::sample::Index],
) -> u64 {
    let at = |points: &[prop::sample::Index]| -> BTreeSet<usize> {
        points.iter().map(|point| point.index(input.len() + 1)).collect()
    };
    let (spills, saves) = (at(spills), at(saves));
    let disk = Arc::new(DiskManager::builder().build().unwrap());
    let mut whole = fresh();
    let expected = run(&mut whole, input);
    let (mut operator, mut output, mut spilled) = (fresh(), vec![], 0);
    for index in 0..=input.len() {
        if spills.contains(&index) {
            spilled += operator.spill(&disk).unwrap();
            // Every second time all of it goes.
            while index % 2 == 0 && operator.spill(&disk).unwrap() > 0 {}
        }
        if saves.contains(&index) {
            let snapshot: Vec<_> = operator.snapshot().unwrap().iter().map(through_ipc).collect();
            let counters = operator.counters();
            if index % 3 > 0 {
                operator = fresh();
                operator.restore(&snapshot).unwrap();
            }
            assert_eq!(operator.counters(), counters);
        }
        match input.get(index) {
            Some((batch, stamp)) => operator.push(batch, *stamp, &mut output).unwrap(),
            None => operator.finish(&mut output).unwrap(),
        }
        while operator.more(&mut output).unwrap() {
            operator.spill(&disk).unwrap();
        }
    }
    assert_same(&whole.schema(), &sorted(text(&output)), &sorted(text(&expected)));
    assert_eq!(operator.counters(), whole.counters());
    spilled
}

/// A batch as a checkpoint gives it back.
pub(super) fn through_ipc(batch: &RecordBatch) -> RecordBatch {
    let mut writer = StreamWriter::try_new(vec![], &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    let bytes = writer.into_inner().unwrap();
    StreamReader::try_new(Cursor::new(bytes), None).unwrap().next().unwrap().unwrap()
}

/// Every aggregate of DataFusion over every list of arguments here that it takes, also DISTINCT and IGNORE NULLS.
pub(super) fn every_aggregate() -> Vec<Arc<AggregateFunctionExpr>> {
    let literal = |value: ScalarValue| Arc::new(Literal::new(value)) as Arc<dyn PhysicalExpr>;
    let float = Arc::new(CastExpr::new(column("value"), DataType::Float64, None));
    let arguments: Vec<Vec<Arc<dyn PhysicalExpr>>> = vec![
        vec![column("price")],
        vec![column("value")],
        vec![column("key")],
        vec![is_positive()],
        vec![column("price"), float],
        vec![column("price"), literal(ScalarValue::Float64(Some(0.25)))],
        vec![column("value"), literal(ScalarValue::Int64(Some(2)))],
        vec![column("key"), literal(ScalarValue::Utf8(Some(",".into())))],
    ];
    let aggregates = aggregates_over(&input_schema(), &arguments);
    let names: BTreeSet<_> = aggregates.iter().map(|aggregate| aggregate.fun().name().to_string()).collect();
    assert!(names.len() >= 20, "{names:?}");
    aggregates
}

/// Every aggregate of DataFusion over every one of some lists of arguments that it takes as they are.
pub(super) fn aggregates_over(
    schema: &SchemaRef,
    arguments: &[Vec<Arc<dyn PhysicalExpr>>],
) -> Vec<Arc<AggregateFunctionExpr>> {
    let mut aggregates = vec![];
    for function in all_default_aggregate_functions() {
        for arguments in arguments {
            let variants = [(false, false), (true, false), (false, true)];
            aggregates.extend(variants.iter().filter_map(|(distinct, ignore_nulls)| {
                variant(&function, schema, arguments, *distinct, *ignore_nulls).map(Arc::new)
            }));
        }
    }
    aggregates
}

/// What an aggregate of its own makes of some arguments.
pub(super) fn computed_freshly(aggregate: &AggregateFunctionExpr, arguments: &[ArrayRef]) -> String {
    let mut accumulator = aggregate.create_accumulator().unwrap();
    if arguments.first().is_some_and(|argument| !argument.is_empty()) {
        accumulator.update_batch(arguments).unwrap();
    }
    cells(accumulator.evaluate().unwrap().to_array().unwrap()).remove(0)
}

/// A column as text.
pub(super) fn cells(column: ArrayRef) -> Vec<String> {
    let batch = RecordBatch::try_from_iter_with_nullable([("value", column, true)]).unwrap();
    text(&[batch]).into_iter().flatten().collect()
}

fn variant(
    function: &Arc<AggregateUDF>,
    schema: &SchemaRef,
    arguments: &[Arc<dyn PhysicalExpr>],
    distinct: bool,
    ignore_nulls: bool,
) -> Option<AggregateFunctionExpr> {
    let fields: Vec<_> = arguments.iter().map(|argument| argument.return_field(schema).unwrap()).collect();
    let coerced = fields_with_udf(&fields, function.as_ref()).ok()?;
    if coerced.iter().zip(&fields).any(|(coerced, field)| coerced.data_type() != field.data_type()) {
        return None;
    }
    if ignore_nulls && !function.supports_null_handling_clause() {
        return None;
    }
    let list = arguments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let distinct_word = if distinct { "DISTINCT " } else { "" };
    let nulls_words = if ignore_nulls { " IGNORE NULLS" } else { "" };
    let aggregate = AggregateExprBuilder::new(Arc::clone(function), arguments.to_vec())
        .schema(Arc::clone(schema))
        .alias(format!("{}({distinct_word}{list}){nulls_words}", function.name()))
        .with_distinct(distinct)
        .with_ignore_nulls(ignore_nulls)
        .build()
        .ok()?;
    aggregate.create_accumulator().ok()?;
    // Distinct values come in no order.
    let ordered = matches!(aggregate.field().data_type(), DataType::List(_) | DataType::Utf8 | DataType::LargeUtf8);
    (!distinct || !ordered).then_some(aggregate)
}
