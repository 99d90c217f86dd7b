//! A case: data, a query over them, and ways to run it; how it is judged, and made smaller where it fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::Schema;
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use streamlines::{Answer, Setup, StreamlinesContext};

use super::data::{Data, Kept, RowsOf};
use super::query::{Emit, Kind, Query, Wrap};
use super::window::Window;

/// Ways to run each query.
const SETUPS: usize = 3;
/// How long to look for a smaller case that fails.
const SHRINKING: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Case {
    pub data: Data,
    pub query: Query,
    pub setups: Vec<Setup>,
}

/// What a case was about.
#[derive(Debug)]
pub struct About {
    pub has_rows: bool,
    pub has_late_rows: bool,
    pub is_changelog: bool,
}

impl Case {
    pub fn random(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let data = Data::random(&mut random);
        let query = Query::random(&mut random, &data);
        let setups = (0..SETUPS).map(|_| Setup::drawn(random.next_u64())).collect();
        Self::under(data, query, setups)
    }

    /// A query over data, under some setups.
    pub fn under(data: Data, query: Query, setups: Vec<Setup>) -> Self {
        Self { data, query, setups }.repaired()
    }

    /// The same with a query that the data allow.
    fn repaired(mut self) -> Self {
        self.query.repair(&self.data);
        self
    }

    /// Runs the query in every way, and says what the case was about.
    ///
    /// # Errors
    /// What differs, and where.
    pub async fn run(&self) -> std::result::Result<About, String> {
        let folder = tempfile::tempdir().unwrap();
        self.data.write(folder.path());
        let create = self.data.create_stream(folder.path());
        let (expected, late_rows, is_all) =
            self.expected(&create).await.map_err(|error| format!("the oracle: {error}"))?;
        let mut first: Option<Answer> = None;
        for setup in &self.setups {
            let fails = |what: String| format!("{setup}: {what}");
            let answer = self.routed_answer(setup, &create).await.map_err(|error| fails(error.to_string()))?;
            let difference = answer.difference_from_batch(&expected).map_err(|error| fails(error.to_string()))?;
            if let Some(difference) = difference {
                return Err(fails(format!("{difference}")));
            }
            if let Some(why) = answer.why_not_folded() {
                return Err(fails(why.to_string()));
            }
            if self.query.sees_every_row() && answer.late_rows != late_rows {
                return Err(fails(format!("{} rows are late, not {late_rows}", answer.late_rows)));
            }
            if let Some(first) = &first
                && let Some(difference) = first.difference(&answer).map_err(|error| fails(error.to_string()))?
            {
                return Err(fails(format!("other than under {}: {difference}", self.setups[0])));
            }
            first.get_or_insert(answer);
        }
        let is_changelog = first.is_some_and(|answer| answer.is_changelog());
        if is_all && self.query.emit != Emit::Changes {
            self.run_as_batch(&create, &expected).await?;
        }
        Ok(About { has_rows: expected.rows() > 0, has_late_rows: late_rows > 0, is_changelog })
    }

    /// The answer under a setup, or without its routing if that is not for the query.
    async fn routed_answer(&self, setup: &Setup, create: &str) -> Result<Answer> {
        match self.answer(setup, create).await {
            Err(error) if error.to_string().contains(&format!("routing {} cannot run", setup.routing)) => {
                self.answer(&Setup { routing: "auto", ..setup.clone() }, create).await
            }
            answer => answer,
        }
    }

    /// Where no row is late, strategy batch knows the answer too.
    async fn run_as_batch(&self, create: &str, expected: &Answer) -> std::result::Result<(), String> {
        if self.query.leaves_order_open() {
            return Ok(());
        }
        let fails = |error: datafusion::error::DataFusionError| format!("batch: {error}");
        let answer = self.answer(&Setup::batch(), create).await.map_err(fails)?;
        match expected.difference(&answer).map_err(fails)? {
            Some(difference) => Err(format!("batch: {difference}")),
            None => Ok(()),
        }
    }

    async fn answer(&self, setup: &Setup, create: &str) -> Result<Answer> {
        let ctx = setup.session()?;
        ctx.stream_sql(create).await?;
        Answer::of(ctx.stream_sql(&self.query.of_stream()).await?).await
    }

    /// The answer of plain DataFusion over the rows that the naive model keeps, how many rows are late, and
    /// whether each is in all of its windows.
    async fn expected(&self, create: &str) -> Result<(Answer, u64, bool)> {
        let window = self.query.window();
        let Kept { rows, late_rows, is_all } = match window {
            // Which sessions there are only tells who sees all rows.
            Some(Window::Session { gap_s, .. }) => self.data.kept(RowsOf::Sessions { gap_s: *gap_s }),
            Some(window) => self.data.kept(RowsOf::Windows(window)),
            None if self.query.is_over() => self.data.kept(RowsOf::Frames),
            None => self.data.all(),
        };
        let ctx = Setup::batch().session()?;
        ctx.stream_sql(create).await?;
        let table = as_read(&ctx, &rows).await?;
        ctx.deregister_table("t")?;
        ctx.register_table("t", Arc::new(MemTable::try_new(table.schema(), vec![vec![table]])?))?;
        Ok((Answer::of(ctx.stream_sql(&self.query.of_table()).await?).await?, late_rows, is_all))
    }

    /// A smaller case that fails too, and how.
    pub async fn shrunk(&self, failure: String) -> (Self, String) {
        let (mut smallest, mut failure) = (self.clone(), failure);
        let begin = Instant::now();
        'again: loop {
            for smaller in smallest.smaller() {
                if begin.elapsed() > SHRINKING {
                    break 'again;
                }
                if let Err(text) = smaller.run().await {
                    (smallest, failure) = (smaller, text);
                    continue 'again;
                }
            }
            break;
        }
        (smallest, failure)
    }

    /// Cases with one thing less, those that lack most first.
    fn smaller(&self) -> Vec<Self> {
        let mut cases: Vec<Self> = vec![];
        if self.setups.len() > 1 {
            cases.extend(self.setups.iter().map(|setup| Self { setups: vec![setup.clone()], ..self.clone() }));
        }
        let ids: Vec<i64> = self.data.rows().map(|row| row.id).collect();
        let mut length = ids.len() / 2;
        while length > 0 {
            for begin in (0..ids.len()).step_by(length) {
                let mut data = self.data.clone();
                let dropped = begin as i64..(begin + length) as i64;
                data.files.iter_mut().for_each(|file| file.retain(|row| !dropped.contains(&row.id)));
                data.number();
                cases.push(Self { data, ..self.clone() });
            }
            length /= 2;
        }
        cases.extend(self.query.simpler().into_iter().map(|query| Self { query, ..self.clone() }.repaired()));
        cases
    }

    /// All that one must know to see the failure again.
    pub fn text(&self) -> String {
        let setups: Vec<_> = self.setups.iter().map(|setup| format!("-- {setup}\n")).collect();
        let create = self.data.create_stream(std::path::Path::new("…"));
        let (stream, table) = (self.query.of_stream(), self.query.of_table());
        format!("{}{}{create};\n{stream};\n-- oracle: {table}", setups.concat(), self.data.text())
    }
}

/// The rows with the columns' types as the stream reads them.
async fn as_read(ctx: &SessionContext, rows: &RecordBatch) -> Result<RecordBatch> {
    let stream = ctx.table("t").await?;
    let (mut fields, mut columns) = (vec![], vec![]);
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let own = stream.schema().field_with_unqualified_name(field.name());
        let time = stream.schema().field_with_unqualified_name("ts")?.data_type();
        let data_type = own.map_or(time, |own| own.data_type()).clone();
        columns.push(cast(column, &data_type)?);
        fields.push(field.as_ref().clone().with_data_type(data_type));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

impl Query {
    /// Whether strategy batch may answer otherwise: ties, and aggregates without ORDER BY.
    fn leaves_order_open(&self) -> bool {
        match &self.kind {
            Kind::Rows { .. } => false,
            Kind::Over { .. } => true,
            Kind::TopN { is_total, .. } => !is_total,
            Kind::GroupBy { aggregates, .. } => aggregates.iter().any(|aggregate| aggregate.leaves_order_open),
        }
    }

    /// Queries with one clause less.
    fn simpler(&self) -> Vec<Self> {
        let mut queries = vec![];
        let mut push = |change: &dyn Fn(&mut Self)| {
            let mut query = self.clone();
            change(&mut query);
            if format!("{query:?}") != format!("{self:?}") {
                queries.push(query);
            }
        };
        push(&|query| query.filter = None);
        push(&|query| query.wrap = Wrap::None);
        push(&|query| query.limit = None);
        push(&|query| query.sum_up = None);
        push(&|query| query.form = "");
        push(&|query| query.emit = Emit::Default);
        let parts = match &self.kind {
            Kind::Rows { columns, .. } => columns.len(),
            Kind::Over { functions } => functions.len(),
            Kind::TopN { keys, .. } => keys.len(),
            Kind::GroupBy { keys, aggregates, .. } => keys.len().max(aggregates.len()),
        };
        for part in 0..parts {
            push(&|query| match &mut query.kind {
                Kind::Rows { columns, .. } if columns.len() > 1 => drop(columns.remove(part)),
                Kind::Over { functions } if functions.len() > 1 => drop(functions.remove(part)),
                Kind::GroupBy { aggregates, .. } if part < aggregates.len() => drop(aggregates.remove(part)),
                _ => {}
            });
            push(&|query| match &mut query.kind {
                Kind::GroupBy { keys, .. } | Kind::TopN { keys, .. } if part < keys.len() => drop(keys.remove(part)),
                Kind::Over { functions } => functions[part].keys.clear(),
                _ => {}
            });
            push(&|query| match &mut query.kind {
                Kind::GroupBy { aggregates, .. } if part < aggregates.len() => aggregates[part].filter = None,
                _ => {}
            });
        }
        push(&|query| {
            if let Kind::TopN { window, .. } = &mut query.kind {
                *window = Some(Window::Tumble { size_s: 10, offset_s: 0 });
            }
        });
        push(&|query| {
            if let Kind::TopN { of_groups, .. } = &mut query.kind {
                *of_groups = false;
            }
        });
        push(&|query| {
            if let Kind::GroupBy { having, .. } = &mut query.kind {
                *having = None;
            }
        });
        queries
    }
}
