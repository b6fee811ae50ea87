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
use std::time::{Duration, Instant};

use crate::files::{self, Access, FileError, Links};
use crate::store::file::identity::{Inode, inode, inode_of};

/// How often a lock file is created again when another process interferes.
const ATTEMPTS: u32 = 5;

/// How often in a row, each time [`LOOK`] or more apart, a lock file must be missing before its process counts as gone. One that
/// lives has put it back by then.
pub(in crate::store) const LOOKS: u32 = 4;

/// How far apart these looks are at least: less than a gateway looks for the dead, and far more than it takes one that
/// lives to put its lock file back.
pub(in crate::store) const LOOK: Duration = Duration::from_millis(900);

/// A lock file whose lock this process holds.
#[derive(Debug)]
pub(in crate::store) struct LockFile {
    path: PathBuf,
    /// The database, whose access rights the file has.
    database: PathBuf,
    /// Held open: the lock ends with it.
    _file: File,
    inode: Inode,
}

/// What a look at a lock file found.
#[derive(Debug)]
pub(in crate::store) enum Look {
    /// Its process lives.
    Held,
    /// Its process is gone; the lock is taken.
    Free(LockFile),
    /// There is no such file.
    Missing,
}

impl LockFile {
    /// Creates the file of an instance, in the place of any that is there.
    ///
    /// It is created under another name, locked, and then renamed. Waits for no lock: a file that another process locks
    /// before this one does is removed, and another one created.
    pub(in crate::store) fn make(database: &Path, instance: i64) -> io::Result<LockFile> {
        let path = path(database, instance);
        let mut aside = path.as_os_str().to_owned();
        aside.push(".new");
        for _ in 0..ATTEMPTS {
            match files::create_new(aside.as_ref(), access(database)) {
                Ok(file) => match file.try_lock() {
                    Ok(()) => {
                        fs::rename(&aside, &path)?;
                        return LockFile::of(database, path, file);
                    }
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(error),
                },
                // Left behind by a process that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            fs::remove_file(&aside)?;
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "another process keeps locking this gateway's lock file"))
    }

    /// Creates the file of an instance where there is none. An error when there is one by now, or when another process
    /// locked it first: this waits for no lock.
    pub(in crate::store) fn make_missing(database: &Path, instance: i64) -> io::Result<LockFile> {
        let path = path(database, instance);
        let file = files::create_new(&path, access(database))?;
        file.try_lock()?;
        LockFile::of(database, path, file)
    }

    /// Looks at the lock file of another process.
    pub(in crate::store) fn look(database: &Path, instance: i64) -> io::Result<Look> {
        let path = path(database, instance);
        let file = match files::open_regular(&path, File::options().write(true), Links::Refuse) {
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(Look::Missing),
            opened => opened?,
        };
        match file.try_lock() {
            Ok(()) => Ok(Look::Free(LockFile::of(database, path, file)?)),
            Err(TryLockError::WouldBlock) => Ok(Look::Held),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Puts the file of this instance back when it is gone, or when another one is in its place. Whether it did.
    pub(in crate::store) fn keep(&mut self, instance: i64) -> io::Result<bool> {
        if inode(&self.path) == Some(self.inode) {
            return Ok(false);
        }
        *self = LockFile::make(&self.database, instance)?;
        Ok(true)
    }

    /// Takes the file away.
    pub(in crate::store) fn remove(self) {
        remove(&self.path);
    }

    fn of(database: &Path, path: PathBuf, file: File) -> io::Result<LockFile> {
        let inode = inode_of(&file.metadata()?);
        Ok(LockFile { path, database: database.to_owned(), _file: file, inode })
    }
}

/// Takes a lock file away, if it is there.
pub(in crate::store) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a lock file that is not needed any more could not be removed");
    }
}

/// The file that is locked while charges become usage: by who moves them alone, by those who count them together.
pub(in crate::store) struct RollUpLock {
    database: PathBuf,
    file: File,
    inode: Inode,
}

impl RollUpLock {
    /// Opens the file beside the database; makes it where it is missing.
    pub(in crate::store) fn open(database: &Path) -> io::Result<RollUpLock> {
        let path = RollUpLock::path(database);
        let mut opened = files::open_regular(&path, File::options().write(true), Links::Refuse);
        if matches!(&opened, Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound) {
            opened = match files::create_new(&path, access(database)) {
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    files::open_regular(&path, File::options().write(true), Links::Refuse)
                }
                created => Ok(created?),
            };
        }
        let file = opened?;
        let inode = inode_of(&file.metadata()?);
        Ok(RollUpLock { database: database.to_owned(), file, inode })
    }

    /// Makes a file anew that somebody removed.
    pub(in crate::store) fn keep(&mut self) {
        if inode(&RollUpLock::path(&self.database)) == Some(self.inode) {
            return;
        }
        match RollUpLock::open(&self.database) {
            Ok(anew) => *self = anew,
            Err(error) => tracing::warn!(%error, "the lock for moving old charges cannot be made anew"),
        }
    }

    /// For one who moves charges. `None`: somebody else moves or counts them.
    pub(in crate::store) fn take(&self) -> Option<RollUpLocked<'_>> {
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
    pub(in crate::store) fn stay(database: &Path) -> io::Result<Option<File>> {
        let path = RollUpLock::path(database);
        let file = match files::open_regular(&path, File::options().read(true), Links::Refuse) {
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => match RollUpLock::open(database) {
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
    pub(in crate::store) fn remove(database: &Path) {
        remove(&RollUpLock::path(database));
    }

    fn path(database: &Path) -> PathBuf {
        beside(database, "usage")
    }
}

/// The lock of one who moves charges, until it is dropped.
pub(in crate::store) struct RollUpLocked<'a>(&'a File);

impl Drop for RollUpLocked<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the lock for moving old charges could not be given back");
        }
    }
}

/// How often in a row the lock files of instances were missing.
#[derive(Debug, Default)]
pub(in crate::store) struct Missing {
    /// How many looks count, and when the last of them was.
    looks: HashMap<i64, (u32, Instant)>,
}

impl Missing {
    /// Notes a look that found nothing; it counts when it is far enough from the one before. Whether that was one too many.
    pub(in crate::store) fn note(&mut self, instance: i64, now: Instant) -> bool {
        let (looks, counted_at) = self.looks.entry(instance).or_insert((0, now));
        if *looks == 0 || now.saturating_duration_since(*counted_at) >= LOOK {
            *looks += 1;
            *counted_at = now;
        }
        *looks >= LOOKS
    }

    /// Forgets all instances but these: their files are there, or they have ended.
    pub(in crate::store) fn keep_only(&mut self, instances: &[i64]) {
        self.looks.retain(|instance, _| instances.contains(instance));
    }

    /// Whether some lock file was missing at the last look, and has to be looked for again.
    pub(in crate::store) fn any_undecided(&self) -> bool {
        self.looks.values().any(|(looks, _)| *looks < LOOKS)
    }
}

/// The lock file of an instance stands beside the database.
pub(in crate::store) fn path(database: &Path, instance: i64) -> PathBuf {
    beside(database, &instance.to_string())
}

/// What the database's lock files have: its access rights, or the owner's alone when the database cannot be found.
fn access(database: &Path) -> Access {
    fs::metadata(database).map_or(Access::new(0o600), |metadata| Access::of(&metadata))
}

fn beside(database: &Path, name: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(format!("-keytoll-{name}.lock"));
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use crate::store::file::lock_file::*;

    #[test]
    fn a_lock_file_that_is_gone_or_replaced_is_put_back_locked() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("auth.db");
        let path = path(&database, 7);
        let look = || LockFile::look(&database, 7).unwrap();
        let mut lock = LockFile::make(&database, 7).unwrap();
        assert!(!lock.keep(7).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(matches!(look(), Look::Missing));
        assert!(!path.exists(), "a look leaves nothing behind");
        assert!(lock.keep(7).unwrap() && !lock.keep(7).unwrap());
        assert!(matches!(look(), Look::Held));
        fs::write(directory.path().join("other"), "").unwrap();
        fs::rename(directory.path().join("other"), &path).unwrap();
        assert!(lock.keep(7).unwrap());
        assert!(matches!(look(), Look::Held));
        drop(lock);
        assert!(matches!(look(), Look::Free(_)));
    }

    #[test]
    fn a_lock_on_a_file_that_was_left_behind_does_not_stop_a_start() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("auth.db");
        let left = directory.path().join("auth.db-keytoll-7.lock.new");
        let stranger = File::create(&left).unwrap();
        stranger.lock().unwrap();
        let _lock = LockFile::make(&database, 7).unwrap();
        assert!(matches!(LockFile::look(&database, 7).unwrap(), Look::Held));
        assert!(!left.exists());
    }

    #[test]
    fn a_lock_file_is_no_link_and_has_the_access_rights_of_the_database() {
        let directory = tempfile::tempdir().unwrap();
        let (database, other) = (directory.path().join("auth.db"), directory.path().join("other"));
        files::create_new(&database, Access::new(0o640)).unwrap();
        fs::write(&other, "kept").unwrap();
        for path in [path(&database, 7), RollUpLock::path(&database)] {
            std::os::unix::fs::symlink(&other, path).unwrap();
        }
        assert!(LockFile::look(&database, 7).is_err() && LockFile::make_missing(&database, 7).is_err());
        assert!(RollUpLock::open(&database).is_err() && RollUpLock::stay(&database).is_err());
        let _lock = LockFile::make(&database, 7).unwrap();
        fs::remove_file(RollUpLock::path(&database)).unwrap();
        RollUpLock::open(&database).unwrap();
        for path in [path(&database, 7), RollUpLock::path(&database)] {
            let metadata = fs::symlink_metadata(path).unwrap();
            assert!(metadata.is_file());
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
        }
        assert_eq!(fs::read_to_string(other).unwrap(), "kept");
    }

    #[test]
    fn a_lock_file_counts_as_gone_only_after_several_looks_in_a_row() {
        let (mut missing, start) = (Missing::default(), Instant::now());
        let look = |missing: &mut Missing, seconds: u32| missing.note(1, start + seconds * LOOK);
        for second in 0..3 {
            assert!(!look(&mut missing, second));
        }
        missing.keep_only(&[]);
        for second in 3..=5 {
            // Looks that follow each other too closely are one.
            assert!(!look(&mut missing, second) && !look(&mut missing, second));
        }
        assert!(look(&mut missing, 6));
    }
}
