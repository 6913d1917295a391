//! A process that is not scheduled at the worst of moments: between its turn and SQLite's
//! write lock, or with that lock and without the turn. What is stopped stands still in a
//! system call (SQLite's `fcntl` goes through a hook that waits on a pipe), so nothing
//! here depends on how fast anything is; where a promise ends with a time, and the machine
//! was slower, it is tried again.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/hooked.rs"]
mod hooked;

use common::python;
use hooked::scene;

/// The writer is passed over between its turn and the lock, and lets the lock go again.
#[test]
fn a_writer_that_was_passed_over_before_it_had_the_lock_refuses_nobody_who_reads_in_his_turn() {
    for writes in [
        "c.execute('UPDATE t SET v = v + 1')",
        "c.execute('BEGIN IMMEDIATE'); c.execute('UPDATE t SET v = v + 1'); c.execute('COMMIT')",
    ] {
        scene(&format!(
            "
counter()
mine = connect()
add(mine) # such transactions write
added = 1
def scene():
    global added
    has_turn, go_on, let_go = Gate(), Gate(), Gate()
    def writer():
        c = connect(); c.execute('SELECT v FROM t').fetchone()
        once('lock', lambda: (has_turn.open(), go_on.wait()))
        once('unlocked', let_go.open)
        {writes}
        return 'ok'
    answer = start(writer)
    has_turn.wait()
    # It is passed over, because nobody has the lock; and goes on while somebody else reads.
    said = reads_and_writes(mine, lambda: (go_on.open(), let_go.wait()))
    assert answer() == 'ok'
    added += 1 + (said[0] == 'ok')
    return said
promised_for(1, scene)
assert value() == added, (value(), added)
"
        ));
    }
}

/// The same, and it is stopped once more, with the lock that it has to let go.
#[test]
fn an_upgrade_in_its_turn_waits_for_the_lock_of_who_has_no_turn() {
    scene(
        "
counter()
mine = connect()
add(mine)
added = 1
def scene():
    global added
    has_turn, go_on, has_lock, let_go = Gate(), Gate(), Gate(), Gate()
    def writer():
        c = connect(); c.execute('SELECT v FROM t').fetchone()
        once('lock', lambda: (has_turn.open(), go_on.wait()))
        once('locked', lambda: (has_lock.open(), let_go.wait()))
        c.execute('UPDATE t SET v = v + 1')
        return 'ok'
    answer = start(writer)
    has_turn.wait()
    def within():
        go_on.open()
        has_lock.wait()
        once('refused', let_go.open)
    said = reads_and_writes(mine, within)
    let_go.open() # if it was not refused
    assert answer() == 'ok'
    added += 1 + (said[0] == 'ok')
    return said
promised_for(1, scene)
assert value() == added, (value(), added)
",
    );
}

/// Who comes first after a crash takes the write lock without a turn, to read the log.
#[test]
fn a_transaction_that_begins_while_another_process_recovers_the_log_is_not_refused() {
    scene(
        "
counter()
added = 0
def scene():
    global added
    def crashes():
        add(connect())
        os.kill(os.getpid(), signal.SIGKILL)
    if os.fork() == 0: crashes()
    os.wait()
    added += 1
    recovered, let_go, done = Gate(), Gate(), Gate()
    def recovers():
        once('unlock', lambda: (recovered.open(), let_go.wait()))
        c = connect(); c.execute('SELECT v FROM t').fetchone()
        done.wait()
        return 'ok'
    answer = start(recovers)
    recovered.wait()
    once('refused', let_go.open)
    mine = connect()
    said = reads_and_writes(mine, lambda: None)
    let_go.open()
    done.open()
    assert answer() == 'ok'
    mine.close()
    added += said[0] == 'ok'
    return said
promised_for(0.2, scene)
assert value() == added, (value(), added)
",
    );
}

/// At moments that are drawn: between any two steps of anybody.
#[test]
fn processes_that_are_stopped_for_moments_refuse_nobody_and_lose_nothing() {
    for promote in ["turn", "lock"] {
        python(
            "
import mmap
counter()
add(connect())
over = mmap.mmap(-1, 1) # shared with the children
slow, refused = [], []
def work(k):
    c = connect()
    added = 0
    while over[0] == 0:
        since = time.monotonic()
        try:
            add(c, 'BEGIN IMMEDIATE' if k == 3 else 'BEGIN')
            added += 1
        except sqlite3.OperationalError as e:
            assert str(e) == 'database is locked', e
            refused.append((since, time.monotonic()))
        if time.monotonic() - since >= 1: slow.append((since, time.monotonic()))
    return added, slow, refused
def stops(main):
    children = []
    while len(children) < 4:
        children = open(f'/proc/{os.getpid()}/task/{main}/children').read().split()
    for _ in range(60):
        child = int(random.choice(children))
        os.kill(child, signal.SIGSTOP)
        time.sleep(random.uniform(0.014, 0.04)) # so long a turn may stand still
        os.kill(child, signal.SIGCONT)
        time.sleep(random.uniform(0, 0.004))
    over[0] = 1
stopper = threading.Thread(target=stops, args=(threading.get_native_id(),))
stopper.start()
answers = processes(4, work)
stopper.join()
assert all(isinstance(a, tuple) for a in answers), answers
# A machine that is slower than what is promised excuses who was refused meanwhile.
slow = [one for a in answers for one in a[1]]
for since, until in (one for a in answers for one in a[2]):
    assert any(s < until and since < u for s, u in slow), (since, until, slow)
assert value() == 1 + sum(a[0] for a in answers), (value(), answers)
",
            &[("ONEPEN_PROMOTE", promote)],
        );
    }
}

/// Not every refused lock is followed by a wait. Who is refused twice without one is taken
/// for a program that polls, and goes on without its turn; a checkpoint is none.
#[test]
fn a_checkpoint_that_was_refused_leaves_the_next_transaction_in_line() {
    scene(
        "
counter()
mine, other = connect(), connect(check_same_thread=False)
add(mine)
added = 1
def scene():
    global added
    other.execute('BEGIN IMMEDIATE'); other.execute('UPDATE t SET v = v + 1')
    mine.execute('PRAGMA busy_timeout = 0')
    assert mine.execute('PRAGMA wal_checkpoint(FULL)').fetchone()[0] == 1
    mine.execute('PRAGMA busy_timeout = 60000')
    committed = threading.Lock()
    def commit():
        with committed:
            if other.in_transaction: other.execute('COMMIT')
    # It waits for the commit; if it does not, that comes after its first read.
    later = threading.Timer(0.2, commit)
    later.start()
    said = reads_and_writes(mine, commit)
    later.join()
    added += 1 + (said[0] == 'ok')
    return said
promised_for(1, scene)
assert value() == added, (value(), added)
",
    );
}
