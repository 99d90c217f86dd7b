//! A window some of which is on disk, or what waits for the end without one: it is answered a part of its keys at a time, so
//! that only the groups of one part are in memory.

use arrow::array::RecordBatch;
use datafusion::common::Result;

use crate::operator::aggregate_spec::AggregateSpec;
use crate::operator::groups::Groups;
use crate::operator::open_windows::{Slice, Window};
use crate::operator::pane::Pane;
use crate::operator::spill::{Divided, PARTS};
use crate::operator::states::StateRows;

/// A window that is being answered.
pub(super) struct Closing {
    window: Option<Window>,
    panes: Vec<(Option<Slice>, Pane)>,
    /// What each pane has in memory, by the values of keys: their numbers may change meanwhile.
    in_memory: Vec<Vec<Divided>>,
    /// The next part of its keys.
    part: usize,
    /// How many there have been.
    pub(super) rows: usize,
}

impl Closing {
    /// A window of panes without groups that rows still come to; `with_values` gives states by the values of keys, which are
    /// their first `keys` columns.
    pub(super) fn try_new(
        window: Option<Window>,
        panes: Vec<(Option<Slice>, Pane)>,
        keys: usize,
        with_values: impl Fn(&RecordBatch) -> Result<RecordBatch>,
    ) -> Result<Self> {
        let (mut panes, mut in_memory) = (panes, vec![]);
        for (_, pane) in &mut panes {
            let sealed = std::mem::take(&mut pane.sealed).into_iter();
            let divided = sealed.map(|states| Divided::by_keys(with_values(&states.to_batch())?, keys));
            in_memory.push(divided.collect::<Result<_>>()?);
        }
        Ok(Self { window, panes, in_memory, part: 0, rows: 0 })
    }

    pub(super) fn has_more(&self) -> bool {
        self.part < PARTS
    }

    /// Appends the rows of the next part, if there are any.
    pub(super) fn answer_part(&mut self, spec: &AggregateSpec, output: &mut Vec<RecordBatch>) -> Result<()> {
        let mut groups = Groups::try_new(spec)?;
        for ((_, pane), in_memory) in self.panes.iter().zip(&self.in_memory) {
            let from_disk = pane.spilled.iter().map(|spilled| spilled.part(self.part));
            for states in from_disk.chain(in_memory.iter().map(|divided| divided.part(self.part))) {
                if let Some(states) = states? {
                    groups.merge(spec, &states)?;
                }
            }
        }
        let (rows, columns) = groups.finish()?;
        if rows > 0 {
            output.push(spec.output(self.window, rows, columns)?);
        }
        (self.part, self.rows) = (self.part + 1, self.rows + rows);
        Ok(())
    }

    /// The panes, for the windows after it; `with_numbers` gives states as they are kept.
    pub(super) fn into_panes(
        self,
        mut with_numbers: impl FnMut(RecordBatch) -> Result<RecordBatch>,
    ) -> Result<Vec<(Option<Slice>, Pane)>> {
        let mut panes = self.panes;
        for ((_, pane), in_memory) in panes.iter_mut().zip(self.in_memory) {
            for divided in in_memory {
                pane.sealed.push(StateRows::all(with_numbers(divided.into_states())?));
            }
        }
        Ok(panes)
    }

    /// Bytes held.
    pub(super) fn size(&self) -> usize {
        let in_memory = self.in_memory.iter().flatten().map(Divided::size);
        self.panes.iter().map(|(_, pane)| pane.size()).sum::<usize>() + in_memory.sum::<usize>()
    }
}
