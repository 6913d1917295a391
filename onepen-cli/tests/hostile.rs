//! Names, files and neighbours that mean harm: what is shown of them stays where it
//! is printed, nothing is waited for that never answers, and nothing panics.

#![cfg(target_os = "linux")]

mod common;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::Ran;
use rusqlite::Connection;

/// No command takes longer over a file that it cannot use, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the command in `dir`, and ends it when it hangs.
fn run(dir: &Path, arguments: &[&OsStr]) -> Ran {
    let said = |name: &str| fs::File::create(dir.join(name)).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_onepen"))
        .current_dir(dir)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(said("stdout"))
        .stderr(said("stderr"))
        .spawn()
        .unwrap();
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if since.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{arguments:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5)); // between two looks
    };
    let heard = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let ran = Ran {
        code: status.code().expect("it ended by itself"),
        stdout: heard("stdout"),
        stderr: heard("stderr"),
    };
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran
}

/// Each command that is given a database, with as little to do as it can have.
fn commands(database: &OsStr) -> Vec<Vec<&OsStr>> {
    let words = |words: &'static str| words.split(' ').map(OsStr::new);
    let mut commands: Vec<Vec<&OsStr>> = Vec::new();
    for (before, after) in [
        ("doctor", "--for 500ms"),
        ("top", "--once --interval 10ms"),
        ("checkpoint", "--wait 0s"),
        ("backup", "copy.db --force"),
        (
            "bench --script write.sql --ways wal+timeout --rounds 1 --duration 10ms --threads 1 --db",
            "--durability normal",
        ),
    ] {
        let command = words(before).chain([database]).chain(words(after));
        commands.push(command.collect());
    }
    commands
}

fn database(at: &Path) -> Connection {
    let connection = Connection::open(at).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(n); INSERT INTO t VALUES (1)")
        .unwrap();
    connection
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("write.sql"), "INSERT INTO t VALUES (2);").unwrap();
    home
}

/// Nothing in it moves a cursor.
fn is_harmless(ran: &Ran) {
    for text in [&ran.stdout, &ran.stderr] {
        let hostile = |c: char| c != '\n' && !onepen_lock::text::shows_as_itself(c);
        assert!(!text.contains(hostile), "{text:?}");
    }
}

/// Whether a part of a name passes for a line of ours.
fn is_forged(ran: &Ran, line: &str) -> bool {
    [&ran.stdout, &ran.stderr]
        .iter()
        .any(|text| text.lines().any(|it| it == line))
}

#[test]
fn a_name_stays_in_its_line_whatever_is_in_it() {
    let home = home();
    let name = "a\u{1b}[31m\u{1b}]0;title\u{7}\u{202e}\nnothing found\nz.db";
    drop(database(&home.path().join("plain.db")));
    fs::rename(home.path().join("plain.db"), home.path().join(name)).unwrap();
    for command in commands(OsStr::new(name)) {
        let ran = run(home.path(), &command);
        assert_eq!(ran.code, 0, "{command:?}: {}", ran.stderr);
        // `doctor` says that of itself.
        let forged = if command[0] == "doctor" {
            "z.db"
        } else {
            "nothing found"
        };
        is_harmless(&ran);
        assert!(
            !is_forged(&ran, forged),
            "{command:?}: {}{}",
            ran.stdout,
            ran.stderr
        );
    }
    fs::remove_file(home.path().join(name)).unwrap();
    for command in commands(OsStr::new(name)) {
        let ran = run(home.path(), &command);
        assert_eq!(ran.code, 2, "{command:?}: {}", ran.stderr);
        is_harmless(&ran);
        assert!(
            !is_forged(&ran, "nothing found"),
            "{command:?}: {}",
            ran.stderr
        );
    }
}

#[test]
fn a_name_is_a_path_and_neither_a_uri_nor_unicode() {
    let home = home();
    let names: [&[u8]; 4] = [
        b"file:x?mode=memory&vfs=none",
        b"file:y?immutable=1#z",
        b"per%20cent?.db",
        b"not-\xff-unicode.db",
    ];
    for name in names {
        let name = OsString::from(OsStr::from_bytes(name));
        let path = home.path().join(&name);
        // Open, with its newest row in the log; and at rest, without a log.
        let open = database(&path);
        for connection in [Some(open), None] {
            for command in commands(&name) {
                let ran = run(home.path(), &command);
                assert_eq!(ran.code, 0, "{command:?}: {}{}", ran.stdout, ran.stderr);
            }
            let copy = Connection::open(home.path().join("copy.db")).unwrap();
            let rows: i64 = copy
                .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
                .unwrap();
            assert_eq!(rows, 1, "{name:?}");
            drop(connection);
        }
    }
}

#[test]
fn what_can_be_no_database_is_refused_at_once_and_by_every_command() {
    let home = home();
    let at = |name: &str| home.path().join(name);
    fs::create_dir(at("directory.db")).unwrap();
    let made = Command::new("mkfifo").arg(at("pipe.db")).status().unwrap();
    assert!(made.success());
    fs::write(at("text.db"), "these are words, and no pages\n".repeat(99)).unwrap();
    std::os::unix::fs::symlink("round.db", at("round.db")).unwrap();
    for (name, part) in [
        ("directory.db", "is a directory; name a file in it"),
        ("pipe.db", "pipe"),
        ("text.db", "not a"),
        ("round.db", "symbolic links"),
        ("nothing.db", ""),
    ] {
        for command in commands(OsStr::new(name)) {
            let ran = run(home.path(), &command);
            let said = format!("{command:?}: {}{}", ran.stdout, ran.stderr);
            assert_eq!(ran.code, 2, "{said}");
            assert!(ran.stderr.contains(name), "{said}");
            assert!(ran.stderr.contains(part), "{said}");
        }
        assert!(!at("copy.db").exists());
    }
}

#[test]
fn what_a_schema_calls_is_not_run_and_a_damaged_file_is_no_copy() {
    let home = home();
    let hostile = database(&home.path().join("hostile.db"));
    hostile
        .execute_batch(
            "CREATE VIEW v AS SELECT load_extension('/nothing/evil.so');
             CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT load_extension('/nothing/evil.so'); END",
        )
        .unwrap();
    drop(hostile);
    let path = home.path().join("damaged.db");
    let damaged = Connection::open(&path).unwrap();
    damaged
        .execute_batch(
            "CREATE TABLE t(n); CREATE INDEX i ON t(n);
             WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 5000)
             INSERT INTO t SELECT n FROM c",
        )
        .unwrap();
    drop(damaged);
    let mut bytes = fs::read(&path).unwrap();
    (5000..bytes.len())
        .step_by(97)
        .for_each(|at| bytes[at] ^= 0xff);
    fs::write(&path, bytes).unwrap();
    let mut header = fs::read(home.path().join("hostile.db")).unwrap();
    header[16..18].copy_from_slice(&[0, 3]); // bytes in a page
    header[28..32].copy_from_slice(&[0xff; 4]); // pages
    fs::write(home.path().join("header.db"), header).unwrap();

    for (name, [looks, backup, bench]) in [
        ("hostile.db", [0, 0, 2]),
        ("damaged.db", [1, 1, 0]),
        ("header.db", [0, 2, 2]),
    ] {
        for command in commands(OsStr::new(name)) {
            let ran = run(home.path(), &command);
            let expected = match command[0].to_str() {
                Some("doctor") => looks,
                Some("backup") => backup,
                Some("bench") => bench,
                Some("checkpoint") if name == "header.db" => 2,
                _ => 0,
            };
            let said = format!("{command:?}: {}{}", ran.stdout, ran.stderr);
            assert_eq!(ran.code, expected, "{said}");
            is_harmless(&ran);
        }
        let copied = fs::remove_file(home.path().join("copy.db")).is_ok();
        assert_eq!(copied, backup == 0, "{name}");
    }
}

/// Whoever may write the database may write what stands beside it.
#[test]
fn whatever_stands_in_the_files_beside_a_database_can_be_looked_at() {
    let home = home();
    let path = home.path().join("app.db");
    let connection = database(&path);
    let _gate = onepen_lock::gate::Gate::join(&path, "honest").unwrap();
    let beside = |ending: &str| {
        let name = home.path().join(format!("app.db{ending}"));
        fs::File::options().write(true).open(name).unwrap()
    };
    let original = fs::read(home.path().join("app.db-shm")).unwrap();
    let (gate, over) = (beside("-gate"), AtomicBool::new(false));
    let length = gate.metadata().unwrap().len();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 1_u64;
            while !over.load(Relaxed) {
                // All but the first word, by which it is known for a gate.
                let bytes: Vec<u8> = (8..length)
                    .map(|_| {
                        random = random
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        [(random >> 56) as u8, 0xff, 0, 0x1b][(random >> 33) as usize % 4]
                    })
                    .collect();
                gate.write_all_at(&bytes, 8).unwrap();
            }
        });
        let ended = std::panic::catch_unwind(|| {
            for command in [
                "top app.db --once --interval 10ms",
                "top app.db --once --json --interval 10ms",
                "doctor app.db --for 500ms",
            ] {
                for _ in 0..5 {
                    let command: Vec<_> = command.split(' ').map(OsStr::new).collect();
                    let ran = run(home.path(), &command);
                    assert!(ran.code < 2, "{command:?}: {}", ran.stderr);
                    is_harmless(&ran);
                }
            }
        });
        over.store(true, Relaxed);
        ended.unwrap();
    });
    assert_eq!(fs::read(home.path().join("app.db-shm")).unwrap(), original);
    drop(connection);
}
