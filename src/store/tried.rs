//! A store whose operations are tried again, with back-off, until they succeed, fail for good, or have failed too often.
//!
//! What an attempt has done before it failed is not known: an answer may be lost on its way. So each operation is one
//! that can be repeated. Bytes that are put again are the same; what is put only where nothing is, or in place of a
//! known version, is read back when it turns out that somebody has been there, who may have been this attempt; what is
//! gone when it is to be deleted again has been deleted. Objects are read as a whole within an attempt.
//!
//! The one thing that is not tried again here is a part of a large upload: the trait gives each part that it is handed the
//! next number. The clients of object_store for S3, GCS, Azure and HTTP repeat those requests themselves.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tokio::time::{sleep, timeout};

use super::Policy;

/// Tries operations of a store again.
#[derive(Debug, Clone)]
pub(crate) struct Tried {
    store: Arc<dyn ObjectStore>,
    policy: Policy,
}

/// What has become of an operation, and whether an attempt at it had failed before, whose effect nobody knows.
type Outcome<T> = (Result<T>, bool);

impl Tried {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, policy: Policy) -> Self {
        Self { store, policy }
    }

    async fn tried<T, F>(&self, operation: &'static str, object: &Path, attempt: impl FnMut() -> F + Send) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        self.outcome(operation, object, attempt).await.0
    }

    /// Tries an operation until it succeeds or fails for good.
    async fn outcome<T, F>(
        &self,
        operation: &'static str,
        object: &Path,
        mut attempt: impl FnMut() -> F + Send,
    ) -> Outcome<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match timeout(self.policy.attempt, attempt()).await {
                Ok(Err(error)) if is_transient(&error) => super::root(&error).to_string(),
                Ok(done) => return (done, attempts > 1),
                Err(_) => format!("no answer within {:?}", self.policy.attempt),
            };
            if attempts >= self.policy.attempts {
                return (Err(GaveUp { operation, object: object.to_string(), attempts, error }.into()), true);
            }
            tracing::warn!("{operation} {object}: {error}; it is tried again");
            sleep(self.policy.wait_after(attempts)).await;
        }
    }

    /// Whether an object holds these bytes, and which version of it.
    async fn holding(&self, object: &Path, bytes: &PutPayload) -> Result<Option<PutResult>> {
        let found = match self.get_opts(object, GetOptions::default()).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            found => found?,
        };
        let version = PutResult { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        Ok((found.bytes().await? == Bytes::from(bytes.clone())).then_some(version))
    }
}

/// Whether the same may succeed in a moment.
fn is_transient(error: &Error) -> bool {
    matches!(error, Error::Generic { .. } | Error::JoinError { .. })
}

fn is_taken(error: &Error) -> bool {
    matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. })
}

/// An operation that has failed too often.
#[derive(Debug)]
struct GaveUp {
    operation: &'static str,
    object: String,
    attempts: u32,
    error: String,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { operation, object, attempts, error } = self;
        write!(f, "{operation} {object} failed {attempts} times, the last time by: {error}")
    }
}

impl std::error::Error for GaveUp {}

impl From<GaveUp> for Error {
    fn from(error: GaveUp) -> Self {
        Self::Generic { store: "object store", source: Box::new(error) }
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store)
    }
}

#[async_trait]
impl ObjectStore for Tried {
    async fn put_opts(&self, to: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        let put = || self.store.put_opts(to, bytes.clone(), options.clone());
        match self.outcome("put", to, put).await {
            (Err(error), true) if is_taken(&error) && options.mode != PutMode::Overwrite => {
                self.holding(to, &bytes).await?.ok_or(error)
            }
            (done, _) => done,
        }
    }

    async fn put_multipart_opts(&self, to: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let begin = || self.store.put_multipart_opts(to, options.clone());
        let upload = self.tried("begin to upload", to, begin).await?;
        Ok(Box::new(TriedUpload { tried: self.clone(), to: to.clone(), upload, bytes: 0 }))
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        let get = || async {
            let found = self.store.get_opts(from, options.clone()).await?;
            if options.head {
                return Ok(found);
            }
            let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
            let bytes = found.bytes().await?;
            let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
            Ok(GetResult { payload, meta, range, attributes })
        };
        self.tried("get", from, get).await
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.tried("get", from, || self.store.get_ranges(from, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let own = self.clone();
        let delete = move |location: Result<Path>| {
            let own = own.clone();
            async move {
                let location = location?;
                match own.tried("delete", &location, || own.store.delete(&location)).await {
                    Ok(()) | Err(Error::NotFound { .. }) => Ok(location),
                    Err(error) => Err(error),
                }
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (own, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let list = || own.store.list(prefix.as_ref()).try_collect::<Vec<_>>();
            let all = own.tried("list", &prefix.clone().unwrap_or_default(), list).await?;
            Ok::<_, Error>(stream::iter(all.into_iter().map(Ok)))
        };
        listed.into_stream().try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let list = || self.store.list_with_delimiter(prefix);
        self.tried("list", &prefix.cloned().unwrap_or_default(), list).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.tried("copy", from, || self.store.copy_opts(from, to, options.clone())).await
    }
}

/// An upload in parts that is begun, completed and given up with more than one attempt.
#[derive(Debug)]
struct TriedUpload {
    tried: Tried,
    to: Path,
    upload: Box<dyn MultipartUpload>,
    bytes: u64,
}

impl TriedUpload {
    async fn found(tried: &Tried, to: &Path) -> Result<Option<ObjectMeta>> {
        match tried.head(to).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is there if it is another object than before, and of as many bytes as were uploaded.
    async fn completed_since(&mut self, before: Option<&Option<String>>) -> Result<Option<PutResult>> {
        let found = Self::found(&self.tried, &self.to).await?;
        let found = found.filter(|found| before != Some(&found.e_tag) && found.size == self.bytes);
        Ok(found.map(|found| PutResult { e_tag: found.e_tag, version: found.version }))
    }
}

#[async_trait]
impl MultipartUpload for TriedUpload {
    fn put_part(&mut self, bytes: PutPayload) -> UploadPart {
        self.bytes += bytes.content_length() as u64;
        let (part, limit, object) = (self.upload.put_part(bytes), self.tried.policy.attempt, self.to.to_string());
        let gave_up = move |error| GaveUp { operation: "upload a part of", object, attempts: 1, error };
        Box::pin(async move {
            match timeout(limit, part).await {
                Ok(Err(error)) if is_transient(&error) => Err(gave_up(super::root(&error).to_string()).into()),
                Ok(done) => done,
                Err(_) => Err(gave_up(format!("no answer within {limit:?}")).into()),
            }
        })
    }

    /// An upload that is not known any more may have been completed by an attempt whose answer was lost.
    async fn complete(&mut self) -> Result<PutResult> {
        let before = Self::found(&self.tried, &self.to).await?.map(|found| found.e_tag);
        let (policy, mut attempts) = (self.tried.policy, 0);
        loop {
            attempts += 1;
            let error = match timeout(policy.attempt, self.upload.complete()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) if attempts == 1 && !is_transient(&error) => return Err(error),
                Ok(Err(error)) => super::root(&error).to_string(),
                Err(_) => format!("no answer within {:?}", policy.attempt),
            };
            if let Some(done) = self.completed_since(before.as_ref()).await? {
                return Ok(done);
            }
            if attempts >= policy.attempts {
                let object = self.to.to_string();
                return Err(GaveUp { operation: "complete the upload of", object, attempts, error }.into());
            }
            sleep(policy.wait_after(attempts)).await;
        }
    }

    async fn abort(&mut self) -> Result<()> {
        timeout(self.tried.policy.attempt, self.upload.abort()).await.unwrap_or(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::store::faulty::FaultyStore;

    use super::*;

    fn tried(store: &FaultyStore, attempts: u32) -> Tried {
        let attempt = Duration::from_millis(20);
        let policy =
            Policy { attempts, attempt, first_wait: Duration::ZERO, longest_wait: Duration::ZERO, ..Policy::default() };
        Tried::new(Arc::new(store.clone()), policy)
    }

    async fn bytes(store: &impl ObjectStore, path: &Path) -> Bytes {
        store.get(path).await.unwrap().bytes().await.unwrap()
    }

    /// Whatever fails in between, in the end each operation has had its effect, once.
    #[tokio::test]
    async fn operations_succeed_in_a_store_that_fails_now_and_then() {
        for seed in 0..40 {
            let faulty = FaultyStore::new(seed);
            faulty.fails(300);
            let store = tried(&faulty, 1000);
            let (a, b) = (Path::from("folder/a"), Path::from("folder/b"));
            let create = || PutOptions::from(PutMode::Create);
            let first = store.put_opts(&a, "first".into(), create()).await.unwrap();
            let taken = store.put_opts(&a, "other".into(), create()).await.unwrap_err();
            assert!(matches!(taken, Error::AlreadyExists { .. }), "{taken}");
            let second = PutOptions::from(PutMode::Update(first.clone().into()));
            store.put_opts(&a, "second".into(), second).await.unwrap();
            let late = PutOptions::from(PutMode::Update(first.into()));
            let taken = store.put_opts(&a, "late".into(), late).await.unwrap_err();
            assert!(matches!(taken, Error::Precondition { .. }), "{taken}");
            assert_eq!(bytes(&store, &a).await, "second");
            store.rename(&a, &b).await.unwrap();
            assert_eq!(bytes(&store, &b).await, "second");
            assert!(matches!(store.head(&a).await, Err(Error::NotFound { .. })));
            store.delete(&b).await.unwrap();
            store.delete(&b).await.unwrap();
            assert!(faulty.objects().list(None).try_collect::<Vec<_>>().await.unwrap().is_empty());
        }
    }

    /// Parts are not repeated; the completion of an upload is.
    #[tokio::test]
    async fn uploads_are_whole_or_not_there() {
        let mut whole = 0;
        for seed in 0..60 {
            let faulty = FaultyStore::new(seed);
            faulty.fails(100);
            let (store, path) = (tried(&faulty, 1000), Path::from("a"));
            let mut upload = store.put_multipart(&path).await.unwrap();
            let parts = [upload.put_part("one, ".into()).await, upload.put_part("two".into()).await];
            if parts.iter().all(Result::is_ok) {
                upload.complete().await.unwrap();
                assert_eq!(bytes(faulty.objects(), &path).await, "one, two");
                whole += 1;
            } else {
                let told = parts.into_iter().find_map(Result::err).unwrap().to_string();
                assert!(told.contains("upload a part of a failed 1 times"), "{told}");
                assert!(faulty.objects().head(&path).await.is_err());
            }
        }
        assert!((20..60).contains(&whole), "{whole}");
    }

    #[tokio::test]
    async fn what_fails_too_often_is_told_with_its_name() {
        let faulty = FaultyStore::new(1);
        faulty.fails(1000);
        let told = tried(&faulty, 3).put(&Path::from("folder/a"), "a".into()).await.unwrap_err().to_string();
        assert!(told.contains("put folder/a failed 3 times, the last time by: "), "{told}");
    }
}
