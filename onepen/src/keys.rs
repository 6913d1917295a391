//! Idempotency keys: a write that carries one is in the database at most once.
//!
//! Guarantees: a key is recorded in the very transaction of its write, so that
//! either both are there or neither; a second write with the key, in whichever
//! process and after whatever crash, is told so before it runs.
//!
//! The table is ours and may be looked at by anybody:
//!
//! ```sql
//! CREATE TABLE _onepen_keys (
//!     key TEXT NOT NULL PRIMARY KEY,
//!     at  INTEGER NOT NULL            -- seconds since 1970, when it was claimed
//! ) WITHOUT ROWID;
//! CREATE INDEX _onepen_keys_at ON _onepen_keys (at);
//! ```
//!
//! It is made by the first write with a key. A program without onepen may
//! delete rows from it, and thereby forgets those keys, or drop it.
//!
//! # How long a key is remembered
//! At least for its lifetime, by the clock of the machine that asks (SQLite's
//! `unixepoch()`). Each write with a new key deletes a few that are older, so
//! the table holds little more than one lifetime's worth and no write ever pays
//! for a large clean-up. A clock that jumps ahead shortens the lives of the keys
//! there are by the jump, one that jumps back lengthens them; so a lifetime
//! should be far longer than the longest time after which a write is retried
//! *and* than any jump of the clock. A key beyond its lifetime may be used for
//! another write, whether it has been deleted yet or not.

use std::time::Duration;

use rusqlite::{Connection, ffi};

use crate::error::{Error, ErrorKind, Result};

/// The longest key, in bytes of UTF-8. Room for anybody's UUIDs, hashes and
/// names, and short enough that each is one cell of one page.
pub(crate) const LONGEST: usize = 255;

/// How many expired keys one new key takes away. More than one, so that a
/// table that grew in a busy hour shrinks again in a quiet one.
const TAKEN_AWAY: i64 = 4;

const TAKE_AWAY: &str = "DELETE FROM main._onepen_keys WHERE key IN (
    SELECT key FROM main._onepen_keys WHERE at < unixepoch() - ?1 ORDER BY at LIMIT ?2)";

/// What became of a key that a write brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is recorded now, in the open transaction: run the write.
    Fresh,
    /// It was recorded before: the write is in the database already. (Or, in an
    /// uncommitted transaction, is about to be: the same transaction decides.)
    Seen,
}

/// Whether this can be a key at all.
///
/// # Errors
/// [`ErrorKind::NotAllowed`] when it is empty or longer than [`LONGEST`].
pub(crate) fn validate(key: &str) -> Result<()> {
    let length = key.len();
    if (1..=LONGEST).contains(&length) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotAllowed,
        format!(
            "an idempotency key has 1 to {LONGEST} bytes, and this one {length}; a UUID or a hash \
             of something longer will do"
        ),
    ))
}

/// Records `key` in the open write transaction, unless it is there already.
///
/// Runs with the guards of members down: it may create the table. It counts
/// into `changes()` and `total_changes()`, and leaves `last_insert_rowid()`
/// alone.
pub(crate) fn claim(
    connection: &Connection,
    key: &str,
    lifetime: Duration,
) -> rusqlite::Result<Claim> {
    let lifetime = whole_seconds(lifetime);
    let recorded = match record(connection, key, lifetime) {
        Err(error) if may_lack_table(connection, &error) && !table_exists(connection)? => {
            create_table(connection)?;
            record(connection, key, lifetime)?
        }
        other => other?,
    };
    if !recorded {
        return Ok(Claim::Seen);
    }
    connection
        .prepare_cached(TAKE_AWAY)?
        .execute((lifetime, TAKEN_AWAY))?;
    Ok(Claim::Fresh)
}

/// Whether a write with `key` is committed, as the connection's snapshot sees
/// it. Writes nothing.
pub(crate) fn was_committed(connection: &Connection, key: &str) -> rusqlite::Result<bool> {
    if !table_exists(connection)? {
        return Ok(false);
    }
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM main._onepen_keys WHERE key = ?1)")?
        .query_row((key,), |row| row.get(0))
}

/// Whether a write with `key` is committed, for good.
///
/// After a failed flush the frames of a write may lie behind the end of the log,
/// from where a crash would bring them back. A later commit overwrites them, so
/// this makes one: call it in a write transaction, and believe the answer only
/// when that is committed. The row with the empty key is what it writes.
pub(crate) fn settle(connection: &Connection, key: &str) -> rusqlite::Result<bool> {
    if !table_exists(connection)? {
        create_table(connection)?;
    }
    // Never the value that is there: SQLite would not write the page then.
    connection
        .prepare_cached(
            "INSERT INTO main._onepen_keys (key, at) VALUES ('', unixepoch())
             ON CONFLICT (key) DO UPDATE SET at = max(at + 1, excluded.at)",
        )?
        .execute(())?;
    was_committed(connection, key)
}

/// Inserts the key, or takes over one that is beyond its lifetime.
fn record(connection: &Connection, key: &str, lifetime: i64) -> rusqlite::Result<bool> {
    let changed = connection
        .prepare_cached(
            "INSERT INTO main._onepen_keys (key, at) VALUES (?1, unixepoch())
             ON CONFLICT (key) DO UPDATE SET at = excluded.at WHERE at < excluded.at - ?2",
        )?
        .execute((key, lifetime))?;
    Ok(changed > 0)
}

/// A failure that took the transaction with it must stay one: the key would
/// else be recorded without its write.
fn may_lack_table(connection: &Connection, error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    code == Some(ffi::SQLITE_ERROR) && !connection.is_autocommit()
}

/// The clock's step is a second: with whole seconds, rounded up, and a strict
/// comparison no key expires early.
fn whole_seconds(lifetime: Duration) -> i64 {
    let seconds = lifetime
        .as_secs()
        .saturating_add(u64::from(lifetime.subsec_nanos() > 0));
    // Half of the range, so that no subtraction from a sane clock overflows.
    i64::try_from(seconds).unwrap_or(i64::MAX).min(i64::MAX / 2)
}

fn table_exists(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema
             WHERE type = 'table' AND name = '_onepen_keys')",
        )?
        .query_row((), |row| row.get(0))
}

fn create_table(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE main._onepen_keys (
            key TEXT NOT NULL PRIMARY KEY,
            at INTEGER NOT NULL
         ) WITHOUT ROWID;
         CREATE INDEX main._onepen_keys_at ON _onepen_keys (at);",
    )
}

#[cfg(all(test, not(any(onepen_loom, onepen_shuttle))))]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE a (n); BEGIN IMMEDIATE")
            .unwrap();
        connection
    }

    fn write_once(connection: &Connection, key: &str) -> Claim {
        let claim = claim(connection, key, HOUR).unwrap();
        if claim == Claim::Fresh {
            connection.execute("INSERT INTO a VALUES (1)", ()).unwrap();
        }
        claim
    }

    fn number(connection: &Connection, sql: &str) -> i64 {
        connection.query_row(sql, (), |row| row.get(0)).unwrap()
    }

    /// Makes a key look as if it had been claimed so many seconds ago.
    fn age(connection: &Connection, key: &str, seconds: i64) {
        let aged = connection
            .execute(
                "UPDATE _onepen_keys SET at = unixepoch() - ?2 WHERE key = ?1",
                (key, seconds),
            )
            .unwrap();
        assert_eq!(aged, 1);
    }

    #[test]
    fn a_write_with_a_key_is_executed_once() {
        let connection = database();
        assert_eq!(write_once(&connection, "one"), Claim::Fresh);
        assert_eq!(write_once(&connection, "one"), Claim::Seen);
        assert_eq!(write_once(&connection, "two"), Claim::Fresh);
        connection.execute_batch("COMMIT; BEGIN IMMEDIATE").unwrap();
        assert_eq!(write_once(&connection, "one"), Claim::Seen);
        assert_eq!(number(&connection, "SELECT count(*) FROM a"), 2);
    }

    #[test]
    fn a_key_is_committed_and_undone_with_its_write() {
        let connection = database();
        connection.execute_batch("SAVEPOINT member").unwrap();
        assert_eq!(write_once(&connection, "one"), Claim::Fresh);
        connection
            .execute_batch("ROLLBACK TO member; RELEASE member")
            .unwrap();
        assert!(!was_committed(&connection, "one").unwrap());
        assert_eq!(write_once(&connection, "one"), Claim::Fresh);
        connection.execute_batch("ROLLBACK; BEGIN").unwrap();
        assert!(!was_committed(&connection, "one").unwrap());
        assert_eq!(write_once(&connection, "one"), Claim::Fresh);
        connection.execute_batch("COMMIT").unwrap();
        assert!(was_committed(&connection, "one").unwrap());
        assert_eq!(number(&connection, "SELECT count(*) FROM a"), 1);
    }

    #[test]
    fn without_any_key_nothing_is_created() {
        let connection = database();
        assert!(!was_committed(&connection, "one").unwrap());
        assert_eq!(number(&connection, "SELECT count(*) FROM sqlite_schema"), 1);
    }

    #[test]
    fn keys_are_told_apart_byte_by_byte() {
        let connection = database();
        for key in ["k", "K", "k ", "ｋ", "k\0", "1", "1.0", "01", "'; --"] {
            assert_eq!(write_once(&connection, key), Claim::Fresh, "{key:?}");
            assert!(was_committed(&connection, key).unwrap(), "{key:?}");
        }
        assert!(!was_committed(&connection, "other").unwrap());
    }

    #[test]
    fn a_key_lives_for_its_lifetime_and_can_be_used_again_after_it() {
        let connection = database();
        write_once(&connection, "one");
        age(&connection, "one", 3600 - 10);
        assert_eq!(write_once(&connection, "one"), Claim::Seen);
        age(&connection, "one", 3600 + 10);
        assert_eq!(write_once(&connection, "one"), Claim::Fresh);
        assert_eq!(write_once(&connection, "one"), Claim::Seen, "it is new");
    }

    #[test]
    fn a_clock_that_jumped_back_makes_keys_live_longer_and_nothing_else() {
        let connection = database();
        write_once(&connection, "one");
        age(&connection, "one", -100_000);
        assert_eq!(write_once(&connection, "one"), Claim::Seen);
        assert_eq!(write_once(&connection, "two"), Claim::Fresh);
    }

    #[test]
    fn each_new_key_takes_a_few_expired_ones_away_the_oldest_first() {
        let connection = database();
        for key in 0..10 {
            write_once(&connection, &format!("old {key}"));
        }
        for key in 0..10 {
            age(&connection, &format!("old {key}"), 5000 - key);
        }
        write_once(&connection, "live");
        let left = |sql: &str| number(&connection, &format!("SELECT {sql} FROM _onepen_keys"));
        assert_eq!(left("count(*)"), 10 + 1 - TAKEN_AWAY);
        assert!(!was_committed(&connection, "old 3").unwrap());
        assert!(was_committed(&connection, "old 4").unwrap());
        // A key that was seen takes nothing away.
        write_once(&connection, "live");
        assert_eq!(left("count(*)"), 10 + 1 - TAKEN_AWAY);
        for key in 0..3 {
            write_once(&connection, &format!("new {key}"));
        }
        assert_eq!(left("count(*)"), 4, "only living ones are left");
    }

    #[test]
    fn taking_away_never_looks_at_all_keys() {
        let connection = database();
        write_once(&connection, "one");
        let mut plan = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {TAKE_AWAY}"))
            .unwrap();
        let plan: Vec<String> = plan
            .query_map((1, TAKEN_AWAY), |row| row.get(3))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        let plan = plan.join("; ");
        assert!(plan.contains("_onepen_keys_at (at<?)"), "{plan}");
        assert!(!plan.contains("SCAN"), "{plan}");
    }

    #[test]
    fn the_callers_last_rowid_is_left_alone() {
        let connection = database();
        connection
            .execute("INSERT INTO a (rowid, n) VALUES (42, 1)", ())
            .unwrap();
        claim(&connection, "one", HOUR).unwrap();
        assert_eq!(connection.last_insert_rowid(), 42);
    }

    #[test]
    fn a_lifetime_is_rounded_up_and_never_overflows() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
        let connection = database();
        for lifetime in [Duration::ZERO, Duration::MAX] {
            claim(&connection, "one", lifetime).unwrap();
        }
        assert_eq!(
            claim(&connection, "one", Duration::MAX).unwrap(),
            Claim::Seen
        );
    }

    #[test]
    fn outside_of_a_transaction_no_table_is_made() {
        let connection = database();
        connection.execute_batch("COMMIT").unwrap();
        assert!(claim(&connection, "one", HOUR).is_err());
        assert_eq!(number(&connection, "SELECT count(*) FROM sqlite_schema"), 1);
    }

    #[test]
    fn a_key_is_neither_empty_nor_long() {
        validate("k").unwrap();
        validate(&"k".repeat(LONGEST)).unwrap();
        for key in [String::new(), "secret".repeat(50)] {
            let error = validate(&key).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotAllowed);
            assert!(error.to_string().contains("1 to 255 bytes"), "{error}");
            assert!(!error.to_string().contains("secret"), "no values in errors");
        }
    }

    #[test]
    fn another_failure_is_not_taken_for_a_missing_table() {
        let connection = database();
        claim(&connection, "one", HOUR).unwrap();
        connection
            .execute_batch("COMMIT; PRAGMA query_only = 1")
            .unwrap();
        let error = claim(&connection, "two", HOUR).unwrap_err();
        let code = error.sqlite_error().map(|error| error.extended_code);
        assert_eq!(code, Some(ffi::SQLITE_READONLY));
    }
}
