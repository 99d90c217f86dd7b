//! The library as an embedder meets it: a session of DataFusion's that learns to stream, functions and sinks of the
//! caller's, and what happens when one of them fails.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float64Type, SchemaRef};
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Accumulator, ColumnarValue, Expr, ExprFunctionExt, PartitionEvaluator, ScalarUDF, Volatility, create_udaf,
    create_udf, create_udwf,
};
use datafusion::physical_plan::execute_stream_partitioned;
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use futures::TryStreamExt;
use streamlines::{
    Job, Sink, StreamlinesContext, StreamlinesOptions, StreamlinesStateBuilder, Writer, Written, streaming_session,
};

mod confined;
mod late_rows;
mod stored_streams;
mod stores;

const HOURLY: &str = "SELECT origin, tumble(scheduled, INTERVAL '1 hour') AS hour, count(*) AS n FROM flights
    GROUP BY origin, tumble(scheduled, INTERVAL '1 hour')";

/// The flights as three partitions by their origin, and as one sequence of row groups.
async fn with_flights(ctx: SessionContext) -> SessionContext {
    let files = "STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet'";
    for statement in [
        format!(
            "CREATE STREAM flights (WATERMARK FOR scheduled AS scheduled - INTERVAL '2' DAY) {files}
             OPTIONS ('partitioned_by' 'origin')"
        ),
        format!("CREATE STREAM sequence (WATERMARK FOR scheduled) {files}"),
    ] {
        ctx.stream_sql(&statement).await.unwrap();
    }
    ctx
}

async fn session(strategy: &str) -> SessionContext {
    let options = StreamlinesOptions { strategy: strategy.to_string(), partitions: 2, ..StreamlinesOptions::default() };
    with_flights(streaming_session(SessionConfig::new().with_option_extension(options))).await
}

/// The rows as text, sorted.
fn sorted(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = vec![];
    for batch in batches {
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
            rows.push(values.collect::<Vec<_>>().join(" "));
        }
    }
    rows.sort();
    rows
}

async fn rows(ctx: &SessionContext, sql: &str) -> Vec<String> {
    sorted(&ctx.stream_sql(sql).await.unwrap().collect().await.unwrap())
}

#[tokio::test]
async fn a_session_that_is_there_learns_to_stream() {
    let state = SessionStateBuilder::new().with_default_features().with_streamlines().build();
    let ctx = with_flights(SessionContext::new_with_state(state)).await;
    let expected = rows(&session("batch").await, HOURLY).await;
    assert!(expected.len() > 10_000);
    // Its own parser, streams of one answer, streams of the partitions, and no SQL at all.
    let query = || async { ctx.sql(HOURLY).await.unwrap() };
    assert!(sorted(&query().await.collect().await.unwrap()) == expected);
    let stream = query().await.execute_stream().await.unwrap();
    assert!(sorted(&stream.try_collect::<Vec<_>>().await.unwrap()) == expected);
    let partitions = query().await.execute_stream_partitioned().await.unwrap();
    assert!(partitions.len() > 1);
    let mut batches = vec![];
    for partition in partitions {
        batches.extend(partition.try_collect::<Vec<_>>().await.unwrap());
    }
    assert!(sorted(&batches) == expected);
    let hour = ctx
        .udf("tumble")
        .unwrap()
        .call(vec![col("scheduled"), lit(ScalarValue::new_interval_mdn(0, 0, 3_600_000_000_000))]);
    let flights = ctx.table("flights").await.unwrap();
    let hourly = flights.aggregate(vec![col("origin"), hour], vec![count(lit(1))]).unwrap();
    assert!(hourly.clone().create_physical_plan().await.is_ok_and(|plan| {
        datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string().contains("WindowAggregateExec")
    }));
    assert!(sorted(&hourly.collect().await.unwrap()) == expected);
    // A plan runs as often as it is executed.
    let plan = query().await.create_physical_plan().await.unwrap();
    for _ in 0..2 {
        let streams = execute_stream_partitioned(Arc::clone(&plan), ctx.task_ctx()).unwrap();
        let batches = futures::future::try_join_all(streams.into_iter().map(TryStreamExt::try_collect::<Vec<_>>));
        assert!(sorted(&batches.await.unwrap().concat()) == expected);
    }
}

/// With an exact watermark no row is late, and yet most windows are closed long before the end.
#[tokio::test]
async fn exact_watermarks_keep_little() {
    let ctx = session("partitioned").await;
    let hourly =
        "SELECT origin, window_start, count(*) AS n FROM flights GROUP BY origin WINDOW TUMBLING (SIZE 1 HOUR)";
    ctx.stream_sql(
        "CREATE OR REPLACE STREAM flights (WATERMARK FOR scheduled) STORED AS PARQUET
         LOCATION 'testdata/nycflights/flights-*.parquet' OPTIONS ('partitioned_by' 'origin')",
    )
    .await
    .unwrap();
    let job = Job::new(ctx.stream_sql(hourly).await.unwrap()).await.unwrap();
    let (mut batches, mut most, mut read, mut closing) = (vec![], 0, 0, 0);
    for mut stream in job.execute_partitioned().unwrap() {
        while let Some(batch) = stream.try_next().await.unwrap() {
            // Windows that close together come out one by one.
            let progress = job.progress();
            closing = if progress.rows_in == read { closing + 1 } else { 1 };
            read = progress.rows_in;
            most = most.max(progress.windows_open + closing);
            batches.push(batch);
        }
    }
    assert!(sorted(&batches) == rows(&session("batch").await, HOURLY).await);
    let progress = job.progress();
    assert_eq!((progress.late_rows, progress.windows_closed), (0, 19_486));
    assert!(most * 10 < progress.windows_closed, "{most} windows were open at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_one_session_are_planned_at_the_same_time() {
    let ctx = streaming_session(SessionConfig::new());
    let count = |number: usize| {
        let ctx = ctx.clone();
        tokio::spawn(async move {
            let sql = format!("SELECT count(*) + {number} FROM 'testdata/nycflights/flights-EWR.parquet'");
            rows(&ctx, &sql).await
        })
    };
    let counts = futures::future::try_join_all((0..16).map(count)).await.unwrap();
    let expected: Vec<_> = (0..16).map(|number| vec![(120_835 + number).to_string()]).collect();
    assert_eq!(counts, expected);
}

/// The root of the mean square, without a vectorised form.
#[derive(Debug, Default)]
struct RootMeanSquare {
    squares: f64,
    rows: f64,
}

impl Accumulator for RootMeanSquare {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            self.squares += value * value;
            self.rows += 1.0;
        }
        Ok(())
    }
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            self.squares -= value * value;
            self.rows -= 1.0;
        }
        Ok(())
    }
    fn supports_retract_batch(&self) -> bool {
        true
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64((self.rows > 0.0).then(|| (self.squares / self.rows).sqrt())))
    }
    fn size(&self) -> usize {
        size_of_val(self)
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.squares.into(), self.rows.into()])
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let sum = |state: &ArrayRef| state.as_primitive::<Float64Type>().iter().flatten().sum::<f64>();
        self.squares += sum(&states[0]);
        self.rows += sum(&states[1]);
        Ok(())
    }
}

#[tokio::test]
async fn aggregates_of_the_callers() {
    let function = create_udaf(
        "rms",
        vec![DataType::Float64],
        Arc::new(DataType::Float64),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::<RootMeanSquare>::default())),
        Arc::new(vec![DataType::Float64, DataType::Float64]),
    );
    let (stream, batch) = (session("partitioned").await, session("batch").await);
    for ctx in [&stream, &batch] {
        ctx.register_udaf(function.clone());
    }
    // Sums of squares of whole minutes are exact, in whatever order.
    let by_origin = "SELECT origin, rms(dep_delay) FROM flights GROUP BY origin";
    let in_windows = "SELECT carrier, window_start, rms(dep_delay), rms(dep_delay) FILTER (WHERE distance > 1000)
        FROM flights GROUP BY carrier, tumble(scheduled, INTERVAL '1 day')";
    // A flight leaves once at a time, so no two rows are equal in order.
    let running = "SELECT scheduled, rms(dep_delay) OVER (PARTITION BY origin, carrier, flight ORDER BY scheduled
        ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM flights";
    for query in [by_origin, in_windows, running] {
        let expected = rows(&batch, query).await;
        assert!(rows(&stream, query).await == expected, "{query}");
        if query != running {
            let query = query.replace("FROM flights", "FROM sequence");
            assert!(rows(&stream, &query).await == expected, "{query}");
        }
    }
    let changes = stream.stream_sql(&format!("{by_origin} EMIT CHANGES")).await.unwrap().collect().await.unwrap();
    assert_eq!(changes.iter().map(RecordBatch::num_rows).sum::<usize>(), 336_776);
    let mut latest = BTreeMap::new();
    for row in
        changes.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| sorted(&[batch.slice(row, 1)]).remove(0)))
    {
        latest.insert(row.split_once(' ').unwrap().0.to_string(), row);
    }
    assert_eq!(latest.into_values().collect::<Vec<_>>(), rows(&batch, by_origin).await);
}

/// The distance between the first and the last value of a frame; `is_bounded` if it says that it needs no other rows.
#[derive(Debug)]
struct Change {
    is_bounded: bool,
}

impl PartitionEvaluator for Change {
    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        let values = values[0].as_primitive::<Float64Type>().slice(range.start, range.len());
        let mut known = values.iter().flatten();
        let first = known.next();
        Ok(ScalarValue::Float64(first.map(|first| known.last().unwrap_or(first) - first)))
    }
    fn uses_window_frame(&self) -> bool {
        true
    }
    fn supports_bounded_execution(&self) -> bool {
        self.is_bounded
    }
}

#[tokio::test]
async fn window_functions_of_the_callers() {
    let (stream, batch) = (session("partitioned").await, session("batch").await);
    for ctx in [&stream, &batch] {
        for (name, is_bounded) in [("change", true), ("far_change", false)] {
            let evaluator = Arc::new(move || Ok(Box::new(Change { is_bounded }) as Box<dyn PartitionEvaluator>));
            let double = DataType::Float64;
            ctx.register_udwf(create_udwf(name, double.clone(), Arc::new(double), Volatility::Immutable, evaluator));
        }
    }
    // Where frames tell, a stream answers them; else the end of the stream does.
    for (call, streams) in [
        ("change(dep_delay) OVER (k ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)", true),
        ("change(dep_delay) OVER (k ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING)", true),
        ("change(dep_delay) OVER (k RANGE BETWEEN INTERVAL '3 days' PRECEDING AND INTERVAL '1 day' PRECEDING)", true),
        ("change(dep_delay) OVER (k)", false),
        ("far_change(dep_delay) OVER (k ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)", false),
    ] {
        let call = call.replace("(k", "(PARTITION BY origin, carrier, flight ORDER BY scheduled");
        let query = format!("SELECT scheduled, {call} FROM flights");
        let plan = Job::new(stream.stream_sql(&query).await.unwrap()).await.unwrap().display();
        assert_eq!(plan.contains("RowsWindowExec"), streams, "{plan}");
        assert!(rows(&stream, &query).await == rows(&batch, &query).await, "{query}");
    }
}

/// Counts how its writers end, and has no room for rows if `is_full`.
#[derive(Debug, Clone, Default)]
struct Counting {
    is_full: bool,
    rows: u64,
    closed: Arc<AtomicUsize>,
    aborted: Arc<AtomicUsize>,
}

impl Sink for Counting {
    fn per_pipeline(&self) -> bool {
        true
    }
    fn writer(&self, _: usize, _: SchemaRef) -> Result<Box<dyn Writer>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Writer for Counting {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        if self.is_full { exec_err!("there is no room") } else { Ok(()) }
    }
    async fn close(&mut self) -> Result<Written> {
        self.closed.fetch_add(1, Ordering::Relaxed);
        Ok(Written { rows: self.rows, ..Written::default() })
    }
    async fn abort(self: Box<Self>) {
        self.aborted.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn over_columns_of_over_columns() {
    let of = async |strategy| {
        let by_time = || vec![col("scheduled").sort(true, false)];
        let number = row_number().order_by(by_time()).build().unwrap().alias("number");
        let of_number = Expr::from(WindowFunction::new(sum_udaf(), vec![col("number")]));
        let of_number = of_number.order_by(by_time()).build().unwrap().alias("of_number");
        let flights = session(strategy).await.table("sequence").await.unwrap();
        let numbered = flights.window(vec![number]).unwrap().window(vec![of_number]).unwrap();
        let sums = numbered.filter(col("number").lt(lit(1000))).unwrap().select_columns(&["number", "of_number"]);
        sorted(&sums.unwrap().collect().await.unwrap())
    };
    assert_eq!(of("partitioned").await, of("batch").await);
}

/// `check(delay)`: passes values on, and does `what` at a delay that one flight alone has had.
fn check(what: fn() -> Result<()>) -> ScalarUDF {
    let pass = move |arguments: &[ColumnarValue]| {
        let values = ColumnarValue::values_to_arrays(arguments)?.remove(0);
        if values.as_primitive::<Float64Type>().iter().flatten().any(|delay| delay > 1_300.0) {
            what()?;
        }
        Ok(ColumnarValue::Array(values))
    };
    create_udf("check", vec![DataType::Float64], DataType::Float64, Volatility::Volatile, Arc::new(pass))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_in_one_pipeline_ends_all_of_them() {
    let ctx = session("partitioned").await;
    let run = async |what: fn() -> Result<()>, is_full: bool| {
        ctx.register_udf(check(what));
        let job = Job::new(ctx.stream_sql("SELECT check(dep_delay) FROM flights").await.unwrap()).await.unwrap();
        let sink = Counting { is_full, ..Counting::default() };
        let ended = job.run(&sink).await.map(|summary| summary.rows_written).map_err(|error| error.to_string());
        (ended, sink.closed.load(Ordering::Relaxed), sink.aborted.load(Ordering::Relaxed))
    };
    assert_eq!(run(|| Ok(()), false).await, (Ok(336_776), 2, 0));
    for (what, is_full, told) in [
        ((|| exec_err!("nobody waits so long")) as fn() -> Result<()>, false, "nobody waits so long"),
        (|| panic!("out of patience"), false, "out of patience"),
        (|| Ok(()), true, "there is no room"),
    ] {
        let (ended, closed, aborted) = run(what, is_full).await;
        assert!(ended.as_ref().is_err_and(|error| error.contains(told)), "{ended:?}");
        assert_eq!((closed, aborted), (0, 2), "{told}");
    }
}
