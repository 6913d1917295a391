//! Kinds of transactions that change their habits: whoever wrote and only reads now is not
//! promoted for ever, and the other way round.
#![cfg(target_os = "linux")]

mod common;

use common::python;

/// Whether `mine` has the turn is seen by one who does not wait.
const BOTH: &str = "
counter()
mine = connect()
def begins():
    mine.execute('BEGIN')
    mine.execute('SELECT v FROM t WHERE id = 1').fetchone()
def ends(): mine.execute('COMMIT')
def holds(): time.sleep(0.026) # each counts as long as the shortest of its kind
def has_the_turn():
    other = connect(timeout=0) # each time: who is refused again and again is taken to poll
    try: other.execute('UPDATE t SET v = v')
    except sqlite3.OperationalError as e:
        assert str(e) == 'database is locked', e
        return True
    finally: other.close()
    return False
def promoted():
    'At least one of a few: whoever is not scheduled for a second loses its turn.'
    for _ in range(10):
        begins(); had = has_the_turn(); holds(); ends()
        if had: return True
    return False
";

#[test]
fn a_kind_that_wrote_and_only_reads_now_is_left_alone_after_a_while_and_promoted_when_it_writes() {
    python(
        &format!(
            "{BOTH}
for _ in range(3):
    for _ in range(50): add(mine)
    assert promoted()
    for n in range(100):
        begins()
        had = has_the_turn()
        holds()
        ends()
        if not had: break
    # Half a second for nothing is enough.
    assert n <= 20, n
    begins(); assert not has_the_turn(); ends()
"
        ),
        &[],
    );
}

#[test]
fn a_kind_that_never_wrote_is_left_alone_sooner_and_promoted_once_it_writes() {
    python(
        &format!(
            "{BOTH}
for n in range(100):
    begins()
    had = has_the_turn()
    time.sleep(0.005)
    ends()
    if not had: break
assert n <= 8, n
begins(); assert not has_the_turn(); ends()
add(mine) # SQLite's own business, and nobody else is there
assert promoted()
"
        ),
        &[],
    );
}

/// All do both, in phases and by turns: nobody is refused, and everybody comes to an end.
#[test]
fn readers_and_writers_that_change_their_habits_wait_for_each_other_and_do_not_starve() {
    python(
        "
counter()
add(connect())
def work(k):
    c = connect(timeout=60)
    def reads():
        c.execute('BEGIN')
        c.execute('SELECT v FROM t WHERE id = 1').fetchone()
        c.execute('COMMIT')
    for n in range(300):
        if (n // 50 + k) % 2: promised(lambda: add(c), 1)
        else: promised(reads, 1)
    return 'ok'
all_ok(processes(4, work))
assert value() == 1 + 4 * 150, value()
",
        &[],
    );
}
