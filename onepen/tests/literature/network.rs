//! A network file system, as far as one machine can have one: a directory that is
//! mounted twice through `bindfs`. The two mounts are two machines to the kernel;
//! the file system does not carry locks from one to the other, as NFS without its
//! lock service does not. Skipped, and said so, where it cannot be mounted.

use std::path::{Path, PathBuf};
use std::process::Command;

use onepen::{Database, ErrorKind, Options};
use rusqlite::Connection;

use super::{number, run};

/// One directory, seen by two machines.
struct Network {
    server: tempfile::TempDir,
    mounted: Vec<PathBuf>,
}

impl Network {
    fn new() -> Option<Self> {
        let server = tempfile::tempdir().unwrap();
        let mut network = Self {
            server,
            mounted: Vec::new(),
        };
        for machine in ["one", "two"] {
            match network.mount(machine) {
                Ok(path) => network.mounted.push(path),
                Err(why) => {
                    let said = format!("SKIPPED: no network file system was tried: {why}\n");
                    // Past the harness, which swallows what a passing test prints.
                    let _ = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
                    return None;
                }
            }
        }
        Some(network)
    }

    fn mount(&self, machine: &str) -> Result<PathBuf, String> {
        let (files, at) = (
            self.server.path().join("files"),
            self.server.path().join(machine),
        );
        std::fs::create_dir_all(&files).unwrap();
        std::fs::create_dir(&at).unwrap();
        let made = Command::new("bindfs").arg(&files).arg(&at).output();
        let made = made.map_err(|error| format!("bindfs: {error}"))?;
        if made.status.success() {
            Ok(at)
        } else {
            Err(String::from_utf8_lossy(&made.stderr).into_owned())
        }
    }

    fn path(&self, machine: usize) -> PathBuf {
        self.mounted[machine].join("a.db")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for at in &self.mounted {
            unmount(at);
        }
    }
}

fn unmount(at: &Path) {
    let fuse = Command::new("fusermount")
        .args(["-u", "-z"])
        .arg(at)
        .output();
    if !fuse.is_ok_and(|done| done.status.success()) {
        let _ = Command::new("umount").arg("-l").arg(at).output();
    }
}

#[test]
fn without_locks_between_machines_both_write_and_an_update_is_lost() {
    let Some(network) = Network::new() else {
        return;
    };
    let one = Connection::open(network.path(0)).unwrap();
    run(&one, "CREATE TABLE a(n); INSERT INTO a VALUES (1)");
    let two = Connection::open(network.path(1)).unwrap();
    run(&one, "BEGIN IMMEDIATE");
    // On one machine this is SQLITE_BUSY.
    run(&two, "BEGIN IMMEDIATE");
    for (machine, more) in [(&one, 10), (&two, 100)] {
        let n = number(machine, "SELECT n FROM a");
        run(machine, &format!("UPDATE a SET n = {}", n + more));
    }
    run(&one, "COMMIT");
    // Their journals are one file as well: where the first has removed it, this is
    // an I/O error after the pages were written.
    let _ = two.execute_batch("COMMIT");
    drop((one, two));
    let after = Connection::open(network.server.path().join("files/a.db")).unwrap();
    let n = number(&after, "SELECT n FROM a");
    assert!(n == 11 || n == 101, "one of the two is gone, not {n}");
}

#[test]
fn such_a_file_system_is_refused_by_its_name_unless_it_was_accepted() {
    let Some(network) = Network::new() else {
        return;
    };
    let error = Database::open(network.path(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("fuse") && text.contains("any_file_system"),
        "{text}"
    );
    assert!(!network.path(0).exists(), "nothing was made");
    let accepted = Options::new().any_file_system(true).open(network.path(0));
    accepted.unwrap().execute("CREATE TABLE a(n)", ()).unwrap();
}
