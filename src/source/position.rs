//! How far a reader has come, for whoever goes on after it.

use super::follow::Followed;
use super::live::FileIdentity;
use super::pieces::TextStart;

/// How far a reader has come: at least so far, for the rows of what it read last may not all have been processed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// In files that appear while they are read.
    pub(crate) followed: Option<Followed>,
    /// In text that can be read from the middle.
    pub(crate) text: Option<TextPosition>,
}

impl Position {
    /// Where it goes on, for a person; none where that is for the rows that were read to say.
    pub(crate) fn shown(&self) -> Option<String> {
        let begun = self.followed.as_ref().filter(|followed| followed.begun.is_some());
        let of = match begun.and_then(|followed| followed.files.last()) {
            Some(file) => format!(" of {file}"),
            None => String::new(),
        };
        match &self.text {
            Some(text) => Some(format!("byte {}{of}, after {} rows", text.next.byte, text.rows)),
            None => begun.map(|followed| format!("a row{of}, after {} rows of those before", followed.rows)),
        }
    }
}

/// How far a reader has come in text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TextPosition {
    /// Rows that it had given.
    pub(crate) rows: u64,
    /// What it read of its piece, by number: of what is left to it, where files are followed.
    pub(crate) chunk: usize,
    /// The next row in that.
    pub(crate) next: TextStart,
    /// Rows of it whose event times had been seen.
    pub(crate) seen: u64,
    /// The highest event time so far, where watermarks follow it.
    pub(crate) highest: Option<i64>,
    /// The file, where its name may come to mean another one; none before the first row of the next one.
    pub(crate) file: Option<FileIdentity>,
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use arrow::array::RecordBatch;
    use datafusion::execution::TaskContext;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use flate2::write::GzEncoder;

    use super::*;
    use crate::operator::Stamp;
    use crate::session::{parse_statements, streaming_session};
    use crate::source::{Division, Reader, ReplayPlan, Signals, Split, StreamTable};
    use crate::sql::StreamStatement;

    /// Text of 200 rows, of which some go back in time and some are none.
    fn text(format: &str, has_bad_rows: bool) -> String {
        let row = |index: i64| {
            let time = format!("2024-01-01T{:02}:{:02}:00", index / 60, (index - index % 7 * 3).rem_euclid(60));
            match format {
                "CSV" if has_bad_rows && index % 9 == 4 => "no row\n".to_string(),
                "CSV" => format!("{time},{index}\n"),
                _ => format!("{{\"ts\": \"{time}\", \"v\": {index}}}\n"),
            }
        };
        let header = if format == "CSV" { "ts,v\n" } else { "" };
        header.to_string() + &(0..200).map(row).collect::<String>()
    }

    async fn plan(ctx: &SessionContext, sql: &str, split: Split) -> Arc<ReplayPlan> {
        let statement = parse_statements(ctx, sql).unwrap().pop();
        let Some(StreamStatement::CreateStream(definition)) = statement else { panic!("{sql}") };
        let table = StreamTable::open(&definition, &ctx.state()).await.unwrap();
        Arc::new(table.replay(None, &Division { split, keys: vec![], time: Some(0) }).unwrap())
    }

    /// What a reader gives, and where it was before; from a position on, how many rows it leaves out.
    async fn read(
        plan: &Arc<ReplayPlan>,
        piece: usize,
        task: &Arc<TaskContext>,
        from: Option<&Position>,
    ) -> (u64, Vec<(RecordBatch, Stamp, Position)>) {
        let signals = Arc::new(Signals::default());
        let mut reader = Reader::open(plan, piece, Arc::default(), Arc::clone(task), &signals).unwrap();
        let (mut reads, left_out) = (vec![], from.map_or(0, |from| reader.restore(from).unwrap()));
        while let Some(read) = reader.next().await.unwrap() {
            reads.push((read.batch, read.stamp, reader.position()));
        }
        (left_out, reads)
    }

    #[tokio::test]
    async fn who_goes_on_from_a_position_reads_what_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for copy in ["", "2-"] {
            for format in ["CSV", "JSON"] {
                std::fs::write(path(&format!("{copy}{format}")), text(format, false)).unwrap();
            }
            std::fs::write(path(&format!("{copy}bad")), text("CSV", true)).unwrap();
            let mut gzip =
                GzEncoder::new(std::fs::File::create(path(&format!("{copy}CSV.gz"))).unwrap(), Default::default());
            gzip.write_all(text("CSV", false).as_bytes()).unwrap();
            gzip.finish().unwrap();
        }
        let skips = "OPTIONS ('on_error' 'skip')";
        let (whole, pieces) = (Split::Partitions, Split::Pieces { at_least: 3 });
        for (format, file, bound, options, split, can_seek) in [
            ("CSV", "CSV", "AS ts - INTERVAL '9' MINUTE", "", whole, true),
            ("CSV", "CSV", "", "", pieces, true),
            ("JSON", "JSON", "AS ts - INTERVAL '9' MINUTE", "", pieces, true),
            ("JSON", "JSON", "", "", whole, true),
            ("CSV", "bad", "AS ts - INTERVAL '9' MINUTE", skips, whole, true),
            ("CSV", "bad", "", skips, whole, true),
            ("CSV", "CSV.gz", "", "", whole, false),
        ] {
            let ctx = streaming_session(SessionConfig::new().with_batch_size(7));
            let sql = format!(
                "CREATE STREAM s (ts TIMESTAMP, v BIGINT, WATERMARK FOR ts {bound}) STORED AS {format} LOCATION '{},{}' {options}",
                path(file),
                path(&format!("2-{file}"))
            );
            let plan = plan(&ctx, &sql, split).await;
            for piece in 0..plan.pieces().len() {
                let (_, all) = read(&plan, piece, &ctx.task_ctx(), None).await;
                assert!(!all.is_empty());
                for (at, (.., position)) in all.iter().enumerate() {
                    let (left_out, left) = read(&plan, piece, &ctx.task_ctx(), Some(position)).await;
                    // Where a batch was cut, it is read again.
                    let begin = all.iter().position(|(.., other)| other == position).unwrap();
                    let rows: u64 = all[..begin].iter().map(|(batch, ..)| batch.num_rows() as u64).sum();
                    assert!(can_seek || begin == 0);
                    let expected = &all[begin..];
                    let told = |reads: &[(RecordBatch, Stamp, Position)]| {
                        reads.iter().map(|(batch, stamp, _)| (batch.clone(), *stamp)).collect::<Vec<_>>()
                    };
                    assert_eq!(left_out, rows, "{sql}, batch {at}");
                    assert_eq!(told(&left), told(expected), "{sql}, batch {at}");
                }
            }
        }
    }
}
