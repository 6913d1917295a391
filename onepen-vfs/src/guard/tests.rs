use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

thread_local! {
    /// After so many entries of this thread, one panics.
    static ENTRIES: Cell<Option<u32>> = const { Cell::new(None) };
}

struct Planted;

pub(super) fn panic_if_planted() {
    match ENTRIES.get() {
        Some(0) => {
            ENTRIES.set(None);
            // Without the words on standard error.
            std::panic::resume_unwind(Box::new(Planted));
        }
        Some(more) => ENTRIES.set(Some(more - 1)),
        None => {}
    }
}

fn opened(path: &Path, vfs: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(format!("file:{}?vfs={vfs}", path.display()))?;
    connection.busy_timeout(Duration::from_millis(20))?;
    Ok(connection)
}

/// Does a bit of everything, and says how many commits were acknowledged and how many
/// were not, which may be there or not.
fn work(path: &Path, other: &Path) -> (i64, i64) {
    let (mut done, mut unknown) = (0, 0);
    let Ok(connection) = opened(path, "onepen") else {
        return (0, 0);
    };
    let attached = connection
        .execute("ATTACH ? AS other", [other.to_string_lossy()])
        .is_ok();
    for begin in ["BEGIN", "BEGIN IMMEDIATE", ""] {
        let mut statements = vec![begin, "SELECT v FROM t", "UPDATE t SET v = v + 1", "COMMIT"];
        if attached {
            statements.insert(3, "UPDATE other.t SET v = v + 1");
        }
        if begin.is_empty() {
            statements = vec!["UPDATE t SET v = v + 1"];
        }
        let ran = statements.iter().try_for_each(|sql| {
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query(())?;
            while rows.next()?.is_some() {}
            Ok::<_, rusqlite::Error>(())
        });
        match ran {
            Ok(()) => done += 1,
            Err(_) => unknown += 1,
        }
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
    }
    for pragma in ["onepen", "onepen_promote = lock", "wal_checkpoint"] {
        let _ = connection.query_row(&format!("PRAGMA {pragma}"), (), |_| Ok(()));
    }
    (done, unknown)
}

fn new(dir: &Path, name: &str, journal: &str) -> PathBuf {
    let path = dir.join(name);
    let made = opened(&path, "unix").unwrap();
    made.execute_batch(&format!(
        "PRAGMA journal_mode = {journal}; CREATE TABLE t(v); INSERT INTO t VALUES (0)"
    ))
    .unwrap();
    path
}

/// Programs that run at a time: SQLite waits for ten seconds after some of the panics,
/// before it says that the log's protocol is broken.
const AT_A_TIME: u32 = 16;

/// A panic at every entry of a program's life, one run for each; how many there are.
fn sweep(journal: &str) -> u32 {
    crate::register_linked!(named).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..AT_A_TIME)
            .map(|first| {
                scope.spawn(move || {
                    let mut entries = (first..).step_by(AT_A_TIME as usize);
                    entries.find(|&entry| !panics_at(entry, dir, journal))
                })
            })
            .collect();
        let ends = all.into_iter().map(|one| one.join().unwrap().unwrap());
        ends.min().unwrap()
    })
}

/// A program that panics at this entry; whether it came so far.
fn panics_at(entry: u32, dir: &Path, journal: &str) -> bool {
    let path = new(dir, &format!("{entry}.db"), journal);
    let other = new(dir, &format!("{entry}-2.db"), journal);
    ENTRIES.set(Some(entry));
    let (done, unknown) = work(&path, &other);
    let met = ENTRIES.take().is_none();
    // All is there that was acknowledged, and nobody is kept from anything.
    for (path, counts) in [(&path, true), (&other, false)] {
        for vfs in ["unix", "onepen"] {
            let after = opened(path, vfs).unwrap();
            let whole: String = after
                .query_row("PRAGMA integrity_check", (), |row| row.get(0))
                .unwrap();
            assert_eq!(whole, "ok", "entry {entry}");
            after
                .execute_batch("BEGIN IMMEDIATE; COMMIT")
                .unwrap_or_else(|error| panic!("entry {entry}: {error}"));
            let v: i64 = after
                .query_row("SELECT v FROM t", (), |row| row.get(0))
                .unwrap();
            let possible = if counts { done } else { 0 }..=done + unknown;
            assert!(
                possible.contains(&v),
                "entry {entry}: {v} of {done}+{unknown}"
            );
        }
    }
    if !met {
        assert_eq!((done, unknown), (3, 0), "nothing panicked");
    }
    met
}

#[test]
fn a_panic_at_any_entry_is_an_error_and_no_abort_over_a_log() {
    let entries = sweep("wal");
    assert!(entries > 40, "only {entries}");
}

#[test]
fn a_panic_at_any_entry_is_an_error_and_no_abort_over_a_rollback_journal() {
    let entries = sweep("delete");
    assert!(entries > 20, "only {entries}");
}

/// Bodies of functions that C calls, by name, in the sources of this crate.
fn entries_in(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices("extern \"C\" fn ") {
        let rest = &source[at + "extern \"C\" fn ".len()..];
        let name: String = rest
            .chars()
            .take_while(|&c| c.is_alphanumeric() || c == '_' || c == '$')
            .collect();
        // A body ends with the first brace at the indentation of its line.
        let line = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let indent: String = source[line..].chars().take_while(|c| *c == ' ').collect();
        let end = rest.find(&format!("\n{indent}}}")).unwrap_or(rest.len());
        found.push((name, rest[..end].to_owned()));
    }
    found
}

#[test]
fn every_function_that_c_calls_enters_by_the_guard_or_only_passes_on() {
    // Those that do nothing which could panic: they hand their arguments to the VFS
    // below, or look something up.
    const PASS_ON: &[&str] = &["$name", "shm_map", "onepen_vfs_function"];
    const PANICS: &[&str] = &[
        "unwrap()",
        "expect(",
        "panic!",
        "assert",
        "Box::new",
        "Vec",
        "format!",
        "to_owned()",
        "[",
    ];
    let mut seen = 0;
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            if path.ends_with("guard/tests.rs") {
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for (name, body) in entries_in(source) {
                // A type, or a declaration of somebody else's function.
                if name.is_empty() || !body.contains('{') {
                    continue;
                }
                seen += 1;
                let guarded = ["guard(", "guarded_", "load(api"]
                    .iter()
                    .any(|by| body.contains(by));
                let safe =
                    PASS_ON.contains(&&*name) && !PANICS.iter().any(|panics| body.contains(panics));
                assert!(guarded || safe, "{}: {name}:{body}", path.display());
            }
        }
    }
    assert!(seen >= 13, "{seen}");
}

#[test]
fn the_extension_is_built_so_that_a_panic_can_be_caught() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in [
        "Cargo.toml",
        "onepen-vfs/Cargo.toml",
        ".cargo/config.toml",
        "python/pyproject.toml",
        "python/build_backend.py",
    ] {
        // A published package has only its own.
        let Ok(text) = std::fs::read_to_string(root.join(file)) else {
            continue;
        };
        assert!(!text.contains("abort"), "{file}");
    }
}
