//! SQLite's threading modes: what was compiled, what was started, what each
//! connection got. The same tests run over three builds of SQLite
//! (`cargo xtask builds`), so they ask which one they are in.
//!
//! How SQLite was started holds for a process: each scene has one of its own.

use std::process::Command;
use std::sync::Barrier;
use std::sync::mpsc::channel;

use onepen::threading::{
    self, MultiThread, Mutexes, Opened, Serialized, SingleThread, ThreadingMode, compiled,
    configure, configure_single_thread, default_mode, effective_mode, is_initialized,
};
use onepen::{Database, ErrorKind, Options};
use rusqlite::{Connection, OpenFlags};

const MODES: [ThreadingMode; 3] = [
    ThreadingMode::SingleThread,
    ThreadingMode::MultiThread,
    ThreadingMode::Serialized,
];

/// Runs `scene` once for each argument, each time in a process of its own, in
/// which nobody has used SQLite.
fn alone<A: std::fmt::Debug>(
    test: &str,
    arguments: impl IntoIterator<Item = A>,
    scene: impl Fn(A),
) {
    const WHICH: &str = "ONEPEN_SCENE";
    let asked = std::env::var(WHICH).ok();
    for argument in arguments {
        let name = format!("{test} {argument:?}");
        match &asked {
            Some(asked) if *asked == name => return scene(argument),
            Some(_) => continue,
            None => {}
        }
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(WHICH, &name)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && said.contains("1 passed"),
            "{name}: {said}{}",
            String::from_utf8_lossy(&child.stderr)
        );
    }
    assert!(asked.is_none(), "no scene {asked:?}");
}

/// Starts SQLite in a mode, by whichever way leads there.
fn start(mode: ThreadingMode) -> onepen::Result<()> {
    match mode {
        // SAFETY: in these processes one thread opens connections, and the others
        // are refused.
        ThreadingMode::SingleThread => unsafe { configure_single_thread() },
        mode => configure(mode),
    }
}

fn refused<T>(result: onepen::Result<T>, because: &str) {
    let error = result.err().expect("must be refused");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains(because), "{error}");
}

#[test]
fn what_was_compiled_is_told_apart_in_all_three_builds() {
    alone(
        "what_was_compiled_is_told_apart_in_all_three_builds",
        [()],
        |()| {
            // What whoever compiled it says, and unless they say: rusqlite's choice.
            let flags = std::env::var("LIBSQLITE3_FLAGS").unwrap_or_default();
            let number = flags
                .rsplit_once("SQLITE_THREADSAFE=")
                .map_or("1", |(_, number)| number);
            let expected = match number.trim() {
                "0" => ThreadingMode::SingleThread,
                "1" => ThreadingMode::Serialized,
                "2" => ThreadingMode::MultiThread,
                other => panic!("SQLITE_THREADSAFE={other}?"),
            };
            assert_eq!(compiled(), expected);
            assert!(!is_initialized(), "asking must not initialise SQLite");
            assert_eq!(default_mode().unwrap(), expected);
            // Without mutexes there was nothing to look at.
            assert_eq!(is_initialized(), expected != ThreadingMode::SingleThread);
        },
    );
}

#[test]
fn what_is_configured_is_the_mode_of_connections_that_choose_nothing() {
    alone(
        "what_is_configured_is_the_mode_of_connections_that_choose_nothing",
        MODES,
        |mode| {
            if compiled() == ThreadingMode::SingleThread && mode != compiled() {
                refused(configure(mode), "compiled without mutexes");
                return;
            }
            start(mode).unwrap();
            assert_eq!(default_mode().unwrap(), mode);
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.db");
            let opened = threading::open(path, &Options::new(), Mutexes::Inherit).unwrap();
            assert_eq!(opened.effective_mode(), mode);
            let sql = "CREATE TABLE a(n); INSERT INTO a VALUES (1), (2)";
            match &opened {
                Opened::SingleThread(connection) => connection.execute_batch(sql).unwrap(),
                Opened::MultiThread(connection) => connection.execute_batch(sql).unwrap(),
                Opened::Serialized(connection) => {
                    connection.with(|c| Ok(c.execute_batch(sql)?)).unwrap();
                }
            }
        },
    );
}

#[test]
fn configuring_too_late_is_refused_and_names_the_mode_in_force() {
    alone(
        "configuring_too_late_is_refused_and_names_the_mode_in_force",
        [ThreadingMode::MultiThread, ThreadingMode::Serialized],
        |mode| {
            if compiled() == ThreadingMode::SingleThread {
                refused(configure(mode), "SQLITE_THREADSAFE=0");
                return;
            }
            // Somebody else was here first.
            drop(Connection::open_in_memory().unwrap());
            if mode == compiled() {
                configure(mode).unwrap();
                return;
            }
            refused(configure(mode), "too late");
            let text = configure(mode).unwrap_err().to_string();
            assert!(text.contains(&format!("in {} mode", compiled())), "{text}");
            assert_eq!(default_mode().unwrap(), compiled());
            // SAFETY: refused, so nothing changes.
            refused(unsafe { configure_single_thread() }, "too late");
        },
    );
}

#[test]
fn configuring_the_same_again_is_fine_and_another_mode_is_not() {
    alone(
        "configuring_the_same_again_is_fine_and_another_mode_is_not",
        MODES,
        |mode| {
            if compiled() == ThreadingMode::SingleThread && mode != compiled() {
                return;
            }
            for _ in 0..3 {
                start(mode).unwrap();
            }
            for other in MODES.into_iter().filter(|other| *other != mode) {
                assert_eq!(configure(other).unwrap_err().kind(), ErrorKind::Refused);
                assert_eq!(default_mode().unwrap(), mode);
            }
        },
    );
}

#[test]
fn of_many_threads_that_configure_at_once_all_agree_on_what_is_in_force() {
    alone(
        "of_many_threads_that_configure_at_once_all_agree_on_what_is_in_force",
        0..8,
        |_| {
            if compiled() == ThreadingMode::SingleThread {
                return;
            }
            let together = Barrier::new(8);
            let answers: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|n| {
                        let together = &together;
                        scope.spawn(move || {
                            let mode = MODES[1 + n % 2];
                            together.wait();
                            (mode, configure(mode).is_ok())
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            let now = default_mode().unwrap();
            for (mode, accepted) in answers {
                assert_eq!(accepted, mode == now, "{mode} was asked, {now} is in force");
            }
        },
    );
}

#[test]
fn single_thread_mode_for_everybody_has_to_be_promised() {
    alone(
        "single_thread_mode_for_everybody_has_to_be_promised",
        [()],
        |()| {
            if compiled() == ThreadingMode::SingleThread {
                configure(ThreadingMode::SingleThread).unwrap();
                return;
            }
            refused(
                configure(ThreadingMode::SingleThread),
                "configure_single_thread",
            );
            assert!(!is_initialized(), "a refusal leaves everything as it was");
            configure(ThreadingMode::MultiThread).unwrap();
        },
    );
}

#[test]
fn a_connection_chooses_within_what_is_in_force_and_nothing_leaves_single_thread_mode() {
    let test = "a_connection_chooses_within_what_is_in_force_and_nothing_leaves_single_thread_mode";
    alone(test, MODES, |started| {
        if compiled() == ThreadingMode::SingleThread && started != compiled() {
            return;
        }
        start(started).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let open = |mutexes| threading::open(&path, &Options::new(), mutexes);
        for (asked, mode) in [
            (Mutexes::MultiThread, ThreadingMode::MultiThread),
            (Mutexes::Serialized, ThreadingMode::Serialized),
        ] {
            if started == ThreadingMode::SingleThread {
                refused(open(asked), "which no connection leaves");
            } else {
                assert_eq!(open(asked).unwrap().effective_mode(), mode);
            }
        }
        assert_eq!(open(Mutexes::Inherit).unwrap().effective_mode(), started);
        if started == ThreadingMode::SingleThread {
            SingleThread::open(&path).unwrap();
            refused(
                MultiThread::open_in_memory().map(drop),
                "single-thread mode",
            );
            refused(Serialized::open_in_memory().map(drop), "single-thread mode");
        } else {
            refused(SingleThread::open(&path).map(drop), "go down");
            refused(SingleThread::open_in_memory().map(drop), "go down");
        }
    });
}

#[test]
fn the_mode_of_a_connection_is_looked_up_and_not_remembered() {
    alone(
        "the_mode_of_a_connection_is_looked_up_and_not_remembered",
        [ThreadingMode::MultiThread, ThreadingMode::Serialized],
        |started| {
            if compiled() == ThreadingMode::SingleThread {
                return;
            }
            start(started).unwrap();
            let base = OpenFlags::SQLITE_OPEN_READ_WRITE;
            for (flags, mode) in [
                (
                    base | OpenFlags::SQLITE_OPEN_NO_MUTEX,
                    ThreadingMode::MultiThread,
                ),
                (
                    base | OpenFlags::SQLITE_OPEN_FULL_MUTEX,
                    ThreadingMode::Serialized,
                ),
                (base, started),
            ] {
                // Opened by rusqlite, not by us.
                let connection = Connection::open_in_memory_with_flags(flags).unwrap();
                assert_eq!(effective_mode(&connection), mode, "{flags:?}");
            }
        },
    );
}

#[test]
fn sqlite_itself_ignores_the_flag_for_a_mutex_in_single_thread_mode() {
    // Why asking is refused here: what SQLite does is to say OK.
    let test = "sqlite_itself_ignores_the_flag_for_a_mutex_in_single_thread_mode";
    alone(test, [()], |()| {
        start(ThreadingMode::SingleThread).unwrap();
        let flags = rusqlite::ffi::SQLITE_OPEN_FULLMUTEX
            | rusqlite::ffi::SQLITE_OPEN_READWRITE
            | rusqlite::ffi::SQLITE_OPEN_MEMORY;
        let mut handle = std::ptr::null_mut();
        // SAFETY: opened and closed here, on SQLite's own thread.
        unsafe {
            let (name, vfs) = (c":memory:".as_ptr(), std::ptr::null());
            let code = rusqlite::ffi::sqlite3_open_v2(name, &raw mut handle, flags, vfs);
            assert_eq!(code, rusqlite::ffi::SQLITE_OK);
            let connection = Connection::from_handle_owned(handle).unwrap();
            assert_eq!(effective_mode(&connection), ThreadingMode::SingleThread);
        }
    });
}

#[test]
fn adopting_looks_at_the_connection_and_refuses_the_wrong_one() {
    alone(
        "adopting_looks_at_the_connection_and_refuses_the_wrong_one",
        [()],
        |()| {
            if compiled() == ThreadingMode::SingleThread {
                return;
            }
            let base = OpenFlags::SQLITE_OPEN_READ_WRITE;
            let bare = || {
                let flags = base | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_in_memory_with_flags(flags).unwrap()
            };
            let locked = || {
                let flags = base | OpenFlags::SQLITE_OPEN_FULL_MUTEX;
                Connection::open_in_memory_with_flags(flags).unwrap()
            };
            MultiThread::adopt(bare()).unwrap();
            Serialized::adopt(locked()).unwrap();
            refused(Serialized::adopt(bare()).map(drop), "multi-thread");
            refused(MultiThread::adopt(locked()).map(drop), "serialized");
        },
    );
}

#[test]
fn the_first_thread_owns_a_single_thread_sqlite_and_others_are_turned_away() {
    let test = "the_first_thread_owns_a_single_thread_sqlite_and_others_are_turned_away";
    alone(test, [()], |()| {
        start(ThreadingMode::SingleThread).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let (opened, is_open) = channel();
        let (let_go, may_end) = channel::<()>();
        // With the start-time mode this thread is the owner already.
        let owner = threading::owner();
        let first = || {
            let connection = SingleThread::open(&path).unwrap();
            assert_eq!(effective_mode(&connection), ThreadingMode::SingleThread);
            assert_eq!(threading::owner(), Some(std::thread::current().id()));
            connection
                .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE a(n)")
                .unwrap();
            connection.execute("INSERT INTO a VALUES (1)", ()).unwrap();
            connection
        };
        let elsewhere = || {
            refused(SingleThread::open(&path).map(drop), "owns it");
            refused(SingleThread::open_in_memory().map(drop), "owns it");
            refused(default_mode().map(drop), "owns it");
            refused(
                onepen::status::status(onepen::status::Marks::Keep).map(drop),
                "owns it",
            );
            refused(onepen::sqlite_log::subscribe(|_| {}).map(drop), "owns it");
        };
        if owner.is_some() {
            let connection = first();
            std::thread::scope(|scope| scope.spawn(elsewhere).join().unwrap());
            assert_eq!(
                connection.query_row("SELECT n FROM a", (), |row| row.get(0)),
                Ok(1)
            );
            return;
        }
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let connection = first();
                opened.send(()).unwrap();
                may_end.recv().unwrap();
                drop(connection);
            });
            is_open.recv().unwrap();
            elsewhere();
            let_go.send(()).unwrap();
            thread.join().unwrap();
            // For the rest of the process, not for the rest of the thread.
            elsewhere();
        });
    });
}

#[test]
fn a_database_refuses_a_sqlite_without_mutexes_and_works_with_any_other() {
    let test = "a_database_refuses_a_sqlite_without_mutexes_and_works_with_any_other";
    alone(test, MODES, |mode| {
        if compiled() == ThreadingMode::SingleThread && mode != compiled() {
            return;
        }
        start(mode).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        if mode == ThreadingMode::SingleThread {
            refused(Database::open(&path).map(drop), "threads");
            refused(Database::open_in_memory().map(drop), "threads");
            assert!(!path.exists());
            return;
        }
        let db = Database::open(&path).unwrap();
        db.execute("CREATE TABLE a(n)", ()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..50 {
                        db.execute("INSERT INTO a VALUES (?1)", (n,)).unwrap();
                    }
                });
            }
        });
        let rows: i64 = db
            .query_row("SELECT count(*) FROM a", (), |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 200);
    });
}
