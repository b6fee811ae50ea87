//! Whether the contents of the file are still those of the database that was opened.
//!
//! `cp backup.db auth.db` writes other contents into the same inode, past SQLite and its locks. The log and its index stay,
//! and every connection goes on reading a mixture. Three numbers tell old contents from new ones: the change counter and the
//! schema cookie in the file's header (<https://www.sqlite.org/fileformat2.html>, §1.3.7 and §1.3.9), and the *stamp*, a row of
//! `keytoll_meta` that gateways increment while they write. In the file itself they only ever grow, whichever program checkpoints: a checkpoint copies newer
//! pages over older ones. So a number that is lower than before proves that something else than SQLite wrote to the file.
//!
//! The file is read through a descriptor that is never closed: closing it would drop SQLite's locks.
//!
//! A restore through SQLite (`.restore`, the backup API) is an ordinary commit, in which the stamp as SQLite reads it goes
//! back; the writer finds that ([`Stamp::confirm`]).

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension};

use crate::files::{self, FileError, Links};
use crate::store::file::schema;

/// The row of `keytoll_meta`.
const NAME: &str = "file_stamp";
/// The first stamp: every one that follows takes eight bytes in the file, and so is always found in the same form.
const FIRST: i64 = 1 << 60;
/// How a row of `keytoll_meta` with this name begins: the length of its header, the type of a text of ten bytes, the type of an
/// integer of eight (§2.1 of the file format).
const RECORD: &[u8] = b"\x03\x21\x06file_stamp";
/// How often contents are read again that look wrong: a page may be read while it is being written.
const READS: u32 = 4;
/// How many looks in a row must find a schema that changed together with a stamp that went back. After a restore through
/// SQLite the writer has stopped by then.
const LOOKS: u32 = 3;

/// Makes sure that there is a stamp, and increments it, inside of a transaction.
pub(in crate::store) fn ensure_stamp(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("INSERT OR IGNORE INTO keytoll_meta (name, value) VALUES (?1, ?2)", (NAME, FIRST))?;
    next_stamp(connection).map(drop)
}

/// Increments the stamp, inside of a transaction. The new one.
fn next_stamp(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("UPDATE keytoll_meta SET value = value + 1 WHERE name = ?1")?.execute([NAME])?;
    Ok(stamp(connection)?.unwrap_or(FIRST))
}

/// The stamp as SQLite reads it. `None`: this is not the database that it was.
fn stamp(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT value FROM keytoll_meta WHERE name = ?1")?
        .query_row([NAME], |row| row.get(0))
        .optional()
}

/// For how many looks in a row, five a second, nothing is copied into a file that may be another one.
const PATIENCE: u32 = 25;
/// How often the stamp is incremented at most.
const INTERVAL: Duration = Duration::from_millis(100);

/// The stamp as a gateway's writer knows it.
#[derive(Debug)]
pub(in crate::store) struct Stamp {
    /// As last committed or read.
    current: i64,
    /// Of the transaction under way.
    next: Option<i64>,
    due_at: Instant,
}

impl Default for Stamp {
    fn default() -> Stamp {
        Stamp { current: i64::MIN, next: None, due_at: Instant::now() }
    }
}

impl Stamp {
    /// Whether the database, as this transaction sees it, is not older than what this process committed to it.
    pub(in crate::store) fn confirm(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        if !schema::has_table(connection, "keytoll_meta")? {
            return Ok(false);
        }
        match stamp(connection)? {
            Some(stamp) if stamp >= self.current => {
                self.current = stamp;
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Increments the stamp when it is time.
    pub(in crate::store) fn advance(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let now = Instant::now();
        if now >= self.due_at {
            self.next = Some(next_stamp(connection)?);
            self.due_at = now + INTERVAL;
        }
        Ok(())
    }

    pub(in crate::store) fn end_transaction(&mut self, is_committed: bool) {
        let next = self.next.take().filter(|_| is_committed);
        self.current = next.unwrap_or(self.current);
    }
}

/// The contents of an open database file, as they were seen last.
pub(in crate::store) struct Contents {
    /// Never closed.
    file: &'static File,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: Option<Seen>,
    /// How many looks in a row found what may be the contents of another database.
    odd: u32,
    /// How many looks in a row could not tell.
    undecided: u32,
}

/// The header of the file, as far as it is looked at.
#[derive(Clone, Copy, Debug)]
struct Header {
    page_bytes: usize,
    /// How often the first page was changed, at least.
    changes: u32,
    /// How often the schema was.
    cookie: u32,
}

/// What was in the file itself, without its log.
#[derive(Clone, Copy, Debug)]
struct Seen {
    header: Header,
    /// The only page of `keytoll_meta`.
    root: u32,
    stamp: i64,
}

/// What one look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Same,
    /// A schema that is newer, without a stamp that is not older, while a checkpoint may be under way.
    Undecided,
    /// The same when all of the log has been copied.
    Odd,
    Overwritten,
}

/// Why the file must not be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Doubt {
    /// It cannot be told yet.
    NotNow,
    /// The file was written to by something other than SQLite.
    Overwritten,
}

impl Contents {
    /// Of the database at this path. One that is open stays so until the end of the process.
    pub(in crate::store) fn open(path: &Path) -> Result<Contents, FileError> {
        let file = files::open_regular(path, File::options().read(true), Links::Refuse)?;
        Ok(Contents { file: Box::leak(Box::new(file)), state: Mutex::default() })
    }

    /// Compares the contents with those that were seen before. Called before every checkpoint, which would mix both.
    ///
    /// # Errors
    /// They are others, or may be. What SQLite says of this connection's database is not an error here: others report it.
    pub(in crate::store) fn check(&self, connection: &Connection) -> Result<(), Doubt> {
        // Held while the file is read, so that what is compared is not older than what another thread has seen.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut look = Look::Same;
        for read in 0..READS {
            if read > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            look = match self.look(&mut state.seen, connection) {
                Ok(look) => look,
                Err(error) => {
                    tracing::debug!(%error, "the contents of the database file cannot be compared now");
                    return Ok(());
                }
            };
            if look == Look::Same {
                (state.odd, state.undecided) = (0, 0);
                return Ok(());
            }
        }
        match look {
            Look::Overwritten => return Err(Doubt::Overwritten),
            Look::Odd => state.odd += 1,
            Look::Same | Look::Undecided => state.undecided += 1,
        }
        if state.odd >= LOOKS {
            return Err(Doubt::Overwritten);
        }
        // Another program's checkpoint that was cut off must be completed in the end.
        if state.undecided >= PATIENCE { Ok(()) } else { Err(Doubt::NotNow) }
    }

    fn look(&self, seen: &mut Option<Seen>, connection: &Connection) -> Result<Look, Box<dyn Error>> {
        let Some(header) = self.header()? else { return Ok(Look::Overwritten) };
        let Some(before) = *seen else { return self.look_at_schema(seen, header, connection) };
        if is_behind(header.cookie, before.header.cookie)
            || is_behind(header.changes, before.header.changes)
            || header.page_bytes != before.header.page_bytes
        {
            return Ok(Look::Overwritten);
        }
        if header.cookie != before.header.cookie {
            return self.look_at_schema(seen, header, connection);
        }
        match self.stamp_in(before.root, header.page_bytes)? {
            Some(stamp) if stamp >= before.stamp => {
                *seen = Some(Seen { header, stamp, ..before });
                Ok(Look::Same)
            }
            Some(_) | None => Ok(Look::Overwritten),
        }
    }

    /// Another schema than before, or the first that is seen: its tables may be in other pages.
    fn look_at_schema(
        &self,
        seen: &mut Option<Seen>,
        header: Header,
        connection: &Connection,
    ) -> Result<Look, Box<dyn Error>> {
        // Read after the file, so that it cannot be the older one.
        let current: u32 = connection.query_row("PRAGMA schema_version", [], |row| row.get(0))?;
        if is_behind(current, header.cookie) {
            return Ok(Look::Overwritten);
        }
        let select = "SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name = 'keytoll_meta'";
        let root: Option<u32> = connection.query_row(select, [], |row| row.get(0)).optional()?;
        let stamp = root.map(|root| self.stamp_in(root, header.page_bytes)).transpose()?.flatten();
        let newest = seen.map_or(i64::MIN, |seen| seen.stamp);
        match (root, stamp) {
            (Some(root), Some(stamp)) if stamp >= newest && current == header.cookie => {
                *seen = Some(Seen { header, root, stamp });
                return Ok(Look::Same);
            }
            // Nothing is known yet: the first of it is still in the log alone.
            _ if seen.is_none() => return Ok(Look::Same),
            _ => {}
        }
        // Not a checkpoint: it only tells how many frames the log has, and how many of them are copied.
        let (frames, copied): (i64, i64) =
            connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok((row.get(1)?, row.get(2)?)))?;
        Ok(if frames == copied && current == header.cookie { Look::Odd } else { Look::Undecided })
    }

    /// `None`: this is not the beginning of a database.
    fn header(&self) -> io::Result<Option<Header>> {
        let mut header = [0; 100];
        if !self.read(&mut header, 0)? || !header.starts_with(b"SQLite format 3\0") {
            return Ok(None);
        }
        let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65_536,
            bytes => usize::from(bytes),
        };
        let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Ok(Some(Header { page_bytes, changes: number(24), cookie: number(40) }))
    }

    /// The stamp in a page. What was deleted may leave older ones behind.
    fn stamp_in(&self, root: u32, page_bytes: usize) -> io::Result<Option<i64>> {
        let mut page = vec![0; page_bytes];
        let offset = u64::from(root.saturating_sub(1)) * u64::try_from(page_bytes).unwrap_or(u64::MAX);
        if !self.read(&mut page, offset)? {
            return Ok(None);
        }
        let records = page.windows(RECORD.len() + 8).filter_map(|window| window.strip_prefix(RECORD));
        Ok(records.filter_map(|value| value.try_into().ok()).map(i64::from_be_bytes).max())
    }

    /// `false`: the file ends before.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        match self.file.read_exact_at(buffer, offset) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether a count that may wrap around is lower than another.
fn is_behind(count: u32, other: u32) -> bool {
    count != other && other.wrapping_sub(count) < u32::MAX / 2
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use crate::store::file::contents::*;

    /// A database in WAL mode with a stamp, whose log is copied.
    fn database(directory: &TempDir, name: &str) -> Connection {
        let connection = Connection::open(directory.path().join(name)).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; CREATE TABLE keytoll_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
            )
            .unwrap();
        ensure_stamp(&connection).unwrap();
        checkpoint(&connection);
        connection
    }

    fn checkpoint(connection: &Connection) {
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    }

    #[test]
    fn what_goes_through_sqlite_is_the_same_database_before_and_after_its_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let connection = database(&directory, "auth.db");
        let contents = Contents::open(&directory.path().join("auth.db")).unwrap();
        for change in ["CREATE TABLE other (a)", "VACUUM", "DROP TABLE other", "CREATE TABLE other (b)", "VACUUM"] {
            assert_eq!(contents.check(&connection), Ok(()));
            connection.execute_batch(change).unwrap();
            next_stamp(&connection).unwrap();
            assert_eq!(contents.check(&connection), Ok(()), "{change}");
            checkpoint(&connection);
            assert_eq!(contents.check(&connection), Ok(()), "{change}");
        }
    }

    /// Such as a backup that was made into the same file many times.
    #[test]
    fn older_contents_with_a_newer_header_are_waited_for_and_then_known() {
        let directory = tempfile::tempdir().unwrap();
        let (file, backup) = (directory.path().join("auth.db"), directory.path().join("backup.db"));
        let other = database(&directory, "backup.db");
        for number in 0..20 {
            other.execute_batch(&format!("CREATE TABLE other_{number} (a)")).unwrap();
            checkpoint(&other);
        }
        drop(other);
        let connection = database(&directory, "auth.db");
        next_stamp(&connection).unwrap();
        checkpoint(&connection);
        let contents = Contents::open(&file).unwrap();
        assert_eq!(contents.check(&connection), Ok(()));
        drop(connection);
        fs::copy(backup, &file).unwrap();
        // A connection that has nothing of the old contents in its memory.
        let connection = Connection::open(&file).unwrap();
        for _ in 1..LOOKS {
            assert_eq!(contents.check(&connection), Err(Doubt::NotNow));
        }
        assert_eq!(contents.check(&connection), Err(Doubt::Overwritten));
    }
}
