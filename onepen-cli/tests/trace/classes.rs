//! Each class is told of a real program that meets it, where SQLite is shared.

use crate::python::{Python, READ, home};
use crate::{database, is_behind, row, trace_python, writer};

#[test]
fn a_deferred_upgrade_is_told_with_its_statement_and_without_literals() {
    for mode in ["wal", "delete"] {
        let (_home, path) = home();
        database(&path, mode);
        let holder = writer(&path);
        let (ran, report) = trace_python(
            &path,
            "
c = connect(30)
c.execute('BEGIN'); c.execute('SELECT n FROM t').fetchall()
refused(c, \"UPDATE t SET n = 4711 WHERE n = 'hush'\")
",
        );
        assert_eq!(ran.stdout, "database is locked\n");
        let class = if mode == "wal" {
            "deferred-upgrade"
        } else {
            "journal-upgrade"
        };
        let row = row(&report, class);
        assert_eq!(row["statement"], "UPDATE t SET n = ? WHERE n = ?");
        assert_eq!((&row["contended"], &row["failed"]), (&1.into(), &1.into()));
        assert_eq!(
            (&row["timeout_ms"], &row["inferred"]),
            (&30_000.into(), &false.into())
        );
        is_behind(row, &holder);
        assert!(!report.to_string().contains("hush"), "no literal is told");
    }
}

#[test]
fn a_snapshot_that_is_too_old_to_write_is_a_deferred_upgrade() {
    let (_home, path) = home();
    database(&path, "wal");
    let (_, report) = trace_python(
        &path,
        "
c, d = connect(5), connect(5)
c.execute('BEGIN'); c.execute('SELECT n FROM t').fetchall()
d.execute('INSERT INTO t VALUES (1)')
refused(c, 'INSERT INTO t VALUES (2)')
",
    );
    let row = row(&report, "deferred-upgrade");
    assert_eq!(
        (&row["failed"], &row["in_process"]),
        (&1.into(), &true.into())
    );
}

#[test]
fn who_has_no_timeout_is_told_so() {
    let (_home, path) = home();
    database(&path, "wal");
    let holder = writer(&path);
    let (_, report) = trace_python(&path, "refused(connect(0), 'INSERT INTO t VALUES (1)')");
    let row = row(&report, "no-timeout");
    assert_eq!(
        (&row["timeout_ms"], &row["inferred"]),
        (&0.into(), &false.into())
    );
    is_behind(row, &holder);
}

#[test]
fn one_who_holds_it_for_long_is_named_and_the_wait_is_measured() {
    let (_home, path) = home();
    database(&path, "wal");
    let holder = writer(&path);
    let (_, report) = trace_python(&path, "refused(connect(0.3), 'INSERT INTO t VALUES (1)')");
    let row = row(&report, "long-holder");
    assert_eq!(
        (&row["failed"], &row["timeout_ms"]),
        (&1.into(), &300.into())
    );
    assert!(row["total_ms"].as_f64().unwrap() >= 250.0, "{row:#}");
    is_behind(row, &holder);
}

#[test]
fn between_connections_of_one_process_too_where_sqlite_is_shared() {
    let (_home, path) = home();
    database(&path, "wal");
    let (_, report) = trace_python(
        &path,
        "
c = connect(5); c.execute('BEGIN IMMEDIATE')
refused(connect(0.2), 'INSERT INTO t VALUES (1)')
",
    );
    let row = row(&report, "long-holder");
    assert_eq!(
        (&row["in_process"], &row["failed"]),
        (&true.into(), &1.into())
    );
    assert!(row["held_ms"].as_f64().unwrap() >= 100.0, "{row:#}");
}

#[test]
fn a_wait_that_ends_well_is_told_as_well() {
    let (_home, path) = home();
    database(&path, "wal");
    let (_, report) = trace_python(
        &path,
        "
parent, child = os.pipe()
if os.fork() == 0:
    c = connect(5); c.execute('BEGIN IMMEDIATE'); os.write(child, b'x')
    while open('/proc/%d/stat' % os.getppid()).read().rpartition(') ')[2][0] != 'S': pass
    # It is waited for: from here on the time is what is measured.
    time.sleep(0.25); c.execute('COMMIT'); os._exit(0)
os.read(parent, 1)
connect(5).execute('INSERT INTO t VALUES (1)'); os.wait()
",
    );
    let row = row(&report, "long-holder");
    assert_eq!((&row["contended"], &row["failed"]), (&1.into(), &0.into()));
    assert_eq!(
        (&row["held_by"], &row["inferred"]),
        (&"BEGIN IMMEDIATE".into(), &false.into())
    );
    assert!(row["held_ms"].as_f64().unwrap() >= 200.0, "{row:#}");
    assert_eq!(
        report["processes"].as_array().unwrap().len(),
        2,
        "{report:#}"
    );
}

#[test]
fn switching_the_journal_while_others_read_is_told() {
    let (_home, path) = home();
    database(&path, "delete");
    let _reader = Python::at_gate(&path, READ);
    let (_, report) = trace_python(&path, "refused(connect(0.1), 'PRAGMA journal_mode=WAL')");
    let row = row(&report, "opening");
    assert_eq!(row["statement"], "PRAGMA journal_mode=WAL");
    assert_eq!(row["inferred"], false);
}

#[test]
fn a_commit_behind_readers_over_a_rollback_journal_is_told() {
    let (_home, path) = home();
    database(&path, "delete");
    let _reader = Python::at_gate(&path, READ);
    let (_, report) = trace_python(&path, "refused(connect(0.1), 'INSERT INTO t VALUES (1)')");
    row(&report, "rollback-journal");
}

#[test]
fn a_checkpoint_and_readers_are_told_apart_by_who_waits() {
    let (_home, path) = home();
    database(&path, "wal");
    let reader = Python::at_gate(&path, READ);
    let checkpoint = "
c = connect(0.2); c.execute('INSERT INTO t VALUES (1)')
print(c.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()[0])
";
    let (ran, report) = trace_python(&path, checkpoint);
    assert_eq!(ran.stdout, "1\n", "SQLite says that it was busy");
    let behind = row(&report, "checkpoint-behind-readers");
    is_behind(behind, &reader);
    assert!(behind["total_ms"].as_f64().unwrap() >= 100.0, "{behind:#}");

    // Now another is at the checkpoint, with the write lock in hand.
    let _checkpointer = Python::at_gate(
        &path,
        "
c = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
threading.Thread(target=lambda: c.execute('PRAGMA wal_checkpoint(TRUNCATE)'), daemon=True).start()
while True:
    f = open('/proc/locks').read()
    ino = ':%d ' % os.stat(path + '-shm').st_ino
    if any(ino in l and ' %d ' % os.getpid() in l and l.split()[6:8] == ['120', '121'] for l in f.splitlines()): break
gate()
",
    );
    let (_, report) = trace_python(&path, "refused(connect(0.1), 'INSERT INTO t VALUES (1)')");
    row(&report, "checkpoint");
}

#[test]
fn a_shared_cache_is_known_by_its_answer() {
    let (_home, path) = home();
    database(&path, "wal");
    let (_, report) = trace_python(
        &path,
        "
uri = 'file:' + path + '?cache=shared'
c, d = [sqlite3.connect(uri, uri=True, isolation_level=None) for _ in range(2)]
c.execute('BEGIN IMMEDIATE'); c.execute('INSERT INTO t VALUES (1)')
refused(d, 'SELECT * FROM t')
",
    );
    assert_eq!(row(&report, "shared-cache")["failed"], 1);
}

/// As many copies as there are: the loader takes a copy of the file for another.
#[test]
fn a_second_library_that_locks_the_same_file_is_named() {
    let (home, path) = home();
    database(&path, "wal");
    let (ran, report) = trace_python(
        &path,
        &format!(
            "
import _sqlite3, ctypes, shutil
c = connect(5); c.execute('INSERT INTO t VALUES (1)')
mine = [l.split()[-1] for l in open('/proc/self/maps') if 'libsqlite3' in l]
if not mine: print('no shared SQLite'); raise SystemExit
copy = {:?}; shutil.copy(mine[0], copy)
other = ctypes.CDLL(copy); db = ctypes.c_void_p()
assert other.sqlite3_open(path.encode(), ctypes.byref(db)) == 0
other.sqlite3_exec(db, b'INSERT INTO t VALUES (2)', None, None, None)
",
            home.path().join("libother.so")
        ),
    );
    if ran.stdout.contains("no shared SQLite") {
        eprintln!("skipped: this Python has its SQLite linked in");
        return;
    }
    let more = row(&report, "two-libraries")["more"].as_str().unwrap();
    assert!(
        more.contains("libother.so") && more.contains("libsqlite3"),
        "{more}"
    );
}

#[test]
fn locks_that_a_descriptor_takes_with_it_are_told() {
    let (_home, path) = home();
    database(&path, "delete");
    let (_, report) = trace_python(
        &path,
        "
c = connect(5); c.execute('BEGIN IMMEDIATE'); c.execute('INSERT INTO t VALUES (1)')
os.close(os.open(path, os.O_RDONLY))
os._exit(0)
",
    );
    assert_eq!(row(&report, "locks-dropped")["contended"], 1);
}
