//! Connections that are left alone: those that only read, and shared caches. Through the
//! VFS they do what they do without it.
#![cfg(target_os = "linux")]

mod common;

use common::python;

/// What a connection can do and cannot, in words.
const TRIED: &str = r"
def tried(c):
    def trying(sql):
        try: return c.execute(sql).fetchall()
        except sqlite3.Error as e: return type(e).__name__, str(e)
    said = [trying(sql) for sql in (
        'SELECT v FROM t', 'UPDATE t SET v = 0', 'BEGIN IMMEDIATE', 'COMMIT',
        'BEGIN', 'SELECT v FROM t', 'UPDATE t SET v = 0', 'SELECT v FROM t', 'ROLLBACK',
        'PRAGMA wal_checkpoint', 'PRAGMA journal_mode',
    )]
    c.close()
    return said
def opened(vfs, words):
    return sqlite3.connect(f'file:{db}?vfs={vfs}{words}', uri=True, timeout=0, isolation_level=None)
";

#[test]
fn a_connection_that_only_reads_does_what_it_does_without() {
    for journal in ["wal", "delete"] {
        python(
            &format!(
                "{TRIED}
counter('{journal}')
writer = connect()
add(writer)
for words in ('&mode=ro', '&immutable=1', '&mode=ro&immutable=1'):
    writer.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone() # immutable: the file is all
    stock, ours = (tried(opened(vfs, words)) for vfs in ('unix', 'onepen'))
    assert stock == ours and stock[0] == [(1,)], (words, stock, ours)
# While somebody writes, and has his turn; and the other way round.
reader = opened('onepen', '&mode=ro')
writer.execute('BEGIN IMMEDIATE')
writer.execute('UPDATE t SET v = 2')
assert reader.execute('SELECT v FROM t').fetchall() == [(1,)]
writer.execute('COMMIT')
reader.execute('BEGIN')
assert reader.execute('SELECT v FROM t').fetchall() == [(2,)]
if '{journal}' == 'wal':
    connect(timeout=0).execute('UPDATE t SET v = 3')
    assert reader.execute('SELECT v FROM t').fetchall() == [(2,)]
reader.execute('COMMIT')
assert reader.execute('PRAGMA onepen').fetchone() == ('off',)
"
            ),
            &[],
        );
    }
}

/// The file may not be written: SQLite opens it for reading only, though asked for both.
#[test]
fn a_file_that_only_may_be_read_is_read_as_without() {
    python(
        &format!(
            "{TRIED}
counter()
writer = connect()
add(writer)
os.chmod(os.path.dirname(db), 0o755)
gate = os.stat(db + '-gate')
def without_rights(vfs):
    def work(_):
        if os.geteuid() == 0: os.setgid(65534); os.setuid(65534) # nobody's nobody
        c = opened(vfs, '')
        said = c.execute('PRAGMA onepen').fetchone()
        assert said == (('off',) if vfs == 'onepen' else None), said
        return tried(c)
    return processes(1, work)[0]
for end in ('', '-wal', '-shm', '-gate'): os.chmod(db + end, 0o444)
stock, ours = (without_rights(vfs) for vfs in ('unix', 'onepen'))
assert stock == ours, (stock, ours)
assert stock[0] == [(1,)] and 'readonly' in stock[1][1], stock
add(writer)
assert writer.execute('SELECT v FROM t').fetchone() == (2,)
assert os.stat(db + '-gate').st_ino == gate.st_ino
"
        ),
        &[],
    );
}

/// By name, and one that turns out to be shared because the process asked for it.
#[test]
fn a_shared_cache_does_what_it_does_without() {
    python(
        "
import ctypes
sqlite = ctypes.CDLL('libsqlite3.so.0')
counter()
def shared(vfs, words=''):
    uri = f'file:{db}?vfs={vfs}{words}'
    return [sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None) for _ in 'ab']
def said(c, sql):
    try: return c.execute(sql).fetchall()
    except sqlite3.Error as e: return str(e)
def play(one, two):
    'One cache, so its tables are locked and not its file.'
    answers = [said(one, 'BEGIN'), said(one, 'SELECT count(*) FROM t')]
    answers += [said(one, 'UPDATE t SET v = v + 1'), said(two, 'SELECT v FROM t')]
    answers += [said(two, 'PRAGMA read_uncommitted = 1'), said(two, 'SELECT count(*) FROM t')]
    answers += [said(two, 'UPDATE t SET v = v + 1'), said(one, 'COMMIT')]
    answers += [said(two, 'UPDATE t SET v = v + 1')]
    answers += [said(two, 'BEGIN'), said(two, 'SELECT count(*) FROM t')]
    answers += [said(two, 'UPDATE t SET v = v + 1'), said(two, 'COMMIT')]
    for c in (one, two): c.close()
    return answers
stock = play(*shared('unix', '&cache=shared'))
assert 'database table is locked' in str(stock), stock
ours = play(*shared('onepen', '&cache=shared'))
assert ours == stock, (stock, ours)
sqlite.sqlite3_enable_shared_cache(1)
one, two = shared('onepen')
assert one.execute('PRAGMA onepen').fetchone() == ('on',)
add(one); add(two)
assert one.execute('PRAGMA onepen').fetchone() == ('off',), 'it is left alone'
assert play(one, two) == stock
# Beside others, which queue.
def work(k):
    if k == 0:
        both = shared('onepen')
        for n in range(200): both[n % 2].execute('UPDATE t SET v = v + 1')
    else:
        sqlite.sqlite3_enable_shared_cache(0)
        c = connect()
        for _ in range(100): add(c, 'BEGIN IMMEDIATE')
    return 'ok'
before = value()
all_ok(processes(3, work))
assert value() == before + 400, (before, value())
",
        &[],
    );
}
