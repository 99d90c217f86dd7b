//! GROUP BY with EMIT CHANGES: the new values of a row's group, for each row, or the last ones of each batch or
//! interval of event time; and with ALLOWED LATENESS, the values of a window that ends, and again for each later row.
//!
//! For each row, a batch is one pass for each aggregate, which updates the groups and writes the output column at once.
//! A window that closes first tells what it still has to tell.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_datafusion_err};

use super::aggregate_spec::{AggregateSpec, Evaluated};
use super::changes::{ChangesSpec, Often, Op, highest_batch, highest_of};
use super::codes::DecodedDictionary;
use super::open_windows::{OpenWindows, Slice, Window, slice_of};
use super::running_groups::{ChangedRows, RunningGroups};
use super::snapshot::{counters_batch, split_counters};
use super::{Counters, MissedRows, Operator, Stamp, WATERMARK_MAX, WATERMARK_MIN};

/// Gives the running values of each group.
pub(crate) struct ChangelogAggregate {
    spec: Arc<AggregateSpec>,
    changes: ChangesSpec,
    schema: SchemaRef,
    keys: DecodedDictionary,
    state: State,
    missed: MissedRows,
}

/// All that changes while rows pass.
#[derive(Default)]
struct State {
    windows: OpenWindows<RunningGroups>,
    /// The highest event time so far, where changes are told by it; or the watermark so far, where windows tell when
    /// they end.
    highest: Option<i64>,
    counters: Counters,
}

impl ChangelogAggregate {
    pub(crate) fn new(spec: Arc<AggregateSpec>, changes: ChangesSpec) -> Self {
        let schema = changes.schema(&spec.schema);
        Self {
            spec,
            changes,
            schema,
            keys: DecodedDictionary::default(),
            state: State::default(),
            missed: MissedRows::default(),
        }
    }

    fn is_deferred(&self) -> bool {
        !matches!(self.changes.often, Often::EachRow)
    }

    /// The watermark that ends all corrections.
    fn later(&self, watermark: i64) -> i64 {
        match self.changes.often {
            Often::AtClose { lateness } if watermark != WATERMARK_MAX => watermark.saturating_sub(lateness),
            _ => watermark,
        }
    }

    /// Whether a window tells later what rows change.
    fn defers(&self, slice: Option<Slice>) -> bool {
        match (&self.changes.often, slice) {
            (Often::EachRow, _) => false,
            (Often::AtClose { .. }, Some(slice)) => self.state.highest.is_none_or(|reached| slice.next_end > reached),
            _ => true,
        }
    }

    fn take(&mut self, batch: &RecordBatch, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        let rows = spec.evaluate_at(batch, watermark)?;
        let Some(window) = &spec.window else {
            self.state.counters.used_rows += rows.rows as u64;
            return self.change(None, rows, output);
        };
        let watermark = self.later(watermark);
        let divided = rows.by_window(window, watermark, &mut self.missed);
        self.state.counters.add(&divided.counters);
        for part in divided.apart()? {
            self.change(part.slice, part.rows, output)?;
        }
        Ok(())
    }

    /// The changes that rows make to one window.
    fn change(&mut self, slice: Option<Slice>, rows: Evaluated, output: &mut Vec<RecordBatch>) -> Result<()> {
        let (is_deferred, ops) = (self.is_deferred(), self.changes.ops);
        let fresh = || RunningGroups::try_new(&self.spec, is_deferred, &self.changes);
        let defers = self.defers(slice);
        let groups = self.state.windows.open(slice, fresh)?;
        if defers {
            return groups.defer(&rows);
        }
        let count = rows.rows;
        if let Some(changed) = groups.changes(rows, ops)? {
            output.push(self.output(slice, count, changed)?);
        }
        Ok(())
    }

    fn output(&mut self, slice: Option<Slice>, rows: usize, changed: ChangedRows) -> Result<RecordBatch> {
        let mut changed = changed;
        if let ([key], Some(column)) = (self.spec.key_fields().as_slice(), changed.columns.first_mut()) {
            *column = self.keys.decode(Arc::clone(column), key.data_type())?;
        }
        let window = slice.map(|slice| Window { start: slice.pane, end: slice.next_end });
        let rows = if changed.ops.is_empty() { rows } else { changed.ops.len() };
        self.changes.output(&self.schema, &changed.ops, self.spec.output(window, rows, changed.columns)?)
    }

    /// Tells all changes of windows that end at or before `until`, and with the last watermark all.
    fn flush(&mut self, until: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        let is_due = |slice: Option<Slice>| slice.map_or(until == WATERMARK_MAX, |slice| slice.next_end <= until);
        let mut told = vec![];
        for (slice, groups) in self.state.windows.entries().take_while(|(slice, _)| is_due(*slice)) {
            told.extend(groups.flush()?.map(|changed| (slice, changed)));
        }
        for (slice, changed) in told {
            output.push(self.output(slice, 0, changed)?);
        }
        Ok(())
    }

    /// Forgets keys that no row has come for long enough, once they may be many: rows of theirs would begin them anew.
    fn forget(&mut self, watermark: i64) -> Result<()> {
        let Some(mut groups) = self.state.windows.take_last() else { return Ok(()) };
        if groups.are_many() {
            let state = groups.state(None, watermark)?;
            self.state.counters.forgotten_keys += groups.take_forgotten();
            groups = RunningGroups::try_new(&self.spec, self.is_deferred(), &self.changes)?;
            groups.restore(&self.spec, &state)?;
        }
        self.state.counters.forgotten_keys += groups.take_forgotten();
        self.state.windows.open(None, || Ok(groups)).map(|_| ())
    }

    /// Forgets the windows that end at or before the watermark: no row can change them any more.
    fn close(&mut self, watermark: i64, output: &mut Vec<RecordBatch>) -> Result<()> {
        for (slice, mut groups) in self.state.windows.due(watermark) {
            self.state.counters.windows_closed += 1;
            if let Some(changed) = groups.flush()? {
                output.push(self.output(Some(slice), 0, changed)?);
            }
        }
        Ok(())
    }
}

impl Operator for ChangelogAggregate {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn push(&mut self, batch: &RecordBatch, stamp: Stamp, output: &mut Vec<RecordBatch>) -> Result<()> {
        if batch.num_rows() > 0 {
            for (run, rows) in self.changes.runs(batch, &mut self.state.highest)?.into_iter().enumerate() {
                if run > 0 {
                    self.flush(WATERMARK_MAX, output)?;
                }
                self.missed.begin_at(rows.start);
                self.take(&batch.slice(rows.start, rows.len()), stamp.watermark, output)?;
            }
        }
        match self.changes.often {
            Often::EachBatch => self.flush(WATERMARK_MAX, output)?,
            Often::AtClose { .. } => {
                self.state.highest = self.state.highest.max(Some(stamp.next_watermark));
                self.flush(stamp.next_watermark, output)?;
            }
            _ => {}
        }
        if self.spec.ttl.is_some() {
            self.forget(stamp.next_watermark)?;
        }
        self.close(self.later(stamp.next_watermark), output)
    }

    fn finish(&mut self, output: &mut Vec<RecordBatch>) -> Result<()> {
        if self.spec.owes_answer() && !self.state.windows.has_last() {
            let answer = self.spec.empty_answer()?;
            let ops = vec![Op::Insert; answer.num_rows()];
            output.push(self.changes.output(&self.schema, &ops, answer)?);
        }
        self.flush(WATERMARK_MAX, output)?;
        if let Some(mut groups) = self.state.windows.take_last() {
            groups.end();
            self.state.counters.forgotten_keys += groups.take_forgotten();
        }
        self.state.counters.windows_closed += self.state.windows.count();
        self.state.windows = OpenWindows::default();
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let mut snapshot = vec![counters_batch(&self.state.counters)?, highest_batch(self.state.highest)?];
        for (slice, mut groups) in self.state.windows.take() {
            snapshot.push(groups.state(slice, WATERMARK_MIN)?);
        }
        // Taking the states out has emptied the groups.
        self.restore(&snapshot)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &[RecordBatch]) -> Result<()> {
        let (counters, rest) = split_counters(snapshot)?;
        let (highest, windows) =
            rest.split_first().ok_or_else(|| internal_datafusion_err!("a changelog's snapshot is too short"))?;
        self.state = State { counters, highest: highest_of(highest), ..State::default() };
        let is_deferred = self.is_deferred();
        for window in windows {
            let fresh = || RunningGroups::try_new(&self.spec, is_deferred, &self.changes);
            self.state.windows.open(slice_of(window)?, fresh)?.restore(&self.spec, window)?;
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        self.state.windows.groups().map(|groups| groups.size).sum()
    }

    fn counters(&self) -> Counters {
        Counters { windows_open: self.state.windows.count(), ..self.state.counters }
    }

    fn missed(&mut self) -> &mut MissedRows {
        &mut self.missed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{Array, UInt32Array};
    use arrow::compute::take_arrays;
    use proptest::prelude::*;

    use super::super::changes::Ops;
    use super::super::testing::{
        Naive, Row, Text, assert_same, assert_snapshot_law, batch, batch_lengths, column, common_group_by,
        computed_freshly, every_aggregate, forget_lives, forgetting, group_by, group_of, lives, overlapping_group_by,
        overlapping_shapes, rows, run, sorted, stamped, text, window_of, with_watermarks,
    };
    use super::super::ticks;
    use super::super::{Mode, WindowAggregate};
    use super::*;

    fn each_row() -> ChangesSpec {
        ChangesSpec { often: Often::EachRow, ops: Ops::None, repeats: true }
    }

    fn forms() -> impl Strategy<Value = ChangesSpec> {
        let often = prop_oneof![
            Just(Often::EachRow),
            Just(Often::EachBatch),
            (1i64..200).prop_map(|interval| Often::Every { time: column("ts"), interval }),
            Just(Often::AtClose { lateness: 0 }),
        ];
        let ops = prop_oneof![Just(Ops::None), Just(Ops::Op), Just(Ops::Retractions)];
        (often, ops).prop_map(|(often, ops)| ChangesSpec { often, ops, repeats: true })
    }

    /// The latest row of each key, and a check that rows do what they say.
    fn folded(rows: Text, ops: Ops, group_columns: usize) -> BTreeMap<Vec<String>, Vec<String>> {
        let mut latest = BTreeMap::<Vec<String>, Vec<String>>::new();
        for mut row in rows {
            let op = (ops != Ops::None).then(|| row.remove(0));
            let key = row[..group_columns].to_vec();
            let known = latest.get(&key);
            match op.as_deref() {
                None => {}
                Some("+I") => assert_eq!(known, None),
                Some("-U") => {
                    assert!(ops == Ops::Retractions && known == Some(&row), "{row:?} replaces {known:?}");
                    latest.remove(&key);
                    continue;
                }
                Some("+U") => assert_eq!(known.is_none(), ops == Ops::Retractions),
                other => panic!("{other:?}"),
            }
            latest.insert(key, row);
        }
        latest
    }

    /// The rows of each group in order.
    fn by_group(rows: Text, group_columns: usize) -> BTreeMap<Vec<String>, Text> {
        let mut groups = BTreeMap::<_, Text>::new();
        for row in rows {
            groups.entry(row[..group_columns].to_vec()).or_default().push(row);
        }
        groups
    }

    /// For each row that is not late, its group and the rows of the group so far.
    fn prefixes(rows: &[Row], bound: i64, size: Option<i64>, keyed: bool) -> Vec<(Vec<String>, Vec<u32>)> {
        let (mut groups, mut prefixes) = (BTreeMap::<Vec<String>, Vec<u32>>::new(), vec![]);
        for (index, (row, watermark)) in with_watermarks(rows, bound).into_iter().enumerate() {
            if let Some(group) = group_of(&row, watermark, size, keyed) {
                let prefix = groups.entry(group.clone()).or_default();
                prefix.push(index as u32);
                prefixes.push((group, prefix.clone()));
            }
        }
        prefixes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn one_row_out_for_each_row_in(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
            size in proptest::option::weighted(0.7, 1i64..60), keyed: bool,
        ) {
            let spec = common_group_by(size, keyed);
            let input = stamped(&rows, &lengths, bound, 0, None);
            let group_columns = usize::from(size.is_some()) + usize::from(keyed);
            let mut operator = ChangelogAggregate::new(Arc::clone(&spec), each_row());
            let got = by_group(text(&run(&mut operator, &input)), group_columns);

            let mut expected = vec![];
            for (group, prefix) in prefixes(&rows, bound, size, keyed) {
                let mut naive = Naive::default();
                prefix.iter().for_each(|row| naive.take(rows[*row as usize]));
                expected.push([group, naive.cells()].concat());
            }
            prop_assert_eq!(operator.counters().late_rows as usize, rows.len() - expected.len());
            if expected.is_empty() && group_columns == 0 {
                expected.push(Naive::default().cells());
            }
            let expected = by_group(expected, group_columns);
            prop_assert!(got.keys().eq(expected.keys()));
            for (got, expected) in got.values().zip(expected.values()) {
                assert_same(&spec.schema, got, expected);
            }

            let mut last_rows = WindowAggregate::new(Arc::clone(&spec), Mode::Final);
            let last_rows = text(&run(&mut last_rows, &input));
            let got = got.into_values().filter_map(|mut group| group.pop()).collect();
            assert_same(&spec.schema, &sorted(got), &sorted(last_rows));
        }

        /// Every form of a changelog folds to the final answer, and says truly what its rows do.
        #[test]
        fn every_form_folds_to_the_final_answer(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
            size in proptest::option::weighted(0.7, 1i64..60), keyed: bool, changes in forms(),
        ) {
            let spec = common_group_by(size, keyed);
            let input = stamped(&rows, &lengths, bound, 0, None);
            let group_columns = usize::from(size.is_some()) + usize::from(keyed);
            let ops = changes.ops;
            let mut operator = ChangelogAggregate::new(Arc::clone(&spec), changes);
            let got = text(&run(&mut operator, &input));
            let folded = folded(got, ops, group_columns).into_values().collect();
            let mut last_rows = WindowAggregate::new(Arc::clone(&spec), Mode::Final);
            assert_same(&spec.schema, &sorted(folded), &sorted(text(&run(&mut last_rows, &input))));
        }

        #[test]
        fn overlapping_windows_fold_to_the_final_answer(
            rows in rows(40), lengths in batch_lengths(), bound in 0i64..50,
            shape in overlapping_shapes(), keyed: bool, changes in forms(),
        ) {
            let spec = overlapping_group_by(&shape, keyed, true);
            let input = stamped(&rows, &lengths, bound, 0, None);
            let group_columns = spec.window_columns() + usize::from(keyed);
            let ops = changes.ops;
            let got = text(&run(&mut ChangelogAggregate::new(Arc::clone(&spec), changes), &input));
            let folded = folded(got, ops, group_columns).into_values().collect();
            let mut last_rows = WindowAggregate::new(Arc::clone(&spec), Mode::Final);
            assert_same(&spec.schema, &sorted(folded), &sorted(text(&run(&mut last_rows, &input))));
        }

        /// A window tells when it ends, then again for each row that is late by less than is allowed.
        #[test]
        fn allowed_lateness_corrects_what_was_told(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50, lateness in 0i64..60,
            size in 1i64..60, keyed: bool, ops in prop_oneof![Just(Ops::None), Just(Ops::Op), Just(Ops::Retractions)],
        ) {
            let spec = common_group_by(Some(size), keyed);
            let changes = ChangesSpec { often: Often::AtClose { lateness }, ops, repeats: true };
            let mut operator = ChangelogAggregate::new(Arc::clone(&spec), changes);
            let got = text(&run(&mut operator, &stamped(&rows, &lengths, bound, 0, None)));
            let group_columns = 1 + usize::from(keyed);
            let mut model = BTreeMap::<Vec<String>, (Naive, usize)>::new();
            let mut late_rows = 0;
            for (row, watermark) in with_watermarks(&rows, bound) {
                match group_of(&row, watermark.saturating_sub(lateness), Some(size), keyed) {
                    None => late_rows += 1,
                    Some(group) => {
                        // What comes before the end is told once, and every later row again.
                        let is_told = window_of(&row, size).is_some_and(|start| start + size <= watermark);
                        let (naive, told) = model.entry(group).or_default();
                        naive.take(row);
                        *told = if is_told { *told + 1 } else { 1 };
                    }
                }
            }
            prop_assert_eq!(operator.counters().late_rows, late_rows);
            let is_after = |row: &&Vec<String>| ops == Ops::None || row[0] == "+I" || row[0] == "+U";
            prop_assert_eq!(got.iter().filter(is_after).count(), model.values().map(|(_, told)| told).sum::<usize>());
            let folded = folded(got, ops, group_columns).into_values().collect();
            let expected = model.into_iter().map(|(group, (naive, _))| [group, naive.cells()].concat()).collect();
            assert_same(&spec.schema, &sorted(folded), &sorted(expected));
        }

        /// Only the last change of each key in each interval of the highest event time so far.
        #[test]
        fn changes_by_interval_are_the_last_of_each_key(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
            size in proptest::option::weighted(0.7, 1i64..60), interval in 1i64..200,
        ) {
            let spec = common_group_by(size, true);
            let input = stamped(&rows, &lengths, bound, 0, None);
            let group_columns = usize::from(size.is_some()) + 1;
            let every = ChangesSpec { often: Often::Every { time: column("ts"), interval }, ops: Ops::None, repeats: true };
            let got = text(&run(&mut ChangelogAggregate::new(Arc::clone(&spec), every), &input));

            // The same rows one by one, each with the interval that it came in.
            let mut operator = ChangelogAggregate::new(Arc::clone(&spec), each_row());
            let (mut expected, mut reached) = (BTreeMap::new(), None);
            for (batch, stamp) in stamped(&rows, &[1], bound, 0, None) {
                let time = ticks(batch.column(0)).unwrap();
                reached = reached.max(time.is_valid(0).then(|| time.value(0)));
                let mut output = vec![];
                operator.push(&batch, stamp, &mut output).unwrap();
                for row in text(&output) {
                    let number = reached.map(|reached| reached.div_euclid(interval));
                    expected.insert((row[..group_columns].to_vec(), number), row);
                }
            }
            // Rows before the first event time are told with its interval.
            let first = expected.keys().filter_map(|(_, number)| *number).min();
            let known: Vec<_> = expected.keys().filter(|(_, number)| *number == first).map(|(key, _)| key.clone()).collect();
            expected.retain(|(key, number), _| number.is_some() || first.is_none() || !known.contains(key));
            assert_same(&spec.schema, &sorted(got), &sorted(expected.into_values().collect()));
        }

        #[test]
        fn snapshots_change_nothing(
            rows in rows(60), lengths in batch_lengths(), bound in 0i64..50,
            size in proptest::option::weighted(0.7, 1i64..60), keyed: bool, changes in forms(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        ) {
            let spec = common_group_by(size, keyed);
            let fresh = || ChangelogAggregate::new(Arc::clone(&spec), changes.clone());
            assert_snapshot_law(fresh, &stamped(&rows, &lengths, bound, 0, None), &cuts);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A key that is forgotten is another one when it comes back.
        #[test]
        fn each_life_of_a_key_is_a_key_of_its_own(
            rows in rows(80), lengths in batch_lengths(), bound in 0i64..50, ttl in 0i64..60,
            ops in prop_oneof![Just(Ops::None), Just(Ops::Op), Just(Ops::Retractions)], repeats: bool,
        ) {
            let (named, over) = lives(&rows, bound, ttl);
            let timed: Vec<Row> = rows.into_iter().filter(|row| row.time.is_some()).collect();
            let changes = ChangesSpec { often: Often::EachRow, ops, repeats };
            let spec = match repeats {
                true => common_group_by(None, true),
                false => group_by(None, true, vec![], vec![]),
            };
            let mut lasting = ChangelogAggregate::new(Arc::clone(&spec), changes.clone());
            let expected = text(&run(&mut lasting, &stamped(&named, &[7], bound, 0, None)));
            let schema = lasting.schema();
            drop(lasting);
            let mut operator = ChangelogAggregate::new(forgetting(spec, ttl), changes);
            let got = text(&run(&mut operator, &stamped(&timed, &lengths, bound, 0, None)));
            assert_same(&schema, &got, &forget_lives(expected));
            prop_assert_eq!(operator.counters().forgotten_keys, over);
        }

        #[test]
        fn batches_and_snapshots_do_not_decide_what_is_forgotten(
            rows in rows(80), lengths in batch_lengths(), bound in 0i64..50, ttl in 0i64..60, changes in forms(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let timed: Vec<Row> = rows.into_iter().filter(|row| row.time.is_some()).collect();
            let fresh = || ChangelogAggregate::new(forgetting(common_group_by(None, true), ttl), changes.clone());
            let input = stamped(&timed, &lengths, bound, 0, None);
            assert_snapshot_law(fresh, &input, &cuts);
            if !matches!(changes.often, Often::EachBatch) {
                let by_row = run(&mut fresh(), &stamped(&timed, &[1], bound, 0, None));
                assert_same(&fresh().schema(), &text(&run(&mut fresh(), &input)), &text(&by_row));
            }
        }
    }

    /// Keys that come and go do not fill the memory.
    #[test]
    fn what_is_kept_is_what_lives() {
        let spec = forgetting(common_group_by(None, true), 100);
        let mut operator = ChangelogAggregate::new(spec, each_row());
        let (mut output, mut most) = (vec![], vec![]);
        for number in 0..200 {
            let row = |index: i64| Row {
                time: Some(number * 100 + index),
                key: Some(format!("key {number} {index}").leak()),
                value: Some(index),
                price: None,
            };
            let rows: Vec<Row> = (0..100).map(row).collect();
            let next_watermark = number * 100 + 99;
            let stamp = Stamp { partition: 0, watermark: number * 100 - 1, next_watermark };
            operator.push(&batch(&rows), stamp, &mut output).unwrap();
            most.push(operator.memory());
        }
        let (early, late) = (most[..20].iter().max().unwrap(), most[20..].iter().max().unwrap());
        assert!(*late <= early * 2, "{late} bytes after {early}");
        operator.finish(&mut output).unwrap();
        // The last row of the last hundred is at 19,999: keys before 19,899 are over.
        assert_eq!(operator.counters().forgotten_keys, 19_899);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_aggregate_is_that_of_the_rows_so_far(
            rows in rows(40), lengths in batch_lengths(), bound in 0i64..50,
            size in proptest::option::weighted(0.7, 20i64..200), keyed: bool,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..3),
        ) {
            let aggregates = every_aggregate();
            let filters = vec![None; aggregates.len()];
            let spec = group_by(size, keyed, aggregates, filters);
            let input = stamped(&rows, &lengths, bound, 0, None);
            let fresh = || ChangelogAggregate::new(Arc::clone(&spec), each_row());
            assert_snapshot_law(fresh, &input, &cuts);

            let arguments = spec.evaluate(&batch(&rows)).unwrap().arguments;
            let mut expected = vec![];
            for (group, prefix) in prefixes(&rows, bound, size, keyed) {
                let prefix = UInt32Array::from(prefix);
                let mut cells = group;
                for (aggregate, arguments) in spec.aggregates.iter().zip(&arguments) {
                    cells.push(computed_freshly(aggregate, &take_arrays(arguments, &prefix, None).unwrap()));
                }
                expected.push(cells);
            }
            if expected.is_empty() && size.is_none() && !keyed {
                expected.push(spec.aggregates.iter().map(|aggregate| computed_freshly(aggregate, &[])).collect());
            }
            let group_columns = usize::from(size.is_some()) + usize::from(keyed);
            let got = by_group(text(&run(&mut fresh(), &input)), group_columns);
            let expected = by_group(expected, group_columns);
            prop_assert!(got.keys().eq(expected.keys()));
            for (got, expected) in got.values().zip(expected.values()) {
                assert_same(&spec.schema, got, expected);
            }
        }
    }
}
