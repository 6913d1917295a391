//! Whether a copy is a database without a fault.
//!
//! Guarantee: the file is read, and nothing else: no log, no journal and no lock
//! is made or looked at for it.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::aside;
use crate::error::{Error, ErrorKind, Result};

/// How a copy is checked before it takes its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Check {
    /// `PRAGMA integrity_check`: every page, every index against its table.
    #[default]
    Full,
    /// `PRAGMA quick_check`: every page, but not whether the indexes have what
    /// their tables have. Some times faster.
    Quick,
    /// Not at all. What the disk wrote is not read.
    None,
}

impl Check {
    /// # Errors
    /// [`ErrorKind::Damaged`], with what was found first.
    pub(super) fn run(self, path: &Path, tick: impl FnMut() -> Result<bool>) -> Result<()> {
        let pragma = match self {
            Self::Full => "PRAGMA integrity_check(1)",
            Self::Quick => "PRAGMA quick_check(1)",
            Self::None => return Ok(()),
        };
        let found = still(path).map_err(Error::from).and_then(|connection| {
            aside::run(
                connection,
                move |connection| connection.query_row(pragma, (), |row| row.get::<_, String>(0)),
                tick,
            )
        });
        let damage = match found {
            Ok(answer) if answer == "ok" => return Ok(()),
            Ok(answer) => answer,
            Err(error) if is_damage(&error) => error.to_string(),
            Err(error) => return Err(error),
        };
        Err(Error::new(
            ErrorKind::Damaged,
            format!("the copy is damaged and was thrown away; {pragma} says: {damage}"),
        ))
    }
}

fn is_damage(error: &Error) -> bool {
    use rusqlite::ffi::{SQLITE_CORRUPT, SQLITE_NOTADB};
    error
        .sqlite_code()
        .is_some_and(|code| matches!(code & 0xff, SQLITE_CORRUPT | SQLITE_NOTADB))
}

/// Opens a file that nobody changes: for reading, without a lock, and without a
/// log, which SQLite would make for a database in write-ahead mode.
pub(super) fn still(path: &Path) -> rusqlite::Result<Connection> {
    open_uri(path, "immutable=1", OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// Opens a file that only this process knows, without locks.
pub(super) fn private(path: &Path) -> rusqlite::Result<Connection> {
    open_uri(path, "nolock=1", OpenFlags::SQLITE_OPEN_READ_WRITE)
}

fn open_uri(path: &Path, parameters: &str, access: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = access
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    Connection::open_with_flags(uri(path, parameters), flags)
}

/// The path as a URI (<https://www.sqlite.org/uri.html>).
fn uri(path: &Path, parameters: &str) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                uri.push(char::from(byte));
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push('?');
    uri.push_str(parameters);
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_no_uri_whatever_is_in_it() {
        assert_eq!(
            uri(Path::new("/a b/c?mode=rw#d%41.db"), "immutable=1"),
            "file:/a%20b/c%3Fmode%3Drw%23d%2541.db?immutable=1"
        );
    }

    #[test]
    fn a_file_with_such_a_name_is_the_one_that_is_opened() {
        let home = crate::file::TempHome::new().unwrap();
        for name in ["plain.db", "a b?mode=memory#%41.db", "größe.db"] {
            let path = home.path().join(name);
            let made = Connection::open(&path).unwrap();
            made.execute_batch("CREATE TABLE a(n); INSERT INTO a VALUES (7)")
                .unwrap();
            drop(made);
            for open in [still, private] {
                let n: i64 = open(&path)
                    .and_then(|found| found.query_row("SELECT n FROM a", (), |row| row.get(0)))
                    .unwrap();
                assert_eq!(n, 7, "{name}");
            }
        }
    }
}
