//! The logical nodes that streaming adds to a DataFusion plan.
//!
//! | node | meaning |
//! |---|---|
//! | [`Emit`] | the EMIT clause, above the query that it stood at the end of; the analyzer takes it out |
//! | [`WindowAggregate`] | GROUP BY over a stream, with or without a window, FINAL or CHANGES |
//! | [`ChangesFilter`] | HAVING over changes |
//! | [`super::top_n_node::TopN`] | the first rows of a ROW_NUMBER |
//! | [`super::session_rows::SessionRows`] | rows with the bounds of their sessions |
//! | [`RowsWindow`] | OVER columns of a stream, rows coming out in event-time order |
//! | [`WriteFiles`] | COPY … TO: files written by the pipelines themselves |
//! | [`Pipelines`] | where the independent pipelines end and meet; everything above is the tail |

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, DFSchemaRef, Result, ScalarValue, plan_datafusion_err};
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::utils::exprlist_to_fields;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::error::{Error, Location};
use crate::operator::{OP, ResultTime, WindowShape};
use crate::sink::OutputFormat;
use crate::sql::EmitMode;

use super::routing::Routings;

/// Names of the window's columns in a [`WindowAggregate`]'s output: none that a column of the input has.
pub(crate) const WINDOW_START: &str = "__window_start";
pub(crate) const WINDOW_END: &str = "__window_end";

/// Nodes have no order of their own; DataFusion asks for the trait only.
macro_rules! unordered {
    ($($node:ty),+) => { $(
        impl PartialOrd for $node {
            fn partial_cmp(&self, _: &Self) -> Option<Ordering> { None }
        }
    )+ };
}
unordered!(Emit, WindowAggregate, ChangesFilter, RowsWindow, Pipelines, WriteFiles);

pub(super) fn only(mut inputs: Vec<LogicalPlan>, node: &str) -> Result<Arc<LogicalPlan>> {
    match (inputs.pop(), inputs.is_empty()) {
        (Some(input), true) => Ok(Arc::new(input)),
        _ => Err(plan_datafusion_err!("{node} has exactly one input")),
    }
}

/// The EMIT clause of a query. Output: what rows do to earlier ones as `op` if that is asked for, then the input.
#[derive(Debug, Clone)]
pub(crate) struct Emit {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) mode: EmitMode,
    /// Where the clause stands.
    pub(crate) at: Location,
    schema: DFSchemaRef,
}

impl Emit {
    pub(crate) fn try_new(input: Arc<LogicalPlan>, mode: EmitMode, at: Location) -> Result<Self> {
        let schema = match mode.has_ops() {
            false => Arc::clone(input.schema()),
            true => {
                if input.schema().fields().iter().any(|field| field.name() == "op") {
                    return Err(Error::sql("the result has a column op already, and EMIT CHANGES … WITH adds one")
                        .at(Some(at))
                        .help("give the column another name: SELECT op AS …")
                        .into());
                }
                let op = (None, Arc::new(Field::new("op", DataType::Utf8, false)));
                let rest = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
                let metadata = input.schema().metadata().clone();
                Arc::new(DFSchema::new_with_metadata([op].into_iter().chain(rest).collect(), metadata)?)
            }
        };
        Ok(Self { input, mode, at, schema })
    }
}

// The schema follows from the rest.
impl PartialEq for Emit {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input && self.mode == other.mode && self.at == other.at
    }
}
impl Eq for Emit {}
impl Hash for Emit {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, &self.mode, &self.at).hash(state);
    }
}

impl UserDefinedLogicalNodeCore for Emit {
    fn name(&self) -> &str {
        "Emit"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }
    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }
    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Emit: {}", self.mode)
    }
    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Self::try_new(only(inputs, "Emit")?, self.mode, self.at)
    }
}

/// The window of a [`WindowAggregate`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    /// Start of a row's window, or of its pane where windows overlap, or the event time itself for sessions: an
    /// expression over the input, of the event-time column's type.
    pub(crate) start: Expr,
    pub(crate) shape: WindowShape,
}

impl Window {
    /// The output columns that say which window a row is of.
    pub(crate) fn columns(&self) -> &'static [&'static str] {
        if self.shape.has_own_end() { &[WINDOW_START, WINDOW_END] } else { &[WINDOW_START] }
    }
}

/// Which rows of a key are told under EMIT CHANGES.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Repeats {
    /// All of them.
    All,
    /// The first: DISTINCT has nothing to say of the others.
    None,
}

/// GROUP BY over a stream. Output: what a row does to earlier ones if that is asked for, the window's columns if there
/// is a window, the keys, the aggregates.
#[derive(Debug, Clone)]
pub(crate) struct WindowAggregate {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) window: Option<Window>,
    /// The event-time column, where changes are told or keys forgotten by it.
    pub(crate) time: Option<Expr>,
    /// Without a window, how long keys live after their last row; none for ever.
    pub(crate) ttl_ns: Option<i64>,
    pub(crate) keys: Vec<Expr>,
    pub(crate) aggregates: Vec<Expr>,
    pub(crate) emit: EmitMode,
    /// Over the results of windows, which of their columns the event time is.
    pub(crate) results: Option<ResultTime>,
    pub(crate) repeats: Repeats,
    /// Last keys of the groups without other keys that are there even if no row comes.
    pub(crate) totals: Vec<ScalarValue>,
    schema: DFSchemaRef,
}

impl WindowAggregate {
    pub(crate) fn try_new(
        input: Arc<LogicalPlan>,
        window: Option<Window>,
        time: Option<Expr>,
        keys: Vec<Expr>,
        aggregates: Vec<Expr>,
        emit: EmitMode,
    ) -> Result<Self> {
        let mut fields = vec![];
        if emit.has_ops() {
            fields.push((None, Arc::new(Field::new(OP, DataType::Utf8, false))));
        }
        if let Some(window) = &window {
            let data_type = window.start.get_type(input.schema())?;
            let columns = window.columns().iter();
            fields.extend(columns.map(|name| (None, Arc::new(Field::new(*name, data_type.clone(), true)))));
        }
        // Output columns carry no qualifier: "flights.origin" is the whole name, so that no two of them collide.
        let columns = exprlist_to_fields(keys.iter().chain(&aggregates), &input)?;
        for (expr, (_, field)) in keys.iter().chain(&aggregates).zip(columns) {
            let field = field.as_ref().clone().with_name(expr.schema_name().to_string());
            fields.push((None, Arc::new(field)));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        let (ttl_ns, results, repeats, totals) = (None, None, Repeats::All, vec![]);
        Ok(Self { input, window, time, ttl_ns, keys, aggregates, emit, results, repeats, totals, schema })
    }

    /// The same with keys that live so long after their last row.
    pub(crate) fn with_ttl(self, ttl_ns: Option<i64>) -> Self {
        Self { ttl_ns, ..self }
    }

    /// The same over the results of windows.
    pub(crate) fn over_results(self, results: Option<ResultTime>) -> Self {
        Self { results, ..self }
    }

    /// The same with other rows of a key told.
    pub(crate) fn with_repeats(self, repeats: Repeats) -> Self {
        Self { repeats, ..self }
    }

    /// The same with totals of no row.
    pub(crate) fn with_totals(self, totals: Vec<ScalarValue>) -> Self {
        Self { totals, ..self }
    }
}

// The schema follows from the rest.
impl PartialEq for WindowAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input
            && self.window == other.window
            && self.time == other.time
            && self.ttl_ns == other.ttl_ns
            && self.keys == other.keys
            && self.aggregates == other.aggregates
            && self.emit == other.emit
            && self.results == other.results
            && self.repeats == other.repeats
            && self.totals == other.totals
    }
}
impl Eq for WindowAggregate {}
impl Hash for WindowAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, &self.window, &self.time, &self.keys, &self.aggregates, &self.emit).hash(state);
        (&self.results, self.repeats, &self.totals, self.ttl_ns).hash(state);
    }
}

impl UserDefinedLogicalNodeCore for WindowAggregate {
    fn name(&self) -> &str {
        "WindowAggregate"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }
    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }
    fn expressions(&self) -> Vec<Expr> {
        let window = self.window.iter().map(|window| &window.start);
        window.chain(&self.time).chain(&self.keys).chain(&self.aggregates).cloned().collect()
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "WindowAggregate: ")?;
        if let Some(window) = &self.window {
            write!(f, "window=[{} {}], ", unnormalize_col(window.start.clone()), window.shape)?;
        }
        write!(f, "groupBy=[[{}]], aggr=[[{}]], emit={}", list(&self.keys), list(&self.aggregates), self.emit)
    }
    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let window = self.window.as_ref().map(|window| Window { start: exprs.remove(0), ..window.clone() });
        let time = self.time.as_ref().map(|_| exprs.remove(0));
        let aggregates = exprs.split_off(self.keys.len());
        // The schema stays as it was: rewritten expressions keep their columns' names.
        Ok(Self {
            input: only(inputs, "WindowAggregate")?,
            window,
            time,
            ttl_ns: self.ttl_ns,
            keys: exprs,
            aggregates,
            emit: self.emit,
            results: self.results.clone(),
            repeats: self.repeats,
            totals: self.totals.clone(),
            schema: Arc::clone(&self.schema),
        })
    }
    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![column_indices(self.expressions().iter(), &self.input)])
    }
}

/// A filter of changes: what no longer passes is withdrawn. The input has retractions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ChangesFilter {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) predicate: Expr,
}

impl UserDefinedLogicalNodeCore for ChangesFilter {
    fn name(&self) -> &str {
        "ChangesFilter"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }
    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }
    fn expressions(&self) -> Vec<Expr> {
        vec![self.predicate.clone()]
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "ChangesFilter: {}", self.predicate)
    }
    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self { input: only(inputs, "ChangesFilter")?, predicate: exprs.remove(0) })
    }
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let op = self.input.schema().index_of_column_by_name(None, OP);
        let mut needed = column_indices([&self.predicate].into_iter(), &self.input);
        needed.extend(output_columns.iter().copied().chain(op));
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// OVER columns of a stream. Output: the input's columns, then one column for each function.
#[derive(Debug, Clone)]
pub(crate) struct RowsWindow {
    pub(crate) input: Arc<LogicalPlan>,
    /// The event-time column, by which rows come out.
    pub(crate) time: Expr,
    /// `Expr::WindowFunction`s, possibly aliased.
    pub(crate) functions: Vec<Expr>,
    /// How long keys live after their last row, where nothing else lets go of them; none for ever.
    pub(crate) ttl_ns: Option<i64>,
    /// Over the results of windows, which bound of theirs the time is.
    pub(crate) results: Option<ResultTime>,
    schema: DFSchemaRef,
}

impl RowsWindow {
    pub(crate) fn try_new(
        input: Arc<LogicalPlan>,
        time: Expr,
        functions: Vec<Expr>,
        results: Option<ResultTime>,
    ) -> Result<Self> {
        let mut fields: Vec<_> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        fields.extend(exprlist_to_fields(&functions, &input)?);
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(Self { input, time, functions, ttl_ns: None, results, schema })
    }

    /// The same with keys that live so long after their last row.
    pub(crate) fn with_ttl(self, ttl_ns: Option<i64>) -> Self {
        Self { ttl_ns, ..self }
    }
}

impl PartialEq for RowsWindow {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input
            && self.time == other.time
            && self.functions == other.functions
            && self.ttl_ns == other.ttl_ns
            && self.results == other.results
    }
}
impl Eq for RowsWindow {}
impl Hash for RowsWindow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, &self.time, &self.functions, self.ttl_ns, &self.results).hash(state);
    }
}

impl UserDefinedLogicalNodeCore for RowsWindow {
    fn name(&self) -> &str {
        "RowsWindow"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }
    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }
    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(&self.functions).cloned().collect()
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "RowsWindow: time={}, over=[[{}]]", self.time, list(&self.functions))
    }
    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let functions = exprs.split_off(1);
        let node = Self::try_new(only(inputs, "RowsWindow")?, exprs.remove(0), functions, self.results.clone())?;
        Ok(node.with_ttl(self.ttl_ns))
    }
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let columns = self.input.schema().fields().len();
        let mut needed = column_indices(self.expressions().iter(), &self.input);
        needed.extend(output_columns.iter().filter(|index| **index < columns));
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// The boundary between the pipelines and the tail.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pipelines {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) routing: Routings,
    /// The stream's column whose watermark the pipelines need, if they need one.
    pub(crate) time: Option<usize>,
}

impl UserDefinedLogicalNodeCore for Pipelines {
    fn name(&self) -> &str {
        "Pipelines"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }
    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }
    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Pipelines: {}", self.routing)
    }
    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self { input: only(inputs, "Pipelines")?, ..self.clone() })
    }
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }
}

/// COPY of a stream's query into a file or a folder. Output: the number of rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WriteFiles {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) path: String,
    pub(crate) format: OutputFormat,
    /// The options of the statement, sorted by key.
    pub(crate) options: Vec<(String, String)>,
    /// The columns by which rows are divided into folders.
    pub(crate) partition_by: Vec<String>,
    pub(crate) schema: DFSchemaRef,
}

impl UserDefinedLogicalNodeCore for WriteFiles {
    fn name(&self) -> &str {
        "WriteFiles"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }
    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }
    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "WriteFiles: path={}, format={}", self.path, self.format)?;
        match self.partition_by.is_empty() {
            true => Ok(()),
            false => write!(f, ", by={}", self.partition_by.join(", ")),
        }
    }
    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self { input: only(inputs, "WriteFiles")?, ..self.clone() })
    }
    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }
}

pub(super) fn list(exprs: &[Expr]) -> String {
    exprs.iter().map(|expr| unnormalize_col(expr.clone()).to_string()).collect::<Vec<_>>().join(", ")
}

/// The input columns that expressions read, ascending.
pub(super) fn column_indices<'a>(exprs: impl Iterator<Item = &'a Expr>, input: &LogicalPlan) -> Vec<usize> {
    let mut indices: Vec<usize> = exprs
        .flat_map(|expr| expr.column_refs().into_iter().cloned().collect::<Vec<_>>())
        .filter_map(|column| input.schema().maybe_index_of_column(&column))
        .collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}
