//! Finding a stream's files: a file, a folder, a glob or a comma list; Hive folders; natural order. What is in an object
//! store `stored_files.rs` finds.

use std::cmp::Ordering;
use std::path::{Component, Path, PathBuf};

use datafusion::common::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionConfig;
use glob::{MatchOptions, glob_with};
use object_store::ObjectMeta;

use crate::confinement;
use crate::error::{Error, Location};
use crate::sql::FileFormat;
use crate::store::{is_url, without_secrets};

use super::place::FilePlace;
use super::stored_files;

/// The value of a Hive folder whose rows have none.
pub(crate) const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The columns and values of the Hive folders of a file.
pub(super) type HiveParts = Vec<(String, Option<String>)>;

/// A file of a stream.
#[derive(Debug, Clone)]
pub(super) struct FoundFile {
    pub(super) place: FilePlace,
    /// What a listing has said of it.
    pub(super) object: Option<ObjectMeta>,
    /// `key=value` folders between the stream's folder and the file.
    pub(super) hive: HiveParts,
}

/// Whether a quoted name in a FROM clause means files.
pub(crate) fn is_data_path(name: &str) -> bool {
    name.contains('/') || name.contains('*') || format_of(name).is_some()
}

/// The format that a file's extension says, also under a compression's.
pub(super) fn format_of(name: &str) -> Option<FileFormat> {
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    match name.rsplit_once('.')?.1.to_lowercase().as_str() {
        "parquet" => Some(FileFormat::Parquet),
        "csv" | "tsv" => Some(FileFormat::Csv),
        "json" | "ndjson" | "jsonl" => Some(FileFormat::Json),
        _ => None,
    }
}

/// Whose files are looked for: a session's, which knows stores, and may be confined.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) runtime: &'a RuntimeEnv,
    pub(super) config: &'a SessionConfig,
}

impl Search<'_> {
    /// What the session may see of what a glob or a folder leads to; the rest is not there for it.
    fn sees(&self, path: &Path) -> bool {
        confinement::sees(self.config, path)
    }
}

/// All files of a location, in natural order of their paths.
///
/// # Errors
/// Nothing is there, or a folder that cannot be read.
pub(super) async fn find(
    location: &str,
    format: Option<FileFormat>,
    at: Option<Location>,
    search: Search<'_>,
) -> Result<Vec<FoundFile>> {
    let mut files = vec![];
    for part in parts(location) {
        let found = find_part(part, format, search).await?;
        if found.is_empty() {
            return Err(nothing_found(part, format, at).into());
        }
        files.extend(found);
    }
    Ok(in_order(files))
}

/// The same, of which there may be none.
///
/// # Errors
/// A folder that cannot be read.
pub(super) async fn find_any(location: &str, format: Option<FileFormat>, search: Search<'_>) -> Result<Vec<FoundFile>> {
    let mut files = vec![];
    for part in parts(location) {
        files.extend(find_part(part, format, search).await?);
    }
    Ok(in_order(files))
}

fn in_order(files: Vec<FoundFile>) -> Vec<FoundFile> {
    let mut files: Vec<(String, FoundFile)> = files.into_iter().map(|file| (file.place.name(), file)).collect();
    files.sort_by(|(a, _), (b, _)| natural_order(a, b));
    files.dedup_by(|(a, _), (b, _)| a == b);
    files.into_iter().map(|(_, file)| file).collect()
}

async fn find_part(part: &str, format: Option<FileFormat>, search: Search<'_>) -> Result<Vec<FoundFile>> {
    match is_url(part) {
        true => stored_files::find(part, format, &search).await,
        false => find_local(part, format, &|path| search.sees(path)),
    }
}

/// Whether a location is one object of a store.
pub(super) fn is_object(location: &str, format: FileFormat) -> bool {
    let mut parts = parts(location);
    let only = parts.next().filter(|part| parts.next().is_none() && is_url(part));
    only.is_some_and(|part| stored_files::is_object(part, format))
}

/// Whether files of a location are in an object store.
pub(super) fn is_stored(location: &str) -> bool {
    parts(location).any(is_url)
}

/// What a session may see.
type Sees<'a> = &'a dyn Fn(&Path) -> bool;

/// The file that a location is, if it is one: there, or by its name.
///
/// # Errors
/// A folder that is gone.
pub(super) fn only_file(location: &str, format: FileFormat) -> Result<Option<PathBuf>> {
    let mut parts = parts(location);
    let (Some(part), None) = (parts.next(), parts.next()) else { return Ok(None) };
    if is_url(part) {
        return Ok(None);
    }
    let path = Path::new(part);
    let is_name = || !path.exists() && !part.ends_with('/') && !has_wildcard(part) && format_of(part) == Some(format);
    (path.is_file() || is_name()).then(|| absolute(path)).transpose()
}

/// The files, folders and beginnings of globs that a location names, as far as nothing is looked up for them.
pub(super) fn places(location: &str) -> impl Iterator<Item = PathBuf> {
    let fixed = |part: &str| {
        let is_fixed = |part: &Component| !has_wildcard(&part.as_os_str().to_string_lossy());
        match Path::new(part).exists() {
            true => PathBuf::from(part),
            false => Path::new(".").components().chain(Path::new(part).components().take_while(is_fixed)).collect(),
        }
    };
    parts(location).filter(|part| !is_url(part)).map(fixed)
}

/// The folders of this machine in which files of a location appear, each with whether that is so for the folders in it. Below a
/// glob of folders that may be too many to watch: it has none.
pub(super) fn folders(location: &str) -> Vec<(PathBuf, bool)> {
    let folder = |part: &str| match (Path::new(part), Path::new(part).parent()) {
        (path, _) if path.is_dir() => Some((path.to_path_buf(), true)),
        (_, Some(parent)) if parent.as_os_str().is_empty() => Some((PathBuf::from("."), false)),
        (_, Some(parent)) if parent.is_dir() => Some((parent.to_path_buf(), false)),
        _ => None,
    };
    parts(location).filter_map(folder).collect()
}

fn parts(location: &str) -> impl Iterator<Item = &str> {
    let parts = location.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.strip_prefix("file://").unwrap_or(part))
}

fn nothing_found(part: &str, format: Option<FileFormat>, at: Option<Location>) -> Error {
    if is_url(part) {
        let error = Error::sql(format!("no file at '{}'", without_secrets(part))).at(at);
        return error.help("LOCATION takes an object, a folder that ends in /, a glob or a comma list");
    }
    let kind = format.map_or("data".to_string(), |format| format!("{format:?}").to_uppercase());
    let what = match Path::new(part).is_dir() {
        true => format!("the folder '{part}' holds no {kind} files"),
        false => format!("no file at '{part}'"),
    };
    let folder = std::env::current_dir().map(|folder| folder.display().to_string()).unwrap_or_default();
    Error::sql(what)
        .at(at)
        .help(format!("LOCATION takes a file, a folder, a glob or a comma list; relative paths start at {folder}"))
}

fn find_local(part: &str, format: Option<FileFormat>, sees: Sees) -> Result<Vec<FoundFile>> {
    let path = Path::new(part);
    if path.is_dir() {
        let mut files = vec![];
        walk(path, format, sees, &mut vec![], &mut files)?;
        return Ok(files);
    }
    if path.is_file() {
        return Ok(if sees(path) { vec![local_file(path, vec![])?] } else { vec![] });
    }
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::default() };
    let paths = glob_with(part, options).map_err(|error| Error::data(format!("'{part}' is no glob: {error}")))?;
    let mut files = vec![];
    let fixed = path.components().take_while(|part| !has_wildcard(&part.as_os_str().to_string_lossy())).count();
    for path in paths {
        let path = match path {
            Err(error) if !sees(error.path()) => continue,
            path => path.map_err(|error| Error::data(error.to_string()))?,
        };
        if !sees(&path) {
            continue;
        }
        match path.is_dir() {
            true => walk(&path, format, sees, &mut hive_of(&path, fixed), &mut files)?,
            false => {
                let hive = path.parent().map_or(vec![], |folder| hive_of(folder, fixed));
                files.push(local_file(&path, hive)?);
            }
        }
    }
    Ok(files)
}

fn local_file(path: &Path, hive: HiveParts) -> Result<FoundFile> {
    Ok(FoundFile { place: FilePlace::Local(absolute(path)?), object: None, hive })
}

pub(super) fn has_wildcard(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// The `key=value` folders of a path after its first ones, which are the same for every file of the glob.
fn hive_of(folder: &Path, fixed: usize) -> HiveParts {
    folder.components().skip(fixed).filter_map(|part| hive_part(&part.as_os_str().to_string_lossy())).collect()
}

/// Collects a folder's files of the format, folders below it included; hidden ones and those that begin with `_`,
/// which writers use for work in progress, are left out.
fn walk(
    folder: &Path,
    format: Option<FileFormat>,
    sees: Sees,
    hive: &mut HiveParts,
    files: &mut Vec<FoundFile>,
) -> Result<()> {
    let unreadable = |error: std::io::Error| Error::data(error.to_string()).in_file(folder.display().to_string());
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_hidden(&name) || !sees(&path) {
            continue;
        }
        if path.is_dir() {
            let part = hive_part(&name);
            hive.extend(part.clone());
            walk(&path, format, sees, hive, files)?;
            part.map(|_| hive.pop());
        } else if format_of(&name).is_some_and(|found| format.is_none_or(|format| format == found)) {
            files.push(local_file(&path, hive.clone())?);
        }
    }
    Ok(())
}

/// Whether a file or a folder is somebody's work in progress.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || name.starts_with('_')
}

/// The column and value of a `key=value` folder; the value of a missing one is none.
pub(super) fn hive_part(name: &str) -> Option<(String, Option<String>)> {
    let (key, value) = name.split_once('=')?;
    // What a folder's name may not hold is written %20 and so on.
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    (!key.is_empty()).then(|| (decoded(key), (value != HIVE_NULL).then(|| decoded(value))))
}

/// The path of a file from the root on, without `..`, which object stores have not.
fn absolute(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) if folder.components().any(|part| part == Component::ParentDir) => {
            Ok(std::fs::canonicalize(folder)?.join(name))
        }
        _ => Ok(path),
    }
}

/// Order of names in which numbers count as numbers: flights-2 before flights-10.
pub(super) fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (number_a, rest_a) = split_number(a);
        let (number_b, rest_b) = split_number(b);
        if !number_a.is_empty() && !number_b.is_empty() {
            let (short_a, short_b) = (number_a.trim_start_matches('0'), number_b.trim_start_matches('0'));
            let order = short_a.len().cmp(&short_b.len()).then(short_a.cmp(short_b)).then(number_a.cmp(number_b));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (rest_a, rest_b);
            continue;
        }
        let (mut chars_a, mut chars_b) = (a.chars(), b.chars());
        match (chars_a.next(), chars_b.next()) {
            (Some(x), Some(y)) if x == y => (a, b) = (chars_a.as_str(), chars_b.as_str()),
            (x, y) => return x.cmp(&y),
        }
    }
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = vec!["f-10", "f-2", "f-1", "f", "f-02", "e-99"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["e-99", "f", "f-1", "f-02", "f-2", "f-10"]);
    }

    async fn found(location: &Path, format: Option<FileFormat>) -> Vec<FoundFile> {
        let (runtime, config) = (RuntimeEnv::default(), SessionConfig::new());
        let search = Search { runtime: &runtime, config: &config };
        find(&location.to_string_lossy(), format, None, search).await.unwrap()
    }

    #[tokio::test]
    async fn folders_are_walked_with_their_hive_parts() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "origin=EWR/b.parquet",
            "origin=EWR/_tmp.parquet",
            "origin=JFK/.c.parquet",
            "origin=JFK/d.csv",
            "origin=New%20York/f.parquet",
            "e.parquet",
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let files = found(folder.path(), Some(FileFormat::Parquet)).await;
        let hive: Vec<_> = files.into_iter().map(|file| file.hive).collect();
        let origin = |name: &str| vec![("origin".to_string(), Some(name.to_string()))];
        assert_eq!(hive, [vec![], origin("EWR"), origin("New York")]);
        for glob in ["*=*", "origin=*/*.parquet", "*/[bf].parquet"] {
            let files = found(&folder.path().join(glob), Some(FileFormat::Parquet)).await;
            let visible = files.into_iter().filter(|file| !file.place.name().ends_with("_tmp.parquet"));
            let hive = visible.map(|file| file.hive);
            assert_eq!(hive.collect::<Vec<_>>(), [origin("EWR"), origin("New York")], "{glob}");
        }
    }

    #[tokio::test]
    async fn a_location_may_go_back() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, file) = (folder.path().join("in"), folder.path().join("a.csv"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(&file, "").unwrap();
        let expected = std::fs::canonicalize(&file).unwrap();
        for location in ["..", "../a.csv", "../*.csv", "../in/../a.csv"] {
            let files = found(&inner.join(location), None).await;
            let paths: Vec<_> = files.into_iter().map(|file| file.place.name()).collect();
            assert_eq!(paths, [expected.display().to_string()], "{location}");
        }
    }

    #[tokio::test]
    async fn nothing_there_is_an_error_that_says_where_it_looked() {
        let (runtime, config) = (RuntimeEnv::default(), SessionConfig::new());
        let search = Search { runtime: &runtime, config: &config };
        let error = find("no/such/*.parquet", None, None, search).await.unwrap_err().to_string();
        assert!(
            error.contains("no file at 'no/such/*.parquet'") && error.contains("relative paths start at"),
            "{error}"
        );
    }
}
