//! Who holds which lock, of real processes with Python's SQLite.

#![cfg(target_os = "linux")]

mod common;

use std::os::unix::fs::symlink;
use std::path::Path;

use common::{Python, READ, ROLLBACK, WAL, home};
use onepen_lock::holders::{Activity, Cannot, Held, Lock, Look, State, look};
use tempfile::TempDir;

fn seen(path: &Path) -> Look {
    let look = look(path).expect("a look");
    assert_eq!(look.unseen, [], "{look:?}");
    look
}

fn held_by(path: &Path, process: &Python) -> Held {
    let look = seen(path);
    let mut theirs = look.holders.into_iter().filter(|holder| {
        holder
            .process
            .as_ref()
            .is_some_and(|found| found.pid == process.pid())
    });
    let held = theirs.next().map(|holder| holder.held).unwrap_or_default();
    assert!(theirs.next().is_none(), "a process is listed once");
    held
}

#[test]
fn the_five_states_of_the_rollback_journal_are_told_apart() {
    let (_home, path) = home();
    let program = format!(
        "{ROLLBACK}
gate()
c.execute('BEGIN'); c.execute('SELECT * FROM t').fetchall()
gate()
c.execute('INSERT INTO t VALUES (2)')
gate()
other = connect(); other.execute('BEGIN'); r = other.execute('SELECT * FROM t'); r.fetchone()
try: c.execute('COMMIT')
except sqlite3.OperationalError: pass
gate()
r.close(); other.close()
c.execute('ROLLBACK')
c.execute('BEGIN EXCLUSIVE')
gate()
c.execute('COMMIT')
gate()
gate('end')
"
    );
    let mut python = Python::at_gate(&path, &program);
    for state in [
        State::Unlocked,
        State::Shared,
        State::Reserved,
        State::Pending,
        State::Exclusive,
        State::Unlocked,
    ] {
        let held = held_by(&path, &python);
        assert_eq!(held.state, state);
        assert_eq!(held.writes(), state >= State::Reserved);
        assert_eq!(held.reads(), state == State::Shared);
        assert!(held.locks.is_empty() && !held.in_wal);
        if let Some(holder) = seen(&path).holders.first() {
            assert!(holder.to_string().ends_with(&format!("has {state}")));
        }
        python.go_on();
    }
}

#[test]
fn writers_readers_and_those_who_are_just_there_are_named() {
    let (_home, path) = home();
    let mut writer = Python::at_gate(
        &path,
        &format!(
            "{WAL}
c.execute('BEGIN IMMEDIATE'); c.execute('INSERT INTO t VALUES (2)')
gate()
c.execute('COMMIT')
gate()
"
        ),
    );
    let reader = Python::at_gate(&path, READ);
    let idle = Python::at_gate(
        &path,
        "c = connect(); c.execute('SELECT * FROM t').fetchall(); gate()",
    );

    let look = seen(&path);
    assert_eq!(look.holders.len(), 3, "{look:?}");
    let named = look.writer().expect("somebody writes");
    let process = named.process.as_ref().expect("it is seen");
    assert_eq!(process.pid, writer.pid());
    assert_eq!(process.activity, Activity::Sleeping);
    assert!(process.command.starts_with("python3"), "{process}");
    assert!(named.held.locks.contains(&Lock::Writer));
    assert_eq!(named.held.state, State::Shared);
    assert!(named.to_string().contains("has WRITER, READ"), "{named}");
    assert!(!named.is_this_process());

    let held = held_by(&path, &reader);
    assert!(held.reads() && !held.writes() && held.in_wal);
    assert!(matches!(held.locks[..], [Lock::Read(mark)] if mark <= 4));
    assert_eq!(look.readers().count(), 2, "the writer reads as well");

    let held = held_by(&path, &idle);
    assert!(held.is_idle() && held.in_wal);
    assert_eq!(held.to_string(), "it open, no transaction");

    writer.go_on();
    assert!(seen(&path).writer().is_none());
}

#[test]
fn checkpointer_recovery_and_each_read_mark_have_their_names() {
    let (_home, path) = home();
    let _open = Python::at_gate(&path, &format!("{WAL}\ngate()"));
    for (byte, kind, lock) in [
        (121, "LOCK_EX", Lock::Checkpointer),
        (122, "LOCK_EX", Lock::Recovery),
        (123, "LOCK_SH", Lock::Read(0)),
        (124, "LOCK_SH", Lock::Read(1)),
        (125, "LOCK_SH", Lock::Read(2)),
        (126, "LOCK_SH", Lock::Read(3)),
        (127, "LOCK_SH", Lock::Read(4)),
        (127, "LOCK_EX", Lock::Mark(4)),
    ] {
        // SQLite holds the first two for an instant, so a process that holds
        // nothing but the byte stands in.
        let holder = Python::at_gate(
            &path,
            &format!(
                "f = open(path + '-shm', 'r+b'); fcntl.lockf(f, fcntl.{kind}, 1, {byte}); gate()"
            ),
        );
        assert_eq!(held_by(&path, &holder).locks, [lock]);
    }
}

/// Locks bytes through an open file description, as some VFSs do.
const OFD: &str = "
def ofd(file, kind, start, length):
    fcntl.fcntl(file, 37, struct.pack('hhqqi4x', kind, 0, start, length, 0))
f = open(path + '-shm', 'r+b')
";

#[test]
fn locks_of_open_file_descriptions_have_their_process() {
    let (_home, path) = home();
    let _open = Python::at_gate(&path, &format!("{WAL}\ngate()"));
    let holder = Python::at_gate(
        &path,
        &format!("{OFD}\nofd(f, fcntl.F_WRLCK, 120, 1); ofd(f, fcntl.F_RDLCK, 125, 1); gate()"),
    );
    let look = seen(&path);
    let writer = look.writer().expect("a writer");
    assert_eq!(
        writer.process.as_ref().map(|found| found.pid),
        Some(holder.pid())
    );
    assert_eq!(writer.held.locks, [Lock::Writer, Lock::Read(2)]);
    assert!(writer.held.by_description);
    assert_eq!(look.holders.len(), 2, "{look:?}");
}

#[test]
fn a_description_shared_after_a_fork_is_held_by_both() {
    let (_home, path) = home();
    let _open = Python::at_gate(&path, &format!("{WAL}\ngate()"));
    let mut parent = Python::at_gate(
        &path,
        &format!(
            "{OFD}
ofd(f, fcntl.F_WRLCK, 120, 1)
pipe = fork()
gate()
"
        ),
    );
    parent.hears(); // both of them said so
    let writers = seen(&path)
        .holders
        .into_iter()
        .filter(|holder| holder.held.writes());
    let pids: Vec<_> = writers.map(|holder| holder.process.unwrap().pid).collect();
    assert_eq!(pids.len(), 2);
    assert!(pids.contains(&parent.pid()));
}

#[test]
fn a_stopped_holder_is_seen_to_be_stopped() {
    let (_home, path) = home();
    let holder = Python::at_gate(
        &path,
        &format!("{WAL}\nc.execute('BEGIN IMMEDIATE'); gate()"),
    );
    holder.signal("STOP");
    // The signal was sent, and arrives when the kernel gets to it.
    let stopped = || {
        let look = seen(&path);
        look.writer()
            .unwrap()
            .process
            .as_ref()
            .unwrap()
            .activity
            .is_stopped()
    };
    while !stopped() {
        std::thread::yield_now();
    }
    let text = seen(&path).writer().unwrap().to_string();
    assert!(
        text.contains(&format!("(pid {}, stopped)", holder.pid())),
        "{text}"
    );
}

#[test]
fn a_database_is_found_through_links_and_whatever_its_name() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("a b\u{e9}\n.db");
    let link = home.path().join("link.db");
    symlink(&path, &link).unwrap();
    let holder = Python::at_gate(
        &link,
        &format!("{WAL}\nc.execute('BEGIN IMMEDIATE'); gate()"),
    );
    for name in [&path, &link] {
        let look = seen(name);
        let writer = look.writer().expect("by either name");
        assert_eq!(writer.process.as_ref().unwrap().pid, holder.pid());
    }
}

#[test]
fn looking_does_not_drop_the_locks_of_the_process_that_looks() {
    let (_home, path) = home();
    std::fs::write(&path, "").unwrap();
    let shared_memory = path.with_extension("db-shm");
    std::fs::write(&shared_memory, "").unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(&shared_memory)
        .unwrap();
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    // The whole file: every lock at once, ours.
    for _ in 0..3 {
        let look = seen(&path);
        let ours = look.writer().expect("our lock is still there");
        assert!(ours.is_this_process());
        assert_eq!(ours.held.locks.len(), 8);
    }
}

#[test]
fn nobody_there_and_no_database_are_different_answers() {
    let (home, path) = home();
    assert!(matches!(look(&path), Err(Cannot::Database(..))));
    let error = look(home.path()).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    std::fs::write(&path, "").unwrap();
    assert_eq!(seen(&path), Look::default());
}

/// The kernel hands out its list in pieces; whoever is read about late may be
/// passed over when others let go meanwhile.
#[test]
fn a_holder_is_seen_at_every_look_however_many_others_come_and_go() {
    let (_home, path) = home();
    let holder = Python::at_gate(
        &path,
        &format!("{WAL}\nc.execute('BEGIN IMMEDIATE'); gate()"),
    );
    let (_others, other) = home();
    let _others = Python::at_gate(
        &other,
        "
f = open(path, 'w+b')
print('here', flush=True)
while True:
    for n in range(100): fcntl.lockf(f, fcntl.LOCK_EX, 1, 2 * n)
    fcntl.lockf(f, fcntl.LOCK_UN, 200, 0)
",
    );
    for _ in 0..500 {
        assert!(held_by(&path, &holder).writes());
    }
}
