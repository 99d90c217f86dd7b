//! Top-N against a naive model: all rows of a key, sorted.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use proptest::prelude::*;

use super::{ChangelogTopN, TopNSpec, WindowTopN};
use crate::operator::changes::{ChangesSpec, Often, Ops};
use crate::operator::testing::{
    Row, Text, assert_same, assert_snapshot_law, assert_spill_law, batch, batch_lengths, column, common_group_by,
    forget_lives, forgetting, group_of, input_schema, lives, overlapping_group_by, overlapping_shapes, rows, run,
    sorted, stamped, text, windows_of, with_watermarks,
};
use crate::operator::{AggregateSpec, Operator, Stamp, WindowSpec};

/// A ranking by `value` and then by `key` of each window and, if `keyed`, key.
fn spec(at_most: usize, groups: Arc<AggregateSpec>, keyed: bool, options: SortOptions) -> Arc<TopNSpec> {
    let AggregateSpec { window, ttl, .. } = Arc::try_unwrap(groups).unwrap();
    let mut fields = input_schema().fields().to_vec();
    if let Some(WindowSpec { shape, .. }) = &window {
        let bound = |name: &str| Arc::new(Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, None), true));
        fields.push(bound("window_start"));
        fields.extend(shape.has_own_end().then(|| bound("window_end")));
    }
    fields.push(Arc::new(Field::new("rank", DataType::UInt64, false)));
    let keys = if keyed { vec![column("key")] } else { vec![] };
    let order = vec![(column("value"), options), (column("key"), SortOptions::default())];
    let schema = Arc::new(Schema::new(fields));
    Arc::new(TopNSpec::try_new(at_most, window, keys, ttl, order, &input_schema(), schema).unwrap())
}

/// The first rows of each group, with their ranks.
fn first_rows(groups: BTreeMap<Vec<String>, Vec<Row>>, at_most: usize, windows: usize, options: SortOptions) -> Text {
    let mut first = vec![];
    for (group, mut rows) in groups {
        // None is less than any value.
        let by = |row: &Row| {
            let value = row.value.map(|value| if options.descending { -value } else { value });
            (value.is_none() != options.nulls_first, value, row.key.is_some(), row.key)
        };
        rows.sort_by_key(by);
        for (rank, row) in rows.iter().take(at_most).enumerate() {
            let cells = text(&[batch(std::slice::from_ref(row))]).concat();
            first.push([cells, group[..windows].to_vec(), vec![(rank + 1).to_string()]].concat());
        }
    }
    first
}

fn options() -> impl Strategy<Value = SortOptions> {
    any::<(bool, bool)>().prop_map(|(descending, nulls_first)| SortOptions { descending, nulls_first })
}

fn forms() -> impl Strategy<Value = ChangesSpec> {
    let often = prop_oneof![
        Just(Often::EachRow),
        Just(Often::EachBatch),
        (1i64..200).prop_map(|interval| Often::Every { time: column("ts"), interval }),
    ];
    let ops = prop_oneof![Just(Ops::None), Just(Ops::Op), Just(Ops::Retractions)];
    (often, ops).prop_map(|(often, ops)| ChangesSpec { often, ops, repeats: true })
}

/// What changes amount to, whose keys are the columns `keys`, and a check that rows do what they say.
fn folded(rows: Text, ops: Ops, keys: &[usize]) -> Text {
    let mut latest = BTreeMap::<Vec<String>, Vec<String>>::new();
    for mut row in rows {
        let op = (ops != Ops::None).then(|| row.remove(0));
        let key: Vec<String> = keys.iter().map(|key| row[*key].clone()).collect();
        let known = latest.get(&key);
        match op.as_deref() {
            None => {}
            Some("+I") => assert_eq!(known, None),
            Some("+U") => assert_eq!(known.is_none(), ops == Ops::Retractions),
            Some("-U") => {
                assert!(ops == Ops::Retractions && known == Some(&row), "{row:?} replaces {known:?}");
                latest.remove(&key);
                continue;
            }
            other => panic!("{other:?}"),
        }
        latest.insert(key, row);
    }
    latest.into_values().collect()
}

/// What rows amount to that come and go.
fn there(rows: Text) -> Text {
    let mut there: Text = vec![];
    for mut row in rows {
        // Ranks are not told.
        row.pop();
        match row.remove(0).as_str() {
            "+I" => there.push(row),
            "-D" => {
                let place = there.iter().position(|other| *other == row);
                there.remove(place.unwrap_or_else(|| panic!("{row:?} goes and is not there")));
            }
            other => panic!("{other:?}"),
        }
    }
    there
}

fn by_group(rows: &[Row], bound: i64, size: Option<i64>, keyed: bool) -> (BTreeMap<Vec<String>, Vec<Row>>, u64) {
    let (mut groups, mut late) = (BTreeMap::<_, Vec<Row>>::new(), 0);
    for (row, watermark) in with_watermarks(rows, bound) {
        match group_of(&row, watermark, size, keyed) {
            Some(group) => groups.entry(group).or_default().push(row),
            None => late += 1,
        }
    }
    (groups, late)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn windows_equal_the_naive_model(
        rows in rows(120), lengths in batch_lengths(), bound in 0i64..50, size in 1i64..200,
        keyed: bool, at_most in 1usize..5, options in options(),
    ) {
        let spec = spec(at_most, common_group_by(Some(size), keyed), keyed, options);
        let mut operator = WindowTopN::new(Arc::clone(&spec));
        let output = run(&mut operator, &stamped(&rows, &lengths, bound, 0, None));
        let (groups, late) = by_group(&rows, bound, Some(size), keyed);
        assert_same(&spec.schema, &sorted(text(&output)), &sorted(first_rows(groups, at_most, 1, options)));
        prop_assert_eq!(operator.counters().late_rows, late);
        // Each window comes out as a whole, its rows in order of rank.
        let ranks: Vec<u64> = text(&output).iter().map(|row| row.last().unwrap().parse().unwrap()).collect();
        prop_assert!(ranks.windows(2).all(|pair| pair[1] == 1 || pair[1] == pair[0] + 1));
    }

    #[test]
    fn overlapping_windows_equal_the_naive_model(
        rows in rows(80), lengths in batch_lengths(), bound in 0i64..50, shape in overlapping_shapes(),
        at_most in 1usize..4, options in options(),
    ) {
        let spec = spec(at_most, overlapping_group_by(&shape, true, false), true, options);
        let mut operator = WindowTopN::new(Arc::clone(&spec));
        let output = run(&mut operator, &stamped(&rows, &lengths, bound, 0, None));
        let columns = if shape.has_own_end() { 2 } else { 1 };
        let mut groups = BTreeMap::<_, Vec<Row>>::new();
        for (row, watermark) in with_watermarks(&rows, bound) {
            let key = format!("{:?}", row.key);
            let Some(time) = row.time else {
                let group = [vec!["NULL".to_string(); columns], vec![key]].concat();
                groups.entry(group).or_default().push(row);
                continue;
            };
            for (start, end) in windows_of(&shape, time).into_iter().filter(|(_, end)| *end > watermark) {
                let window = [start.to_string(), end.to_string()][..columns].to_vec();
                groups.entry([window, vec![key.clone()]].concat()).or_default().push(row);
            }
        }
        assert_same(&spec.schema, &sorted(text(&output)), &sorted(first_rows(groups, at_most, columns, options)));
    }

    #[test]
    fn folded_changes_equal_the_naive_model(
        rows in rows(120), lengths in batch_lengths(), bound in 0i64..50, size in proptest::option::of(1i64..200),
        keyed: bool, by_rank: bool, at_most in 1usize..5, options in options(), changes in forms(),
    ) {
        let groups = common_group_by(size, keyed);
        let spec = spec(at_most, groups, keyed, options);
        let by_rank = by_rank || changes.ops == Ops::None;
        let mut operator = ChangelogTopN::new(Arc::clone(&spec), changes.clone(), by_rank);
        let output = text(&run(&mut operator, &stamped(&rows, &lengths, bound, 0, None)));
        let (groups, late) = by_group(&rows, bound, size, keyed);
        let windows = usize::from(size.is_some());
        let mut expected = first_rows(groups, at_most, windows, options);
        let found = if by_rank || at_most == 1 {
            let mut keys = vec![4 + windows];
            keys.extend((0..windows).map(|window| 4 + window));
            keys.extend(keyed.then_some(1));
            folded(output, changes.ops, &keys)
        } else {
            expected.iter_mut().for_each(|row| drop(row.pop()));
            there(output)
        };
        prop_assert_eq!(sorted(found), sorted(expected));
        prop_assert_eq!(operator.counters().late_rows, late);
        prop_assert_eq!(operator.counters().windows_open, 0);
    }

    #[test]
    fn batches_do_not_decide_what_is_told(
        rows in rows(80), lengths in batch_lengths(), by_rank: bool, at_most in 1usize..5, changes in forms(),
    ) {
        let changes = match changes.often {
            Often::EachBatch => ChangesSpec { often: Often::EachRow, ..changes },
            _ => changes,
        };
        let spec = spec(at_most, common_group_by(None, true), true, SortOptions::default());
        let told = |lengths: &[usize]| {
            let mut operator = ChangelogTopN::new(Arc::clone(&spec), changes.clone(), by_rank);
            text(&run(&mut operator, &stamped(&rows, lengths, 0, 0, None)))
        };
        prop_assert_eq!(told(&lengths), told(&[1]));
    }

    /// A key that is forgotten is another one when it comes back.
    #[test]
    fn each_life_of_a_key_is_a_key_of_its_own(
        rows in rows(80), lengths in batch_lengths(), bound in 0i64..50, ttl in 0i64..60, by_rank: bool,
        at_most in 1usize..5, options in options(), changes in forms(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let (named, over) = lives(&rows, bound, ttl);
        let timed: Vec<Row> = rows.into_iter().filter(|row| row.time.is_some()).collect();
        let forgetful = spec(at_most, forgetting(common_group_by(None, true), ttl), true, options);
        let fresh = |changes: &ChangesSpec| ChangelogTopN::new(Arc::clone(&forgetful), changes.clone(), by_rank);
        let input = stamped(&timed, &lengths, bound, 0, None);
        assert_snapshot_law(|| fresh(&changes), &input, &cuts);
        if !matches!(changes.often, Often::EachBatch) {
            let by_row = text(&run(&mut fresh(&changes), &stamped(&timed, &[1], bound, 0, None)));
            prop_assert_eq!(text(&run(&mut fresh(&changes), &input)), by_row);
        }
        let each_row = ChangesSpec { often: Often::EachRow, ..changes };
        let lasting = spec(at_most, common_group_by(None, true), true, options);
        let mut lasting = ChangelogTopN::new(lasting, each_row.clone(), by_rank);
        let expected = text(&run(&mut lasting, &stamped(&named, &[7], bound, 0, None)));
        let mut operator = fresh(&each_row);
        prop_assert_eq!(text(&run(&mut operator, &input)), forget_lives(expected));
        prop_assert_eq!(operator.counters().forgotten_keys, over);
    }

    #[test]
    fn snapshots_are_exact(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..50, size in proptest::option::of(1i64..200),
        keyed: bool, by_rank: bool, at_most in 1usize..5, changes in forms(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let input = stamped(&rows, &lengths, bound, 0, None);
        let ranking = |size| spec(at_most, common_group_by(size, keyed), keyed, SortOptions::default());
        let of_windows = ranking(Some(size.unwrap_or(30)));
        assert_snapshot_law(|| WindowTopN::new(Arc::clone(&of_windows)), &input, &cuts);
        assert_spill_law(|| WindowTopN::new(Arc::clone(&of_windows)), &input, &cuts, &cuts[..cuts.len() / 2]);
        let spec = ranking(size);
        assert_snapshot_law(|| ChangelogTopN::new(Arc::clone(&spec), changes.clone(), by_rank), &input, &cuts);
    }

    /// Rows of one window in two places, as two pipelines have them.
    #[test]
    fn merged_windows_equal_the_naive_model(
        rows in rows(60), cut: prop::sample::Index, lengths in batch_lengths(), at_most in 1usize..4, options in options(),
    ) {
        use crate::operator::{CompleteWindows, Merger, Mode, WindowAggregate};
        let spec = spec(at_most, common_group_by(Some(10_000), true), true, options);
        let mut merger = Merger::new(Arc::clone(&spec.groups), vec![i64::MIN; 2]);
        let cut = cut.index(rows.len() + 1);
        let mut output = vec![];
        for (piece, part) in [&rows[..cut], &rows[cut..]].into_iter().enumerate() {
            let mut operator = WindowAggregate::new(Arc::clone(&spec.groups), Mode::Partial);
            let input: Vec<(RecordBatch, Stamp)> =
                stamped(part, &lengths, 0, piece, None).into_iter().map(|(rows, _)| (rows, Stamp::timeless(piece))).collect();
            let partials = run(&mut operator, &input);
            merger.wait(piece, partials).unwrap();
            let lists = CompleteWindows::rows_of(&spec.groups, merger.close(piece, i64::MAX).unwrap());
            output.extend(lists.iter().map(|lists| spec.rows(lists).unwrap()));
        }
        let (groups, _) = by_group(&rows, i64::MAX / 2, Some(10_000), true);
        assert_same(&spec.schema, &sorted(text(&output)), &sorted(first_rows(groups, at_most, 1, options)));
    }
}

/// What has left is let go: state is that of the rows that are kept.
#[test]
fn memory_is_that_of_the_best_rows() {
    let row = |number: i64| Row { time: Some(number), key: Some("a"), value: Some(number), price: Some(0.5) };
    let spec = spec(3, common_group_by(None, true), true, SortOptions { descending: true, nulls_first: false });
    let changes = ChangesSpec { often: Often::EachRow, ops: Ops::None, repeats: true };
    let mut operator = ChangelogTopN::new(spec, changes, true);
    let mut output = vec![];
    let mut push = |operator: &mut ChangelogTopN, numbers: std::ops::Range<i64>| {
        let rows: Vec<Row> = numbers.map(row).collect();
        operator.push(&batch(&rows), Stamp::timeless(0), &mut output).unwrap();
        output.clear();
    };
    (0..100).for_each(|number| push(&mut operator, number * 100..number * 100 + 100));
    let early = operator.memory();
    (100..2000).for_each(|number| push(&mut operator, number * 100..number * 100 + 100));
    assert!(operator.memory() <= early + 4096, "{} bytes after {early}", operator.memory());
}
