//! Batches that a program makes while they are read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use futures::FutureExt;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::timeout;

use crate::error::Error;
use crate::source::follow::Signals;

use super::rows::Came;

/// How long nothing comes before that is said.
const PATIENCE: Duration = Duration::from_millis(200);

/// A stream of batches that a program makes: from a channel, a connector of its own, or any [`Stream`]. A session reads it,
/// once, under the name that [`register_live`](crate::StreamlinesContext::register_live) gives it.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> datafusion::error::Result<()> {
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use datafusion::arrow::array::{Int64Array, RecordBatch, TimestampSecondArray};
/// use streamlines::{LiveStream, StreamlinesContext, streaming_session};
///
/// let row = |second: i64, value: i64| {
///     let seconds = Arc::new(TimestampSecondArray::from(vec![second]));
///     RecordBatch::try_from_iter([("ts", seconds as _), ("value", Arc::new(Int64Array::from(vec![value])) as _)])
/// };
/// let (sender, live) = LiveStream::channel(row(0, 0)?.schema(), 16);
/// let ctx = streaming_session(Default::default());
/// ctx.register_live("readings", live.with_watermark("ts", Duration::from_secs(5)))?;
/// tokio::spawn(async move {
///     for second in 0..120 {
///         // Nobody reads any more where it cannot be sent.
///         sender.send(row(second, 2)?).await.ok();
///     }
///     datafusion::error::Result::<()>::Ok(())
/// });
/// let minutes = ctx.stream_sql("SELECT window_start, sum(value) FROM readings GROUP BY window_start WINDOW TUMBLING (SIZE 1 MINUTE)");
/// assert_eq!(minutes.await?.count().await?, 2);
/// # Ok(())
/// # }
/// ```
pub struct LiveStream {
    pub(in crate::source) schema: SchemaRef,
    pub(in crate::source) watermark: Option<(String, Duration)>,
    pub(in crate::source) is_endless: bool,
    pub(in crate::source) idle_timeout: Option<Duration>,
    batches: BoxStream<'static, Result<RecordBatch>>,
}

impl LiveStream {
    /// Batches of this schema. An error ends the query that reads them.
    pub fn new(schema: SchemaRef, batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static) -> Self {
        Self { schema, watermark: None, is_endless: false, idle_timeout: None, batches: batches.boxed() }
    }

    /// Batches that are sent, of which so many may wait to be read: then whoever sends them waits. The stream ends when all
    /// senders are gone.
    pub fn channel(schema: SchemaRef, capacity: usize) -> (Sender<RecordBatch>, Self) {
        let (sender, mut batches) = channel(capacity.max(1));
        let batches = stream::poll_fn(move |cx| batches.poll_recv(cx)).map(Ok);
        (sender, Self::new(schema, batches))
    }

    /// Its event time, and how far a row may be behind. Windows take such a stream only with one.
    pub fn with_watermark(self, column: impl Into<String>, bound: Duration) -> Self {
        Self { watermark: Some((column.into(), bound)), ..self }
    }

    /// It does not end: a query that could answer only then is refused when it is planned.
    pub fn endless(self) -> Self {
        Self { is_endless: true, ..self }
    }

    /// Where no row has come for so long, its event time goes on with the clock.
    pub fn with_idle_timeout(self, timeout: Duration) -> Self {
        Self { idle_timeout: Some(timeout), ..self }
    }

    pub(in crate::source) fn into_batches(self) -> Batches {
        Batches(Mutex::new(Some(self.batches)))
    }
}

impl fmt::Debug for LiveStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schema, watermark, is_endless, .. } = self;
        write!(f, "LiveStream {{ schema: {schema:?}, watermark: {watermark:?}, is_endless: {is_endless} }}")
    }
}

/// The batches, until somebody reads them.
pub(in crate::source) struct Batches(Mutex<Option<BoxStream<'static, Result<RecordBatch>>>>);

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batches")
    }
}

impl Batches {
    /// Reads them: these columns of batches of this schema.
    ///
    /// # Errors
    /// Somebody has read them.
    pub(super) fn take(&self, name: &str, schema: &SchemaRef, signals: &Arc<Signals>) -> Result<LiveBatches, Error> {
        let batches = self.0.lock().take().ok_or_else(|| {
            Error::data(format!("stream {name} has been read, or is read by another part of the query, and comes once"))
                .help("register another one, or put it into a table first: CREATE TABLE … AS SELECT … FROM it")
        })?;
        Ok(LiveBatches { batches, schema: Arc::clone(schema), columns: vec![], signals: Arc::clone(signals) })
    }
}

/// Batches that are read.
pub(in crate::source) struct LiveBatches {
    batches: BoxStream<'static, Result<RecordBatch>>,
    schema: SchemaRef,
    columns: Vec<usize>,
    signals: Arc<Signals>,
}

impl LiveBatches {
    /// Of these columns.
    pub(super) fn of_columns(self, columns: &[usize]) -> Self {
        Self { columns: columns.to_vec(), ..self }
    }

    pub(super) async fn next(&mut self) -> Result<Came> {
        let next = match self.signals.is_draining() {
            // What comes later is not waited for.
            true => self.batches.next().now_or_never().flatten(),
            false => match timeout(PATIENCE, self.batches.next()).await {
                Ok(next) => next,
                Err(_) => return Ok(Came::Later),
            },
        };
        let Some(batch) = next.transpose()? else { return Ok(Came::End) };
        let is_as_declared = |(declared, found): (&Arc<_>, &Arc<_>)| same_column(declared, found);
        let (declared, found) = (self.schema.fields(), batch.schema_ref().fields());
        if declared.len() != found.len() || !declared.iter().zip(found).all(is_as_declared) {
            let what = format!("a batch of other columns than those of the stream: {found:?} instead of {declared:?}");
            return Err(Error::data(what).help("make batches of the schema that the LiveStream was made with").into());
        }
        Ok(Came::Rows(batch.project(&self.columns)?.with_schema(Arc::new(self.schema.project(&self.columns)?))?))
    }
}

fn same_column(declared: &arrow::datatypes::Field, found: &arrow::datatypes::Field) -> bool {
    declared.name() == found.name()
        && declared.data_type() == found.data_type()
        && (declared.is_nullable() || !found.is_nullable())
}
