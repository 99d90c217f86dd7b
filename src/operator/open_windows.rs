//! The windows that rows may still fall into, each with its groups.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::common::{Result, internal_datafusion_err};

use super::aggregate_spec::WindowSpec;

/// Open windows by start, and one without a start: that of null event times, or the only one where there is no window.
/// It waits for the end.
pub(super) struct OpenWindows<G> {
    windows: BTreeMap<i64, G>,
    last: Option<G>,
}

impl<G> Default for OpenWindows<G> {
    fn default() -> Self {
        Self { windows: BTreeMap::new(), last: None }
    }
}

impl<G> OpenWindows<G> {
    /// The groups of the window that begins at `start`, which opens now if it was not open.
    pub(super) fn open(&mut self, start: Option<i64>, fresh: impl FnOnce() -> Result<G>) -> Result<&mut G> {
        Ok(match start {
            Some(start) => match self.windows.entry(start) {
                Entry::Occupied(open) => open.into_mut(),
                Entry::Vacant(free) => free.insert(fresh()?),
            },
            None => match &mut self.last {
                Some(groups) => groups,
                none => none.insert(fresh()?),
            },
        })
    }

    /// Takes out the earliest window if it ends at or before the watermark.
    pub(super) fn close(&mut self, window: &WindowSpec, watermark: i64) -> Option<(i64, G)> {
        let first = self.windows.first_entry()?;
        window.is_closed(*first.key(), watermark).then(|| first.remove_entry())
    }

    /// Takes all windows out, the earliest first and the one without a start last.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Option<i64>, G)> + use<G> {
        let windows = std::mem::take(&mut self.windows).into_iter().map(|(start, groups)| (Some(start), groups));
        windows.chain(self.last.take().map(|groups| (None, groups)))
    }

    /// How many windows with a start are open.
    pub(super) fn count(&self) -> u64 {
        self.windows.len() as u64
    }

    /// Whether the window without a start is open.
    pub(super) fn has_last(&self) -> bool {
        self.last.is_some()
    }

    /// The groups of all windows.
    pub(super) fn groups(&self) -> impl Iterator<Item = &G> {
        self.windows.values().chain(&self.last)
    }

    #[cfg(test)]
    pub(super) fn starts(&self) -> impl Iterator<Item = &i64> {
        self.windows.keys()
    }
}

/// The start of the window that a state batch holds: its first column, the same in every row.
pub(super) fn start_of(state: &RecordBatch) -> Result<Option<i64>> {
    let starts = state.columns().first().and_then(|starts| starts.as_primitive_opt::<Int64Type>());
    let starts = starts.filter(|starts| !starts.is_empty());
    let starts = starts.ok_or_else(|| internal_datafusion_err!("the state of a window begins with its start"))?;
    Ok(starts.is_valid(0).then(|| starts.value(0)))
}
