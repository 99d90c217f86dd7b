use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use proptest::prelude::*;

use crate::operator::WindowShape;
use crate::operator::open_windows::apart;
use crate::operator::testing::{
    Naive, Row, assert_same, assert_snapshot_law, assert_snapshot_law_of, batch, batch_lengths, common_group_by,
    computed_freshly, every_aggregate, group_by, group_of, input_schema, or_null, overlapping_group_by,
    overlapping_shapes, rows, run, sorted, stamped, text, through_ipc, together, windows_of, with_watermarks,
};
use crate::operator::window_merge::CompleteWindows;

use super::*;

/// The groups of rows, and how many rows are late.
fn model(rows: &[Row], bound: i64, size: Option<i64>, keyed: bool) -> (BTreeMap<Vec<String>, Naive>, u64) {
    let (mut groups, mut late_rows) = (BTreeMap::<_, Naive>::new(), 0);
    if size.is_none() && !keyed {
        groups.entry(vec![]).or_default();
    }
    for (row, watermark) in with_watermarks(rows, bound) {
        match group_of(&row, watermark, size, keyed) {
            Some(group) => groups.entry(group).or_default().take(row),
            None => late_rows += 1,
        }
    }
    (groups, late_rows)
}

/// The batches of two partitions that one pipeline reads.
fn of_partitions(rows: [&[Row]; 2], lengths: &[usize], bound: i64, picks: &[usize]) -> Vec<(RecordBatch, Stamp)> {
    together(rows.map(|rows| stamped(rows, lengths, bound, 0, None)).to_vec(), picks)
}

/// Output as rows of windows, in any order; partial states are brought together by slice first.
fn folded(spec: &Arc<AggregateSpec>, mode: Mode, output: &[RecordBatch]) -> Vec<Vec<String>> {
    if mode == Mode::Final {
        return sorted(text(output));
    }
    let mut slices = BTreeMap::<_, Vec<StateRows>>::new();
    for states in apart(output).unwrap() {
        let (slice, states) = without_slice(&states).unwrap();
        slices.entry(slice).or_default().push(StateRows::all(states));
    }
    let windows = slices.into_iter().map(|(slice, partials)| {
        let window = slice.map(|slice| Window { start: slice.pane, end: slice.next_end });
        (window, partials)
    });
    sorted(text(&CompleteWindows::rows_of_states(spec, windows)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_the_naive_model(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
        size in proptest::option::weighted(0.7, 1i64..60), keyed: bool,
    ) {
        let spec = common_group_by(size, keyed);
        let mut operator = WindowAggregate::new(Arc::clone(&spec), Mode::Final);
        let output = run(&mut operator, &stamped(&rows, &lengths, bound, 0, None));
        let (groups, late_rows) = model(&rows, bound, size, keyed);
        let expected = groups.into_iter().map(|(group, naive)| [group, naive.cells()].concat()).collect();
        assert_same(&spec.schema, &sorted(text(&output)), &sorted(expected));
        prop_assert_eq!(operator.counters().late_rows, late_rows);
        prop_assert_eq!(operator.counters().windows_open, 0);
    }

    #[test]
    fn overlapping_windows_equal_the_naive_model(
        rows in rows(60), others in prop_oneof![Just(vec![]), rows(60)], picks in prop::collection::vec(0usize..2, 1..9),
        lengths in batch_lengths(), bound in 0i64..50, shape in overlapping_shapes(), keyed: bool, by_panes: bool,
    ) {
        let spec = overlapping_group_by(&shape, keyed, by_panes);
        let mut operator = WindowAggregate::new(Arc::clone(&spec), Mode::Final);
        let output = run(&mut operator, &of_partitions([&rows, &others], &lengths, bound, &picks));
        let (mut groups, mut counters) = (BTreeMap::<_, Naive>::new(), Counters::default());
        for (row, watermark) in [&rows, &others].into_iter().flat_map(|rows| with_watermarks(rows, bound)) {
            let windows = row.time.map_or(vec![], |time| windows_of(&shape, time));
            let open = windows.iter().filter(|(_, end)| *end > watermark);
            let columns = if shape.has_own_end() { 2 } else { 1 };
            let open: Vec<Vec<String>> =
                open.map(|(start, end)| [start, end][..columns].iter().map(ToString::to_string).collect()).collect();
            match row.time {
                None => counters.null_time_rows += 1,
                Some(_) if windows.is_empty() => counters.between_rows += 1,
                Some(_) if open.is_empty() => counters.late_rows += 1,
                Some(_) => counters.late_partial_rows += u64::from(open.len() < windows.len()),
            }
            counters.used_rows += u64::from(row.time.is_none() || !open.is_empty());
            let nowhere = row.time.is_none().then(|| vec!["NULL".to_string(); columns]);
            for mut group in open.into_iter().chain(nowhere) {
                group.extend(keyed.then(|| or_null(row.key)));
                groups.entry(group).or_default().take(row);
            }
        }
        let expected = groups.into_iter().map(|(group, naive)| [group, naive.cells()].concat()).collect();
        assert_same(&spec.schema, &sorted(text(&output)), &sorted(expected));
        prop_assert_eq!(operator.counters(), Counters { windows_closed: operator.counters().windows_closed, ..counters });
    }

    #[test]
    fn overlapping_windows_survive_snapshots(
        rows in rows(40), others in prop_oneof![Just(vec![]), rows(40)], picks in prop::collection::vec(0usize..2, 1..9),
        lengths in batch_lengths(), bound in 0i64..50, shape in overlapping_shapes(), by_panes: bool,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let spec = overlapping_group_by(&shape, true, by_panes);
        let fresh = || WindowAggregate::new(Arc::clone(&spec), Mode::Final);
        assert_snapshot_law(fresh, &of_partitions([&rows, &others], &lengths, bound, &picks), &cuts);
    }

    #[test]
    fn what_has_gone_to_disk_comes_back(
        rows in rows(60), others in prop_oneof![Just(vec![]), rows(60)], picks in prop::collection::vec(0usize..2, 1..9), lengths in batch_lengths(), bound in 0i64..50,
        shape in proptest::option::weighted(0.8, overlapping_shapes()), by_panes: bool, partial: bool,
        size in proptest::option::weighted(0.7, 1i64..60),
        spills in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        saves in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let spec = match &shape {
            Some(shape) => overlapping_group_by(shape, true, by_panes),
            None => common_group_by(size, true),
        };
        let mode = if partial { Mode::Partial } else { Mode::Final };
        let input = of_partitions([&rows, &others], &lengths, bound, &picks);
        let fresh = || WindowAggregate::new(Arc::clone(&spec), mode);
        let mut whole = fresh();
        let expected = folded(&spec, mode, &run(&mut whole, &input));
        let at = |points: &[prop::sample::Index]| -> Vec<usize> {
            points.iter().map(|point| point.index(input.len() + 1)).collect()
        };
        let (spills, saves) = (at(&spills), at(&saves));
        let disk = Arc::new(DiskManager::builder().build().unwrap());
        let (mut operator, mut output) = (fresh(), vec![]);
        // What is still to come goes to disk while a window is given, too.
        let drain = |operator: &mut WindowAggregate, output: &mut Vec<RecordBatch>| {
            while operator.more(output).unwrap() {
                if spills.len() % 2 == 0 {
                    operator.spill(&disk).unwrap();
                }
            }
        };
        for index in 0..=input.len() {
            if spills.contains(&index) {
                let held = operator.state.windows.entries().any(|(_, pane)| pane.held() > 0);
                prop_assert_eq!(operator.spill(&disk).unwrap() > 0, held);
                while operator.spill(&disk).unwrap() > 0 {}
                prop_assert!(operator.state.windows.entries().all(|(_, pane)| pane.held() == 0));
            }
            if saves.contains(&index) {
                let snapshot: Vec<_> = operator.snapshot().unwrap().iter().map(through_ipc).collect();
                if index % 2 == 0 {
                    operator = fresh();
                    operator.restore(&snapshot).unwrap();
                }
            }
            if let Some((batch, stamp)) = input.get(index) {
                operator.push(batch, *stamp, &mut output).unwrap();
                drain(&mut operator, &mut output);
            }
        }
        operator.finish(&mut output).unwrap();
        drain(&mut operator, &mut output);
        assert_same(&spec.schema, &folded(&spec, mode, &output), &expected);
        prop_assert_eq!(operator.counters(), whole.counters());
    }

    #[test]
    fn windows_come_once_in_order_as_soon_as_they_close(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..50, size in 1i64..60,
    ) {
        let mut operator = WindowAggregate::new(common_group_by(Some(size), true), Mode::Final);
        let (mut starts, mut output) = (vec![], vec![]);
        let starts_of = |batch: &RecordBatch| {
            let rows = text(std::slice::from_ref(batch));
            let mut starts: Vec<_> = rows.iter().map(|row| row[0].parse::<i64>().ok()).collect();
            starts.dedup();
            starts
        };
        for (batch, stamp) in stamped(&rows, &lengths, bound, 0, None) {
            operator.push(&batch, stamp, &mut output).unwrap();
            prop_assert!(operator.state.windows.slices().all(|slice| slice.next_end > stamp.next_watermark));
            for batch in output.drain(..) {
                let closed = starts_of(&batch);
                prop_assert!(closed.iter().all(|start| start.is_some_and(|start| start + size <= stamp.next_watermark)));
                starts.extend(closed);
            }
        }
        operator.finish(&mut output).unwrap();
        starts.extend(output.iter().flat_map(starts_of));
        let nulls = starts.iter().filter(|start| start.is_none()).count();
        let times: Vec<_> = starts.iter().flatten().collect();
        prop_assert!(times.is_sorted_by(|a, b| a < b));
        prop_assert_eq!(nulls, usize::from(rows.iter().any(|row| row.time.is_none())));
        prop_assert!(nulls == 0 || starts.last() == Some(&None));
    }

    #[test]
    fn snapshots_change_nothing(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
        size in proptest::option::weighted(0.7, 1i64..60), keyed: bool, partial: bool,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let spec = common_group_by(size, keyed);
        let mode = if partial { Mode::Partial } else { Mode::Final };
        let fresh = || WindowAggregate::new(Arc::clone(&spec), mode);
        let input = stamped(&rows, &lengths, bound, 0, None);
        assert_snapshot_law_of(fresh, &input, &cuts, |output| folded(&spec, mode, output));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn snapshots_change_nothing_for_any_aggregate(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
        size in proptest::option::weighted(0.7, 20i64..200), keyed: bool,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..3),
    ) {
        let aggregates = every_aggregate();
        let filters = vec![None; aggregates.len()];
        let spec = group_by(size, keyed, aggregates, filters);
        let fresh = || WindowAggregate::new(Arc::clone(&spec), Mode::Final);
        assert_snapshot_law(fresh, &stamped(&rows, &lengths, bound, 0, None), &cuts);
    }
}

#[test]
fn keys_whose_windows_have_closed_are_forgotten() {
    let shape = WindowShape::Hop { slide: 10, size: 30, offset: 0 };
    let spec = overlapping_group_by(&shape, true, true);
    let mut operator = WindowAggregate::new(spec, Mode::Final);
    let (mut output, mut most) = (vec![], 0);
    for step in 0..40i64 {
        let rows = 500;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::from(vec![step * 10; rows])),
            Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("{step} {row}")))),
            Arc::new(Int64Array::from(vec![1; rows])),
            Arc::new(Float64Array::from(vec![1.0; rows])),
        ];
        let batch = RecordBatch::try_new(input_schema(), columns).unwrap();
        let stamp = Stamp { partition: 0, watermark: step * 10, next_watermark: step * 10 };
        operator.push(&batch, stamp, &mut output).unwrap();
        most = most.max(operator.state.keys.as_ref().unwrap().len());
    }
    operator.finish(&mut output).unwrap();
    assert!(most < 8000, "{most} keys");
    let told: usize = output.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(told, 40 * 500 * 3);
}

/// Without keys and window there is always one row, and what it holds does not depend on how it came about.
#[test]
fn no_rows_and_null_rows_make_one_row() {
    let null = Row { time: Some(0), key: None, value: None, price: None };
    let aggregates = every_aggregate();
    let filters = vec![None; aggregates.len()];
    let spec = group_by(None, false, aggregates, filters);
    for rows in [vec![], vec![null, null]] {
        let input = stamped(&rows, &[1], 0, 0, None);
        let arguments = spec.evaluate(&batch(&rows)).unwrap().arguments;
        let freshly = spec.aggregates.iter().zip(&arguments).map(|(aggregate, own)| computed_freshly(aggregate, own));
        let expected = vec![freshly.collect()];
        let mut operator = WindowAggregate::new(Arc::clone(&spec), Mode::Final);
        operator.snapshot().unwrap();
        assert_same(&spec.schema, &text(&run(&mut operator, &input)), &expected);
        let mut operator = WindowAggregate::new(Arc::clone(&spec), Mode::Final);
        assert_same(&spec.schema, &text(&run(&mut operator, &input)), &expected);
        let mut operator = WindowAggregate::new(Arc::clone(&spec), Mode::Partial);
        let states = run(&mut operator, &input).into_iter();
        let partials = states.map(|state| StateRows::all(without_slice(&state).unwrap().1)).collect();
        let merged = CompleteWindows::rows_of_states(&spec, [(None, partials)]);
        assert_same(&spec.schema, &text(&merged), &expected);
    }
}
