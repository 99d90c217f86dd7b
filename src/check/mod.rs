//! Whether a query gives the same rows however it runs, and the rows of plain DataFusion over the same files.
//!
//! ```text
//!   statements ─▶ a session for each Setup ─▶ an Answer of each ─▶ compare, fold ─▶ Difference
//! ```
//!
//! [`Check`] takes the statements of a file through all its sessions at once. What is compared, and when two answers
//! are the same, is in [`compare`], and what changes amount to in [`fold`]: both are functions of batches alone.

mod answer;
mod changelog;
mod checksum;
mod compare;
mod extremes;
mod ledger;
mod question;
mod rows;
mod setup;

use datafusion::common::Result;
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::LogicalPlan;

use crate::error::{Error, plain};
use crate::plan::{leaving_out, numbered_scans, with_ties_broken, without_last_limit, without_missed_windows};
use crate::session::StreamlinesContext;
use crate::sql::StreamStatement;

pub use answer::Answer;
pub use changelog::fold;
pub use checksum::Checksum;
pub use compare::{Difference, compare, compare_by_key};
pub use ledger::Ledger;
pub use rows::text_rows;
pub use setup::Setup;

use extremes::with_extremes_in_order;
use question::{
    EXTREMES_OF_FLOATS, ORDER_IN_AGGREGATES, left_open, question, with_files_of_now, with_final, with_retractions,
};

/// What was compared, and how that came out.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The two sides.
    pub what: String,
    /// Rows of the second side.
    pub rows: usize,
    /// Late rows of the second side.
    pub late_rows: u64,
    /// How it came out.
    pub outcome: Outcome,
}

/// How a comparison came out.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The answers are the same.
    Same,
    /// They differ, and it is known by which late rows.
    Late(Difference, String),
    /// They differ in what SQL leaves open: with ties as a stream breaks them they are the same.
    Ties(Difference, String),
    /// They differ; with what SQL leaves open in such a query, if it does.
    Differs(Difference, Option<&'static str>),
    /// They cannot be compared: the reason.
    NotCompared(String),
}

impl Outcome {
    /// Whether nothing speaks against the answers being the same.
    pub fn is_fine(&self) -> bool {
        !matches!(self, Self::Differs(..))
    }
}

/// Sessions that go through the statements of a file together.
pub struct Check {
    batch: Session,
    stream: Session,
    /// Batch without the rows that are late in the stream.
    in_time: Session,
    others: Vec<Session>,
}

impl Check {
    /// Compares batch, stream, and the stream under each of `setups`.
    ///
    /// # Errors
    /// Settings that a session does not take.
    pub fn new(setups: Vec<Setup>) -> Result<Self> {
        Ok(Self {
            batch: Session::open(Setup::batch())?,
            stream: Session::open(Setup { ledger: true, ..Setup::stream() })?,
            in_time: Session::open(Setup::batch())?,
            others: setups.into_iter().map(Session::open).collect::<Result<_>>()?,
        })
    }

    /// Whether a statement has a query whose answers can be compared.
    pub fn is_query(statement: &StreamStatement) -> bool {
        question(statement).is_some()
    }

    /// The query of a statement that [`Check::is_query`], without EMIT: of a COPY or INSERT what it writes.
    pub fn query_text(statement: &StreamStatement) -> Option<String> {
        match question(statement)? {
            StreamStatement::Query { statement, .. } => Some(statement.to_string()),
            StreamStatement::CreateStream(_) | StreamStatement::DropStream { .. } => None,
        }
    }

    /// Takes the next statement: compares the answers to a query (or to that of a COPY or INSERT, which writes
    /// nothing), and carries every other statement out in each session.
    ///
    /// # Errors
    /// What is wrong with the statement, or why it cannot run as a stream.
    pub async fn statement(&self, statement: StreamStatement) -> Result<Option<Vec<Comparison>>> {
        if let Some(query) = question(&statement) {
            let stream = self.stream.whole_answer(query.clone()).await?.answer;
            let why = stream.why_not_folded().map(str::to_string);
            return match why.and_then(|why| Some((why, with_retractions(query.clone())?))) {
                // Changes that cannot be told apart by key can by what they replace.
                Some((why, query)) => {
                    let stream = self.stream.whole_answer(query.clone()).await?.answer;
                    let mut comparisons = self.query(query, stream).await?;
                    let why =
                        [format!(" (as it is written, {why})")].into_iter().chain(std::iter::repeat(String::new()));
                    for (comparison, why) in comparisons.iter_mut().zip(why) {
                        comparison.what.push_str(&format!(", WITH RETRACTIONS{why}"));
                    }
                    Ok(Some(comparisons))
                }
                None => self.query(query, stream).await.map(Some),
            };
        }
        let statement = with_files_of_now(statement);
        for session in [&self.batch, &self.stream, &self.in_time].into_iter().chain(&self.others) {
            session.ctx.plan_statement(statement.clone()).await?;
        }
        Ok(None)
    }

    async fn query(&self, query: StreamStatement, stream: Answer) -> Result<Vec<Comparison>> {
        let planned = self.stream.plan(query.clone()).await?;
        let open = left_open(planned.logical_plan())?;
        let has_limit = without_last_limit(planned.logical_plan()).is_some();
        let batch = self.batch.whole_answer(with_final(query.clone())).await;
        let mut comparisons = vec![self.with_batch(batch, &stream, &query, open).await?];
        for session in &self.others {
            let given = session.whole_answer(query.clone()).await?;
            comparisons.push(among_streams(&stream, given, open)?);
        }
        if has_limit {
            let rows = self.batch.answer(with_final(query.clone())).await.map(|given| given.answer.rows()).ok();
            let of_changes = stream.is_changelog();
            for session in [&self.stream].into_iter().chain(&self.others) {
                let given = session.answer(query.clone()).await?;
                comparisons.push(with_limit(&stream, rows.filter(|_| !of_changes), given)?);
            }
        }
        Ok(comparisons)
    }

    async fn with_batch(
        &self,
        batch: Result<Given>,
        stream: &Answer,
        query: &StreamStatement,
        open: Option<&'static str>,
    ) -> Result<Comparison> {
        let comparison = |what: &str, outcome| {
            let (rows, late_rows) = (stream.rows(), stream.late_rows);
            Comparison { what: what.to_string(), rows, late_rows, outcome }
        };
        let what = if stream.is_changelog() { "batch and the stream's folded changes" } else { "batch and stream" };
        if let Some(why) = stream.why_not_folded() {
            return Ok(comparison(what, Outcome::NotCompared(why.to_string())));
        }
        let batch = match batch {
            Ok(given) => given.answer,
            // A stream may answer what batch has not implemented.
            Err(error) => {
                let why = format!("plain DataFusion cannot answer: {}", plain(&error));
                return Ok(comparison(what, Outcome::NotCompared(why)));
            }
        };
        let outcome = match stream.difference_from_batch(&batch)? {
            None => Outcome::Same,
            Some(difference) => self.explained(difference, &batch, stream, query, open).await?,
        };
        Ok(comparison(what, outcome))
    }

    /// How late rows, with the first of them, or ties explain that an answer is not that of batch, if they do.
    async fn explained(
        &self,
        difference: Difference,
        batch: &Answer,
        stream: &Answer,
        query: &StreamStatement,
        open: Option<&'static str>,
    ) -> Result<Outcome> {
        let late = stream.ledger.as_ref().filter(|ledger| ledger.rows() > 0);
        let rows = late.map(Ledger::first_rows).transpose()?.map(|rows| format!("\n{rows}")).unwrap_or_default();
        if let Some(ledger) = late
            && self.is_answer_in_time(late, stream, query, Order::Any).await
        {
            let of_windows = if ledger.is_of_whole_rows()? { "" } else { " in the windows that they missed" };
            let why = format!("without them{of_windows}, plain DataFusion gives the same");
            return Ok(Outcome::Late(difference, format!("the late rows explain it: {why}{rows}")));
        }
        let Some(open) = open else { return Ok(Outcome::Differs(difference, None)) };
        let without = if late.is_some() { ", and without the late rows" } else { "" };
        if open == EXTREMES_OF_FLOATS && self.is_answer_in_time(late, stream, query, Order::Total).await {
            let why = "by their total order, in which NaN is beyond every number";
            let why = format!("{open}: {why}{without}, plain DataFusion gives the same{rows}");
            return Ok(Outcome::Ties(difference, why));
        }
        if self.is_answer_in_time(late, stream, query, Order::Places).await {
            let why = format!("{open}: with ties by partition and row{without}, plain DataFusion gives the same{rows}");
            return Ok(Outcome::Ties(difference, why));
        }
        let is_same_in_order = open == ORDER_IN_AGGREGATES
            && stream.with_sorted_lists()?.difference_from_batch(&batch.with_sorted_lists()?)?.is_none();
        Ok(match is_same_in_order {
            true => Outcome::Ties(difference, format!("{open}: in their own order, the values of lists are the same")),
            false => Outcome::Differs(difference, Some(open)),
        })
    }

    /// Whether batch gives the answer of the stream when late rows are not in the windows that they missed, in an order.
    /// Where it cannot run, nothing is explained.
    async fn is_answer_in_time(
        &self,
        late: Option<&Ledger>,
        stream: &Answer,
        query: &StreamStatement,
        order: Order,
    ) -> bool {
        let given = self.in_time(late, query, order).await;
        given.is_ok_and(|given| stream.difference_from_batch(&given.answer).is_ok_and(|found| found.is_none()))
    }

    async fn in_time(&self, late: Option<&Ledger>, query: &StreamStatement, order: Order) -> Result<Given> {
        let ctx = &self.in_time.ctx;
        let part = |plan: LogicalPlan| {
            let mut plan = whole(plan);
            if let Some(late) = late {
                plan = leaving_out(plan, |stream| late.left_out(stream))?;
            }
            plan = match order {
                Order::Any => plan,
                Order::Total => with_extremes_in_order(plan)?,
                Order::Places => with_ties_broken(plan)?,
            };
            if late.map_or(Ok(true), Ledger::is_of_whole_rows)? {
                return Ok(plan);
            }
            let state = ctx.state();
            without_missed_windows(state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?)
        };
        self.in_time.run(with_final(query.clone()), part).await
    }
}

/// In which order plain DataFusion takes rows.
#[derive(Debug, Clone, Copy)]
enum Order {
    Any,
    /// Where they tie, by partition and row.
    Places,
    /// Floats by their total order.
    Total,
}

/// The same question under another setup: the same rows, and as many of them late.
fn among_streams(stream: &Answer, given: Given, open: Option<&'static str>) -> Result<Comparison> {
    let Given { setup, answer } = given;
    let outcome = match stream.difference(&answer)? {
        _ if let Some(why) = stream.why_not_compared() => Outcome::NotCompared(why.to_string()),
        Some(difference) => Outcome::Differs(difference, open),
        None if stream.late_rows != answer.late_rows => {
            let text = format!("{} late rows instead of {}", answer.late_rows, stream.late_rows);
            Outcome::Differs(Difference { missing: 0, extra: 0, rows: vec![text] }, None)
        }
        None => Outcome::Same,
    };
    let (rows, late_rows) = (answer.rows(), answer.late_rows);
    Ok(Comparison { what: format!("stream and {setup}"), rows, late_rows, outcome })
}

/// Which rows a LIMIT without ORDER BY takes is open, but not how many, and that they are rows of the whole answer.
fn with_limit(whole: &Answer, expected_rows: Option<usize>, given: Given) -> Result<Comparison> {
    let Given { setup, answer } = given;
    let difference = compare(&whole.batches, &answer.batches, &whole.schema)?;
    let outcome = match (difference, expected_rows) {
        (Some(difference), _) if difference.extra > 0 => Outcome::Differs(difference, None),
        (_, Some(rows)) if rows != answer.rows() => {
            let text = format!("LIMIT gave {} rows instead of {rows}", answer.rows());
            Outcome::Differs(Difference { missing: 0, extra: 0, rows: vec![text] }, None)
        }
        _ => Outcome::Same,
    };
    let (rows, late_rows) = (answer.rows(), answer.late_rows);
    Ok(Comparison { what: format!("LIMIT's rows among all, {setup}"), rows, late_rows, outcome })
}

/// A plan without the LIMIT that leaves open which rows it takes.
fn whole(plan: LogicalPlan) -> LogicalPlan {
    without_last_limit(&plan).unwrap_or(plan)
}

struct Session {
    setup: Setup,
    ctx: SessionContext,
}

/// An answer, and the setup under which it was given.
struct Given {
    setup: Setup,
    answer: Answer,
}

impl Session {
    fn open(setup: Setup) -> Result<Self> {
        Ok(Self { ctx: setup.session()?, setup })
    }

    async fn plan(&self, query: StreamStatement) -> Result<DataFrame> {
        self.setup.apply(&self.ctx)?;
        self.ctx.plan_statement(query).await
    }

    async fn answer(&self, query: StreamStatement) -> Result<Given> {
        self.run(query, Ok).await
    }

    /// The answer without the LIMIT that leaves open which rows it takes.
    async fn whole_answer(&self, query: StreamStatement) -> Result<Given> {
        self.run(query, |plan| Ok(whole(plan))).await
    }

    /// Runs what `part` takes of a query; by another routing if it cannot take the one of the setup.
    async fn run(&self, query: StreamStatement, part: impl Fn(LogicalPlan) -> Result<LogicalPlan>) -> Result<Given> {
        match self.run_under(&self.setup, query.clone(), &part).await {
            Err(error)
                if self.setup.routing != "auto" && matches!(Error::find(&error), Some(Error::Refused { .. })) =>
            {
                self.run_under(&Setup { routing: "auto", ..self.setup.clone() }, query, &part).await
            }
            given => given,
        }
    }

    async fn run_under(
        &self,
        setup: &Setup,
        query: StreamStatement,
        part: &impl Fn(LogicalPlan) -> Result<LogicalPlan>,
    ) -> Result<Given> {
        setup.apply(&self.ctx)?;
        let plan = part(numbered_scans(self.ctx.plan_statement(query).await?.logical_plan().clone())?)?;
        let answer = Answer::of(DataFrame::new(self.ctx.state(), plan)).await?;
        Ok(Given { setup: setup.clone(), answer })
    }
}
