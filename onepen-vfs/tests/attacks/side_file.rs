//! A hostile `app.db-gate`, met by programs through the extension: it costs the order at
//! most. A transaction that takes the write lock at once is never refused; one that reads
//! first may be, as without the extension; what was acknowledged is there.

use crate::common::python;

/// `everybody` runs so many workers with so many transactions each.
const WORK: &str = r"
signal.alarm(120) # nothing here takes long, unless it hangs
os.register_at_fork(after_in_child=lambda: signal.alarm(120))
def everybody(count=3, times=60):
    def work(k):
        c, done = connect(), 0
        for n in range(times):
            if n % 2:
                add(c, 'BEGIN IMMEDIATE')
                done += 1
                continue
            try:
                add(c)
                done += 1
            except sqlite3.OperationalError as e:
                assert str(e) == 'database is locked', e
        return done
    before = value()
    answers = processes(count, work)
    assert all(type(a) is int for a in answers), answers
    assert value() - before == sum(answers), (value(), before, answers)
def place():
    c = connect()
    add(c)
    (answer,) = c.execute('PRAGMA onepen').fetchone()
    return answer
magic = b'onepen\0\1'
size = 128 * 1024 # a little more than the side file has
";

fn attacked(program: &str) {
    python(&format!("{WORK}{program}"), &[]);
}

#[test]
fn whatever_stands_in_the_place_of_the_side_file_is_not_touched_and_nobody_is_refused() {
    attacked(
        r"
import socket, stat
victim = db + '.victim'
def text(content):
    return lambda gate: open(gate, 'wb').write(content)
def link(gate): os.symlink(victim, gate)
def dangling(gate): os.symlink(victim + '.none', gate)
def second_name(gate): os.link(victim, gate)
def device(gate): os.mknod(gate, 0o666 | stat.S_IFCHR, os.makedev(1, 5)) # /dev/zero
def listens(gate): socket.socket(socket.AF_UNIX).bind(gate)
def stranger(gate):
    open(gate, 'wb').write(magic)
    os.chown(gate, 12345, 12345)
in_its_place = [link, dangling, second_name, os.mkfifo, os.mkdir, listens, text(b'hello'), text(b'onepe'),
                text(b'not made by onepen' * 100), text(b'onepen\0\2' + b'x' * 200_000)]
if os.geteuid() == 0:
    in_its_place += [stranger]
    try:
        device(db + '-device')
        in_its_place += [device]
    except PermissionError: pass # a container may not make them
def state(gate):
    at = os.lstat(gate)
    return at.st_ino, at.st_mode, at.st_uid, at.st_size, at.st_mtime_ns
for n, put in enumerate(in_its_place):
    db = sys.argv[2] + str(n)
    open(victim, 'w').write('mine')
    mode = os.lstat(victim).st_mode
    put(db + '-gate')
    before = state(db + '-gate')
    counter()
    assert place() == 'no place at the gate', put
    everybody(2, 20)
    assert state(db + '-gate') == before, put
    assert open(victim).read() == 'mine' and os.lstat(victim).st_mode == mode
    assert not os.path.lexists(victim + '.none')
",
    );
}

#[test]
fn a_side_file_that_one_may_not_open_is_none() {
    attacked(
        r"
home = os.path.dirname(db)
def nobody(k):
    if os.geteuid() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    if k == 0: counter()
    open(db + '-gate', 'wb').write(magic)
    os.chmod(db + '-gate', 0)
    if place() == 'on':
        # Its own, so the mode of the database was put in place.
        assert os.stat(db + '-gate').st_mode == os.stat(db).st_mode
    os.unlink(db + '-gate'); os.mkdir(db + '-gate', 0)
    assert place() == 'no place at the gate'
    os.rmdir(db + '-gate')
    os.chmod(home, 0o555) # nothing new can be made
    c = connect()
    assert c.execute('PRAGMA onepen').fetchone() == ('no place at the gate',)
    os.chmod(home, 0o755)
    return 'ok'
os.chmod(home, 0o777)
if os.geteuid() == 0: os.chown(home, 65534, 65534)
all_ok(processes(1, nobody))
everybody()
",
    );
}

#[test]
fn a_side_file_of_any_length_is_used_or_not_and_nobody_is_refused() {
    attacked(
        r"
for n, (content, length, expected) in enumerate([
    (b'', 0, 'on'), (magic, 8, 'on'), (b'\0' * 8, 4096, 'on'), (magic, 100_000, 'on'),
    (magic, 1 << 40, 'on'), (b'\0' * 8, 1 << 40, 'on'), (b'', 7, 'no place at the gate'),
]):
    db = sys.argv[2] + str(n)
    open(db + '-gate', 'wb').write(content)
    os.truncate(db + '-gate', length)
    counter()
    assert place() == expected, (length, content)
    everybody(2, 20)
    assert os.stat(db + '-gate').st_blocks < 4096 # a hole of a terabyte stays one
",
    );
}

#[test]
fn a_side_file_that_is_shortened_and_grown_all_the_time_ends_no_program() {
    attacked(
        r"
counter(); place()
def attack():
    while True:
        for length in (0, 8, 4096, 40_000, size):
            os.truncate(db + '-gate', length)
            for _ in range(random.randrange(3)): os.sched_yield()
attacker = os.fork()
if attacker == 0: attack()
everybody(3, 100)
os.kill(attacker, signal.SIGKILL); os.waitpid(attacker, 0)
# And in the middle of a transaction that has its turn.
for begin in ('BEGIN', 'BEGIN IMMEDIATE'):
    c = connect()
    c.execute(begin)
    v = c.execute('SELECT v FROM t WHERE id = 1').fetchone()[0]
    os.truncate(db + '-gate', 0)
    c.execute('UPDATE t SET v = ? WHERE id = 1', (v + 1,))
    c.execute('COMMIT')
    assert value() == v + 1
everybody(2, 20)
assert place() == 'on'
",
    );
}

#[test]
fn a_side_file_that_is_replaced_or_removed_costs_the_order_alone() {
    attacked(
        r"
counter(); place()
def attack():
    while True:
        os.unlink(db + '-gate')
        try: os.symlink(db, db + '-gate')
        except FileExistsError: continue # somebody has made one meanwhile
        os.rename(db + '-gate', db + '-was')
        open(db + '-new', 'wb').write(os.urandom(size) if random.random() < 0.5 else magic + os.urandom(size))
        os.rename(db + '-new', db + '-gate')
attacker = os.fork()
if attacker == 0: attack()
try: everybody(3, 60)
finally: os.kill(attacker, signal.SIGKILL); os.waitpid(attacker, 0)
",
    );
}

#[test]
fn nonsense_written_to_the_side_file_all_the_time_refuses_nobody() {
    attacked(
        r"
counter(); place()
def attack(kind):
    fd = os.open(db + '-gate', os.O_RDWR)
    length = os.fstat(fd).st_size
    while True:
        if kind == 'all': os.pwrite(fd, os.urandom(length), 0)
        elif kind == 'header': os.pwrite(fd, os.urandom(4096), 0)
        elif kind == 'slots': os.pwrite(fd, os.urandom(128 * 256), 4096)
        else: # the turn is given to the first places, one after the other
            for slot in range(1, 9):
                os.pwrite(fd, bytes([slot, random.randrange(4)]), 64)
for kind in ('all', 'header', 'slots', 'turn'):
    attacker = os.fork()
    if attacker == 0: attack(kind)
    try: everybody(3, 60)
    finally: os.kill(attacker, signal.SIGKILL); os.waitpid(attacker, 0)
    everybody(2, 20) # what he left behind
",
    );
}

/// Places that are taken by somebody who never moves, with names that would harm a
/// terminal, under the pids of others.
#[test]
fn places_that_claim_to_be_others_keep_nobody_waiting_and_harm_nobody() {
    attacked(
        r"
import fcntl, gc, struct
counter(); place()
innocent = os.fork()
if innocent == 0:
    while True: signal.pause()
F_OFD_SETLK = 37
def claim(fd, slots):
    for slot in slots:
        lock = struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, (1 << 30) + slot, 1, 0)
        fcntl.fcntl(fd, F_OFD_SETLK, lock)
fd = os.open(db + '-gate', os.O_RDWR)
for few in (True, False):
    slots = range(100, 108) if few else range(100)
    gc.collect() # connections that Python keeps have our own places
    claim(fd, slots)
    for slot in slots:
        at = 4096 + slot * 256
        os.pwrite(fd, struct.pack('<IIQ', 0, 1, 1 + slot), at) # a generation, a ticket
        os.pwrite(fd, struct.pack('<II', (innocent, 1, os.getpid())[slot % 3], 0), at + 192)
        os.pwrite(fd, b'\x1b[2J\x07\xff' * 6 + b'end!', at + 208) # all of the name, without an end
        os.pwrite(fd, b'\x1b]0;x\x07' * 6, at + 80)
    os.pwrite(fd, b'\xff' * 16, 128) # all wait
    os.pwrite(fd, struct.pack('<Q', 7 << 32 | 1 << 16 | 2 << 8 | 101), 64) # and one has the turn
    if not few: # and no place is left
        claim(fd, [slot for slot in range(128) if not 100 <= slot < 108])
        assert place() == 'no place at the gate'
    everybody(3, 30)
os.close(fd)
assert os.waitpid(innocent, os.WNOHANG) == (0, 0)
os.kill(innocent, signal.SIGKILL); os.waitpid(innocent, 0)
assert place() == 'on'
",
    );
}
