//! Reading a piece: file after file, batch after batch, each cut and stamped by the watermark.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::execution::TaskContext;

use crate::error::Error;
use crate::operator::Stamp;

use super::early_pass;
use super::footer::Stretch;
use super::key_check::{KeyCheck, ReaderKeys};
use super::origin::{Origin, Places, row_before};
use super::pieces::Chunk;
use super::replay::ReplayPlan;
use super::rows::{Rows, Wanted};
use super::stamps::{Bounded, Exact, Segment, Stamps};

/// Reads one piece of a stream.
pub(crate) struct Reader {
    plan: Arc<ReplayPlan>,
    task: Arc<TaskContext>,
    piece: usize,
    chunks: VecDeque<Chunk>,
    current: Option<OpenChunk>,
    /// None before the first row, and if no watermarks are wanted.
    stamps: Option<Stamps>,
    /// What is left of a batch that was cut.
    cut: VecDeque<Read>,
    keys: Option<(Arc<KeyCheck>, ReaderKeys)>,
    counts: Arc<ReaderCounts>,
}

/// What a reader has seen besides the rows that it gave.
#[derive(Debug, Default)]
pub(crate) struct ReaderCounts {
    /// Rows that could not be parsed and were left out.
    pub(crate) skipped_rows: AtomicU64,
    /// Rows of an early pass over event times.
    pub(crate) early_rows: AtomicU64,
    /// Bytes of text files, as they are stored.
    pub(crate) bytes: AtomicU64,
}

/// Rows that were read.
pub(crate) struct Read {
    pub(crate) batch: RecordBatch,
    pub(crate) stamp: Stamp,
    /// Where they come from, if that is wanted.
    pub(crate) origin: Option<Origin>,
}

impl Read {
    /// The same rows in parts of at most `rows` rows. Event time, which has come to `watermark`, goes on with the last.
    pub(crate) fn parts(self, rows: usize, watermark: i64) -> impl Iterator<Item = Self> {
        let total = self.batch.num_rows();
        (0..total.div_ceil(rows)).map(move |part| {
            let offset = part * rows;
            let length = rows.min(total - offset);
            let is_last = offset + length == total;
            let next_watermark = if is_last { self.stamp.next_watermark } else { watermark };
            let origin = self.origin.as_ref().map(|origin| Origin {
                rows: origin.rows.slice(offset, length),
                places: origin.places.slice(offset, length),
                set_by: origin.set_by.clone(),
            });
            Self { batch: self.batch.slice(offset, length), stamp: Stamp { next_watermark, ..self.stamp }, origin }
        })
    }
}

struct OpenChunk {
    chunk: Chunk,
    name: Arc<str>,
    rows: Rows,
    /// The next row of the file, counted from 1.
    next_row: u64,
}

impl Reader {
    /// Opens a piece, to be counted in `counts`.
    ///
    /// # Errors
    /// There is no such piece.
    pub(crate) fn open(
        plan: &Arc<ReplayPlan>,
        piece: usize,
        counts: Arc<ReaderCounts>,
        task: Arc<TaskContext>,
    ) -> Result<Self> {
        let found = plan.pieces().get(piece).ok_or_else(|| internal_datafusion_err!("there is no piece {piece}"))?;
        Ok(Self {
            plan: Arc::clone(plan),
            keys: plan.key_check(&task).map(|check| (check, ReaderKeys::default())),
            task,
            piece,
            chunks: found.chunks.clone().into(),
            current: None,
            stamps: None,
            cut: VecDeque::new(),
            counts,
        })
    }

    /// The next batch with its stamp; none at the end.
    ///
    /// # Errors
    /// A file that cannot be read, named, with the row where that is known; a key in two files.
    pub(crate) async fn next(&mut self) -> Result<Option<Read>> {
        loop {
            if let Some(next) = self.cut.pop_front() {
                return Ok(Some(next));
            }
            let Some(batch) = self.read().await? else {
                return Ok(None);
            };
            self.stamp(batch)?;
        }
    }

    /// The next batch of files, without a stamp.
    async fn read(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some(open) = &mut self.current else {
                if self.stamps.is_none() {
                    self.stamps = self.begin_stamps().await?;
                }
                let Some(chunk) = self.chunks.pop_front() else {
                    return Ok(None);
                };
                self.current = Some(self.open_chunk(chunk).await?);
                continue;
            };
            let mut skipped_rows = 0;
            let next = open.rows.next(&mut skipped_rows);
            self.counts.skipped_rows.fetch_add(skipped_rows, Ordering::Relaxed);
            match next.map_err(|error| self.plan.unreadable(&open.chunk, error))? {
                Some(batch) if batch.num_rows() == 0 => {}
                Some(batch) => return Ok(Some(batch)),
                None => {
                    self.current = None;
                    self.stamps.iter_mut().for_each(Stamps::end);
                }
            }
        }
    }

    /// What makes the stamps of this piece; none if no watermarks are wanted.
    async fn begin_stamps(&mut self) -> Result<Option<Stamps>> {
        let plan = Arc::clone(&self.plan);
        let Some(time) = plan.event_time() else {
            return Ok(None);
        };
        if let Some(bound) = time.bound {
            let last_partition = self.chunks.back().map(|chunk| chunk.partition);
            return Ok(Some(Stamps::Bounded(Bounded::new(self.piece, bound, last_partition))));
        }
        let mut stretches = vec![];
        for chunk in self.chunks.iter() {
            let found = stretches_of(&plan, chunk, time.index, &self.counts, &self.task).await;
            stretches.push(found.map_err(|error| plan.unreadable(chunk, error))?);
        }
        Ok(Some(Stamps::Exact(Exact::new(self.piece, &stretches))))
    }

    async fn open_chunk(&mut self, chunk: Chunk) -> Result<OpenChunk> {
        let plan = Arc::clone(&self.plan);
        let file = plan.file(&chunk)?;
        let set_by = match (&plan.full, plan.event_time(), chunk.highest_before) {
            (Some(_), Some(time), Some(highest)) => row_before(&plan, &chunk, time.index, highest, &self.task).await?,
            _ => None,
        };
        self.stamps.iter_mut().for_each(|stamps| stamps.begin(&chunk, file, set_by.clone()));
        let wanted = Wanted {
            inner: &plan.table.inner,
            columns: &plan.columns,
            coded: plan.coded,
            task: &self.task,
            counts: Some(&self.counts),
        };
        let rows = Rows::open(file, chunk.row_groups.clone(), &wanted).await?;
        let groups_before = chunk.row_groups.as_ref().map_or(0, |groups| groups.start);
        let rows_before = file.footer.iter().flat_map(|footer| footer.rows.iter().take(groups_before)).sum::<u64>();
        Ok(OpenChunk { name: file.name.as_str().into(), chunk, rows, next_row: rows_before + 1 })
    }

    /// Checks a batch's keys and cuts it into runs with their stamps.
    fn stamp(&mut self, batch: RecordBatch) -> Result<()> {
        let places = self.places(batch.num_rows());
        let name = self.current.as_ref().map_or("", |open| &open.name);
        if let Some((check, keys)) = &mut self.keys {
            keys.check(check, &batch, name)?;
        }
        let (Some((_, time)), Some(stamps)) = (&self.plan.time, &mut self.stamps) else {
            let rows = self.plan.full.as_ref().map(|full| batch.project(full)).transpose()?;
            let origin = rows.zip(places).map(|(rows, places)| Origin { rows, places, set_by: None });
            let batch = self.plan.asked_for(&batch)?;
            self.cut.push_back(Read { batch, stamp: Stamp::timeless(self.piece), origin });
            return Ok(());
        };
        let times = batch.column(*time);
        if let Some(warning) = stamps.overlap(times)? {
            self.plan.warn(warning);
        }
        let segments = stamps.segments(times, places.as_ref()).map_err(|error| in_file(error, name))?;
        let full = self.plan.full.as_ref().map(|full| batch.project(full)).transpose()?;
        let batch = self.plan.asked_for(&batch)?;
        for Segment { offset, length, stamp, set_by } in segments {
            let origin = full.as_ref().zip(places.as_ref()).map(|(rows, places)| Origin {
                rows: rows.slice(offset, length),
                places: places.slice(offset, length),
                set_by,
            });
            self.cut.push_back(Read { batch: batch.slice(offset, length), stamp, origin });
        }
        Ok(())
    }

    /// Where the rows of the batch that was read last come from, if that is wanted.
    fn places(&mut self, rows: usize) -> Option<Places> {
        let open = self.current.as_mut().filter(|_| self.plan.full.is_some())?;
        let first = open.next_row;
        open.next_row += rows as u64;
        Some(match open.rows.numbers() {
            Some(numbers) => Places::listed(&open.name, numbers),
            None => Places::from(&open.name, first),
        })
    }
}

/// The event times of a chunk, as far as they are known or after an early pass over them.
async fn stretches_of(
    plan: &ReplayPlan,
    chunk: &Chunk,
    column: usize,
    counts: &ReaderCounts,
    task: &Arc<TaskContext>,
) -> Result<Arc<[Stretch]>> {
    let (file, row_groups) = (plan.file(chunk)?, chunk.row_groups.clone());
    match file.footer.as_ref().and_then(|footer| footer.stretches(column, row_groups.clone())) {
        Some(known) => Ok(known),
        None => {
            let progress = |rows: usize| {
                counts.early_rows.fetch_add(rows as u64, Ordering::Relaxed);
            };
            early_pass::event_times(&plan.table.inner, file, row_groups, column, task, progress).await
        }
    }
}

fn in_file(error: DataFusionError, name: &str) -> DataFusionError {
    match Error::find(&error) {
        Some(own) => own.clone().in_file(name).into(),
        None => error,
    }
}
