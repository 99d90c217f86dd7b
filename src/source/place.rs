//! Where a file of a stream is, and what is read of it there: on this machine it is opened, and read as its rows are due; of
//! an object store ranges are fetched, before they are due.
//!
//! ```text
//!   LOCATION ─ files.rs, stored_files.rs ─▶ FilePlace ─┬─ a path: std::fs::File, looked at before and after (unchanged.rs)
//!                                                      └─ an object: its ranges, each of the version that was found
//! ```

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use datafusion::common::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{Error as StoreError, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::error::Error;
use crate::store::root;

/// Bytes of a request, at most: several of them are at work at once.
const REQUEST_BYTES: u64 = 8 * 1024 * 1024;
/// How many requests for one range are at work at once.
const REQUESTS: usize = 4;

/// Where a file is.
#[derive(Debug, Clone)]
pub(super) enum FilePlace {
    /// An absolute path of this machine.
    Local(PathBuf),
    Stored(Stored),
}

/// A place in an object store.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// Tries what fails for a moment again.
    pub(super) store: Arc<dyn ObjectStore>,
    /// `s3://bucket`
    pub(super) base: String,
    pub(super) path: ObjectPath,
}

impl FilePlace {
    /// Its whole name, by which checkpoints know it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Local(path) => path.display().to_string(),
            Self::Stored(Stored { base, path, .. }) => format!("{base}/{path}"),
        }
    }

    /// Its name as short as it can be written from here.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Local(path) => {
                let folder = std::env::current_dir().unwrap_or_default();
                path.strip_prefix(&folder).unwrap_or(path).display().to_string()
            }
            Self::Stored(_) => self.name(),
        }
    }

    /// The store that it is in, as DataFusion's readers of footers and columns want it.
    ///
    /// # Errors
    /// A session without files.
    pub(super) fn store(&self, runtime: &RuntimeEnv) -> Result<Arc<dyn ObjectStore>> {
        match self {
            Self::Local(_) => runtime.object_store(ObjectStoreUrl::local_filesystem()),
            Self::Stored(stored) => Ok(Arc::clone(&stored.store)),
        }
    }

    /// What its store says of it now.
    ///
    /// # Errors
    /// It is not there, or is no regular file.
    pub(super) async fn object(&self, runtime: &RuntimeEnv) -> Result<ObjectMeta> {
        let wrong = |error: String| Error::data(error).in_file(self.shown());
        let path = match self {
            Self::Local(path) if path.metadata().is_ok_and(|found| !found.is_file()) => {
                let error = wrong("is no regular file".to_string());
                return Err(error.help("a stream replays files, which can be read again").into());
            }
            Self::Local(path) => ObjectPath::from_absolute_path(path).map_err(|error| wrong(error.to_string()))?,
            Self::Stored(stored) => stored.path.clone(),
        };
        let found = self.store(runtime)?.head(&path).await;
        Ok(found.map_err(|error| match self {
            Self::Local(_) => wrong(error.to_string()),
            Self::Stored(_) => wrong(root(&error).to_string()),
        })?)
    }
}

/// An object as it was when the stream was declared over it.
#[derive(Debug, Clone)]
pub(super) struct StoredFile {
    pub(super) place: Stored,
    pub(super) object: ObjectMeta,
}

impl StoredFile {
    /// Some of its bytes.
    ///
    /// # Errors
    /// It is not there any more, or is another one.
    pub(super) async fn bytes(&self, range: Range<u64>) -> Result<Bytes, Error> {
        if range.end - range.start <= REQUEST_BYTES {
            return self.request(range).await;
        }
        let starts = (range.start..range.end).step_by(REQUEST_BYTES as usize);
        let request = |start| self.request(start..range.end.min(start + REQUEST_BYTES)).boxed();
        let requests: Vec<BoxFuture<'_, _>> = starts.map(request).collect();
        let parts: Vec<Bytes> = stream::iter(requests).buffered(REQUESTS).try_collect().await?;
        let mut whole = BytesMut::with_capacity((range.end - range.start) as usize);
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        Ok(whole.freeze())
    }

    async fn request(&self, range: Range<u64>) -> Result<Bytes, Error> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (range, if_match) = (Some(GetRange::Bounded(range)), self.object.e_tag.clone());
        let options = GetOptions { range, if_match, ..GetOptions::default() };
        let found = match self.place.store.get_opts(&self.place.path, options).await {
            Err(StoreError::Precondition { .. }) => return Err(self.changed()),
            found => found.map_err(|error| self.unreadable(&error))?,
        };
        if !is_same(&self.object, &found.meta) {
            return Err(self.changed());
        }
        found.bytes().await.map_err(|error| self.unreadable(&error))
    }

    fn unreadable(&self, error: &StoreError) -> Error {
        Error::data(format!("cannot be read: {}", root(error))).in_file(self.name())
    }

    fn changed(&self) -> Error {
        let help =
            "CREATE OR REPLACE STREAM … reads it anew; leave objects as they are, and write new ones under other names";
        Error::data("has changed since the stream was created").in_file(self.name()).help(help)
    }

    fn name(&self) -> String {
        format!("{}/{}", self.place.base, self.place.path)
    }
}

/// Whether two looks at a name have seen one object. Where a store says no version, its size and the second of its last
/// change tell: an answer to a request has no finer time.
fn is_same(one: &ObjectMeta, other: &ObjectMeta) -> bool {
    match (&one.e_tag, &other.e_tag) {
        (Some(one), Some(other)) => one == other,
        _ => one.size == other.size && one.last_modified.timestamp() == other.last_modified.timestamp(),
    }
}

/// A file that is open, to be looked at here and there.
pub(super) enum OpenFile {
    Local(File),
    Stored(StoredFile),
}

impl OpenFile {
    /// As many bytes from here on, or as there are.
    ///
    /// # Errors
    /// What cannot be read.
    pub(super) async fn bytes(&mut self, range: Range<u64>) -> Result<Bytes> {
        match self {
            Self::Local(file) => {
                file.seek(SeekFrom::Start(range.start))?;
                let mut bytes = vec![];
                file.take(range.end - range.start).read_to_end(&mut bytes)?;
                Ok(bytes.into())
            }
            Self::Stored(file) => Ok(file.bytes(range.start..range.end.min(file.object.size)).await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use datafusion::prelude::SessionConfig;
    use url::Url;

    use crate::store::Policy;
    use crate::store::faulty::FaultyStore;
    use crate::{StreamlinesContext, streaming_session};

    use super::*;

    /// Ranges are fetched again until they are there, and no row is lost or read twice.
    #[tokio::test]
    async fn rows_are_whole_in_a_store_that_fails_now_and_then() {
        let text: String = (0..50_000).map(|row| format!("{row}\n")).collect();
        let flights = std::fs::read("testdata/nycflights/flights-LGA.parquet").unwrap();
        let wait = Duration::ZERO;
        let policy = Policy {
            attempts: 1000,
            attempt: Duration::from_millis(50),
            first_wait: wait,
            longest_wait: wait,
            ..Policy::default()
        };
        for seed in 0..6 {
            let store = FaultyStore::new(seed);
            let put = |name: &str, bytes: Vec<u8>| (ObjectPath::from(name), bytes);
            for (path, bytes) in [put("a.csv", format!("v\n{text}").into_bytes()), put("b.parquet", flights.clone())] {
                store.objects().put(&path, bytes.into()).await.unwrap();
            }
            store.fails(200);
            let ctx = streaming_session(SessionConfig::new().with_extension(Arc::new(policy)));
            ctx.register_object_store(&Url::parse("mem://bucket").unwrap(), Arc::new(store));
            let rows = async |sql: &str| ctx.stream_sql(sql).await.unwrap().count().await.unwrap();
            assert_eq!(rows("SELECT DISTINCT v FROM 'mem://bucket/a.csv'").await, 50_000, "{seed}");
            assert_eq!(rows("SELECT flight, dep_delay FROM 'mem://bucket/b.parquet'").await, 104_662, "{seed}");
        }
    }

    #[test]
    fn times_of_listings_are_finer_than_those_of_answers() {
        let object = |e_tag: Option<&str>, ms: i64| ObjectMeta {
            location: ObjectPath::from("a"),
            last_modified: chrono::DateTime::from_timestamp_millis(ms).unwrap(),
            size: 1,
            e_tag: e_tag.map(str::to_string),
            version: None,
        };
        assert!(is_same(&object(None, 1500), &object(Some("x"), 1000)));
        assert!(!is_same(&object(None, 1500), &object(None, 2000)));
        assert!(is_same(&object(Some("x"), 0), &object(Some("x"), 2000)));
        assert!(!is_same(&object(Some("x"), 0), &object(Some("y"), 0)));
    }
}
