//! Which column of a stream is its event time, and how late a row may be.

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::{Result, ScalarValue};

use crate::error::Error;
use crate::operator::WATERMARK_MIN;
use crate::sql::Watermark;

use super::exact_watermark::NONE_TO_COME;
use super::schema::no_column;

/// The event-time column of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventTime {
    pub(crate) column: String,
    /// Index in the stream's schema.
    pub(crate) index: usize,
    /// How far a row may be behind, in ticks of the column's unit. Without a bound the watermark is exact.
    pub(crate) bound: Option<i64>,
    bound_ns: Option<i64>,
    data_type: DataType,
}

impl EventTime {
    /// The column that a WATERMARK clause names.
    ///
    /// # Errors
    /// A column that is not there, or holds no timestamps.
    pub(super) fn declared(watermark: &Watermark, schema: &SchemaRef) -> Result<Self> {
        let Ok(index) = schema.index_of(&watermark.column) else {
            let error = no_column(&watermark.column, schema, "WATERMARK names a column");
            return Err(error.at(Some(watermark.at)).into());
        };
        let exact = Self::exact(index, schema);
        let Some(tick_ns) = exact.tick_ns() else {
            let what = format!("the event time {} is {}, not a timestamp or a date", watermark.column, exact.data_type);
            return Err(Error::sql(what)
                .at(Some(watermark.at))
                .help("name a timestamp column, or list the column as TIMESTAMP where the files are text")
                .into());
        };
        // A row that is behind by a part of a tick is still within the bound.
        let bound = watermark.bound_ns.map(|ns| ns / tick_ns + i64::from(ns % tick_ns != 0));
        Ok(Self { bound, bound_ns: watermark.bound_ns, ..exact })
    }

    /// A column that windows are built on where no bound is declared.
    pub(super) fn exact(index: usize, schema: &SchemaRef) -> Self {
        let field = schema.field(index);
        Self { column: field.name().clone(), index, bound: None, bound_ns: None, data_type: field.data_type().clone() }
    }

    /// Nanoseconds of a tick of the column's unit; none if it holds no times.
    pub(crate) fn tick_ns(&self) -> Option<i64> {
        match &self.data_type {
            DataType::Timestamp(TimeUnit::Second, _) => Some(1_000_000_000),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Some(1_000_000),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Some(1_000),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(1),
            // As `ticks` counts them.
            DataType::Date32 => Some(1_000_000_000),
            DataType::Date64 => Some(1_000_000),
            _ => None,
        }
    }

    /// The column's type.
    pub(super) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The bound for a person to read.
    pub(crate) fn describe_bound(&self) -> String {
        match self.bound_ns {
            Some(ns) => format!("{} - {:?}", self.column, std::time::Duration::from_nanos(ns.unsigned_abs())),
            None => "exact".to_string(),
        }
    }

    /// A watermark as a value of the column; none where it stands for no time.
    pub(super) fn value(&self, ticks: i64) -> Option<ScalarValue> {
        if ticks == WATERMARK_MIN || ticks >= NONE_TO_COME {
            return None;
        }
        match &self.data_type {
            DataType::Timestamp(TimeUnit::Second, zone) => {
                Some(ScalarValue::TimestampSecond(Some(ticks), zone.clone()))
            }
            DataType::Timestamp(TimeUnit::Millisecond, zone) => {
                Some(ScalarValue::TimestampMillisecond(Some(ticks), zone.clone()))
            }
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                Some(ScalarValue::TimestampMicrosecond(Some(ticks), zone.clone()))
            }
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
                Some(ScalarValue::TimestampNanosecond(Some(ticks), zone.clone()))
            }
            DataType::Date32 => Some(ScalarValue::Date32(i32::try_from(ticks.div_euclid(86_400)).ok())),
            DataType::Date64 => Some(ScalarValue::Date64(Some(ticks))),
            _ => None,
        }
    }
}

/// The warning that of two files in one sequence the second begins before the first ends.
pub(super) fn overlap(first: &str, second: &str) -> String {
    format!(
        "{second} begins before {first} ends, by more than the watermark's bound: its early rows are late. If the files \
         are separate partitions, declare OPTIONS ('partitioned_by' 'key') or ('partitions' 'files')"
    )
}
