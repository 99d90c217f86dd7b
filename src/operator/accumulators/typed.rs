//! The slots of a typed aggregate, and the loop over a batch's rows that all kinds share.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use datafusion::common::Result;

use super::{RunningAggregate, live_rows};

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

/// Rows whose slots are fetched at once: so few that they stay near.
const FETCHED: usize = 256;
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
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
        after: &mut impl After<K>,
    ) -> Result<()> {
        let input = self.kind.input(arguments)?;
        self.grow(groups_total);
        let live = self.kind.live(arguments, filter);
        let mut row = 0;
        for groups in groups.chunks(FETCHED) {
            self.fetch(groups);
            let Self { kind, slots, heap } = self;
            for group in groups {
                let slot = &mut slots[*group];
                if live.as_ref().is_none_or(|live| live.value(row)) {
                    *heap -= K::heap(slot);
                    kind.take(slot, &input, row);
                    *heap += K::heap(slot);
                }
                after.row(kind, slot);
                row += 1;
            }
        }
        Ok(())
    }

    /// Brings slots near, all at once: each row does so much that few others are begun while it waits for its slot.
    fn fetch(&self, groups: &[usize]) {
        if self.slots.len() * size_of::<K::Slot>() > NEAR {
            let glance = |group: &usize| self.slots.get(*group).map_or(0, K::glance);
            std::hint::black_box(groups.iter().fold(0, |all, group| all ^ glance(group)));
        }
    }

    fn grow(&mut self, total: usize) {
        self.slots.resize(total.max(self.slots.len()), K::Slot::default());
    }

    /// Takes what a slot holds out of it.
    fn empty(&mut self, slot: usize) -> K::Slot {
        let slot = self.slots.get_mut(slot).map(std::mem::take).unwrap_or_default();
        self.heap -= K::heap(&slot);
        slot
    }
}

impl<K: Kind> RunningAggregate<K::Values> for Typed<K> {
    fn update(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<K::Values> {
        let mut output = Write(self.kind.output(groups.len()));
        self.take_in(groups, groups_total, arguments, filter, &mut output)?;
        self.kind.finish(output.0)
    }

    fn accumulate(
        &mut self,
        groups: &[usize],
        groups_total: usize,
        arguments: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<()> {
        self.take_in(groups, groups_total, arguments, filter, &mut ())
    }

    fn values(&mut self, slots: &[usize]) -> Result<K::Values> {
        let (mut output, empty) = (self.kind.output(slots.len()), K::Slot::default());
        for slot in slots {
            self.kind.write(self.slots.get(*slot).unwrap_or(&empty), &mut output);
        }
        self.kind.finish(output)
    }

    fn take(&mut self, slots: &[usize]) -> Result<K::Values> {
        let mut output = self.kind.output(slots.len());
        for slots in slots.chunks(FETCHED) {
            self.fetch(slots);
            for slot in slots {
                let taken = self.empty(*slot);
                self.kind.write(&taken, &mut output);
            }
        }
        self.kind.finish(output)
    }

    fn merge(&mut self, into: usize, from: usize) -> Result<()> {
        if into != from {
            self.grow(into + 1);
            let from = self.empty(from);
            let into = &mut self.slots[into];
            self.heap -= K::heap(into);
            self.kind.merge(into, from);
            self.heap += K::heap(into);
        }
        Ok(())
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

    fn restore(&mut self, state: &[ArrayRef]) -> Result<()> {
        self.slots = self.kind.restore(state)?;
        self.heap = self.slots.iter().map(K::heap).sum();
        Ok(())
    }

    fn state_width(&self) -> Result<usize> {
        Ok(self.kind.state_width())
    }

    fn size(&self) -> usize {
        self.slots.capacity() * size_of::<K::Slot>() + self.heap
    }
}
