//! Panics as errors: decoders of files have some for bytes that no writer writes, and a file that is damaged is no reason for a
//! program to end.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use futures::FutureExt;

/// Does something, and gives a panic as an error. What it has changed by then is not to be used any more.
///
/// # Errors
/// Those of the work, and its panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

/// The same of what takes its time.
///
/// # Errors
/// As [`caught`].
pub(crate) async fn caught_in<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

/// The error that a panic is.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> DataFusionError {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    exec_datafusion_err!("gave up: {}", text.unwrap_or("it did not say why"))
}
