//! Parquet: files of each kind of column, encoding and compression with bytes changed, most of them in the footer.

use std::fs;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int32Type;
use datafusion::error::Result;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, Encoding};
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use datafusion::prelude::SessionConfig;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use streamlines::streaming_session;
use tempfile::TempDir;

use super::inputs::{mutated, mutated_within};
use super::{Target, run};

pub(super) struct Files {
    folder: TempDir,
    good: Vec<Vec<u8>>,
}

impl Files {
    pub(super) async fn new() -> Self {
        let plain = || WriterProperties::builder().set_max_row_group_row_count(Some(20));
        let kinds = [
            plain().build(),
            plain().set_dictionary_enabled(false).set_compression(Compression::SNAPPY).build(),
            plain()
                .set_dictionary_enabled(false)
                .set_column_encoding("n".into(), Encoding::DELTA_BINARY_PACKED)
                .build(),
            plain().set_writer_version(WriterVersion::PARQUET_2_0).set_compression(Compression::LZ4_RAW).build(),
            plain().set_data_page_row_count_limit(7).set_write_batch_size(7).set_bloom_filter_enabled(true).build(),
            plain().set_statistics_enabled(EnabledStatistics::None).build(),
        ];
        Self { folder: TempDir::new().unwrap(), good: kinds.into_iter().map(written).collect() }
    }
}

fn rows() -> RecordBatch {
    let n = 50;
    let numbers = Int64Array::from_iter((0..n).map(|row| (row % 7 != 0).then_some(row)));
    let decimals = Decimal128Array::from_iter((0..n).map(|row| Some(i128::from(row) << 70)));
    let lists = (0..n).map(|row| (row % 5 != 0).then(|| vec![Some(row as i32); row as usize % 3]));
    let inner: ArrayRef = Arc::new(StringArray::from_iter((0..n).map(|row| (row % 4 != 0).then(|| row.to_string()))));
    RecordBatch::try_from_iter([
        (
            "origin",
            Arc::new(StringArray::from_iter_values((0..n).map(|row| ["EWR", "JFK"][row as usize % 2]))) as ArrayRef,
        ),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values((0..n).map(|row| row * 10_000_000)))),
        ("n", Arc::new(numbers)),
        ("fare", Arc::new(Float64Array::from_iter((0..n).map(|row| Some(row as f64))))),
        ("flag", Arc::new(BooleanArray::from_iter((0..n).map(|row| Some(row % 3 == 0))))),
        ("price", Arc::new(decimals)),
        ("tags", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists))),
        ("place", Arc::new(StructArray::try_from(vec![("name", inner)]).unwrap())),
    ])
    .unwrap()
}

fn written(properties: WriterProperties) -> Vec<u8> {
    let batch = rows();
    let mut writer = ArrowWriter::try_new(vec![], batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// Where the footer is, by the length at the end of the file.
fn footer(bytes: &[u8]) -> std::ops::Range<usize> {
    let at = bytes.len() - 8;
    let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    at - length..at
}

const QUERIES: [&str; 6] = [
    "SELECT * FROM s",
    "SELECT origin, tumble(ts, INTERVAL '1 minute') AS t, count(*), sum(n), max(fare), min(price) FROM s GROUP BY 1, 2",
    "SELECT origin, count(*) FROM s WHERE n > 30 AND flag GROUP BY origin EMIT CHANGES",
    "SELECT ts, sum(n) OVER (PARTITION BY origin ORDER BY ts ROWS 2 PRECEDING), tags FROM s",
    "SELECT place, unnest(tags) FROM s WHERE ts > TIMESTAMP '1970-01-01T00:03:00'",
    "SET streamlines.strategy = 'batch'; SELECT origin, sum(n), max(place['name']) FROM s GROUP BY origin ORDER BY 1",
];

impl Target for Files {
    async fn case(&mut self, random: &mut ChaCha8Rng) -> (String, Result<()>) {
        let path = self.folder.path().join("s.parquet");
        let good = self.good.choose(random).unwrap();
        let bytes = match random.random_range(0..4) {
            0 => mutated(good, random),
            _ => mutated_within(good, footer(good), random),
        };
        fs::write(&path, bytes).unwrap();
        let keys = *["", "OPTIONS ('partitioned_by' 'origin')"].choose(random).unwrap();
        let bound = *["", " AS ts - INTERVAL '5' SECOND"].choose(random).unwrap();
        let stream = format!("CREATE STREAM s (WATERMARK FOR ts{bound}) LOCATION '{}' {keys}", path.display());
        let sql = format!("{stream}; {}", QUERIES.choose(random).unwrap());
        let ctx = streaming_session(SessionConfig::new().with_target_partitions(2));
        let ran = run(&ctx, &sql).await;
        (sql, ran)
    }
}
