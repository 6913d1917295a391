//! Rights that are missing, for a program that wants to write. (For one that only
//! reads: `read_only.rs`.)

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use onepen::{Database, Options, Outcome};

use crate::common::{child, in_child};

/// Who has no rights at all.
const NOBODY: u32 = 65534;

fn set(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Says how opening for writing went, and does not write.
#[test]
fn one_without_rights() {
    let Some(path) = in_child() else {
        return;
    };
    let wait = Duration::from_millis(500);
    match Options::new().wait(wait).open(&path) {
        Err(error) => println!("\n> opening: {:?} {error}", error.kind()),
        Ok(db) => match db.execute("INSERT INTO t VALUES (2)", ()) {
            Err(error) => {
                assert_eq!(error.outcome(), Outcome::NotCommitted);
                println!("\n> writing: {:?} {error}", error.kind());
            }
            Ok(_) => println!("\n> written"),
        },
    }
}

fn answer(path: &Path) -> String {
    let mut command = child("rights::one_without_rights", path);
    // SAFETY: a system call without memory. Root is nobody's nobody.
    let nobody = (unsafe { libc::geteuid() } == 0).then(|| {
        // A checkout may lie where only its owner may go, and this program in it.
        let program = tempfile::Builder::new().tempfile_in("/tmp").unwrap();
        std::fs::copy(command.get_program(), program.path()).unwrap();
        set(program.path(), 0o755);
        program.into_temp_path()
    });
    if let Some(program) = &nobody {
        let mut its = Command::new(program);
        its.args(command.get_args()).uid(NOBODY).gid(NOBODY);
        its.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        command = its;
    }
    // A program that another test starts has the file open for writing until it runs.
    let ran = loop {
        match command.output() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                std::thread::yield_now();
            }
            ran => break ran.unwrap(),
        }
    };
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let said = said.lines().find_map(|line| line.strip_prefix("> "));
    said.unwrap_or_else(|| panic!("{ran:?}")).to_owned()
}

#[test]
fn who_may_not_write_is_told_at_opening_and_why() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let path = dir.path().join("a.db");
    // Whoever runs this program must be able to see it.
    set(dir.path(), 0o777);
    let db = Database::open(&path).unwrap();
    db.execute("CREATE TABLE t(n)", ()).unwrap();
    drop(db);
    // The file.
    set(&path, 0o444);
    let said = answer(&path);
    assert!(said.starts_with("opening: Sqlite"), "{said}");
    assert!(
        said.contains("reading only") && said.contains("Options::read_only"),
        "{said}"
    );
    set(&path, 0o000);
    let said = answer(&path);
    assert!(said.contains("may not read the database file"), "{said}");
    // The directory: no log can be made.
    set(&path, 0o666);
    set(dir.path(), 0o555);
    let said = answer(&path);
    assert!(said.starts_with("opening: "), "{said}");
    assert!(
        said.contains("may not make files in the directory"),
        "{said}"
    );
    // Neither: nothing has changed, and whoever may write still can.
    set(dir.path(), 0o777);
    assert_eq!(answer(&path), "written");
    let db = Database::open(&path).unwrap();
    let rows: i64 = db
        .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1);
}
