//! The minimum and maximum of floats, whatever the order of rows.
//!
//! DataFusion's accumulator of many groups lets the last of two values stand that do not compare, so with NaN its
//! answer hangs on the order of rows and batches. Here floats are in the total order of IEEE 754, as in DataFusion's
//! accumulator of one group: a negative NaN is less than every number, a positive one greater.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use datafusion::common::{Result, not_impl_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use num_traits::Float;

/// DataFusion's accumulator, which sees no NaN, and which groups have had one.
pub(super) struct FloatExtreme {
    numbers: Box<dyn GroupsAccumulator>,
    is_max: bool,
    /// Empty until there is one.
    nans: Vec<Nans>,
}

/// The NaNs that a group has had.
#[derive(Debug, Clone, Copy, Default)]
struct Nans {
    negative: bool,
    positive: bool,
}

impl FloatExtreme {
    /// Around DataFusion's accumulator of the minimum, or of the maximum.
    pub(super) fn new(numbers: Box<dyn GroupsAccumulator>, is_max: bool) -> Self {
        Self { numbers, is_max, nans: vec![] }
    }

    /// The values without NaN, which are noted; none if there is no NaN among them.
    fn numbers_of(
        &mut self,
        values: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<Option<ArrayRef>> {
        match values.data_type() {
            DataType::Float16 => self.note::<Float16Type>(values.as_primitive(), groups, filter, total),
            DataType::Float32 => self.note::<Float32Type>(values.as_primitive(), groups, filter, total),
            _ => self.note::<Float64Type>(values.as_primitive(), groups, filter, total),
        }
    }

    fn note<T: ArrowPrimitiveType<Native: Float>>(
        &mut self,
        values: &PrimitiveArray<T>,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<Option<ArrayRef>> {
        if !values.values().iter().fold(false, |any, value| any | value.is_nan()) {
            return Ok(None);
        }
        self.nans.resize(total.max(self.nans.len()), Nans::default());
        for (row, group) in groups.iter().enumerate() {
            let value = values.value(row);
            let counts = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if value.is_nan() && values.is_valid(row) && counts {
                self.nans[*group].negative |= value.is_sign_negative();
                self.nans[*group].positive |= value.is_sign_positive();
            }
        }
        Ok(Some(nullif(values, &BooleanArray::from_unary(values, Float::is_nan))?))
    }

    /// The extremes of groups that leave, given those of their numbers.
    fn extremes(&mut self, numbers: ArrayRef, emit_to: EmitTo) -> ArrayRef {
        if self.nans.is_empty() {
            return numbers;
        }
        self.nans.resize(numbers.len().max(self.nans.len()), Nans::default());
        let nans = emit_to.take_needed(&mut self.nans);
        match numbers.data_type() {
            DataType::Float16 => with_nans::<Float16Type>(numbers.as_primitive(), &nans, self.is_max),
            DataType::Float32 => with_nans::<Float32Type>(numbers.as_primitive(), &nans, self.is_max),
            _ => with_nans::<Float64Type>(numbers.as_primitive(), &nans, self.is_max),
        }
    }
}

fn with_nans<T: ArrowPrimitiveType<Native: Float>>(
    numbers: &PrimitiveArray<T>,
    nans: &[Nans],
    is_max: bool,
) -> ArrayRef {
    let (positive, negative) = (T::Native::nan().abs(), -T::Native::nan().abs());
    let extreme = |(number, nans): (Option<T::Native>, &Nans)| {
        // The greatest, or the least, of the three kinds that the group has had.
        let kinds = [nans.negative.then_some(negative), number, nans.positive.then_some(positive)];
        let mut kinds = kinds.into_iter().flatten();
        if is_max { kinds.next_back() } else { kinds.next() }
    };
    std::sync::Arc::new(PrimitiveArray::<T>::from_iter(numbers.iter().zip(nans).map(extreme)))
}

impl GroupsAccumulator for FloatExtreme {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        match self.numbers_of(&values[0], groups, filter, total)? {
            Some(numbers) => self.numbers.update_batch(&[numbers], groups, filter, total),
            None => self.numbers.update_batch(values, groups, filter, total),
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        match self.numbers_of(&states[0], groups, None, total)? {
            Some(numbers) => self.numbers.merge_batch(&[numbers], groups, total),
            None => self.numbers.merge_batch(states, groups, total),
        }
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let numbers = self.numbers.evaluate(emit_to)?;
        Ok(self.extremes(numbers, emit_to))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let states = self.numbers.state(emit_to)?;
        Ok(states.into_iter().map(|numbers| self.extremes(numbers, emit_to)).collect())
    }

    fn convert_to_state(&self, _: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        not_impl_err!("rows are aggregated, never turned into states one by one")
    }

    fn size(&self) -> usize {
        self.numbers.size() + self.nans.capacity() * size_of::<Nans>()
    }
}
