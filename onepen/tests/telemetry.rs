//! What those who listen to `tracing` get to hear: names and numbers, and
//! nothing of what is in the database.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Everything that was said.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Listens on this thread until the guard is dropped.
fn listen(said: &Said) -> impl Sized + use<> {
    use tracing_subscriber::util::SubscriberInitExt;

    let writer = said.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish()
        .set_default()
}

/// Listens on every thread: the timer's too, which tells what goes on for long. For
/// tests in a process of their own.
fn listen_to_all_threads() -> Said {
    let said = Said::default();
    let writer = said.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .init();
    said
}

/// Runs the test `name` in another process, unless this is that process.
fn ran_in_a_process_of_its_own(name: &str) -> bool {
    if std::env::var_os("ONEPEN_TEST_CHILD").is_some() {
        return false;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("ONEPEN_TEST_CHILD", "")
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    true
}

#[test]
fn a_wait_for_a_stranger_is_told_while_it_goes_on_and_only_when_it_is_long() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ledger.db");
    let db = onepen::Options::new()
        .log_waits(Duration::from_millis(20))
        .open(&path)
        .unwrap();
    db.execute("CREATE TABLE kept(secret TEXT)", ()).unwrap();
    let stranger = onepen::rusqlite::Connection::open(&path).unwrap();
    let waits_for = |wait| {
        let said = Said::default();
        let _listening = listen(&said);
        stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
        let late = db
            .with()
            .deadline(wait)
            .execute("INSERT INTO kept VALUES (?1)", ("hunter2",));
        late.unwrap_err();
        stranger.execute_batch("COMMIT").unwrap();
        let said = said.0.lock().unwrap().clone();
        String::from_utf8(said).unwrap()
    };
    let said = waits_for(Duration::from_millis(100));
    assert_eq!(said.matches("a wait is long").count(), 1, "once: {said}");
    for expected in [
        "WARN",
        "database=\"ledger.db\"",
        "waits=for SQLite's write lock",
        "another connection of this process",
        &format!("pid={}", std::process::id()),
    ] {
        assert!(said.contains(expected), "`{expected}` is missing: {said}");
    }
    assert!(
        !said.contains("hunter2") && !said.contains("INSERT"),
        "{said}"
    );
    assert_eq!(waits_for(Duration::ZERO), "");
}

#[test]
fn whoever_holds_the_pen_for_long_is_named_while_it_still_does() {
    if ran_in_a_process_of_its_own("whoever_holds_the_pen_for_long_is_named_while_it_still_does") {
        return;
    }
    let said = listen_to_all_threads();
    let db = onepen::Options::new()
        .log_writes(Duration::from_millis(20))
        .label("ledger")
        .open_in_memory()
        .unwrap();
    db.execute("CREATE TABLE kept(secret TEXT)", ()).unwrap();
    let heard = || said.text();
    let line = line!() + 4;
    let since = std::time::Instant::now();
    db.with()
        .label("checkout")
        .write(|tx| {
            tx.execute("INSERT INTO kept VALUES ('hunter2')", ())?;
            while !heard().contains("a write holds the pen") {
                assert!(
                    since.elapsed() < Duration::from_secs(60),
                    "nothing was said"
                );
                std::thread::yield_now();
            }
            Ok(())
        })
        .unwrap();
    let said = heard();
    for expected in [
        "WARN",
        "database=\"ledger\"",
        "label=\"checkout\"",
        "thread=\"ThreadId(",
        &format!("telemetry.rs:{line}"),
        "last_ran=\"INSERT INTO kept VALUES (?)\"",
        "held_ms=",
    ] {
        assert!(said.contains(expected), "`{expected}` is missing: {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

/// Not a line of the library's, through which the closure came there.
#[test]
fn whoever_holds_the_pen_is_named_by_the_line_of_the_program_however_it_was_called() {
    let name = "whoever_holds_the_pen_is_named_by_the_line_of_the_program_however_it_was_called";
    if ran_in_a_process_of_its_own(name) {
        return;
    }
    let said = listen_to_all_threads();
    let db = onepen::Options::new()
        .log_writes(Duration::from_millis(20))
        .open_in_memory()
        .unwrap();
    let named = || said.text().matches("a write holds the pen").count();
    let until_named = |before: usize| {
        let since = std::time::Instant::now();
        while named() == before {
            let waited = since.elapsed();
            assert!(waited < Duration::from_secs(60), "nothing was said");
            std::thread::yield_now();
        }
        Ok(())
    };
    db.write(|_| until_named(0)).unwrap();
    db.with().key("a").write(|_| until_named(1)).unwrap();
    db.with().key("b").write_once(|_| until_named(2)).unwrap();
    db.prepare_then_write(|_| Ok(()), |_, ()| until_named(3))
        .unwrap();
    db.write_in_steps([()], |_, ()| until_named(4)).unwrap();
    let said = said.text();
    let by_this_program = format!("submitted={}:", file!());
    assert_eq!(said.matches(&by_this_program).count(), 5, "{said}");
}

#[test]
fn a_reader_past_its_lease_is_named_while_it_reads_and_when_it_is_ended() {
    if ran_in_a_process_of_its_own(
        "a_reader_past_its_lease_is_named_while_it_reads_and_when_it_is_ended",
    ) {
        return;
    }
    let said = listen_to_all_threads();
    let db = onepen::Options::new()
        .reader_lease(Duration::from_millis(20))
        .lease_grace(Duration::from_millis(20))
        .label("ledger")
        .open_in_memory()
        .unwrap();
    db.execute("CREATE TABLE kept(secret TEXT)", ()).unwrap();
    let heard = || said.text();
    let line = line!() + 1;
    let snapshot = db.with().label("export").snapshot().unwrap();
    db.execute("INSERT INTO kept VALUES ('hunter2')", ())
        .unwrap();
    let since = std::time::Instant::now();
    while db.stats().leases_ended == 0 {
        let waited = since.elapsed();
        assert!(waited < Duration::from_secs(60), "it was never ended");
        std::thread::yield_now();
    }
    let ended = snapshot.query_row("SELECT 1", (), |_| Ok(())).unwrap_err();
    assert_eq!(ended.kind(), onepen::ErrorKind::LeaseEnded);
    let said = heard();
    for event in [
        "a reader keeps the log from being reset",
        "a reader was told to end",
    ] {
        let told: Vec<_> = said.lines().filter(|it| it.contains(event)).collect();
        let [told] = &told[..] else {
            panic!("once: {said}")
        };
        for expected in [
            "WARN",
            "database=\"ledger\"",
            "by=a snapshot",
            "label=\"export\"",
            "ThreadId(",
            &format!("telemetry.rs:{line}"),
            "since_ms=",
            "frame=",
        ] {
            assert!(told.contains(expected), "`{expected}` is missing: {told}");
        }
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn spans_and_events_name_calls_and_never_values_or_sql() {
    let said = Said::default();
    let writer = said.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::NEW)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .init();

    let db = onepen::Options::new()
        .wal_limit(16, std::time::Duration::from_millis(20))
        .label("ledger")
        .log_waits(Duration::ZERO) // every wait for the pen is long
        .open_in_memory()
        .unwrap();
    db.execute("CREATE TABLE kept(secret TEXT)", ()).unwrap();
    for _ in 0..100 {
        db.with()
            .label("checkout")
            .execute("INSERT INTO kept VALUES (?1)", ("hunter2".repeat(500),))
            .unwrap();
    }
    let submitted = db
        .submit(|tx| tx.execute("INSERT INTO kept VALUES ('swordfish')", ()))
        .unwrap();
    submitted.wait().unwrap();
    // Two that waited for the same: told once, of the one that waited longer.
    let (go, waits) = std::sync::mpsc::channel::<()>();
    let (began, begins) = std::sync::mpsc::channel();
    let holder = db
        .submit(move |_| {
            began.send(()).unwrap();
            let _ = waits.recv();
            Ok(())
        })
        .unwrap();
    begins.recv().unwrap();
    let both = ["came first", "came second"].map(|label| {
        let insert = "INSERT INTO kept VALUES ('swordfish')";
        let waiting = db.with().label(label);
        waiting.submit(|tx| tx.execute(insert, ())).unwrap()
    });
    drop(go);
    holder.wait().unwrap();
    for waiting in both {
        waiting.wait().unwrap();
    }
    db.read(|tx| tx.query_map("SELECT secret FROM kept", (), |row| row.get::<_, String>(0)))
        .unwrap();
    db.close();
    let patient = onepen::Options::new()
        .label("patient")
        .log_waits(Duration::from_secs(3600))
        .open_in_memory()
        .unwrap();
    let submitted = patient
        .submit(|tx| tx.execute("CREATE TABLE kept(secret TEXT)", ()))
        .unwrap();
    submitted.wait().unwrap();
    patient.close();

    let said = said.text();
    let long = said.lines().filter(|line| line.contains("a wait was long"));
    for line in long {
        assert!(!line.contains("patient"), "it was not: {line}");
    }
    for expected in [
        "write",
        "label=\"checkout\"",
        "ledger",
        "group",
        "members=1",
        "checkpoint",
        "a wait was long",
        "waits=\"for the pen\"",
        "writes=1",
    ] {
        assert!(
            said.contains(expected),
            "nothing said of `{expected}`:\n{said}"
        );
    }
    let of_both = said
        .lines()
        .find(|line| line.contains("a wait was long") && line.contains("writes=2"));
    let of_both = of_both.unwrap_or_else(|| panic!("{said}"));
    assert!(of_both.contains("label=\"came first\""), "{of_both}");
    for secret in ["hunter2", "swordfish", "INSERT", "SELECT"] {
        assert!(!said.contains(secret), "`{secret}` was said:\n{said}");
    }
}

#[test]
fn sqlites_own_log_is_heard_with_its_code_and_a_level() {
    let said = Said::default();
    let writer = said.clone();
    let listener = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    onepen::sqlite_log::to_tracing().unwrap();
    onepen::sqlite_log::to_tracing().unwrap();
    let listening = tracing_subscriber::util::SubscriberInitExt::set_default(listener);
    let connection = onepen::threading::MultiThread::open_in_memory().unwrap();
    assert!(connection.prepare("SELECT * FROM nowhere_at_all").is_err());
    drop(listening);
    let said = said.text();
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.contains("nowhere_at_all"))
        .collect();
    // Asked for twice, and said once.
    let [line] = lines[..] else { panic!("{said}") };
    for expected in ["WARN", "onepen::sqlite_log", "code=1", "no such table"] {
        assert!(line.contains(expected), "{line}");
    }
}
