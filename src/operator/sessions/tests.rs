//! Sessions against naive models.

use std::collections::BTreeMap;

use arrow::datatypes::Schema;
use proptest::prelude::*;

use super::*;
use crate::operator::WindowShape;
use crate::operator::changes::Ops;
use crate::operator::testing::{
    Naive, Row, Text, assert_same, assert_snapshot_law, assert_spill_law, batch, batch_lengths, column, input_schema,
    or_null, rows, run, session_group_by, sorted, stamped, text, with_watermarks,
};

/// The first and last time of a session of the model; none for rows without one.
type Bounds = Option<(i64, i64)>;

/// A session of the model: its first and last time, and its rows.
type Session = (Bounds, Vec<Row>);

/// All sessions with their keys, as SQL finds them among the rows that are not late, and how many are.
fn sessions(rows: &[Row], bound: i64, gap: i64, keyed: bool) -> (Vec<(Vec<String>, Session)>, u64) {
    let is_late = |(row, watermark): &(Row, i64)| row.time.is_some_and(|time| time + gap <= *watermark);
    let (late, in_time): (Vec<_>, Vec<_>) = with_watermarks(rows, bound).into_iter().partition(is_late);
    let mut rows: Vec<Row> = in_time.into_iter().map(|(row, _)| row).collect();
    rows.sort_by_key(|row| row.time);
    let mut sessions: Vec<(Vec<String>, Session)> = vec![];
    for row in rows {
        let key: Vec<String> = keyed.then(|| or_null(row.key)).into_iter().collect();
        let own = row.time.map(|time| (time, time));
        let last = sessions.iter_mut().rfind(|(known, _)| *known == key).map(|(_, session)| session);
        match last {
            Some((None, rows)) if own.is_none() => rows.push(row),
            Some((Some((_, last)), rows)) if row.time.is_some_and(|time| time - *last < gap) => {
                *last = row.time.unwrap();
                rows.push(row);
            }
            _ => sessions.push((key, (own, vec![row]))),
        }
    }
    (sessions, late.len() as u64)
}

/// The rows of a GROUP BY of all sessions, and how many rows are late.
fn model(rows: &[Row], bound: i64, gap: i64, keyed: bool) -> (Text, u64) {
    let (closed, late_rows) = sessions(rows, bound, gap, keyed);
    let cells = |(key, (bounds, rows)): (Vec<String>, Session)| {
        let mut naive = Naive::default();
        rows.into_iter().for_each(|row| naive.take(row));
        let (start, end) = (bounds.map(|(start, _)| start), bounds.map(|(_, last)| last + gap));
        [vec![or_null(start), or_null(end)], key, naive.cells()].concat()
    };
    (closed.into_iter().map(cells).collect(), late_rows)
}

/// The rows of all sessions with their bounds.
fn rows_of_sessions(rows: &[Row], bound: i64, gap: i64, keyed: bool) -> Text {
    let (closed, _) = sessions(rows, bound, gap, keyed);
    let with_bounds = |(_, (bounds, rows)): (Vec<String>, Session)| {
        let (start, end) = (bounds.map(|(start, _)| start), bounds.map(|(_, last)| last + gap));
        let mut rows = text(&[batch(&rows)]);
        rows.iter_mut().for_each(|row| row.extend([or_null(start), or_null(end)]));
        rows
    };
    closed.into_iter().flat_map(with_bounds).collect()
}

fn session_rows(gap: i64, keyed: bool) -> Arc<SessionRowsSpec> {
    let input = input_schema();
    let bounds = ["start", "end"].map(|name| Arc::new(input.field(0).clone().with_name(name)));
    let schema = Schema::new(input.fields().iter().cloned().chain(bounds).collect::<Vec<_>>());
    let keys = keyed.then(|| column("key")).into_iter().collect();
    let shape = WindowShape::Session { gap, wait: gap };
    Arc::new(SessionRowsSpec::try_new(column("ts"), shape, keys, &input, Arc::new(schema)).unwrap())
}

/// What is left of changes, and a check that rows do what they say.
fn folded(rows: Text, ops: Ops, keyed: bool) -> Text {
    let mut latest: Text = vec![];
    for mut row in rows {
        let op = row.remove(0);
        let is = |other: &Vec<String>| other[..2] == row[..2] && (!keyed || other[2] == row[2]);
        let known = latest.iter().position(is);
        match op.as_str() {
            "+I" => assert_eq!(known, None),
            "+U" => {
                assert_eq!(known.is_none(), ops == Ops::Retractions);
                known.map(|known| latest.remove(known));
            }
            op => {
                assert!(op == "-D" || ops == Ops::Retractions);
                assert_eq!(latest.remove(known.unwrap()), row);
                continue;
            }
        }
        latest.push(row);
    }
    latest
}

/// How often sessions are told of: when the watermark passes their end, and for each row that comes later.
fn times_told(rows: &[Row], bound: i64, lateness: i64, gap: i64, keyed: bool) -> usize {
    let (mut open, mut told) = (BTreeMap::<Option<String>, Vec<(Bounds, bool)>>::new(), 0);
    let ends = |bounds: Bounds, watermark: i64| bounds.is_some_and(|(_, last)| last + gap <= watermark);
    for (row, watermark) in with_watermarks(rows, bound) {
        for sessions in open.values_mut() {
            for (bounds, is_told) in sessions.iter_mut() {
                told += usize::from(ends(*bounds, watermark) && !std::mem::replace(is_told, ends(*bounds, watermark)));
            }
            // What has ended waits for rows that join it.
            sessions.retain(|(bounds, _)| !ends(*bounds, watermark.saturating_sub(lateness + gap)));
        }
        if row.time.is_some_and(|time| time + gap <= watermark.saturating_sub(lateness)) {
            continue;
        }
        let sessions = open.entry(keyed.then(|| or_null(row.key))).or_default();
        let is_near = |(bounds, _): &mut (Bounds, bool)| match (*bounds, row.time) {
            (Some((start, last)), Some(time)) => time - last < gap && start - time < gap,
            (None, None) => true,
            _ => false,
        };
        let near = sessions.extract_if(.., is_near).map(|(bounds, _)| bounds);
        let own = row.time.map(|time| (time, time));
        let bounds = near.fold(own, |all, one| all.zip(one).map(|(a, b)| (a.0.min(b.0), a.1.max(b.1))));
        let is_told = ends(bounds, watermark);
        told += usize::from(is_told);
        sessions.push((bounds, is_told));
    }
    told + open.values().flatten().filter(|(_, is_told)| !is_told).count()
}

/// Points to spill or save at.
fn points(most: usize) -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..most)
}

fn often() -> impl Strategy<Value = Often> {
    prop_oneof![
        Just(Often::EachRow),
        Just(Often::EachBatch),
        (1i64..200).prop_map(|interval| Often::Every { time: column("ts"), interval }),
        Just(Often::AtClose { lateness: 0 }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn equals_the_naive_model(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..90, gap in 1i64..60, keyed: bool,
    ) {
        let spec = session_group_by(gap, keyed);
        let mut operator = SessionAggregate::try_new(Arc::clone(&spec), None).unwrap();
        let output = run(&mut operator, &stamped(&rows, &lengths, bound, 0, None));
        let (expected, late_rows) = model(&rows, bound, gap, keyed);
        assert_same(&spec.schema, &sorted(text(&output)), &sorted(expected));
        prop_assert_eq!(operator.counters().late_rows, late_rows);
        prop_assert_eq!(operator.counters().windows_open, 0);
    }

    #[test]
    fn rows_have_the_bounds_of_their_sessions(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..90, gap in 1i64..60, keyed: bool,
    ) {
        let spec = session_rows(gap, keyed);
        let mut operator = SessionRows::new(Arc::clone(&spec));
        let output = run(&mut operator, &stamped(&rows, &lengths, bound, 0, None));
        assert_same(&spec.schema, &sorted(text(&output)), &sorted(rows_of_sessions(&rows, bound, gap, keyed)));
        prop_assert_eq!(operator.counters().late_rows, sessions(&rows, bound, gap, keyed).1);
        prop_assert_eq!(operator.counters().windows_open, 0);
    }

    #[test]
    fn snapshots_of_rows_change_nothing(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..90, gap in 1i64..60, keyed: bool,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let spec = session_rows(gap, keyed);
        assert_snapshot_law(|| SessionRows::new(Arc::clone(&spec)), &stamped(&rows, &lengths, bound, 0, None), &cuts);
    }

    #[test]
    fn sessions_that_have_gone_to_disk_come_back(
        rows in rows(80), lengths in batch_lengths(), bound in 0i64..90, gap in 1i64..60,
        spills in points(12), saves in points(3),
    ) {
        let (spec, input) = (session_group_by(gap, true), stamped(&rows, &lengths, bound, 0, None));
        let fresh = || SessionAggregate::try_new(Arc::clone(&spec), None).unwrap();
        let spilled = assert_spill_law(fresh, &input, &spills, &saves);
        let rows = session_rows(gap, true);
        let of_rows = assert_spill_law(|| SessionRows::new(Arc::clone(&rows)), &input, &spills, &saves);
        prop_assert_eq!(spilled > 0, of_rows > 0);
    }

    #[test]
    fn changes_fold_to_the_final_answer(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..90, gap in 1i64..60, keyed: bool,
        often in often(), ops in prop_oneof![Just(Ops::Op), Just(Ops::Retractions)],
    ) {
        let spec = session_group_by(gap, keyed);
        let changes = ChangesSpec { often, ops, repeats: true };
        let mut operator = SessionAggregate::try_new(Arc::clone(&spec), Some(changes)).unwrap();
        let output = run(&mut operator, &stamped(&rows, &lengths, bound, 0, None));
        let (expected, _) = model(&rows, bound, gap, keyed);
        assert_same(&spec.schema, &sorted(folded(text(&output), ops, keyed)), &sorted(expected));
    }

    #[test]
    fn allowed_lateness_corrects_what_was_told(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..50, lateness in 0i64..60, gap in 1i64..60,
        keyed: bool, ops in prop_oneof![Just(Ops::Op), Just(Ops::Retractions)],
    ) {
        let spec = session_group_by(gap, keyed);
        let changes = ChangesSpec { often: Often::AtClose { lateness }, ops, repeats: true };
        let mut operator = SessionAggregate::try_new(Arc::clone(&spec), Some(changes)).unwrap();
        let got = text(&run(&mut operator, &stamped(&rows, &lengths, bound, 0, None)));
        // In the end, rows are late as if the bound were so much wider.
        let (expected, late_rows) = model(&rows, bound + lateness, gap, keyed);
        prop_assert_eq!(operator.counters().late_rows, late_rows);
        let told = got.iter().filter(|row| row[0] == "+I" || row[0] == "+U").count();
        prop_assert_eq!(told, times_told(&rows, bound, lateness, gap, keyed));
        assert_same(&spec.schema, &sorted(folded(got, ops, keyed)), &sorted(expected));
    }

    #[test]
    fn snapshots_change_nothing(
        rows in rows(60), lengths in batch_lengths(), bound in 0i64..90, gap in 1i64..60, keyed: bool,
        ops in prop::option::of(prop_oneof![Just(Ops::None), Just(Ops::Op), Just(Ops::Retractions)]),
        often in prop_oneof![often(), (0i64..90).prop_map(|lateness| Often::AtClose { lateness })],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let spec = session_group_by(gap, keyed);
        let changes = ops.map(|ops| ChangesSpec { often: often.clone(), ops, repeats: true });
        let fresh = || SessionAggregate::try_new(Arc::clone(&spec), changes.clone()).unwrap();
        assert_snapshot_law(fresh, &stamped(&rows, &lengths, bound, 0, None), &cuts);
    }
}
