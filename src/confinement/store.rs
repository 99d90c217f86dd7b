//! Object stores as a confined session has them, that of local files among them: DataFusion's own tables and COPY come by them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::common::Result;
use datafusion::execution::object_store::ObjectStoreRegistry;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, future};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions,
};
use url::Url;

use super::{Access, Confinement};
use crate::error::Error;

/// Gives confined stores: one of local files, and those that others have registered.
#[derive(Debug)]
pub(super) struct ConfinedRegistry {
    inner: Arc<dyn ObjectStoreRegistry>,
    confinement: Arc<Confinement>,
}

impl ConfinedRegistry {
    pub(super) fn new(inner: Arc<dyn ObjectStoreRegistry>, confinement: Arc<Confinement>) -> Self {
        Self { inner, confinement }
    }
}

impl ObjectStoreRegistry for ConfinedRegistry {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.inner.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.inner.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let (store, place): (Arc<dyn ObjectStore>, _) = match url.scheme() {
            "file" => (Arc::new(LocalFileSystem::new()), Place::Here(Arc::default())),
            _ => (self.inner.get_store(url)?, Place::Elsewhere(url[..url::Position::BeforePath].to_string())),
        };
        Ok(Arc::new(ConfinedStore { store, place, confinement: Arc::clone(&self.confinement) }))
    }
}

/// A store, as far as a session may reach what is in it.
#[derive(Debug, Clone)]
struct ConfinedStore {
    store: Arc<dyn ObjectStore>,
    place: Place,
    confinement: Arc<Confinement>,
}

/// Where a store is.
#[derive(Debug, Clone)]
enum Place {
    /// In the file system, which knows the paths of its objects.
    Here(Arc<LocalFileSystem>),
    /// Behind a URL.
    Elsewhere(String),
}

impl ConfinedStore {
    fn check(&self, location: &Path, access: Access) -> object_store::Result<()> {
        let checked = match &self.place {
            Place::Here(files) => self.confinement.check(&files.path_to_filesystem(location)?, access),
            Place::Elsewhere(url) => self.confinement.check_elsewhere(&format!("{url}/{location}"), access),
        };
        checked.map_err(|error| object_store::Error::PermissionDenied {
            path: location.to_string(),
            source: Box::new(error),
        })
    }

    fn sees(&self, location: &Path) -> bool {
        self.check(location, Access::Read).is_ok()
    }

    /// Why a folder could not be listed. What a link in it leads to has a name that is not to be told.
    fn unlisted(&self, folder: Option<&Path>, error: object_store::Error) -> object_store::Error {
        if matches!(self.place, Place::Elsewhere(_)) || self.confinement.root.is_none() {
            return error;
        }
        let path = folder.map(Path::to_string).unwrap_or_default();
        let error = Error::data("holds a folder or a link that cannot be read").in_file(format!("/{path}"));
        object_store::Error::PermissionDenied { path, source: Box::new(error) }
    }
}

impl fmt::Display for ConfinedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, confined", self.store)
    }
}

#[async_trait]
impl ObjectStore for ConfinedStore {
    async fn put_opts(&self, to: &Path, bytes: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.check(to, Access::Write)?;
        self.store.put_opts(to, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.check(to, Access::Write)?;
        self.store.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.check(from, Access::Read)?;
        self.store.get_opts(from, options).await
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.check(from, Access::Read)?;
        self.store.get_ranges(from, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let own = self.clone();
        let checked = locations.map(move |location| {
            let location = location?;
            own.check(&location, Access::Write).map(|()| location)
        });
        self.store.delete_stream(checked.boxed())
    }

    /// What a link in a folder leads to may be elsewhere, and is left out then.
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        if let Err(error) = self.check(prefix.unwrap_or(&Path::default()), Access::Read) {
            return stream::once(future::ready(Err(error))).boxed();
        }
        let (own, folder) = (self.clone(), prefix.cloned());
        let inside = move |found: object_store::Result<ObjectMeta>| match found {
            Ok(found) => own.sees(&found.location).then_some(Ok(found)),
            Err(error) => Some(Err(own.unlisted(folder.as_ref(), error))),
        };
        self.store.list(prefix).filter_map(move |found| future::ready(inside(found))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.check(prefix.unwrap_or(&Path::default()), Access::Read)?;
        let found = self.store.list_with_delimiter(prefix).await;
        let mut found = found.map_err(|error| self.unlisted(prefix, error))?;
        found.objects.retain(|object| self.sees(&object.location));
        found.common_prefixes.retain(|folder| self.sees(folder));
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.check(from, Access::Read)?;
        self.check(to, Access::Write)?;
        self.store.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.check(from, Access::Write)?;
        self.check(to, Access::Write)?;
        self.store.rename_opts(from, to, options).await
    }
}
