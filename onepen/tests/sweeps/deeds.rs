//! What is being done while something fails.

use std::collections::BTreeSet;
use std::path::Path;

use onepen::backup::restore;
use onepen::{Database, Error, Migrations, Outcome, Result, WriteTx};

use crate::common::{Hold, options, wait_for_queue, while_programs_start};
use crate::trial::{OLD, Stage, TABLE, insert, rows_of};

/// Rows, and what was said of each.
pub type Told = Vec<(i64, Outcome)>;

#[derive(Clone, Copy)]
pub struct Deed {
    pub name: &'static str,
    /// Makes the file, and opens it if that is not what is done.
    pub prepare: fn(&mut Stage),
    /// Does it. What it opens stays open.
    pub act: fn(&mut Stage) -> Told,
    /// Looks at what only it can have changed, when all is closed.
    pub check: fn(&Path, &str),
}

pub const DEEDS: [Deed; 13] = [
    deed("a write", open, write),
    deed("a group of members", open, group),
    deed("a keyed write", open, keyed).checked(a_key_says_what_is_there),
    deed("execute_many", open, many),
    deed("a write larger than the cache", open, large),
    deed("a checkpoint", open_with_a_log, checkpoint),
    deed("opening a new file", |_| {}, open_and_write),
    deed(
        "opening with a log left behind",
        leave_a_log,
        open_and_write,
    ),
    deed("a migration", make, migrate).checked(all_steps_or_none),
    deed("a backup", open, back_up).checked(a_copy_is_whole),
    deed("a restore", make_two, put_back).checked(old_or_restored),
    deed("a read", open, read),
    deed("closing", open_with_a_log, close),
];

const fn deed(name: &'static str, prepare: fn(&mut Stage), act: fn(&mut Stage) -> Told) -> Deed {
    Deed {
        name,
        prepare,
        act,
        check: |_, _| {},
    }
}

impl Deed {
    const fn checked(mut self, check: fn(&Path, &str)) -> Self {
        self.check = check;
        self
    }
}

/// A file with one row, closed.
fn make(stage: &mut Stage) {
    open(stage);
    stage.db = None;
}

fn open(stage: &mut Stage) {
    let db = options().page_cache(64 << 10).open(stage.path()).unwrap();
    db.write(|tx| {
        tx.execute_batch(TABLE)?;
        insert(tx, OLD)
    })
    .unwrap();
    stage.db = Some(db);
}

/// As of a program that was killed: rows that are in the log only.
fn leave_a_log(stage: &mut Stage) {
    let alive = stage.dir.path().join("alive.db");
    let connection = rusqlite::Connection::open(&alive).unwrap();
    let schema = format!("PRAGMA journal_mode = WAL; {TABLE} INSERT INTO t(n) VALUES ({OLD});");
    connection.execute_batch(&schema).unwrap();
    for part in ["", "-wal"] {
        let from = format!("{}{part}", alive.display());
        // Drops the locks of the connection, which needs them no more.
        std::fs::copy(from, format!("{}{part}", stage.path().display())).unwrap();
    }
    drop(connection);
    std::fs::remove_file(alive).unwrap();
}

fn open_with_a_log(stage: &mut Stage) {
    open(stage);
    let db = stage.db.as_ref().unwrap();
    for _ in 0..8 {
        db.execute("INSERT INTO filler VALUES (randomblob(9000))", ())
            .unwrap();
    }
}

fn outcome<T>(answer: &Result<T>) -> Outcome {
    match answer {
        Ok(_) => Outcome::Committed,
        Err(error) => error.outcome(),
    }
}

fn write(stage: &mut Stage) -> Told {
    let db = stage.db.as_ref().unwrap();
    vec![(1, outcome(&db.write(|tx| insert(tx, 1))))]
}

/// The second fails by itself.
fn group(stage: &mut Stage) -> Told {
    let db = stage.db.as_ref().unwrap();
    let hold = Hold::of(db);
    let member = |n| {
        let run = move |tx: &WriteTx<'_>| {
            let inserted = insert(tx, n)?;
            match n {
                2 => Err(Error::other("on purpose")),
                _ => Ok(inserted),
            }
        };
        (n, db.submit(run).unwrap())
    };
    let members = [1, 2, 3].map(member);
    wait_for_queue(db, 3);
    hold.release();
    let told = members.map(|(n, member)| (n, outcome(&member.wait())));
    assert_eq!(
        told[1].1,
        Outcome::NotCommitted,
        "it was not to be committed"
    );
    told.to_vec()
}

fn keyed(stage: &mut Stage) -> Told {
    let db = stage.db.as_ref().unwrap();
    let written = db.with().key("one").write(|tx| insert(tx, 1));
    vec![(1, outcome(&written))]
}

fn a_key_says_what_is_there(path: &Path, context: &str) {
    let db = options().open(path).unwrap();
    let there = rows_of(&db).contains(&1);
    let truth = [Outcome::NotCommitted, Outcome::Committed][usize::from(there)];
    assert_eq!(db.outcome_of("one").unwrap(), truth, "{context}");
    // And a second try makes it true.
    db.with().key("one").write(|tx| insert(tx, 1)).unwrap();
    assert!(rows_of(&db).contains(&1), "{context}");
}

fn many(stage: &mut Stage) -> Told {
    let db = stage.db.as_ref().unwrap();
    let rows = [1, 2, 3].map(|n| (n,));
    let written = outcome(&db.execute_many("INSERT INTO t(n) VALUES (?1)", rows));
    vec![(1, written), (2, written), (3, written)]
}

fn large(stage: &mut Stage) -> Told {
    let db = stage.db.as_ref().unwrap();
    let written = db.write(|tx| {
        tx.execute("INSERT INTO filler VALUES (randomblob(120000))", ())?;
        insert(tx, 1)
    });
    vec![(1, outcome(&written))]
}

fn checkpoint(stage: &mut Stage) -> Told {
    let db = stage.db.as_ref().unwrap();
    // Whether it worked is nobody's business but the log's.
    let _ = db.exclusively(|connection| {
        let busy = "PRAGMA wal_checkpoint(TRUNCATE)";
        Ok(connection.query_row(busy, (), |row| row.get::<_, i64>(0))?)
    });
    vec![(1, outcome(&db.write(|tx| insert(tx, 1))))]
}

fn open_and_write(stage: &mut Stage) -> Told {
    let Ok(db) = options().open(stage.path()) else {
        return Vec::new();
    };
    let written = db.write(|tx| {
        tx.execute_batch(TABLE)?;
        insert(tx, 1)
    });
    stage.db = Some(db);
    vec![(1, outcome(&written))]
}

fn migrate(stage: &mut Stage) -> Told {
    let migrations = Migrations::new()
        .step("one", "CREATE TABLE u(n INTEGER)")
        .step("two", "INSERT INTO u VALUES (1); CREATE INDEX i ON u(n)");
    stage.db = options().migrations(migrations).open(stage.path()).ok();
    Vec::new()
}

fn all_steps_or_none(path: &Path, context: &str) {
    let db = options().open(path).unwrap();
    let version: i64 = db
        .query_row("PRAGMA user_version", (), |row| row.get(0))
        .unwrap();
    let made = "SELECT count(*) FROM sqlite_schema WHERE tbl_name = 'u'";
    let made: i64 = db.query_row(made, (), |row| row.get(0)).unwrap();
    assert!(
        (version, made) == (0, 0) || (version, made) == (2, 2),
        "{context}: {version} {made}"
    );
}

fn back_up(stage: &mut Stage) -> Told {
    let db = stage.db.as_ref().unwrap();
    let copied = db.backup_to(stage.dir.path().join("copy.db")).run();
    stage.said = copied.map(drop).map_err(|error| error.to_string());
    Vec::new()
}

fn a_copy_is_whole(path: &Path, context: &str) {
    let copy = path.with_file_name("copy.db");
    if copy.exists() {
        let db = Database::open(copy).unwrap();
        assert_eq!(rows_of(&db), BTreeSet::from([OLD]), "{context}");
    }
}

/// The row that only the copy has.
const RESTORED: i64 = 7;

fn make_two(stage: &mut Stage) {
    make(stage);
    let db = Database::open(stage.path()).unwrap();
    db.write(|tx| insert(tx, RESTORED)).unwrap();
    db.backup_to(stage.dir.path().join("copy.db"))
        .run()
        .unwrap();
    db.execute("DELETE FROM t WHERE n = ?1", (RESTORED,))
        .unwrap();
}

fn put_back(stage: &mut Stage) -> Told {
    let copy = stage.dir.path().join("copy.db");
    let restored = while_programs_start(|| restore(&copy, stage.path()).replace(true).run());
    stage.said = restored.as_ref().map(drop).map_err(ToString::to_string);
    // An error says that nothing was replaced, or that it may have been.
    vec![(RESTORED, outcome(&restored))]
}

fn old_or_restored(path: &Path, context: &str) {
    let db = options().open(path).unwrap();
    assert!(rows_of(&db).contains(&OLD), "{context}");
}

/// An answer is an error or the truth.
fn read(stage: &mut Stage) -> Told {
    let db = stage.db.as_ref().unwrap();
    let query = "SELECT n FROM t";
    let there = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    if let Ok(n) = db.query_row(query, (), there) {
        assert_eq!(n, OLD);
    }
    let both = db.read(|tx| {
        Ok((
            tx.query_row(query, (), there)?,
            tx.query_row(query, (), there)?,
        ))
    });
    if let Ok(both) = both {
        assert_eq!(both, (OLD, OLD));
    }
    if let Ok(n) = db
        .snapshot()
        .and_then(|snapshot| snapshot.query_row(query, (), there))
    {
        assert_eq!(n, OLD);
    }
    Vec::new()
}

fn close(stage: &mut Stage) -> Told {
    let db = stage.db.take().unwrap();
    let written = outcome(&db.write(|tx| insert(tx, 1)));
    db.close();
    vec![(1, written)]
}
