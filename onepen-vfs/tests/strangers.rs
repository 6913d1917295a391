//! Beside programs that do not queue: plain connections, and busy handlers that sleep by
//! themselves.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/hooked.rs"]
mod hooked;

use common::python;
use hooked::scene;

/// A program without the extension, which is told when to begin and when to commit.
const STRANGER: &str = "
def plain(timeout=30):
    c = sqlite3.connect(f'file:{db}?vfs=unix', uri=True, timeout=timeout, isolation_level=None)
    assert c.execute('PRAGMA onepen').fetchone() is None
    return c
class Stranger:
    def __init__(self): self.go, self.has, self.commit, self.done = (Gate() for _ in range(4))
    def run(self, times):
        c = plain()
        for _ in range(times):
            self.go.wait()
            c.execute('BEGIN IMMEDIATE'); c.execute('UPDATE t SET v = v + 1')
            self.has.open()
            self.commit.wait()
            c.execute('COMMIT')
            self.done.open()
        return 'ok'
";

/// It has the lock before the first read, and commits after somebody waits for it: who
/// would read at once would read what is not so any more when he writes. The first
/// transaction of a connection looks, and once a stranger was met, every one does.
#[test]
fn a_stranger_that_has_the_lock_is_waited_for_before_the_first_read() {
    scene(&format!(
        "{STRANGER}
counter()
add(connect()) # such transactions write
TIMES = 30
stranger = Stranger()
answer = start(lambda: stranger.run(TIMES))
mine = connect()
for n in range(TIMES):
    stranger.go.open(); stranger.has.wait()
    committed = []
    def commit():
        if not committed: committed.append(stranger.commit.open())
    once('refused', commit)
    said = reads_and_writes(mine, lambda: (commit(), stranger.done.wait()))
    assert said == ('ok', 0), (n, said)
assert answer() == 'ok'
assert value() == 1 + 2 * TIMES, value()
"
    ));
}

/// The order of things in which an upgrade is refused, which is SQLite's own; and with the
/// write lock at the first read it is the stranger who waits.
#[test]
fn a_stranger_that_writes_after_the_first_read_refuses_the_upgrade_unless_that_has_the_lock() {
    scene(&format!(
        "{STRANGER}
counter()
add(connect())
stranger = Stranger()
answer = start(lambda: stranger.run(1))
def within():
    stranger.go.open(); stranger.has.wait(); stranger.commit.open(); stranger.done.wait()
mine = connect()
assert reads_and_writes(mine, within)[0] == 'database is locked'
assert answer() == 'ok'
mine.execute('PRAGMA onepen_promote = lock')
def within():
    try: plain(timeout=0).execute('UPDATE t SET v = v + 1')
    except sqlite3.OperationalError as e: assert str(e) == 'database is locked', e
    else: assert False, 'not refused'
assert reads_and_writes(mine, within) == ('ok', 0)
assert value() == 3, value()
"
    ));
}

#[test]
fn with_the_write_lock_at_the_first_read_strangers_and_promoted_ones_refuse_each_other_nothing() {
    python(
        "
counter()
add(connect())
def work(k):
    if k < 2:
        c = sqlite3.connect(f'file:{db}?vfs=unix', uri=True, timeout=60, isolation_level=None)
    else:
        c = connect(timeout=60)
    for _ in range(100): add(c, 'BEGIN IMMEDIATE' if k < 2 else 'BEGIN')
    return 'ok'
all_ok(processes(5, work))
assert value() == 501, value()
",
        &[("ONEPEN_PROMOTE", "lock")],
    );
}

/// SQLite's own handler sleeps in the line; one of the program sleeps as it likes.
#[test]
fn a_busy_handler_that_sleeps_by_itself_is_never_in_line_and_gets_its_turns_all_the_same() {
    for vfs in ["onepen", "unix"] {
        python(
            &format!(
                "
import ctypes
sqlite = ctypes.CDLL('libsqlite3.so.0')
calls = 0
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
def sleeps(_, count):
    global calls
    calls += 1
    if calls == 1: os.write(waits[1], b'.')
    time.sleep(0.001)
    return 1
def own():
    c = sqlite3.connect(f'file:{{db}}?vfs={vfs}', uri=True, isolation_level=None)
    at = ctypes.c_void_p.from_address(id(c) + 16) # after what every object begins with
    assert sqlite.sqlite3_busy_handler(at, sleeps, None) == 0
    return c
counter()
begins, waits = os.pipe(), os.pipe()
def work(k):
    if k == 4: # has the lock until both have waited for it
        c = connect()
        c.execute('BEGIN IMMEDIATE')
        os.write(begins[1], b'....')
        for _ in range(2): os.read(waits[0], 1)
        c.execute('COMMIT')
        return 'ok'
    os.read(begins[0], 1)
    c = connect(timeout=60) if k % 2 else own()
    for n in range(300): c.execute('UPDATE t SET v = v + 1')
    return 'ok'
all_ok(processes(5, work))
assert value() == 1200, value()
"
            ),
            &[],
        );
    }
}
