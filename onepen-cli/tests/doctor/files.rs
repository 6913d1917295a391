//! Files that are wrong, or that a crash left.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::common::Ran;
use crate::python::{Python, ROLLBACK, WAL, home};
use crate::{doctor, finding, is_about, may, names, says};

#[test]
fn files_deleted_under_a_running_process_are_found() {
    let (_home, path) = home();
    let user = Python::at_gate(&path, &format!("{WAL}\ngate()"));
    let log = path.with_extension("db-wal");
    fs::remove_file(&log).unwrap();
    let found = finding(&doctor(&path), "deleted-in-use");
    is_about(&found, &user);
    says(&found, &[log.to_str().unwrap(), "was deleted"]);
}

#[test]
fn a_rollback_journal_is_a_finding_and_an_empty_file_is_none() {
    let (_home, path) = home();
    fs::write(&path, "").unwrap();
    assert_eq!(doctor(&path).code, 0);
    let _user = Python::at_gate(&path, &format!("{ROLLBACK}\ngate()"));
    let ran = doctor(&path);
    finding(&ran, "journal-mode");
    assert_eq!(names(&ran), ["journal-mode"]);
}

#[test]
fn a_journal_left_by_a_crash_is_found_and_not_while_its_writer_lives() {
    let (_home, path) = home();
    let writer = Python::at_gate(
        &path,
        &format!(
            "{ROLLBACK}
c.execute('INSERT INTO t VALUES (zeroblob(1000000))')
c.execute('PRAGMA cache_size=1'); c.execute('BEGIN')
c.execute('UPDATE t SET n = zeroblob(1000001)'); gate()"
        ),
    );
    assert!(!names(&doctor(&path)).contains(&"leftover-journal".to_owned()));
    writer.kill();
    let found = finding(&doctor(&path), "leftover-journal");
    says(&found, &["unfinished transaction", "nobody who writes"]);
}

#[test]
fn hard_links_are_found() {
    let (home, path) = home();
    drop(Python::at_gate(&path, &format!("{WAL}\ngate()")));
    fs::hard_link(&path, home.path().join("other.db")).unwrap();
    says(&finding(&doctor(&path), "hard-links"), &["2 names"]);
}

#[test]
fn permissions_that_keep_somebody_out_are_found() {
    let (_home, path) = home();
    let _user = Python::at_gate(&path, &format!("{WAL}\ngate()"));
    let mode = |file: &Path, mode| {
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&path, 0o664);
    mode(&path.with_extension("db-shm"), 0o664);
    mode(&path.with_extension("db-wal"), 0o600);
    let found = finding(&doctor(&path), "permissions");
    says(&found, &["-wal has mode 600, the database 664"]);
    mode(&path.with_extension("db-wal"), 0o664);
    assert!(!names(&doctor(&path)).contains(&"permissions".to_owned()));
    mode(&path, 0o666);
    says(
        &finding(&doctor(&path), "permissions"),
        &["everybody may write"],
    );
}

#[test]
fn an_overlay_is_found() {
    let mount = "mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m";
    let (home, path) = home();
    let tmpfs = format!(
        "mount -t tmpfs tmpfs {0} && cd {0} && mkdir l u w m",
        home.path().display()
    );
    if !may(&format!("unshare -m sh -c '{tmpfs} && {mount}'")) {
        return;
    }
    let home = home.path().display();
    let tool = env!("CARGO_BIN_EXE_onepen");
    let inside = format!(
        "{tmpfs} && {mount} && touch m/app.db && {tool} doctor m/app.db --for 500ms --json"
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &inside])
        .output()
        .unwrap();
    let ran = Ran::from(output);
    says(&finding(&ran, "file-system"), &["overlay"]);
    assert!(!path.exists(), "{home}: it was mounted for them alone");
}
