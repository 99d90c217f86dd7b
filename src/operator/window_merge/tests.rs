use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::operator::testing::{
    Row, assert_same, batch_lengths, common_group_by, every_aggregate, group_by, highest, overlapping_group_by,
    overlapping_shapes, rows, run, sorted, stamped, text, watermark,
};
use crate::operator::{Mode, Operator, Stamp, WindowAggregate};

/// One pipeline over a contiguous piece of the rows.
struct Piece {
    index: usize,
    operator: WindowAggregate,
    batches: VecDeque<(RecordBatch, Stamp)>,
}

/// Batches with their stamps.
type Batches = Vec<(RecordBatch, Stamp)>;

/// The rows in pieces that begin there: the watermark that each starts with, and its batches.
fn divided(rows: &[Row], bound: i64, lengths: &[usize], begins: &[usize]) -> (Vec<i64>, Vec<Batches>) {
    let begins: BTreeSet<usize> = begins.iter().map(|begin| *begin.min(&rows.len())).chain([0]).collect();
    let ends = begins.iter().copied().skip(1).chain([rows.len()]);
    let piece = |(index, (begin, end)): (usize, (usize, usize))| {
        let before = highest(&rows[..begin], None);
        (watermark(before, bound), stamped(&rows[begin..end], lengths, bound, index, before))
    };
    begins.iter().copied().zip(ends).enumerate().map(piece).unzip()
}

/// What the merger gives when pieces that begin at `begins` are run in turn, the next one by `picks`.
fn merged(
    spec: &Arc<AggregateSpec>,
    rows: &[Row],
    bound: i64,
    lengths: &[usize],
    begins: &[usize],
    picks: &[usize],
    disk: Option<&Arc<DiskManager>>,
) -> Vec<RecordBatch> {
    let (start_watermarks, pieces) = divided(rows, bound, lengths, begins);
    let piece = |(index, batches): (usize, Batches)| {
        let operator = WindowAggregate::new(Arc::clone(spec), Mode::Partial);
        Piece { index, operator, batches: batches.into() }
    };
    let mut running: Vec<Piece> = pieces.into_iter().enumerate().map(piece).collect();
    let mut merger = Merger::new(Arc::clone(spec), start_watermarks);
    let (mut output, mut picks) = (vec![], picks.iter().cycle());
    while !running.is_empty() {
        let next = picks.next().unwrap() % running.len();
        let (piece, mut partials) = (&mut running[next], vec![]);
        let now = match piece.batches.pop_front() {
            Some((batch, stamp)) => {
                piece.operator.push(&batch, stamp, &mut partials).unwrap();
                stamp.next_watermark
            }
            None => {
                piece.operator.finish(&mut partials).unwrap();
                WATERMARK_MAX
            }
        };
        merger.wait(piece.index, partials).unwrap();
        if let Some(disk) = disk.filter(|_| picks.clone().next().unwrap() % 3 > 0) {
            merger.spill(disk).unwrap();
        }
        let complete = merger.close(piece.index, now).unwrap();
        output.extend(CompleteWindows::rows_of(spec, complete));
        if now == WATERMARK_MAX {
            running.remove(next);
        }
    }
    assert!(merger.waiting.count() == 0 && !merger.waiting.has_last());
    output
}

fn assert_merged(
    spec: &Arc<AggregateSpec>,
    rows: &[Row],
    bound: i64,
    lengths: &[usize],
    begins: &[usize],
    picks: &[usize],
) {
    let mut alone = WindowAggregate::new(Arc::clone(spec), Mode::Final);
    let expected = run(&mut alone, &stamped(rows, lengths, bound, 0, None));
    let disk = Arc::new(DiskManager::builder().build().unwrap());
    let on_disk = merged(spec, rows, bound, lengths, begins, picks, Some(&disk));
    assert_same(&spec.schema, &sorted(text(&on_disk)), &sorted(text(&expected)));
    let merged = merged(spec, rows, bound, lengths, begins, picks, None);
    let merged = text(&merged);
    let mut windows: Vec<_> = merged.iter().map(|row| &row[..spec.window_columns()]).collect();
    windows.dedup();
    assert_eq!(windows.iter().collect::<BTreeSet<_>>().len(), windows.len(), "each window comes once");
    assert_same(&spec.schema, &sorted(merged), &sorted(text(&expected)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pieces_give_what_one_pipeline_gives(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
        size in proptest::option::weighted(0.7, 1i64..60), keyed: bool,
        begins in prop::collection::vec(0usize..60, 0..4), picks in prop::collection::vec(0usize..4, 1..20),
    ) {
        assert_merged(&common_group_by(size, keyed), &rows, bound, &lengths, &begins, &picks);
    }

    #[test]
    fn overlapping_windows_merge(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
        shape in overlapping_shapes(), keyed: bool, by_panes: bool,
        begins in prop::collection::vec(0usize..60, 0..4), picks in prop::collection::vec(0usize..4, 1..20),
    ) {
        assert_merged(&overlapping_group_by(&shape, keyed, by_panes), &rows, bound, &lengths, &begins, &picks);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_aggregate_merges(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
        size in proptest::option::weighted(0.7, 20i64..200), keyed: bool,
        begins in prop::collection::vec(0usize..60, 0..4), picks in prop::collection::vec(0usize..4, 1..20),
    ) {
        let aggregates = every_aggregate();
        let filters = vec![None; aggregates.len()];
        let spec = group_by(size, keyed, aggregates, filters);
        assert_merged(&spec, &rows, bound, &lengths, &begins, &picks);
    }
}

/// A piece that saves itself, and goes on from there when the run is interrupted.
struct Durable {
    index: usize,
    operator: WindowAggregate,
    batches: Vec<(RecordBatch, Stamp)>,
    /// Batches that it has read.
    read: usize,
    told: i64,
    handed_over: HandedOver,
    /// What it has given since it saved itself.
    output: Vec<RecordBatch>,
    saved: SavedDurable,
}

#[derive(Clone)]
struct SavedDurable {
    epoch: u64,
    read: usize,
    snapshot: Option<Vec<RecordBatch>>,
    piece: SavedPiece,
    output: Vec<RecordBatch>,
}

impl Durable {
    fn new(spec: &Arc<AggregateSpec>, index: usize, batches: Vec<(RecordBatch, Stamp)>) -> Self {
        let piece = SavedPiece { watermark: WATERMARK_MIN, ..SavedPiece::default() };
        let saved = SavedDurable { epoch: 0, read: 0, snapshot: None, piece, output: vec![] };
        Self {
            index,
            operator: WindowAggregate::new(Arc::clone(spec), Mode::Partial),
            batches,
            read: 0,
            told: WATERMARK_MIN,
            handed_over: HandedOver::default(),
            output: vec![],
            saved,
        }
    }

    fn has_ended(&self) -> bool {
        self.told == WATERMARK_MAX
    }

    fn step(&mut self, spec: &AggregateSpec, merger: &mut Merger, disk: Option<&Arc<DiskManager>>) {
        let mut partials = vec![];
        let told = match self.batches.get(self.read) {
            Some((batch, stamp)) => {
                self.operator.push(batch, *stamp, &mut partials).unwrap();
                stamp.next_watermark
            }
            None => {
                self.operator.finish(&mut partials).unwrap();
                WATERMARK_MAX
            }
        };
        self.read += 1;
        self.handed_over.add(spec, &partials).unwrap();
        self.handed_over.forget(merger.given());
        merger.wait(self.index, partials).unwrap();
        if let Some(disk) = disk {
            merger.spill(disk).unwrap();
            self.handed_over.spill(disk).unwrap();
        }
        let complete = merger.close(self.index, told).unwrap();
        // Whoever follows takes no windows that end before its event time.
        assert!(complete.iter().filter_map(|complete| complete.window).all(|window| window.end > self.told));
        self.told = told;
        self.output.extend(CompleteWindows::rows_of(spec, complete));
    }

    fn save(&mut self, merger: &mut Merger) {
        let (given, epochs) = merger.to_save(self.index);
        self.handed_over.forget(&given);
        let id = PartId { epoch: self.saved.epoch + 1, run: 0 };
        let mut parts = self.handed_over.save(id).unwrap();
        for part in parts.iter_mut().filter(|part| part.id != id) {
            let before = self.saved.piece.parts.iter().find(|before| before.id == part.id).unwrap();
            assert!(part.partials.is_empty() && part.rows == before.rows);
            part.partials = before.partials.clone();
        }
        let mut output = self.saved.output.clone();
        output.append(&mut self.output);
        let snapshot = (!self.has_ended()).then(|| self.operator.snapshot().unwrap());
        let piece = SavedPiece { watermark: self.told, windows: 0, given, epochs, parts };
        self.saved = SavedDurable { epoch: self.saved.epoch + 1, read: self.read, snapshot, piece, output };
        merger.saved(self.index, self.saved.epoch);
    }

    fn begin_again(&mut self, spec: &Arc<AggregateSpec>, merger: &mut Merger) {
        let SavedDurable { epoch, read, snapshot, piece, .. } = self.saved.clone();
        let fresh = Self::new(spec, self.index, std::mem::take(&mut self.batches));
        *self = Self { saved: self.saved.clone(), read, told: piece.watermark, ..fresh };
        snapshot.iter().for_each(|snapshot| self.operator.restore(snapshot).unwrap());
        self.handed_over.restore(piece.parts.clone());
        merger.restore(self.index, epoch, piece).unwrap();
    }

    /// Rows of which it is not known yet how far event time comes with them.
    fn know_nothing(&self, merger: &mut Merger) {
        assert!(merger.close(self.index, WATERMARK_MIN).unwrap().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whenever pieces save themselves and wherever the run is interrupted, each window is given once.
    #[test]
    fn interrupted_pieces_give_what_one_pipeline_gives(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..50, keyed: bool,
        size in proptest::option::weighted(0.8, 1i64..60), shape in proptest::option::of(overlapping_shapes()),
        begins in prop::collection::vec(0usize..60, 0..4), picks in prop::collection::vec((0usize..4, 0u8..9), 1..80),
    ) {
        let spec = match &shape {
            Some(shape) => overlapping_group_by(shape, keyed, true),
            None => common_group_by(size, keyed),
        };
        let mut alone = WindowAggregate::new(Arc::clone(&spec), Mode::Final);
        let expected = run(&mut alone, &stamped(&rows, &lengths, bound, 0, None));
        let (starts, batches) = divided(&rows, bound, &lengths, &begins);
        let piece = |(index, batches)| Durable::new(&spec, index, batches);
        let mut pieces: Vec<Durable> = batches.into_iter().enumerate().map(piece).collect();
        let fresh = || {
            let mut merger = Merger::new(Arc::clone(&spec), starts.clone());
            merger.remember();
            merger
        };
        let disk = Arc::new(DiskManager::builder().build().unwrap());
        let mut merger = fresh();
        for (pick, action) in picks {
            let all = pieces.len();
            let piece = &mut pieces[pick % all];
            match action {
                0 => {
                    merger = fresh();
                    pieces.iter_mut().for_each(|piece| piece.begin_again(&spec, &mut merger));
                }
                1 | 2 => piece.save(&mut merger),
                3 => piece.know_nothing(&mut merger),
                _ if !piece.has_ended() => piece.step(&spec, &mut merger, Some(&disk).filter(|_| action % 2 == 0)),
                _ => {}
            }
        }
        for piece in &mut pieces {
            while !piece.has_ended() {
                piece.step(&spec, &mut merger, None);
            }
            piece.save(&mut merger);
        }
        let output: Vec<RecordBatch> = pieces.iter().flat_map(|piece| piece.saved.output.clone()).collect();
        assert_same(&spec.schema, &sorted(text(&output)), &sorted(text(&expected)));
    }
}
