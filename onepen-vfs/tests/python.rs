//! Programs that know nothing of this library: the system's Python with the SQLite of
//! the system, the extension loaded once before anything else.
#![cfg(target_os = "linux")]

mod common;

use common::python;

const EVERYBODY_ADDS: &str = "
def work(k):
    c = connect()
    for _ in range(300): add(c)
    return 'ok'
";

#[test]
fn processes_that_read_first_and_write_later_are_never_refused_and_lose_nothing() {
    python(
        &format!(
            "{EVERYBODY_ADDS}\ncounter()\nall_ok(processes(4, work))\nassert value() == 1200, value()"
        ),
        &[],
    );
}

#[test]
fn the_threads_of_a_process_are_never_refused_and_lose_nothing() {
    python(
        &format!(
            "{EVERYBODY_ADDS}\ncounter()\nall_ok(threads(4, work))\nassert value() == 1200, value()"
        ),
        &[],
    );
}

#[test]
fn the_same_with_the_write_lock_taken_at_the_first_read() {
    python(
        &format!(
            "{EVERYBODY_ADDS}\ncounter()\nall_ok(processes(4, work))\nassert value() == 1200, value()"
        ),
        &[("ONEPEN_PROMOTE", "lock")],
    );
}

#[test]
fn over_a_rollback_journal_too() {
    python(
        &format!(
            "{}\ncounter('delete')\nall_ok(processes(3, work))\nassert value() == 120, value()",
            EVERYBODY_ADDS.replace("300", "40")
        ),
        &[],
    );
}

/// Each commit copies the whole log back, so that the next writer starts at read lock
/// 0 and SQLite swaps it for another one in the middle of its transaction
/// (`walRestartLog`), while the write lock is held without SQLite's knowledge or was.
#[test]
fn a_log_that_starts_anew_within_a_promoted_transaction_loses_no_update() {
    for promote in ["turn", "lock"] {
        python(
            "
counter()
def work(k):
    c = connect()
    c.execute('PRAGMA wal_autocheckpoint = 1')
    for n in range(300):
        add(c)
        if n % 7 == k: c.execute('PRAGMA wal_checkpoint').fetchone()
    return 'ok'
all_ok(processes(4, work))
assert value() == 1200, value()
# It did start anew: the log is a few pages and not 1200 commits long.
keep = connect(); keep.execute('SELECT 1 FROM t').fetchone()
work(0)
size = os.path.getsize(db + '-wal')
assert size < 100 * 4096, size
",
            &[("ONEPEN_PROMOTE", promote)],
        );
    }
}

#[test]
fn a_transaction_that_only_reads_keeps_nobody_waiting_for_long() {
    python(
        "
counter()
for promote in ('turn', 'lock'):
    idle, writer = connect(), connect()
    idle.execute(f'PRAGMA onepen_promote = {promote}')
    idle.execute('BEGIN')
    idle.execute('SELECT v FROM t WHERE id = 1').fetchone()
    # Nothing is known of such transactions, and this one goes nowhere.
    writer.execute('UPDATE t SET v = v + 1')
    idle.execute('COMMIT')
assert value() == 2
",
        &[],
    );
}

#[test]
fn a_connection_without_a_timeout_is_refused_at_once() {
    python(
        "
counter()
writer, other = connect(), connect(timeout=0)
writer.execute('BEGIN IMMEDIATE')
try:
    other.execute('BEGIN IMMEDIATE')
    assert False, 'not refused'
except sqlite3.OperationalError as e:
    assert str(e) == 'database is locked'
writer.execute('COMMIT')
other.execute('BEGIN IMMEDIATE'); other.execute('COMMIT')
",
        &[],
    );
}

#[test]
fn a_checkpoint_by_hand_is_not_expected_to_follow_the_next_commit() {
    python(
        "
counter()
writer, other = connect(), connect(timeout=0)
for n in range(10):
    reader = connect()
    reader.execute('BEGIN'); reader.execute('SELECT v FROM t').fetchone() # the log goes on
    add(writer)
    writer.execute('PRAGMA wal_checkpoint').fetchone()
    add(writer)
    other.execute('UPDATE t SET v = v + 1') # is nobody's turn
    reader.execute('COMMIT')
assert value() == 30, value()
",
        &[],
    );
}

#[test]
fn it_is_switched_per_connection() {
    python(
        "
counter()
def asks(uri, *pragmas):
    c = sqlite3.connect(f'file:{db}{uri}', uri=True)
    return [c.execute('PRAGMA ' + p).fetchone() for p in pragmas]
assert asks('', 'onepen', 'onepen_promote') == [('on',), ('turn',)]
assert asks('?onepen=0', 'onepen') == [('off',)]
assert asks('?onepen_promote=0', 'onepen', 'onepen_promote') == [('on',), ('off',)]
assert asks('?onepen_promote=lock', 'onepen_promote') == [('lock',)]
assert asks('', 'onepen_promote=off', 'onepen_promote') == [('off',), ('off',)]
assert asks('?mode=ro', 'onepen') == [('off',)]
assert asks('?cache=shared', 'onepen') == [('off',)]
assert asks('?vfs=unix', 'onepen') == [None]
assert asks('?vfs=onepen', 'onepen') == [('on',)]
# Without promotion an upgrade is SQLite's own business.
one, two = (sqlite3.connect(f'file:{db}?onepen_promote=0', uri=True, isolation_level=None) for _ in 'ab')
one.execute('BEGIN'); one.execute('SELECT v FROM t').fetchone()
two.execute('UPDATE t SET v = v + 1')
try:
    one.execute('UPDATE t SET v = v + 1')
    assert False, 'not refused'
except sqlite3.OperationalError: pass
",
        &[],
    );
}

#[test]
fn a_process_that_is_killed_at_any_moment_keeps_nobody_waiting() {
    python(
        "
counter()
c = connect(); c.execute('CREATE TABLE done(k, n)'); c.close()
def forever(k):
    c = connect()
    while True: add(c)
def start(k):
    pid = os.fork()
    if pid == 0:
        forever(k); os._exit(0)
    return pid
pids = [start(k) for k in range(3)]
mine = connect()
for n in range(40):
    time.sleep(random.random() * 0.02) # the moment of the kill is drawn
    i = random.randrange(3)
    os.kill(pids[i], signal.SIGKILL); os.waitpid(pids[i], 0)
    add(mine)
    pids[i] = start(i)
for pid in pids: os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
add(mine)
assert value() >= 41
",
        &[],
    );
}

#[test]
fn a_forked_child_takes_part_with_connections_of_its_own() {
    python(
        "
counter()
parent = connect()
add(parent)
parent.execute('BEGIN IMMEDIATE')
if os.fork() == 0:
    # Not with the parent's, which SQLite forbids.
    c = connect(timeout=0)
    try: c.execute('BEGIN IMMEDIATE')
    except sqlite3.OperationalError: os._exit(0)
    os._exit(1)
assert os.wait()[1] == 0
parent.execute('COMMIT')
all_ok(processes(3, lambda k: [add(c) for c in [connect()] for _ in range(100)] and 'ok'))
add(parent)
assert value() == 302, value()
",
        &[],
    );
}

#[test]
fn a_side_file_that_is_a_link_or_nonsense_is_not_touched_and_costs_only_the_order() {
    python(
        "
for what in ('link', 'nonsense'):
    for end in ('', '-wal', '-shm', '-gate'):
        if os.path.lexists(db + end): os.unlink(db + end)
    victim = db + '.victim'
    open(victim, 'w').write('mine')
    if what == 'link': os.symlink(victim, db + '-gate')
    else: open(db + '-gate', 'w').write('nothing of ours' * 100)
    before = open(db + '-gate').read()
    counter()
    c = connect()
    add(c)
    assert c.execute('PRAGMA onepen').fetchone() == ('no place at the gate',)
    assert value() == 1
    c.close()
    assert open(victim).read() == 'mine' and open(db + '-gate').read() == before
",
        &[],
    );
}

#[test]
fn several_that_open_a_new_database_at_once_all_get_their_log() {
    python(
        "
for n in range(10):
    db = sys.argv[2] + str(n)
    ready, go = os.pipe()
    def work(k):
        os.close(go); os.read(ready, 1)
        c = connect()
        c.execute('PRAGMA journal_mode = wal')
        c.execute('CREATE TABLE IF NOT EXISTS t(v)')
        c.execute('INSERT INTO t VALUES(?)', (k,))
        return 'ok'
    threading.Timer(0.05, lambda: os.close(go)).start()
    all_ok(processes(4, work))
    os.close(ready)
",
        &[],
    );
}

const TWO_DATABASES: &str = "
counter()
def both():
    c = connect()
    c.execute('ATTACH ? AS other', (db + '-2',))
    return c
c = both()
c.execute('PRAGMA other.journal_mode = wal')
c.execute('CREATE TABLE other.t(id INTEGER PRIMARY KEY, v INTEGER)')
c.execute('INSERT INTO other.t VALUES(1, 0)')
c.close()
def values():
    return [both().execute(f'SELECT v FROM {name}.t').fetchone()[0] for name in ('main', 'other')]
";

#[test]
fn two_attached_databases_in_opposite_orders_are_refused_to_nobody() {
    python(
        &format!(
            "{TWO_DATABASES}
def work(k):
    c = both()
    names = ('main', 'other') if k % 2 else ('other', 'main')
    for n in range(150):
        c.execute('BEGIN')
        if n % 3:
            seen = [c.execute(f'SELECT v FROM {{name}}.t').fetchone()[0] for name in names]
            for name, v in zip(names, seen):
                c.execute(f'UPDATE {{name}}.t SET v = ?', (v + 1,))
        else:
            for name in names: c.execute(f'UPDATE {{name}}.t SET v = v + 1')
        c.execute('COMMIT')
    return 'ok'
all_ok(processes(4, work))
assert values() == [600, 600], values()
"
        ),
        &[],
    );
}

/// Locks that are already had in opposite orders are a deadlock of SQLite's own, which
/// nobody can undo for it: it ends with the busy timeout, as without us.
#[test]
fn locks_in_opposite_orders_end_with_a_refusal_and_not_never() {
    python(
        &format!(
            "{TWO_DATABASES}
have = threading.Barrier(2, timeout=60)
def work(k):
    c = both()
    c.execute('PRAGMA busy_timeout = 300')
    names = ('main', 'other') if k else ('other', 'main')
    c.execute('BEGIN')
    c.execute(f'UPDATE {{names[0]}}.t SET v = v + 1')
    have.wait()
    try: c.execute(f'UPDATE {{names[1]}}.t SET v = v + 1')
    except sqlite3.OperationalError as e:
        c.execute('ROLLBACK')
        return str(e)
    c.execute('COMMIT')
    return 'ok'
answers = threads(2, work)
assert 'database is locked' in answers, answers
done = answers.count('ok')
assert values() == [done, done], (answers, values())
"
        ),
        &[("ONEPEN_PROMOTE", "off")],
    );
}

/// With one kind of transaction that goes on to the other database and one that does not,
/// no turn of the other database is left behind.
#[test]
fn a_turn_of_a_database_that_a_transaction_never_came_to_is_given_back() {
    python(
        &format!(
            "{TWO_DATABASES}
one, two = both(), sqlite3.connect(db + '-2', timeout=0, isolation_level=None)
for n in range(20):
    one.execute('BEGIN')
    one.execute('SELECT v FROM main.t').fetchone()
    one.execute('UPDATE main.t SET v = v + 1')
    one.execute('COMMIT')
    two.execute('BEGIN IMMEDIATE'); two.execute('UPDATE t SET v = v + 1'); two.execute('COMMIT')
    one.execute('BEGIN')
    one.execute('SELECT v FROM main.t').fetchone()
    one.execute('ROLLBACK')
    two.execute('BEGIN IMMEDIATE'); two.execute('UPDATE t SET v = v + 1'); two.execute('COMMIT')
assert values() == [20, 40], values()
"
        ),
        &[],
    );
}
