//! The object stores that the program was built for, found by their URLs and configured from the environment, as users of
//! object_store have it: `AWS_ACCESS_KEY_ID`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` and so on.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure", feature = "http"))]
use std::time::Duration;

use datafusion::error::Result;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use object_store::ObjectStore;
use parking_lot::Mutex;
use url::{Position, Url};

/// A builder of the program's runtime environment, which knows these stores.
pub fn runtime_builder() -> RuntimeEnvBuilder {
    RuntimeEnvBuilder::new().with_object_store_registry(Arc::new(Stores::default()))
}

/// Stores by what their URLs begin with: a container of Azure is named before the host.
#[derive(Default)]
struct Stores {
    others: DefaultObjectStoreRegistry,
    made: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl fmt::Debug for Stores {
    /// Without their configurations, which hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").finish_non_exhaustive()
    }
}

impl ObjectStoreRegistry for Stores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.others.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.others.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let key = &url[..Position::BeforePath];
        if let Some(made) = self.made.lock().get(key) {
            return Ok(Arc::clone(made));
        }
        match made(url)? {
            Some(store) => {
                self.made.lock().insert(key.to_string(), Arc::clone(&store));
                Ok(store)
            }
            None => self.others.get_store(url),
        }
    }
}

/// The store of a URL, if the program was built for its kind.
///
/// # Errors
/// A configuration that does not do for it.
fn made(url: &Url) -> Result<Option<Arc<dyn ObjectStore>>> {
    Ok(match url.scheme() {
        #[cfg(feature = "s3")]
        "s3" | "s3a" => {
            let builder = object_store::aws::AmazonS3Builder::from_env().with_url(url.as_str());
            Some(Arc::new(builder.with_retry(retries()).build()?))
        }
        #[cfg(feature = "gcs")]
        "gs" => {
            let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
            Some(Arc::new(builder.with_retry(retries()).build()?))
        }
        #[cfg(feature = "azure")]
        "az" | "azure" | "adl" | "abfs" | "abfss" => {
            let builder = object_store::azure::MicrosoftAzureBuilder::from_env().with_url(url.as_str());
            Some(Arc::new(builder.with_retry(retries()).build()?))
        }
        #[cfg(feature = "http")]
        "http" | "https" => {
            // Whoever writes http:// does not want encryption.
            let options = object_store::ClientOptions::new().with_allow_http(url.scheme() == "http");
            let builder = object_store::http::HttpBuilder::new().with_url(&url[..Position::BeforePath]);
            Some(Arc::new(builder.with_client_options(options).with_retry(retries()).build()?))
        }
        _ => None,
    })
}

/// A few attempts of the client itself, so that one that cannot reach its store says so soon: the library tries whole
/// operations again, and only the parts of large uploads hang on these.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure", feature = "http"))]
fn retries() -> object_store::RetryConfig {
    let backoff = object_store::BackoffConfig { max_backoff: Duration::from_secs(2), ..Default::default() };
    object_store::RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(20) }
}
