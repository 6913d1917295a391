//! What the types of the interface show of themselves (`Debug`, `Display`): enough
//! to know them by, no value of a statement, and without waiting for anybody.

use std::fmt::{Debug, Display};
use std::time::Duration;

use onepen::blocks::{
    BusyHandler, Immediate, PerThread, Pool, PoolOptions, Shared, Tracked, Transactions, Wait,
    WritePermit,
};
use onepen::{Database, Error, Options};

/// A value that must be seen nowhere.
const SECRET: &str = "a_secret_value";

struct Home {
    dir: tempfile::TempDir,
    db: Database,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Options::new().open(dir.path().join("app.db")).unwrap();
        db.execute("CREATE TABLE t(n)", ()).unwrap();
        Self { dir, db }
    }

    fn connect(&self) -> onepen::Result<rusqlite::Connection> {
        Ok(rusqlite::Connection::open(self.dir.path().join("app.db"))?)
    }
}

fn shows(it: &dyn Debug, name: &str) {
    let text = format!("{it:?}");
    assert!(text.starts_with(name), "{text}");
    assert!(!text.contains(SECRET), "{text}");
}

fn says(it: &dyn Display, expected: &str) {
    assert_eq!(it.to_string(), expected);
}

#[test]
fn what_belongs_to_a_database_is_shown_inside_and_outside_of_its_closures() {
    let home = Home::new();
    let db = &home.db;
    shows(db, "Database");
    shows(&db.with().label(SECRET).in_steps(), "Steps");
    shows(&db.with(), "Call");
    db.write(|tx| {
        shows(tx, "WriteTx");
        tx.execute("INSERT INTO t VALUES (?1)", (SECRET,))?;
        shows(&tx.commit_token(), "CommitToken");
        Ok(())
    })
    .unwrap();
    db.read(|tx| {
        shows(tx, "ReadTx");
        Ok(())
    })
    .unwrap();
    let snapshot = db.snapshot().unwrap();
    shows(&snapshot, "Snapshot");
    assert!(snapshot.age() < Duration::from_secs(3600));
    let submitted = db.submit(|tx| tx.execute("DELETE FROM t", ())).unwrap();
    shows(&submitted, "Submitted");
    submitted.wait().unwrap();
}

#[test]
fn tables_are_said_by_their_names() {
    let home = Home::new();
    let mut changes = home.db.changes().unwrap();
    shows(&changes, "Changes");
    home.db.execute("INSERT INTO t VALUES (1)", ()).unwrap();
    let one = changes.try_next().unwrap();
    says(one.tables(), "t");
    assert_eq!(format!("{:?}", one.tables()), "{\"t\"}");
    home.db.execute("CREATE TABLE other(n)", ()).unwrap();
    let any = changes.try_next().unwrap();
    says(any.tables(), "any table");
    assert_eq!(format!("{:?}", any.tables()), "any");
    let two = home.db.write(|tx| {
        tx.execute("INSERT INTO t VALUES (1)", ())?;
        tx.execute("INSERT INTO other VALUES (1)", ())
    });
    two.unwrap();
    says(changes.try_next().unwrap().tables(), "other, t");
}

#[test]
fn the_blocks_are_shown_while_they_are_in_use() {
    let home = Home::new();
    let path = home.dir.path().join("app.db");
    let permit = WritePermit::of(&path).unwrap().wait(Wait::forever());
    shows(&permit, "WritePermit");
    shows(&permit.take_async(), "TakeTurn");
    let turn = permit.take().unwrap();
    shows(&turn, "WriteTurn");
    drop(turn);

    let options = PoolOptions::new(1).statement_cache(3);
    shows(&options, "PoolOptions");
    let open = path.clone();
    let pool = Pool::new(1, move || Ok(rusqlite::Connection::open(&open)?));
    let mut connection = pool.get().unwrap();
    shows(&connection, "Pooled");
    shows(&pool, "Pool");
    shows(&pool.get_async(), "Get");
    let shown = connection.immediate(|tx| {
        shows(tx, "Transaction");
        tx.execute("INSERT INTO t VALUES (?1)", (SECRET,))?;
        assert_eq!((tx.changes(), tx.last_insert_rowid() > 0), (1, true));
        let none = tx.query_row_optional("SELECT n FROM t WHERE 0", (), |_| Ok(()))?;
        assert_eq!(none, None);
        Ok(())
    });
    shown.unwrap();

    let mut tracked = Tracked::new(home.connect().unwrap());
    shows(&tracked, "Tracked");
    tracked.exclusive(|_| Ok(())).unwrap();
    drop(tracked.unchecked_transaction().unwrap());
    let inner = tracked.into_inner();
    let handler = BusyHandler::timeout(Duration::from_secs(1));
    shows(&handler, "BusyHandler");
    shows(&handler.install(&inner).unwrap(), "BusyControl");

    let open = path.clone();
    let threads = PerThread::new(move || Ok(rusqlite::Connection::open(&open)?));
    threads
        .with(|connection| {
            shows(&threads, "PerThread");
            Ok::<_, Error>(connection.is_autocommit())
        })
        .unwrap();
    let shared = Shared::new(home.connect().unwrap());
    shows(&shared, "Shared");
    drop(inner.unchecked_transaction().unwrap());
    let mut inner = inner;
    let begun = inner.begin::<Immediate>().unwrap();
    shows(&begun, "Transaction");
}

#[test]
fn reads_and_writes_give_rows_in_every_form() {
    let home = Home::new();
    let rows = home.db.write(|tx| {
        for n in [2, 1, 3] {
            tx.execute("INSERT INTO t VALUES (?1)", (n,))?;
        }
        let mut each = Vec::new();
        tx.query_each("SELECT n FROM t ORDER BY n", (), |row| {
            each.push(row.get::<_, i64>(0)?);
            Ok(())
        })?;
        let all = tx.query_map("SELECT n FROM t ORDER BY n", (), |row| row.get::<_, i64>(0))?;
        assert_eq!(each, all);
        Ok(all)
    });
    assert_eq!(rows.unwrap(), [1, 2, 3]);
    let stepped = home
        .db
        .write_in_steps(0..5, |tx, n| {
            tx.execute("INSERT INTO t VALUES (?1)", (n,)).map(drop)
        })
        .unwrap();
    assert_eq!(stepped.done, 5);
}
