//! The program that is traced runs as it would without, and it is told what cannot
//! be traced.

use std::process::Command;

use crate::python::{Python, home};
use crate::{START, common, database, row, trace, writer};

#[test]
fn the_programs_output_and_status_are_its_own() {
    let (ran, report) = trace(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 7"]));
    assert_eq!(
        (ran.code, &*ran.stdout, &*ran.stderr),
        (7, "out\n", "err\n")
    );
    assert_eq!(
        (&report["calls"], &report["programs"]),
        (&0.into(), &1.into())
    );
    let (ran, _) = trace(Command::new("sh").args(["-c", "kill -9 $$"]));
    assert_eq!(ran.code, 137);
    let (ran, _) = trace(&mut Command::new("no-such-program"));
    assert_eq!(ran.code, 127, "{}", ran.stderr);
    let (_home, path) = home();
    std::fs::write(&path, "text").unwrap();
    let (ran, _) = trace(&mut Command::new(&path));
    assert_eq!(ran.code, 126, "{}", ran.stderr);
}

#[test]
fn a_static_program_is_recognised_and_not_run() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_home, path) = home();
    // A header and one program header, which loads: as a program, nothing.
    let mut bytes = vec![0; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (bytes[32], bytes[54], bytes[56], bytes[64]) = (64, 56, 1, 1);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (ran, _) = trace(&mut Command::new(&path));
    assert_eq!(ran.code, 125);
    assert!(ran.stderr.contains("linked statically"), "{}", ran.stderr);
}

#[test]
fn a_killed_process_leaves_what_it_had_noted() {
    let (_home, path) = home();
    database(&path, "wal");
    let _holder = writer(&path);
    let program = format!(
        "{START}
c = connect(0); refused(c, 'INSERT INTO t VALUES (1)')
signal.setitimer(signal.ITIMER_REAL, 0.3); signal.signal(signal.SIGALRM, signal.SIG_DFL)
connect(60).execute('INSERT INTO t VALUES (2)')
"
    );
    let (ran, report) = trace(Command::new("python3").args(["-c", &program]).arg(&path));
    assert_eq!(ran.code, 128 + 14, "{}", ran.stderr);
    assert_eq!(
        report["exit"],
        serde_json::json!({"code": 142, "signal": 14})
    );
    assert_eq!(row(&report, "no-timeout")["failed"], 1);
    let row = row(&report, "long-holder");
    assert_eq!(row["contended"], 1);
    assert!(row["total_ms"].as_f64().unwrap() > 50.0, "{row:#}");
}

/// errno, the result, and an LD_PRELOAD of the program's own are left alone.
#[test]
fn a_refused_lock_is_refused_as_it_would_be() {
    let (_home, path) = home();
    let shm = path.with_extension("db-shm");
    std::fs::write(&shm, [0; 200]).unwrap();
    let _holder = Python::at_gate(
        &shm,
        "f = open(path, 'r+'); fcntl.lockf(f, fcntl.LOCK_EX, 9, 120); gate()",
    );
    let program = "
import errno, fcntl, os, sys
f = open(sys.argv[1], 'r+')
for _ in range(100):
    try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 120)
    except OSError as e: assert e.errno in (errno.EAGAIN, errno.EACCES), e
    else: raise SystemExit('it was had')
fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1000); fcntl.lockf(f, fcntl.LOCK_UN, 1, 1000)
print(os.environ['LD_PRELOAD'].split(':')[1])
";
    let (ran, report) = trace(
        Command::new("python3")
            .args(["-c", program])
            .arg(&shm)
            .env("LD_PRELOAD", "libc.so.6"),
    );
    assert_eq!(
        (ran.code, &*ran.stdout),
        (0, "libc.so.6\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(report["failed"], 100, "{report:#}");
}

#[test]
fn the_text_has_a_table_a_fix_and_a_page() {
    let (_home, path) = home();
    database(&path, "wal");
    let _holder = writer(&path);
    let program = format!("{START}refused(connect(0), 'INSERT INTO t VALUES (1)')");
    let path = path.to_str().unwrap();
    let ran = common::onepen(&["trace", "--", "python3", "-c", &program, path]);
    assert_eq!((ran.code, &*ran.stdout), (0, "database is locked\n"));
    for part in [
        "1 contended, 1 failed",
        "contended   failed  total wait   max wait   avg wait  class",
        "no-timeout                python3",
        "in `INSERT INTO t VALUES (?)`, behind python3",
        "fix: set a busy timeout",
        "see: docs/guide/trace.md#no-timeout",
    ] {
        assert!(
            ran.stderr.contains(part),
            "`{part}` is missing: {}",
            ran.stderr
        );
    }
}
