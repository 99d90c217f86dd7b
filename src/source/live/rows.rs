//! Rows of text that comes piece by piece.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::datatypes::SchemaRef;
use bytes::{Buf, Bytes, BytesMut};
use datafusion::common::config::CsvOptions;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::{Result, internal_err};

use crate::error::Error;
use crate::panics::caught;
use crate::source::csv_rows::{self, CsvRows};
use crate::source::pieces::{Part, TextStart};
use crate::source::rows::Wanted;
use crate::source::schema::check_listed;
use crate::source::stored_text::StoredText;
use crate::source::table::StreamFile;
use crate::source::text_parts;
use crate::source::text_rows::TextRows;
use crate::sql::FileFormat;

use super::batches::LiveBatches;
use super::feed::{Arrival, Feed};
use super::identity::FileIdentity;
use super::record_ends::RecordEnds;

/// Bytes of one row, at most: what is longer is a quote that nobody has closed.
const ROW_BYTES: usize = 64 * 1024 * 1024;

/// What has come of a stream.
pub(in crate::source) enum Came {
    Rows(RecordBatch),
    /// Nothing yet.
    Later,
    /// Nothing comes any more.
    End,
}

/// Rows that come while they are read.
pub(in crate::source) enum LiveRows {
    Text(Box<LiveText>),
    Batches(LiveBatches),
}

impl LiveRows {
    /// Of a file, or what stands for one, at this row.
    ///
    /// # Errors
    /// Options of a format that cannot be.
    pub(super) fn of_text(feed: Feed, start: TextStart, file: &StreamFile, wanted: &Wanted<'_>) -> Result<Self> {
        let inner = wanted.inner;
        let decoder = match inner.format {
            FileFormat::Csv if inner.options.reads_csv_by_rows() => {
                Decoder::Csv(Box::new(CsvRows::of_pieces(start, file, wanted)?))
            }
            _ => Decoder::Text(Box::new(TextRows::of_pieces(start, file, wanted)?)),
        };
        let ends = match inner.format {
            FileFormat::Csv => RecordEnds::of_csv(&inner.options.csv),
            FileFormat::Json | FileFormat::Parquet => RecordEnds::Lines,
        };
        let has_header =
            start.byte == 0 && inner.format == FileFormat::Csv && inner.options.csv.has_header != Some(false);
        let header = Header { csv: inner.options.csv.clone(), columns: Arc::clone(&inner.file_schema) };
        Ok(Self::Text(Box::new(LiveText {
            name: file.name.clone(),
            feed,
            decoder,
            ends,
            header: has_header.then_some(header),
            pending: BytesMut::new(),
            has_ended: false,
        })))
    }

    /// Of a file in an object store, or of a part of one, where it begins or at the row `from`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(in crate::source) async fn of_stored(
        file: &StreamFile,
        part: &Part,
        from: Option<TextStart>,
        wanted: &Wanted<'_>,
    ) -> Result<Self> {
        let Some(stored) = file.stored() else { return internal_err!("{} is in no store", file.name) };
        let bytes = match part {
            Part::Text { parts, of } => text_parts::bytes(wanted.inner, file, parts, *of).await?,
            Part::Whole | Part::RowGroups(_) | Part::Live => 0..file.object.size,
        };
        let is_plain = file.compression == CompressionTypeVariant::UNCOMPRESSED;
        let start = from.filter(|_| is_plain).unwrap_or(TextStart { byte: bytes.start, rows: 0 });
        let text = StoredText::open(&stored, start.byte..bytes.end, file.compression, wanted.counts)?;
        Self::of_text(Feed::Stored(text), start, file, wanted)
    }

    /// What comes next. Bad rows that are left out are added to `skipped_rows`.
    ///
    /// # Errors
    /// Rows that cannot be read.
    pub(in crate::source) async fn next(&mut self, skipped_rows: &mut u64) -> Result<Came> {
        match self {
            Self::Text(text) => text.next(skipped_rows).await,
            Self::Batches(batches) => batches.next().await,
        }
    }

    /// Where the next row begins, if it can be read again.
    pub(in crate::source) fn next_row(&self) -> Option<TextStart> {
        match self {
            Self::Text(text) => text.feed.can_be_read_again().then(|| text.decoder.next_row()),
            Self::Batches(_) => None,
        }
    }

    /// The file, if it can be read again.
    pub(in crate::source) fn identity(&self) -> Option<FileIdentity> {
        match self {
            Self::Text(text) => text.feed.identity(),
            Self::Batches(_) => None,
        }
    }

    /// The rows of the file that the last batch holds, counted from 1; none if they are the next ones.
    pub(in crate::source) fn numbers(&self) -> Option<UInt64Array> {
        match self {
            Self::Text(text) => match &text.decoder {
                Decoder::Csv(csv) => csv.numbers(),
                Decoder::Text(_) => None,
            },
            Self::Batches(_) => None,
        }
    }
}

/// Rows of text.
pub(in crate::source) struct LiveText {
    name: String,
    feed: Feed,
    decoder: Decoder,
    ends: RecordEnds,
    /// The columns that the next row is to name, if that is a header.
    header: Option<Header>,
    /// What has come and is no whole row.
    pending: BytesMut,
    has_ended: bool,
}

/// The header of CSV that comes.
struct Header {
    csv: CsvOptions,
    columns: SchemaRef,
}

impl Header {
    /// # Errors
    /// Text that does not begin with the names of the columns.
    fn check(&self, name: &str, text: Bytes) -> Result<()> {
        let found = csv_rows::names(Box::new(text.reader()), &self.csv)?;
        let listed = self.columns.fields().iter().map(|field| field.as_ref().clone()).collect();
        check_listed(listed, name, &found, FileFormat::Csv).map(drop)
    }
}

impl LiveText {
    async fn next(&mut self, skipped_rows: &mut u64) -> Result<Came> {
        loop {
            if let Some(batch) = caught(|| self.decoder.next(skipped_rows))? {
                return Ok(Came::Rows(batch));
            }
            if self.has_ended {
                return self.decoder.check_whole().map(|()| Came::End);
            }
            match self.feed.next().await? {
                Arrival::Text(text) => self.take(&text)?,
                Arrival::Later => return Ok(Came::Later),
                Arrival::End { is_whole } => self.end(is_whole)?,
            }
        }
    }

    /// Takes text that has come, and gives what is whole of it to the decoder.
    fn take(&mut self, text: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(text);
        match self.ends.whole(&self.pending) {
            0 if self.pending.len() > ROW_BYTES => {
                Err(Error::data(format!("has a row of more than {ROW_BYTES} bytes"))
                    .in_file(&self.name)
                    .help("a quote that is not closed? OPTIONS ('quote' …) says which character is one")
                    .into())
            }
            0 => Ok(()),
            whole => {
                let rows = self.pending.split_to(whole).freeze();
                self.give(rows)
            }
        }
    }

    /// Gives whole rows to the decoder.
    fn give(&mut self, rows: Bytes) -> Result<()> {
        if let Some(header) = self.header.take() {
            header.check(&self.name, rows.clone())?;
        }
        self.decoder.take(rows);
        Ok(())
    }

    /// Nothing comes any more: the last row may be without a line's end, but not cut off.
    fn end(&mut self, is_whole: bool) -> Result<()> {
        self.has_ended = true;
        let mut rest = std::mem::take(&mut self.pending);
        if rest.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        if is_whole {
            rest.extend_from_slice(b"\n");
            return self.give(rest.freeze());
        }
        tracing::warn!("{}: {} bytes at its end are left out, for they are no whole row", self.name, rest.len());
        Ok(())
    }
}

/// Makes rows of text.
enum Decoder {
    Text(Box<TextRows>),
    Csv(Box<CsvRows>),
}

impl Decoder {
    fn next(&mut self, skipped_rows: &mut u64) -> Result<Option<RecordBatch>> {
        match self {
            Self::Text(text) => text.next(),
            Self::Csv(csv) => csv.next(skipped_rows),
        }
    }

    fn take(&mut self, text: Bytes) {
        match self {
            Self::Text(rows) => rows.take(text),
            Self::Csv(rows) => rows.take(text),
        }
    }

    fn next_row(&self) -> TextStart {
        match self {
            Self::Text(rows) => rows.next_row(),
            Self::Csv(rows) => rows.next_row(),
        }
    }

    /// # Errors
    /// An object has come in part, and nothing comes any more.
    fn check_whole(&self) -> Result<()> {
        match self {
            Self::Text(rows) => rows.check_whole(),
            Self::Csv(_) => Ok(()),
        }
    }
}
