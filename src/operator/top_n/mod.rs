//! Top-N and deduplication: `ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) <= n` without numbering all rows.
//!
//! | file | what |
//! |---|---|
//! | `best_rows.rs` | the best rows of each group, at most n |
//! | `aggregate.rs` | the same as an aggregate, for windows to keep |
//! | `windowed.rs` | what a window's best rows are when it closes, in order of rank |
//! | `changelog.rs` | the changes of what the best rows are |

mod aggregate;
mod best_rows;
mod changelog;
#[cfg(test)]
mod tests;
mod windowed;

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, UInt32Array, UInt64Array};
use arrow::compute::{SortOptions, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::scalar::ScalarValue;

use super::aggregate_spec::{AggregateSpec, Derived, Ttl, WindowSpec};
use super::groups::Groups;
use aggregate::best_rows;
use best_rows::BestRowsSpec;
pub(crate) use changelog::ChangelogTopN;
pub(crate) use windowed::WindowTopN;

/// What ranks rows, and how many of them are kept. Output: the input's columns, those that say which window a row is
/// of if there is a window, the rank.
#[derive(Debug)]
pub(crate) struct TopNSpec {
    /// The same as a GROUP BY of the partition keys, whose one aggregate is the best rows.
    pub(crate) groups: Arc<AggregateSpec>,
    pub(crate) schema: SchemaRef,
    best: BestRowsSpec,
    /// Columns of the input, all of which are kept.
    kept: usize,
    order: Vec<Arc<dyn PhysicalExpr>>,
}

impl TopNSpec {
    /// Ranks rows of `input` by `order` for each window and key, for as long as keys live. `schema` is that of the output.
    ///
    /// # Errors
    /// Expressions that have no type over this input.
    pub(crate) fn try_new(
        at_most: usize,
        window: Option<WindowSpec>,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        ttl: Option<Ttl>,
        order: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
        input: &SchemaRef,
        schema: SchemaRef,
    ) -> Result<Self> {
        let (mut exprs, mut options): (Vec<_>, Vec<_>) = order.into_iter().unzip();
        if exprs.is_empty() {
            // Without an order the first rows are the best.
            exprs.push(Arc::new(Literal::new(ScalarValue::Boolean(Some(true)))) as _);
            options.push(SortOptions::default());
        }
        let types = exprs.iter().map(|expr| expr.data_type(input)).collect::<Result<Vec<_>>>()?;
        let best = BestRowsSpec { at_most, order: types.into_iter().zip(options).collect() };
        let column = |(index, field): (usize, &Arc<Field>)| Arc::new(Column::new(field.name(), index)) as _;
        let columns: Vec<Arc<dyn PhysicalExpr>> = input.fields().iter().enumerate().map(column).collect();
        let kept = columns.len();
        let rows = best_rows(columns, exprs.clone(), best.clone(), input)?;
        let windows = window.as_ref().map_or(0, |window| 1 + usize::from(window.shape.has_own_end()));
        let mut fields: Vec<_> = schema.fields().iter().skip(kept).take(windows).cloned().collect();
        let mut named = vec![];
        for (index, key) in keys.into_iter().enumerate() {
            let name = format!("key{index}");
            fields.push(Arc::new(Field::new(&name, key.data_type(input)?, true)));
            named.push((key, name));
        }
        fields.push(Arc::new(Field::new("rows", rows.field().data_type().clone(), true)));
        let groups = AggregateSpec {
            window,
            keys: named,
            aggregates: vec![Arc::new(rows)],
            filters: vec![None],
            schema: Arc::new(Schema::new(fields)),
            is_ordered: true,
            is_numbered: false,
            totals: vec![],
            ttl,
            derived: Derived::default(),
        };
        Ok(Self { groups: Arc::new(groups), schema, best, kept, order: exprs })
    }

    /// How many rows of a key are kept.
    pub(crate) fn at_most(&self) -> usize {
        self.best.at_most
    }

    /// What they are ordered by.
    pub(crate) fn order(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.order
    }

    /// The best rows of each key of a batch, all of whose rows there are.
    pub(crate) fn rank(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut groups = Groups::try_new(&self.groups)?;
        groups.update(&self.groups.evaluate(batch)?)?;
        let (rows, columns) = groups.finish()?;
        self.rows(&self.groups.output(None, rows, columns)?)
    }

    /// The rows of lists of them.
    pub(crate) fn rows(&self, lists: &RecordBatch) -> Result<RecordBatch> {
        let no_lists = || internal_datafusion_err!("the best rows come as a list");
        let (rows, windows) = lists.columns().split_last().ok_or_else(no_lists)?;
        let rows = rows.as_list_opt::<i32>().ok_or_else(no_lists)?;
        let (of_list, ranks) = places_in_lists(rows);
        let mut columns = rows.values().as_struct().columns().to_vec();
        for window in windows.iter().take(self.groups.window_columns()) {
            columns.push(take(window, &of_list, None)?);
        }
        columns.push(Arc::new(ranks));
        self.output(&self.schema, columns, of_list.len())
    }

    /// A batch of these columns.
    fn output(&self, schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }
}

/// For each row of lists the list that it is in, and its rank there.
fn places_in_lists(lists: &ListArray) -> (UInt32Array, UInt64Array) {
    let (mut of_list, mut ranks) = (vec![], vec![]);
    for (list, ends) in lists.value_offsets().windows(2).enumerate() {
        let length = (ends[1] - ends[0]) as usize;
        of_list.resize(of_list.len() + length, list as u32);
        ranks.extend(1..=length as u64);
    }
    (UInt32Array::from(of_list), UInt64Array::from(ranks))
}

impl fmt::Display for TopNSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(window) = &self.groups.window {
            write!(f, "window={} {}, ", window.start, window.shape)?;
        }
        let keys: Vec<_> = self.groups.keys.iter().map(|(key, _)| key.to_string()).collect();
        let way = |options: &SortOptions| if options.descending { " DESC" } else { "" };
        let order =
            self.order.iter().zip(&self.best.order).map(|(expr, (_, options))| format!("{expr}{}", way(options)));
        let order = order.collect::<Vec<_>>().join(", ");
        write!(f, "first {} by [{order}] of [{}]", self.best.at_most, keys.join(", "))?;
        self.groups.ttl.as_ref().map_or(Ok(()), |ttl| write!(f, ", {ttl}"))
    }
}
