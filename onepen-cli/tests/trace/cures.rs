//! Each class is met by a real program, and not any more by the same program with
//! the cure that the report advises.
//!
//! The programs are Python with other processes beside them, forked and traced as
//! well. Nobody sleeps to be in time: who holds a lock goes on when the kernel says
//! that the other is asleep, or that somebody has a lock.

use crate::python::home;
use crate::{database, trace_python};

/// What every program below can use.
const BESIDE: &str = "
left = []
def child(work):
    pid = os.fork()
    if pid == 0:
        for leave in left: os.close(leave)
        left.clear()
        try: work(os.getppid())
        finally: os._exit(0)
    return pid
def until(what, parent):
    # Whoever started it may be gone, and then nobody will ever sleep.
    while not what() and os.getppid() == parent: pass
def asleep(pid):
    return open('/proc/%d/stat' % pid).read().rpartition(') ')[2][0] == 'S'
def has(pid, first, last):
    # A lock of these bytes of the -shm file, as the kernel says it.
    end = ':%d %d %d' % (os.stat(path + '-shm').st_ino, first, last)
    return any(' %d ' % pid in l and l.strip().endswith(end) for l in open('/proc/locks'))
def beside(*holds, then=None, work=0):
    # Another process has done these. It goes on with `then` when this one sleeps,
    # after so much work; without, it stays until the end.
    here, there = os.pipe(); stay, leave = os.pipe(); left.append(leave)
    def other(parent):
        c = connect(5)
        for sql in holds: c.execute(sql).fetchall()
        os.write(there, b'x')
        if not then: os.read(stay, 1); return
        until(lambda: asleep(parent), parent)
        time.sleep(work)
        c.execute(then)
    child(other); os.read(here, 1)
def end():
    for leave in left: os.close(leave)
    while True:
        try: os.wait()
        except ChildProcessError: return
";

#[track_caller]
fn met_and_cured(class: &str, met: (&str, &str), cured: (&str, &str)) {
    let run = |(mode, program): (&str, &str)| {
        let (_home, path) = home();
        database(&path, mode);
        trace_python(&path, &format!("{BESIDE}{program}\nend()")).1
    };
    let report = run(met);
    let had_failed = crate::row(&report, class)["failed"] != 0;
    let report = run(cured);
    let rows = report["contentions"].as_array().expect("rows");
    // Some cures are to wait: then it is still told of, and nothing fails.
    let is_over = |row: &serde_json::Value| row["class"] != class || had_failed;
    assert!(rows.iter().all(is_over), "{report:#}");
    assert_eq!(report["failed"], 0, "{report:#}");
}

macro_rules! cures {
    ($($name:ident = $class:literal, $met:expr => $cured:expr;)*) => {
        const CLASSES: &[&str] = &[$($class),*];
        $(#[test]
        fn $name() {
            met_and_cured($class, $met, $cured);
        })*
    };
}

const UPGRADE: &str = "
c = connect(5)
c.execute('BEGIN'); c.execute('SELECT n FROM t').fetchall()
beside('BEGIN IMMEDIATE', then='COMMIT')
refused(c, 'UPDATE t SET n = n + 1'); c.execute('ROLLBACK')
";
const IMMEDIATE: &str = "
c = connect(5); beside('BEGIN IMMEDIATE', then='COMMIT')
c.execute('BEGIN IMMEDIATE'); c.execute('SELECT n FROM t').fetchall()
c.execute('UPDATE t SET n = n + 1'); c.execute('COMMIT')
";
const SWITCH: &str = "
c = connect(0.1); beside('BEGIN', 'SELECT * FROM t')
refused(c, 'PRAGMA journal_mode=WAL')
";
const SWITCHED_ONCE: &str = "
c = connect(0.1); beside('BEGIN', 'SELECT * FROM t')
c.execute('PRAGMA journal_mode=WAL'); c.execute('INSERT INTO t VALUES (1)')
";
const COMMIT: &str = "
c = connect(0.1); beside('BEGIN', 'SELECT * FROM t')
try: c.execute('INSERT INTO t VALUES (1)')
except sqlite3.OperationalError as e: print(e)
";

/// A log, and nobody who has it open: who comes first has to read all of it. He is
/// stopped at it.
const CRASHED: &str = "
here, there = os.pipe()
def crash(parent):
    c = connect(5)
    c.execute('PRAGMA synchronous=OFF'); c.execute('PRAGMA wal_autocheckpoint=0')
    c.execute('INSERT INTO t VALUES (zeroblob(20000000))')
    os.write(there, b'x'); signal.pause()
def kill(pid): os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
pid = child(crash); os.read(here, 1); kill(pid)
def recover(parent):
    os.write(there, b'x'); connect(5).execute('SELECT count(*) FROM t').fetchall(); signal.pause()
def stopped():
    # One that was too quick to be seen is killed, and the next tries.
    while True:
        pid = child(recover); os.read(here, 1)
        while not asleep(pid):
            if has(pid, 120, 122):
                os.kill(pid, signal.SIGSTOP); os.waitpid(pid, os.WUNTRACED)
                if has(pid, 120, 122): return pid
                break
        kill(pid)
pid = stopped()
";

const CHECKPOINTED: &str = "
here, there = os.pipe()
beside('BEGIN', 'SELECT * FROM t')
c = connect(0.1); c.execute('INSERT INTO t VALUES (1)')
def checkpoint(parent):
    connect(60).execute('PRAGMA wal_checkpoint(%s)' % how).fetchall(); os.write(there, b'x')
";

const WRITERS: &str = "
import multiprocessing
fork = multiprocessing.get_context('fork')
waited, line = fork.Value('i', 0), fork.Lock()
class nobody:
    def __enter__(self): pass
    def __exit__(self, *_): pass
def writer(line, times):
    c = connect(30)
    for n in range(times):
        if times > 1000 and waited.value >= 3: break
        with line:
            began = time.monotonic(); c.execute('BEGIN IMMEDIATE')
            if time.monotonic() - began > 0.06:
                with waited: waited.value += 1
            c.execute('UPDATE t SET n = n + 1')
            time.sleep(0.01) # what it does in its transaction ...
            c.execute('COMMIT')
        time.sleep(0.005) # ... and between them
keep = connect(5); keep.execute('SELECT * FROM t').fetchall()
def together(line, times):
    all = [fork.Process(target=writer, args=(line, times)) for _ in range(4)]
    for one in all: one.start()
    for one in all: one.join()
    assert not any(one.exitcode for one in all)
";

const LIBRARY: &str = "
import _sqlite3, ctypes, shutil
mine = [l.split()[-1] for l in open('/proc/self/maps') if 'libsqlite3' in l]
def other():
    # A Python with SQLite linked in has none that could be copied.
    library = path + '.so'; shutil.copy(mine[0], library)
    other = ctypes.CDLL(library); db = ctypes.c_void_p()
    assert other.sqlite3_open(path.encode(), ctypes.byref(db)) == 0
    assert other.sqlite3_exec(db, b'INSERT INTO t VALUES (2)', None, None, None) == 0
c = connect(5); c.execute('INSERT INTO t VALUES (1)')
";

cures! {
    deferred_upgrade_is_met_and_cured = "deferred-upgrade",
        ("wal", UPGRADE) => ("wal", IMMEDIATE);
    journal_upgrade_is_met_and_cured = "journal-upgrade",
        ("delete", UPGRADE) => ("delete", IMMEDIATE);
    no_timeout_is_met_and_cured = "no-timeout",
        ("wal", "c = connect(0); beside('BEGIN IMMEDIATE', then='COMMIT'); refused(c, 'INSERT INTO t VALUES (1)')") =>
        ("wal", "c = connect(5); beside('BEGIN IMMEDIATE', then='COMMIT'); c.execute('INSERT INTO t VALUES (1)')");
    opening_is_met_and_cured = "opening",
        ("delete", SWITCH) => ("wal", SWITCHED_ONCE);
    recovery_is_met_and_cured = "recovery",
        ("wal", &format!("{CRASHED}
refused(connect(0), 'SELECT count(*) FROM t'); os.kill(pid, signal.SIGKILL)")) =>
        ("wal", &format!("{CRASHED}
def on(parent): until(lambda: asleep(parent), parent); os.kill(pid, signal.SIGCONT)
child(on)
connect(60).execute('SELECT count(*) FROM t').fetchall(); os.kill(pid, signal.SIGKILL)"));
    checkpoint_is_met_and_cured = "checkpoint",
        ("wal", &format!("how = 'TRUNCATE'{CHECKPOINTED}
pid = child(checkpoint)
while not has(pid, 120, 121): pass
refused(c, 'INSERT INTO t VALUES (2)')")) =>
        ("wal", &format!("how = 'PASSIVE'{CHECKPOINTED}
child(checkpoint); c.execute('INSERT INTO t VALUES (2)')"));
    checkpoint_behind_readers_is_met_and_cured = "checkpoint-behind-readers",
        ("wal", "
beside('BEGIN', 'SELECT * FROM t'); c = connect(0.1); c.execute('INSERT INTO t VALUES (1)')
print(c.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone())") =>
        ("wal", "
beside('BEGIN', 'SELECT * FROM t'); c = connect(0.1); c.execute('INSERT INTO t VALUES (1)')
print(c.execute('PRAGMA wal_checkpoint(PASSIVE)').fetchone())");
    shared_cache_is_met_and_cured = "shared-cache",
        ("wal", "
uri = 'file:' + path + '?cache=shared'
c, d = [sqlite3.connect(uri, uri=True, isolation_level=None) for _ in range(2)]
c.execute('BEGIN IMMEDIATE'); c.execute('INSERT INTO t VALUES (1)'); refused(d, 'SELECT * FROM t')") =>
        ("wal", "
c, d = connect(5), connect(5)
c.execute('BEGIN IMMEDIATE'); c.execute('INSERT INTO t VALUES (1)'); d.execute('SELECT * FROM t').fetchall()");
    same_connection_is_met_and_cured = "same-connection",
        ("wal", "
c = connect(5); c.execute('INSERT INTO t VALUES (1)')
rows = c.execute('SELECT * FROM t'); rows.fetchone(); refused(c, 'DROP TABLE t')") =>
        ("wal", "
c = connect(5); c.execute('INSERT INTO t VALUES (1)')
rows = c.execute('SELECT * FROM t'); rows.fetchone(); rows.close(); c.execute('DROP TABLE t')");
    long_holder_is_met_and_cured = "long-holder",
        ("wal", "c = connect(5); beside('BEGIN IMMEDIATE', then='COMMIT', work=0.1); c.execute('INSERT INTO t VALUES (1)')") =>
        // What it does for long it does before it begins.
        ("wal", "c = connect(5); beside('SELECT 1', then='INSERT INTO t VALUES (2)', work=0.1); c.execute('INSERT INTO t VALUES (1)')");
    rollback_journal_is_met_and_cured = "rollback-journal",
        ("delete", COMMIT) => ("wal", COMMIT);
    crowd_is_met_and_cured = "crowd",
        ("wal", &format!("{WRITERS}together(nobody(), 1_000_000)")) =>
        ("wal", &format!("{WRITERS}together(line, 20)"));
    two_libraries_are_met_and_cured = "two-libraries",
        ("wal", &format!("{LIBRARY}other()")) =>
        ("wal", &format!("{LIBRARY}child(lambda _: other())"));
    locks_dropped_are_met_and_cured = "locks-dropped",
        ("delete", "
c = connect(5); c.execute('BEGIN IMMEDIATE'); c.execute('INSERT INTO t VALUES (1)')
open(path, 'rb').read(); os._exit(0)") =>
        ("delete", "
c = connect(5); c.execute('BEGIN IMMEDIATE'); c.execute('INSERT INTO t VALUES (1)')
connect(5).execute('VACUUM INTO ?', (path + '.copy',)); c.execute('COMMIT')");
}

#[test]
fn no_class_of_the_guide_is_left_out() {
    let guide = include_str!("../../../docs/guide/trace.md");
    let (_, classes) = guide
        .split_once("\n## The classes\n")
        .expect("they are there");
    let mut named: Vec<_> = classes
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let mut met = CLASSES.to_vec();
    named.sort_unstable();
    met.sort_unstable();
    assert_eq!(named, met);
}
