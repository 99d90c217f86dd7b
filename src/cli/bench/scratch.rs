//! A folder for output that nobody keeps.

use std::path::{Path, PathBuf};

use streamlines::Error;

/// A folder of this process, which is taken away with what is in it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it among temporary files.
    ///
    /// # Errors
    /// Temporary files that cannot be written.
    pub fn new() -> Result<Self, Error> {
        let folder = std::env::temp_dir().join(format!("streamlines-bench-{}", std::process::id()));
        match std::fs::create_dir_all(&folder) {
            Ok(()) => Ok(Self(folder)),
            Err(error) => Err(Error::data(format!("cannot be written: {error}"))
                .in_file(folder.display().to_string())
                .help("TMPDIR names a folder for temporary files")),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left there is in nobody's way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
