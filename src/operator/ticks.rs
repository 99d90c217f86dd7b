//! Event times as plain numbers, whatever their unit.

use arrow::array::{Array, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::{Result, internal_datafusion_err};

/// Event times as numbers of ticks of their own unit; those of days are seconds, as windows over them are.
///
/// # Errors
/// A column that holds neither timestamps nor dates.
pub(crate) fn ticks(times: &dyn Array) -> Result<PrimitiveArray<Int64Type>> {
    Ok(match times.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => times.as_primitive::<TimestampSecondType>().reinterpret_cast(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            times.as_primitive::<TimestampMillisecondType>().reinterpret_cast()
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            times.as_primitive::<TimestampMicrosecondType>().reinterpret_cast()
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            times.as_primitive::<TimestampNanosecondType>().reinterpret_cast()
        }
        DataType::Date64 => times.as_primitive::<Date64Type>().reinterpret_cast(),
        DataType::Date32 => times.as_primitive::<Date32Type>().unary(|day| i64::from(day) * 86_400),
        other => return Err(internal_datafusion_err!("event time of type {other}")),
    })
}
