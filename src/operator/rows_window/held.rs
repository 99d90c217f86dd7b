//! Rows that have been released in order but whose values are not all known yet, or that frames may still reach.
//!
//! ```text
//!   released rows ─▶ pool ─▶ history of each PARTITION BY ─▶ frames ─▶ rows due ─▶ values
//!                      │                                                             │
//!                      └────────────────── rows that have all values ◀───────────────┘
//! ```
//!
//! A row is in the pool while it waits for a value of its own or a history holds it. A row that has the values of one
//! frame and waits for those of another leaves the first ones in a pool of that frame's.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;

use super::framed::{self, Framed, Rows, wants};
use super::frames::FrameState;
use super::history::{History, Moment};
use super::partitioning::Partitioning;
use super::spec::{Frame, RowsFunction, RowsWindowSpec};
use crate::operator::pool::{Pool, RELEASED_ROWS_MAX, RowId};
use crate::operator::ticks;

/// A function over a frame, and where its arguments are among the pool's columns.
pub(super) struct Column {
    /// Place of the function in the query.
    pub(super) index: usize,
    pub(super) arguments: Range<usize>,
    pub(super) filter: Option<usize>,
    pub(super) function: Box<dyn Framed>,
}

/// A frame, the functions over it, and the values that they have given.
pub(super) struct Framing {
    pub(super) partitioning: usize,
    pub(super) state: FrameState,
    pub(super) columns: Vec<Column>,
    pub(super) values: Pool,
    /// For each row of the pool the number of its values.
    pub(super) answers: Vec<Option<RowId>>,
}

/// The held rows of an OVER query.
pub(super) struct Held {
    pub(super) spec: Arc<RowsWindowSpec>,
    /// Columns of the pool: rows as they are given on, then what functions read.
    pub(super) given: usize,
    pub(super) pool: Pool,
    /// By partitioning, where any frame goes by it.
    pub(super) histories: Vec<Option<History>>,
    pub(super) framings: Vec<Framing>,
    /// For each row of the pool the frames that it waits for.
    pub(super) missing: Vec<u16>,
    /// The filters and arguments that the pool keeps.
    pub(super) reads: Vec<Arc<dyn PhysicalExpr>>,
    /// The types of the pool's columns, once there has been a row.
    pub(super) types: Option<Vec<DataType>>,
}

/// Rows with the values of their frames: the given columns, and for each function its place and values.
pub(super) struct Answered {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) values: Vec<(usize, ArrayRef)>,
}

impl Held {
    /// `given` columns come with each batch of rows.
    pub(super) fn new(spec: &Arc<RowsWindowSpec>, given: usize, partitions: usize) -> Self {
        Self {
            spec: Arc::clone(spec),
            given,
            pool: Pool::default(),
            histories: (0..partitions).map(|_| None).collect(),
            framings: vec![],
            missing: vec![],
            reads: vec![],
            types: None,
        }
    }

    /// Adds the function at `index` of the query, which goes by `partitioning`.
    pub(super) fn add_function(&mut self, index: usize, function: &RowsFunction, partitioning: usize) -> Result<()> {
        let argument = self.spec.argument_type(function)?;
        let first = self.given + self.reads.len();
        self.reads.extend(function.arguments.iter().cloned());
        let arguments = first..self.given + self.reads.len();
        let filter = function.filter.as_ref().map(|_| arguments.end);
        self.reads.extend(function.filter.clone());
        let column = Column { index, arguments, filter, function: framed::state(function, &argument)? };
        let (pins, looks_back) = wants(function);
        let history = self.histories[partitioning].get_or_insert_default();
        history.pins = history.pins.max(pins);
        let same = |known: &&mut Framing| known.partitioning == partitioning && known.state.frame == function.frame;
        let framing = match self.framings.iter_mut().find(same) {
            Some(_) => self.framings.iter_mut().find(same),
            None => {
                let state = FrameState::new(function.frame.clone());
                let (columns, values, answers) = (vec![], Pool::default(), vec![]);
                self.framings.push(Framing { partitioning, state, columns, values, answers });
                self.framings.last_mut()
            }
        };
        if let Some(framing) = framing {
            framing.state.looks_back = framing.state.looks_back.max(looks_back);
            framing.columns.push(column);
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.framings.is_empty()
    }

    /// Whether rows wait for later ones of their key, and so for the end where there are none.
    pub(super) fn waits_for_rows(&self) -> bool {
        self.framings.iter().any(|framing| matches!(framing.state.frame, Frame::Rows { end: 1.., .. }))
    }

    /// Takes in the next rows in order, as they are given on; their keys are numbered.
    pub(super) fn add(&mut self, rows: &RecordBatch, given: Vec<ArrayRef>, keys: &[Partitioning]) -> Result<()> {
        let mut columns = given;
        for expr in &self.reads {
            columns.push(expr.evaluate(rows)?.into_array(rows.num_rows())?);
        }
        self.types.get_or_insert_with(|| columns.iter().map(|column| column.data_type().clone()).collect());
        let time = rows.column(self.spec.time);
        let moments = Moment::all(&ticks(time)?);
        // One holder is the row's own wait for its values.
        let holders = 1 + self.histories.iter().flatten().count() as u32;
        let ids = self.pool.add(columns, rows.num_rows(), holders);
        self.missing.resize(self.pool.ids(), 0);
        ids.iter().for_each(|id| self.missing[*id as usize] = self.framings.len() as u16);
        for (history, keys) in self.histories.iter_mut().zip(keys) {
            if let Some(history) = history {
                history.add(&keys.groups, &moments, &ids, &mut self.pool);
            }
        }
        for framing in &mut self.framings {
            let keys = &keys[framing.partitioning];
            framing.state.arrive(&keys.groups, keys.len(), time)?;
        }
        Ok(())
    }

    /// Rows whose values are all known when the watermark is `watermark` and all rows before it have been added.
    pub(super) fn answer(&mut self, watermark: i64) -> Result<Vec<Answered>> {
        let mut ready = vec![];
        for framing in &mut self.framings {
            framing.answer(watermark, &self.histories, &mut self.pool, &mut self.missing, &mut ready)?;
        }
        self.forget(watermark);
        let answered = ready.chunks(RELEASED_ROWS_MAX).map(|ready| self.take(ready)).collect::<Result<_>>()?;
        self.pool.compact()?;
        self.framings.iter_mut().try_for_each(|framing| framing.values.compact())?;
        Ok(answered)
    }

    /// Takes rows out that have all values.
    fn take(&mut self, ready: &[RowId]) -> Result<Answered> {
        let columns = (0..self.given).map(|column| self.pool.gather(ready, column)).collect::<Result<_>>()?;
        let mut values = vec![];
        for framing in &mut self.framings {
            let answers: Vec<RowId> = ready.iter().filter_map(|id| framing.answers[*id as usize].take()).collect();
            for (place, column) in framing.columns.iter().enumerate() {
                values.push((column.index, framing.values.gather(&answers, place)?));
            }
            answers.iter().for_each(|answer| framing.values.release(*answer));
        }
        ready.iter().for_each(|id| self.pool.release(*id));
        Ok(Answered { columns, values })
    }

    /// Lets go of the rows that no frame can reach any more.
    fn forget(&mut self, watermark: i64) {
        for (partitioning, history) in self.histories.iter_mut().enumerate() {
            let Some(history) = history else { continue };
            let of_history = |framing: &&mut Framing| framing.partitioning == partitioning;
            let mut touched: Vec<usize> = vec![];
            for framing in self.framings.iter_mut().filter(of_history) {
                touched.append(&mut framing.state.touched);
            }
            let framings = || self.framings.iter().filter(|framing| framing.partitioning == partitioning);
            for group in touched {
                let from = framings().map(|framing| framing.state.wants_from(group)).min().unwrap_or(0);
                history.trim(group, from, &mut self.pool);
            }
            let time_type = self.spec.input_schema.field(self.spec.time).data_type();
            let before = framings().map(|framing| framing.state.forgets_before(watermark, time_type));
            let Some(before) = before.collect::<Option<Vec<_>>>().and_then(|before| before.into_iter().min()) else {
                continue;
            };
            let mut idle = history.idle(before);
            idle.retain(|group| {
                let rows = history.keys[*group].len();
                framings().all(|framing| framing.state.is_done(*group, rows))
            });
            for group in idle {
                let rows = history.keys[group].len();
                history.clear(group, &mut self.pool);
                for framing in self.framings.iter_mut().filter(of_history) {
                    framing.state.skip(group, rows);
                    framing.columns.iter_mut().for_each(|column| column.function.forget(group));
                }
            }
        }
    }

    /// Lets go of all that is held of some keys of a partitioning, whose rows have all been answered: others have their
    /// numbers from now on.
    pub(super) fn restart(&mut self, partitioning: usize, groups: &[usize]) -> Result<()> {
        let Some(history) = &mut self.histories[partitioning] else { return Ok(()) };
        for group in groups {
            history.restart(*group, &mut self.pool);
            for framing in self.framings.iter_mut().filter(|framing| framing.partitioning == partitioning) {
                framing.state.restart(*group);
                framing.columns.iter_mut().try_for_each(|column| column.function.restart(*group))?;
            }
        }
        Ok(())
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        let framing = |framing: &Framing| {
            let functions = framing.columns.iter().map(|column| column.function.size());
            framing.state.size()
                + framing.values.size()
                + framing.answers.capacity() * size_of::<Option<RowId>>()
                + functions.sum::<usize>()
        };
        self.pool.size()
            + self.missing.capacity()
            + self.histories.iter().flatten().map(History::size).sum::<usize>()
            + self.framings.iter().map(framing).sum::<usize>()
    }
}

impl Framing {
    fn answer(
        &mut self,
        watermark: i64,
        histories: &[Option<History>],
        pool: &mut Pool,
        missing: &mut [u16],
        ready: &mut Vec<RowId>,
    ) -> Result<()> {
        let Some(history) = &histories[self.partitioning] else { return Ok(()) };
        let due = self.state.due(history, watermark);
        if due.is_empty() {
            return Ok(());
        }
        let groups_total = self.state.marks.len();
        let values = self.columns.iter_mut().map(|column| {
            let rows = Rows::new(history, pool, column.arguments.clone(), column.filter);
            column.function.values(&due, groups_total, &rows)
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        let answers = self.values.add(values, due.len(), 1);
        self.answers.resize(pool.ids(), None);
        for (due, answer) in due.iter().zip(answers) {
            let id = history.keys[due.group].id(due.row);
            self.answers[id as usize] = Some(answer);
            missing[id as usize] -= 1;
            if missing[id as usize] == 0 {
                ready.push(id);
            }
        }
        self.state.touched.extend(due.iter().map(|due| due.group));
        Ok(())
    }
}
