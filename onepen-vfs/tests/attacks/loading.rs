//! The extension loaded in every way that hosts do it.

use crate::common::plain_python;

/// `load` loads a copy of the extension on a connection; `counts` works with a database
/// and says what `PRAGMA onepen` answers.
const LOAD: &str = r"
import ctypes, gc, os, shutil, signal, sqlite3, subprocess, sys, threading
library, db = sys.argv[1], sys.argv[2]
signal.alarm(120)
def load(library=library, connection=None, entry=None):
    c = connection or sqlite3.connect(':memory:')
    c.enable_load_extension(True)
    if entry: c.execute('SELECT load_extension(?, ?)', (library, entry)).fetchone()
    else: c.load_extension(library)
    return c
def connect(timeout=30, uri=''):
    return sqlite3.connect(f'file:{db}{uri}', uri=True, timeout=timeout, isolation_level=None)
def counts(times=20):
    c = connect()
    c.execute('PRAGMA journal_mode = wal')
    c.execute('CREATE TABLE IF NOT EXISTS t(v)')
    for n in range(times):
        c.execute('BEGIN')
        v = c.execute('SELECT count(*) FROM t').fetchone()[0]
        c.execute('INSERT INTO t VALUES (?)', (v,))
        c.execute('COMMIT')
    answer = c.execute('PRAGMA onepen').fetchone()
    c.close()
    return answer
def is_loaded():
    return os.path.basename(library) in open('/proc/self/maps').read()
STRANGER = '''
import sqlite3, sys
try: sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute('BEGIN IMMEDIATE')
except sqlite3.OperationalError as e: print(e)
'''
def is_locked():
    said = subprocess.run([sys.executable, '-c', STRANGER, db], stdout=subprocess.PIPE, check=True).stdout
    return said == b'database is locked\n'
def all_right():
    c = connect()
    assert c.execute('PRAGMA integrity_check').fetchone() == ('ok',)
    rows = [v for (v,) in c.execute('SELECT v FROM t ORDER BY v')]
    assert rows == list(range(len(rows))), rows # no number twice: no update was lost
    c.close()
";

fn loaded(program: &str) {
    plain_python(&format!("{LOAD}{program}"), &[]);
}

#[test]
fn it_may_be_loaded_any_number_of_times_on_one_connection_and_on_others() {
    loaded(
        r"
c = load()
for n in range(3): load(connection=c)
d = load()
load(connection=d, entry='sqlite3_onepenvfs_init')
load(connection=d, entry='sqlite3_onepenvfsnamed_init')
assert counts() == ('on',)
e = connect()
load(connection=e) # on one that uses it
e.execute('INSERT INTO t VALUES ((SELECT count(*) FROM t))')
c.close(); d.close(); e.close()
assert counts() == ('on',)
all_right()
",
    );
}

#[test]
fn threads_that_load_it_at_the_same_moment_have_one_and_not_one_over_the_other() {
    loaded(
        r"
# The first load is what races, so each try is a process of its own.
def once():
    together = threading.Barrier(6)
    answers = []
    def run(n):
        c = sqlite3.connect(':memory:', check_same_thread=False)
        together.wait()
        load(copies[n % 2], c)
        answers.append(counts())
    all = [threading.Thread(target=run, args=(n,)) for n in range(6)]
    for t in all: t.start()
    for t in all: t.join()
    assert answers == [('on',)] * 6, answers
    # One over the other would wait for its own turn.
    c = connect(timeout=0)
    for n in range(20): c.execute('INSERT INTO t VALUES ((SELECT count(*) FROM t))')
    all_right()
copies = [library, os.path.join(os.path.dirname(db), 'copy.so')]
shutil.copy(library, copies[1])
for n in range(20):
    db = sys.argv[2] + str(n)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try: once()
        except BaseException as e: print(repr(e), flush=True); os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
",
    );
}

#[test]
fn it_stays_when_all_connections_are_closed_and_who_loaded_it_lets_it_go() {
    loaded(
        r"
import _ctypes
for n in range(3):
    c = load()
    assert counts() == ('on',)
    c.close(); gc.collect()
    _ctypes.dlclose(ctypes.CDLL(library)._handle)
    assert is_loaded()
    assert counts() == ('on',)
all_right()
",
    );
}

#[test]
fn without_being_the_default_it_stays_as_well() {
    loaded(
        r"
load(entry='sqlite3_onepenvfsnamed_init').close()
gc.collect()
assert is_loaded()
c = connect(uri='?vfs=onepen')
assert c.execute('PRAGMA onepen').fetchone() == ('on',)
assert connect().execute('PRAGMA onepen').fetchone() is None
load().close() # and becomes it
assert counts() == ('on',)
",
    );
}

/// Locks of a process on a file are gone when it closes any descriptor of it: whatever a
/// second copy of the extension opened of a database would take the first one's locks.
#[test]
fn two_copies_of_it_in_one_process_leave_each_others_locks_alone() {
    loaded(
        r"
copy = os.path.join(os.path.dirname(db), 'libonepen_vfs_copy.so')
shutil.copy(library, copy)
load(); load(copy)
assert counts() == ('on',)
holder = connect()
holder.execute('BEGIN IMMEDIATE')
holder.execute('INSERT INTO t VALUES ((SELECT count(*) FROM t))')
assert is_locked()
# Everything that one may do with a copy meanwhile, refusals too.
load(copy); load(library)
for uri in ('', '?vfs=onepen', '?onepen=0', '?onepen_promote=lock', '?mode=ro'):
    c = connect(timeout=0.05, uri=uri)
    c.execute('SELECT * FROM t').fetchall()
    try: c.execute('INSERT INTO t VALUES (-1)')
    except sqlite3.OperationalError: pass
    c.close(); gc.collect()
    assert is_locked(), uri
holder.execute('COMMIT')
assert not is_locked()
all_right()
",
    );
}

#[test]
fn a_copy_under_another_name_takes_part_as_another_process_would() {
    loaded(
        r"
# Another process has only the copy; both stand in one line.
copy = os.path.join(os.path.dirname(db), 'libonepen_vfs_copy.so')
shutil.copy(library, copy)
load(library).close()
counts(0)
pids = []
for path in (library, copy, library, copy):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        load(path)
        os._exit(0 if counts(100) == ('on',) else 1)
    pids.append(pid)
assert not any([os.waitpid(pid, 0)[1] for pid in pids])
all_right()
",
    );
}
