//! Files that nobody keeps: output of candidates, and what is not finished when Ctrl-C ends the program.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use streamlines::Error;

use super::super::{INTERRUPTED, interrupts};

/// What is taken away when the program is interrupted.
#[derive(Debug, Clone, Default)]
pub struct Leftovers(Arc<Mutex<Vec<PathBuf>>>);

impl Leftovers {
    /// Listens for Ctrl-C.
    pub fn listen() -> Self {
        let leftovers = Self::default();
        let kept = leftovers.clone();
        let pressed = interrupts::next();
        tokio::spawn(async move {
            if pressed.await.is_ok() {
                kept.0.lock().iter().for_each(|path| take_away(path));
                std::process::exit(i32::from(INTERRUPTED));
            }
        });
        leftovers
    }

    /// Names files that are not finished, until `work` is done.
    pub fn while_making<T>(&self, unfinished: Vec<PathBuf>, work: impl FnOnce() -> T) -> T {
        let before = self.0.lock().len();
        self.0.lock().extend(unfinished);
        let done = work();
        self.0.lock().truncate(before);
        done
    }
}

/// A folder of this process, which is taken away with what is in it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it among temporary files.
    ///
    /// # Errors
    /// Temporary files that cannot be written.
    pub fn new(leftovers: &Leftovers) -> Result<Self, Error> {
        let folder = std::env::temp_dir().join(format!("streamlines-bench-{}", std::process::id()));
        leftovers.0.lock().push(folder.clone());
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
        take_away(&self.0);
    }
}

/// What cannot be taken away, or is not there, is in nobody's way.
fn take_away(path: &Path) {
    let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
}
