//! Forks of a program whose connections stand in line, at any moment.

use crate::common::python;

const FORK: &str = r"
import gc, multiprocessing
signal.alarm(120)
os.register_at_fork(after_in_child=lambda: signal.alarm(120))
def child(work, end=os._exit):
    # `end` is how it ends: at once, or as programs do.
    pid = os.fork()
    if pid == 0:
        try: work()
        except BaseException as e: print('child:', repr(e), flush=True); os._exit(1)
        end(0)
    return pid
def ends_well(pid): assert os.waitpid(pid, 0)[1] == 0
def is_locked():
    # As another process sees it.
    def asks():
        try: connect(timeout=0).execute('BEGIN IMMEDIATE')
        except sqlite3.OperationalError as e: assert str(e) == 'database is locked'
        else: os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child(asks), 0)[1]) == 0
def adds(times=20):
    c = connect()
    for n in range(times): add(c)
    c.close()
";

fn forked(program: &str) {
    python(&format!("{FORK}{program}"), &[]);
}

#[test]
fn however_a_child_ends_its_parents_locks_and_turns_are_still_there() {
    forked(
        r"
for journal in ('wal', 'delete'):
    db = sys.argv[2] + journal
    counter(journal)
    for end in (os._exit, sys.exit):
        for begin in ('BEGIN', 'BEGIN IMMEDIATE'):
            held = connect()
            held.execute(begin)
            v = held.execute('SELECT v FROM t WHERE id = 1').fetchone()[0]
            held.execute('UPDATE t SET v = ? WHERE id = 1', (v + 1,))
            pid = os.fork()
            if pid == 0:
                c = connect(timeout=0)
                c.execute('PRAGMA onepen').fetchone()
                try: c.execute('BEGIN IMMEDIATE')
                except sqlite3.OperationalError: pass
                else: os._exit(2)
                c.close()
                # One that ends as programs do also ends its parent's connections. Over a
                # rollback journal SQLite itself then takes the parent's journal away.
                end(0) if journal == 'wal' else os._exit(0)
            ends_well(pid)
            assert is_locked(), (journal, end, begin)
            held.execute('COMMIT')
            held.close()
    adds()
    assert value() == 24, value()
",
    );
}

#[test]
fn a_child_with_connections_of_its_own_takes_part_while_its_parent_does() {
    forked(
        r"
counter()
mine = connect()
add(mine)
pids = [child(adds, end) for end in (os._exit, sys.exit) for _ in range(2)]
for n in range(50): add(mine)
for pid in pids: ends_well(pid)
add(mine)
assert value() == 52 + 4 * 20, value()
",
    );
}

/// At a moment at which none of them has a mutex of SQLite's own: those a child would
/// find taken for ever, with the extension or without.
#[test]
fn a_fork_while_other_threads_wait_in_line_leaves_a_child_that_can_write() {
    forked(
        r"
counter()
holder = connect()
holder.execute('BEGIN IMMEDIATE')
ready = threading.Barrier(5)
def waits(k):
    c = connect()
    ready.wait()
    add(c, 'BEGIN IMMEDIATE')
all = [threading.Thread(target=waits, args=(k,)) for k in range(4)]
for t in all: t.start()
ready.wait()
def sleep(t): return open(f'/proc/self/task/{t}/stat').read().rpartition(') ')[2][0] == 'S'
seen = 0
while seen < 20: # that is where they all are
    seen = seen + 1 if min([sleep(t.native_id) for t in all]) else 0
def of_the_child():
    try: connect(timeout=0.02).execute('BEGIN IMMEDIATE')
    except sqlite3.OperationalError as e: assert str(e) == 'database is locked'
    fresh = sqlite3.connect(f'{db}-child{os.getpid()}', isolation_level=None)
    fresh.execute('CREATE TABLE t(v)')
    assert fresh.execute('PRAGMA onepen').fetchone() == ('on',)
for n in range(60): ends_well(child(of_the_child))
holder.execute('COMMIT')
for t in all: t.join()
ends_well(child(adds))
assert value() == 4 + 20, value()
",
    );
}

#[test]
fn a_child_of_a_thread_that_waits_in_line_is_not_in_it() {
    forked(
        r"
counter()
holder = connect()
holder.execute('BEGIN IMMEDIATE')
waits = threading.Thread(target=lambda: add(connect()))
waits.start()
def asleep(): return any(
    open(f'/proc/self/task/{t}/stat').read().rpartition(') ')[2][0] == 'S'
    for t in os.listdir('/proc/self/task') if int(t) != os.getpid())
seen = 0
while seen < 20: # it sleeps for nothing else but its turn
    seen = seen + 1 if asleep() else 0
# Children that live on must not be taken for their parent.
r, w = os.pipe()
def stays(): os.close(w); os.read(r, 1)
pids = [child(stays) for _ in range(3)]
holder.execute('COMMIT')
waits.join()
adds()
ends_well(child(adds))
os.close(w)
for pid in pids: ends_well(pid)
assert value() == 41, value()
",
    );
}

#[test]
fn multiprocessing_by_fork_takes_part_with_its_parents_connection_open() {
    forked(
        r"
counter()
mine = connect()
def work(_): adds(30); return os.getpid()
with multiprocessing.get_context('fork').Pool(3) as pool:
    answer = pool.map_async(work, range(6), chunksize=1)
    for n in range(30): add(mine)
    answer.get(100)
mine.execute('BEGIN IMMEDIATE')
assert is_locked()
mine.execute('COMMIT')
assert value() == 30 + 6 * 30, value()
",
    );
}

/// A child that outlives its parent keeps the parent's place at the gate.
#[test]
fn a_child_that_outlives_its_parent_keeps_nobody_waiting() {
    forked(
        r"
counter()
r, w = os.pipe()
def parent():
    c = connect()
    add(c)
    c.execute('BEGIN IMMEDIATE')
    c.execute('UPDATE t SET v = v + 100 WHERE id = 1')
    def stays(): os.close(w); os.read(r, 1)
    child(stays)
    os.kill(os.getpid(), signal.SIGKILL) # in its turn, with the lock
os.waitpid(child(parent), 0)
adds()
ends_well(child(adds))
os.close(w)
assert value() == 41, value()
",
    );
}
