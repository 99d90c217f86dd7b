//! What the file system says of a path that is written to.

use std::path::{Component, Path, PathBuf};

use datafusion::error::Result;

use crate::confinement;
use crate::error::Error;

use super::file_writer::io_error;

/// A path of this machine.
#[derive(Debug, Clone)]
pub(super) struct Local {
    pub(super) path: PathBuf,
    /// A pipe or a device, which is written through and never replaced.
    pub(super) is_stream: bool,
    /// The outermost folder that has to be made for the output.
    new_folder: Option<PathBuf>,
}

impl Local {
    /// # Errors
    /// A path that is none; a folder where a file is to be; a folder that cannot be written to.
    pub(super) fn find(path: &str, is_folder: bool) -> Result<Self> {
        let plain = path.strip_prefix("file://").unwrap_or(path);
        if plain.trim_matches('/').is_empty() {
            let error = Error::data("is no place for output").in_file(format!("'{path}'"));
            return Err(error.help("name a file, or a folder with / at its end").into());
        }
        let absolute = std::path::absolute(plain)?;
        if !is_folder && absolute.is_dir() {
            let error = Error::data("is a folder").in_file(path);
            return Err(error
                .help(format!("name a file in it, or write {path}/ for one file from each pipeline"))
                .into());
        }
        let absolute = target(without_parents(absolute)?)?;
        let nearest = absolute.ancestors().skip(1).find(|folder| folder.exists());
        if nearest.and_then(|folder| folder.metadata().ok()).is_some_and(|folder| folder.permissions().readonly()) {
            return Err(io_error(path, &std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem)).into());
        }
        let is_stream = std::fs::metadata(&absolute).is_ok_and(|found| !found.is_file() && !found.is_dir());
        let innermost = if is_folder { Some(absolute.as_path()) } else { absolute.parent() };
        Ok(Self { new_folder: innermost.and_then(first_new_folder), path: absolute, is_stream })
    }

    /// The folder, or that of the file.
    pub(super) fn in_folder(&self, is_folder: bool) -> &Path {
        if is_folder { &self.path } else { self.path.parent().unwrap_or(&self.path) }
    }

    /// Removes what had to be made for the output, as far as it is empty.
    pub(super) fn remove_new_folders(&self, is_folder: bool) {
        if let Some(first) = &self.new_folder {
            remove_empty_folders(self.in_folder(is_folder), first);
        }
    }
}

/// The first of the folders on a path that is not there yet.
fn first_new_folder(path: &Path) -> Option<PathBuf> {
    path.ancestors().take_while(|folder| !folder.exists()).last().map(Path::to_path_buf)
}

/// Removes empty folders from the innermost one up to `first`.
fn remove_empty_folders(innermost: &Path, first: &Path) {
    for folder in innermost.ancestors().take_while(|folder| folder.starts_with(first)) {
        // What somebody else has put there stays.
        if std::fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

/// The same path without `..`, as the file system has it.
fn without_parents(path: PathBuf) -> Result<PathBuf> {
    match path.components().any(|part| part == Component::ParentDir) {
        false => Ok(path),
        true => confinement::resolved(&path)?.ok_or_else(|| {
            let error = Error::data("goes back from a folder that is not there").in_file(path.display().to_string());
            error.help("write the path without ..").into()
        }),
    }
}

/// Where the bytes of a path go: a link leads there, and stays a link.
fn target(path: PathBuf) -> Result<PathBuf> {
    if !path.is_symlink() {
        return Ok(path);
    }
    match std::fs::canonicalize(&path) {
        Ok(target) => Ok(target),
        // Nothing is there yet.
        Err(_) => Ok(path.parent().unwrap_or(Path::new("/")).join(std::fs::read_link(&path)?)),
    }
}
