//! The logical nodes of Top-N and deduplication.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, DFSchemaRef, Result};
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, SortExpr, UserDefinedLogicalNodeCore};

use crate::operator::{OP, ResultTime};
use crate::sql::EmitMode;

use super::nodes::{Window, column_indices, list, only};

/// Name of the rank in a [`TopN`]'s output: none that a column of the input has.
pub(crate) const RANK: &str = "__rank";

/// `ROW_NUMBER() OVER (…) <= n`, while the analyzer looks for how to stream it. Output: that of the Window node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) struct Ranked {
    /// The Window node.
    pub(crate) window: Arc<LogicalPlan>,
    /// How many of the first rows pass.
    pub(crate) at_most: usize,
}

impl UserDefinedLogicalNodeCore for Ranked {
    fn name(&self) -> &str {
        "Ranked"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.window]
    }
    fn schema(&self) -> &DFSchemaRef {
        self.window.schema()
    }
    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Ranked: {}", self.at_most)
    }
    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self { window: only(inputs, "Ranked")?, at_most: self.at_most })
    }
}

/// Where the rows of a [`TopN`] come from, and how its own come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ranking {
    /// Rows of a stream: the best of a window, when it closes.
    Windows,
    /// Results of windows, each as a whole.
    Results,
    /// Rows of a stream: the changes of the best ones, by rank or by rows.
    Changes { by_rank: bool },
}

/// What a [`TopN`] ranks rows by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RankedBy {
    pub(crate) window: Option<Window>,
    /// The partition keys besides the window.
    pub(crate) keys: Vec<Expr>,
    pub(crate) order: Vec<SortExpr>,
    /// The event-time column, where changes are told or keys forgotten by it.
    pub(crate) time: Option<Expr>,
    /// Without a window, how long keys live after their last row; none for ever.
    pub(crate) ttl_ns: Option<i64>,
    /// Over the results of windows, which bound of theirs the event time is.
    pub(crate) results: Option<ResultTime>,
}

/// The first rows of each window and key. Output: what a row does to earlier ones if that is asked for, the input's
/// columns, the window's if there is a window, the rank.
#[derive(Debug, Clone)]
pub(crate) struct TopN {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) at_most: usize,
    pub(crate) by: RankedBy,
    pub(crate) ranking: Ranking,
    pub(crate) emit: EmitMode,
    schema: DFSchemaRef,
}

impl TopN {
    pub(crate) fn try_new(
        input: Arc<LogicalPlan>,
        at_most: usize,
        by: RankedBy,
        ranking: Ranking,
        emit: EmitMode,
    ) -> Result<Self> {
        let mut fields = vec![];
        if emit.has_ops() {
            fields.push((None, Arc::new(Field::new(OP, DataType::Utf8, false))));
        }
        fields.extend(input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))));
        if let Some(window) = &by.window {
            let data_type = window.start.get_type(input.schema())?;
            let columns = window.columns().iter();
            fields.extend(columns.map(|name| (None, Arc::new(Field::new(*name, data_type.clone(), true)))));
        }
        fields.push((None, Arc::new(Field::new(RANK, DataType::UInt64, false))));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(Self { input, at_most, by, ranking, emit, schema })
    }

    /// The same with changes that are told by rows.
    pub(crate) fn told_by_rows(&self) -> Self {
        Self { ranking: Ranking::Changes { by_rank: false }, ..self.clone() }
    }

    /// How many columns come out.
    pub(crate) fn schema_width(&self) -> usize {
        self.schema.fields().len()
    }

    /// Whether changes are told by rank, several of which a key has.
    pub(crate) fn has_ranks(&self) -> bool {
        self.at_most > 1 && matches!(self.ranking, Ranking::Changes { by_rank: true })
    }

    /// The key of changes that output column `index` is: the window's columns first, then the partition keys, then
    /// the rank.
    pub(crate) fn key_of(&self, index: usize) -> Option<usize> {
        let index = index.checked_sub(usize::from(self.emit.has_ops()))?;
        let width = self.input.schema().fields().len();
        let windows = self.by.window.as_ref().map_or(0, |window| window.columns().len());
        if index >= width {
            let beyond = index - width;
            return match beyond < windows {
                true => Some(beyond),
                false => self.has_ranks().then_some(windows + self.by.keys.len()),
            };
        }
        let column = self.input.schema().columns().into_iter().nth(index).map(Expr::Column)?;
        self.by.keys.iter().position(|key| *key == column).map(|key| windows + key)
    }

    /// What the keys of changes are called, in that order.
    pub(crate) fn key_names(&self) -> Vec<String> {
        let windows = self.by.window.iter().flat_map(|window| window.columns());
        let windows = windows.map(|_| "the window".to_string());
        let keys = self.by.keys.iter().map(|key| key.to_string());
        windows.chain(keys).chain(self.has_ranks().then(|| "the rank".to_string())).collect()
    }
}

// The schema follows from the rest.
impl PartialEq for TopN {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input
            && self.at_most == other.at_most
            && self.by == other.by
            && self.ranking == other.ranking
            && self.emit == other.emit
    }
}
impl Eq for TopN {}
impl Hash for TopN {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, self.at_most, &self.by, self.ranking, &self.emit).hash(state);
    }
}
impl PartialOrd for TopN {
    fn partial_cmp(&self, _: &Self) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for TopN {
    fn name(&self) -> &str {
        "TopN"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }
    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }
    fn expressions(&self) -> Vec<Expr> {
        let window = self.by.window.iter().map(|window| &window.start);
        let order = self.by.order.iter().map(|order| &order.expr);
        window.chain(&self.by.time).chain(&self.by.keys).chain(order).cloned().collect()
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "TopN: first {}, ", self.at_most)?;
        if let Some(window) = &self.by.window {
            write!(f, "window=[{} {}], ", unnormalize_col(window.start.clone()), window.shape)?;
        }
        let order: Vec<_> = self.by.order.iter().map(ToString::to_string).collect();
        write!(f, "partitionBy=[[{}]], orderBy=[[{}]], emit={}", list(&self.by.keys), order.join(", "), self.emit)
    }
    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let by = &self.by;
        let window = by.window.as_ref().map(|window| Window { start: exprs.remove(0), ..window.clone() });
        let time = by.time.as_ref().map(|_| exprs.remove(0));
        let order = exprs.split_off(by.keys.len());
        let order = by.order.iter().zip(order).map(|(order, expr)| SortExpr { expr, ..order.clone() });
        let (ttl_ns, results) = (by.ttl_ns, by.results.clone());
        let by = RankedBy { window, keys: exprs, order: order.collect(), time, ttl_ns, results };
        Self::try_new(only(inputs, "TopN")?, self.at_most, by, self.ranking, self.emit)
    }
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let (ops, width) = (usize::from(self.emit.has_ops()), self.input.schema().fields().len());
        let mut needed = column_indices(self.expressions().iter(), &self.input);
        let passed = output_columns.iter().filter_map(|column| column.checked_sub(ops));
        needed.extend(passed.filter(|column| *column < width));
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
