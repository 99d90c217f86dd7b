//! min and max.

use std::borrow::Borrow;

use arrow::datatypes::DataType;

use super::RunningAggregate;
use super::column::{Column, Kept, any_column};
use super::fold::{Step, fold};

/// The running minimum.
pub(super) fn min(data_type: DataType) -> Option<Box<dyn RunningAggregate>> {
    any_column!(data_type => fold(data_type, Min))
}

/// The running maximum.
pub(super) fn max(data_type: DataType) -> Option<Box<dyn RunningAggregate>> {
    any_column!(data_type => fold(data_type, Max))
}

struct Min;

impl<C: Column> Step<C> for Min {
    fn next(least: &mut Kept<C>, value: &C::Value) {
        if C::is_less(value, (*least).borrow()) {
            value.clone_into(least);
        }
    }
}

struct Max;

impl<C: Column> Step<C> for Max {
    fn next(greatest: &mut Kept<C>, value: &C::Value) {
        if C::is_less((*greatest).borrow(), value) {
            value.clone_into(greatest);
        }
    }
}
