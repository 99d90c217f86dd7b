//! Where the last whole row of text ends.
//!
//! Of JSON that is the end of a line: an object that goes over several lines is the decoder's matter. Of CSV it is too, as
//! long as nothing is quoted; a quoted field may hold line ends, and what is one then only the grammar knows.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use datafusion::common::config::CsvOptions;
use memchr::{memchr, memrchr};

/// Finds the ends of rows.
pub(super) enum RecordEnds {
    Lines,
    Csv { delimiter: u8, quote: u8, escape: Option<u8>, comment: Option<u8> },
}

impl RecordEnds {
    /// Those of CSV that is written so.
    pub(super) fn of_csv(csv: &CsvOptions) -> Self {
        Self::Csv { delimiter: csv.delimiter, quote: csv.quote, escape: csv.escape, comment: csv.comment }
    }

    /// How many bytes of `text`, which begins with a row, are whole rows.
    pub(super) fn whole(&self, text: &[u8]) -> usize {
        match self {
            Self::Csv { delimiter, quote, escape, comment } if memchr(*quote, text).is_some() => {
                let mut builder = ReaderBuilder::new();
                builder.delimiter(*delimiter).quote(*quote).escape(*escape).comment(*comment);
                whole_records(&mut builder.build(), text)
            }
            Self::Lines | Self::Csv { .. } => memrchr(b'\n', text).map_or(0, |end| end + 1),
        }
    }
}

fn whole_records(reader: &mut Reader, text: &[u8]) -> usize {
    // What fields hold is of no interest, so it may be written over.
    let (mut fields, mut ends) = ([0; 1024], [0; 64]);
    let (mut read, mut whole) = (0, 0);
    while read < text.len() {
        let (result, bytes, ..) = reader.read_record(&text[read..], &mut fields, &mut ends);
        read += bytes;
        match result {
            ReadRecordResult::Record => whole = read,
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {}
            ReadRecordResult::InputEmpty | ReadRecordResult::End => break,
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records(text: &[u8]) -> Vec<csv::ByteRecord> {
        let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text);
        reader.byte_records().map(Result::unwrap).collect()
    }

    proptest! {
        /// Text that is cut where whole rows end has the rows of the text that is not cut.
        #[test]
        fn cuts_leave_rows_whole(text in "[ab,\"\n\r]{0,80}", cuts in prop::collection::vec(0usize..20, 0..12)) {
            let ends = RecordEnds::of_csv(&CsvOptions::default());
            let (mut pending, mut rows, mut rest) = (vec![], vec![], text.as_bytes());
            for cut in cuts {
                let (next, after) = rest.split_at(cut.min(rest.len()));
                pending.extend_from_slice(next);
                rest = after;
                let whole: Vec<u8> = pending.drain(..ends.whole(&pending)).collect();
                rows.extend(records(&whole));
            }
            pending.extend_from_slice(rest);
            rows.extend(records(&pending));
            prop_assert_eq!(rows, records(text.as_bytes()));
        }
    }

    #[test]
    fn quoted_line_ends_end_no_row() {
        let ends = RecordEnds::of_csv(&CsvOptions::default());
        assert_eq!(ends.whole(b"a,b\nc,\"d\n"), 4);
        assert_eq!(ends.whole(b"a,b\nc,\"d\ne\"\nf"), 12);
        assert_eq!(ends.whole(b"\"a"), 0);
        assert_eq!(ends.whole(b"a,b\nc"), 4);
        assert_eq!(RecordEnds::Lines.whole(b"{\"a\": \"\\\"\"}\n{"), 12);
    }
}
