//! Random queries: as they are asked of a stream, and what they mean over the rows that the naive model keeps.

use super::window::Window;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    Function,
    TableFunction,
    Clause,
    Plain,
}

/// When rows come out. A new form is a variant here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    Default,
    Final,
    Changes,
}

/// What stands between the stream and the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrap {
    None,
    SubQuery,
    With,
    /// A look-up that keeps every row.
    LookUp,
    /// A join that makes two rows of most.
    Twice,
}

/// How results are grouped again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SumUp {
    /// By the last of their keys.
    ByKey,
    /// By the minute of their window's first bound.
    ByMinute,
}

#[derive(Debug, Clone)]
pub struct Aggregate {
    /// With `{order}` where an ORDER BY may stand.
    pub call: &'static str,
    pub filter: Option<&'static str>,
    /// Whether the order that SQL leaves open is left out.
    pub leaves_order_open: bool,
}

#[derive(Debug, Clone)]
pub struct Over {
    pub call: &'static str,
    pub keys: Vec<&'static str>,
    /// ROWS before the current one; none means all.
    pub rows: Option<u8>,
    pub is_buffer: bool,
}

#[derive(Debug, Clone)]
pub enum Kind {
    /// Each row by itself, or once for each of its windows.
    Rows {
        columns: Vec<&'static str>,
        is_distinct: bool,
        window: Option<Window>,
    },
    GroupBy {
        window: Option<(Window, Spelling)>,
        /// Which of window_start, window_end and window_time are selected.
        bounds: Vec<&'static str>,
        keys: Vec<&'static str>,
        aggregates: Vec<Aggregate>,
        having: Option<&'static str>,
    },
    Over {
        functions: Vec<Over>,
    },
    /// The first rows of each window and key, from 1.
    TopN {
        window: Option<Window>,
        keys: Vec<&'static str>,
        order: &'static str,
        /// Whether the order tells all rows apart.
        is_total: bool,
        at_most: u8,
        has_rank: bool,
        /// Whether results of a GROUP BY of the windows are ranked.
        of_groups: bool,
    },
}

#[derive(Debug, Clone)]
pub struct Query {
    pub kind: Kind,
    pub filter: Option<&'static str>,
    pub wrap: Wrap,
    pub emit: Emit,
    /// What stands after EMIT CHANGES.
    pub form: &'static str,
    pub limit: Option<u8>,
    pub sum_up: Option<SumUp>,
}

impl Query {
    /// The window that late rows may miss.
    pub fn window(&self) -> Option<&Window> {
        match &self.kind {
            Kind::GroupBy { window: Some((window, _)), .. } | Kind::TopN { window: Some(window), .. } => Some(window),
            // Late rows are in no session; of other windows, each row comes out.
            Kind::Rows { window: Some(window), .. } if window.is_session() => Some(window),
            _ => None,
        }
    }

    fn bounds(&self) -> &[&'static str] {
        match &self.kind {
            Kind::GroupBy { bounds, .. } => bounds,
            _ => &[],
        }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.kind, Kind::Over { .. })
    }

    /// Whether every late row is counted: all rows reach the operator.
    pub fn sees_every_row(&self) -> bool {
        self.filter.is_none() && self.limit.is_none() && self.wrap != Wrap::Twice
    }

    /// The query of the stream `t`.
    pub fn of_stream(&self) -> String {
        let emit = match self.emit {
            Emit::Default => "",
            Emit::Final => " EMIT FINAL",
            Emit::Changes => " EMIT CHANGES",
        };
        format!("{}{emit}{}", self.text(true), self.form)
    }

    /// The same over the table `t` of the rows that the naive model keeps.
    pub fn of_table(&self) -> String {
        self.text(false)
    }

    fn text(&self, of_stream: bool) -> String {
        let filter = self.filter.map(|filter| format!(" WHERE {filter}")).unwrap_or_default();
        let inner = format!("SELECT * FROM t{filter}");
        let (with, relation, filter) = match self.wrap {
            Wrap::None => (String::new(), "t".to_string(), filter),
            Wrap::SubQuery => (String::new(), format!("({inner}) AS q"), String::new()),
            Wrap::LookUp => {
                let table = "(VALUES ('key 0', 'zero'), ('key 2', 'two'), ('key 9', 'nine')) AS v (key, name)";
                (
                    String::new(),
                    format!("(SELECT t.*, name FROM t LEFT JOIN {table} ON k = key{filter}) AS q"),
                    String::new(),
                )
            }
            Wrap::Twice => {
                let twice = "JOIN (VALUES (1), (-20)) AS v (x) ON x < coalesce(i, 0)";
                (String::new(), format!("(SELECT t.* FROM t {twice}{filter}) AS q"), String::new())
            }
            Wrap::With => (format!("WITH q AS ({inner}) "), "q".to_string(), String::new()),
        };
        let (body, unique) = match &self.kind {
            Kind::Rows { columns, is_distinct, window } => {
                let of_row: Vec<_> = columns.iter().zip(0..).map(|(column, n)| format!("{column} AS c{n}")).collect();
                let (what, unique) = match (is_distinct, window) {
                    (true, _) => ("DISTINCT", columns.len()),
                    (false, None) => ("id,", 1),
                    (false, Some(_)) => ("id, window_start, window_end,", 3),
                };
                let relation =
                    window.as_ref().map_or(relation.clone(), |window| window.table_function(&relation, &["k"]));
                (format!("SELECT {what} {} FROM {relation}{filter}", of_row.join(", ")), unique)
            }
            Kind::Over { functions } => {
                let functions: Vec<_> =
                    functions.iter().zip(0..).map(|(over, n)| format!("{} AS c{n}", over.text(of_stream))).collect();
                (format!("SELECT id, {} FROM {relation}{filter}", functions.join(", ")), 1)
            }
            Kind::GroupBy { .. } => self.group_by(&relation, &filter, of_stream),
            Kind::TopN { .. } => self.top_n(&relation, &filter, of_stream),
        };
        let last = unique.saturating_sub(1);
        let order: Vec<_> = (1..=unique).map(|column| column.to_string()).collect();
        let limit = match self.limit {
            Some(limit) if order.is_empty() => format!(" LIMIT {limit}"),
            Some(limit) => format!(" ORDER BY {} LIMIT {limit}", order.join(", ")),
            None => String::new(),
        };
        match self.sum_up.filter(|_| unique > 0) {
            Some(SumUp::ByKey) => {
                format!("{with}SELECT c{last}, count(*) AS n FROM ({body}{limit}) AS r GROUP BY c{last}")
            }
            Some(SumUp::ByMinute) => {
                // Of a session, the start says nothing of what is still to come.
                let bound = self.bounds().iter().position(|bound| *bound == "window_end").unwrap_or(0);
                let minute = format!("tumble(c{bound}, INTERVAL '1 minute')");
                format!(
                    "{with}SELECT {minute} AS minute, count(*) AS n, max(c{last}) AS last FROM ({body}{limit}) AS r \
                     GROUP BY {minute}"
                )
            }
            None => format!("{with}{body}{limit}"),
        }
    }

    fn top_n(&self, relation: &str, filter: &str, of_stream: bool) -> (String, usize) {
        let Kind::TopN { window, keys, order, is_total, at_most, has_rank, of_groups } = &self.kind else {
            return Default::default();
        };
        let (relation, bounds) = match (window, of_stream) {
            (None, _) => (relation.to_string(), &[][..]),
            // Over a table, sessions are found by DataFusion's window functions.
            (Some(window), of_stream) if of_stream || window.is_session() => {
                (window.table_function(relation, keys), &["window_start", "window_end"][..])
            }
            (Some(_), _) => (relation.to_string(), &["ws", "we"][..]),
        };
        let by: Vec<&str> = bounds.iter().chain(keys).copied().collect();
        let rows = match of_groups {
            true => {
                let groups = [&by, &["i"][..]].concat().join(", ");
                format!("(SELECT {groups}, sum(f) AS f, min(id) AS id FROM {relation}{filter} GROUP BY {groups}) AS g")
            }
            false => format!("{relation}{filter}"),
        };
        // Rows that tie come in order of partition and row.
        let last = if of_stream && !is_total { "" } else { ", id" };
        let order = if *of_groups { "i DESC NULLS LAST" } else { order };
        let partition = if by.is_empty() { String::new() } else { format!("PARTITION BY {} ", by.join(", ")) };
        let number = format!("ROW_NUMBER() OVER ({partition}ORDER BY {order}{last}) AS rn");
        let mut columns: Vec<&str> = ["id"].into_iter().chain(by).collect();
        let unique = columns.len();
        columns.extend(["f"]);
        columns.extend(has_rank.then_some("rn"));
        let columns: Vec<_> = columns.iter().zip(0..).map(|(column, n)| format!("{column} AS c{n}")).collect();
        let text =
            format!("SELECT {} FROM (SELECT *, {number} FROM {rows}) AS r WHERE rn <= {at_most}", columns.join(", "));
        (text, unique)
    }

    /// The text, and how many of the first columns tell rows apart.
    fn group_by(&self, relation: &str, filter: &str, of_stream: bool) -> (String, usize) {
        let Kind::GroupBy { window, bounds, keys, aggregates, having } = &self.kind else {
            return Default::default();
        };
        let is_session = window.as_ref().is_some_and(|(window, _)| window.is_session());
        let bound = |name: &&str| match (of_stream || is_session, *name) {
            (true, name) => name.to_string(),
            (false, "window_start") => "ws".to_string(),
            (false, _) => "we".to_string(),
        };
        let mut columns: Vec<_> = bounds.iter().map(bound).collect();
        columns.extend(keys.iter().map(ToString::to_string));
        let unique = columns.len();
        columns.extend(aggregates.iter().map(|aggregate| aggregate.text(of_stream)));
        if columns.is_empty() {
            columns.push("count(*)".to_string());
        }
        let mut groups: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let (mut relation, mut clause) = (relation.to_string(), String::new());
        match (window, of_stream) {
            (None, _) => {}
            (Some(_), false) if !is_session => groups.extend(["ws".to_string(), "we".to_string()]),
            (Some((window, Spelling::TableFunction)), _) => {
                relation = window.table_function(&relation, keys);
                groups.extend(["window_start".to_string(), "window_end".to_string()]);
            }
            (Some((window, Spelling::Clause)), true) => clause = format!(" {}", window.clause().unwrap_or_default()),
            (Some((window, Spelling::Plain)), true) => groups.extend(window.plain()),
            (Some((window, _)), _) => groups.push(window.function()),
        }
        let columns: Vec<_> = columns.iter().zip(0..).map(|(column, n)| format!("{column} AS c{n}")).collect();
        let groups = if groups.is_empty() { String::new() } else { format!(" GROUP BY {}", groups.join(", ")) };
        let having = having.map(|having| format!(" HAVING {having}")).unwrap_or_default();
        let text = format!("SELECT {} FROM {relation}{filter}{groups}{clause}{having}", columns.join(", "));
        (text, unique)
    }
}

impl Query {
    /// What tells which rows are late.
    pub fn of_late_rows(kind: Kind) -> Self {
        Self { kind, filter: None, wrap: Wrap::None, emit: Emit::Default, form: "", limit: None, sum_up: None }
    }
}

impl Aggregate {
    fn text(&self, of_stream: bool) -> String {
        let order = if of_stream && self.leaves_order_open { "" } else { " ORDER BY id" };
        let filter = self.filter.map(|filter| format!(" FILTER (WHERE {filter})")).unwrap_or_default();
        format!("{}{filter}", self.call.replace("{order}", order))
    }
}

impl Over {
    fn text(&self, of_stream: bool) -> String {
        let keys = match self.keys.as_slice() {
            [] => String::new(),
            keys => format!("PARTITION BY {} ", keys.join(", ")),
        };
        // Rows of one time come in order of partition and row.
        let order = if of_stream { "ORDER BY ts" } else { "ORDER BY ts, id" };
        let rows = self.rows.map_or("UNBOUNDED".to_string(), |rows| rows.to_string());
        match (self.call, self.rows) {
            ("lag(i)", _) => format!("lag(i) OVER ({keys}{order})"),
            (call, Some(rows)) if of_stream && self.is_buffer => {
                format!("{call} OVER (ROWS WINDOW BUFFER {} ROWS {keys}{order})", u16::from(rows) + 1)
            }
            (call, _) => format!("{call} OVER ({keys}{order} ROWS BETWEEN {rows} PRECEDING AND CURRENT ROW)"),
        }
    }
}
