//! Programs in the system's Python, with the SQLite of the system and the extension
//! loaded once before anything else.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::PathBuf;
use std::process::Command;

/// What every program of [`python`] begins with. `processes` and `threads` run `work(k)`
/// and answer what was answered; `counter` makes a database with one number in it.
const PRELUDE: &str = r#"
import os, pickle, random, signal, sqlite3, sys, threading, time
library, db = sys.argv[1], sys.argv[2]
loader = sqlite3.connect(':memory:')
loader.enable_load_extension(True)
loader.load_extension(library)
loader.close()
def connect(timeout=30, **more):
    return sqlite3.connect(db, timeout=timeout, isolation_level=None, **more)
def counter(journal='wal'):
    c = connect()
    c.execute(f'PRAGMA journal_mode={journal}')
    c.execute('CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER)')
    c.execute('INSERT INTO t VALUES(1, 0)')
    c.close()
def value():
    c = connect()
    assert c.execute('PRAGMA integrity_check').fetchone() == ('ok',)
    return c.execute('SELECT v FROM t WHERE id = 1').fetchone()[0]
def add(c, begin='BEGIN'):
    c.execute(begin)
    try:
        v = c.execute('SELECT v FROM t WHERE id = 1').fetchone()[0]
        c.execute('UPDATE t SET v = ? WHERE id = 1', (v + 1,))
        c.execute('COMMIT')
    except BaseException:
        if c.in_transaction: c.execute('ROLLBACK')
        raise
def processes(count, work):
    pipes = []
    for k in range(count):
        r, w = os.pipe()
        if os.fork() == 0:
            os.close(r)
            try: answer = work(k)
            except BaseException as e: answer = repr(e)
            with os.fdopen(w, 'wb') as said: said.write(pickle.dumps((answer, slow, refused)))
            os._exit(0)
        os.close(w); pipes.append(r)
    said = [pickle.loads(os.fdopen(r, 'rb').read()) for r in pipes]
    for _ in pipes: os.wait()
    for one in said: slow.extend(one[1]); refused.extend(one[2])
    return [one[0] for one in said]
def threads(count, work):
    answers = [None] * count
    def run(k):
        try: answers[k] = work(k)
        except BaseException as e: answers[k] = repr(e)
    all = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for t in all: t.start()
    for t in all: t.join()
    return answers
def all_ok(answers):
    assert all(a == 'ok' for a in answers), answers
    for since, until in refused:
        assert any(s < until and since < u for s, u in slow), (since, until, slow)
slow, refused = [], []
def promised(transaction, time_to_read=0.2):
    # What is promised to it is promised for a time, to it and to those beside it. Only a
    # machine that was slower than that excuses a refusal: `all_ok` sees to it.
    while True:
        since = time.monotonic()
        try: return transaction()
        except sqlite3.OperationalError as e:
            if str(e) != 'database is locked': raise
            refused.append((since, time.monotonic()))
        finally:
            if time.monotonic() - since >= time_to_read: slow.append((since, time.monotonic()))
"#;

/// Runs the program, with the library loaded and the path of a new database.
pub fn python(program: &str, environment: &[(&str, &str)]) {
    plain_python(&format!("{PRELUDE}{program}"), environment);
}

/// The same without the library: it is the program's first argument, and the database
/// the second.
pub fn plain_python(program: &str, environment: &[(&str, &str)]) {
    let mut library = std::env::current_exe().unwrap();
    library.set_file_name("libonepen_vfs.so");
    if !library.is_file() {
        // Cargo puts it beside the tests or one directory above.
        library = library.parent().unwrap().with_file_name("libonepen_vfs.so");
    }
    assert!(
        library.is_file(),
        "{} is built with the tests",
        library.display()
    );
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(interpreter())
        .args(["-c", program])
        .arg(&library)
        .arg(dir.path().join("app.db"))
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn interpreter() -> PathBuf {
    // The system's: others are often built without `enable_load_extension`.
    std::env::var_os("ONEPEN_TEST_PYTHON").map_or_else(|| "/usr/bin/python3".into(), PathBuf::from)
}
