//! The handler of SIGBUS that a shortened side file needs: for that file alone, and
//! beside what the host does with the signal.

use crate::common::python;

/// A database with a place at the gate.
const OPEN: &str = r"
import faulthandler, mmap
signal.alarm(120)
os.register_at_fork(after_in_child=lambda: signal.alarm(120))
def opens():
    c = connect(); add(c)
    assert c.execute('PRAGMA onepen').fetchone() == ('on',)
    return c
def in_child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert in_child(counter) == 0 # the handler comes with the first place at a gate
def shorten(c):
    os.truncate(db + '-gate', 0)
    add(c); add(c)
def touch_nothing():
    with open(db + '.other', 'wb') as f: f.truncate(8192)
    with open(db + '.other', 'r+b') as f: there = mmap.mmap(f.fileno(), 8192)
    os.truncate(db + '.other', 0)
    return there[5000]
";

fn signalled(program: &str) {
    python(&format!("{OPEN}{program}"), &[]);
}

#[test]
fn a_fault_of_the_hosts_own_ends_it_as_ever() {
    signalled(
        r"
def faults(): opens(); touch_nothing()
assert in_child(faults) == -signal.SIGBUS
def after_ours(): shorten(opens()); touch_nothing()
assert in_child(after_ours) == -signal.SIGBUS
def is_sent(): opens(); os.kill(os.getpid(), signal.SIGBUS); time.sleep(60)
assert in_child(is_sent) == -signal.SIGBUS
def ignores(): signal.signal(signal.SIGBUS, signal.SIG_IGN); opens(); os.kill(os.getpid(), signal.SIGBUS)
assert in_child(ignores) == 0
def ignores_in_vain(): signal.signal(signal.SIGBUS, signal.SIG_IGN); opens(); touch_nothing()
assert in_child(ignores_in_vain) == -signal.SIGBUS
",
    );
}

#[test]
fn the_hosts_handler_that_was_there_before_is_called_as_before() {
    signalled(
        r"
def hears():
    heard = []
    signal.signal(signal.SIGBUS, lambda number, frame: heard.append(number))
    shorten(opens())
    assert heard == [], 'ours are none of its business'
    os.kill(os.getpid(), signal.SIGBUS)
    assert heard == [signal.SIGBUS], heard
    os.kill(os.getpid(), signal.SIGBUS)
    assert len(heard) == 2
assert in_child(hears) == 0
# Python's own for crashes, with a stack of its own, which says what it saw and gives back.
def tells():
    said = open(db + '.said', 'wb')
    faulthandler.enable(said)
    shorten(opens())
    touch_nothing()
assert in_child(tells) == -signal.SIGBUS
said = open(db + '.said').read()
assert 'Bus error' in said and 'touch_nothing' in said, said
",
    );
}

#[test]
fn a_handler_that_the_host_installs_later_has_the_signal() {
    signalled(
        r"
def later():
    c = opens()
    heard = []
    signal.signal(signal.SIGBUS, lambda number, frame: heard.append(number))
    os.kill(os.getpid(), signal.SIGBUS)
    assert heard == [signal.SIGBUS]
    add(c)
assert in_child(later) == 0
",
    );
}
