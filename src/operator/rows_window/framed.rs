//! Values of functions over frames that are given row by row, whichever they are.
//!
//! | function | how |
//! |---|---|
//! | count, sum, avg, min, max of numbers | two stacks, see `sliding.rs` |
//! | any aggregate of a frame that only grows | a running value, see `running.rs` |
//! | first_value, last_value, nth_value, lag, lead | the row is picked |
//! | everything else | DataFusion's accumulator or evaluator over the rows of the frame, anew for each row |

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, new_null_array};
use arrow::compute::filter;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::window::StandardWindowFunctionExpr;

use super::frames::{Due, Marks};
use super::history::History;
use super::spec::{RowsFunction, RowsFunctionKind};
use super::{running, sliding};
use crate::operator::pool::{Pool, RowId};

/// One function's values over frames.
pub(super) trait Framed: Send {
    /// The values of rows that fall due, in order for each key.
    fn values(&mut self, due: &[Due], groups_total: usize, rows: &Rows<'_>) -> Result<ArrayRef>;
    /// No row of the key so far is needed any more.
    fn forget(&mut self, _: usize) {}
    /// Another key has the number from now on.
    fn restart(&mut self, group: usize) -> Result<()> {
        self.forget(group);
        Ok(())
    }
    /// What the held rows do not say of some keys, a row for each.
    fn rows_of(&mut self, groups: &[usize]) -> Result<ArrayRef> {
        Ok(new_null_array(&DataType::Null, groups.len()))
    }
    /// Puts such rows in, of keys that it knows nothing of; the marks are those of all keys.
    fn put(&mut self, _groups: &[usize], _rows: &ArrayRef, _marks: &[Marks]) -> Result<()> {
        Ok(())
    }
    /// Bytes held.
    fn size(&self) -> usize {
        0
    }
}

/// The held rows of a function: its arguments, and which of them its FILTER lets pass.
pub(super) struct Rows<'a> {
    pub(super) history: &'a History,
    pub(super) pool: &'a Pool,
    /// Which columns of the pool the arguments are.
    pub(super) arguments: Range<usize>,
    pub(super) filter: Option<usize>,
    /// The filter in each chunk.
    live: Vec<Option<&'a BooleanArray>>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(history: &'a History, pool: &'a Pool, arguments: Range<usize>, filter: Option<usize>) -> Self {
        let of_chunk = |chunk: Option<&'a ArrayRef>| chunk.and_then(|chunk| chunk.as_boolean_opt());
        let live = filter.map(|filter| pool.column(filter).map(of_chunk).collect()).unwrap_or_default();
        Self { history, pool, arguments, filter, live }
    }

    pub(super) fn id(&self, group: usize, row: usize) -> RowId {
        self.history.keys[group].id(row)
    }

    pub(super) fn place(&self, group: usize, row: usize) -> (usize, usize) {
        self.pool.place(self.id(group, row))
    }

    pub(super) fn is_live(&self, chunk: usize, row: usize) -> bool {
        self.live.get(chunk).copied().flatten().is_none_or(|live| live.is_valid(row) && live.value(row))
    }

    /// An argument in each chunk.
    pub(super) fn argument(&self, argument: usize) -> impl Iterator<Item = Option<&'a ArrayRef>> {
        self.pool.column(self.arguments.start + argument)
    }

    /// The arguments of some rows, of which there is one at least.
    pub(super) fn gather(&self, ids: &[RowId]) -> Result<Vec<ArrayRef>> {
        self.arguments.clone().map(|column| self.pool.gather(ids, column)).collect()
    }

    pub(super) fn gather_filter(&self, ids: &[RowId]) -> Result<Option<ArrayRef>> {
        self.filter.map(|column| self.pool.gather(ids, column)).transpose()
    }
}

/// The state of a function over frames.
pub(super) fn state(function: &RowsFunction, argument: &DataType) -> Result<Box<dyn Framed>> {
    let grows = function.frame.only_grows();
    let pick = |picks, default| Box::new(Pick { picks, default });
    Ok(match &function.kind {
        RowsFunctionKind::Aggregate(aggregate) if grows => running::framed(aggregate)?,
        RowsFunctionKind::Aggregate(aggregate) => match sliding::state(aggregate, argument, None) {
            Some(sliding) => sliding,
            None => Box::new(Anew(Computes::Aggregate(Arc::clone(aggregate)))),
        },
        RowsFunctionKind::Evaluator(evaluator) => Box::new(Anew(Computes::Evaluator(Arc::clone(evaluator)))),
        RowsFunctionKind::LastValue => pick(Picks::Nth(-1), new_null_array(argument, 1)),
        RowsFunctionKind::NthValue(nth) => pick(Picks::Nth(*nth), new_null_array(argument, 1)),
        RowsFunctionKind::Shift { offset, default } => {
            pick(Picks::Shifted(*offset), default.cast_to(argument)?.to_array()?)
        }
        _ => pick(Picks::Nth(1), new_null_array(argument, 1)),
    })
}

/// How many first rows of a key a function wants forever, and how many before the end of a frame that only grows.
pub(super) fn wants(function: &RowsFunction) -> (usize, usize) {
    let nth = match &function.kind {
        RowsFunctionKind::FirstValue => 1,
        RowsFunctionKind::LastValue => -1,
        RowsFunctionKind::NthValue(nth) => *nth,
        _ => 0,
    };
    match (function.frame.only_grows(), usize::try_from(nth.unsigned_abs()).unwrap_or(usize::MAX)) {
        (false, _) => (0, 0),
        (true, rows) if nth > 0 => (rows, 0),
        (true, rows) => (0, rows),
    }
}

enum Picks {
    /// The n-th row of the frame, from its end where negative.
    Nth(i64),
    Shifted(i64),
}

/// Functions that give the value of one row.
struct Pick {
    picks: Picks,
    /// The value where there is no such row.
    default: ArrayRef,
}

impl Pick {
    fn row(&self, due: &Due, rows: usize) -> Option<usize> {
        let row = match self.picks {
            Picks::Nth(nth @ 1..) => due.start.checked_add(usize::try_from(nth - 1).ok()?)?,
            Picks::Nth(nth) => due.end.checked_sub(usize::try_from(nth.unsigned_abs()).ok()?)?,
            Picks::Shifted(offset) => {
                let row = due.row.checked_add_signed(isize::try_from(offset).ok()?)?;
                return (row < rows).then_some(row);
            }
        };
        (due.start..due.end).contains(&row).then_some(row)
    }
}

impl Framed for Pick {
    fn values(&mut self, due: &[Due], _: usize, rows: &Rows<'_>) -> Result<ArrayRef> {
        let id = |due: &Due| {
            let key = &rows.history.keys[due.group];
            self.row(due, key.len()).map(|row| key.id(row))
        };
        let ids: Vec<Option<RowId>> = due.iter().map(id).collect();
        rows.pool.gather_or(&ids, rows.arguments.start, Some(&self.default))
    }
}

enum Computes {
    Aggregate(Arc<AggregateFunctionExpr>),
    Evaluator(Arc<dyn StandardWindowFunctionExpr>),
}

/// Functions that are computed anew from all rows of a frame.
struct Anew(Computes);

impl Anew {
    fn value(&self, arguments: &[ArrayRef]) -> Result<ScalarValue> {
        let rows = arguments.first().map_or(0, |argument| argument.len());
        match &self.0 {
            Computes::Aggregate(aggregate) => {
                let mut accumulator = aggregate.create_accumulator()?;
                accumulator.update_batch(arguments)?;
                accumulator.evaluate()
            }
            Computes::Evaluator(evaluator) => evaluator.create_evaluator()?.evaluate(arguments, &(0..rows)),
        }
    }
}

impl Framed for Anew {
    fn values(&mut self, due: &[Due], _: usize, rows: &Rows<'_>) -> Result<ArrayRef> {
        // The rows of a key's frames follow each other, so that all frames are slices of one copy.
        let mut spans: HashMap<usize, (Range<usize>, usize)> = HashMap::new();
        for due in due {
            let (span, _) = spans.entry(due.group).or_insert((due.start..due.end, 0));
            *span = span.start.min(due.start)..span.end.max(due.end);
        }
        let mut ids = vec![];
        for (group, (span, offset)) in &mut spans {
            *offset = ids.len();
            ids.extend(span.clone().map(|row| rows.id(*group, row)));
        }
        // All frames are empty, but types are wanted.
        if ids.is_empty() {
            ids.extend(due.first().map(|due| rows.id(due.group, due.row)));
        }
        let (arguments, live) = (rows.gather(&ids)?, rows.gather_filter(&ids)?);
        let value = |due: &Due| {
            let offset = spans.get(&due.group).map_or(0, |(span, offset)| offset + due.start - span.start);
            let slice = |array: &ArrayRef| array.slice(offset, due.end - due.start);
            let arguments = arguments.iter().map(slice);
            let arguments: Vec<ArrayRef> = match live.as_ref().map(slice) {
                None => arguments.collect(),
                Some(live) => arguments.map(|array| Ok(filter(&array, live.as_boolean())?)).collect::<Result<_>>()?,
            };
            self.value(&arguments)
        };
        ScalarValue::iter_to_array(due.iter().map(value).collect::<Result<Vec<_>>>()?)
    }
}
