//! Parquet files, decoded by the pipeline's own task, page by page.
//!
//! Where pages come from is the matter of [`super::parquet_pages`]. A batch never spans two row groups. A text column that is wanted as codes comes as a dictionary array over the row
//! group's own dictionary, wherever all of its pages are coded so: its text is never written out for each row.
//! Where pipelines share the rows by their keys, those of a row group come first, and are held: see [`super::keys_first`].

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{HashSet, Result, ScalarValue, internal_err};
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use datafusion::parquet::basic::{Encoding, Type as PhysicalType};
use datafusion::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use datafusion::parquet::file::reader::ChunkReader;

use crate::operator::same_dictionary;

use super::keys_first::{Begun, Decoded, KeysFirst, put, unread};
use super::parquet_pages::Pages;
use super::rows::Wanted;
use super::share::Own;
use super::table::StreamFile;

/// Reads row groups of one file.
pub(super) struct ParquetRows {
    pages: Pages,
    groups: Range<usize>,
    current: Option<Group>,
    /// What tells the rows of the pipeline's own, and the places of its columns; none if all rows are.
    own: Option<(Own, Vec<usize>)>,
    /// Which rows of the last batch those are.
    own_rows: Option<BooleanArray>,
    plain: ArrowReaderMetadata,
    /// The same with the coded column as a dictionary, and that column's place among the leaves of the file.
    coded: Option<(ArrowReaderMetadata, usize)>,
    /// The columns of the file that are decoded.
    decoded: Vec<usize>,
    columns: Vec<Column>,
    schema: SchemaRef,
    dictionary: Dictionary,
    batch_rows: usize,
}

/// A row group that is being read.
enum Group {
    AllRows(ParquetRecordBatchReader),
    OwnRows(KeysFirst),
}

/// Where a column of a batch comes from.
enum Column {
    /// The position among the columns that are decoded.
    Decoded(usize),
    /// As [`Column::Decoded`], and may stay a dictionary.
    Coded(usize),
    Constant(ScalarValue),
}

impl Column {
    fn place(&self) -> Option<usize> {
        match self {
            Self::Decoded(place) | Self::Coded(place) => Some(*place),
            Self::Constant(_) => None,
        }
    }

    fn coded(&self) -> Option<usize> {
        match self {
            Self::Coded(place) => Some(*place),
            Self::Decoded(_) | Self::Constant(_) => None,
        }
    }
}

/// The dictionary that was met last, and whether its values are distinct.
#[derive(Default)]
struct Dictionary {
    values: Option<ArrayRef>,
    is_distinct: bool,
}

impl ParquetRows {
    /// Opens `groups` of a file whose footer is known.
    ///
    /// # Errors
    /// A column that the file does not have.
    pub(super) fn open(
        file: &StreamFile,
        footer: &Arc<ParquetMetaData>,
        groups: Range<usize>,
        wanted: &Wanted,
    ) -> Result<Self> {
        let declared = &wanted.inner.file_schema;
        let found = ArrowReaderMetadata::try_new(Arc::clone(footer), ArrowReaderOptions::new())?;
        let plain = with_types(&found, |field| declared_type(field, declared, footer))?.unwrap_or(found);
        let index_of = |column: usize| plain.schema().index_of(declared.field(column).name());
        let mut decoded = vec![];
        for column in wanted.columns.iter().filter(|column| **column < declared.fields().len()) {
            decoded.push(index_of(*column)?);
        }
        decoded.sort_unstable();
        decoded.dedup();
        let mut columns = vec![];
        for (position, &column) in wanted.columns.iter().enumerate() {
            let hive = column.checked_sub(declared.fields().len()).and_then(|index| file.hive.get(index));
            columns.push(match hive {
                Some(value) => Column::Constant(value.clone()),
                None => {
                    let index = index_of(column)?;
                    let place = decoded.partition_point(|before| *before < index);
                    if wanted.coded == Some(position) { Column::Coded(place) } else { Column::Decoded(place) }
                }
            });
        }
        let coded = match columns.iter().find_map(|column| column.coded()).map(|place| decoded[place]) {
            Some(index) => as_codes(&plain, index)?,
            None => None,
        };
        let own = wanted.own.as_ref().map(|(own, positions)| {
            let places = positions.iter().filter_map(|position| columns[*position].place());
            let places: BTreeSet<usize> = places.collect();
            (own.clone(), places.into_iter().collect())
        });
        Ok(Self {
            pages: Pages::open(file)?,
            groups,
            current: None,
            own,
            own_rows: None,
            plain,
            coded,
            decoded,
            columns,
            schema: wanted.schema()?,
            dictionary: Dictionary::default(),
            batch_rows: wanted.batch_rows(),
        })
    }

    /// Which rows of the last batch are the pipeline's own, if that was to be told.
    pub(super) fn own_rows(&self) -> Option<&BooleanArray> {
        self.own_rows.as_ref()
    }

    /// The next batch; none at the end. Of one without rows of the pipeline's own, only what tells that is as in the file.
    ///
    /// # Errors
    /// Pages that cannot be read.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match &mut self.current {
                Some(Group::AllRows(rows)) => {
                    if let Some(batch) = rows.next().transpose()? {
                        let decoded: Decoded = batch.columns().iter().cloned().map(Some).collect();
                        return self.arrange(&decoded, batch.num_rows()).map(Some);
                    }
                }
                Some(Group::OwnRows(rows)) => {
                    if let Some(Begun { decoded, rows, own }) = rows.next()? {
                        self.own_rows = Some(own);
                        return self.arrange(&decoded, rows).map(Some);
                    }
                }
                None => {}
            }
            let columns = self.columns_at(&self.all_places());
            self.pages.begin(self.groups.clone(), &columns, self.plain.metadata()).await?;
            let Some(group) = self.groups.next() else {
                self.current = None;
                self.pages.end()?;
                return Ok(None);
            };
            self.current = Some(match self.own.is_some() {
                true => Group::OwnRows(self.open_own(group)?),
                false => Group::AllRows(self.open_group(group, &self.all_places(), None)?),
            });
        }
    }

    /// The leaves of the columns at these places among those that are wanted.
    fn columns_at(&self, places: &[usize]) -> ProjectionMask {
        let leaves = self.plain.metadata().file_metadata().schema_descr();
        ProjectionMask::roots(leaves, places.iter().map(|place| self.decoded[*place]))
    }

    fn all_places(&self) -> Vec<usize> {
        (0..self.decoded.len()).collect()
    }

    /// Decodes what tells the rows of the pipeline's own, and begins with the rest.
    fn open_own(&mut self, group: usize) -> Result<KeysFirst> {
        let Some((mut own, places)) = self.own.take() else { return internal_err!("no keys are shared") };
        let text = self.coded_type();
        let mut begun = VecDeque::new();
        for batch in self.open_group(group, &places, None)? {
            let batch = batch?;
            let (mut decoded, rows) = (vec![None; self.decoded.len()], batch.num_rows());
            put(&mut decoded, &places, &batch);
            let own = own.rows(&self.arrange(&decoded, rows)?, text.as_ref())?;
            begun.push_back(Begun { decoded, rows, own });
        }
        let others = self.all_places().into_iter().filter(|place| !places.contains(place)).collect::<Vec<_>>();
        let rest = KeysFirst::new(begun, others.clone(), |rows| self.open_group(group, &others, Some(rows)));
        self.own = Some((own, places));
        rest
    }

    /// The declared type of the column that may come as codes.
    fn coded_type(&self) -> Option<DataType> {
        let coded = self.columns.iter().position(|column| column.coded().is_some())?;
        Some(self.schema.field(coded).data_type().clone())
    }

    /// Begins to decode the columns at these places among those that are wanted.
    fn open_group(
        &self,
        group: usize,
        places: &[usize],
        rows: Option<RowSelection>,
    ) -> Result<ParquetRecordBatchReader> {
        let chunk = |leaf: usize| self.plain.metadata().row_groups().get(group)?.columns().get(leaf);
        let types = match &self.coded {
            Some((types, leaf)) if chunk(*leaf).is_some_and(is_all_codes) => types,
            _ => &self.plain,
        };
        match &self.pages {
            Pages::Local(file, _) => self.decode(file.try_clone()?, types, group, places, rows),
            Pages::Stored(pages) => self.decode(pages.current(), types, group, places, rows),
        }
    }

    fn decode<T: ChunkReader + 'static>(
        &self,
        pages: T,
        types: &ArrowReaderMetadata,
        group: usize,
        places: &[usize],
        rows: Option<RowSelection>,
    ) -> Result<ParquetRecordBatchReader> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(pages, types.clone());
        let builder = builder.with_row_groups(vec![group]).with_projection(self.columns_at(places));
        let builder = match rows {
            Some(rows) => builder.with_row_selection(rows),
            None => builder,
        };
        Ok(builder.with_batch_size(self.batch_rows).build()?)
    }

    /// Puts columns in order and gives them their declared types. What is not decoded has a value of no meaning.
    fn arrange(&mut self, decoded: &Decoded, rows: usize) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.columns.len());
        let mut coded = None;
        for (position, (column, field)) in self.columns.iter().zip(self.schema.fields()).enumerate() {
            columns.push(match column {
                Column::Constant(value) => value.to_array_of_size(rows)?,
                Column::Decoded(place) | Column::Coded(place) => match &decoded[*place] {
                    None => unread(field, rows)?,
                    Some(values) if column.coded().is_some() && self.dictionary.keeps(values, field)? => {
                        coded = Some(position);
                        Arc::clone(values)
                    }
                    Some(values) => as_type(values, field.data_type())?,
                },
            });
        }
        let schema = match coded {
            Some(position) => with_type(&self.schema, position, columns[position].data_type()),
            None => Arc::clone(&self.schema),
        };
        // A count needs no column at all.
        let rows = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(schema, columns, &rows)?)
    }
}

impl Dictionary {
    /// Whether a column is codes of distinct values, so that a code stands for a value.
    fn keeps(&mut self, column: &ArrayRef, declared: &Field) -> Result<bool> {
        let Some(codes) = column.as_any_dictionary_opt().filter(|_| column.data_type() != declared.data_type()) else {
            return Ok(false);
        };
        if !self.values.as_ref().is_some_and(|values| same_dictionary(values, codes.values())) {
            let values = codes.values().as_string::<i32>();
            let distinct: HashSet<Option<&str>> = values.iter().collect();
            self.is_distinct = values.null_count() == 0 && distinct.len() == values.len();
            self.values = Some(Arc::clone(codes.values()));
        }
        Ok(self.is_distinct)
    }
}

fn as_type(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if column.data_type() == data_type {
        return Ok(Arc::clone(column));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(column, data_type, &options)?)
}

fn with_type(schema: &SchemaRef, position: usize, data_type: &DataType) -> SchemaRef {
    let fields = schema.fields().iter().enumerate().map(|(index, field)| match index == position {
        true => Arc::new(field.as_ref().clone().with_data_type(data_type.clone())),
        false => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The same file with other types for some of its columns; none if there are none, or if it cannot be decoded so.
fn with_types(
    file: &ArrowReaderMetadata,
    data_type: impl Fn(&FieldRef) -> Option<DataType>,
) -> Result<Option<ArrowReaderMetadata>> {
    let fields: Vec<FieldRef> = file
        .schema()
        .fields()
        .iter()
        .map(|field| match data_type(field) {
            Some(data_type) => Arc::new(field.as_ref().clone().with_data_type(data_type)),
            None => Arc::clone(field),
        })
        .collect();
    if fields.iter().eq(file.schema().fields()) {
        return Ok(None);
    }
    let schema = Arc::new(Schema::new_with_metadata(fields, file.schema().metadata().clone()));
    let options = ArrowReaderOptions::new().with_schema(schema);
    Ok(ArrowReaderMetadata::try_new(Arc::clone(file.metadata()), options).ok())
}

/// The declared type of a column, where decoding to it at once is better than casting afterwards: views of text, and
/// times that a cast could not hold.
fn declared_type(field: &FieldRef, declared: &SchemaRef, footer: &ParquetMetaData) -> Option<DataType> {
    let declared = declared.field_with_name(field.name()).ok()?.data_type();
    let is_old_timestamp = || {
        let columns = footer.file_metadata().schema_descr().columns();
        columns.iter().any(|column| column.name() == field.name() && column.physical_type() == PhysicalType::INT96)
    };
    let decodes = match (field.data_type(), declared) {
        (
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary,
            DataType::Utf8View | DataType::BinaryView,
        ) => true,
        (DataType::Timestamp(_, _), DataType::Timestamp(_, _)) => is_old_timestamp(),
        _ => false,
    };
    (decodes && field.data_type() != declared).then(|| declared.clone())
}

/// The same file with the column of text at `index` as codes, and that column's place among the leaves; none if it holds
/// something else.
fn as_codes(file: &ArrowReaderMetadata, index: usize) -> Result<Option<(ArrowReaderMetadata, usize)>> {
    let coded = |field: &FieldRef| {
        let is_text = matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let codes = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        (is_text && field.name() == file.schema().field(index).name()).then(codes)
    };
    let leaves = file.metadata().file_metadata().schema_descr();
    let leaf = (0..leaves.num_columns()).find(|leaf| leaves.get_column_root_idx(*leaf) == index);
    Ok(with_types(file, coded)?.zip(leaf))
}

/// Whether all values of a column chunk are codes into its dictionary.
fn is_all_codes(chunk: &ColumnChunkMetaData) -> bool {
    chunk.dictionary_page_offset().is_some()
        && chunk.page_encoding_stats_mask().is_some_and(|encodings| {
            encodings.is_only(Encoding::RLE_DICTIONARY) || encodings.is_only(Encoding::PLAIN_DICTIONARY)
        })
}
