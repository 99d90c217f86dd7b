//! Keys that no row has come to for long, each as rows on disk.
//!
//! ```text
//!   coldest keys ─▶ run: pages of rows │ hash and place of each row, in memory
//!                        ◀─ take ──────┘  the rows of some hashes, of some moments, or all
//! ```
//!
//! What goes to disk at one time is a run: rows in the order in which they are given, some to a page, which is read as a
//! whole. Rows that have been taken are marked, and their run is gone with the last of them. When runs have become many, the
//! smaller ones are written anew as one, without what has been taken. The rows of a key have one hash. Two keys may have the same one, so
//! whoever takes the rows of a key may get those of another one too: both are in memory then.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBufferBuilder, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use datafusion::common::Result;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::execution::disk_manager::DiskManager;

use super::file::{BatchFile, BatchWriter, Place};

/// Rows of a page: reading one row reads them all, and each page costs a kilobyte or two.
const PAGE_ROWS: usize = if cfg!(test) { 3 } else { 128 };
/// Runs before they become one.
const RUNS_MAX: usize = if cfg!(test) { 2 } else { 8 };
/// Rows that are taken at once when all are.
const TAKEN_ROWS: usize = if cfg!(test) { 5 } else { 8192 };

/// Another seed than that of the tables that look keys up, whose places would be few for the keys of one part.
const SEED: u64 = 0x7370_696c;

/// The hashes of keys.
pub(in crate::operator) fn hashes_of(keys: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    create_hashes(keys, &RandomState::with_seed(SEED), &mut hashes)?;
    Ok(hashes)
}

/// The first row of each key from `known` on, where keys are numbered in the order of their first rows.
pub(in crate::operator) fn first_rows(groups: &[usize], known: usize) -> Vec<u32> {
    let mut next = known;
    let is_first = |(row, group): (usize, &usize)| {
        let is_first = *group == next;
        next += usize::from(is_first);
        is_first.then_some(row as u32)
    };
    groups.iter().enumerate().filter_map(is_first).collect()
}

/// Rows on disk.
#[derive(Default)]
pub(in crate::operator) struct ColdRows(Vec<Run>);

/// What went to disk at one time.
struct Run {
    file: BatchFile,
    pages: Vec<Page>,
    /// Hashes in order, and the row that each is of.
    hashes: Vec<u64>,
    rows: Vec<u32>,
    /// When each row is due, if it is before the end.
    dues: Vec<i64>,
    /// Rows that have been taken.
    taken: BooleanBufferBuilder,
    left: usize,
}

struct Page {
    place: Place,
    /// No row is due before.
    earliest: i64,
}

impl ColdRows {
    /// Brings rows to disk, given the hashes of their keys and when each of them is due; without, at the end. How many bytes
    /// they are there.
    ///
    /// # Errors
    /// A disk that is full, or has no more for this process.
    pub(in crate::operator) fn put(
        &mut self,
        disk: &Arc<DiskManager>,
        hashes: Vec<u64>,
        dues: Vec<i64>,
        rows: &RecordBatch,
    ) -> Result<u64> {
        let mut run = RunWriter::create(disk)?;
        run.add(hashes, dues, rows)?;
        let mut bytes = run.finish(&mut self.0)?;
        if self.0.len() > RUNS_MAX {
            bytes += self.join_runs(disk)?;
        }
        Ok(bytes)
    }

    /// Writes the smaller half of the runs anew as one, so that a row is written few times however many runs there have been.
    fn join_runs(&mut self, disk: &Arc<DiskManager>) -> Result<u64> {
        let mut joined = RunWriter::create(disk)?;
        self.0.sort_by_key(|run| run.left);
        for run in self.0.drain(..=RUNS_MAX / 2).collect::<Vec<_>>() {
            let hashes = run.hashes_by_row();
            for page in 0..run.pages.len() {
                let rows = run.left_in(page);
                let Some(batch) = run.read(&rows)? else { continue };
                let hashes = rows.iter().map(|row| hashes[*row as usize]).collect();
                let dues = rows.iter().filter_map(|row| run.dues.get(*row as usize)).copied().collect();
                joined.add(hashes, dues, &batch)?;
            }
        }
        joined.finish(&mut self.0)
    }

    /// Takes the rows of some hashes out, if there are any.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub(in crate::operator) fn take(&mut self, hashes: &[u64]) -> Result<Option<RecordBatch>> {
        let mut wanted = hashes.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        self.take_rows(|run| run.rows_of(&wanted))
    }

    /// Takes the rows out that are due at or before `until`, if there are any.
    ///
    /// # Errors
    /// As [`ColdRows::take`].
    pub(in crate::operator) fn take_due(&mut self, until: i64) -> Result<Option<RecordBatch>> {
        self.take_rows(|run| run.due(until))
    }

    /// Takes some of the rows out, if there are any left.
    ///
    /// # Errors
    /// As [`ColdRows::take`].
    pub(in crate::operator) fn take_some(&mut self) -> Result<Option<RecordBatch>> {
        let mut room = TAKEN_ROWS;
        self.take_rows(|run| {
            let rows: Vec<u32> = (0..run.pages.len()).flat_map(|page| run.left_in(page)).take(room).collect();
            room -= rows.len();
            rows
        })
    }

    fn take_rows(&mut self, mut which: impl FnMut(&Run) -> Vec<u32>) -> Result<Option<RecordBatch>> {
        let mut taken = vec![];
        for run in &mut self.0 {
            let rows = which(run);
            taken.extend(run.read(&rows)?);
            run.forget(&rows);
        }
        self.0.retain(|run| run.left > 0);
        Ok(match taken.as_slice() {
            [] => None,
            [first, ..] => Some(concat_batches(&first.schema(), &taken)?),
        })
    }

    /// All rows, which stay.
    pub(in crate::operator) fn batches(&self) -> impl Iterator<Item = Result<RecordBatch>> {
        let pages = self.0.iter().flat_map(|run| (0..run.pages.len()).map(move |page| (run, page)));
        pages.filter_map(|(run, page)| run.read(&run.left_in(page)).transpose())
    }

    /// How many rows there are.
    pub(in crate::operator) fn len(&self) -> usize {
        self.0.iter().map(|run| run.left).sum()
    }

    /// Whether there are none.
    pub(in crate::operator) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes held in memory, to find rows by.
    pub(in crate::operator) fn size(&self) -> usize {
        self.0.iter().map(Run::size).sum()
    }
}

impl Run {
    fn hashes_by_row(&self) -> Vec<u64> {
        let mut hashes = vec![0; self.hashes.len()];
        self.rows.iter().zip(&self.hashes).for_each(|(row, hash)| hashes[*row as usize] = *hash);
        hashes
    }

    /// The rows of hashes that are wanted, which come in order.
    fn rows_of(&self, wanted: &[u64]) -> Vec<u32> {
        let (mut rows, mut at) = (vec![], 0);
        for hash in wanted {
            at += self.hashes[at..].partition_point(|known| known < hash);
            let same = self.hashes[at..].iter().take_while(|known| *known == hash).count();
            rows.extend(self.rows[at..at + same].iter().filter(|row| !self.taken.get_bit(**row as usize)));
        }
        rows.sort_unstable();
        rows
    }

    fn due(&self, until: i64) -> Vec<u32> {
        let pages = self.pages.iter().enumerate().filter(|(_, page)| page.earliest <= until);
        let rows = pages.flat_map(|(page, _)| self.left_in(page));
        rows.filter(|row| self.dues.get(*row as usize).is_some_and(|due| *due <= until)).collect()
    }

    /// The rows of a page that have not been taken.
    fn left_in(&self, page: usize) -> Vec<u32> {
        let rows = page * PAGE_ROWS..((page + 1) * PAGE_ROWS).min(self.rows.len());
        rows.filter(|row| !self.taken.get_bit(*row)).map(|row| row as u32).collect()
    }

    /// Some rows in order.
    fn read(&self, rows: &[u32]) -> Result<Option<RecordBatch>> {
        if rows.is_empty() {
            return Ok(None);
        }
        let (mut file, mut batches) = (self.file.open()?, vec![]);
        let page_of = |row: &u32| *row as usize / PAGE_ROWS;
        for rows in rows.chunk_by(|a, b| page_of(a) == page_of(b)) {
            let page = page_of(&rows[0]);
            let Some(batch) = file.read(&self.pages[page].place)? else { continue };
            let places = rows.iter().map(|row| *row - (page * PAGE_ROWS) as u32);
            batches.push(match rows.len() == batch.num_rows() {
                true => batch,
                false => take_record_batch(&batch, &UInt32Array::from_iter_values(places))?,
            });
        }
        Ok(match batches.as_slice() {
            [] => None,
            [first, ..] => Some(concat_batches(&first.schema(), &batches)?),
        })
    }

    /// Marks rows as taken, which come in order.
    fn forget(&mut self, rows: &[u32]) {
        rows.iter().for_each(|row| self.taken.set_bit(*row as usize, true));
        self.left -= rows.len();
        let page_of = |row: &u32| *row as usize / PAGE_ROWS;
        for rows in rows.chunk_by(|a, b| page_of(a) == page_of(b)) {
            let page = page_of(&rows[0]);
            self.pages[page].earliest = self.earliest_in(page);
        }
    }

    fn earliest_in(&self, page: usize) -> i64 {
        let dues = self.left_in(page).into_iter().filter_map(|row| self.dues.get(row as usize));
        dues.min().copied().unwrap_or(i64::MAX)
    }

    fn size(&self) -> usize {
        self.hashes.capacity() * size_of::<u64>()
            + self.rows.capacity() * size_of::<u32>()
            + self.dues.capacity() * size_of::<i64>()
            + self.taken.capacity() / 8
            + self.pages.capacity() * size_of::<Page>()
    }
}

/// A run in the making.
struct RunWriter {
    out: BatchWriter,
    /// Rows that fill no page so far.
    few: Vec<RecordBatch>,
    few_rows: usize,
    places: Vec<Place>,
    /// By row.
    hashes: Vec<u64>,
    dues: Vec<i64>,
}

impl RunWriter {
    fn create(disk: &Arc<DiskManager>) -> Result<Self> {
        let out = BatchWriter::create(disk)?;
        Ok(Self { out, few: vec![], few_rows: 0, places: vec![], hashes: vec![], dues: vec![] })
    }

    fn add(&mut self, hashes: Vec<u64>, dues: Vec<i64>, rows: &RecordBatch) -> Result<()> {
        self.hashes.extend(hashes);
        self.dues.extend(dues);
        let mut at = 0;
        while at < rows.num_rows() {
            let length = (PAGE_ROWS - self.few_rows).min(rows.num_rows() - at);
            self.few.push(rows.slice(at, length));
            self.few_rows += length;
            at += length;
            if self.few_rows == PAGE_ROWS {
                self.write_page()?;
            }
        }
        Ok(())
    }

    fn write_page(&mut self) -> Result<()> {
        self.few_rows = 0;
        let few = std::mem::take(&mut self.few);
        if let Some(first) = few.first() {
            self.places.push(self.out.append(&concat_batches(&first.schema(), &few)?)?);
        }
        Ok(())
    }

    fn finish(mut self, runs: &mut Vec<Run>) -> Result<u64> {
        self.write_page()?;
        let left = self.hashes.len();
        let mut order: Vec<(u64, u32)> = self.hashes.into_iter().zip(0..).collect();
        order.sort_unstable();
        let (hashes, rows) = order.into_iter().unzip();
        let mut taken = BooleanBufferBuilder::new(left);
        taken.append_n(left, false);
        let pages = self.places.into_iter().map(|place| Page { place, earliest: i64::MAX }).collect();
        let mut run = Run { file: self.out.file(), pages, hashes, rows, dues: self.dues, taken, left };
        for page in 0..run.pages.len() {
            run.pages[page].earliest = run.earliest_in(page);
        }
        runs.extend((left > 0).then_some(run));
        self.out.finish()
    }
}

/// When rows came to each key, as far as that is watched: from the first time on that some have gone to disk.
#[derive(Default)]
pub(in crate::operator) struct Warmth {
    now: u32,
    touched: Option<Vec<u32>>,
}

impl Warmth {
    /// Rows have come to these keys, of `total`.
    pub(in crate::operator) fn touch(&mut self, keys: &[usize], total: usize) {
        let Some(touched) = &mut self.touched else { return };
        self.now += 1;
        touched.resize(total, self.now);
        keys.iter().for_each(|key| touched[*key] = self.now);
    }

    /// The colder half of some keys, in their order; where nothing is known of them those that were there first.
    pub(in crate::operator) fn coldest(&self, keys: Vec<usize>) -> Vec<usize> {
        let touched = |key: usize| self.touched.as_ref().and_then(|touched| touched.get(key)).copied().unwrap_or(0);
        let mut by_warmth: Vec<(u32, usize)> = keys.into_iter().map(|key| (touched(key), key)).collect();
        let half = by_warmth.len().div_ceil(2);
        if half < by_warmth.len() {
            by_warmth.select_nth_unstable(half);
            by_warmth.truncate(half);
        }
        let mut coldest: Vec<usize> = by_warmth.into_iter().map(|(_, key)| key).collect();
        coldest.sort_unstable();
        coldest
    }

    /// Some keys go to disk: from now on it is watched which of the others rows come to.
    pub(in crate::operator) fn watch(&mut self) {
        self.touched.get_or_insert_default();
    }

    /// Keys are numbered anew: these, in that order.
    pub(in crate::operator) fn keep(&mut self, keys: &[usize]) {
        if let Some(touched) = &mut self.touched {
            *touched = keys.iter().map(|key| touched.get(*key).copied().unwrap_or(0)).collect();
        }
    }

    /// Bytes held.
    pub(in crate::operator) fn size(&self) -> usize {
        self.touched.as_ref().map_or(0, |touched| touched.capacity() * size_of::<u32>())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    use super::*;

    fn batch(values: &[i64]) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("value", column)]).unwrap()
    }

    fn sorted(rows: impl IntoIterator<Item = RecordBatch>) -> Vec<i64> {
        let column = |rows: RecordBatch| rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        let mut values: Vec<i64> = rows.into_iter().flat_map(column).collect();
        values.sort_unstable();
        values
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(Vec<(u64, i64)>),
        Take(Vec<u64>),
        TakeDue(i64),
        TakeSome,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => prop::collection::vec((0u64..20, 0i64..50), 1..20).prop_map(Step::Put),
            2 => prop::collection::vec(0u64..25, 0..6).prop_map(Step::Take),
            1 => (0i64..50).prop_map(Step::TakeDue),
            1 => Just(Step::TakeSome),
        ];
        prop::collection::vec(step, 0..24)
    }

    proptest! {
        /// Each row is there until it is taken, and then never more.
        #[test]
        fn rows_are_there_until_they_are_taken(steps in steps()) {
            let disk = Arc::new(DiskManager::builder().build().unwrap());
            let (mut cold, mut model, mut next) = (ColdRows::default(), Vec::<(u64, i64, i64)>::new(), 0);
            for step in steps {
                let (got, expected): (Vec<i64>, Vec<i64>) = match step {
                    Step::Put(rows) => {
                        let values: Vec<i64> = (next..).take(rows.len()).collect();
                        next += rows.len() as i64;
                        let (hashes, dues): (Vec<u64>, Vec<i64>) = rows.into_iter().unzip();
                        prop_assert!(cold.put(&disk, hashes.clone(), dues.clone(), &batch(&values)).unwrap() > 0);
                        model.extend(hashes.into_iter().zip(dues).zip(values).map(|((hash, due), value)| (hash, due, value)));
                        continue;
                    }
                    Step::Take(hashes) => {
                        let taken = model.extract_if(.., |(hash, ..)| hashes.contains(hash)).map(|row| row.2).collect();
                        (sorted(cold.take(&hashes).unwrap()), taken)
                    }
                    Step::TakeDue(until) => {
                        let taken = model.extract_if(.., |(_, due, _)| *due <= until).map(|row| row.2).collect();
                        (sorted(cold.take_due(until).unwrap()), taken)
                    }
                    Step::TakeSome => {
                        let got = sorted(cold.take_some().unwrap());
                        prop_assert_eq!(got.len(), model.len().min(TAKEN_ROWS));
                        let taken = model.extract_if(.., |row| got.contains(&row.2)).map(|row| row.2).collect();
                        (got, taken)
                    }
                };
                let mut expected = expected;
                expected.sort_unstable();
                prop_assert_eq!(got, expected);
                let mut left: Vec<i64> = model.iter().map(|row| row.2).collect();
                left.sort_unstable();
                prop_assert_eq!((cold.len(), cold.is_empty()), (left.len(), left.is_empty()));
                prop_assert_eq!(sorted(cold.batches().map(Result::unwrap)), left);
            }
        }
    }

    #[test]
    fn the_colder_half_goes_and_what_came_first_where_nothing_is_known() {
        let mut warmth = Warmth::default();
        warmth.touch(&[3], 4);
        assert_eq!((warmth.coldest(vec![0, 1, 2, 3]), warmth.size()), (vec![0, 1], 0));
        warmth.watch();
        warmth.keep(&[2, 3]);
        warmth.touch(&[0, 2], 3);
        warmth.touch(&[0], 3);
        assert_eq!(warmth.coldest(vec![0, 1, 2]), [1, 2]);
        assert_eq!(warmth.coldest(vec![0, 2]), [2]);
    }
}
