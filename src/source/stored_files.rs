//! Finding a stream's files in an object store: an object, those of a prefix, or a glob. Listings are in the order that the
//! store gives, and a prefix that ends within a name is none: what is between slashes is a folder, as on this machine.

use datafusion::common::Result;
use futures::TryStreamExt;
use glob::{MatchOptions, Pattern};
use object_store::path::Path as ObjectPath;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt};
use url::{Position, Url};

use crate::confinement;
use crate::error::Error;
use crate::sql::FileFormat;
use crate::store::{Remote, root, without_secrets};

use super::files::{FoundFile, HiveParts, Search, format_of, has_wildcard, hive_part, is_hidden};
use super::place::{FilePlace, Stored};

/// The object that a part of a location is, if it names one and no folder or glob.
pub(super) fn is_object(part: &str, format: FileFormat) -> bool {
    !part.ends_with('/') && !has_wildcard(part) && format_of(part) == Some(format)
}

/// The files of a part of a location.
///
/// # Errors
/// A store that is not known, that the session may not reach, or that cannot be read.
pub(super) async fn find(part: &str, format: Option<FileFormat>, search: &Search<'_>) -> Result<Vec<FoundFile>> {
    let shown = without_secrets(part);
    confinement::check_outside(search.config, &shown)?;
    let (folder, pattern) = split(part);
    if part.starts_with("http") && (pattern.is_some() || part.ends_with('/')) {
        let error = Error::data("is no single file, and an HTTP server says of none which others there are");
        return Err(error
            .in_file(shown)
            .help("name each file: 'https://host/a.parquet, https://host/b.parquet'")
            .into());
    }
    let folder = Folder::open(folder, search)?;
    let wrong = |error: &StoreError| Error::data(format!("cannot be read: {}", root(error))).in_file(&shown);
    if pattern.is_none() && !part.ends_with('/') {
        match folder.remote.store.head(&folder.remote.path).await {
            Ok(object) => return Ok(vec![folder.file(object, vec![])]),
            Err(StoreError::NotFound { .. }) if part.starts_with("http") => return Ok(vec![]),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(wrong(&error).into()),
        }
    }
    let pattern = pattern.map(|pattern| {
        Pattern::new(pattern).map_err(|error| Error::data(format!("is no glob: {error}")).in_file(&shown))
    });
    let pattern = pattern.transpose()?;
    let objects = folder.remote.store.list(Some(&folder.remote.path)).try_collect::<Vec<_>>().await;
    let objects = objects.map_err(|error| wrong(&error))?;
    Ok(objects.into_iter().filter_map(|object| folder.found(object, pattern.as_ref(), format)).collect())
}

/// What is before the first part of a path that has a wildcard, and the rest.
fn split(part: &str) -> (&str, Option<&str>) {
    match part.find(['*', '?', '[']).and_then(|wildcard| part[..wildcard].rfind('/')) {
        Some(slash) => (&part[..slash], Some(part[slash + 1..].trim_end_matches('/'))),
        None => (part, None),
    }
}

/// Where is listed.
struct Folder {
    remote: Remote,
    base: String,
}

impl Folder {
    fn open(url: &str, search: &Search<'_>) -> Result<Self> {
        let remote = Remote::find(url, search.runtime, search.config)?;
        let parsed =
            Url::parse(&remote.shown).map_err(|error| Error::data(error.to_string()).in_file(&remote.shown))?;
        Ok(Self { remote, base: parsed[..Position::BeforePath].to_string() })
    }

    fn file(&self, object: ObjectMeta, hive: HiveParts) -> FoundFile {
        let (store, base, path) = (self.remote.store.clone(), self.base.clone(), object.location.clone());
        FoundFile { place: FilePlace::Stored(Stored { store, base, path }), object: Some(object), hive }
    }

    /// An object that is in this folder, if it belongs to the stream: all those that the glob names, and of the folders that it
    /// names those of the format.
    fn found(&self, object: ObjectMeta, pattern: Option<&Pattern>, format: Option<FileFormat>) -> Option<FoundFile> {
        let parts = parts_below(&object.location, &self.remote.path)?;
        let (name, folders) = parts.split_last()?;
        let options = MatchOptions {
            require_literal_separator: true,
            require_literal_leading_dot: true,
            ..MatchOptions::default()
        };
        let matched = match pattern {
            None => 0,
            Some(pattern) => (1..=parts.len()).find(|end| pattern.matches_with(&parts[..*end].join("/"), options))?,
        };
        let is_named = matched == parts.len();
        let is_of_format = || format_of(name).is_some_and(|found| format.is_none_or(|format| format == found));
        if !is_named && (parts[matched..].iter().any(|part| is_hidden(part)) || !is_of_format()) {
            return None;
        }
        let hive = folders.iter().filter_map(|folder| hive_part(folder)).collect();
        Some(self.file(object, hive))
    }
}

fn parts_below(object: &ObjectPath, folder: &ObjectPath) -> Option<Vec<String>> {
    let parts: Vec<String> = object.prefix_match(folder)?.map(|part| part.as_ref().to_string()).collect();
    (!parts.is_empty()).then_some(parts)
}
