//! The object store of local files as a confined session has it: DataFusion's own tables and COPY come by it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::common::Result;
use datafusion::execution::object_store::ObjectStoreRegistry;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt, future};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions,
};
use url::Url;

use super::{Access, Confinement};

/// Gives a confined store for local files, and what others have registered for other places.
#[derive(Debug)]
pub(super) struct ConfinedRegistry {
    inner: Arc<dyn ObjectStoreRegistry>,
    files: Arc<dyn ObjectStore>,
}

impl ConfinedRegistry {
    pub(super) fn new(inner: Arc<dyn ObjectStoreRegistry>, confinement: Arc<Confinement>) -> Self {
        Self { inner, files: Arc::new(ConfinedFiles { files: Arc::default(), confinement }) }
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
        match url.scheme() {
            "file" => Ok(Arc::clone(&self.files)),
            _ => self.inner.get_store(url),
        }
    }
}

/// Local files, as far as a session may reach them.
#[derive(Debug, Clone)]
struct ConfinedFiles {
    files: Arc<LocalFileSystem>,
    confinement: Arc<Confinement>,
}

impl ConfinedFiles {
    fn check(&self, location: &Path, access: Access) -> object_store::Result<()> {
        let path = self.files.path_to_filesystem(location)?;
        self.confinement.check(&path, access).map_err(|error| object_store::Error::PermissionDenied {
            path: location.to_string(),
            source: Box::new(error),
        })
    }
}

impl fmt::Display for ConfinedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, confined", self.files)
    }
}

#[async_trait]
impl ObjectStore for ConfinedFiles {
    async fn put_opts(&self, to: &Path, bytes: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.check(to, Access::Write)?;
        self.files.put_opts(to, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.check(to, Access::Write)?;
        self.files.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.check(from, Access::Read)?;
        self.files.get_opts(from, options).await
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.check(from, Access::Read)?;
        self.files.get_ranges(from, ranges).await
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
        self.files.delete_stream(checked.boxed())
    }

    /// What a link in a folder leads to may be elsewhere, and is left out then.
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        if let Err(error) = self.check(prefix.unwrap_or(&Path::default()), Access::Read) {
            return stream::once(future::ready(Err(error))).boxed();
        }
        let own = self.clone();
        let is_inside = move |found: &ObjectMeta| future::ready(own.check(&found.location, Access::Read).is_ok());
        self.files.list(prefix).try_filter(is_inside).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.check(prefix.unwrap_or(&Path::default()), Access::Read)?;
        let mut found = self.files.list_with_delimiter(prefix).await?;
        found.objects.retain(|object| self.check(&object.location, Access::Read).is_ok());
        found.common_prefixes.retain(|folder| self.check(folder, Access::Read).is_ok());
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.check(from, Access::Read)?;
        self.check(to, Access::Write)?;
        self.files.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.check(from, Access::Write)?;
        self.check(to, Access::Write)?;
        self.files.rename_opts(from, to, options).await
    }
}
