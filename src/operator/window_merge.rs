//! Bringing together the partial states of a window that several pipelines have rows of.
//!
//! A window is complete when no piece of the data can touch it any more: each piece has ended, or its watermark (for
//! a piece that has not begun: the one it starts with) has passed the window's end. Partials are merged in the order
//! of the pieces, which is the order of the rows.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::{Result, internal_datafusion_err};

use super::WATERMARK_MAX;
use super::aggregate_spec::AggregateSpec;
use super::groups::Groups;
use super::open_windows::{OpenWindows, Window, slice_of};

/// Keeps partial states until their windows are complete.
#[derive(Debug)]
pub(crate) struct Merger {
    spec: Arc<AggregateSpec>,
    /// The watermark of each piece.
    watermarks: Vec<i64>,
    /// Partials by slice, each with its piece.
    waiting: OpenWindows<Vec<(usize, RecordBatch)>>,
    /// Whether an answer is due even if no piece had a row.
    owes_answer: bool,
}

/// A window that nobody can touch any more.
#[derive(Debug)]
pub(crate) struct CompleteWindow {
    /// None for the window of null event times, and where there is no window.
    pub(super) window: Option<Window>,
    /// Its partial states, in the order of their pieces.
    pub(super) partials: Vec<RecordBatch>,
}

impl Merger {
    /// A merger of pieces that start with these watermarks.
    pub(crate) fn new(spec: Arc<AggregateSpec>, start_watermarks: Vec<i64>) -> Self {
        let owes_answer = spec.has_one_group();
        Self { spec, watermarks: start_watermarks, waiting: OpenWindows::default(), owes_answer }
    }

    /// Takes the partial states of slices of windows that `piece` has closed, and its watermark; gives the windows that
    /// are complete now.
    ///
    /// # Errors
    /// What is no partial state.
    pub(crate) fn close(
        &mut self,
        piece: usize,
        watermark: i64,
        partials: Vec<RecordBatch>,
    ) -> Result<VecDeque<CompleteWindow>> {
        for partial in partials.into_iter().filter(|partial| partial.num_rows() > 0) {
            self.owes_answer = false;
            self.waiting.open(slice_of(&partial)?, || Ok(vec![]))?.push((piece, partial));
        }
        match self.watermarks.get_mut(piece) {
            Some(own) => *own = watermark,
            None => return Err(internal_datafusion_err!("there is no piece {piece}")),
        }
        self.complete()
    }

    fn complete(&mut self) -> Result<VecDeque<CompleteWindow>> {
        let reached = self.watermarks.iter().copied().min().unwrap_or(WATERMARK_MAX);
        let mut complete = VecDeque::new();
        if let Some(shape) = self.spec.window.as_ref().map(|window| &window.shape) {
            while let Some((window, slices)) = self.waiting.close(shape, reached) {
                let mut all = vec![];
                for (slice, partials) in slices {
                    all.extend_from_slice(&partials);
                    if let Some(next) = self.spec.next_window(slice) {
                        self.waiting.open(Some(next), || Ok(vec![]))?.extend(partials);
                    }
                }
                complete.push_back(CompleteWindow { window: Some(window), partials: in_order(all) });
            }
        }
        if reached == WATERMARK_MAX {
            let last = self.waiting.take_last();
            let owed = std::mem::take(&mut self.owes_answer).then(Vec::new);
            let last = last.or(owed).map(|partials| CompleteWindow { window: None, partials: in_order(partials) });
            complete.extend(last);
        }
        Ok(complete)
    }
}

fn in_order(mut partials: Vec<(usize, RecordBatch)>) -> Vec<RecordBatch> {
    partials.sort_by_key(|(piece, _)| *piece);
    partials.into_iter().map(|(_, partial)| partial).collect()
}

/// Merges the partial states of one window into its output. Without partials it is the answer to no rows at all.
///
/// # Errors
/// States that do not fit the aggregates.
pub(crate) fn merge_window(spec: &AggregateSpec, complete: &CompleteWindow) -> Result<RecordBatch> {
    if complete.partials.is_empty() {
        return spec.empty_answer();
    }
    let mut groups = Groups::try_new(spec)?;
    for partial in &complete.partials {
        groups.merge(spec, partial)?;
    }
    let (rows, columns) = groups.finish()?;
    spec.output(complete.window, rows, columns)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::testing::{
        Row, assert_same, batch_lengths, common_group_by, every_aggregate, group_by, highest, overlapping_group_by,
        overlapping_shapes, rows, run, sorted, stamped, text, watermark,
    };
    use super::super::{Mode, Operator, Stamp, WindowAggregate};
    use super::*;

    /// One pipeline over a contiguous piece of the rows.
    struct Piece {
        index: usize,
        operator: WindowAggregate,
        batches: VecDeque<(RecordBatch, Stamp)>,
    }

    /// What the merger gives when pieces that begin at `begins` are run in turn, the next one by `picks`.
    fn merged(
        spec: &Arc<AggregateSpec>,
        rows: &[Row],
        bound: i64,
        lengths: &[usize],
        begins: &[usize],
        picks: &[usize],
    ) -> Vec<RecordBatch> {
        let begins: BTreeSet<usize> = begins.iter().map(|begin| *begin.min(&rows.len())).chain([0]).collect();
        let ends = begins.iter().copied().skip(1).chain([rows.len()]);
        let (mut running, mut start_watermarks) = (vec![], vec![]);
        for (index, (begin, end)) in begins.iter().copied().zip(ends).enumerate() {
            let before = highest(&rows[..begin], None);
            start_watermarks.push(watermark(before, bound));
            let operator = WindowAggregate::new(Arc::clone(spec), Mode::Partial);
            running.push(Piece {
                index,
                operator,
                batches: stamped(&rows[begin..end], lengths, bound, index, before).into(),
            });
        }
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
            let complete = merger.close(piece.index, now, partials).unwrap();
            output.extend(complete.iter().map(|window| merge_window(spec, window).unwrap()));
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
        let merged = merged(spec, rows, bound, lengths, begins, picks);
        let windows: BTreeSet<_> = merged
            .iter()
            .map(|window| text(std::slice::from_ref(window))[0][..spec.window_columns()].to_vec())
            .collect();
        if spec.window.is_some() {
            assert_eq!(windows.len(), merged.len(), "each window comes once");
        }
        assert_same(&spec.schema, &sorted(text(&merged)), &sorted(text(&expected)));
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
}
