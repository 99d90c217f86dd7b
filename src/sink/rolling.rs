//! The files of a pipeline in a folder, one after the other: one ends when it is as large, or has been written for as long,
//! as is asked for, and the next begins with the next rows.
//!
//! They are staged, each with a name that no reader looks for until all of them become visible.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::error::Result;
use datafusion::prelude::SessionConfig;

use crate::checkpoint::Interval;
use crate::config::StreamlinesOptions;

use super::file_writer::FileWriter;
use super::files::FileSink;
use super::folder::staged;
use super::{Writer, Written};

/// When a file ends and the next one begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rolling {
    /// When it has so many bytes.
    bytes: Option<u64>,
    /// After that time, or with so many rows.
    interval: Option<Interval>,
}

impl Rolling {
    /// As the session's settings say.
    ///
    /// # Errors
    /// An interval that is none.
    pub(crate) fn of(config: &SessionConfig) -> Result<Self> {
        let Some(options) = config.options().extensions.get::<StreamlinesOptions>() else {
            return Ok(Self::default());
        };
        Ok(Self {
            bytes: Some(options.roll_bytes as u64).filter(|bytes| *bytes > 0),
            interval: options.roll_interval()?,
        })
    }

    /// Whether a file may end before its rows do.
    pub(super) fn ends_files(self) -> bool {
        self.bytes.is_some() || self.interval.is_some()
    }

    fn is_due(self, written: &Written, elapsed: Duration) -> bool {
        self.bytes.is_some_and(|bytes| written.bytes >= bytes)
            || self.interval.is_some_and(|interval| interval.is_over(elapsed, written.rows))
    }
}

/// The names of the files that a pipeline writes in one go: `part-00003.parquet`, `part-00003-002.parquet` and so on.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// What they begin with, and what they end in.
    pub(super) stem: String,
    pub(super) end: String,
}

impl Names {
    /// The name of a file, counted from 1.
    fn file(&self, folder: &str, number: usize) -> String {
        let Self { stem, end } = self;
        match number {
            1 => format!("{folder}{stem}{end}"),
            _ => format!("{folder}{stem}-{number:03}{end}"),
        }
    }
}

/// Writes one file after the other.
pub(super) struct RollingWriter {
    sink: FileSink,
    names: Names,
    /// The folder in the sink's, with a / at its end; empty for the sink's own.
    folder: String,
    schema: SchemaRef,
    /// The file that is being written, and since when.
    open: Option<(FileWriter, Instant)>,
    /// Files that have been begun.
    begun: usize,
    written: Written,
}

impl RollingWriter {
    pub(super) fn new(sink: FileSink, names: Names, folder: String, schema: SchemaRef) -> Self {
        Self { sink, names, folder, schema, open: None, begun: 0, written: Written::default() }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Ends the file that is being written; rows that come later are in another one.
    pub(super) async fn end_file(&mut self) -> Result<()> {
        if let Some((file, _)) = &mut self.open {
            file.finish().await?;
            let written = file.close().await?;
            self.open = None;
            self.written.add(written);
        }
        Ok(())
    }

    fn begin_file(&mut self) -> Result<(FileWriter, Instant)> {
        self.begun += 1;
        let file = self.names.file(&self.folder, self.begun);
        Ok((self.sink.file_writer(Some(&staged(&file)), Some(file), &self.schema)?, Instant::now()))
    }
}

#[async_trait]
impl Writer for RollingWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let (mut file, since) = match self.open.take() {
            Some(open) => open,
            None => self.begin_file()?,
        };
        let wrote = file.write(batch).await;
        let is_due = wrote.is_ok() && self.sink.rolling.is_due(&file.so_far(), since.elapsed());
        self.open = Some((file, since));
        wrote?;
        if is_due { self.end_file().await } else { Ok(()) }
    }

    async fn finish(&mut self) -> Result<()> {
        self.end_file().await
    }

    async fn close(&mut self) -> Result<Written> {
        self.end_file().await?;
        Ok(std::mem::take(&mut self.written))
    }

    async fn abort(mut self: Box<Self>) {
        if let Some((file, _)) = self.open.take() {
            Box::new(file).abort().await;
        }
        self.sink.remove_all(self.written.files.iter().map(|file| staged(file))).await;
    }
}
