//! The rules of reading, over real files.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;
use rusqlite::Connection;

use super::*;
use crate::error::{Error, ErrorKind, WaitedFor};
use crate::file::TempHome;
use crate::options::{Journal, Options};
use crate::params::Parameters;

mod leases;
mod pins;
mod reading;
mod streams;
mod tasks;
mod turns;

const LONG: Duration = Duration::from_secs(30);

/// Does not end by itself.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
const COUNT: &str = "SELECT count(*) FROM t";

struct Fixture {
    readers: Arc<Readers>,
    writer: Connection,
    home: TempHome,
}

impl Fixture {
    fn new(readers: usize) -> Self {
        Self::with(Options::new().readers(readers))
    }

    fn with(options: Options) -> Self {
        let home = TempHome::new().expect("a private directory");
        let connector = Connector::new(&home.path().join("a.db"), options, true).expect("a path");
        let forever = Until {
            deadline: None,
            cancel: None,
        };
        let writer = connector.open(Role::Writer, &forever).expect("a writer");
        writer
            .execute_batch("CREATE TABLE t (v INTEGER)")
            .expect("a table");
        Self {
            readers: Arc::new(Readers::new(Arc::new(connector))),
            writer,
            home,
        }
    }

    fn write(&self) {
        self.writer
            .execute("INSERT INTO t VALUES (1)", ())
            .expect("a row");
    }

    fn count(&self) -> i64 {
        count(&self.readers)
    }

    fn stream<T: Send + 'static>(
        &self,
        ticket: Ticket,
        sql: &str,
        params: impl Parameters<Sent: 'static>,
        map: impl FnMut(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> RowStream<T> {
        let params = params.send().expect("parameters");
        self.readers.stream(ticket, sql, params, map)
    }

    /// Another connection, which knows nothing of the readers.
    fn stranger(&self) -> Connection {
        let stranger = Connection::open(self.home.path().join("a.db")).expect("a connection");
        stranger.busy_timeout(Duration::ZERO).expect("no wait");
        stranger
    }

    /// Whether nobody keeps the log from being reset.
    fn can_restart_log(&self) -> bool {
        let busy = self
            .writer
            .query_row("PRAGMA wal_checkpoint(RESTART)", (), |row| row.get(0));
        busy == Ok(0)
    }
}

fn patient() -> Ticket {
    Ticket {
        patience: Some(LONG),
        ..Ticket::default()
    }
}

fn within(patience: Duration) -> Ticket {
    Ticket {
        patience: Some(patience),
        deadline_is_own: true,
        ..Ticket::default()
    }
}

fn cancelled_by(token: &CancelToken) -> Ticket {
    Ticket {
        cancel: Some(token.clone()),
        ..patient()
    }
}

fn count(readers: &Readers) -> i64 {
    readers
        .query_row(&patient(), COUNT, (), |row| row.get(0))
        .expect("a count")
}

fn count_in(tx: &ReadTx) -> i64 {
    tx.query_row(COUNT, (), |row| row.get(0)).expect("a count")
}

/// Looks until it is so. Like every wait of these tests it has an end, so that a
/// rule that is broken fails its test instead of hanging all of them.
fn until(so: impl Fn() -> bool) {
    let since = Instant::now();
    while !so() {
        assert!(since.elapsed() < LONG, "it never happened");
        std::thread::yield_now();
    }
}

/// A thread that reads from when this returns until told to end.
fn reading(readers: &Arc<Readers>) -> (Sender<()>, std::thread::JoinHandle<()>) {
    let (end, ended) = mpsc::channel::<()>();
    let (start, started) = mpsc::channel();
    let readers = Arc::clone(readers);
    let thread = std::thread::spawn(move || {
        let read = readers.read(&patient(), |_| {
            start.send(()).expect("the test listens");
            let _ = ended.recv();
            Ok(())
        });
        read.expect("a read");
    });
    started.recv_timeout(LONG).expect("the read starts");
    (end, thread)
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    let since = Instant::now();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(ready) => return ready,
            Poll::Pending => std::thread::park_timeout(LONG.saturating_sub(since.elapsed())),
        }
        assert!(since.elapsed() < LONG, "nobody woke the task");
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
