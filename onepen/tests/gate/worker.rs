//! A process that writes as it is told.

use std::path::Path;
use std::time::Duration;

use onepen::{Database, Options};

use crate::common::{child, in_child};

pub const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, process INTEGER, n INTEGER)";

pub use crate::lines::Told as Worker;

impl Worker {
    pub fn of(database: &Path, number: u32) -> Self {
        let mut this = child("worker::worker", database);
        Self::start(this.env("ONEPEN_TEST_NUMBER", number.to_string()), "open")
    }
}

pub fn options() -> Options {
    Options::new()
        .durability(onepen::Durability::Normal)
        .wait(Duration::from_secs(30))
}

/// Not a test: what a worker runs.
#[test]
fn worker() {
    let Some(path) = in_child() else {
        return;
    };
    let number: u32 = std::env::var("ONEPEN_TEST_NUMBER")
        .unwrap()
        .parse()
        .unwrap();
    let db = options().open(path).unwrap();
    assert_eq!(db.stats().alone_because, None);
    db.execute(TABLE, ()).unwrap();
    say("open");
    let mut n = 0;
    let mut lines = std::io::stdin().lines();
    while let Some(line) = lines.next() {
        match line.unwrap().as_str() {
            "write" => say(&write(&db, number, n, None)),
            // Writes from here on, and says of each write that it is acknowledged.
            "write_on" => loop {
                say(&write(&db, number, n, None));
                n += 1;
            },
            "write_until_told" => {
                say("begun");
                let told = std::sync::atomic::AtomicBool::new(false);
                std::thread::scope(|scope| {
                    let writer = scope.spawn(|| {
                        let mut written = 0;
                        while !told.load(std::sync::atomic::Ordering::Relaxed) {
                            assert!(write(&db, number, written, None).starts_with("wrote"));
                            written += 1;
                        }
                        written
                    });
                    lines.next().unwrap().unwrap();
                    told.store(true, std::sync::atomic::Ordering::Relaxed);
                    say(&writer.join().unwrap().to_string());
                });
            }
            "write_within_100_ms" => {
                say(&write(&db, number, n, Some(Duration::from_millis(100))));
            }
            "many_at_once" => {
                let jobs: Vec<_> = (0..2000)
                    .map(|n| {
                        db.submit(move |tx| {
                            std::thread::sleep(Duration::from_micros(50)); // its work
                            tx.execute("INSERT INTO t(process, n) VALUES (?1, ?2)", (number, n))
                        })
                        .unwrap()
                    })
                    .collect();
                say("queued");
                for job in jobs {
                    job.wait().unwrap();
                }
                say("done");
            }
            // Ends when it has seen that somebody waits.
            "write_until_others_wait" => {
                let seen = db.with().label("the long one").write(|tx| {
                    tx.execute("INSERT INTO t(process, n) VALUES (?1, -1)", (number,))?;
                    say("inside");
                    while tx.others_are_waiting() == 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Ok(tx.others_are_waiting())
                });
                say(&format!("saw {}", seen.unwrap()));
            }
            // Holds the write lock until it is told to end.
            "hold" => {
                let (end, ended) = std::sync::mpsc::channel::<()>();
                std::thread::scope(|scope| {
                    let (db, number) = (&db, number);
                    let long = scope.spawn(move || {
                        db.with().label("the long one").write_once(move |tx| {
                            tx.execute("INSERT INTO t(process, n) VALUES (?1, -1)", (number,))?;
                            say("holds");
                            let _ = ended.recv();
                            Ok(())
                        })
                    });
                    lines.next().unwrap().unwrap();
                    drop(end);
                    long.join().unwrap().unwrap();
                });
                say("let go");
            }
            other => panic!("what is `{other}`?"),
        }
    }
}

fn write(db: &Database, number: u32, n: u32, deadline: Option<Duration>) -> String {
    let call = db.with();
    let call = match deadline {
        Some(deadline) => call.deadline(deadline),
        None => call,
    };
    match call.write(|tx| tx.execute("INSERT INTO t(process, n) VALUES (?1, ?2)", (number, n))) {
        Ok(_) => format!("wrote {n}"),
        Err(error) => format!("{:?} {:?} {error}", error.kind(), error.waited().what),
    }
}

fn say(what: &str) {
    println!("\n> {what}");
}
