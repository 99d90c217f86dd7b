//! Draws random queries, and takes out of them what cannot run as a stream.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::data::{Data, Layout};
use super::query::{Aggregate, Emit, Kind, Over, Query, Spelling, SumUp, Wrap};
use super::window::Window;

const FORMS: [&str; 9] = [
    "",
    "",
    " PER BATCH",
    " EVERY INTERVAL '10' SECOND",
    " WITH OP",
    " WITH RETRACTIONS",
    " PER BATCH WITH RETRACTIONS",
    " PER BATCH WITH OP",
    " EVERY 3s WITH RETRACTIONS",
];
const FILTERS: [&str; 9] = [
    "i > 0",
    "b",
    "k <> 'key 1'",
    "f IS NOT NULL AND i % 3 = 0",
    "room IN (0, 1)",
    "day >= DATE '2024-01-01'",
    "s LIKE '%r%' OR d < 0",
    "ts IS NOT NULL",
    "false",
];
const KEYS: [&str; 8] = ["k", "k", "room", "b", "day", "s", "i % 3", "upper(s)"];
const AGGREGATES: [&str; 38] = [
    "count(*)",
    "count(i)",
    "count(s)",
    "count(DISTINCT k)",
    "count(DISTINCT room)",
    "sum(i)",
    "sum(f)",
    "sum(d)",
    "sum(DISTINCT room)",
    "sum(i + room)",
    "avg(i)",
    "avg(f)",
    "avg(d)",
    "min(i)",
    "min(f)",
    "min(d)",
    "min(s)",
    "min(day)",
    "min(ts)",
    "max(i)",
    "max(f)",
    "max(d)",
    "max(s)",
    "max(day)",
    "max(ts)",
    "max(b)",
    "bool_and(b)",
    "bool_or(b)",
    "bit_and(room)",
    "bit_xor(room)",
    "stddev(f)",
    "var_pop(i)",
    "median(i)",
    "array_agg(i{order})",
    "array_agg(id ORDER BY id DESC)",
    "string_agg(s, '-'{order})",
    "first_value(f{order})",
    "last_value(s{order})",
];
const OVERS: [&str; 12] = [
    "count(*)",
    "count(i)",
    "sum(i)",
    "sum(f)",
    "avg(f)",
    "avg(d)",
    "min(i)",
    "max(f)",
    "max(s)",
    "first_value(s)",
    "last_value(f)",
    "lag(i)",
];
const COLUMNS: [&str; 8] = ["ts", "k", "i + 1", "f * 2", "d", "coalesce(s, 'none')", "day", "b AND i > 0"];
const HAVINGS: [&str; 3] = ["count(*) > 1", "sum(i) >= 0", "max(f) IS NOT NULL"];

fn any<T: Copy>(random: &mut ChaCha8Rng, of: &[T]) -> T {
    of[random.random_range(0..of.len())]
}

fn maybe<T>(random: &mut ChaCha8Rng, share: f64, make: impl FnOnce(&mut ChaCha8Rng) -> T) -> Option<T> {
    random.random_bool(share).then(|| make(random))
}

fn several<T>(random: &mut ChaCha8Rng, count: std::ops::Range<usize>, make: impl Fn(&mut ChaCha8Rng) -> T) -> Vec<T> {
    (0..random.random_range(count)).map(|_| make(random)).collect()
}

impl Query {
    /// A query that runs as a stream over the data.
    pub fn random(random: &mut ChaCha8Rng, data: &Data) -> Self {
        let kind = match random.random_range(0..12) {
            10 | 11 => random_top_n(random),
            0 => Kind::Rows {
                columns: several(random, 1..4, |random| any(random, &COLUMNS)),
                is_distinct: random.random_bool(0.4),
                window: maybe(random, 0.5, random_window),
            },
            1 | 2 => Kind::Over { functions: several(random, 1..4, random_over) },
            _ => random_group_by(random),
        };
        let mut query = Self {
            kind,
            filter: maybe(random, 0.4, |random| any(random, &FILTERS)),
            wrap: any(
                random,
                &[Wrap::None, Wrap::None, Wrap::None, Wrap::SubQuery, Wrap::With, Wrap::LookUp, Wrap::Twice],
            ),
            emit: any(random, &[Emit::Default, Emit::Final, Emit::Changes]),
            form: any(random, &FORMS),
            limit: maybe(random, 0.15, |random| random.random_range(0..20)),
            sum_up: maybe(random, 0.2, |random| any(random, &[SumUp::ByKey, SumUp::ByMinute])),
        };
        query.repair(data);
        query
    }

    /// Takes out what cannot run as a stream.
    pub fn repair(&mut self, data: &Data) {
        let gives_bounds = matches!(&self.kind, Kind::GroupBy { window: Some(_), bounds, .. } if !bounds.is_empty());
        self.sum_up = self.sum_up.map(|sum_up| if gives_bounds { sum_up } else { SumUp::ByKey });
        if let Kind::GroupBy { window, bounds, keys, aggregates, .. } = &mut self.kind {
            let mut seen = vec![];
            keys.retain(|key| {
                !seen.contains(key) && {
                    seen.push(key);
                    true
                }
            });
            match window {
                Some((window, spelling)) => {
                    let fits = match spelling {
                        Spelling::Function => true,
                        // TABLE takes a name.
                        Spelling::TableFunction => matches!(self.wrap, Wrap::None | Wrap::With),
                        Spelling::Clause => window.clause().is_some(),
                        // Of instants with a zone date_bin makes nanoseconds, which the model does not.
                        Spelling::Plain => window.plain().is_some() && !data.is_utc,
                    };
                    if !fits {
                        *spelling = Spelling::Function;
                    }
                }
                None => bounds.clear(),
            }
            if aggregates.is_empty() && keys.is_empty() && bounds.is_empty() {
                aggregates.push(Aggregate { call: "count(*)", filter: None, leaves_order_open: false });
            }
            // Rows of several partitions come in the order of event time, and SQL's are in that of the partitions; windows
            // close in one.
            let has_one_order = data.is_one_partition()
                || data.layout == Layout::ByKey && keys.contains(&"k")
                || self.sum_up.is_some() && window.is_some();
            if self.emit == Emit::Changes && !has_one_order {
                aggregates.iter_mut().for_each(|aggregate| aggregate.leaves_order_open = false);
            }
        }
        self.repair_top_n(data);
        if let Kind::Rows { is_distinct, window, .. } = &mut self.kind {
            // Late rows are in no group of theirs, and otherwise all of them come out.
            *window = window.filter(|window| !*is_distinct || window.is_session());
            // TABLE takes a name.
            if window.is_some() && !matches!(self.wrap, Wrap::None | Wrap::With) {
                self.wrap = Wrap::None;
            }
            if window.is_some() {
                self.sum_up = None;
            }
        }
        // Rows that are there twice tie in OVER, in whatever order.
        if self.wrap == Wrap::Twice && self.is_over() {
            self.wrap = Wrap::LookUp;
        }
        self.repair_changes();
        // Where its start does not tell a window's end, both tell rows apart.
        if let Kind::GroupBy { window: Some((window, _)), bounds, .. } = &mut self.kind
            && window.has_own_end()
        {
            *bounds = vec!["window_start", "window_end"];
        }
        if let Kind::GroupBy { window, bounds, .. } = &mut self.kind
            && self.limit.is_some()
            && window.is_some()
            && bounds.is_empty()
        {
            bounds.push("window_start");
        }
    }

    fn repair_top_n(&mut self, data: &Data) {
        let Kind::TopN { window, keys, has_rank, at_most, is_total, of_groups, .. } = &mut self.kind else { return };
        keys.sort_unstable();
        keys.dedup();
        let has_one_order = data.is_one_partition() || data.layout == Layout::ByKey && keys.contains(&"k");
        *is_total |= !has_one_order && self.emit == Emit::Changes;
        if self.emit != Emit::Changes {
            // Without a window the end of the stream tells the first rows, in whatever order those that tie come.
            window.get_or_insert(Window::Tumble { size_s: 10, offset_s: 0 });
        }
        // Results of windows are ranked when they are there.
        *of_groups &= self.emit != Emit::Changes;
        *is_total |= *of_groups;
        *has_rank |= *at_most > 1 && self.emit == Emit::Changes && !self.form.contains("WITH");
        // TABLE takes a name.
        if window.is_some() && !matches!(self.wrap, Wrap::None | Wrap::With) {
            self.wrap = Wrap::None;
        }
        // A row that is there twice ties with itself.
        if self.wrap == Wrap::Twice {
            self.wrap = Wrap::LookUp;
        }
    }

    fn repair_changes(&mut self) {
        let has_changes = match self.kind {
            Kind::GroupBy { .. } | Kind::TopN { .. } => true,
            Kind::Rows { is_distinct, .. } => is_distinct,
            Kind::Over { .. } => false,
        };
        if self.emit != Emit::Changes || !has_changes {
            self.form = "";
        }
        if self.emit != Emit::Changes {
            return;
        }
        self.limit = None;
        if let Kind::GroupBy { window: Some(_), bounds, keys, .. } = &mut self.kind
            && self.sum_up.is_some()
        {
            // The changes are those of the sums: windows below them are final.
            if bounds.is_empty() {
                bounds.push("window_end");
            }
            // What tells results apart tells all else of them, and DataFusion groups by that too.
            if keys.is_empty() {
                self.sum_up = Some(SumUp::ByMinute);
            }
            return;
        }
        self.sum_up = None;
        if let Kind::GroupBy { window, bounds, having, .. } = &mut self.kind {
            if !self.form.contains("WITH") {
                *having = None;
            }
            // Without the window in it a change does not say what it changes.
            if window.is_some() && bounds.is_empty() {
                bounds.push("window_end");
            }
        }
    }
}

fn random_window(random: &mut ChaCha8Rng) -> Window {
    let size_s = any(random, &[1, 7, 10, 10, 60, 90, 3600]);
    let offset_s = if random.random_bool(0.25) { random.random_range(-100..100) } else { 0 };
    match random.random_range(0..8) {
        0 | 1 => Window::Hop { slide_s: any(random, &[2, 5, 12, 60, 600]).max(size_s / 9), size_s, offset_s },
        2 => {
            let step_s = any(random, &[1, 5, 30]);
            Window::Cumulate { step_s, size_s: step_s * random.random_range(1..6), offset_s }
        }
        3 => Window::Session { gap_s: any(random, &[1, 3, 10, 60]), by_first: random.random_bool(0.3) },
        _ => Window::Tumble { size_s, offset_s },
    }
}

fn random_group_by(random: &mut ChaCha8Rng) -> Kind {
    let window = maybe(random, 0.85, |random| {
        let window = random_window(random);
        let spellings = [Spelling::Function, Spelling::TableFunction, Spelling::Clause, Spelling::Plain];
        (window, any(random, &spellings))
    });
    let bounds = any(random, &[&["window_start"][..], &["window_end"], &["window_start", "window_end"], &[]]);
    Kind::GroupBy {
        window,
        bounds: bounds.to_vec(),
        keys: several(random, 0..3, |random| any(random, &KEYS)),
        aggregates: several(random, 0..5, |random| Aggregate {
            call: any(random, &AGGREGATES),
            filter: maybe(random, 0.2, |random| any(random, &FILTERS)),
            leaves_order_open: random.random_bool(0.5),
        }),
        having: maybe(random, 0.15, |random| any(random, &HAVINGS)),
    }
}

fn random_top_n(random: &mut ChaCha8Rng) -> Kind {
    let Kind::GroupBy { window, .. } = random_group_by(random) else { return Kind::Over { functions: vec![] } };
    let orders = ["i DESC", "i", "f DESC NULLS LAST", "d NULLS FIRST", "s, b DESC", "ts", "ts DESC", "room", "b, day"];
    Kind::TopN {
        window: window.map(|(window, _)| window),
        keys: several(random, 0..3, |random| any(random, &["k", "k", "room", "b"])),
        order: any(random, &orders),
        is_total: random.random_bool(0.5),
        at_most: any(random, &[1, 1, 2, 3, 10]),
        has_rank: random.random_bool(0.5),
        of_groups: random.random_bool(0.2),
    }
}

fn random_over(random: &mut ChaCha8Rng) -> Over {
    Over {
        call: any(random, &OVERS),
        keys: several(random, 0..3, |random| any(random, &["k", "room", "b"])),
        rows: maybe(random, 0.8, |random| random.random_range(0..12)),
        is_buffer: random.random_bool(0.3),
    }
}
