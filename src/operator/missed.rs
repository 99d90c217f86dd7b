//! The rows of a batch that an operator left out, or that missed some of their windows, for a ledger of late rows.

/// Why a row is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    /// It came after all of its windows had closed, or, for OVER, behind the watermark.
    All,
    /// It came after some of its windows had closed, and is in the others.
    Some,
    /// No window holds it.
    Between,
}

/// A row of a batch that missed windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MissedRow {
    /// Its number in the batch.
    pub(crate) row: u32,
    pub(crate) missed: Missed,
    /// Start and end of the last window that it missed, in ticks; none for OVER and between windows.
    pub(crate) window: Option<(i64, i64)>,
}

/// The rows of the last batch that missed windows. Nobody asks for them in the usual run, and then they are only counted.
#[derive(Debug, Default)]
pub struct MissedRows {
    is_wanted: bool,
    /// Row of the batch that row 0 of what is looked at now stands for.
    first: usize,
    rows: Vec<MissedRow>,
}

impl MissedRows {
    /// From now on such rows are kept until they are taken.
    pub(crate) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Whether somebody wants them.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Adds rows of the whole batch, and puts all in its order.
    pub(super) fn put(&mut self, rows: Vec<MissedRow>) {
        self.rows.extend(rows);
        self.rows.sort_by_key(|missed| missed.row);
    }

    /// What is looked at next begins at this row of the batch.
    pub(super) fn begin_at(&mut self, first: usize) {
        self.first = first;
    }

    /// Adds a row; what is not wanted is not asked for its window.
    pub(super) fn add(&mut self, row: usize, missed: Missed, window: impl FnOnce() -> Option<(i64, i64)>) {
        if self.is_wanted {
            self.rows.push(MissedRow { row: (self.first + row) as u32, missed, window: window() });
        }
    }

    /// Takes what was kept of the last batch.
    pub(crate) fn take(&mut self) -> Vec<MissedRow> {
        std::mem::take(&mut self.rows)
    }
}
