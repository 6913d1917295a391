//! What those who listen to `tracing` get to hear: names and numbers, and
//! nothing of what is in the database.

use std::io;
use std::sync::{Arc, Mutex};

/// Everything that was said.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
    db.read(|tx| tx.query_map("SELECT secret FROM kept", (), |row| row.get::<_, String>(0)))
        .unwrap();
    db.close();

    let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    for expected in [
        "write",
        "label=\"checkout\"",
        "ledger",
        "group",
        "members=1",
        "checkpoint",
    ] {
        assert!(
            said.contains(expected),
            "nothing said of `{expected}`:\n{said}"
        );
    }
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
    let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
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
