//! Stopping a plan without pipelines: its rows end where they are.

use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::future::AbortHandle;
use futures::stream::Abortable;
use parking_lot::Mutex;

/// Ends the streams of rows that it was given, whatever they wait for.
#[derive(Debug, Default)]
pub(super) struct Stop {
    stopped: AtomicBool,
    streams: Mutex<Vec<AbortHandle>>,
}

impl Stop {
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.streams.lock().iter().for_each(AbortHandle::abort);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The same rows, until the stop.
    pub(super) fn until(&self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let (handle, registration) = AbortHandle::new_pair();
        let mut streams = self.streams.lock();
        if self.is_stopped() {
            handle.abort();
        }
        streams.push(handle);
        Box::pin(RecordBatchStreamAdapter::new(rows.schema(), Abortable::new(rows, registration)))
    }
}
