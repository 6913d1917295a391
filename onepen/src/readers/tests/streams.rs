//! Large results, a few rows at a time.

use super::*;

fn all<T: Send + 'static>(rows: &mut RowStream<T>) -> Vec<Result<T>> {
    let mut all = Vec::new();
    while let Some(row) = block_on(std::future::poll_fn(|cx| {
        Pin::new(&mut *rows).poll_next(cx)
    })) {
        all.push(row);
    }
    all
}

const NUMBERS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) SELECT i FROM n";

fn numbers(fixture: &Fixture, up_to: i64) -> RowStream<i64> {
    let number = |row: &Row<'_>| row.get(0);
    fixture.stream(patient(), NUMBERS, (up_to,), number)
}

#[test]
fn rows_come_to_a_thread_as_it_asks_for_them() {
    let db = Fixture::new(1);
    let rows: Result<Vec<i64>> = numbers(&db, 1000).collect();
    assert_eq!(rows.expect("rows"), (1..=1000).collect::<Vec<_>>());
    assert_eq!(numbers(&db, i64::MAX).take(3).count(), 3);
    assert_eq!(db.readers.in_use(), 0);
}

#[test]
fn rows_are_of_one_state_and_stopping_early_ends_the_query() {
    let db = Fixture::new(1);
    for _ in 0..500 {
        db.write();
    }
    let mut rows = db.stream(patient(), "SELECT v FROM t", (), |row| row.get::<_, i64>(0));
    assert!(rows.next().is_some_and(|row| row.is_ok()));
    db.write();
    assert_eq!(db.readers.in_use(), 1);
    assert_eq!(rows.by_ref().count(), 499);
    assert!(rows.next().is_none());
    assert_eq!(
        db.readers.in_use(),
        0,
        "the end of the rows ends the snapshot"
    );
    let mut rows = numbers(&db, i64::MAX);
    assert!(rows.next().is_some());
    drop(rows);
    assert_eq!(db.readers.in_use(), 0);
}

#[test]
fn rows_come_to_a_task_and_any_number_of_streams_are_open() {
    let db = Fixture::new(1);
    let mut streams: Vec<_> = (0..5).map(|_| numbers(&db, 2000)).collect();
    for rows in &mut streams {
        let first = block_on(std::future::poll_fn(|cx| {
            Pin::new(&mut *rows).poll_next(cx)
        }));
        assert!(matches!(first, Some(Ok(1))));
    }
    for rows in &mut streams {
        let rest: Result<Vec<i64>> = all(rows).into_iter().collect();
        assert_eq!(rest.expect("rows"), (2..=2000).collect::<Vec<_>>());
    }
    assert_eq!(db.readers.in_use(), 0);
}

#[test]
fn a_stream_that_is_dropped_while_it_is_filled_stops() {
    let db = Fixture::new(1);
    let mut rows = db.stream(patient(), ENDLESS, (), |row| row.get::<_, i64>(0));
    let polled = Pin::new(&mut rows).poll_next(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    until(|| db.readers.in_use() > 0);
    drop(rows);
    until(|| db.readers.in_use() == 0);
}

#[test]
fn the_deadline_of_a_stream_is_its_last_item() {
    let db = Fixture::new(1);
    let ticket = within(Duration::from_millis(20));
    let rows = db.stream(ticket, NUMBERS, (i64::MAX,), |row| row.get::<_, i64>(0));
    let last = rows.last().expect("at least the error");
    assert_eq!(last.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
}

#[test]
fn an_error_or_a_panic_of_the_mapping_comes_after_the_rows_before_it() {
    let db = Fixture::new(1);
    let third_fails = |row: &Row<'_>| match row.get::<_, i64>(0)? {
        3 => row.get::<_, i64>("no such column"),
        number => Ok(number),
    };
    let mut rows = db.stream(patient(), NUMBERS, (9,), third_fails);
    let mut got = all(&mut rows);
    assert!(got.pop().is_some_and(|third| third.is_err()));
    assert_eq!(
        got.into_iter().collect::<Result<Vec<_>>>().ok(),
        Some(vec![1, 2])
    );

    let third_panics = |row: &Row<'_>| match row.get::<_, i64>(0)? {
        3 => panic!("of the mapping"),
        number => Ok(number),
    };
    let mut rows = db.stream(patient(), NUMBERS, (9,), third_panics);
    assert!(rows.next().is_some() && rows.next().is_some());
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rows.next()));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"of the mapping"));
    assert!(rows.next().is_none());

    let mut wrong = db.stream(patient(), "SELECT nothing", (), |_| Ok(()));
    assert!(wrong.next().is_some_and(|error| error.is_err()));
    assert!(wrong.next().is_none());
}
