//! Which file a name means: a log that is rotated is another file under the old name.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

/// How many of its first bytes tell a file from one that has its number later.
pub(super) const HEAD_BYTES: usize = 1024;

/// A file, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    /// Its number in its file system, and that of the file system.
    pub(crate) inode: u64,
    pub(crate) device: u64,
    /// So many of its first bytes have this sum.
    pub(crate) head_bytes: u64,
    pub(crate) head_sum: u32,
}

impl FileIdentity {
    /// Of an open file whose first bytes are known.
    pub(super) fn new(file: &Metadata, head: &[u8]) -> Self {
        let (inode, device) = number(file);
        Self { inode, device, head_bytes: head.len() as u64, head_sum: crc32fast::hash(head) }
    }

    /// Whether a path leads to this file.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let head = || {
            let mut file = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|file| file.is_file()))?;
            let found = Self::new(&file.metadata().ok()?, &[]);
            // Another number is another file, which need not be read.
            (found.inode, found.device).eq(&(self.inode, self.device)).then_some(())?;
            let mut head = vec![0; usize::try_from(self.head_bytes).ok()?.min(HEAD_BYTES)];
            file.read_exact(&mut head).ok()?;
            Some(crc32fast::hash(&head))
        };
        head() == Some(self.head_sum)
    }
}

/// What tells files of one machine apart.
#[cfg(unix)]
pub(super) fn number(file: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (file.ino(), file.dev())
}

/// Elsewhere the first bytes alone tell files apart.
#[cfg(not(unix))]
pub(super) fn number(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_under_another_name_and_not_its_successor() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("log"), "first\nsecond\n").unwrap();
        let identity = FileIdentity::new(&path("log").metadata().unwrap(), b"first\n");
        assert!(identity.is_at(&path("log")));
        std::fs::rename(path("log"), path("log.1")).unwrap();
        assert!(!identity.is_at(&path("log")));
        std::fs::write(path("log"), "first\n").unwrap();
        assert!(identity.is_at(&path("log.1")) && !identity.is_at(&path("log")));
        // The same number, and other bytes.
        std::fs::write(path("log.1"), "other\n").unwrap();
        assert!(!identity.is_at(&path("log.1")));
    }
}
