//! What SQL that comes from somebody else may reach: the files of one folder, and perhaps only to read them.
//!
//! Every place that SQL can name is asked for here: LOCATION, quoted paths, COPY, `streamlines.late` and
//! `streamlines.checkpoint_dir` where they are used, and whatever DataFusion reads or writes itself at the object stores
//! (`store.rs`), those of other places among them.

mod store;

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::cache::cache_manager::{CacheManager, CacheManagerConfig};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionConfig;

use crate::error::Error;
use crate::store::is_url;
use store::ConfinedRegistry;

/// Confines a session's SQL to the files of a folder, or to reading, or to both.
///
/// To be put into the configuration before a session is made of it:
///
/// ```
/// # fn main() -> datafusion::error::Result<()> {
/// use datafusion::prelude::SessionConfig;
/// use streamlines::{Confinement, streaming_session};
///
/// let confinement = Confinement::default().within_folder("testdata")?.reading_only();
/// let ctx = streaming_session(confinement.on(SessionConfig::new()));
/// # Ok(())
/// # }
/// ```
///
/// Links are followed first: what counts is where a path leads to when it is opened. Who can change links in the folder
/// while a query runs can lead it elsewhere; SQL cannot. Object stores of other places are outside of any folder. Settings of
/// `datafusion.runtime` stay as they are.
///
/// SQL of others is for [`StreamlinesContext`](crate::StreamlinesContext), which refuses a statement before anything has been done
/// for it. By `SessionContext::sql` it reaches no more; but a setting of `datafusion.runtime` that has been changed there ends
/// the use of the session, and so it is an error with each query then.
#[derive(Debug, Clone, Default)]
pub struct Confinement {
    root: Option<PathBuf>,
    reads_only: bool,
}

/// What is to be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Confinement {
    /// To the files of a folder and of those in it.
    ///
    /// # Errors
    /// No such folder.
    pub fn within_folder(self, root: impl AsRef<Path>) -> Result<Self> {
        let wrong = |what: String| Error::data(what).in_file(root.as_ref().display().to_string());
        let found = root.as_ref().canonicalize().map_err(|error| wrong(format!("is no root: {error}")))?;
        match found.is_dir() {
            true => Ok(Self { root: Some(found), ..self }),
            false => Err(wrong("is no root, for it is no folder".to_string()).into()),
        }
    }

    /// To reading: no file is written, made or taken away.
    pub fn reading_only(self) -> Self {
        Self { reads_only: true, ..self }
    }

    /// A configuration whose sessions are confined.
    pub fn on(self, config: SessionConfig) -> SessionConfig {
        config.with_extension(Arc::new(self))
    }

    /// That of a session, if it has one.
    pub(crate) fn of(config: &SessionConfig) -> Option<Arc<Self>> {
        config.get_extension()
    }

    /// The same environment, in which DataFusion itself is confined too.
    pub(crate) fn confine(self: Arc<Self>, runtime: &RuntimeEnv) -> Arc<RuntimeEnv> {
        let registry = ConfinedRegistry::new(Arc::clone(&runtime.object_store_registry), self);
        let cache_manager = empty_caches(&runtime.cache_manager);
        Arc::new(RuntimeEnv { object_store_registry: Arc::new(registry), cache_manager, ..runtime.clone() })
    }

    /// Whether a path may be read. What a glob or a folder leads to and may not be read is not there for it.
    pub(crate) fn sees(&self, path: &Path) -> bool {
        self.check(path, Access::Read).is_ok()
    }

    /// Whether a path may be read or written.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self, path: &Path, access: Access) -> std::result::Result<(), Error> {
        let shown = || path.display().to_string();
        self.check_access(shown, access)?;
        let Some(root) = &self.root else { return Ok(()) };
        // What is in an object store is in no folder of this machine.
        let leads_to = if is_url(&path.to_string_lossy()) { Ok(None) } else { resolved(path) };
        let leads_to = leads_to.map_err(|error| Error::data(error.to_string()).in_file(shown()))?;
        match leads_to.is_some_and(|place| place.starts_with(root)) {
            true => Ok(()),
            false => Err(outside(root, shown())),
        }
    }

    /// Whether an object of another place than this machine may be read or written.
    ///
    /// # Errors
    /// Why not.
    fn check_elsewhere(&self, url: &str, access: Access) -> std::result::Result<(), Error> {
        self.check_access(|| url.to_string(), access)?;
        self.root.as_ref().map_or(Ok(()), |root| Err(outside(root, url.to_string())))
    }

    fn check_access(&self, shown: impl Fn() -> String, access: Access) -> std::result::Result<(), Error> {
        if access == Access::Write && self.reads_only {
            let error = Error::data("may not be written: this session only reads").in_file(shown());
            return Err(error.help("who has started it can allow that, by leaving --read-only out"));
        }
        Ok(())
    }
}

fn outside(root: &Path, shown: String) -> Error {
    let what = format!("is outside of {}, to which this session is confined", root.display());
    Error::data(what).in_file(shown).help("who has started it can allow more, by another --root")
}

/// Caches of the same sizes: what another session has read may be of files that this one may not.
fn empty_caches(like: &CacheManager) -> Arc<CacheManager> {
    let config = CacheManagerConfig::default()
        .with_file_statistics_cache_limit(like.get_file_statistic_cache_limit())
        .with_list_files_cache_limit(like.get_list_files_cache_limit())
        .with_list_files_cache_ttl(like.get_list_files_cache_ttl())
        .with_metadata_cache_limit(like.get_metadata_cache_limit());
    CacheManager::try_new(&config).unwrap_or_else(|_| Arc::clone(&RuntimeEnv::default().cache_manager))
}

/// Checks a path that SQL has named in a session.
///
/// # Errors
/// As [`Confinement::check`].
pub(crate) fn check(config: &SessionConfig, path: &Path, access: Access) -> Result<()> {
    Confinement::of(config).map_or(Ok(()), |confinement| Ok(confinement.check(path, access)?))
}

/// Whether files that a glob or a folder leads to are there for a session.
pub(crate) fn sees(config: &SessionConfig, path: &Path) -> bool {
    Confinement::of(config).is_none_or(|confinement| confinement.sees(path))
}

/// Checks that a session may read what is no file, like a connection.
///
/// # Errors
/// It is confined to the files of a folder.
pub(crate) fn check_outside(config: &SessionConfig, place: &str) -> Result<()> {
    Confinement::of(config).map_or(Ok(()), |confinement| Ok(confinement.check_elsewhere(place, Access::Read)?))
}

/// Where a path leads, links followed as far as it is there; none if the rest of it goes back.
pub(crate) fn resolved(path: &Path) -> std::io::Result<Option<PathBuf>> {
    let absolute = std::path::absolute(path)?;
    // A link that leads to nothing is there, too.
    let is_there = |place: &&Path| place.symlink_metadata().is_ok();
    let there = absolute.ancestors().find(is_there).unwrap_or(Path::new("/"));
    let rest = absolute.strip_prefix(there).unwrap_or(Path::new(""));
    if rest.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Ok(None);
    }
    match there.canonicalize() {
        Ok(place) => Ok(Some(place.join(rest))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_are_judged_by_where_they_lead() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("root/in")).unwrap();
        fs::create_dir(at("root-2")).unwrap();
        fs::write(at("root/in/a.csv"), "").unwrap();
        fs::write(at("outside.csv"), "").unwrap();
        symlink(at("root/in"), at("to-in")).unwrap();
        symlink(at("outside.csv"), at("root/link.csv")).unwrap();
        symlink(folder.path(), at("root/up")).unwrap();
        symlink(at("nothing"), at("root/dangling")).unwrap();
        let confinement = Confinement::default().within_folder(at("root")).unwrap();
        for inside in
            ["root", "root/in/a.csv", "root/new/b.csv", "to-in/a.csv", "root/in/../in/a.csv", "root/up/root/in"]
        {
            assert!(confinement.check(&at(inside), Access::Write).is_ok(), "{inside}");
        }
        for outside in [
            "outside.csv",
            "root-2/a.csv",
            "root/../outside.csv",
            "root/in/../../outside.csv",
            "root/link.csv",
            "root/up/outside.csv",
            "root/up/new.csv",
            "root/dangling",
            "root/dangling/a.csv",
            "root/new/../../outside.csv",
            "root/s3://bucket/a.csv",
            "",
        ] {
            let told = confinement.check(&at(outside), Access::Read).map_err(|error| error.to_string());
            assert!(told.is_err_and(|told| told.contains("to which this session is confined")), "{outside}");
        }
        let reads = Confinement::default().reading_only();
        assert!(reads.check(&at("outside.csv"), Access::Read).is_ok());
        assert!(reads.check(&at("outside.csv"), Access::Write).is_err());
        assert!(Confinement::default().within_folder(at("no")).is_err());
        assert!(Confinement::default().within_folder(at("outside.csv")).is_err());
    }
}
