//! Reads for tasks.

use super::*;
use crate::pen::WhenFull;

/// An asynchronous read that occupies its thread until told to end.
fn occupy(db: &Fixture) -> (Sender<()>, impl Future<Output = Result<()>>) {
    let (end, ended) = mpsc::channel::<()>();
    let (start, started) = mpsc::channel();
    let mut read = Box::pin(db.readers.read_async(patient(), move |_| {
        start.send(()).expect("the test listens");
        let _ = ended.recv();
        Ok(())
    }));
    assert!(poll_once(read.as_mut()).is_pending());
    started.recv_timeout(LONG).expect("the read starts");
    (end, read)
}

#[test]
fn a_task_reads_without_a_runtime() {
    let db = Fixture::new(2);
    db.write();
    let name = || std::thread::current().name().map(str::to_owned);
    let here = name();
    let read = db
        .readers
        .read_async(patient(), move |tx| Ok((count_in(tx), name())));
    let (count, there) = block_on(read).expect("a read");
    assert_eq!(count, 1);
    assert_ne!(there, here);
    assert!(there.is_some_and(|name| name.starts_with("onepen-read-")));
}

#[test]
fn more_tasks_than_threads_are_served_in_order() {
    let db = Fixture::new(1);
    let (end, first) = occupy(&db);
    let (say, order) = mpsc::channel();
    let queued: Vec<_> = (0..20)
        .map(|number| {
            let say = say.clone();
            let mut read = Box::pin(db.readers.read_async(patient(), move |_| {
                say.send(number).expect("the test listens");
                Ok(())
            }));
            assert!(poll_once(read.as_mut()).is_pending());
            read
        })
        .collect();
    end.send(()).expect("the read listens");
    block_on(first).expect("a read");
    for read in queued {
        block_on(read).expect("a read");
    }
    assert_eq!(
        order.try_iter().collect::<Vec<_>>(),
        (0..20).collect::<Vec<_>>()
    );
}

#[test]
fn a_full_queue_refuses_a_read_when_that_was_chosen() {
    let db = Fixture::with(
        Options::new()
            .readers(1)
            .queue(2, 1 << 20, WhenFull::Refuse),
    );
    let (end, first) = occupy(&db);
    let queue = || Box::pin(db.readers.read_async(patient(), |_| Ok(())));
    let mut queued = [queue(), queue()];
    for read in &mut queued {
        assert!(poll_once(read.as_mut()).is_pending());
    }
    let refused = block_on(queue()).expect_err("there is room for two");
    assert_eq!(refused.kind(), ErrorKind::QueueFull);
    end.send(()).expect("the read listens");
    block_on(first).expect("a read");
    for read in queued {
        block_on(read).expect("a read");
    }
    block_on(queue()).expect("there is room again");
}

#[test]
fn a_queued_asynchronous_read_is_ended_by_its_deadline_and_by_its_token() {
    let db = Fixture::new(1);
    let (end, first) = occupy(&db);
    let soon = |own| Ticket {
        patience: Some(Duration::from_millis(20)),
        deadline_is_own: own,
        ..Ticket::default()
    };
    // The thread is busy all the time: what ends these is not its turn.
    for own in [true, false] {
        let late = block_on(db.readers.read_async(soon(own), |_| Ok(()))).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(late.waited().what, WaitedFor::Reader);
        let mut rows = db.stream(soon(own), COUNT, (), |row| row.get::<_, i64>(0));
        let item = block_on(std::future::poll_fn(|cx| Pin::new(&mut rows).poll_next(cx)));
        let late = item.expect("an item").unwrap_err();
        assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
    }
    let token = CancelToken::new();
    let with_token = Ticket {
        cancel: Some(token.clone()),
        ..patient()
    };
    let mut read = Box::pin(db.readers.read_async(with_token.clone(), |_| Ok(())));
    assert!(poll_once(read.as_mut()).is_pending());
    let mut rows = db.stream(with_token, COUNT, (), |row| row.get::<_, i64>(0));
    let mut next = Box::pin(std::future::poll_fn(|cx| Pin::new(&mut rows).poll_next(cx)));
    assert!(poll_once(next.as_mut()).is_pending());
    token.cancel();
    assert_eq!(block_on(read).unwrap_err().kind(), ErrorKind::Cancelled);
    let item = block_on(next).expect("an item");
    assert_eq!(item.unwrap_err().kind(), ErrorKind::Cancelled);
    end.send(()).expect("the read listens");
    block_on(first).expect("a read");
}

#[test]
fn a_dropped_future_keeps_a_queued_read_from_running() {
    let db = Fixture::new(1);
    let (end, first) = occupy(&db);
    let (say, ran): (Sender<()>, Receiver<()>) = mpsc::channel();
    let mut queued = Box::pin(db.readers.read_async(patient(), move |_| {
        say.send(()).expect("the test listens");
        Ok(())
    }));
    assert!(poll_once(queued.as_mut()).is_pending());
    drop(queued);
    end.send(()).expect("the read listens");
    block_on(first).expect("a read");
    // The closure was dropped without having been run.
    assert_eq!(ran.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn a_dropped_future_stops_a_running_query() {
    let db = Fixture::new(1);
    let (start, started) = mpsc::channel();
    let (say, how) = mpsc::channel();
    let mut read = Box::pin(db.readers.read_async(patient(), move |tx| {
        start.send(()).expect("the test listens");
        let ended = tx.query_row(ENDLESS, (), |_| Ok(()));
        say.send(ended.map_err(|error| error.kind()))
            .expect("the test listens");
        Ok(())
    }));
    assert!(poll_once(read.as_mut()).is_pending());
    started.recv_timeout(LONG).expect("the read starts");
    drop(read);
    assert_eq!(
        how.recv_timeout(LONG).expect("it ends"),
        Err(ErrorKind::Cancelled)
    );
}

#[test]
fn the_callers_token_reaches_a_read_on_another_thread() {
    let db = Fixture::new(1);
    let token = CancelToken::new();
    let (start, started) = mpsc::channel();
    let mut read = Box::pin(db.readers.read_async(cancelled_by(&token), move |tx| {
        start.send(()).expect("the test listens");
        tx.query_row(ENDLESS, (), |_| Ok(()))
    }));
    assert!(poll_once(read.as_mut()).is_pending());
    started.recv_timeout(LONG).expect("the read starts");
    token.cancel();
    assert_eq!(block_on(read).unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn a_panic_comes_back_to_the_task_and_hurts_no_thread() {
    let db = Fixture::new(1);
    let read = db
        .readers
        .read_async(patient(), |_| -> Result<()> { panic!("of the task") });
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| block_on(read)));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"of the task"));
    let next = db.readers.read_async(patient(), |tx| Ok(count_in(tx)));
    assert_eq!(block_on(next).ok(), Some(0));
}

#[test]
fn close_tells_queued_reads() {
    let db = Fixture::new(1);
    let (end, first) = occupy(&db);
    let mut queued = Box::pin(db.readers.read_async(patient(), |_| Ok(())));
    assert!(poll_once(queued.as_mut()).is_pending());
    std::thread::scope(|scope| {
        scope.spawn(|| db.readers.close());
        until(|| db.readers.pool.slots.is_closed());
        end.send(()).expect("the read listens");
    });
    block_on(first).expect("it ran");
    assert_eq!(block_on(queued).unwrap_err().kind(), ErrorKind::Closed);
}

/// What nobody wants any more is dropped on a reading thread.
#[test]
fn a_destructor_that_panics_costs_no_reading_thread() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("of a destructor"));
        }
    }
    let db = Fixture::new(1);
    for _ in 0..3 {
        let (end, ended) = mpsc::channel::<()>();
        let (start, started) = mpsc::channel();
        let mut read = Box::pin(db.readers.read_async(patient(), move |_| {
            start.send(()).expect("the test listens");
            let _ = ended.recv();
            Ok(Bad)
        }));
        assert!(poll_once(read.as_mut()).is_pending());
        started.recv_timeout(LONG).expect("the read starts");
        drop(read);
        end.send(()).expect("the read listens");
    }
    let read = db.readers.read_async(patient(), |tx| Ok(count_in(tx)));
    assert_eq!(block_on(read).ok(), Some(0));
}
