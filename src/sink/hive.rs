//! Rows in folders by their values, as Hive has them: `origin=EWR/month=1/part-00000.parquet` holds the rows of that
//! origin and month, without these two columns.
//!
//! ```text
//!   batch ─▶ its rows by values ─▶ a writer for each folder, which ends its file where too many are open
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use datafusion::common::Result;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::Error;
use crate::source::HIVE_NULL;

use super::files::FileSink;
use super::rolling::{Names, RollingWriter};
use super::{Writer, Written};

/// How many files a pipeline has open at once.
const OPEN: usize = 100;

/// What a value does not hold as it is in the name of a folder, and what a column's name does not.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
const ENCODED_IN_COLUMN: &AsciiSet = &CONTROLS.add(b'/').add(b'=').add(b'%');

/// The columns by which rows are divided.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hive {
    pub(crate) columns: Vec<String>,
    /// Whether the files hold them, too.
    pub(crate) keeps_columns: bool,
}

impl Hive {
    /// Where the columns are in rows of `schema`, and where those that the files hold.
    ///
    /// # Errors
    /// A column that is not there, or whose values are no name; no column left for the files.
    fn places(&self, schema: &Schema) -> Result<(Vec<usize>, Vec<usize>)> {
        let place = |name: &String| {
            let found = schema.fields().iter().position(|field| field.name() == name);
            let place = found.ok_or_else(|| {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                let error = Error::sql(format!("PARTITIONED BY {name}, which no row has"));
                error.help(format!("the columns are {}", names.join(", ")))
            })?;
            match schema.field(place).data_type() {
                data_type if !data_type.is_nested() => Ok(place),
                data_type => {
                    let error = Error::sql(format!("PARTITIONED BY {name}, a {data_type}"));
                    Err(error.help("a folder's name is one value: select the part that it is to be"))
                }
            }
        };
        let by = self.columns.iter().map(place).collect::<std::result::Result<Vec<_>, Error>>()?;
        let is_named_before = |(at, name): &(usize, &String)| self.columns[..*at].contains(name);
        if let Some((_, name)) = self.columns.iter().enumerate().find(is_named_before) {
            let error = Error::sql(format!("PARTITIONED BY {name} twice"));
            return Err(error.help("name each column once").into());
        }
        let is_kept = |place: &usize| self.keeps_columns || !by.contains(place);
        let kept: Vec<usize> = (0..schema.fields().len()).filter(is_kept).collect();
        if kept.is_empty() {
            let error = Error::sql("PARTITIONED BY all columns leaves none for the files");
            return Err(error
                .help("SET datafusion.execution.keep_partition_by_columns = true keeps them there")
                .into());
        }
        Ok((by, kept))
    }
}

/// Writes rows into folders.
pub(super) struct HiveWriter {
    sink: FileSink,
    names: Names,
    /// The columns by which rows are divided, and those that the files hold.
    by: Vec<usize>,
    kept: Vec<usize>,
    schema: SchemaRef,
    /// The values that have come, and the writer of each.
    values: Box<dyn GroupValues>,
    known: Vec<usize>,
    /// The writer of each row of a batch.
    writer_of: Vec<usize>,
    writers: Vec<FolderWriter>,
    /// Those that have a file open.
    open: Vec<usize>,
    /// By their folders.
    by_name: HashMap<String, usize>,
    batches: u64,
}

/// The files of one folder.
struct FolderWriter {
    files: RollingWriter,
    /// The batch that it had rows of last.
    used: u64,
}

impl HiveWriter {
    /// # Errors
    /// Columns by which rows cannot be divided, or that the format cannot hold.
    pub(super) fn try_new(sink: FileSink, names: Names, schema: &SchemaRef) -> Result<Self> {
        let (by, kept) = sink.hive.places(schema)?;
        let keys = by.iter().map(|place| Field::clone(schema.field(*place))).collect::<Vec<_>>();
        let schema = Arc::new(schema.project(&kept)?);
        // What cannot be written is told before a row has come.
        sink.file_writer(None, None, &schema)?;
        let values = new_group_values(Arc::new(Schema::new(keys)), &GroupOrdering::None)?;
        let (known, writer_of, writers, open, by_name) = Default::default();
        Ok(Self { sink, names, by, kept, schema, values, known, writer_of, writers, open, by_name, batches: 0 })
    }

    /// Finds the writer of each row's values, which are new ones from time to time. Values that differ may be one text.
    fn find_writers(&mut self, schema: &Schema, keys: &[ArrayRef]) -> Result<()> {
        for row in 0..self.writer_of.len() {
            if self.writer_of[row] == self.known.len() {
                let folder = folder(self.by.iter().map(|place| schema.field(*place)), keys, row)?;
                let next = self.writers.len();
                let writer = *self.by_name.entry(folder.clone()).or_insert(next);
                if writer == next {
                    let (sink, names) = (self.sink.clone(), self.names.clone());
                    let files = RollingWriter::new(sink, names, folder, Arc::clone(&self.schema));
                    self.writers.push(FolderWriter { files, used: 0 });
                }
                self.known.push(writer);
            }
        }
        self.writer_of.iter_mut().for_each(|group| *group = self.known[*group]);
        Ok(())
    }

    /// Writes the rows of a folder, and ends the file that has been without rows for longest if too many are open.
    async fn write_into(&mut self, folder: usize, rows: RecordBatch) -> Result<()> {
        let writer = &mut self.writers[folder];
        writer.used = self.batches;
        writer.files.write(rows).await?;
        if !self.open.contains(&folder) {
            self.open.push(folder);
        }
        self.open.retain(|open| self.writers[*open].files.is_open());
        if self.open.len() > OPEN {
            let oldest = self.open.iter().copied().min_by_key(|open| self.writers[*open].used);
            if let Some(oldest) = oldest {
                self.writers[oldest].files.end_file().await?;
            }
        }
        Ok(())
    }
}

/// The rows of each folder, in their order.
fn divided(batch: RecordBatch, folders: &[usize]) -> Result<Vec<(usize, RecordBatch)>> {
    if let Some(first) = folders.first().filter(|first| folders.iter().all(|folder| folder == *first)) {
        return Ok(vec![(*first, batch)]);
    }
    let mut rows: Vec<u32> = (0..folders.len() as u32).collect();
    rows.sort_by_key(|row| folders[*row as usize]);
    let of_folder = |rows: &[u32]| {
        let taken = take_record_batch(&batch, &UInt32Array::from(rows.to_vec()))?;
        Ok((folders[rows[0] as usize], taken))
    };
    rows.chunk_by(|a, b| folders[*a as usize] == folders[*b as usize]).map(of_folder).collect()
}

/// The folder of a row.
fn folder<'a>(fields: impl Iterator<Item = &'a Field>, keys: &[ArrayRef], row: usize) -> Result<String> {
    let mut folder = String::new();
    for (field, key) in fields.zip(keys) {
        let value = match key.is_null(row) || key.data_type() == &DataType::Null {
            true => HIVE_NULL.to_string(),
            false => {
                let value = ArrayFormatter::try_new(key, &FormatOptions::default())?.value(row).to_string();
                // A text that is the same is no missing value.
                let encoded = utf8_percent_encode(&value, ENCODED).to_string();
                if encoded == HIVE_NULL { encoded.replacen('_', "%5F", 1) } else { encoded }
            }
        };
        folder.push_str(&folder_of(field.name(), &value));
        folder.push('/');
    }
    Ok(folder)
}

/// The folder of a column's value, which is encoded.
pub(super) fn folder_of(column: &str, value: &str) -> String {
    format!("{}={value}", utf8_percent_encode(column, ENCODED_IN_COLUMN))
}

#[async_trait]
impl Writer for HiveWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.batches += 1;
        let keys: Vec<ArrayRef> = self.by.iter().map(|place| Arc::clone(batch.column(*place))).collect();
        self.values.intern(&keys, &mut self.writer_of)?;
        self.find_writers(batch.schema_ref(), &keys)?;
        for (folder, rows) in divided(batch.project(&self.kept)?, &self.writer_of)? {
            self.write_into(folder, rows).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        for writer in &mut self.writers {
            writer.files.finish().await?;
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<Written> {
        let mut written = Written::default();
        for writer in &mut self.writers {
            written.add(writer.files.close().await?);
        }
        Ok(written)
    }

    async fn abort(self: Box<Self>) {
        for writer in self.writers {
            Box::new(writer.files).abort().await;
        }
    }
}
