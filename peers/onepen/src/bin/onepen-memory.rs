//! What a queued asynchronous write costs in memory: `--tasks N` of them are
//! queued while somebody else holds the pen, and the allocator is asked. Then
//! the pen is released, and all of them must be committed.
//!
//! Counted is everything each of them has allocated: its future (in a box of
//! its own, as in a task), its job, its place in the queue. Taken off is what
//! the caller handed over: the closure, or the statement with its parameters.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use onepen::{Database, WriteTx};
use peer_harness::{Args, CREATE_TABLE, INSERT, Report};
use peer_onepen::allocated::{Counting, bytes};
use peer_onepen::{Failure, close_onepen, open_onepen};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Params = (i64, i64, &'static str);

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let database = open_onepen(&args)?;
    database.execute(CREATE_TABLE, ())?;
    let row = |n: usize| -> Params { (0, n as i64, "client 00000 has written this.") };
    let report = match args.way.as_deref() {
        Some("write") => {
            let insert = |n| {
                let row = row(n);
                move |tx: &WriteTx<'_>| tx.execute(INSERT, row)
            };
            let closure = size_of_val(&insert(0));
            queue(&args, &database, closure, |n| {
                database.write_async(insert(n))
            })?
        }
        Some("execute") => {
            let handed_over = size_of::<&'static str>() + size_of::<Params>();
            queue(&args, &database, handed_over, |n| {
                database.execute_async(INSERT, row(n))
            })?
        }
        other => return Err(format!("--way write|execute, not {other:?}").into()),
    };
    close_onepen(report, &database, &args)?.print();
    Ok(())
}

/// Queues as many writes as there are clients, and completes them.
fn queue<F>(
    args: &Args,
    database: &Database,
    closure: usize,
    write: impl Fn(usize) -> F,
) -> Result<Report, Failure>
where
    F: Future<Output = onepen::Result<usize>>,
{
    let (holds, held) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let holder = {
        let database = database.clone();
        std::thread::spawn(move || {
            database.write_once(move |_| {
                // Both ends live until the pen is released.
                let _ = holds.send(());
                let _ = released.recv();
                Ok(())
            })
        })
    };
    held.recv()?;

    let future_bytes = size_of::<F>();
    let mut futures: Vec<Pin<Box<F>>> = Vec::with_capacity(args.clients);
    let mut context = Context::from_waker(Waker::noop());
    let before = bytes();
    for n in 0..args.clients {
        let mut future = Box::pin(write(n));
        if let Poll::Ready(outcome) = future.as_mut().poll(&mut context) {
            return Err(format!("write {n} was not queued: {outcome:?}").into());
        }
        futures.push(future);
    }
    let each = (bytes() - before) as f64 / args.clients as f64;

    drop(release);
    let mut completed = 0;
    for future in futures {
        block_on(future)?;
        completed += 1;
    }
    holder
        .join()
        .map_err(|_| "the holder of the pen panicked")??;
    Ok(Report::new("onepen", args)
        .with("jobs", args.clients)
        .with("bytes_per_job", each)
        .with("future_bytes", future_bytes)
        .with("closure_bytes", closure)
        .with("bytes_beyond_closure", each - closure as f64)
        .with("completed", completed)
        .with("transactions", completed)
        .with("errors", serde_json::Map::new()))
}

fn block_on<F: Future>(mut future: Pin<Box<F>>) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
