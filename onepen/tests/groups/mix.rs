//! All hazards at once, from several threads: what was acknowledged is there
//! once, what was not is not there at all.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use onepen::{Error, ErrorKind, Outcome, Result, WriteTx};

use crate::common::{Scene, block_on, quick};
use crate::raw::{Progress, with_progress};

const SCHEMA: &str = "
    CREATE TABLE ledger(id INTEGER PRIMARY KEY, half INTEGER NOT NULL);
    CREATE TABLE second_half(id INTEGER PRIMARY KEY);
    CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);
    CREATE TABLE child(n INTEGER REFERENCES t(n) DEFERRABLE INITIALLY DEFERRED);";

const THREADS: u64 = 4;
const WRITES: u64 = 400;
const HAZARDS: u64 = 12;

/// Writes `id` in two places, and meets a hazard in between.
fn write(tx: &WriteTx<'_>, id: i64, hazard: u64) -> Result<i64> {
    tx.execute("INSERT INTO ledger VALUES (?1, 1)", (id,))?;
    match hazard {
        0 => return Err(Error::other("on purpose")),
        1 => drop(tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", ())?),
        2 => drop(tx.execute("INSERT OR ROLLBACK INTO t VALUES (1)", ())),
        3 => resume_unwind(Box::new(id)),
        4 => drop(tx.execute("INSERT INTO child VALUES (99)", ())?),
        5 => drop(tx.execute("COMMIT", ()).unwrap_err()),
        6 => {
            let mut statement = tx.prepare("INSERT INTO child VALUES (1), (1) RETURNING n")?;
            let mut rows = statement.query(())?;
            rows.next()?;
            std::mem::forget(rows);
        }
        7 => drop(tx.savepoint(|tx| tx.execute("INSERT INTO ledger VALUES (-1, 1), (-1, 1)", ()))),
        8 => tx.execute_batch("CREATE TABLE passing(n); DROP TABLE passing")?,
        9 => {
            tx.execute_batch("ALTER TABLE child ADD COLUMN extra")?;
            return Err(Error::other("with its column"));
        }
        10 => {
            let many = "INSERT INTO child WITH RECURSIVE c(n) AS \
                (SELECT 1 UNION ALL SELECT 1 FROM c LIMIT 100000) SELECT n FROM c";
            with_progress(tx.connection(), Progress::Interrupt, |_| {
                tx.execute(many, ())
            })?;
        }
        _ => {}
    }
    tx.execute("INSERT INTO second_half VALUES (?1)", (id,))?;
    Ok(id)
}

#[test]
fn what_was_acknowledged_is_there_once_and_nothing_else_is() {
    let scene = Scene::with(quick(), SCHEMA);
    let acknowledged: BTreeSet<i64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let db = scene.db.clone();
                scope.spawn(move || {
                    let mut acknowledged = Vec::new();
                    let mut submitted = Vec::new();
                    // A generator of its own, so that a failure can be repeated
                    // as far as threads allow.
                    let mut random = thread.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                    let mut next = move |below: u64| {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        random % below
                    };
                    for n in 0..WRITES {
                        let id = i64::try_from(thread * WRITES + n).unwrap();
                        // Half of them meet nothing.
                        let hazard = next(2 * HAZARDS);
                        match next(4) {
                            0 => submitted.push((
                                hazard,
                                db.submit(move |tx| write(tx, id, hazard)).unwrap(),
                            )),
                            1 => record(&mut acknowledged, hazard, || {
                                db.write(|tx| write(tx, id, hazard))
                            }),
                            2 => record(&mut acknowledged, hazard, || {
                                db.write_once(|tx| write(tx, id, hazard))
                            }),
                            _ => record(&mut acknowledged, hazard, || {
                                block_on(db.write_async(move |tx| write(tx, id, hazard)))
                            }),
                        }
                    }
                    for (hazard, write) in submitted {
                        record(&mut acknowledged, hazard, || write.wait());
                    }
                    acknowledged
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let acknowledged: Vec<i64> = acknowledged.into_iter().collect();
    assert_eq!(
        scene.numbers("SELECT id FROM ledger ORDER BY id"),
        acknowledged
    );
    assert_eq!(
        scene.numbers("SELECT id FROM second_half ORDER BY id"),
        acknowledged
    );
    assert!(scene.db.stats().largest_group > 1, "nobody ever shared");
}

fn record(acknowledged: &mut Vec<i64>, hazard: u64, run: impl FnOnce() -> Result<i64>) {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(id)) => {
            assert!(
                ![0, 1, 2, 3, 4, 9, 10].contains(&hazard),
                "{hazard} was acknowledged"
            );
            acknowledged.push(id);
        }
        Ok(Err(error)) => {
            let expected = match hazard {
                0 | 9 => ErrorKind::Other,
                1 | 4 | 10 => ErrorKind::Sqlite,
                // Its next statement is refused in autocommit mode.
                2 => ErrorKind::TransactionLost,
                _ => panic!("{hazard}: {error}"),
            };
            assert_eq!(error.kind(), expected, "{hazard}: {error}");
            assert_eq!(error.outcome(), Outcome::NotCommitted, "{error}");
        }
        Err(_) => assert_eq!(hazard, 3),
    }
}
