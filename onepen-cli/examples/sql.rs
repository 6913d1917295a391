//! The parts of `onepen-vfs/programs/sql.py` that `onepen trace` is measured with
//! (`cargo xtask programs "cost of onepen trace"`), over rusqlite.

use std::io::{BufRead as _, stdin};
use std::time::Instant;

use rusqlite::{Connection, Result, params};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("which database?")?;
    let db = Connection::open(path)?;
    db.execute_batch(
        "PRAGMA synchronous = NORMAL;
         CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b TEXT);
         CREATE INDEX t_a ON t (a);
         WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 20000)
         INSERT INTO t SELECT i, i * 7919 % 20000, hex(i) || ' some text' FROM s",
    )?;
    println!("ready");
    for line in stdin().lock().lines() {
        let line = line?;
        let (name, times) = line.split_once(' ').ok_or("a part and how often")?;
        let times = times.parse()?;
        let began = Instant::now();
        match name {
            "autocommit_writes" => autocommit_writes(&db, times)?,
            "autocommit_reads" => autocommit_reads(&db, times)?,
            "transactions" => transactions(&db, times)?,
            other => return Err(format!("there is no part `{other}`").into()),
        }
        println!("{}", began.elapsed().as_secs_f64());
    }
    Ok(())
}

const READ: &str = "SELECT b FROM t WHERE id = ?";

fn read(db: &Connection, id: i64) -> Result<String> {
    db.prepare_cached(READ)?.query_row([id], |row| row.get(0))
}

fn autocommit_writes(db: &Connection, times: i64) -> Result<()> {
    let mut write = db.prepare_cached("UPDATE t SET b = ? WHERE id = ?")?;
    (0..times).try_for_each(|i| {
        write
            .execute(params![i.to_string(), i * 31 % 20000])
            .map(drop)
    })
}

fn autocommit_reads(db: &Connection, times: i64) -> Result<()> {
    (0..times).try_for_each(|i| match read(db, i * 31 % 20000) {
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(()),
        found => found.map(drop),
    })
}

/// Each of a hundred statements, a third of them reads.
fn transactions(db: &Connection, times: i64) -> Result<()> {
    for _ in 0..times {
        db.prepare_cached("BEGIN")?.execute([])?;
        for i in 0..33 {
            let id = i * 601 % 20000;
            if id > 0 {
                read(db, id)?;
            }
            db.prepare_cached("UPDATE t SET a = a + 1 WHERE id = ?")?
                .execute([id])?;
            db.prepare_cached("INSERT OR REPLACE INTO t VALUES (?, ?, ?)")?
                .execute(params![20001 + i, i, "new"])?;
        }
        db.prepare_cached("COMMIT")?.execute([])?;
    }
    Ok(())
}
