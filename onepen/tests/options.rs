//! Options that nobody means: the smallest values and the largest. A database with
//! them opens, works and closes.

use std::time::Duration;

use onepen::{Journal, Migrations, Options, WhenFull};

const NUMBERS: [usize; 2] = [0, usize::MAX];
const TIMES: [Duration; 2] = [Duration::ZERO, Duration::MAX];

/// Each option by itself, so that none hides another.
fn all() -> Vec<(String, Journal, Options)> {
    let mut all = Vec::new();
    let mut add = |name: String, set: &dyn Fn(Options) -> Options| {
        for journal in [Journal::Wal, Journal::Rollback] {
            all.push((name.clone(), journal, set(Options::new()).journal(journal)));
        }
    };
    for n in NUMBERS {
        add(format!("readers {n}"), &|it| it.readers(n));
        add(format!("statement_cache {n}"), &|it| it.statement_cache(n));
        add(format!("page_cache {n}"), &|it| it.page_cache(n));
        add(format!("queue {n}"), &|it| it.queue(n, n, WhenFull::Wait));
        add(format!("group {n}"), &|it| it.group(n, n, Duration::MAX));
    }
    for n in [0, 4096, u64::MAX] {
        add(format!("mmap {n}"), &|it| it.mmap(n));
    }
    for time in TIMES {
        add(format!("wal_limit {time:?}"), &|it| it.wal_limit(0, time));
        add(format!("key_lifetime {time:?}"), &|it| {
            it.key_lifetime(time)
        });
        add(format!("log_waits {time:?}"), &|it| it.log_waits(time));
        add(format!("log_writes {time:?}"), &|it| it.log_writes(time));
        add(format!("reader_lease {time:?}"), &|it| {
            it.reader_lease(time)
        });
        add(format!("lease_grace {time:?}"), &|it| {
            it.reader_lease(Duration::ZERO).lease_grace(time)
        });
        add(format!("group {time:?}"), &|it| it.group(1, 1, time));
    }
    add("wal_limit".into(), &|it| {
        it.wal_limit(u32::MAX, Duration::ZERO)
    });
    add("wait".into(), &|it| it.wait(Duration::MAX));
    add("write_limit".into(), &|it| it.write_limit(Duration::MAX));
    add("label".into(), &|it| it.label(""));
    add("label".into(), &|it| it.label("\u{1b}[31m\n".repeat(1000)));
    add("migrations".into(), &|it| it.migrations(Migrations::new()));
    all
}

#[test]
fn a_database_works_whatever_the_values_of_its_options() {
    // A thread of the library that panicked would take its work with it, unseen.
    let panicked = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (seen, usual) = (std::sync::Arc::clone(&panicked), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |what| {
        seen.store(true, std::sync::atomic::Ordering::SeqCst);
        usual(what);
    }));
    for (name, journal, options) in all() {
        let name = format!("{name}, {journal:?}");
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.db");
        let db = options
            .open(&path)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        db.execute("CREATE TABLE a(n)", ()).unwrap();
        // A short lease is over meanwhile, and the log is longer than its limit. (Over a
        // rollback journal a snapshot keeps everybody from writing.)
        let kept = (journal == Journal::Wal).then(|| db.snapshot().unwrap());
        for n in 0..20 {
            db.with()
                .key(format!("{n}"))
                .execute("INSERT INTO a VALUES (?1)", (n,))
                .unwrap();
        }
        std::thread::sleep(Duration::from_millis(5)); // the time of a lease
        drop(kept);
        db.write_in_steps(0..10, |tx, n| {
            tx.execute("INSERT INTO a VALUES (?1)", (n,)).map(drop)
        })
        .unwrap();
        let count = "SELECT count(*) FROM a";
        let rows: i64 = db.query_row(count, (), |row| row.get(0)).unwrap();
        assert_eq!(rows, 30, "{name}");
        db.close();
        assert!(
            !panicked.load(std::sync::atomic::Ordering::SeqCst),
            "{name}"
        );
    }
}

#[test]
fn a_call_works_whatever_its_settings() {
    let db = Options::new().open_in_memory().unwrap();
    db.execute("CREATE TABLE a(n)", ()).unwrap();
    let insert = "INSERT INTO a VALUES (1)";
    for call in [
        db.with().deadline(Duration::MAX),
        db.with().deadline(Duration::ZERO), // nobody is in the way
        db.with().limit(Duration::MAX),
        db.with().label(""),
    ] {
        assert_eq!(call.execute(insert, ()).unwrap(), 1);
    }
    for time in TIMES {
        let steps = db.with().in_steps().slice(time).pause(Duration::ZERO);
        steps
            .run([1, 2], |tx, _| tx.execute(insert, ()).map(drop))
            .unwrap();
    }
    let rows = db
        .with()
        .in_steps()
        .pause(Duration::MAX)
        .run([(); 0], |_, ()| Ok(()));
    assert_eq!(rows.unwrap().done, 0);
    for key in ["", &"k".repeat(256)] {
        let refused = db.with().key(key).execute(insert, ()).unwrap_err();
        assert_eq!(refused.kind(), onepen::ErrorKind::NotAllowed);
    }
}
