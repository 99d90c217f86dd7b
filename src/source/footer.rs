//! What Parquet footers say: rows of each row group, and the event times in it and in its pages.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Result;
use datafusion::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use datafusion::parquet::file::metadata::ParquetMetaData;

use crate::operator::ticks;

/// Consecutive rows, and the lowest event time among them; none if all of them are null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) rows: u64,
    pub(super) lowest: Option<i64>,
}

/// The event times in a row group, in ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupTimes {
    /// Lowest and highest; none if all of them are null.
    pub(super) range: Option<(i64, i64)>,
    /// The same by pages where the file has an index of them.
    pub(super) stretches: Arc<[Stretch]>,
}

/// What is known of a Parquet file before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footer {
    /// Rows of each row group.
    pub(super) rows: Vec<u64>,
    /// Times of each row group, where they are known, by the stream's column.
    times: Vec<(usize, Vec<Option<GroupTimes>>)>,
}

impl Footer {
    /// Reads what the metadata say of those of `columns` (of the file's declared schema) that hold timestamps.
    ///
    /// # Errors
    /// Statistics that do not fit the column.
    pub(super) fn read(metadata: &ParquetMetaData, schema: &SchemaRef, columns: &[usize]) -> Result<Self> {
        let rows = metadata.row_groups().iter().map(|group| group.num_rows().try_into().unwrap_or(0)).collect();
        let is_time = |column: &&usize| {
            let data_type = schema.fields().get(**column).map(|field| field.data_type());
            matches!(data_type, Some(DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64))
        };
        let times = columns.iter().filter(is_time).map(|&column| Ok((column, group_times(metadata, schema, column)?)));
        Ok(Self { rows, times: times.collect::<Result<_>>()? })
    }

    /// The times of a column in each row group, where they are known.
    pub(super) fn times(&self, column: usize) -> Option<&[Option<GroupTimes>]> {
        self.times.iter().find(|(known, _)| *known == column).map(|(_, times)| times.as_slice())
    }

    /// The stretches of a column in some row groups, or all; none if those of one are not known.
    pub(super) fn stretches(&self, column: usize, groups: Option<Range<usize>>) -> Option<Arc<[Stretch]>> {
        let times = self.times(column)?.get(groups.unwrap_or(0..self.rows.len()))?;
        let stretches: Option<Vec<_>> = times.iter().map(|times| Some(times.as_ref()?.stretches.iter())).collect();
        Some(stretches?.into_iter().flatten().copied().collect())
    }
}

fn group_times(metadata: &ParquetMetaData, schema: &SchemaRef, column: usize) -> Result<Vec<Option<GroupTimes>>> {
    let (declared, groups) = (schema.field(column), metadata.row_groups());
    let parquet = metadata.file_metadata();
    // The stream's columns may be in another order than the file's, and a column is found by its place.
    let in_file = parquet_to_arrow_schema(parquet.schema_descr(), parquet.key_value_metadata())?;
    if in_file.field_with_name(declared.name()).is_ok_and(|field| field.data_type() != declared.data_type()) {
        return Ok(vec![None; groups.len()]);
    }
    let converter = StatisticsConverter::try_new(declared.name(), &in_file, parquet.schema_descr())?;
    let lowest = ticks(&converter.row_group_mins(groups)?)?;
    let highest = ticks(&converter.row_group_maxes(groups)?)?;
    let nulls = converter.row_group_null_counts(groups)?;
    let times = |index: usize| {
        let rows = groups[index].num_rows().try_into().unwrap_or(0);
        let range =
            (lowest.is_valid(index) && highest.is_valid(index)).then(|| (lowest.value(index), highest.value(index)));
        if range.is_none() && !(nulls.is_valid(index) && nulls.value(index) == rows) {
            return Ok(None);
        }
        let pages = stretches_of_pages(metadata, &converter, index)?;
        let whole = || Arc::from([Stretch { rows, lowest: range.map(|(lowest, _)| lowest) }]);
        Ok(Some(GroupTimes { range, stretches: pages.unwrap_or_else(whole) }))
    };
    (0..groups.len()).map(times).collect()
}

/// The stretches of a row group by its pages; none without an index of them.
fn stretches_of_pages(
    metadata: &ParquetMetaData,
    converter: &StatisticsConverter,
    group: usize,
) -> Result<Option<Arc<[Stretch]>>> {
    let (Some(columns), Some(offsets)) = (metadata.column_index(), metadata.offset_index()) else {
        return Ok(None);
    };
    let Some(rows) = converter.data_page_row_counts(offsets, metadata.row_groups(), [&group])? else {
        return Ok(None);
    };
    let lowest = ticks(&converter.data_page_mins(columns, offsets, [&group])?)?;
    let nulls = converter.data_page_null_counts(columns, offsets, [&group])?;
    let is_known = |page: usize| lowest.is_valid(page) || nulls.is_valid(page) && nulls.value(page) == rows.value(page);
    if lowest.len() != rows.len() || nulls.len() != rows.len() || !(0..rows.len()).all(is_known) {
        return Ok(None);
    }
    let stretch =
        |page: usize| Stretch { rows: rows.value(page), lowest: lowest.is_valid(page).then(|| lowest.value(page)) };
    Ok(Some((0..rows.len()).map(stretch).collect()))
}
