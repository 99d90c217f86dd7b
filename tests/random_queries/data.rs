//! Random rows, how they are laid out in files, and which of them are late.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMillisecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::csv::WriterBuilder;
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::window::Window;

/// 2024-01-01, a Monday.
const BEGIN_MS: i64 = 1_704_067_200_000;

/// A row; `id` numbers the rows by partition, then by their place in it.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub id: i64,
    pub ts_ms: Option<i64>,
    pub k: Option<usize>,
    pub room: Option<i64>,
    pub i: Option<i32>,
    pub f: Option<f64>,
    pub d: Option<i128>,
    pub b: Option<bool>,
    pub day: Option<i32>,
    pub s: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Parquet,
    Csv,
}

/// What the files of a stream are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One sequence of rows.
    Sequence,
    /// Each is a partition, and keys are spread over them.
    Files,
    /// Each is a partition, with values of `k` that no other has.
    ByKey,
}

/// What the stream declares about the order of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watermark {
    Undeclared,
    Exact,
    Bound { ms: i64 },
}

#[derive(Debug, Clone)]
pub struct Data {
    pub format: Format,
    pub layout: Layout,
    pub watermark: Watermark,
    pub unit: TimeUnit,
    pub is_utc: bool,
    pub rows_of_group: usize,
    pub has_statistics: bool,
    pub files: Vec<Vec<Row>>,
}

/// What keeps rows, and so says until when one may still come.
#[derive(Debug, Clone, Copy)]
pub enum RowsOf<'a> {
    /// Until the last of them has closed.
    Windows(&'a Window),
    /// Of OVER: until the watermark is beyond the row.
    Frames,
    /// Until the session that the row is by itself has ended.
    Sessions { gap_s: i64 },
}

/// The rows that the naive model keeps.
pub struct Kept {
    pub rows: RecordBatch,
    /// Rows that are late for all of their windows.
    pub late_rows: u64,
    /// Whether every row is in all of its windows.
    pub is_all: bool,
}

impl Data {
    pub fn random(random: &mut ChaCha8Rng) -> Self {
        let format = if random.random_bool(0.3) { Format::Csv } else { Format::Parquet };
        let layout = [Layout::Sequence, Layout::Files, Layout::ByKey][random.random_range(0..3)];
        let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
        let unit = if format == Format::Csv { TimeUnit::Nanosecond } else { units[random.random_range(0..4)] };
        let watermark = match random.random_range(0..10) {
            0 => Watermark::Undeclared,
            1 | 2 => Watermark::Exact,
            _ => Watermark::Bound { ms: 1000 * [0, 1, 2, 5, 10, 30][random.random_range(0..6)] },
        };
        let mut files = vec![vec![]; random.random_range(1..5)];
        let shape = Shape::random(unit, random);
        for number in 0..random.random_range(0..250) {
            let row = shape.row(number, random);
            let spread = random.random_range(0..files.len());
            let file = match layout {
                Layout::Sequence => number * files.len() / 250,
                Layout::Files => spread,
                Layout::ByKey => row.k.map_or(0, |k| k % files.len()),
            };
            files[file].push(row);
        }
        let mut data = Self {
            format,
            layout,
            watermark,
            unit,
            is_utc: format == Format::Parquet && random.random_bool(0.1),
            rows_of_group: random.random_range(1..100),
            has_statistics: random.random_bool(0.8),
            files,
        };
        data.number();
        data
    }

    /// Gives rows their numbers.
    pub fn number(&mut self) {
        self.files.iter_mut().flatten().zip(0..).for_each(|(row, id)| row.id = id);
    }

    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.files.iter().flatten()
    }

    /// Whether every value of `k` is in one partition.
    pub fn is_one_partition(&self) -> bool {
        self.layout == Layout::Sequence || self.files.len() == 1
    }

    pub fn create_stream(&self, folder: &Path) -> String {
        let mut columns = String::new();
        if self.format == Format::Csv {
            columns.push_str(
                "id BIGINT, ts TIMESTAMP, k VARCHAR, room BIGINT, i INT, f DOUBLE, d DECIMAL(10, 2), b BOOLEAN, \
                 day DATE, s VARCHAR",
            );
        }
        let watermark = match self.watermark {
            Watermark::Undeclared => String::new(),
            Watermark::Exact => "WATERMARK FOR ts".to_string(),
            Watermark::Bound { ms } => format!("WATERMARK FOR ts AS ts - INTERVAL '{} seconds'", ms / 1000),
        };
        let parts: Vec<_> = [columns, watermark].into_iter().filter(|part| !part.is_empty()).collect();
        let parts = if parts.is_empty() { String::new() } else { format!("({})", parts.join(", ")) };
        let options = match self.layout {
            Layout::Sequence => "",
            Layout::Files => " OPTIONS ('partitions' 'files')",
            Layout::ByKey => " OPTIONS ('partitioned_by' 'k')",
        };
        let format = if self.format == Format::Csv { "CSV" } else { "PARQUET" };
        format!("CREATE STREAM t {parts} STORED AS {format} LOCATION '{}/'{options}", folder.display())
    }

    pub fn write(&self, folder: &Path) {
        for (number, rows) in self.files.iter().enumerate() {
            let batch = self.batch(rows, None);
            match self.format {
                Format::Csv => {
                    let file = File::create(folder.join(format!("f-{number}.csv"))).unwrap();
                    WriterBuilder::new().with_header(true).build(file).write(&batch).unwrap();
                }
                Format::Parquet => {
                    let file = File::create(folder.join(format!("f-{number}.parquet"))).unwrap();
                    let statistics =
                        if self.has_statistics { EnabledStatistics::Page } else { EnabledStatistics::None };
                    let properties = WriterProperties::builder()
                        .set_max_row_group_row_count(Some(self.rows_of_group))
                        .set_statistics_enabled(statistics)
                        .build();
                    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
                    writer.write(&batch).unwrap();
                    writer.close().unwrap();
                }
            }
        }
    }

    /// The rows that the naive model keeps, each once for every window that holds it, with the window's start and end
    /// beside it.
    pub fn kept(&self, rows_of: RowsOf) -> Kept {
        let (mut rows, mut windows, mut late_rows, mut is_all) = (vec![], vec![], 0, true);
        for (row, watermark) in self.with_watermarks() {
            let Some(time) = row.ts_ms else {
                rows.push(row.clone());
                windows.push(None);
                continue;
            };
            let held_by = match rows_of {
                RowsOf::Windows(window) => window.windows(time),
                RowsOf::Frames => vec![(time, time + 1)],
                RowsOf::Sessions { gap_s } => vec![(time, time + gap_s * 1000)],
            };
            let open: Vec<(i64, i64)> = held_by.iter().filter(|(_, end)| *end > watermark).copied().collect();
            // Late is what came too late for all of its windows; between windows nothing is.
            late_rows += u64::from(open.is_empty() && !held_by.is_empty());
            is_all &= open.len() == held_by.len();
            for (start, end) in open {
                rows.push(row.clone());
                windows.push(matches!(rows_of, RowsOf::Windows(_)).then_some((start, end)));
            }
        }
        Kept { rows: self.batch(&rows, Some(&windows)), late_rows, is_all }
    }

    /// All rows: without windows none is late.
    pub fn all(&self) -> Kept {
        let rows: Vec<Row> = self.rows().cloned().collect();
        Kept { rows: self.batch(&rows, None), late_rows: 0, is_all: true }
    }

    /// Each row with its watermark: the highest event time before it in its partition, less the bound.
    fn with_watermarks(&self) -> impl Iterator<Item = (&Row, i64)> {
        let bound = match self.watermark {
            Watermark::Bound { ms } => Some(ms),
            Watermark::Exact | Watermark::Undeclared => None,
        };
        let mut highest: Option<i64> = None;
        self.files.iter().flat_map(|file| file.iter().enumerate()).map(move |(place, row)| {
            if place == 0 && self.layout != Layout::Sequence {
                highest = None;
            }
            let watermark = highest.zip(bound).map_or(i64::MIN, |(highest, bound)| highest - bound);
            highest = highest.max(row.ts_ms);
            (row, watermark)
        })
    }

    fn batch(&self, rows: &[Row], windows: Option<&[Option<(i64, i64)>]>) -> RecordBatch {
        let time = |times: Vec<Option<i64>>| -> ArrayRef {
            let times = TimestampMillisecondArray::from(times);
            cast(&times, &DataType::Timestamp(self.unit, self.is_utc.then(|| "UTC".into()))).unwrap()
        };
        let decimals = Decimal128Array::from_iter(rows.iter().map(|row| row.d)).with_precision_and_scale(10, 2);
        let keys = rows.iter().map(|row| row.k.map(|k| format!("key {k}")));
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.id)))),
            ("ts", time(rows.iter().map(|row| row.ts_ms).collect())),
            ("k", Arc::new(StringArray::from_iter(keys))),
            ("room", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.room)))),
            ("i", Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.i)))),
            ("f", Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.f)))),
            ("d", Arc::new(decimals.unwrap())),
            ("b", Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row.b)))),
            ("day", Arc::new(Date32Array::from_iter(rows.iter().map(|row| row.day)))),
            ("s", Arc::new(StringArray::from_iter(rows.iter().map(|row| row.s.as_deref())))),
        ];
        if let Some(windows) = windows {
            columns.push(("ws", time(windows.iter().map(|window| window.map(|(start, _)| start)).collect())));
            columns.push(("we", time(windows.iter().map(|window| window.map(|(_, end)| end)).collect())));
        }
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    /// The rows as a person reads them.
    pub fn text(&self) -> String {
        let mut text = format!(
            "-- {:?}, {:?}, {:?}, {:?}, UTC {}, row groups of {}, statistics {}\n",
            self.format, self.layout, self.watermark, self.unit, self.is_utc, self.rows_of_group, self.has_statistics
        );
        for (number, file) in self.files.iter().enumerate() {
            let _ = writeln!(text, "-- file {number}");
            let mut bytes = vec![];
            WriterBuilder::new().with_header(true).build(&mut bytes).write(&self.batch(file, None)).unwrap();
            text.push_str(&String::from_utf8(bytes).unwrap());
        }
        text
    }
}

/// What the rows of one data set have in common.
struct Shape {
    step_ms: i64,
    jitter_ms: i64,
    keys: usize,
    nulls: f64,
    null_times: f64,
    /// Times are multiples of this, so that some are just at the edge of a window or of the watermark.
    tick_ms: i64,
}

impl Shape {
    fn random(unit: TimeUnit, random: &mut ChaCha8Rng) -> Self {
        Self {
            step_ms: [0, 300, 1000, 4000, 60_000][random.random_range(0..5)],
            jitter_ms: [1, 5000, 30_000, 200_000][random.random_range(0..4)],
            keys: random.random_range(1..8),
            nulls: [0.0, 0.1, 0.5][random.random_range(0..3)],
            null_times: [0.0, 0.0, 0.1][random.random_range(0..3)],
            tick_ms: if unit == TimeUnit::Second { 1000 } else { [1, 500, 1000, 10_000][random.random_range(0..4)] },
        }
    }

    fn row(&self, number: usize, random: &mut ChaCha8Rng) -> Row {
        let ms = BEGIN_MS + self.step_ms * number as i64 - random.random_range(0..self.jitter_ms);
        let ms = ms.div_euclid(self.tick_ms) * self.tick_ms;
        let has_value = |random: &mut ChaCha8Rng| !random.random_bool(self.nulls);
        let has_time = !random.random_bool(self.null_times);
        Row {
            id: 0,
            ts_ms: has_time.then_some(ms),
            k: has_value(random).then(|| random.random_range(0..self.keys)),
            room: has_value(random).then(|| random.random_range(-2..3)),
            i: has_value(random).then(|| random.random_range(-50..50)),
            // Sums of such fractions are exact in whatever order. No NaN: of DataFusion's minimum it makes whatever the
            // order of rows says.
            f: has_value(random).then(|| match random.random_range(0..60) {
                0 => -0.0,
                _ => f64::from(random.random_range(-400..400)) / 4.0,
            }),
            d: has_value(random).then(|| random.random_range(-9999..9999)),
            b: has_value(random).then(|| random.random_bool(0.5)),
            day: has_value(random).then(|| random.random_range(19_720..19_726)),
            s: has_value(random)
                .then(|| ["ash", "birch", "cedar", "Ärmel", "x,y"][random.random_range(0..5)].to_string()),
        }
    }
}
