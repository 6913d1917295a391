//! When a log that could not be reset is tried again.

use super::*;
use crate::file::TempHome;
use crate::options::Options;
use crate::pen::turn::Alone;

const LIMIT: u32 = 32;
/// Nothing here takes as long unless it never happens.
const NEVER: Duration = Duration::from_secs(60);

/// A database whose checkpointer, once it met a pinned log, comes back only
/// because the log has grown: its pauses are hours.
struct Scene {
    pen: Arc<Pen<SqliteEngine>>,
    readers: Arc<Readers>,
    wal: Arc<WalLevel>,
    checkpointer: Arc<Checkpointer>,
    writer: Option<JoinHandle<()>>,
    _home: TempHome,
}

impl Scene {
    fn new() -> Self {
        let home = TempHome::new().expect("a private directory");
        let options = Options::new().wal_limit(LIMIT, Duration::from_millis(20));
        let connector = Connector::new(&home.path().join("a.db"), options, true);
        let connector = Arc::new(connector.expect("a path"));
        let patience = Until {
            deadline: None,
            cancel: None,
        };
        let wal = Arc::new(WalLevel::new(LIMIT));
        let readers = Arc::new(Readers::new(Arc::clone(&connector)));
        let engine = SqliteEngine::open(Arc::clone(&connector), Arc::clone(&wal), None, &patience);
        let pen = Pen::new(
            engine.expect("a writer"),
            connector.options.limits,
            crate::timer::shared(),
            Arc::new(Alone),
        );
        let hours = Pauses {
            first: Duration::from_secs(3600),
            longest: Duration::from_secs(3600),
        };
        let checkpointer = Checkpointer::start_with(
            hours,
            Arc::clone(&pen),
            Arc::clone(&readers),
            connector,
            Arc::clone(&wal),
        );
        let writer = Arc::clone(&pen);
        let scene = Self {
            pen,
            readers,
            wal,
            checkpointer: checkpointer.expect("a thread"),
            writer: Some(std::thread::spawn(move || writer.serve())),
            _home: home,
        };
        scene.write("CREATE TABLE t (v)");
        scene
    }

    fn write(&self, sql: &'static str) {
        let ticket = Ticket {
            patience: Some(NEVER),
            ..Ticket::default()
        };
        let write = move |engine: &mut SqliteEngine| {
            engine.connection()?.execute_batch(sql)?;
            Ok(())
        };
        let written = self.pen.write(&ticket, Kind::Grouped, write);
        written.expect("a write");
    }

    /// A frame more in the log, or two.
    fn grow(&self) {
        self.write("INSERT INTO t VALUES (zeroblob(3000))");
    }

    fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !so(self) {
            assert!(since.elapsed() < NEVER, "it never happened: {what}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.checkpointer.stop();
        self.pen.close();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        self.readers.close();
    }
}

#[test]
fn a_pinned_log_is_tried_again_when_it_has_grown_by_as_much_again() {
    let scene = Scene::new();
    let pin = scene
        .readers
        .snapshot(&Ticket::default())
        .expect("a snapshot");
    while scene.wal.frames() < LIMIT {
        scene.grow();
    }
    scene.until("the first try meets the snapshot", |scene| {
        scene.checkpointer.pinned_for().is_some()
    });
    drop(pin);
    assert_eq!(scene.wal.resets(), 0);
    // When it has seen the snapshot it has still to say when it comes back: as
    // much again is counted from there.
    scene.until("the second try", |scene| {
        if scene.wal.frames() < 100 * LIMIT {
            scene.grow();
        }
        scene.wal.resets() == 1
    });
    scene.until("the log is said to be free", |scene| {
        scene.checkpointer.pinned_for().is_none()
    });
}

#[test]
fn the_pauses_double_up_to_the_longest() {
    let pauses = Pauses::USUAL;
    let mut pause = None;
    let mut all = Vec::new();
    for _ in 0..9 {
        let next = pauses.after(pause);
        all.push(next.as_millis());
        pause = Some(next);
    }
    assert_eq!(all, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
}
