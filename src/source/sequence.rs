//! Reading a sequence of files: file after file, batch after batch, each cut and stamped by the watermark. Where readers
//! share the keys, each gives the rows of its own.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, PrimitiveArray, RecordBatch};
use arrow::compute::min;
use arrow::datatypes::Int64Type;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;

use crate::error::Error;
use crate::operator::{Stamp, WATERMARK_MIN, ticks};

use super::arrivals::Arrivals;
use super::chunk_rows::{ChunkRows, OpenChunk};
use super::early_pass::{self, unreadable};
use super::event_time::EventTime;
use super::follow::{Follower, Signals};
use super::footer::Stretch;
use super::idle::Idle;
use super::key_check::{KeyCheck, ReaderKeys};
use super::live::{Came, Live};
use super::origin::{Origin, Places, row_before};
use super::pacing::Speed;
use super::pieces::{Chunk, Part, ReadOrder};
use super::position::{Position, TextPosition};
use super::reader::{Read, ReaderCounts};
use super::replay::ReplayPlan;
use super::rows::{Rows, Wanted};
use super::share::{Own, Sharing};
use super::stamps::{Bounded, Exact, Segment, Stamps};

/// Reads a sequence of files, or of parts of them.
pub(crate) struct Sequence {
    plan: Arc<ReplayPlan>,
    task: Arc<TaskContext>,
    piece: usize,
    chunks: VecDeque<Chunk>,
    current: Option<OpenChunk>,
    /// None before the first row, and if no watermarks are wanted.
    stamps: Option<Stamps>,
    /// What is left of a batch that was cut.
    cut: VecDeque<Run>,
    /// The highest event time so far, where rows come in its order or by it.
    highest: i64,
    /// How far event time goes while rows come together, if they come by it.
    step: Option<i64>,
    own: Option<Own>,
    keys: Option<(Arc<KeyCheck>, ReaderKeys)>,
    counts: Arc<ReaderCounts>,
    arrivals: Option<Arrivals>,
    /// Rows that have been given, or will be of what is at hand.
    rows: u64,
    /// How many chunks have been read, and where the rows at hand are, if text can be read from there.
    chunks_before: usize,
    position: Option<TextPosition>,
    /// Where event time goes on without rows.
    idle: Option<Idle>,
}

/// A run of rows that one stamp judges.
pub(super) struct Run {
    pub(super) read: Read,
    /// Where rows of several partitions are to be put in order: the highest event time up to each row of its partition.
    pub(super) reached: Vec<i64>,
    /// There, too, whether a row is behind its watermark.
    pub(super) is_behind: bool,
}

impl Run {
    /// Those rows that are true.
    fn of_rows(self, own: &BooleanArray) -> Result<Self> {
        let Self { read, reached, is_behind } = self;
        let reached = reached.into_iter().zip(own.values()).filter_map(|(reached, own)| own.then_some(reached));
        let reached = reached.collect();
        Ok(Self { read: read.of_rows(own)?, reached, is_behind })
    }
}

/// What is to be read next.
enum Next {
    Chunk(Chunk),
    /// Nothing yet: it may still appear.
    Later,
    End,
}

impl Sequence {
    /// Reads `chunks` as a part of a piece, to be counted in `counts`.
    pub(super) fn new(
        plan: &Arc<ReplayPlan>,
        piece: usize,
        chunks: Vec<Chunk>,
        counts: Arc<ReaderCounts>,
        task: Arc<TaskContext>,
    ) -> Self {
        // Readers that share the keys read the same files: what is to be counted or checked once is the first one's.
        let is_first = plan.share().is_none() || piece == 0;
        let check = is_first.then(|| plan.key_check(&task)).flatten();
        let share = plan.share().filter(|share| share.way == Sharing::AtSource);
        let tick_ns = plan.event_time().and_then(EventTime::tick_ns);
        Self {
            plan: Arc::clone(plan),
            step: tick_ns.and_then(|tick_ns| Speed::of(&task).step(tick_ns)),
            own: share.map(|share| Own::new(share.clone(), piece)),
            keys: check.map(|check| (check, ReaderKeys::default())),
            task,
            piece,
            chunks: chunks.into(),
            current: None,
            stamps: None,
            cut: VecDeque::new(),
            highest: WATERMARK_MIN,
            counts: if is_first { counts } else { Arc::default() },
            arrivals: None,
            rows: 0,
            chunks_before: 0,
            position: None,
            idle: None,
        }
    }

    /// Reads what comes later, too.
    pub(super) fn follow(&mut self, signals: &Arc<Signals>) {
        let inner = &self.plan.stream().inner;
        self.arrivals = Some(match inner.coming.is_live() {
            true => Arrivals::Live(Live::new(signals, &self.counts)),
            false => Arrivals::Files(Follower::new(inner, Arc::clone(signals))),
        });
        let tick_ns = self.plan.event_time().and_then(EventTime::tick_ns);
        self.idle = inner.options.idle_timeout.zip(tick_ns).map(|(timeout, tick_ns)| Idle::new(timeout, tick_ns));
    }

    /// How far it has come.
    pub(super) fn position(&self) -> Position {
        let followed = self.arrivals.as_ref().and_then(Arrivals::followed).cloned();
        Position { followed, text: self.position.clone() }
    }

    /// Goes on where another reader of the same piece has been. Gives the number of rows that are not read again.
    ///
    /// # Errors
    /// What was begun is not there any more.
    pub(super) fn restore(&mut self, position: &Position) -> Result<u64> {
        if let Some(arrivals) = &mut self.arrivals {
            let chunks = std::mem::take(&mut self.chunks).into();
            let (chunks, rows) = arrivals.restore(position, &self.plan, chunks)?;
            (self.chunks, self.rows) = (chunks.into(), rows);
        }
        if let Some(text) = position.text.as_ref().filter(|text| text.chunk < self.chunks.len()) {
            self.chunks.drain(..text.chunk);
            self.chunks_before = text.chunk;
            if let Some(chunk) = self.chunks.front_mut() {
                (chunk.from, chunk.highest_before) = (Some(text.next), text.highest);
            }
            self.rows = text.rows;
        }
        self.position.clone_from(&position.text);
        Ok(self.rows)
    }

    /// Passes over row groups of the first `rows` rows without reading them, as far as it is known what they hold. Gives the
    /// number of rows. Nothing has been read yet.
    pub(super) fn pass_over(&mut self, rows: u64) -> u64 {
        // A reader of own keys counts those alone.
        if self.own.is_some() || self.arrivals.is_some() {
            return 0;
        }
        let mut to_pass = rows;
        while let Some(mut chunk) = self.chunks.pop_front() {
            let passed = self.plan.pass_over(&mut chunk, to_pass);
            to_pass -= passed.rows;
            if !passed.is_all {
                self.chunks.push_front(chunk);
                break;
            }
            if let Some(next) = self.chunks.front_mut().filter(|next| next.partition == chunk.partition) {
                next.highest_before = next.highest_before.max(chunk.highest_before);
            }
        }
        rows - to_pass
    }

    /// The next batch with its stamp; none at the end.
    ///
    /// # Errors
    /// A file that cannot be read, named, with the row where that is known; a key in two files.
    pub(super) async fn next(&mut self) -> Result<Option<Run>> {
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
                match self.next_chunk().await? {
                    Next::Chunk(chunk) => self.current = Some(self.open_chunk(chunk).await?),
                    Next::Later => return self.nothing_yet().map(Some),
                    Next::End => return Ok(None),
                }
                continue;
            };
            let highest = self.stamps.as_ref().and_then(Stamps::highest);
            self.position = open.position(self.chunks_before, self.rows, highest);
            let mut skipped_rows = 0;
            let next = open.rows.next(&mut skipped_rows).await;
            self.counts.skipped_rows.fetch_add(skipped_rows, Ordering::Relaxed);
            let next = match next {
                Ok(next) => next,
                Err(error) => return Err(unreadable(&self.plan, &open.chunk, error, &self.task).await),
            };
            match next {
                Came::Rows(batch) if batch.num_rows() == 0 => {}
                Came::Rows(batch) => {
                    open.seen += batch.num_rows() as u64;
                    self.idle.iter_mut().for_each(Idle::came);
                    return Ok(Some(batch));
                }
                Came::Later => return self.nothing_yet().map(Some),
                Came::End => self.end_chunk(),
            }
        }
    }

    /// A batch without rows, so that whoever waits for some has its turn.
    fn nothing_yet(&mut self) -> Result<RecordBatch> {
        let ticks = self.idle.as_ref().and_then(Idle::ticks);
        if let (Some(ticks), Some(stamps)) = (ticks, &mut self.stamps) {
            stamps.idle(ticks);
            let (highest, arrivals) = (stamps.highest(), &mut self.arrivals);
            // Where the next reader goes on, windows have closed by it.
            self.position.iter_mut().for_each(|position| position.highest = highest);
            arrivals.iter_mut().for_each(|arrivals| arrivals.idle(highest));
        }
        Ok(RecordBatch::new_empty(self.plan.read_schema()?))
    }

    /// The chunk at hand has been read.
    fn end_chunk(&mut self) {
        self.current = None;
        self.stamps.iter_mut().for_each(Stamps::end);
        let highest = self.stamps.as_ref().and_then(Stamps::highest);
        self.arrivals.iter_mut().for_each(|arrivals| arrivals.end(self.rows, highest));
        self.chunks_before += usize::from(self.arrivals.is_none());
        // Of the next file nothing has been read.
        let is_live = matches!(self.arrivals, Some(Arrivals::Live(_)));
        let next = TextPosition { rows: self.rows, highest, ..TextPosition::default() };
        self.position = is_live.then_some(next);
    }

    /// What is to be read next.
    async fn next_chunk(&mut self) -> Result<Next> {
        if let Some(arrivals) = self.arrivals.as_mut().filter(|_| self.chunks.is_empty()) {
            match arrivals.next(&self.plan, &self.task).await? {
                Some(found) if found.is_empty() => return Ok(Next::Later),
                Some(found) => self.chunks.extend(found),
                None => return Ok(Next::End),
            }
        }
        Ok(self.chunks.pop_front().map_or(Next::End, Next::Chunk))
    }

    /// What makes the stamps of this piece; none if no watermarks are wanted.
    async fn begin_stamps(&mut self) -> Result<Option<Stamps>> {
        let plan = Arc::clone(&self.plan);
        let Some(time) = plan.event_time() else {
            return Ok(None);
        };
        if let Some(bound) = time.bound {
            // What is followed is one partition.
            let followed = self.arrivals.as_ref().map(|_| 0);
            let last_partition = followed.or(self.chunks.back().map(|chunk| chunk.partition));
            return Ok(Some(Stamps::Bounded(Bounded::new(self.piece, bound, last_partition))));
        }
        let mut stretches = vec![];
        for chunk in self.chunks.iter() {
            stretches.push(stretches_of(&plan, chunk, time.index, &self.counts, &self.task).await?);
        }
        let seen = self.position.as_ref().map_or(0, |position| position.seen);
        Ok(Some(Stamps::Exact(Exact::new(self.piece, &stretches, seen))))
    }

    async fn open_chunk(&mut self, mut chunk: Chunk) -> Result<OpenChunk> {
        let (plan, as_found) = (Arc::clone(&self.plan), chunk.clone());
        let file = plan.file(&as_found)?;
        let mut text_rows = None;
        let mut set_by = match (&plan.full, plan.event_time(), chunk.highest_before) {
            (Some(_), Some(time), Some(highest)) => row_before(&plan, &chunk, time.index, highest, &self.task).await?,
            _ => None,
        };
        if let Some(time) = plan.event_time().filter(|time| self.wants_text_before(&chunk, time)) {
            let before = early_pass::before(&plan, &chunk, time.index, &self.counts, &self.task).await?;
            (chunk.highest_before, set_by) = before.highest.unzip();
            text_rows = Some(before.rows);
        }
        if let Some(arrivals) = &mut self.arrivals {
            if let Some(followed) = arrivals.followed().filter(|_| chunk.from.is_none()) {
                chunk.highest_before = followed.highest;
            }
            arrivals.begin(file, self.rows, self.stamps.as_ref().and_then(Stamps::highest));
        }
        let before = chunk.file.checked_sub(1).map(|file| Chunk { file, ..chunk.clone() });
        let before = before.and_then(|before| Some(plan.file(&before).ok()?.name.clone()));
        self.stamps.iter_mut().for_each(|stamps| stamps.begin(&chunk, file, before.as_deref(), set_by.clone()));
        let wanted = Wanted {
            inner: &plan.table.inner,
            columns: &plan.columns,
            coded: plan.coded,
            own: self.own.as_ref().and_then(|own| self.told_apart(own)),
            task: &self.task,
            counts: Some(&self.counts),
        };
        let rows = match (&mut self.arrivals, &chunk.part) {
            (Some(Arrivals::Live(live)), Part::Live) => ChunkRows::Live(live.open(file, &chunk, &wanted)?),
            _ => ChunkRows::Found(Rows::open(file, &chunk.part, chunk.from, &wanted).await?),
        };
        let groups_before = chunk.part.row_groups().map_or(0, |groups| groups.start);
        let rows_before = match (&file.footer, text_rows) {
            (Some(footer), _) => footer.rows.iter().take(groups_before).sum::<u64>(),
            (None, Some(rows)) => rows,
            (None, None) => chunk.part.first_place() + chunk.from.map_or(0, |from| from.rows),
        };
        let (name, is_plain) = (file.name.as_str().into(), file.compression == CompressionTypeVariant::UNCOMPRESSED);
        let seen = self.position.as_ref().filter(|_| chunk.from.is_some()).map_or(0, |position| position.seen);
        Ok(OpenChunk { name, chunk, rows, next_row: rows_before + 1, is_plain, seen })
    }

    /// What tells the rows of the pipeline's own, and the positions of what is looked at in all rows, if there are others.
    fn told_apart(&self, own: &Own) -> Option<(Own, Vec<usize>)> {
        let keys = self.plan.share().filter(|share| share.pipelines > 1)?.keys.iter().copied();
        let checked = self.keys.iter().flat_map(|(check, _)| check.columns()).copied();
        let time = self.plan.time.as_ref().map(|(_, time)| *time);
        Some((own.clone(), keys.chain(checked).chain(time).collect()))
    }

    /// Whether a part of text is to know what is before it: how far event time has come, or which row is its first.
    fn wants_text_before(&self, chunk: &Chunk, time: &EventTime) -> bool {
        let is_begun = self.stamps.as_ref().is_some_and(|stamps| stamps.continue_in(chunk));
        let is_known = is_begun || chunk.from.is_some() || self.arrivals.is_some();
        let wants_highest = time.bound.is_some() && !chunk.is_first() && !is_known;
        let wants_rows = self.plan.full.is_some() && chunk.part.text_before().is_some();
        matches!(chunk.part, Part::Text { .. }) && (wants_highest || wants_rows)
    }

    /// Checks a batch's keys and cuts it into runs with their stamps.
    fn stamp(&mut self, batch: RecordBatch) -> Result<()> {
        let places = self.places(batch.num_rows());
        let numbers = self.numbers(places.as_ref(), batch.num_rows());
        let name = self.current.as_ref().map_or("", |open| &open.name);
        if let Some((check, keys)) = &mut self.keys {
            keys.check(check, &batch, name)?;
        }
        let is_ordered = self.plan.order() != ReadOrder::Sequence;
        let column = self.plan.time.as_ref().filter(|_| self.stamps.is_some());
        let column = column.map(|(_, time)| Arc::clone(batch.column(*time)));
        let wanted = column.as_ref().filter(|_| is_ordered || self.step.is_some());
        let times = wanted.map(|times| ticks(times)).transpose()?;
        let reached = times.as_ref().map(|times| reached(&mut self.highest, times)).unwrap_or_default();
        let segments = match (column, &mut self.stamps) {
            (Some(column), Some(stamps)) => {
                if let Some(warning) = stamps.overlap(&column)? {
                    self.plan.warn(warning);
                }
                let together = moments(&reached, self.step, batch.num_rows());
                segments_of(stamps, &column, places.as_ref(), together).map_err(|error| in_file(error, name))?
            }
            _ => vec![Segment::timeless(self.piece, batch.num_rows())],
        };
        let text = self.plan.coded_type();
        let known = self.current.as_ref().and_then(|open| open.rows.own_rows());
        let own = match (known, &mut self.own) {
            (Some(known), _) => Some(known.clone()),
            (None, own) => own.as_mut().map(|own| own.rows(&batch, text.as_ref())).transpose()?,
        };
        let full = self.plan.full.as_ref().map(|full| batch.project(full)).transpose()?;
        let origin = full.zip(places).map(|(rows, places)| Origin { rows, places, set_by: None });
        let (batch, stamp) = (self.plan.asked_for(&batch, numbers)?, Stamp::timeless(self.piece));
        let rows = Read { batch, stamp, origin, due: None };
        for Segment { offset, length, stamp, set_by } in segments {
            let mut read = rows.slice(offset, length, stamp);
            read.origin.iter_mut().for_each(|origin| origin.set_by.clone_from(&set_by));
            let reached = reached.get(offset..offset + length).unwrap_or_default();
            // None of the rows comes before its time.
            read.due = reached.last().copied().filter(|due| self.step.is_some() && *due != WATERMARK_MIN);
            let times = times.as_ref().filter(|_| is_ordered).map(|times| times.slice(offset, length));
            let run = Run {
                read,
                is_behind: times.as_ref().and_then(min).is_some_and(|lowest| lowest < stamp.watermark),
                reached: if is_ordered { reached.to_vec() } else { vec![] },
            };
            let run = match &own {
                Some(own) => run.of_rows(&own.slice(offset, length))?,
                None => run,
            };
            self.rows += run.read.batch.num_rows() as u64;
            self.cut.push_back(run);
        }
        Ok(())
    }

    /// The places of those rows in the stream, if they are wanted.
    fn numbers(&self, places: Option<&Places>, rows: usize) -> Option<ArrayRef> {
        let chunk = &self.current.as_ref().filter(|_| self.plan.place.is_some())?.chunk;
        let before = self.plan.table.place_before(chunk.partition, chunk.file);
        let numbers = places?.numbers(rows).map(|row| before + row as i64);
        Some(Arc::new(Int64Array::from_iter_values(numbers)))
    }

    /// Where the rows of the batch that was read last come from, if that is wanted.
    fn places(&mut self, rows: usize) -> Option<Places> {
        let is_wanted = self.plan.full.is_some() || self.plan.place.is_some();
        let open = self.current.as_mut().filter(|_| is_wanted)?;
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
    let footer = plan.file(chunk)?.footer.as_ref();
    if let Some(known) = footer.and_then(|footer| footer.stretches(column, chunk.part.row_groups())) {
        return Ok(known);
    }
    let mut stretches = vec![];
    for part in chunk.single() {
        stretches.extend_from_slice(&early_pass::event_times(plan, &part, column, counts, task).await?.stretches);
    }
    Ok(stretches.into())
}

/// The highest event time up to each row, of all so far.
fn reached(highest: &mut i64, times: &PrimitiveArray<Int64Type>) -> Vec<i64> {
    let reach = |time: Option<i64>| {
        *highest = time.unwrap_or(WATERMARK_MIN).max(*highest);
        *highest
    };
    times.iter().map(reach).collect()
}

/// The rows of a batch that come together, given how far event time has come with each: all of them, or those of a step.
fn moments(reached: &[i64], step: Option<i64>, rows: usize) -> Vec<Range<usize>> {
    let Some(step) = step else { return std::iter::once(0..rows).collect() };
    let mut begin = 0;
    let of_step = |rows: &[i64]| {
        let end = begin + rows.len();
        std::mem::replace(&mut begin, end)..end
    };
    reached.chunk_by(|left, right| left.div_euclid(step) == right.div_euclid(step)).map(of_step).collect()
}

/// The segments of a batch, part by part.
fn segments_of(
    stamps: &mut Stamps,
    times: &ArrayRef,
    places: Option<&Places>,
    parts: Vec<Range<usize>>,
) -> Result<Vec<Segment>> {
    let mut segments = vec![];
    for part in parts {
        let places = places.map(|places| places.slice(part.start, part.len()));
        let of_part = stamps.segments(&times.slice(part.start, part.len()), places.as_ref())?;
        segments.extend(of_part.into_iter().map(|segment| Segment { offset: part.start + segment.offset, ..segment }));
    }
    Ok(segments)
}

fn in_file(error: DataFusionError, name: &str) -> DataFusionError {
    match Error::find(&error) {
        Some(own) => own.clone().in_file(name).into(),
        None => error,
    }
}
