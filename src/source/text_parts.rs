//! Where the parts of a file of text begin, so that several pipelines read it: each with the first row that begins at or
//! after its share of the bytes.
//!
//! Of CSV a row may go over several lines if something in it is quoted, and only who reads from the start knows whether
//! a line is in quotes: no part begins after the first quote of a file. JSON has one object a line, and an object that
//! goes over several lines ends, and begins, otherwise.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::common::parsers::CompressionTypeVariant;
use memchr::memchr;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::error::Error;
use crate::sql::FileFormat;

use super::place::OpenFile;
use super::table::{Inner, StreamFile};

/// Bytes of a part, at least: fewer are read before a second pipeline has begun.
const PART_BYTES: u64 = 64 * 1024;
/// Bytes that are looked at together.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Where parts begin, by their number, once somebody has looked.
#[derive(Debug, Clone, Default)]
pub(super) struct TextParts(Arc<Mutex<HashMap<usize, Starts>>>);

/// The first byte of each part.
type Starts = Arc<OnceCell<Vec<u64>>>;

/// In how many parts a file may be read, where so many are wanted.
pub(super) fn parts(stream: &Inner, file: &StreamFile, wanted: usize) -> usize {
    let is_plain = file.compression == CompressionTypeVariant::UNCOMPRESSED;
    let by_lines = stream.options.csv.comment.is_none() && !stream.options.reads_csv_by_rows();
    match is_plain && by_lines {
        true => wanted.min((file.object.size / PART_BYTES) as usize).max(1),
        false => 1,
    }
}

/// The bytes of consecutive ones of `of` parts.
///
/// # Errors
/// A file that cannot be read.
pub(super) async fn bytes(stream: &Inner, file: &StreamFile, parts: &Range<usize>, of: usize) -> Result<Range<u64>> {
    let quote = (stream.format == FileFormat::Csv).then_some(stream.options.csv.quote);
    // Whoever comes first looks, and the others wait for it.
    let known = Arc::clone(file.parts.0.lock().entry(of).or_default());
    let look = || async { starts(&mut file.open_anywhere()?, file.object.size, quote, of).await };
    let starts = known.get_or_try_init(look).await.map_err(|error| match Error::find(&error) {
        Some(_) => error,
        None => Error::data(error.to_string()).in_file(&file.name).into(),
    })?;
    let at = |part: usize| starts.get(part).copied().unwrap_or(file.object.size);
    Ok(at(parts.start)..at(parts.end))
}

/// Where `of` parts of a text of so many bytes begin, if rows end with lines: with a quote, up to the first of it.
async fn starts(text: &mut OpenFile, size: u64, quote: Option<u8>, of: usize) -> Result<Vec<u64>> {
    let (mut starts, mut seen) = (vec![0], 0);
    for part in 1..of as u64 {
        let share = (u128::from(size) * u128::from(part) / of as u128) as u64;
        let fits = |before, after| quote.is_some() || before == b'}' && after == b'{';
        let Some(start) = line_after(text, share.max(seen), fits).await? else { break };
        // Where a part cannot begin, those after it cannot either.
        if let Some(quote) = quote
            && contains(text, seen..start, quote).await?
        {
            break;
        }
        starts.push(start);
        seen = start;
    }
    starts.resize(of, size);
    Ok(starts)
}

/// The first byte after a line's end at or after `from`, of lines that end and begin as they should; none if there is no
/// such byte.
async fn line_after(text: &mut OpenFile, from: u64, fits: impl Fn(u8, u8) -> bool) -> Result<Option<u64>> {
    let mut at = from.saturating_sub(1);
    loop {
        let bytes = read_at(text, at).await?;
        let mut begin = 0;
        while let Some(end) = memchr(b'\n', &bytes[begin..]).map(|end| begin + end) {
            let before = bytes[..end].iter().rev().find(|byte| !byte.is_ascii_whitespace());
            let after = bytes[end + 1..].iter().find(|byte| !byte.is_ascii_whitespace());
            if let (Some(before), Some(after)) = (before, after)
                && fits(*before, *after)
            {
                return Ok(Some(at + end as u64 + 1));
            }
            begin = end + 1;
        }
        if bytes.len() < BUFFER_BYTES {
            return Ok(None);
        }
        // A line's end at the end of what was read is looked at with what follows it.
        at += (BUFFER_BYTES / 2) as u64;
    }
}

async fn contains(text: &mut OpenFile, bytes: Range<u64>, byte: u8) -> Result<bool> {
    let mut at = bytes.start;
    while at < bytes.end {
        let read = read_at(text, at).await?;
        let wanted = read.len().min((bytes.end - at) as usize);
        if wanted == 0 {
            break;
        }
        if memchr(byte, &read[..wanted]).is_some() {
            return Ok(true);
        }
        at += wanted as u64;
    }
    Ok(false)
}

/// As many bytes as are looked at together, or as there are.
async fn read_at(text: &mut OpenFile, at: u64) -> Result<Bytes> {
    text.bytes(at..at + BUFFER_BYTES as u64).await
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn starts_of(text: &str, quote: Option<u8>, of: usize) -> Vec<usize> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut file = OpenFile::Local(file);
        let starts = starts(&mut file, text.len() as u64, quote, of).now_or_never().unwrap().unwrap();
        starts.into_iter().map(|start| start as usize).collect()
    }

    proptest! {
        #[test]
        fn parts_of_csv_are_whole_lines_in_order(
            lines in prop::collection::vec("[a-c,\r]{0,9}", 1..40), ends: bool, of in 1usize..9,
        ) {
            let text = lines.join("\n") + if ends { "\n" } else { "" };
            let starts = starts_of(&text, Some(b'"'), of);
            prop_assert_eq!(starts.len(), of);
            prop_assert!(starts.is_sorted() && starts[0] == 0);
            for start in starts.into_iter().filter(|start| *start > 0 && *start < text.len()) {
                prop_assert_eq!(text.as_bytes()[start - 1], b'\n');
            }
        }

        #[test]
        fn no_part_begins_after_a_quote(before in "[a-z\n]{0,60}", after in "[a-z\n]{0,60}", of in 1usize..9) {
            let text = format!("{before}\"{after}");
            let begin = starts_of(&text, Some(b'"'), of).into_iter().filter(|start| *start < text.len()).max();
            prop_assert!(begin.unwrap() <= before.len());
        }
    }

    #[test]
    fn an_object_over_several_lines_is_in_one_part() {
        let object = "{\n \"a\": [\n {\"b\": 1},\n {\"b\": 2}\n ]\n}\n";
        let text = object.repeat(20);
        let starts = starts_of(&text, None, 7);
        assert!(starts.iter().all(|start| start % object.len() == 0), "{starts:?}");
        assert_eq!(starts.iter().filter(|start| **start < text.len()).count(), 7);
    }

    #[test]
    fn long_lines_are_looked_at_as_a_whole() {
        let line = "x".repeat(BUFFER_BYTES + 10) + "\n";
        let starts = starts_of(&line.repeat(3), Some(b'"'), 6);
        assert!(starts.iter().all(|start| start % line.len() == 0), "{starts:?}");
    }
}
