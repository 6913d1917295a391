//! A disk that is really full: a file system of a megabyte, where this user may
//! make one; otherwise a limit of the file's size, which is the same to whoever
//! writes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;

use onepen::Outcome;

use crate::common::{child, in_child, options};

/// Mounts it on `at`, for this process alone.
fn small_disk(at: &Path) -> bool {
    let path = std::ffi::CString::new(at.as_os_str().as_bytes()).unwrap();
    // SAFETY: C strings that live as long as the calls.
    unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
            && libc::mount(
                c"tmpfs".as_ptr(),
                path.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                c"size=1m".as_ptr().cast(),
            ) == 0
    }
}

fn limit() {
    // SAFETY: two properties of this process, which runs this test only.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit {
            rlim_cur: 1 << 20,
            rlim_max: 1 << 20,
        };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
}

#[test]
fn on_a_small_disk() {
    let Some(dir) = in_child() else {
        return;
    };
    let is_disk = small_disk(&dir);
    if !is_disk {
        limit();
    }
    let path = dir.join("a.db");
    let ballast = dir.join("ballast");
    if is_disk {
        std::fs::write(&ballast, vec![1; 300 << 10]).unwrap();
    }
    let db = options().open(&path).unwrap();
    db.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, b BLOB)", ())
        .unwrap();
    let insert = "INSERT INTO t VALUES (?1, randomblob(10000))";
    let mut written = 0_i64;
    let mut refused = 0;
    while refused < 5 {
        assert!(written < 1000, "the disk is larger than that");
        match db.execute(insert, (written,)) {
            Ok(_) => written += 1,
            Err(error) => {
                assert_eq!(error.outcome(), Outcome::NotCommitted, "{error}");
                if is_disk {
                    let full = Some(rusqlite::ffi::SQLITE_FULL);
                    assert_eq!(error.sqlite_code(), full, "{error}");
                }
                refused += 1;
            }
        }
        let count = "SELECT count(*) FROM t";
        let rows: i64 = db.query_row(count, (), |row| row.get(0)).unwrap();
        assert_eq!(
            rows, written,
            "what was acknowledged is there, and nothing else"
        );
    }
    if is_disk {
        std::fs::remove_file(ballast).unwrap();
        // It goes on by itself when there is space again.
        db.execute(insert, (written,)).unwrap();
        written += 1;
    }
    db.close();
    let db = options().open(&path).unwrap();
    let check: String = db
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    let rows: i64 = db
        .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
        .unwrap();
    assert_eq!(rows, written);
    println!("\n> a disk: {is_disk}, {written} rows");
}

#[test]
fn a_full_disk_refuses_writes_loses_none_and_ends_with_the_ballast() {
    let dir = tempfile::tempdir().unwrap();
    let ran = child("full::on_a_small_disk", dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let failed = String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success() && said.contains("> a disk"),
        "{said}{failed}"
    );
}
