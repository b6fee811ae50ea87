//! The shim between a gateway's process and the kernel (`shim/shim.c`), as a test holds it: faults that are switched on
//! and off while the gateway runs, and the log of what was done to the database's files.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the test tells the shim, and the shim the test: `struct control` in `shim.c` has the same order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    /// Which files fail: the sum of [`DATABASE`], [`WAL`] and [`OTHERS`]; 0 all.
    Files,
    /// The number of the error that writes fail with.
    WriteError,
    /// The same for syncs.
    SyncError,
    /// The same for opening a file for writing.
    OpenError,
    /// While it is not 0, syncs wait.
    HangSyncs,
    /// The most bytes that a file may have, enforced by the kernel; 0 any.
    SizeLimit,
    /// Seconds that the wall clock is behind.
    ClockBackSeconds,
    /// How many calls have failed so.
    Failed,
    /// How many syncs wait now.
    Hanging,
}

pub(crate) const DATABASE: i32 = 1;
pub(crate) const WAL: i32 = 2;

/// Numbers of errors, as Linux has them on all its machines.
pub(crate) const EIO: i32 = 5;
pub(crate) const EACCES: i32 = 13;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EROFS: i32 = 30;

/// The shim, compiled, in a directory of the test.
pub(crate) struct Shim {
    library: PathBuf,
    control_path: PathBuf,
    control: File,
    log: PathBuf,
}

impl Shim {
    /// Compiles it.
    pub(crate) fn build(directory: &Path) -> Shim {
        let library = directory.join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/shim/shim.c");
        let compiler = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
            .args([&library, &source])
            .output()
            .expect("the tests need a C compiler, cc");
        assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
        let control_path = directory.join("shim-control");
        fs::write(&control_path, [0; 64]).unwrap();
        let control = File::options().read(true).write(true).open(&control_path).unwrap();
        Shim { library, control_path, control, log: directory.join("shim-log") }
    }

    /// The variables that put it under a process that works on this database.
    pub(super) fn under(&self, database: &Path) -> Vec<(&'static str, OsString)> {
        // The file may not be there yet.
        let directory = fs::canonicalize(database.parent().unwrap()).unwrap();
        vec![
            ("LD_PRELOAD", self.library.clone().into()),
            ("SHIM_DATABASE", directory.join(database.file_name().unwrap()).into()),
            ("SHIM_CONTROL", self.control_path.clone().into()),
        ]
    }

    /// The same, with a log that begins anew.
    pub(super) fn under_with_log(&self, database: &Path) -> Vec<(&'static str, OsString)> {
        fs::write(&self.log, []).unwrap();
        let mut variables = self.under(database);
        variables.push(("SHIM_LOG", self.log.clone().into()));
        variables
    }

    pub(crate) fn set(&self, word: Word, value: i32) {
        self.control.write_all_at(&value.to_ne_bytes(), place(word)).unwrap();
    }

    pub(crate) fn get(&self, word: Word) -> i32 {
        let mut bytes = [0; 4];
        self.control.read_exact_at(&mut bytes, place(word)).unwrap();
        i32::from_ne_bytes(bytes)
    }

    /// What was done to the files since the log began, in order.
    pub(crate) fn log(&self) -> Vec<Step> {
        let bytes = fs::read(&self.log).unwrap();
        let mut rest = &bytes[..];
        let mut steps = Vec::new();
        while let Some(step) = Step::read(&mut rest) {
            steps.push(step);
        }
        steps
    }
}

fn place(word: Word) -> u64 {
    4 * word as u64
}

/// A thing done to a file of the database.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// What follows the database's path in the file's: nothing for the database itself, "-wal" for its log, "/" for the
    /// directory.
    pub(crate) file: String,
    pub(crate) deed: Deed,
}

#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Create,
    Unlink,
    Write { place: usize, data: Vec<u8> },
    Truncate { length: usize },
    Sync,
}

impl Step {
    /// `None` at the end; the last one may be cut off, as the process was.
    fn read(rest: &mut &[u8]) -> Option<Step> {
        let kind = u32::from_ne_bytes(take(rest, 4)?.try_into().unwrap());
        let name_length = u32::from_ne_bytes(take(rest, 4)?.try_into().unwrap());
        let place = usize::from_ne_bytes(take(rest, 8)?.try_into().unwrap());
        let length = usize::from_ne_bytes(take(rest, 8)?.try_into().unwrap());
        let file = String::from_utf8(take(rest, name_length as usize)?.to_vec()).unwrap();
        let data = take(rest, length)?.to_vec();
        let deed = match u8::try_from(kind).unwrap() {
            b'c' => Deed::Create,
            b'u' => Deed::Unlink,
            b'w' => Deed::Write { place, data },
            b't' => Deed::Truncate { length: place },
            b's' => Deed::Sync,
            other => panic!("the log has a line of kind {other}"),
        };
        Some(Step { file, deed })
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}
