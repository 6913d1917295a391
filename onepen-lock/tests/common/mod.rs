//! Strangers: real processes with Python's own SQLite.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

/// A directory, and the name of a database in it.
pub fn home() -> (TempDir, PathBuf) {
    let home = TempDir::new().expect("a directory");
    let path = home.path().join("app.db");
    (home, path)
}

/// A connection `c`, and a table over a log …
pub const WAL: &str = "
c = connect()
c.execute('PRAGMA journal_mode=WAL')
c.execute('CREATE TABLE IF NOT EXISTS t(n)')
c.execute('INSERT INTO t VALUES (1)')
";

/// … or over a rollback journal.
pub const ROLLBACK: &str = "
c = connect()
c.execute('CREATE TABLE IF NOT EXISTS t(n)')
c.execute('INSERT INTO t VALUES (1)')
";

/// Somebody in a read transaction of that table.
pub const READ: &str = "
c = connect()
c.execute('BEGIN')
c.execute('SELECT * FROM t').fetchall()
gate()
";

/// A Python program that goes on line by line, when it is told to.
pub struct Python {
    child: Child,
    tell: Option<ChildStdin>,
    hear: BufReader<ChildStdout>,
}

/// What every such program can use.
const PRELUDE: &str = "
import fcntl, os, signal, sqlite3, struct, sys, threading, time
path = sys.argv[1]
def gate(word='here'):
    print(word, flush=True)
    if not sys.stdin.readline(): sys.exit(0)
def fork(work=lambda: None):
    # The child ends with its parent, whatever ends that.
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.close(theirs); work(); print('here', flush=True); os.read(ours, 1); os._exit(0)
    return theirs
def connect(**more):
    return sqlite3.connect(path, isolation_level=None, timeout=0, **more)
";

impl Python {
    /// Runs `program` and waits until it calls `gate()` for the first time.
    pub fn at_gate(database: &Path, program: &str) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", &format!("{PRELUDE}{program}")])
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed");
        let mut this = Self {
            tell: child.stdin.take(),
            hear: BufReader::new(child.stdout.take().expect("its output is a pipe")),
            child,
        };
        this.hears();
        this
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it go on to its next gate.
    pub fn go_on(&mut self) {
        let pipe = self.tell.as_mut().expect("it was not ended");
        pipe.write_all(b"\n").expect("it listens");
        self.hears();
    }

    /// Lets it go on and does not wait.
    pub fn let_go(&mut self) {
        let pipe = self.tell.as_mut().expect("it was not ended");
        pipe.write_all(b"\n").expect("it listens");
    }

    pub fn hears(&mut self) -> String {
        let mut line = String::new();
        self.hear.read_line(&mut line).expect("it says something");
        assert!(!line.is_empty(), "the Python program ended too early");
        line.trim_end().to_owned()
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([format!("-{signal}"), self.pid().to_string()])
            .status()
            .expect("kill is installed");
        assert!(sent.success());
    }

    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
