//! SQLite's own log (`SQLITE_CONFIG_LOG`): what it finds worth a line and tells
//! nobody unless asked.
//!
//! A log that had to be recovered, a schema that changed under a statement, an
//! I/O error with the system call it came from, corruption with the line of
//! source that met it: the callers see at most a code of all this
//! (<https://www.sqlite.org/errlog.html>).
//!
//! # Guarantees
//!
//! - Every line goes to all who [`subscribe`], on the thread that caused it, and
//!   with the feature `tracing` to `to_tracing`.
//! - A subscriber that panics, or calls SQLite after all, harms nobody: panics end
//!   here, and lines that come out of a subscriber are dropped.
//! - Whether lines arrive is not remembered but tried: [`arrives`].
//!
//! A line never contains a value that was bound to a statement. It may contain
//! the SQL of the statement, with the values that stand in its text.
//!
//! The process has one log. Whoever else asks SQLite for it (rusqlite's
//! `config_log`, a C library) takes it from us, or we from them.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::ffi;

use crate::error::{Error, ErrorKind, Result};

/// One line of SQLite's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line<'a> {
    /// The extended result code (<https://www.sqlite.org/rescode.html>).
    pub code: i32,
    /// What SQLite says. At most 699 bytes; may contain SQL.
    pub message: &'a str,
}

/// How much a line is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something ordinary that may explain something else: a log was recovered, a
    /// statement was compiled again because the schema had changed.
    Notice,
    /// SQLite warns, or a statement failed, and its caller was told.
    Warning,
    /// The file, the disk, the memory or the program is in trouble.
    Error,
}

impl Line<'_> {
    /// How much the line is worth, by its code.
    pub fn severity(&self) -> Severity {
        match self.code & 0xff {
            ffi::SQLITE_NOTICE | ffi::SQLITE_SCHEMA => Severity::Notice,
            ffi::SQLITE_INTERNAL
            | ffi::SQLITE_PERM
            | ffi::SQLITE_NOMEM
            | ffi::SQLITE_READONLY
            | ffi::SQLITE_IOERR
            | ffi::SQLITE_CORRUPT
            | ffi::SQLITE_FULL
            | ffi::SQLITE_CANTOPEN
            | ffi::SQLITE_PROTOCOL
            | ffi::SQLITE_MISUSE
            | ffi::SQLITE_NOLFS
            | ffi::SQLITE_NOTADB => Severity::Error,
            _ => Severity::Warning,
        }
    }
}

type Subscriber = Arc<dyn Fn(&Line<'_>) + Send + Sync>;

static SUBSCRIBERS: Mutex<Vec<(u64, Subscriber)>> = Mutex::new(Vec::new());

/// A subscription. Dropping it ends it; [`for_good`](Self::for_good) keeps it.
#[derive(Debug)]
#[must_use = "dropping it ends the subscription"]
pub struct Subscription(u64);

impl Subscription {
    /// Keeps the subscription until the process ends.
    pub fn for_good(self) {
        std::mem::forget(self);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscribers = lock();
        let place = subscribers.iter().position(|(id, _)| *id == self.0);
        let ended = place.map(|place| subscribers.remove(place));
        // Whatever it owns is dropped outside of the lock.
        drop(subscribers);
        drop(ended);
    }
}

/// Calls `subscriber` with every line of SQLite's log, on the thread that caused
/// it and while SQLite waits: be quick, and do not use SQLite in it.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// # fn main() -> onepen::Result<()> {
/// let lines = Arc::new(Mutex::new(Vec::new()));
/// let to = Arc::clone(&lines);
/// let subscription = onepen::sqlite_log::subscribe(move |line| {
///     to.lock().unwrap().push((line.code, line.message.to_owned()));
/// })?;
/// let db = onepen::Database::open_in_memory()?;
/// db.execute("SELECT nonsense", ()).unwrap_err();
/// drop(subscription);
/// assert!(lines.lock().unwrap().iter().any(|(_, text)| text.contains("no such column: nonsense")));
/// # Ok(()) }
/// ```
///
/// # Errors
/// - [`ErrorKind::Refused`] when SQLite is initialised already and is too old to
///   be given a log afterwards (before 3.42): subscribe before the first
///   connection; or in single-thread mode on a thread that does not own SQLite.
pub fn subscribe(subscriber: impl Fn(&Line<'_>) + Send + Sync + 'static) -> Result<Subscription> {
    install()?;
    let mut subscribers = lock();
    let id = subscribers.last().map_or(0, |(id, _)| id + 1);
    subscribers.push((id, Arc::new(subscriber)));
    Ok(Subscription(id))
}

/// Sends SQLite's log to `tracing`, with the target `onepen::sqlite_log`, the
/// fields `code` and `message`, and a level by [`Severity`]: INFO, WARN, ERROR.
/// Once is enough; again does no more.
///
/// A collector of `tracing` that itself writes to SQLite must not do so on the
/// thread it is called on.
///
/// # Errors
/// As [`subscribe`].
#[cfg(feature = "tracing")]
pub fn to_tracing() -> Result<()> {
    use std::sync::atomic::{AtomicBool, Ordering};
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return install();
    }
    let subscribed = subscribe(|line| {
        macro_rules! tell {
            ($level:ident) => {
                tracing::event!(
                    target: "onepen::sqlite_log",
                    tracing::Level::$level,
                    code = line.code,
                    "{}",
                    line.message
                )
            };
        }
        match line.severity() {
            Severity::Notice => tell!(INFO),
            Severity::Warning => tell!(WARN),
            Severity::Error => tell!(ERROR),
        }
    });
    match subscribed {
        Ok(subscription) => subscription.for_good(),
        Err(error) => {
            DONE.store(false, Ordering::Relaxed);
            return Err(error);
        }
    }
    Ok(())
}

/// Whether lines of SQLite's log reach this module now: one is written, and
/// looked for. Subscribers do not see it.
///
/// # Errors
/// [`ErrorKind::Refused`] in single-thread mode on a thread that does not own
/// SQLite.
pub fn arrives() -> Result<bool> {
    crate::threading::may_configure_sqlite()?;
    HERE.with(|here| {
        here.probe.set(Probe::Sent);
        // SAFETY: a format and one argument for it; neither is kept.
        unsafe {
            ffi::sqlite3_log(
                ffi::SQLITE_NOTICE,
                c"%s".as_ptr(),
                c"onepen asks whether it hears this".as_ptr(),
            );
        }
        Ok(here.probe.replace(Probe::None) == Probe::Arrived)
    })
}

/// What this thread is doing that its lines must know.
struct Here {
    /// A question of ours makes SQLite complain; or a subscriber is running.
    quiet: Cell<bool>,
    probe: Cell<Probe>,
}

#[derive(Clone, Copy, PartialEq)]
enum Probe {
    None,
    Sent,
    Arrived,
}

thread_local! {
    static HERE: Here = const {
        Here { quiet: Cell::new(false), probe: Cell::new(Probe::None) }
    };
}

/// Leaves out what `act` makes SQLite say.
pub(crate) fn quietly<T>(act: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            HERE.with(|here| here.quiet.set(self.0));
        }
    }
    let _restore = Restore(HERE.with(|here| here.quiet.replace(true)));
    act()
}

fn lock() -> std::sync::MutexGuard<'static, Vec<(u64, Subscriber)>> {
    SUBSCRIBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks SQLite for its log. The router has no argument, so that two threads that
/// come at once, or one that is logging meanwhile, find either nothing or it.
fn install() -> Result<()> {
    crate::threading::may_configure_sqlite()?;
    type Router = unsafe extern "C" fn(*mut c_void, c_int, *const c_char);
    // SAFETY: the two arguments are of the types that the operation takes; the
    // function is never unloaded while this library is not.
    let code = quietly(|| unsafe {
        ffi::sqlite3_config(
            ffi::SQLITE_CONFIG_LOG,
            route as Router,
            std::ptr::null_mut::<c_void>(),
        )
    });
    match code {
        ffi::SQLITE_OK => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Refused,
            format!(
                "SQLite {} gives its log to nobody once it is initialised: subscribe before \
                 anything in the process opens a connection, or use 3.42 or newer",
                rusqlite::version()
            ),
        )),
    }
}

unsafe extern "C" fn route(_: *mut c_void, code: c_int, message: *const c_char) {
    // SAFETY: SQLite's string, valid for this call.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    // A subscriber's panic must not go through SQLite's frames; and neither may
    // that of a thread that logs while it is ending (`try_with`).
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let told = HERE.try_with(|here| {
            if here.probe.get() == Probe::Sent {
                here.probe.set(Probe::Arrived);
                return true;
            }
            here.quiet.get()
        });
        if told != Ok(false) {
            return;
        }
        quietly(|| {
            let subscribers: Vec<_> = lock().iter().map(|(_, each)| Arc::clone(each)).collect();
            for subscriber in subscribers {
                let line = Line {
                    code,
                    message: &message,
                };
                // One that panics does not keep the line from the next.
                let _ = catch_unwind(AssertUnwindSafe(|| subscriber(&line)));
            }
        });
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn severity(code: i32) -> Severity {
        Line { code, message: "" }.severity()
    }

    #[test]
    fn a_line_is_worth_what_its_code_says() {
        assert_eq!(severity(ffi::SQLITE_NOTICE_RECOVER_WAL), Severity::Notice);
        assert_eq!(severity(ffi::SQLITE_SCHEMA), Severity::Notice);
        assert_eq!(severity(ffi::SQLITE_WARNING_AUTOINDEX), Severity::Warning);
        assert_eq!(severity(ffi::SQLITE_CONSTRAINT_UNIQUE), Severity::Warning);
        assert_eq!(severity(ffi::SQLITE_IOERR_FSYNC), Severity::Error);
        assert_eq!(severity(ffi::SQLITE_CORRUPT), Severity::Error);
        assert!(Severity::Notice < Severity::Warning && Severity::Warning < Severity::Error);
    }
}
