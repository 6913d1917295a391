//! One long statement on a thread of its own, while the caller looks after it.
//!
//! Guarantees: what the caller's `tick` says happens within some milliseconds,
//! whatever the statement is doing: it is paused, or ended. Nothing outlives the
//! call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rusqlite::{Connection, ffi};

use crate::error::Result;

/// Between two ticks.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// How many instructions of SQLite's virtual machine run between two looks at
/// whether to pause.
const INSTRUCTIONS: i32 = 1000;

/// Runs `statement` on `connection` and calls `tick` meanwhile; it says whether to
/// pause until it is called next. When it fails, the statement is interrupted and
/// its error returned.
pub(super) fn run<T: Send>(
    mut connection: Connection,
    statement: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    mut tick: impl FnMut() -> Result<bool>,
) -> Result<T> {
    let paused = Arc::new(AtomicBool::new(false));
    watch(&mut connection, Arc::clone(&paused))?;
    let interrupt = connection.get_interrupt_handle();
    let (done, is_done) = channel();
    let mut ended = Ok(());
    let answer = std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let answer = statement(&connection);
            drop(connection);
            let _ = done.send(());
            answer
        });
        while let Err(RecvTimeoutError::Timeout) = is_done.recv_timeout(TICK) {
            if ended.is_ok() {
                match tick() {
                    Ok(pause) => paused.store(pause, Ordering::Relaxed),
                    Err(error) => ended = Err(error),
                }
            }
            if ended.is_err() {
                paused.store(false, Ordering::Relaxed);
                // Again and again: one that comes before the statement has begun
                // is forgotten.
                interrupt.interrupt();
            }
        }
        worker.join()
    });
    match answer {
        Err(panic) => std::panic::resume_unwind(panic),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            let interrupted = error
                .sqlite_error()
                .is_some_and(|error| error.extended_code == ffi::SQLITE_INTERRUPT);
            match ended {
                Err(ended) if interrupted => Err(ended),
                _ => Err(error.into()),
            }
        }
    }
}

fn watch(connection: &mut Connection, paused: Arc<AtomicBool>) -> rusqlite::Result<()> {
    let wait = move || {
        while paused.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    };
    connection.progress_handler(INSTRUCTIONS, Some(wait))?;
    Ok(())
}
