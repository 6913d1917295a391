//! One way on several processes at once: this program starts itself again.
//!
//! Protocol (see [`child`](crate::child)): the parent sends the slice, the worker
//! answers `Ready`; when all have, the parent sends `go`, and each answers
//! `Ran`. Whatever else reaches a worker, or the end of its input, tells it to
//! stop: workers never outlive their parent.

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::slice::{self, Slice};
use super::tally::Ran;
use crate::child::{Child, say};

/// The hidden subcommand that makes this program a worker.
pub const SUBCOMMAND: &str = "bench-worker";

const GO: &str = "go";

/// How long past the end a worker may wait for its last answers: longer than
/// any way waits for a lock.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
enum Answer {
    Ready,
    Ran(Box<Ran>),
    Failed(String),
}

/// Runs a slice on this many processes.
pub fn run(
    slice: &Slice,
    processes: u32,
    mut go_on: impl FnMut(Duration) -> bool,
) -> Result<Ran, String> {
    if processes == 1 {
        return slice::run(slice, || Ok(()), go_on);
    }
    let (answers, answered) = mpsc::channel();
    let mut workers: Vec<_> = (0..processes)
        .map(|process| {
            let slice = Slice {
                process,
                ..slice.clone()
            };
            start(&slice, answers.clone())
        })
        .collect::<Result<_, _>>()?;
    drop(answers);
    for _ in &workers {
        match answered.recv() {
            Ok(Answer::Ready) => {}
            Ok(Answer::Failed(why)) => return Err(why),
            Ok(Answer::Ran(_)) | Err(_) => return Err(DIED.to_owned()),
        }
    }
    let began = Instant::now();
    for worker in &mut workers {
        worker.tell(GO)?;
    }
    let mut ran: Option<Ran> = None;
    let mut missing = workers.len();
    while missing > 0 {
        match answered.recv_timeout(Duration::from_millis(50)) {
            Ok(Answer::Ran(more)) => {
                missing -= 1;
                match &mut ran {
                    None => ran = Some(*more),
                    Some(ran) => ran.add(*more),
                }
            }
            Ok(Answer::Failed(why)) => return Err(why),
            Ok(Answer::Ready) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(DIED.to_owned());
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if began.elapsed() > slice.duration + PATIENCE {
            return Err("a worker process did not end".to_owned());
        }
        if !go_on(began.elapsed()) {
            for worker in &mut workers {
                worker.end();
            }
        }
    }
    ran.ok_or_else(|| DIED.to_owned())
}

const DIED: &str = "a worker process ended without an answer";

fn start(slice: &Slice, answers: mpsc::Sender<Answer>) -> Result<Child, String> {
    Child::start(SUBCOMMAND, slice, move |answer| {
        answers.send(answer.unwrap_or_else(Answer::Failed)).is_ok()
    })
}

/// The life of a worker; `false` when it could not run.
pub fn worker() -> bool {
    // Ctrl-C reaches the whole group; the parent tells us what to do.
    let _ = ctrlc::set_handler(|| {});
    let answer = work().map_or_else(Answer::Failed, |ran| Answer::Ran(Box::new(ran)));
    say(&answer).is_ok() && matches!(answer, Answer::Ran(_))
}

fn work() -> Result<Ran, String> {
    let mut lines = BufReader::new(std::io::stdin()).lines();
    let mut next = move || lines.next().transpose().map_err(|error| error.to_string());
    let line = next()?.ok_or("this subcommand is for onepen bench itself")?;
    let slice: Slice = serde_json::from_str(&line).map_err(|error| error.to_string())?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let start = move || {
        say(&Answer::Ready)?;
        match next()? {
            Some(line) if line == GO => {}
            _ => return Err("the parent gave up before the start".to_owned()),
        }
        thread::spawn(move || {
            let _ = next();
            told.store(true, Ordering::Relaxed);
        });
        Ok(())
    };
    slice::run(&slice, start, |_| !stop.load(Ordering::Relaxed))
}
