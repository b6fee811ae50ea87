//! Which file is open: told by device and inode, compared with what stands at the path.
//!
//! When the file is renamed over, or its `-wal` is unlinked, SQLite's commits go on into files that nobody will find
//! again. The files are only looked at, never opened: closing a descriptor would drop SQLite's locks. The log has none.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::store::error::Fatal;
use crate::store::file::open;

/// The open file and its write-ahead log.
pub(in crate::store) struct Identity {
    path: PathBuf,
    wal: PathBuf,
    file: Option<Inode>,
    log: Option<Inode>,
}

impl Identity {
    /// The files as they are right after the first transaction.
    pub(in crate::store) fn of(path: &Path) -> Identity {
        let wal = open::companion(path, "-wal");
        Identity { file: inode(path), log: inode(&wal), path: path.to_owned(), wal }
    }

    /// Compares. Gives the bytes of the write-ahead log's file.
    ///
    /// # Errors
    /// Another file, or none, stands in the place of an open one.
    pub(in crate::store) fn check(&self) -> Result<u64, Fatal> {
        if inode(&self.path) != self.file {
            return Err(Fatal::FileReplaced);
        }
        let log = fs::metadata(&self.wal).ok();
        if log.as_ref().map(inode_of) != self.log {
            return Err(Fatal::WalReplaced);
        }
        Ok(log.map_or(0, |log| log.len()))
    }

    /// The open write-ahead log, to be synced.
    ///
    /// # Errors
    /// It cannot be opened, or is not the one that was there before.
    pub(in crate::store) fn open_log(&self) -> io::Result<File> {
        let log = File::open(&self.wal)?;
        if Some(inode_of(&log.metadata()?)) == self.log { Ok(log) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Removes everything from the open write-ahead log. Its name stays, so that no other program takes it for replaced.
    ///
    /// # Errors
    /// It cannot be opened, or is not the one that was there before.
    pub(in crate::store) fn empty_log(&self) -> io::Result<()> {
        let log = File::options().write(true).open(&self.wal)?;
        if Some(inode_of(&log.metadata()?)) == self.log { log.set_len(0) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Whether no other log stands in the place of the open one: nobody but this process has what is in it.
    pub(in crate::store) fn has_no_other_log(&self) -> bool {
        let found = inode(&self.wal);
        found.is_none() || found == self.log
    }
}

/// Device and inode: no other file has the same while this one is open.
pub(in crate::store) type Inode = (u64, u64);

/// Of what stands at a path.
pub(in crate::store) fn inode(path: &Path) -> Option<Inode> {
    fs::metadata(path).ok().map(|metadata| inode_of(&metadata))
}

/// Of a file that is known already, as an open one is.
pub(in crate::store) fn inode_of(metadata: &Metadata) -> Inode {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use crate::store::file::identity::*;

    #[test]
    fn another_log_in_the_place_of_the_open_one_is_told_from_none() {
        let directory = tempfile::tempdir().unwrap();
        let (path, wal) = (directory.path().join("auth.db"), directory.path().join("auth.db-wal"));
        fs::write(&path, []).unwrap();
        let mut open = fs::File::create(&wal).unwrap();
        let identity = Identity::of(&path);
        open.write_all(&[0; 32]).unwrap();
        assert_eq!((identity.check(), identity.has_no_other_log()), (Ok(32), true));
        fs::remove_file(&wal).unwrap();
        assert_eq!((identity.check(), identity.has_no_other_log()), (Err(Fatal::WalReplaced), true));
        fs::write(&wal, []).unwrap();
        assert_eq!((identity.check(), identity.has_no_other_log()), (Err(Fatal::WalReplaced), false));
        // Held open until here, so that its inode is not used again.
        drop(open);
    }
}
