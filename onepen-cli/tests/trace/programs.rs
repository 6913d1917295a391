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
    // One that comes later than half a millisecond, on a machine that is busy, is
    // taken for a retry of the one before.
    let failed = report["failed"].as_u64().unwrap();
    assert!((1..=100).contains(&failed), "{report:#}");
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

/// Of what cannot be run as it is: why, and an exit status of its own.
#[test]
fn set_id_programs_are_recognised_and_not_run() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_home, path) = home();
    std::fs::write(&path, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o2755)).unwrap();
    let (ran, _) = trace(&mut Command::new(&path));
    assert_eq!(ran.code, 125);
    assert!(ran.stderr.contains("(set-id)"), "{}", ran.stderr);
}

#[test]
fn a_program_that_closes_every_descriptor_is_seen_all_the_same() {
    let (_home, path) = home();
    database(&path, "wal");
    let _holder = writer(&path);
    let program = format!(
        "{START}
os.closerange(0, 4096)
try: connect(0).execute('INSERT INTO t VALUES (1)')
except sqlite3.OperationalError: os._exit(3)"
    );
    let (ran, report) = trace(Command::new("python3").args(["-c", &program]).arg(&path));
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert_eq!(row(&report, "no-timeout")["failed"], 1);
}

/// What a program leaves behind it is not waited for, and has what it needs.
#[test]
fn a_daemon_is_not_waited_for_and_its_library_is_left_for_it() {
    let (_home, path) = home();
    database(&path, "wal");
    let program = format!(
        "{START}
here, there = os.pipe()
if os.fork(): os.read(here, 1); os._exit(0)
os.setsid(); os.closerange(0, 3)
connect(5).execute('INSERT INTO t VALUES (1)')
os.write(there, b'x')
while not os.path.exists(path + '.end'): pass
os.execvp('python3', ['python3', '-c', 'import sys; open(sys.argv[1], \"w\")', path + '.done'])"
    );
    let (ran, report) = trace(Command::new("python3").args(["-c", &program]).arg(&path));
    assert_eq!((ran.code, &report["left"]), (0, &1.into()), "{report:#}");
    let kept = std::path::PathBuf::from(report["kept"].as_str().unwrap());
    assert!(kept.join("libonepen_trace.so").exists());
    let file = |ending| path.with_extension(format!("db.{ending}"));
    std::fs::write(file("end"), "").unwrap();
    while !file("done").exists() {
        std::thread::yield_now();
    }
    std::fs::remove_dir_all(kept).unwrap();
}

/// Neither the records nor the report; and nobody panics where nothing can be said.
#[test]
fn a_full_disk_is_told_and_the_programs_status_is_passed_on() {
    let full = |arguments: &[&str], stderr: &str| {
        let stderr = std::fs::File::create(stderr).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_onepen"));
        let ran = command.arg("trace").args(arguments).stderr(stderr).status();
        ran.unwrap().code().unwrap()
    };
    let program = ["--", "sh", "-c", "exit 7"];
    assert_eq!(full(&program, "/dev/full"), 7);
    let (_home, said) = home();
    let output = [&["--output", "/dev/full"], &program[..]].concat();
    assert_eq!(full(&output, said.to_str().unwrap()), 7);
    let said = std::fs::read_to_string(said).unwrap();
    assert!(
        said.contains("the report cannot be written: No space left"),
        "{said}"
    );

    // Where the records would be: the next place is tried.
    let inside = format!(
        "mount -t tmpfs -o size=64k tmpfs /mnt && TMPDIR=/mnt {} trace -- sh -c 'exit 7'",
        env!("CARGO_BIN_EXE_onepen")
    );
    let tried = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("this system does not allow a mount: not tested here");
        return;
    }
    let ran = Command::new("unshare")
        .args(["-m", "sh", "-c", &inside])
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(7), "{ran:?}");
}
