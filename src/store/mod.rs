//! Folders in object stores: found by their URL among the stores that the session knows, and every operation on them
//! tried again when the store, or the way to it, fails for a moment.
//!
//! ```text
//!   s3://bucket/jobs/hourly ─ RuntimeEnv ─▶ the store of s3://bucket ─▶ Tried ─▶ jobs/hourly
//! ```
//!
//! Paths of this machine do not come here: the file system either does what it is asked or says for good why not.

#[cfg(test)]
pub(crate) mod faulty;
mod policy;
mod tried;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionConfig;
use object_store::path::Path;
use object_store::{ObjectStore, UpdateVersion};
use url::{Position, Url};

use crate::error::Error;

pub(crate) use policy::Policy;
pub(crate) use tried::Tried;

/// Whether a place is in an object store, and not on this machine.
pub(crate) fn is_url(place: &str) -> bool {
    place.contains("://") && !place.starts_with("file://")
}

/// A place in an object store.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// The URL without what is nobody's business.
    pub(crate) shown: String,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
    pub(crate) policy: Policy,
}

impl Remote {
    /// The place of a URL.
    ///
    /// # Errors
    /// Text that is no URL; a store that the session does not know.
    pub(crate) fn find(place: &str, runtime: &RuntimeEnv, config: &SessionConfig) -> Result<Self> {
        let shown = without_secrets(place);
        let wrong = |what: String| Error::data(what).in_file(&shown);
        let url =
            Url::parse(place).map_err(|error| wrong(format!("is no URL: {error}")).help("write s3://bucket/path"))?;
        let path = Path::from_url_path(url.path()).map_err(|error| wrong(error.to_string()))?;
        let store = runtime
            .object_store(ObjectStoreUrl::parse(&url[..Position::BeforePath])?)
            .map_err(|_| wrong("is in no store that the session knows".to_string()).help(HELP))?;
        let policy = Policy::of(config)?;
        Ok(Self { shown, store: Arc::new(Tried::new(store, policy)), path, policy })
    }
}

const HELP: &str = "the program knows s3://, gs://, az:// and http(s)://, unless it is built without them; a session those of \
                    RuntimeEnv::register_object_store";

/// A URL as it may be shown: who asks, and what for, stays out of logs, plans and checkpoints.
pub(crate) fn without_secrets(place: &str) -> String {
    let Ok(mut url) = Url::parse(place) else {
        return place.split(['?', '#']).next().unwrap_or_default().to_string();
    };
    // Without a password, what is before the host is a container of Azure.
    if url.password().is_some() {
        // A URL that cannot have them has none.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
    }
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// The version of an object that was read, to be replaced only by who knows it.
pub(crate) fn version_of(meta: &object_store::ObjectMeta) -> UpdateVersion {
    UpdateVersion { e_tag: meta.e_tag.clone(), version: meta.version.clone() }
}

/// What is at the bottom of an error, which is what a person can use.
pub(crate) fn root(error: &object_store::Error) -> &dyn std::error::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn places_are_found_by_their_urls() {
        let (runtime, config) = (RuntimeEnv::default(), SessionConfig::new());
        runtime.register_object_store(&Url::parse("s3://bucket").unwrap(), Arc::new(InMemory::new()));
        let found = Remote::find("s3://bucket/a%20b/c/", &runtime, &config).unwrap();
        assert_eq!((found.path.as_ref(), found.shown.as_str()), ("a b/c", "s3://bucket/a%20b/c/"));
        let unknown = Remote::find("s3://key:secret@other/a?sig=secret", &runtime, &config).unwrap_err().to_string();
        assert!(unknown.contains("s3://other/a: is in no store that the session knows"), "{unknown}");
        assert!(!unknown.contains("secret"), "{unknown}");
        assert_eq!(without_secrets("abfs://container@account.host/a?sig=secret"), "abfs://container@account.host/a");
        assert!(is_url("s3://bucket") && !is_url("file:///a") && !is_url("a/b"));
    }
}
