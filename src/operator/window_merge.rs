//! Bringing together the partial states of a window that several pipelines have rows of.
//!
//! A window is complete when no piece of the data can touch it any more: each piece has ended, or its watermark (for
//! a piece that has not begun: the one it starts with) has passed the window's end. Partials are merged in the order
//! of the pieces, which is the order of the rows.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::common::{Result, internal_datafusion_err};

use super::WATERMARK_MAX;
use super::aggregate_spec::AggregateSpec;
use super::groups::Groups;

/// Keeps partial states until their windows are complete.
#[derive(Debug)]
pub(crate) struct Merger {
    /// Length of the windows; none without a window.
    size: Option<i64>,
    /// The watermark of each piece.
    watermarks: Vec<i64>,
    /// Partials by window; `None` is the window of null event times, or the only one. It sorts first and ends last.
    waiting: BTreeMap<Option<i64>, Vec<(usize, RecordBatch)>>,
    /// Whether an answer is due even if no piece had a row.
    owes_answer: bool,
}

impl Merger {
    /// A merger of pieces that start with these watermarks.
    pub(crate) fn new(spec: &AggregateSpec, start_watermarks: Vec<i64>) -> Self {
        let size = spec.window.as_ref().map(|window| window.size);
        let owes_answer = spec.always_answers();
        Self { size, watermarks: start_watermarks, waiting: BTreeMap::new(), owes_answer }
    }

    /// Takes the partial states of windows that `piece` has closed, and its watermark; gives the windows that are
    /// complete now, each as its partials in order.
    ///
    /// # Errors
    /// What is no partial state.
    pub(crate) fn close(
        &mut self,
        piece: usize,
        watermark: i64,
        partials: Vec<RecordBatch>,
    ) -> Result<Vec<Vec<RecordBatch>>> {
        for partial in partials.into_iter().filter(|partial| partial.num_rows() > 0) {
            let starts = partial.column(0).as_primitive_opt::<Int64Type>();
            let starts = starts.ok_or_else(|| internal_datafusion_err!("a partial state begins with its window"))?;
            let start = starts.is_valid(0).then(|| starts.value(0));
            self.owes_answer = false;
            self.waiting.entry(start).or_default().push((piece, partial));
        }
        match self.watermarks.get_mut(piece) {
            Some(own) => *own = watermark,
            None => return Err(internal_datafusion_err!("there is no piece {piece}")),
        }
        let reached = self.watermarks.iter().copied().min().unwrap_or(WATERMARK_MAX);
        if reached == WATERMARK_MAX && std::mem::take(&mut self.owes_answer) {
            return Ok(vec![vec![]]);
        }
        let complete: Vec<Option<i64>> =
            self.waiting.keys().copied().filter(|start| self.is_complete(*start, reached)).collect();
        Ok(complete.into_iter().filter_map(|start| self.waiting.remove(&start)).map(in_order).collect())
    }

    fn is_complete(&self, start: Option<i64>, reached: i64) -> bool {
        match (start, self.size) {
            (Some(start), Some(size)) => start.saturating_add(size) <= reached,
            _ => reached == WATERMARK_MAX,
        }
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
pub(crate) fn merge_window(spec: &AggregateSpec, partials: &[RecordBatch]) -> Result<RecordBatch> {
    let Some(first) = partials.first() else { return spec.empty_answer() };
    let starts = first.column(0).as_primitive::<Int64Type>();
    let start = starts.is_valid(0).then(|| starts.value(0));
    let mut groups = Groups::try_new(spec)?;
    for partial in partials {
        groups.merge(spec, partial)?;
    }
    let (rows, columns) = groups.finish()?;
    spec.output(start, rows, columns)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::testing::{
        Row, assert_same, batch_lengths, common_group_by, every_aggregate, group_by, highest, rows, run, sorted,
        stamped, text, watermark,
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
        let mut merger = Merger::new(spec, start_watermarks);
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
        assert!(merger.waiting.is_empty());
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
        let windows: BTreeSet<_> =
            merged.iter().map(|window| text(std::slice::from_ref(window))[0][0].clone()).collect();
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
