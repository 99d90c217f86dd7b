//! The files of an output folder: what they are called, where they are, and which are there.
//!
//! Names are relative to the folder; where rows are divided by values they begin with folders in it, `origin=EWR/`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use datafusion::error::Result;
use futures::TryStreamExt;
use object_store::path::{Path as ObjectPath, PathPart};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::error::Error;

use super::OutputFormat;
use super::file_writer::{io_error, not_written};
use super::files::FileSink;
use super::hive::folder_of;

/// What the names of files in a folder begin with; the pipeline's number and the format follow.
pub(super) const PART: &str = "part-";

const STAGED: &str = ".staged";

/// The name of a file in its folder.
fn base(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, base)| base)
}

/// The name under which a file is written until it is to be visible: in the same folder, and one that no reader looks for.
pub(super) fn staged(file: &str) -> String {
    let base = base(file);
    format!("{}.{base}{STAGED}", &file[..file.len() - base.len()])
}

/// The file that is staged under a name.
pub(super) fn staged_file(name: &str) -> Option<String> {
    let base = base(name);
    let file = base.strip_prefix('.')?.strip_suffix(STAGED)?;
    Some(format!("{}{file}", &name[..name.len() - base.len()]))
}

/// The file that an upload into the local file system, which was not completed, was to become.
pub(super) fn unfinished(name: &str) -> Option<&str> {
    let (file, number) = name.rsplit_once('#')?;
    (!number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())).then_some(file)
}

/// What the name of a file says that a run has written into a folder: its pipeline and, if it was written in epochs, the
/// epoch.
pub(super) fn pipeline_and_number(file: &str) -> Option<(usize, Option<u64>)> {
    let (part, _) = base(file).strip_prefix(PART)?.split_once('.')?;
    let mut numbers = part.split('-');
    let pipeline = numbers.next()?.parse().ok()?;
    Some((pipeline, numbers.next().and_then(|number| number.parse().ok())))
}

/// The format of a file that a run has written into a folder, and that is whole.
pub(super) fn format_of_part(file: &str) -> Option<OutputFormat> {
    pipeline_and_number(file)?;
    let (_, extension) = base(file).split_once('.')?;
    extension.trim_end_matches(".gz").trim_end_matches(".zst").parse().ok()
}

impl FileSink {
    /// The object of a file.
    pub(super) fn object(&self, name: &str) -> Result<ObjectPath> {
        let wrong = |error: String| Error::data(format!("is no place for output: {error}")).in_file(&self.shown);
        if let Some(local) = &self.local {
            let path = ObjectPath::from_absolute_path(local.path.join(name));
            return Ok(path.map_err(|error| wrong(error.to_string()))?);
        }
        let parts = name.split('/').map(|part| PathPart::parse(part).map_err(|error| wrong(error.to_string())));
        let parts = parts.collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(self.path.parts().chain(parts).collect())
    }

    pub(super) async fn is_there(&self, name: &str) -> Result<bool> {
        if let Some(local) = &self.local {
            return Ok(local.path.join(name).is_file());
        }
        match self.store.head(&self.object(name)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(not_written(&self.shown, error)),
        }
    }

    /// What uploads have left that were not completed, and the file that each was to become. A store shows nobody such
    /// uploads, and removes them by its own rules.
    pub(super) async fn unfinished(&self) -> Result<Vec<(String, String)>> {
        if self.local.is_none() {
            return Ok(vec![]);
        }
        let file = |name: String| Some((unfinished(&name)?.to_string(), name));
        Ok(self.names().await?.into_iter().filter_map(file).map(|(file, name)| (name, file)).collect())
    }

    /// Removes a file, and the folders of its values if nothing else is in them.
    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        let Some(local) = &self.local else {
            let removed = self.store.delete(&self.object(name)?).await;
            return removed.map_err(|error| not_written(&self.shown, error));
        };
        let folder = local.in_folder(self.folder);
        std::fs::remove_file(folder.join(name)).map_err(|error| io_error(&self.shown, &error))?;
        self.remove_if_empty(name);
        Ok(())
    }

    fn remove_if_empty(&self, name: &str) {
        let Some(local) = &self.local else { return };
        let root = local.in_folder(self.folder);
        for folder in root.join(name).ancestors().skip(1).take_while(|folder| *folder != root) {
            if std::fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }

    /// Removes files of a run that has failed; one that cannot be removed is told.
    pub(super) async fn remove_all(&self, names: impl Iterator<Item = String>) {
        for name in names {
            if let Err(error) = self.remove(&name).await {
                tracing::warn!("{}{name}: the file of a run that failed could not be removed: {error}", self.shown);
            }
        }
    }

    /// The names of what is in the folder, and in those of values in it.
    pub(super) async fn names(&self) -> Result<Vec<String>> {
        match &self.local {
            Some(local) => {
                let mut names = vec![];
                let walked = self.walk(local.in_folder(self.folder), Path::new(""), &mut names);
                walked.map_err(|error| io_error(&self.shown, &error))?;
                Ok(names)
            }
            None => self.objects().await.map_err(|error| not_written(&self.shown, error)),
        }
    }

    fn walk(&self, root: &Path, below: &Path, names: &mut Vec<String>) -> std::io::Result<()> {
        let entries = match std::fs::read_dir(root.join(below)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name: PathBuf = below.join(entry.file_name());
            let column = self.hive.columns.get(below.components().count());
            let is_value = |column: &String| entry.file_name().to_string_lossy().starts_with(&folder_of(column, ""));
            match column.is_some_and(is_value) && entry.file_type()?.is_dir() {
                true => self.walk(root, &name, names)?,
                false => names.push(name.to_string_lossy().into_owned()),
            }
        }
        Ok(())
    }

    async fn objects(&self) -> object_store::Result<Vec<String>> {
        let objects: Vec<ObjectMeta> = match self.hive.columns.is_empty() {
            true => self.store.list_with_delimiter(Some(&self.path)).await?.objects,
            false => self.store.list(Some(&self.path)).try_collect().await?,
        };
        let name = |object: ObjectMeta| {
            let parts: Vec<String> =
                object.location.prefix_match(&self.path)?.map(|part| part.as_ref().to_string()).collect();
            Some(parts.join("/"))
        };
        Ok(objects.into_iter().filter_map(name).collect())
    }
}
