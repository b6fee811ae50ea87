//! Lock files: whoever holds the lock of one lives.
//!
//! A lock file is locked before it stands in its place, so that nobody ever finds one there that its process has not
//! locked yet. One that somebody removes, as cleaners of directories do, is put back by its process, which looks several
//! times a second; others take a file that is not there for the end of its process only after [`LOOKS`] looks in a row.
//! One file more is locked while charges become usage, and stands for no process ([`RollUpLock`]).

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::identity::{Inode, inode, inode_of};

/// How often in a row, a second or more apart, a lock file must be missing before its process counts as gone. One that
/// lives has put it back by then.
pub(super) const LOOKS: u32 = 4;

/// A lock file whose lock this process holds.
#[derive(Debug)]
pub(super) struct LockFile {
    path: PathBuf,
    /// Held open: the lock ends with it.
    _file: File,
    inode: Inode,
}

/// What a look at a lock file found.
#[derive(Debug)]
pub(super) enum Look {
    /// Its process lives.
    Held,
    /// Its process is gone; the lock is taken.
    Free(LockFile),
    /// There is no such file.
    Missing,
}

impl LockFile {
    /// Makes the file, in the place of any that stands there.
    pub(super) fn make(path: PathBuf) -> io::Result<LockFile> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".new");
        let file = File::options().write(true).create(true).truncate(false).open(&aside)?;
        file.lock()?;
        fs::rename(&aside, &path)?;
        LockFile::of(path, file)
    }

    /// Makes the file where none stands. An error when there is one by now, or when somebody else locked it first: this
    /// waits for nobody.
    pub(super) fn make_missing(path: PathBuf) -> io::Result<LockFile> {
        let file = File::options().write(true).create_new(true).open(&path)?;
        file.try_lock()?;
        LockFile::of(path, file)
    }

    /// Looks at the lock file of another process.
    pub(super) fn look(path: PathBuf) -> io::Result<Look> {
        let file = match File::options().write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Look::Missing),
            opened => opened?,
        };
        match file.try_lock() {
            Ok(()) => Ok(Look::Free(LockFile::of(path, file)?)),
            Err(TryLockError::WouldBlock) => Ok(Look::Held),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Puts the file back when it is gone, or when another stands in its place. Whether it did.
    pub(super) fn keep(&mut self) -> io::Result<bool> {
        if inode(&self.path) == Some(self.inode) {
            return Ok(false);
        }
        *self = LockFile::make(self.path.clone())?;
        Ok(true)
    }

    /// Takes the file away.
    pub(super) fn remove(self) {
        remove(&self.path);
    }

    fn of(path: PathBuf, file: File) -> io::Result<LockFile> {
        let inode = inode_of(&file.metadata()?);
        Ok(LockFile { path, _file: file, inode })
    }
}

/// Takes a lock file away, if it is there.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a lock file that is not needed any more could not be removed");
    }
}

/// The file that is locked while charges become usage: by who moves them alone, by those who count them together.
pub(super) struct RollUpLock {
    path: PathBuf,
    file: File,
    inode: Inode,
}

impl RollUpLock {
    /// Opens the file beside the database; makes it where it is missing.
    pub(super) fn open(database: &Path) -> io::Result<RollUpLock> {
        RollUpLock::at(RollUpLock::path(database))
    }

    fn at(path: PathBuf) -> io::Result<RollUpLock> {
        let file = File::options().write(true).create(true).truncate(false).open(&path)?;
        let inode = inode_of(&file.metadata()?);
        Ok(RollUpLock { path, file, inode })
    }

    /// Makes a file anew that somebody removed.
    pub(super) fn keep(&mut self) {
        if inode(&self.path) == Some(self.inode) {
            return;
        }
        match RollUpLock::at(self.path.clone()) {
            Ok(anew) => *self = anew,
            Err(error) => tracing::warn!(%error, "the lock for moving old charges cannot be made anew"),
        }
    }

    /// For one who moves charges. `None`: somebody else moves or counts them.
    pub(super) fn take(&self) -> Option<RollUpLocked<'_>> {
        match self.file.try_lock() {
            Ok(()) => Some(RollUpLocked(&self.file)),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "old charges stay: the lock for moving them cannot be had");
                None
            }
        }
    }

    /// Keeps charges where they are until the answer is dropped. `None`: the file is missing and may not be made here.
    pub(super) fn stay(database: &Path) -> io::Result<Option<File>> {
        let path = RollUpLock::path(database);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match RollUpLock::at(path) {
                Ok(made) => made.file,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
            opened => opened?,
        };
        file.lock_shared()?;
        Ok(Some(file))
    }

    /// Takes the file away, when nobody uses it any more.
    pub(super) fn remove(database: &Path) {
        remove(&RollUpLock::path(database));
    }

    fn path(database: &Path) -> PathBuf {
        beside(database, "usage")
    }
}

/// The lock of one who moves charges, until it is dropped.
pub(super) struct RollUpLocked<'a>(&'a File);

impl Drop for RollUpLocked<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the lock for moving old charges could not be given back");
        }
    }
}

/// How often in a row the lock files of instances were missing.
#[derive(Debug, Default)]
pub(super) struct Missing {
    looks: HashMap<i64, u32>,
}

impl Missing {
    /// Notes a look that found nothing. Whether that was one too many.
    pub(super) fn note(&mut self, instance: i64) -> bool {
        let looks = self.looks.entry(instance).or_default();
        *looks += 1;
        *looks >= LOOKS
    }

    /// Forgets all instances but these: their files are there, or they have ended.
    pub(super) fn keep_only(&mut self, instances: &[i64]) {
        self.looks.retain(|instance, _| instances.contains(instance));
    }

    /// Whether some lock file was missing at the last look, and has to be looked for again.
    pub(super) fn any_undecided(&self) -> bool {
        self.looks.values().any(|looks| *looks < LOOKS)
    }
}

/// The lock file of an instance stands beside the database.
pub(super) fn path(database: &Path, instance: i64) -> PathBuf {
    beside(database, &instance.to_string())
}

fn beside(database: &Path, name: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(format!("-keytoll-{name}.lock"));
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_that_is_gone_or_replaced_is_put_back_locked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        let mut lock = LockFile::make(path.clone()).unwrap();
        assert!(!lock.keep().unwrap());
        fs::remove_file(&path).unwrap();
        assert!(matches!(LockFile::look(path.clone()).unwrap(), Look::Missing));
        assert!(!path.exists(), "a look leaves nothing behind");
        assert!(lock.keep().unwrap() && !lock.keep().unwrap());
        assert!(matches!(LockFile::look(path.clone()).unwrap(), Look::Held));
        fs::write(directory.path().join("other"), "").unwrap();
        fs::rename(directory.path().join("other"), &path).unwrap();
        assert!(lock.keep().unwrap());
        assert!(matches!(LockFile::look(path.clone()).unwrap(), Look::Held));
        drop(lock);
        assert!(matches!(LockFile::look(path).unwrap(), Look::Free(_)));
    }

    #[test]
    fn a_lock_file_counts_as_gone_only_after_several_looks_in_a_row() {
        let mut missing = Missing::default();
        for _ in 0..3 {
            assert!(!missing.note(1));
        }
        missing.keep_only(&[]);
        for _ in 1..LOOKS {
            assert!(!missing.note(1));
        }
        assert!(missing.note(1));
    }
}
