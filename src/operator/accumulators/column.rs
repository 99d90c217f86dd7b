//! What the kinds of aggregates are generic over: columns of values that can be read, compared, kept and written.

use std::borrow::Borrow;
use std::marker::PhantomData;

use arrow::array::types::{ByteArrayType, ByteViewType, Decimal128Type, Decimal256Type};
use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanBufferBuilder, BooleanBuilder,
    GenericByteArray, GenericByteBuilder, GenericByteViewArray, GenericByteViewBuilder, PrimitiveArray, make_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::{Result, internal_datafusion_err};
use std::sync::Arc;

/// A value that is kept.
pub(super) type Kept<C> = <<C as Column>::Value as ToOwned>::Owned;

/// Columns of one type.
pub(super) trait Column: 'static {
    /// A value of the column.
    type Value: ?Sized + ToOwned<Owned: Clone + Send>;
    /// The values of a batch.
    type Values;
    /// A column in the making.
    type Builder;

    /// The values of an array; none if it is of another type.
    fn values(array: &ArrayRef) -> Option<Self::Values>;

    /// One of them, where it is not null.
    fn value(values: &Self::Values, row: usize) -> &Self::Value;

    /// The order of the type; that of floats is the total order of IEEE 754, so that the order of rows is of no
    /// account where one is NaN.
    fn is_less(a: &Self::Value, b: &Self::Value) -> bool;

    /// Room for so many values.
    fn builder(rows: usize) -> Self::Builder;

    /// Writes a value.
    fn append(builder: &mut Self::Builder, value: Option<&Self::Value>);

    /// The column that was written.
    fn finish(builder: Self::Builder, data_type: &DataType) -> Result<ArrayRef>;

    /// Bytes that a kept value holds elsewhere.
    fn heap(_: &Kept<Self>) -> usize {
        0
    }
}

/// The values of an argument or a state.
pub(super) fn values_of<C: Column>(arrays: &[ArrayRef], index: usize) -> Result<C::Values> {
    let values = arrays.get(index).and_then(C::values);
    values.ok_or_else(|| internal_datafusion_err!("column {index} of an aggregate is of another type or missing"))
}

/// A column of values that may be null.
pub(super) fn column_of<'a, C: Column>(
    values: impl ExactSizeIterator<Item = Option<&'a Kept<C>>>,
    data_type: &DataType,
) -> Result<ArrayRef> {
    let mut builder = C::builder(values.len());
    values.for_each(|value| C::append(&mut builder, value.map(Borrow::borrow)));
    C::finish(builder, data_type)
}

/// The values of such a column.
pub(super) fn kept_values<C: Column>(arrays: &[ArrayRef], index: usize) -> Result<Vec<Option<Kept<C>>>> {
    let values = values_of::<C>(arrays, index)?;
    let kept = |row| arrays[index].is_valid(row).then(|| C::value(&values, row).to_owned());
    Ok((0..arrays[index].len()).map(kept).collect())
}

/// The type with the same numbers and order: times, dates and small decimals are integers.
pub(super) fn numbers_of(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Date32 | DataType::Time32(_) | DataType::Decimal32(_, _) => DataType::Int32,
        DataType::Interval(IntervalUnit::YearMonth) => DataType::Int32,
        DataType::Date64 | DataType::Time64(_) | DataType::Decimal64(_, _) => DataType::Int64,
        DataType::Timestamp(_, _) | DataType::Duration(_) => DataType::Int64,
        DataType::Decimal128(_, _) => Decimal128Type::DATA_TYPE,
        DataType::Decimal256(_, _) => Decimal256Type::DATA_TYPE,
        other => other.clone(),
    }
}

/// Makes an aggregate over the column of numbers that a type is; none if it is no such type.
macro_rules! primitive_column {
    ($data_type:expr => $make:ident($($arguments:expr),*)) => {{
        use arrow::array::types::*;
        use arrow::datatypes::{DataType, IntervalUnit};
        use $crate::operator::accumulators::column::{Primitives, numbers_of};
        match numbers_of(&$data_type) {
            DataType::Int8 => $make::<Primitives<Int8Type>, _>($($arguments),*),
            DataType::Int16 => $make::<Primitives<Int16Type>, _>($($arguments),*),
            DataType::Int32 => $make::<Primitives<Int32Type>, _>($($arguments),*),
            DataType::Int64 => $make::<Primitives<Int64Type>, _>($($arguments),*),
            DataType::UInt8 => $make::<Primitives<UInt8Type>, _>($($arguments),*),
            DataType::UInt16 => $make::<Primitives<UInt16Type>, _>($($arguments),*),
            DataType::UInt32 => $make::<Primitives<UInt32Type>, _>($($arguments),*),
            DataType::UInt64 => $make::<Primitives<UInt64Type>, _>($($arguments),*),
            DataType::Float16 => $make::<Primitives<Float16Type>, _>($($arguments),*),
            DataType::Float32 => $make::<Primitives<Float32Type>, _>($($arguments),*),
            DataType::Float64 => $make::<Primitives<Float64Type>, _>($($arguments),*),
            DataType::Decimal128(_, _) => $make::<Primitives<Decimal128Type>, _>($($arguments),*),
            DataType::Decimal256(_, _) => $make::<Primitives<Decimal256Type>, _>($($arguments),*),
            DataType::Interval(IntervalUnit::DayTime) => $make::<Primitives<IntervalDayTimeType>, _>($($arguments),*),
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                $make::<Primitives<IntervalMonthDayNanoType>, _>($($arguments),*)
            }
            _ => None,
        }
    }};
}

/// Makes an aggregate over the column that a type is; none if it is no such type.
macro_rules! any_column {
    ($data_type:expr => $make:ident($($arguments:expr),*)) => {{
        use arrow::array::types::*;
        use arrow::datatypes::DataType;
        use $crate::operator::accumulators::column::{Booleans, Bytes, Views, primitive_column};
        match &$data_type {
            DataType::Boolean => $make::<Booleans, _>($($arguments),*),
            DataType::Utf8 => $make::<Bytes<Utf8Type>, _>($($arguments),*),
            DataType::LargeUtf8 => $make::<Bytes<LargeUtf8Type>, _>($($arguments),*),
            DataType::Utf8View => $make::<Views<StringViewType>, _>($($arguments),*),
            DataType::Binary => $make::<Bytes<BinaryType>, _>($($arguments),*),
            DataType::LargeBinary => $make::<Bytes<LargeBinaryType>, _>($($arguments),*),
            DataType::BinaryView => $make::<Views<BinaryViewType>, _>($($arguments),*),
            _ => primitive_column!($data_type => $make($($arguments),*)),
        }
    }};
}

pub(super) use {any_column, primitive_column};

/// Numbers, and whatever has the same numbers.
pub(super) struct Primitives<T>(PhantomData<T>);

impl<T: ArrowPrimitiveType> Column for Primitives<T> {
    type Value = T::Native;
    type Values = ScalarBuffer<T::Native>;
    type Builder = Numbers<T::Native>;

    fn values(array: &ArrayRef) -> Option<Self::Values> {
        if numbers_of(array.data_type()) != numbers_of(&T::DATA_TYPE) {
            return None;
        }
        let data = array.to_data();
        let buffer = data.buffers().first()?.clone();
        Some(ScalarBuffer::new(buffer, data.offset(), data.len()))
    }

    fn value(values: &Self::Values, row: usize) -> &T::Native {
        &values[row]
    }

    fn is_less(a: &T::Native, b: &T::Native) -> bool {
        a.is_lt(*b)
    }

    fn builder(rows: usize) -> Self::Builder {
        Numbers { values: Vec::with_capacity(rows), validity: None }
    }

    #[inline(always)]
    fn append(builder: &mut Self::Builder, value: Option<&T::Native>) {
        builder.append(value.copied());
    }

    fn finish(builder: Self::Builder, data_type: &DataType) -> Result<ArrayRef> {
        let nulls = builder.validity.map(|mut validity| NullBuffer::new(validity.finish()));
        let column = PrimitiveArray::<T>::try_new(builder.values.into(), nulls)?;
        Ok(make_array(column.into_data().into_builder().data_type(data_type.clone()).build()?))
    }
}

/// A column of numbers in the making. Most are not null, and one after the other costs no more than its write.
pub(super) struct Numbers<N> {
    values: Vec<N>,
    /// None while no value is null.
    validity: Option<BooleanBufferBuilder>,
}

impl<N: Default> Numbers<N> {
    /// Writes a value.
    #[inline(always)]
    pub(super) fn append(&mut self, value: Option<N>) {
        if value.is_none() && self.validity.is_none() {
            self.begin_validity();
        }
        if let Some(validity) = &mut self.validity {
            validity.append(value.is_some());
        }
        self.values.push(value.unwrap_or_default());
    }

    #[cold]
    fn begin_validity(&mut self) {
        let mut validity = BooleanBufferBuilder::new(self.values.capacity());
        validity.append_n(self.values.len(), true);
        self.validity = Some(validity);
    }
}

/// Booleans.
pub(super) struct Booleans;

impl Column for Booleans {
    type Value = bool;
    type Values = BooleanBuffer;
    type Builder = BooleanBuilder;

    fn values(array: &ArrayRef) -> Option<Self::Values> {
        array.as_boolean_opt().map(|array| array.values().clone())
    }

    fn value(values: &Self::Values, row: usize) -> &bool {
        if values.value(row) { &true } else { &false }
    }

    fn is_less(a: &bool, b: &bool) -> bool {
        !a & b
    }

    fn builder(rows: usize) -> Self::Builder {
        BooleanBuilder::with_capacity(rows)
    }

    fn append(builder: &mut Self::Builder, value: Option<&bool>) {
        builder.append_option(value.copied());
    }

    fn finish(mut builder: Self::Builder, _: &DataType) -> Result<ArrayRef> {
        Ok(Arc::new(builder.finish()))
    }
}

/// Strings or bytes in one piece.
pub(super) struct Bytes<T>(PhantomData<T>);

impl<T> Column for Bytes<T>
where
    T: ByteArrayType<Native: ToOwned<Owned: Clone + Send + AsRef<[u8]>> + Ord>,
{
    type Value = T::Native;
    type Values = GenericByteArray<T>;
    type Builder = GenericByteBuilder<T>;

    fn values(array: &ArrayRef) -> Option<Self::Values> {
        array.as_bytes_opt::<T>().cloned()
    }

    fn value(values: &Self::Values, row: usize) -> &T::Native {
        values.value(row)
    }

    fn is_less(a: &T::Native, b: &T::Native) -> bool {
        a < b
    }

    fn builder(rows: usize) -> Self::Builder {
        GenericByteBuilder::with_capacity(rows, 0)
    }

    fn append(builder: &mut Self::Builder, value: Option<&T::Native>) {
        builder.append_option(value);
    }

    fn finish(mut builder: Self::Builder, _: &DataType) -> Result<ArrayRef> {
        Ok(Arc::new(builder.finish()))
    }

    fn heap(value: &Kept<Self>) -> usize {
        value.as_ref().len()
    }
}

/// Strings or bytes as views.
pub(super) struct Views<T>(PhantomData<T>);

impl<T> Column for Views<T>
where
    T: ByteViewType<Native: ToOwned<Owned: Clone + Send + AsRef<[u8]>> + Ord>,
{
    type Value = T::Native;
    type Values = GenericByteViewArray<T>;
    type Builder = GenericByteViewBuilder<T>;

    fn values(array: &ArrayRef) -> Option<Self::Values> {
        array.as_byte_view_opt::<T>().cloned()
    }

    fn value(values: &Self::Values, row: usize) -> &T::Native {
        values.value(row)
    }

    fn is_less(a: &T::Native, b: &T::Native) -> bool {
        a < b
    }

    fn builder(rows: usize) -> Self::Builder {
        GenericByteViewBuilder::with_capacity(rows)
    }

    fn append(builder: &mut Self::Builder, value: Option<&T::Native>) {
        builder.append_option(value);
    }

    fn finish(mut builder: Self::Builder, _: &DataType) -> Result<ArrayRef> {
        Ok(Arc::new(builder.finish()))
    }

    fn heap(value: &Kept<Self>) -> usize {
        value.as_ref().len()
    }
}
