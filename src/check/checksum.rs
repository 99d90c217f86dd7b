//! A checksum of an answer: the same whatever order the rows come in, in memory that does not grow with them.
//!
//! All columns but floats are hashed, and the hashes of all rows are added. Floats agree to nine digits only, so they are
//! added as numbers, each with a weight that the rest of its row decides: a value in the wrong row shows. There are
//! several such sums, so that one wrong value among millions is not lost in them. Changes of a key are kept until the next
//! one takes their place, so what they need grows with the keys.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::common::Result;
use datafusion::common::cast::as_string_array;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::dataframe::DataFrame;
use parking_lot::Mutex;

use crate::plan::{Changelog, Keyed, changelog};
use crate::runtime::Job;
use crate::sink::{Sink, Writer, Written};

use super::changelog::{Sessions, session_bounds};
use super::question::left_open;
use super::rows::floats;

const SEED: u64 = 7;
/// Sums of floats.
const SUMS: usize = 256;
/// How far sums of floats that are the same may be apart, relative to what was added.
const TOLERANCE: f64 = 1e-9;

/// The sums over the rows of an answer, of which those that others have replaced are none.
#[derive(Debug, Clone)]
pub struct Checksum {
    /// Rows that the query gave, each change counted.
    pub rows: u64,
    /// Rows of the final answer.
    pub final_rows: u64,
    /// Rows that the query left out because they came after their window had closed.
    pub late_rows: u64,
    /// Why the rows say nothing of the final answer, if they are changes of keys that are not among the columns.
    pub why_not_folded: Option<String>,
    /// What SQL leaves open in the query, so that two answers may differ and both be right.
    pub left_open: Option<&'static str>,
    total: Total,
}

impl Checksum {
    /// Runs a query, keeping none of its rows.
    ///
    /// # Errors
    /// What is wrong with the query or its data, or why it cannot run as a stream.
    pub async fn of(query: DataFrame) -> Result<Self> {
        let left_open = left_open(query.logical_plan())?;
        let (state, plan) = query.clone().into_parts();
        let changelog = changelog(&state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?);
        let why_not_folded = match &changelog {
            Changelog::Unkeyed { why, .. } => Some(why.clone()),
            _ => None,
        };
        let sink = ChecksumSink { changelog, sums: Arc::default() };
        let summary = Job::new(query).await?.run(&sink).await?;
        let sums = std::mem::take(&mut *sink.sums.lock());
        let of_sessions = sums.sessions.into_values().flat_map(Sessions::into_rows);
        let total = sums.latest.into_values().chain(of_sessions).fold(sums.total, |mut total, row| {
            total.add(row, 1);
            total
        });
        let (rows, late_rows) = (summary.rows_written, summary.progress.late_rows);
        Ok(Self { rows, final_rows: total.rows, late_rows, why_not_folded, left_open, total })
    }

    /// What differs in another answer, which should be the same once changes are folded.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.final_rows != other.final_rows {
            return Some(format!("{} rows and not {}", other.final_rows, self.final_rows));
        }
        if self.total.exact != other.total.exact {
            return Some(format!(
                "hashes of all but floats add up to {:016x} and not {:016x}",
                other.total.exact, self.total.exact
            ));
        }
        let mut sums = self.total.floats.iter().zip(&other.total.floats);
        sums.find(|(own, others)| !own.is_same(others))
            .map(|(own, others)| format!("weighted floats add up to {} and not {}", others.sum, own.sum))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let floats: f64 = self.total.floats.iter().map(|float| float.sum).sum();
        write!(f, "{:016x} {floats:.8e}", self.total.exact)
    }
}

/// What a row adds.
#[derive(Debug, Clone, Copy)]
struct Row {
    hash: u64,
    floats: f64,
    /// The same with every float positive.
    size: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct FloatSum {
    sum: f64,
    size: f64,
}

impl FloatSum {
    fn is_same(&self, other: &Self) -> bool {
        (self.sum - other.sum).abs() <= TOLERANCE * self.size.max(other.size)
    }
}

#[derive(Debug, Clone)]
struct Total {
    rows: u64,
    exact: u64,
    floats: Vec<FloatSum>,
}

impl Default for Total {
    fn default() -> Self {
        Self { rows: 0, exact: 0, floats: vec![FloatSum::default(); SUMS] }
    }
}

impl Total {
    /// A row that comes (1), or goes again (-1).
    fn add(&mut self, row: Row, sign: i8) {
        self.rows = self.rows.wrapping_add_signed(i64::from(sign));
        self.exact = match sign {
            1 => self.exact.wrapping_add(row.hash),
            _ => self.exact.wrapping_sub(row.hash),
        };
        if let Some(float) = self.floats.get_mut(row.hash as usize % SUMS) {
            float.sum += f64::from(sign) * row.floats;
            float.size += row.size;
        }
    }
}

#[derive(Debug, Default)]
struct Sums {
    total: Total,
    /// The latest row of each key, by the key's hash.
    latest: HashMap<u64, Row>,
    /// The same of sessions whose bounds change.
    sessions: HashMap<u64, Sessions<Row>>,
}

impl Sums {
    fn take(&mut self, batch: &RecordBatch, changelog: &Changelog) -> Result<()> {
        let (op, keys, session) = match changelog {
            Changelog::Keyed(Keyed { op, keys, session, .. }) => (*op, Some(keys), *session),
            Changelog::Rows { op, .. } => (Some(*op), None, None),
            Changelog::None | Changelog::Unkeyed { .. } => (None, None, None),
        };
        let bounds = session.map(|session| session_bounds(batch, session)).transpose()?;
        let rows = rows(batch, op)?;
        let keys = keys.map(|keys| hashes(keys.iter().map(|key| batch.column(*key)), batch.num_rows())).transpose()?;
        let ops = op.map(|op| cast(batch.column(op), &DataType::Utf8)).transpose()?;
        let ops = ops.as_ref().map(|ops| as_string_array(ops)).transpose()?;
        for (index, row) in rows.into_iter().enumerate() {
            let goes = ops.is_some_and(|ops| matches!(ops.value(index), "-U" | "-D"));
            match keys.as_ref().and_then(|keys| keys.get(index)) {
                Some(key) if let Some(bounds) = &bounds => {
                    self.sessions.entry(*key).or_default().take(bounds[index], row);
                }
                Some(key) if goes => drop(self.latest.remove(key)),
                Some(key) => drop(self.latest.insert(*key, row)),
                None => self.total.add(row, if goes { -1 } else { 1 }),
            }
        }
        Ok(())
    }
}

/// What each row of a batch adds, without the column that says whether it comes or goes.
fn rows(batch: &RecordBatch, op: Option<usize>) -> Result<Vec<Row>> {
    let columns = batch.columns().iter().enumerate().filter(|(index, _)| Some(*index) != op).map(|(_, column)| column);
    let (of_floats, others): (Vec<&ArrayRef>, Vec<_>) = columns.partition(|column| column.data_type().is_floating());
    let others = others.into_iter().map(plain).collect::<Result<Vec<_>>>()?;
    let mut rows: Vec<_> = hashes(others.iter(), batch.num_rows())?
        .into_iter()
        .map(|hash| Row { hash: mixed(hash), floats: 0.0, size: 0.0 })
        .collect();
    for (index, column) in of_floats.into_iter().enumerate() {
        for (row, value) in rows.iter_mut().zip(floats(column)?.unwrap_or_default()) {
            row.take(index as u64, value);
        }
    }
    Ok(rows)
}

impl Row {
    /// Another float of the row. What no sum can hold is hashed.
    fn take(&mut self, column: u64, value: Option<f64>) {
        match value {
            Some(value) if value.is_finite() => {
                let weight = 1.0 + (mixed(self.hash ^ column) >> 11) as f64 / (1_u64 << 53) as f64;
                self.floats += weight * value;
                self.size += weight * value.abs();
            }
            other => {
                let kind = other.map_or(1, |value| if value.is_nan() { 2 } else { 3 + u64::from(value > 0.0) });
                self.hash = mixed(self.hash ^ mixed(column * 8 + kind));
            }
        }
    }
}

/// Text in the one form that is hashed: files and engines differ in it.
fn plain(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Dictionary(..) => cast(column, &DataType::Utf8View)?,
        _ => Arc::clone(column),
    })
}

fn hashes<'a>(columns: impl Iterator<Item = &'a ArrayRef>, rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    create_hashes(columns, &RandomState::with_seed(SEED), &mut hashes)?;
    Ok(hashes)
}

/// The finalizer of SplitMix64: every bit of the result depends on all bits.
fn mixed(hash: u64) -> u64 {
    let hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Adds up rows where the pipelines meet.
#[derive(Debug)]
struct ChecksumSink {
    changelog: Changelog,
    sums: Arc<Mutex<Sums>>,
}

impl Sink for ChecksumSink {
    fn writer(&self, _: usize, _: SchemaRef) -> Result<Box<dyn Writer>> {
        let (changelog, sums) = (self.changelog.clone(), Arc::clone(&self.sums));
        Ok(Box::new(ChecksumWriter { changelog, sums, written: Written::default() }))
    }
}

struct ChecksumWriter {
    changelog: Changelog,
    sums: Arc<Mutex<Sums>>,
    written: Written,
}

#[async_trait]
impl Writer for ChecksumWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.written.rows += batch.num_rows() as u64;
        self.sums.lock().take(&batch, &self.changelog)
    }

    async fn close(&mut self) -> Result<Written> {
        Ok(self.written.clone())
    }
}

#[cfg(test)]
mod tests {
    use crate::session::{StreamlinesContext, streaming_session};

    use super::*;

    async fn checksum(sql: &str) -> Checksum {
        let ctx = streaming_session(Default::default());
        Checksum::of(ctx.stream_sql(sql).await.unwrap()).await.unwrap()
    }

    async fn difference(left: &str, right: &str) -> Option<String> {
        let values = |rows: &str| format!("SELECT * FROM (VALUES {rows}) AS t (k, n, x)");
        checksum(&values(left)).await.difference(&checksum(&values(right)).await)
    }

    #[tokio::test]
    async fn order_and_the_last_digits_of_floats_are_open() {
        let left = "('a', 1, 0.3), ('b', NULL, NULL), (NULL, 2, 'NaN'::DOUBLE)";
        assert_eq!(difference(left, "('b', NULL, NULL), (NULL, 2, 'NaN'::DOUBLE), ('a', 1, 0.1 + 0.2)").await, None);
    }

    #[tokio::test]
    async fn what_differs_is_said() {
        let left = "('a', 1, 0.3), ('b', 2, 0.5)";
        let said = async |right: &str| difference(left, right).await.unwrap();
        assert_eq!(said("('a', 1, 0.3)").await, "1 rows and not 2");
        assert!(said("('a', 1, 0.3), ('b', 3, 0.5)").await.contains("hashes of all but floats"));
        assert!(said("('a', 1, 0.3), ('b', 2, NULL)").await.contains("hashes of all but floats"));
        assert!(said("('a', 1, 0.3), ('b', 2, 0.50001)").await.contains("weighted floats"));
        // Both sums are there, but of the wrong rows.
        assert!(said("('a', 1, 0.5), ('b', 2, 0.3)").await.contains("weighted floats"));
    }

    #[tokio::test]
    async fn changes_are_folded() {
        let from = "FROM 'testdata/nycflights/flights-EWR.parquet' WHERE flight < 500 GROUP BY carrier";
        let batch = checksum(&format!("SELECT carrier, count(*), avg(dep_delay) {from}")).await;
        for emit in ["", " WITH OP", " WITH RETRACTIONS"] {
            let changes =
                checksum(&format!("SELECT carrier, count(*), avg(dep_delay) {from} EMIT CHANGES{emit}")).await;
            assert_eq!(batch.difference(&changes), None, "{emit}");
            assert!(changes.rows > batch.rows && changes.final_rows == batch.rows, "{changes:?}");
        }
    }
}
