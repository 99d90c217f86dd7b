//! What Parquet footers say: rows of each row group, and the event times in it.

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use datafusion::parquet::file::metadata::ParquetMetaData;

use crate::operator::ticks;

/// What is known of a row group before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowGroup {
    pub(super) rows: u64,
    /// Lowest and highest event time, in ticks, where the footer says so.
    pub(super) times: Option<(i64, i64)>,
}

/// The row groups of a file, with the event times of column `time`.
///
/// # Errors
/// Statistics that do not fit the column.
pub(super) fn row_groups(metadata: &ParquetMetaData, schema: &SchemaRef, time: Option<&str>) -> Result<Vec<RowGroup>> {
    let groups = metadata.row_groups();
    let times = match time {
        Some(time) => event_times(metadata, schema, time)?,
        None => vec![None; groups.len()],
    };
    let group = |(group, times): (&datafusion::parquet::file::metadata::RowGroupMetaData, Option<(i64, i64)>)| {
        RowGroup { rows: group.num_rows().try_into().unwrap_or(0), times }
    };
    Ok(groups.iter().zip(times).map(group).collect())
}

fn event_times(metadata: &ParquetMetaData, schema: &SchemaRef, time: &str) -> Result<Vec<Option<(i64, i64)>>> {
    let converter = StatisticsConverter::try_new(time, schema, metadata.file_metadata().schema_descr())?;
    let lowest = ticks(&converter.row_group_mins(metadata.row_groups())?)?;
    let highest = ticks(&converter.row_group_maxes(metadata.row_groups())?)?;
    let range = |index: usize| {
        (lowest.is_valid(index) && highest.is_valid(index)).then(|| (lowest.value(index), highest.value(index)))
    };
    Ok((0..metadata.num_row_groups()).map(range).collect())
}
