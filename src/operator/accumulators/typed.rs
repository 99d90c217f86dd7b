//! The slots of a typed aggregate, and the loop over a batch's rows that all kinds share.

use std::mem::needs_drop;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use datafusion::common::Result;

use super::{Joined, RunningAggregate, Slots, live_rows};
use crate::operator::near::{TOGETHER, bring_near};

/// A kind of aggregate: what it holds of a group, and what it does with a row.
pub(super) trait Kind: Send + 'static {
    /// What is held of one group; the default is that of no rows.
    type Slot: Clone + Default + Send;
    /// A batch's arguments.
    type Input;
    /// Values in the making.
    type Output;
    /// Values: a column, or several.
    type Values;

    /// The arguments of a batch by their type.
    fn input(&self, arguments: &[ArrayRef]) -> Result<Self::Input>;

    /// Which rows count; none if all do.
    fn live(&self, arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Option<BooleanBuffer> {
        live_rows(arguments, filter)
    }

    /// Takes a row that counts in.
    fn take(&self, slot: &mut Self::Slot, input: &Self::Input, row: usize);

    /// Whether each row that counts has a value that [`Kind::take_value`] takes, which is asked once for a batch, and slots hold
    /// nothing elsewhere.
    fn has_all_values(&self, _: &Self::Input) -> bool {
        !needs_drop::<Self::Slot>()
    }

    /// Takes such a row in.
    #[inline(always)]
    fn take_value(&self, slot: &mut Self::Slot, input: &Self::Input, row: usize) {
        self.take(slot, input, row);
    }

    /// Takes in what another slot has seen later.
    fn merge(&self, into: &mut Self::Slot, from: Self::Slot);

    /// Room for so many values.
    fn output(&self, rows: usize) -> Self::Output;

    /// Writes the value of a slot; [`Kind::finish`] tells if there is none.
    fn write(&self, slot: &Self::Slot, output: &mut Self::Output);

    /// The values that were written.
    ///
    /// # Errors
    /// A value that its type cannot hold.
    fn finish(&self, output: Self::Output) -> Result<Self::Values>;

    /// Slots as columns.
    fn state(&self, slots: &[Self::Slot]) -> Result<Vec<ArrayRef>>;

    /// Slots from such columns.
    fn restore(&self, state: &[ArrayRef]) -> Result<Vec<Self::Slot>>;

    /// Number of such columns.
    fn state_width(&self) -> usize;

    /// Bytes that a slot holds elsewhere.
    fn heap(_: &Self::Slot) -> usize {
        0
    }

    /// Something of a slot, whatever is read first.
    fn glance(slot: &Self::Slot) -> u64;
}

/// Bytes of slots that are near anyway.
const NEAR: usize = 1 << 18;

/// What is done with a slot after each row.
trait After<K: Kind> {
    fn row(&mut self, kind: &K, slot: &K::Slot);
}

/// Nothing.
impl<K: Kind> After<K> for () {
    fn row(&mut self, _: &K, _: &K::Slot) {}
}

/// Its value is written. Inlined in any case: a call for each row costs more than the write.
struct Write<O>(O);

impl<K: Kind> After<K> for Write<K::Output> {
    #[inline(always)]
    fn row(&mut self, kind: &K, slot: &K::Slot) {
        kind.write(slot, &mut self.0);
    }
}

/// An aggregate of one kind.
struct Typed<K: Kind> {
    kind: K,
    slots: Vec<K::Slot>,
    /// Bytes that the slots hold elsewhere.
    heap: usize,
}

/// An aggregate of a kind.
pub(super) fn typed<K: Kind>(kind: K) -> Box<dyn RunningAggregate<K::Values>> {
    Box::new(Typed { kind, slots: vec![], heap: 0 })
}

impl<K: Kind> Typed<K> {
    /// Takes rows in, and shows each row's slot after it.
    fn take_in(
        &mut self,
        slots: Slots,
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
        after: &mut impl After<K>,
    ) -> Result<()> {
        let input = self.kind.input(arguments)?;
        self.grow(slots.total);
        let live = self.kind.live(arguments, filter);
        let is_plain = live.is_none() && self.kind.has_all_values(&input);
        for (joins, rows) in slots.pieces(TOGETHER) {
            if rows.start % TOGETHER == 0 {
                let together = rows.start..slots.rows.len().min(rows.start + TOGETHER);
                self.fetch(&slots.rows[together]);
            }
            joins.iter().for_each(|join| self.join(join));
            let Self { kind, slots: all, heap } = self;
            let of_rows = rows.clone().zip(&slots.rows[rows]);
            if is_plain {
                for (row, slot) in of_rows {
                    let slot = &mut all[*slot];
                    kind.take_value(slot, &input, row);
                    after.row(kind, slot);
                }
                continue;
            }
            for (row, slot) in of_rows {
                let slot = &mut all[*slot];
                if live.as_ref().is_none_or(|live| live.value(row)) {
                    *heap -= K::heap(slot);
                    kind.take(slot, &input, row);
                    *heap += K::heap(slot);
                }
                after.row(kind, slot);
            }
        }
        Ok(())
    }

    /// Brings slots near, of which each row does so much that few others are begun while it waits for its own.
    fn fetch(&self, groups: &[usize]) {
        if self.slots.len() * size_of::<K::Slot>() > NEAR {
            bring_near(groups.iter().map(|group| self.slots.get(*group).map_or(0, K::glance)));
        }
    }

    fn grow(&mut self, total: usize) {
        self.slots.resize(total.max(self.slots.len()), K::Slot::default());
    }

    fn join(&mut self, join: &Joined) {
        let from = self.empty(join.from);
        let into = &mut self.slots[join.into];
        self.heap -= K::heap(into);
        self.kind.merge(into, from);
        self.heap += K::heap(into);
    }

    /// Takes what a slot holds out of it.
    fn empty(&mut self, slot: usize) -> K::Slot {
        let slot = self.slots.get_mut(slot).map(std::mem::take).unwrap_or_default();
        self.heap -= K::heap(&slot);
        slot
    }
}

impl<K: Kind> RunningAggregate<K::Values> for Typed<K> {
    fn update(&mut self, slots: Slots, arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<K::Values> {
        let mut output = Write(self.kind.output(slots.rows.len()));
        self.take_in(slots, arguments, filter, &mut output)?;
        self.kind.finish(output.0)
    }

    fn accumulate(&mut self, slots: Slots, arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<()> {
        self.take_in(slots, arguments, filter, &mut ())
    }

    fn values(&mut self, slots: &[usize]) -> Result<K::Values> {
        let (mut output, empty) = (self.kind.output(slots.len()), K::Slot::default());
        for slot in slots {
            self.kind.write(self.slots.get(*slot).unwrap_or(&empty), &mut output);
        }
        self.kind.finish(output)
    }

    fn take(&mut self, slots: &[usize]) -> Result<K::Values> {
        let (mut output, empty) = (self.kind.output(slots.len()), K::Slot::default());
        for slots in slots.chunks(TOGETHER) {
            self.fetch(slots);
            for slot in slots {
                match self.slots.get_mut(*slot) {
                    Some(slot) => {
                        self.heap -= K::heap(slot);
                        self.kind.write(slot, &mut output);
                        slot.clone_from(&empty);
                    }
                    None => self.kind.write(&empty, &mut output),
                }
            }
        }
        self.kind.finish(output)
    }

    fn clear(&mut self, slots: &[usize]) -> Result<()> {
        for slot in slots {
            self.empty(*slot);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ArrayRef>> {
        self.kind.state(&self.slots)
    }

    fn put(&mut self, slots: &[usize], total: usize, state: &[ArrayRef]) -> Result<()> {
        self.grow(total);
        for (slot, state) in slots.iter().zip(self.kind.restore(state)?) {
            self.heap += K::heap(&state);
            self.slots[*slot] = state;
        }
        Ok(())
    }

    fn state_width(&self) -> Result<usize> {
        Ok(self.kind.state_width())
    }

    fn size(&self) -> usize {
        self.slots.capacity() * size_of::<K::Slot>() + self.heap
    }
}
