//! Several values of a key in one row: a column of lists, and back.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::Field;
use datafusion::common::{Result, internal_datafusion_err};

/// Values that follow each other as lists of these lengths.
pub(super) fn lists(lengths: impl IntoIterator<Item = usize>, values: ArrayRef) -> Result<ArrayRef> {
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), values, None)?))
}

/// The values of all lists, and which of them are each list's.
pub(super) fn of_lists(lists: &ArrayRef) -> Result<(ArrayRef, impl Iterator<Item = Range<usize>> + '_)> {
    let lists = lists.as_list_opt::<i32>().ok_or_else(|| internal_datafusion_err!("a state that is no list"))?;
    let offsets = lists.value_offsets();
    let (first, last) = (offsets[0] as usize, offsets[lists.len()] as usize);
    let ranges = offsets.windows(2).map(move |ends| ends[0] as usize - first..ends[1] as usize - first);
    Ok((lists.values().slice(first, last - first), ranges))
}
