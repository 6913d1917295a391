//! Programs that stand still where it is worst: SQLite's `fcntl` goes through a hook that
//! may wait on a pipe.

use crate::common::python;

/// `once(event, action)`: does something the next time that this process `lock`s SQLite's
/// write lock, has `locked` it, is `refused` it, or is about to `unlock` it or has
/// `unlocked` it. A `Gate` is something that one process waits for and another opens.
const HOOKED: &str = r#"
import atexit, ctypes, fcntl, gc
gc.disable() # in the hook SQLite's objects may be on their way out
sqlite, libc = ctypes.CDLL('libsqlite3.so.0'), ctypes.CDLL(None)
sqlite.sqlite3_libversion.restype = ctypes.c_char_p
assert sqlite.sqlite3_libversion().decode() == sqlite3.sqlite_version, 'not the library of this Python'
FCNTL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
libc.fcntl.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
actions = {}
def once(event, action): actions[event] = action
def happens(event): actions.pop(event, lambda: None)()
@FCNTL
def hooked(fd, command, at):
    if command != fcntl.F_SETLK or ctypes.c_int64.from_address(at + 8).value != 120:
        return libc.fcntl(fd, command, at)
    unlocks = ctypes.c_short.from_address(at).value == fcntl.F_UNLCK
    happens('unlock' if unlocks else 'lock')
    answer = libc.fcntl(fd, command, at)
    happens('refused' if answer else 'unlocked' if unlocks else 'locked')
    return answer
sqlite.sqlite3_vfs_find.restype = ctypes.c_void_p
unix = sqlite.sqlite3_vfs_find(b'unix')
SET = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
set_system_call = SET(ctypes.c_void_p.from_address(unix + 144).value)
set_system_call(unix, b'fcntl', ctypes.cast(hooked, ctypes.c_void_p))
atexit.register(set_system_call, unix, b'fcntl', None)
class Gate:
    def __init__(self): self.r, self.w = os.pipe()
    def open(self): os.write(self.w, b'.')
    def wait(self): os.read(self.r, 1)
def start(work):
    "In a process of its own; the answer to be waited for."
    r, w = os.pipe()
    if os.fork() == 0:
        libc.prctl(1, 9) # it ends with its parent, which may fail while this one waits
        try: answer = work()
        except BaseException as e: answer = repr(e)
        os.write(w, pickle.dumps(answer)); os._exit(0)
    os.close(w)
    def answer():
        said = pickle.loads(os.fdopen(r, 'rb').read())
        os.wait()
        return said
    return answer
def promised_for(seconds, scene):
    "Plays a scene again that took longer than what is promised in it."
    for _ in range(100):
        said, took = scene()
        if said == 'ok': return
        assert took >= seconds, (said, took)
    assert False, 'the machine is always too slow'
"#;

/// Reads in its turn, lets `within` happen, and writes what it read, plus one. Says how
/// long that took.
const READS_AND_WRITES: &str = "
def reads_and_writes(c, within):
    since = time.monotonic()
    try:
        c.execute('BEGIN')
        v = c.execute('SELECT v FROM t WHERE id = 1').fetchone()[0]
        within()
        c.execute('UPDATE t SET v = ? WHERE id = 1', (v + 1,))
        c.execute('COMMIT')
        return 'ok', 0
    except sqlite3.OperationalError as e:
        if c.in_transaction: c.execute('ROLLBACK')
        return str(e), time.monotonic() - since
";

/// Runs a program of such scenes.
pub fn scene(program: &str) {
    python(&format!("{HOOKED}{READS_AND_WRITES}{program}"), &[]);
}
