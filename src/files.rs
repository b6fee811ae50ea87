//! Opens files by path without blocking on, or writing to, something that is not the intended file.
//!
//! A path can name a FIFO, which blocks an open until another process opens its other end, or a symbolic link that another
//! user created. [`open_regular`] accepts only a regular file and never blocks. [`create_new`] never opens an existing file,
//! never follows a link, and sets the permissions regardless of the umask.
//!
//! Usable by every part; uses none.

use std::fmt;
use std::fs::{self, File, FileType, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::Path;

use rustix::fs::OFlags;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of each stand in `Display`")]
pub enum FileKind {
    Regular,
    Directory,
    Link,
    Fifo,
    Socket,
    CharacterDevice,
    BlockDevice,
    Unknown,
}

impl From<FileType> for FileKind {
    fn from(found: FileType) -> FileKind {
        if found.is_file() {
            FileKind::Regular
        } else if found.is_dir() {
            FileKind::Directory
        } else if found.is_symlink() {
            FileKind::Link
        } else if found.is_fifo() {
            FileKind::Fifo
        } else if found.is_socket() {
            FileKind::Socket
        } else if found.is_char_device() {
            FileKind::CharacterDevice
        } else if found.is_block_device() {
            FileKind::BlockDevice
        } else {
            FileKind::Unknown
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Regular => "a regular file",
            FileKind::Directory => "a directory",
            FileKind::Link => "a symbolic link",
            FileKind::Fifo => "a FIFO",
            FileKind::Socket => "a socket",
            FileKind::CharacterDevice => "a character device",
            FileKind::BlockDevice => "a block device",
            FileKind::Unknown => "a file of an unknown kind",
        })
    }
}

/// Why a file was not opened.
#[derive(Debug)]
pub enum FileError {
    /// The path leads to something that is not accepted here.
    Kind(FileKind),
    /// The operating system's error.
    Io(io::Error),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> FileError {
        FileError::Io(error)
    }
}

/// For callers that report every error in the same way.
impl From<FileError> for io::Error {
    fn from(error: FileError) -> io::Error {
        match error {
            FileError::Kind(kind) => io::Error::new(io::ErrorKind::InvalidInput, format!("this is {kind}")),
            FileError::Io(error) => error,
        }
    }
}

/// Whether the last component of a path may be a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It is resolved, by the one call that opens the file.
    Follow,
    /// It is refused.
    Refuse,
}

/// The directory that a path is in.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens an existing regular file with the access that `options` ask for. Never blocks, and never creates a file.
///
/// # Errors
/// The path leads to anything else, or the operating system refuses.
pub fn open_regular(path: &Path, options: &OpenOptions, links: Links) -> Result<File, FileError> {
    // Looked at before it is opened, since opening a FIFO or a device can have effects of its own.
    let found = match links {
        Links::Follow => fs::metadata(path)?,
        Links::Refuse => fs::symlink_metadata(path)?,
    };
    refuse_other_than_regular(&found)?;
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if links == Links::Refuse {
        flags |= OFlags::NOFOLLOW;
    }
    let file = options.clone().custom_flags(bits(flags)).open(path)?;
    // The path may lead elsewhere by now.
    refuse_other_than_regular(&file.metadata()?)?;
    Ok(file)
}

/// Opens a file that may also be a pipe or a terminal, such as `/dev/fd/63`, which a shell puts in the place of `<(...)`.
/// Opening and reading one can block until its writer is done.
///
/// # Errors
/// The path leads to anything else, or the operating system refuses.
pub fn open_stream(path: &Path) -> Result<File, FileError> {
    match FileKind::from(fs::metadata(path)?.file_type()) {
        FileKind::Regular | FileKind::Fifo | FileKind::CharacterDevice => {
            Ok(File::options().read(true).custom_flags(bits(OFlags::NOCTTY)).open(path)?)
        }
        kind
        @ (FileKind::Directory | FileKind::Link | FileKind::Socket | FileKind::BlockDevice | FileKind::Unknown) => {
            Err(FileError::Kind(kind))
        }
    }
}

fn refuse_other_than_regular(found: &Metadata) -> Result<(), FileError> {
    match FileKind::from(found.file_type()) {
        FileKind::Regular => Ok(()),
        kind => Err(FileError::Kind(kind)),
    }
}

fn bits(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).expect("the flags of open(2) fit its argument")
}

/// Who may use a file: the permission bits, and the owner and group where they are to be those of another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    mode: u32,
    owner: Option<(u32, u32)>,
}

impl Access {
    /// These permission bits; owner and group are those that the operating system gives.
    pub fn new(mode: u32) -> Access {
        Access { mode: mode & 0o777, owner: None }
    }

    /// The access to a file, for files that belong to it: its group, its permission bits to read and write, and, for the
    /// superuser, its owner.
    pub fn of(file: &Metadata) -> Access {
        Access { mode: (file.mode() & 0o666) | 0o600, owner: Some((file.uid(), file.gid())) }
    }

    /// Whether a file has it already, as far as this process could change it.
    fn is_that_of(self, found: &Metadata) -> bool {
        let is_owned = self.owner.is_none_or(|(uid, gid)| {
            found.gid() == gid && (found.uid() == uid || !rustix::process::geteuid().is_root())
        });
        is_owned && found.mode() & 0o777 == self.mode
    }

    /// Sets owner, group and mode. If the group cannot be changed, the group bits are cleared, because they would apply to a
    /// different group.
    fn apply(self, file: &File) -> io::Result<()> {
        let mut mode = self.mode;
        if let Some((uid, gid)) = self.owner {
            let made = file.metadata()?;
            let uid = (rustix::process::geteuid().is_root() && made.uid() != uid).then_some(uid);
            if (uid.is_some() || made.gid() != gid) && fchown(file, uid, Some(gid)).is_err() {
                mode &= !0o070;
            }
        }
        file.set_permissions(Permissions::from_mode(mode))
    }
}

/// Creates a file, for reading and writing, with exactly this access.
///
/// # Errors
/// Something is there already, also a link that leads nowhere ([`io::ErrorKind::AlreadyExists`]), or the operating system
/// refuses.
pub fn create_new(path: &Path, access: Access) -> io::Result<File> {
    let mut options = File::options();
    // Only the owner has access until the group is set.
    options.read(true).write(true).create_new(true).mode(access.mode & 0o700).custom_flags(bits(OFlags::NOFOLLOW));
    let file = options.open(path)?;
    access.apply(&file)?;
    Ok(file)
}

/// Sets the access of an existing regular file if it differs. Must not be called for a file that this process holds POSIX
/// locks on: the file may be opened and closed, which releases them.
///
/// # Errors
/// The path leads to anything else, or the operating system refuses. A path that leads to nothing is no error.
pub fn set_access(path: &Path, access: Access) -> Result<(), FileError> {
    match fs::symlink_metadata(path) {
        Ok(found) if access.is_that_of(&found) => Ok(()),
        Ok(_) => Ok(access.apply(&open_regular(path, File::options().read(true), Links::Refuse)?)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file the group of another one, without opening it. A path that leads to nothing is no error.
///
/// # Errors
/// The operating system refuses.
pub fn share_group(path: &Path, with: &Metadata) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.gid() != with.gid() => lchown(path, None, Some(with.gid())),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn kind(path: &Path, links: Links) -> FileKind {
        match open_regular(path, File::options().read(true), links) {
            Err(FileError::Kind(kind)) => kind,
            Err(FileError::Io(error)) => panic!("{error}"),
            Ok(_) => FileKind::Regular,
        }
    }

    fn fifo(path: &Path) {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    }

    #[test]
    fn only_regular_files_are_opened_and_nothing_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "").unwrap();
        fifo(&at("fifo"));
        let _listener = UnixListener::bind(at("socket")).unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(at("fifo"), at("link-to-fifo")).unwrap();
        for links in [Links::Follow, Links::Refuse] {
            assert_eq!(kind(&at("file"), links), FileKind::Regular);
            assert_eq!(kind(&at("fifo"), links), FileKind::Fifo);
            assert_eq!(kind(&at("socket"), links), FileKind::Socket);
            assert_eq!(kind(directory.path(), links), FileKind::Directory);
            assert_eq!(kind(Path::new("/dev/null"), links), FileKind::CharacterDevice);
        }
        assert_eq!(kind(&at("link"), Links::Follow), FileKind::Regular);
        assert_eq!(kind(&at("link"), Links::Refuse), FileKind::Link);
        assert_eq!(kind(&at("link-to-fifo"), Links::Follow), FileKind::Fifo);
    }

    #[test]
    fn a_new_file_has_its_mode_whatever_the_umask_is_and_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        // The usual umask would take the second of these away from group and others.
        for mode in [0o600, 0o666] {
            let path = at(&format!("{mode:o}"));
            let file = create_new(&path, Access::new(mode)).unwrap();
            assert_eq!(file.metadata().unwrap().mode() & 0o7777, mode);
            assert_eq!(create_new(&path, Access::new(mode)).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        symlink(at("nowhere"), at("link")).unwrap();
        assert_eq!(create_new(&at("link"), Access::new(0o600)).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!at("nowhere").exists());
    }
}
