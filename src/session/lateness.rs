//! How late the rows of a stream are.

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::{Result, TableReference};
use datafusion::execution::context::SessionContext;

use crate::error::Location;
use crate::planning_errors::unknown;
use crate::source::{Lateness, StreamTable, is_data_path};

/// What to ask of a stream's rows.
#[derive(Debug, Clone, Default)]
pub struct LatenessQuestion {
    /// The event-time column; none takes the one that the stream declares.
    pub time: Option<String>,
    /// A column each of whose values is a sequence of its own, instead of each data partition.
    pub by: Option<String>,
    /// Length of the tumbling windows that keep a row until they close; none counts every row behind the watermark.
    pub window: Option<Duration>,
    /// Bounds to count exactly, besides those that lose some shares of the rows.
    pub bounds: Vec<Duration>,
}

/// Says how late the rows of a stream are, by its name or by the path of its files. Reads its event times only.
///
/// # Errors
/// No such stream, files or columns; rows that cannot be read.
pub async fn lateness(ctx: &SessionContext, stream: &str, question: &LatenessQuestion) -> Result<Lateness> {
    let known = ctx.table_provider(TableReference::from(stream)).await.ok();
    let known = known.and_then(|table| {
        let any: Arc<dyn std::any::Any + Send + Sync> = table;
        any.downcast::<StreamTable>().ok()
    });
    let table = match known {
        Some(table) => table,
        None if is_data_path(stream) => {
            Arc::new(StreamTable::from_path(stream, Location { line: 1, column: 1 }, &ctx.state()).await?)
        }
        None => return Err(unknown(ctx, "stream", stream).into()),
    };
    let nanoseconds = |duration: &Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let window_ns = question.window.as_ref().map(nanoseconds);
    let bounds_ns: Vec<i64> = question.bounds.iter().map(nanoseconds).collect();
    let (time, by) = (question.time.as_deref(), question.by.as_deref());
    table.lateness(time, by, window_ns, &bounds_ns, &ctx.task_ctx()).await
}
