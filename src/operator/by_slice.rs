//! A batch's rows by the slices that they are in.

use std::collections::BTreeMap;

use arrow::array::{Array, PrimitiveArray};
use arrow::datatypes::Int64Type;
use datafusion::common::{HashMap, Result};

use super::aggregate_spec::{Evaluated, WindowSpec};
use super::open_windows::Slice;
use super::{Counters, Missed, MissedRows};

impl WindowSpec {
    /// The slice that a pane's rows are in when the watermark is `watermark`.
    fn place(&self, pane: i64, watermark: i64) -> Place {
        match (self.shape.next_end(pane, watermark), self.shape.next_end(pane, i64::MIN)) {
            (Some(next_end), first) => Place::In { slice: Slice { next_end, pane }, partly: first != Some(next_end) },
            (None, Some(_)) => Place::Late,
            (None, None) => Place::Between,
        }
    }

    /// Start and end of the last of a pane's windows that had closed at `watermark`.
    fn last_missed(&self, pane: i64, watermark: i64) -> Option<(i64, i64)> {
        let first = self.shape.next_end(pane, i64::MIN);
        let ends = std::iter::successors(first, |end| self.shape.next_end(pane, *end));
        let end = ends.take_while(|end| *end <= watermark).last()?;
        Some((self.shape.whole_start(pane, end), end))
    }

    /// The windows of a slice, each as a slice of its own.
    pub(super) fn windows(&self, slice: Slice) -> impl Iterator<Item = Slice> + '_ {
        let ends = std::iter::successors(Some(slice.next_end), move |end| self.shape.next_end(slice.pane, *end));
        ends.map(move |end| Slice { next_end: end, pane: self.shape.start(slice.pane, end) })
    }
}

/// Where rows of a pane belong.
#[derive(Clone, Copy)]
enum Place {
    In {
        slice: Slice,
        /// Whether some of the pane's windows have closed.
        partly: bool,
    },
    /// All of the pane's windows have closed.
    Late,
    /// No window holds the pane.
    Between,
}

/// Rows of one slice.
pub(super) struct SliceRows {
    /// None for null event times.
    pub(super) slice: Option<Slice>,
    pub(super) rows: Evaluated,
}

/// A batch, and which of its rows are in which slice.
pub(super) struct BySlice {
    rows: Evaluated,
    /// In order of their first rows.
    slices: Vec<RowsOfSlice>,
    /// Whether each slice has all rows, without a list of them.
    all: bool,
    pub(super) counters: Counters,
}

/// Rows of many slices, those of each together.
pub(super) struct ManySlices {
    /// The slices in order, with where the rows of each end.
    pub(super) slices: Vec<(Slice, usize)>,
    pub(super) rows: Evaluated,
}

/// So many slices at least are worked on at once, if they have fewer rows on average: what it takes to have groups for
/// each of them is about what it takes to find the groups of that many rows.
const MANY_SLICES: usize = if cfg!(test) { 3 } else { 8 };
const FEW_ROWS: usize = 64;

impl BySlice {
    fn whole(rows: Evaluated, slice: Option<Slice>) -> Self {
        let counters = Counters { used_rows: rows.rows as u64, ..Counters::default() };
        Self { rows, slices: vec![(slice, vec![])], all: true, counters }
    }

    /// Each slice with its rows.
    pub(super) fn apart(self) -> Result<Vec<SliceRows>> {
        let Self { rows, slices, all, .. } = self;
        let select = |(slice, of_slice)| {
            let rows = if all { rows.clone() } else { rows.select(of_slice)? };
            Ok(SliceRows { slice, rows })
        };
        slices.into_iter().map(select).collect()
    }

    /// Takes out the slices if there are many with few rows each. Rows without a time stay.
    pub(super) fn take_many(&mut self) -> Result<Option<ManySlices>> {
        let rows: usize = self.slices.iter().map(|(_, rows)| rows.len()).sum();
        if self.all || self.slices.len() < MANY_SLICES || rows > FEW_ROWS * self.slices.len() {
            return Ok(None);
        }
        let (mut slices, mut order, mut timeless) = (vec![], Vec::with_capacity(rows), vec![]);
        let mut all = std::mem::take(&mut self.slices);
        all.sort_by_key(|(slice, _)| *slice);
        for (slice, rows) in all {
            match slice {
                Some(slice) => {
                    order.extend(rows);
                    slices.push((slice, order.len()));
                }
                None => timeless.push((None, rows)),
            }
        }
        self.slices = timeless;
        Ok(Some(ManySlices { slices, rows: self.rows.select(order)? }))
    }
}

impl Evaluated {
    /// Divides the rows by slice and leaves out those whose windows closed before them. The usual batch touches one
    /// pane and is not copied.
    pub(super) fn by_slice(self, spec: &WindowSpec, watermark: i64, missed: &mut MissedRows) -> BySlice {
        self.divide(spec, watermark, missed, |slices| slices)
    }

    /// The same by whole windows: a row is in each of its own, and those of a window are in order.
    pub(super) fn by_window(self, spec: &WindowSpec, watermark: i64, missed: &mut MissedRows) -> BySlice {
        match spec.shape.pane() {
            None => self.by_slice(spec, watermark, missed),
            Some(_) => self.divide(spec, watermark, missed, |slices| rows_of_windows(slices, spec)),
        }
    }

    fn divide(
        self,
        spec: &WindowSpec,
        watermark: i64,
        missed: &mut MissedRows,
        arrange: impl FnOnce(Vec<RowsOfSlice>) -> Vec<RowsOfSlice>,
    ) -> BySlice {
        let Some(starts) = self.starts.clone() else { return BySlice::whole(self, None) };
        let mut divided = BySlice::whole(self, None);
        divided.counters.null_time_rows = starts.null_count() as u64;
        if starts.null_count() == 0
            && let Some(&start) = starts.values().first()
            && let Place::In { slice, partly: false } = spec.place(start, watermark)
            && starts.values().iter().fold(0, |differs, other| differs | (other ^ start)) == 0
        {
            divided.slices = arrange(vec![(Some(slice), vec![])]);
            return divided;
        }
        let slices = match rows_of_two_slices(&starts, spec, watermark) {
            Some(slices) => slices,
            None => rows_of_slices(&starts, spec, watermark, &mut divided.counters, missed),
        };
        divided.counters.used_rows = slices.iter().map(|(_, rows)| rows.len() as u64).sum();
        (divided.slices, divided.all) = (arrange(slices), false);
        divided
    }
}

/// A slice, none for null event times, and its rows, ascending.
type RowsOfSlice = (Option<Slice>, Vec<u32>);

/// The rows of each window of slices, by ends.
fn rows_of_windows(slices: Vec<RowsOfSlice>, spec: &WindowSpec) -> Vec<RowsOfSlice> {
    let mut windows = BTreeMap::<Option<Slice>, Vec<u32>>::new();
    for (slice, rows) in slices {
        match slice {
            None => windows.entry(None).or_default().extend(rows),
            Some(slice) => {
                for window in spec.windows(slice) {
                    windows.entry(Some(window)).or_default().extend_from_slice(&rows);
                }
            }
        }
    }
    windows.values_mut().for_each(|rows| rows.sort_unstable());
    windows.into_iter().collect()
}

/// The rows of two slices, where there are no others and nothing is late: most batches that do not lie in one are so,
/// and rows out of order go back and forth between the two.
fn rows_of_two_slices(
    starts: &PrimitiveArray<Int64Type>,
    spec: &WindowSpec,
    watermark: i64,
) -> Option<Vec<RowsOfSlice>> {
    let panes = starts.values();
    let first = *panes.first().filter(|_| starts.null_count() == 0)?;
    let second = *panes.iter().find(|pane| **pane != first)?;
    let whole_slice = |pane| match spec.place(pane, watermark) {
        Place::In { slice, partly: false } => Some(slice),
        _ => None,
    };
    let slices = [whole_slice(first)?, whole_slice(second)?];
    if panes.iter().fold(false, |other, pane| other | ((*pane != first) & (*pane != second))) {
        return None;
    }
    let mut rows = [vec![0; panes.len()], vec![0; panes.len()]];
    let mut lengths = [0, 0];
    for (row, pane) in panes.iter().enumerate() {
        // Written to both and kept in one, without a branch to guess wrong.
        let is_second = usize::from(*pane != first);
        rows[0][lengths[0]] = row as u32;
        rows[1][lengths[1]] = row as u32;
        lengths[is_second] += 1;
    }
    for (rows, length) in rows.iter_mut().zip(lengths) {
        rows.truncate(length);
    }
    Some(slices.into_iter().map(Some).zip(rows).collect())
}

/// The rows of each slice, in order of the slices' first rows. Few panes are open at a time, and neighbours mostly
/// share one, so they are searched from the one found last.
fn rows_of_slices(
    starts: &PrimitiveArray<Int64Type>,
    spec: &WindowSpec,
    watermark: i64,
    counters: &mut Counters,
    missed: &mut MissedRows,
) -> Vec<RowsOfSlice> {
    let mut slices: Vec<RowsOfSlice> = vec![];
    // Each pane with its place, and where its rows are among the slices'.
    let mut places: Vec<(Option<i64>, Option<Place>, usize)> = vec![];
    let mut by_pane = HashMap::new();
    // Rows out of order mostly go back and forth between two panes.
    let (mut last, mut other) = (usize::MAX, usize::MAX);
    for (row, pane) in starts.iter().enumerate() {
        let is_at = |index: usize| places.get(index).is_some_and(|(known, ..)| *known == pane);
        if !is_at(last) {
            std::mem::swap(&mut last, &mut other);
            if !is_at(last) {
                last = *by_pane.entry(pane).or_insert_with(|| {
                    let place = pane.map(|pane| spec.place(pane, watermark));
                    let slice = match place {
                        None => Some(None),
                        Some(Place::In { slice, .. }) => Some(Some(slice)),
                        Some(_) => None,
                    };
                    slices.extend(slice.map(|slice| (slice, vec![])));
                    places.push((pane, place, if slice.is_some() { slices.len() - 1 } else { usize::MAX }));
                    places.len() - 1
                });
            }
        }
        let (_, place, index) = places[last];
        let window = || spec.last_missed(pane?, watermark);
        match place {
            Some(Place::Late) => {
                counters.late_rows += 1;
                missed.add(row, Missed::All, window);
            }
            Some(Place::Between) => {
                counters.between_rows += 1;
                missed.add(row, Missed::Between, || None);
            }
            Some(Place::In { partly: true, .. }) => {
                counters.late_partial_rows += 1;
                missed.add(row, Missed::Some, window);
            }
            _ => {}
        }
        if let Some((_, rows)) = slices.get_mut(index) {
            rows.push(row as u32);
        }
    }
    slices
}
