//! A closure that holds the pen for too long.

use std::time::Duration;

use onepen::{ErrorKind, Outcome, WriteTx};

use crate::common::{Scene, options};

const TABLE: &str = "CREATE TABLE a(n INTEGER PRIMARY KEY)";
const FOR_EVER: &str =
    "INSERT INTO a WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n)
     SELECT i FROM n";
const LIMIT: Duration = Duration::from_millis(20);

fn for_ever(tx: &WriteTx<'_>) -> onepen::Result<()> {
    tx.execute("INSERT INTO a VALUES (100)", ())?;
    tx.execute(FOR_EVER, ())?;
    Ok(())
}

#[test]
fn a_closure_past_its_limit_is_undone_with_its_own_error() {
    let scene = Scene::with(options(), TABLE);
    let refused = scene.db.with().label("big").limit(LIMIT).write(for_ever);
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    assert_eq!(error.outcome(), Outcome::NotCommitted);
    assert_eq!(error.label(), Some("big"));
    assert_eq!(scene.number("SELECT count(*) FROM a"), 0);
    // Its limit does not stay.
    scene.db.execute("INSERT INTO a VALUES (1)", ()).unwrap();
}

#[test]
fn a_closure_that_hides_its_end_or_runs_no_statement_is_undone_too() {
    let scene = Scene::with(options(), TABLE);
    let with_limit = || scene.db.with().limit(LIMIT);
    let hidden = with_limit().write(|tx| {
        let _ = for_ever(tx);
        Ok(())
    });
    assert_eq!(hidden.unwrap_err().kind(), ErrorKind::LimitExceeded);
    let idle = with_limit().write(|tx| {
        tx.execute("INSERT INTO a VALUES (100)", ())?;
        std::thread::sleep(LIMIT); // what is too long is a time
        Ok(())
    });
    assert_eq!(idle.unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert_eq!(scene.number("SELECT count(*) FROM a"), 0);
}

#[test]
fn neighbours_of_a_closure_past_its_limit_do_not_notice() {
    for wary in [false, true] {
        let scene = Scene::with(options(), TABLE);
        if wary {
            scene.make_wary();
        }
        let hold = scene.hold();
        let insert = |n: i64| {
            let insert = move |tx: &WriteTx<'_>| tx.execute("INSERT INTO a VALUES (?1)", (n,));
            scene.db.submit(insert).unwrap()
        };
        let before = insert(1);
        let big = scene.db.with().limit(LIMIT).submit(for_ever).unwrap();
        let after = insert(2);
        hold.release();
        before.wait().unwrap();
        assert_eq!(big.wait().unwrap_err().kind(), ErrorKind::LimitExceeded);
        after.wait().unwrap();
        assert_eq!(scene.numbers("SELECT n FROM a"), [1, 2]);
    }
}
