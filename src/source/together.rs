//! Reading several partitions as one, so that event time goes on in all of them; and where changes are told, in an order
//! that the files alone decide: by the highest event time up to a row of its partition, then by partition, then by row.
//!
//! ```text
//!   partition 0:  1 4 2 9      highest so far  1 4 4 9
//!   partition 1:  3 3 8                        3 3 8        ─▶  1 3 3 4 2 8 9
//! ```
//!
//! The watermark of a row stays that of its own partition. A window closes when all partitions have passed it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::execution::TaskContext;

use crate::operator::{Stamp, WATERMARK_MAX, WATERMARK_MIN};

use super::exact_watermark::NONE_TO_COME;
use super::pieces::{Chunk, ReadOrder};
use super::reader::{Read, ReaderCounts};
use super::replay::ReplayPlan;
use super::rows::batch_rows;
use super::sequence::{Run, Sequence};

/// Reads the partitions of one piece together.
pub(crate) struct Together {
    piece: usize,
    order: ReadOrder,
    heads: Vec<Head>,
    batch_rows: usize,
}

/// One partition, as far as it has been read.
struct Head {
    /// None at its end.
    rows: Option<Sequence>,
    runs: VecDeque<Run>,
    /// Rows of the first run that have been given.
    given: usize,
    /// The watermark of the runs that have been given.
    watermark: i64,
}

impl Together {
    /// Opens the partitions of a piece.
    ///
    /// # Errors
    /// There is no such piece.
    pub(super) fn open(
        plan: &Arc<ReplayPlan>,
        piece: usize,
        counts: &Arc<ReaderCounts>,
        task: &Arc<TaskContext>,
    ) -> Result<Self> {
        let partitions = plan.piece(piece)?.chunks.chunk_by(|left, right| left.partition == right.partition);
        let open = |chunks: &[Chunk]| Head {
            rows: Some(Sequence::new(plan, piece, chunks.to_vec(), Arc::clone(counts), Arc::clone(task))),
            runs: VecDeque::new(),
            given: 0,
            watermark: WATERMARK_MIN,
        };
        let order = plan.order();
        Ok(Self { piece, order, heads: partitions.map(open).collect(), batch_rows: batch_rows(task) })
    }

    /// The next rows; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Read>> {
        let mut gathered = Gathered::of_heads(self.heads.len());
        while gathered.rows.len() < self.batch_rows {
            for head in &mut self.heads {
                head.fill().await?;
            }
            let Some((next, end)) = self.next_stretch() else { break };
            let head = &mut self.heads[next];
            let Some(run) = head.runs.front() else { break };
            let (begin, stamp) = (head.given, run.read.stamp);
            // What is due later comes later.
            if !gathered.rows.is_empty() && gathered.due != run.read.due {
                break;
            }
            // Who is late is judged by the watermark of its own partition, and a ledger names the file.
            if self.order == ReadOrder::Together || run.is_behind || run.read.origin.is_some() {
                if !gathered.rows.is_empty() {
                    break;
                }
                let read = run.read.slice(begin, end - begin, stamp);
                head.give(end);
                return Ok(Some(Read { stamp: self.stamp(stamp.watermark), ..read }));
            }
            gathered.add(next, &run.read, begin..end);
            if head.give(end) {
                gathered.of_head[next] = None;
            }
        }
        if gathered.rows.is_empty() {
            return Ok(None);
        }
        let batch = gathered.batch()?;
        Ok(Some(Read { batch, stamp: self.stamp(gathered.watermark), origin: None, due: gathered.due }))
    }

    /// The partition whose row is next, and up to which row of its run that is so.
    fn next_stretch(&self) -> Option<(usize, usize)> {
        let firsts = self.heads.iter().enumerate().filter_map(|(index, head)| Some((head.reached()?, index)));
        let (mut first, mut second) = (None, None);
        for place in firsts {
            if first.is_none_or(|first| place < first) {
                (first, second) = (Some(place), first);
            } else if second.is_none_or(|second| place < second) {
                second = Some(place);
            }
        }
        let (_, next) = first?;
        let head = &self.heads[next];
        let reached = &head.runs.front()?.reached[head.given..];
        let rows = match second {
            Some(second) if self.order == ReadOrder::Canonical => {
                reached.partition_point(|reached| (*reached, next) < second)
            }
            _ => reached.len(),
        };
        Some((next, head.given + rows))
    }

    /// A stamp of rows to be judged by `watermark`, after which event time is where all partitions are.
    fn stamp(&self, watermark: i64) -> Stamp {
        let next_watermark = self.heads.iter().map(|head| head.watermark).min().unwrap_or(WATERMARK_MAX);
        Stamp { partition: self.piece, watermark, next_watermark }
    }
}

impl Head {
    /// Reads until there is a row, or none is to come.
    async fn fill(&mut self) -> Result<()> {
        while self.runs.is_empty()
            && let Some(rows) = &mut self.rows
        {
            match rows.next().await? {
                // Rows that are another pipeline's move event time on.
                Some(run) if run.reached.is_empty() => self.watermark = run.read.stamp.next_watermark,
                Some(run) => self.runs.push_back(run),
                None => (self.rows, self.watermark) = (None, NONE_TO_COME),
            }
        }
        Ok(())
    }

    /// The highest event time up to the first row that has not been given.
    fn reached(&self) -> Option<i64> {
        self.runs.front()?.reached.get(self.given).copied()
    }

    /// Rows of the first run, up to `end`, have been given. Whether that was all of it.
    fn give(&mut self, end: usize) -> bool {
        self.given = end;
        let given = self.runs.pop_front_if(|run| run.reached.len() == end);
        if let Some(run) = &given {
            self.given = 0;
            self.watermark = run.read.stamp.next_watermark;
        }
        given.is_some()
    }
}

/// Rows of several partitions that one batch is made of.
struct Gathered {
    batches: Vec<RecordBatch>,
    /// Which of them is that of each partition's first run.
    of_head: Vec<Option<usize>>,
    /// The batch and the row of it.
    rows: Vec<(usize, usize)>,
    watermark: i64,
    due: Option<i64>,
}

impl Gathered {
    fn of_heads(heads: usize) -> Self {
        Self { batches: vec![], of_head: vec![None; heads], rows: vec![], watermark: WATERMARK_MAX, due: None }
    }

    fn add(&mut self, head: usize, read: &Read, rows: Range<usize>) {
        let Self { batches, of_head, .. } = self;
        let batch = *of_head[head].get_or_insert_with(|| {
            batches.push(read.batch.clone());
            batches.len() - 1
        });
        self.rows.extend(rows.map(|row| (batch, row)));
        // None of them is behind its own watermark, so that the lowest one judges all of them alike.
        self.watermark = self.watermark.min(read.stamp.watermark);
        self.due = read.due;
    }

    fn batch(&self) -> Result<RecordBatch> {
        let batches: Vec<_> = self.batches.iter().collect();
        match batches.first() {
            Some(first) if first.num_columns() > 0 => Ok(interleave_record_batch(&batches, &self.rows)?),
            _ => {
                let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
                Ok(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?)
            }
        }
    }
}
