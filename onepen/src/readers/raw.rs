//! The calls to SQLite that rusqlite does not make for a reader.
//!
//! A [`ReadConnection`] starts and ends its read transaction with two
//! statements prepared once, cannot be made to write, and is left without a
//! running statement, whatever the code that borrowed it did.

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ffi};

use super::mark::{CommitMark, Mark};
use crate::blocks::raw::reset_unfinished;
use crate::capi::{Control, failure, run_at};
use crate::engine::{GiveUp, Patience};
use crate::error::{Error, ErrorKind, Waited, WaitedFor};

/// How many instructions of SQLite's virtual machine run between two looks at
/// a deadline: some 10 µs, against the 30 ns of a look.
const INSTRUCTIONS: c_int = 1000;

/// A connection on which only reads are possible.
///
/// `Send`, because everything in it is reached through `&self` of whoever has
/// it now, and SQLite (built thread-safe, rusqlite refuses others) keeps
/// nothing of a connection in thread-local storage.
pub(super) struct ReadConnection {
    // Before the connection, in the order in which they have to go.
    begin: Control,
    commit: Control,
    connection: Connection,
    /// On the heap, because SQLite has a pointer to it.
    guard: Box<Guard>,
    watch: RefCell<Option<Box<Watch>>>,
    /// Every statement is refused from its first instruction on.
    refusing: Cell<bool>,
    lease: Lease,
}

/// What ends a connection's transaction when its owner does not use it.
pub(super) struct Remote {
    commit: NonNull<ffi::sqlite3_stmt>,
    guard: NonNull<Guard>,
}

// SAFETY: two addresses; whoever follows them (`end`) promises to be alone.
unsafe impl Send for Remote {}
// SAFETY: the same.
unsafe impl Sync for Remote {}

impl Remote {
    /// Ends the transaction.
    ///
    /// # Safety
    /// The [`ReadConnection`] it is of lives, and nobody uses it until this returns.
    pub(super) unsafe fn end(&self) {
        // SAFETY: the caller's promise; both are on the heap, where they stay for as
        // long as the connection lives.
        unsafe {
            self.guard.as_ref().ours.set(true);
            // A progress handler may come in between, but not twice.
            if run_at(self.commit) != ffi::SQLITE_OK {
                run_at(self.commit);
            }
            self.guard.as_ref().ours.set(false);
        }
    }
}

/// What is known of a transaction that is left open between two reads.
#[derive(Default)]
struct Lease {
    /// Where commits show, once that was looked for.
    commits: OnceCell<Option<CommitMark>>,
    /// A transaction is open and nobody reads in it.
    open: Cell<bool>,
    /// The state that the transaction sees, or that the last read outside of one
    /// saw at least.
    mark: Cell<Option<Mark>>,
    /// The state that the transaction sees at least.
    sees: Cell<Option<Mark>>,
    /// The round in which the transaction began.
    round: Cell<u32>,
    /// Somebody had the means to leave a statement running.
    loose: Cell<bool>,
}

/// What the authorizer needs to know.
struct Guard {
    /// SQLite may compile our own two statements again at any time.
    ours: Cell<bool>,
    /// Which tables the statement reads that is compiled now, if anybody asks.
    reads: RefCell<Option<Vec<String>>>,
}

/// Ends noting, also when what runs panics.
struct Noting<'a>(&'a Guard);

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        self.0.reads.borrow_mut().take();
    }
}

/// The limits of the call that runs now.
struct Watch {
    patience: Box<dyn Patience + Send>,
    since: Instant,
    gave_up: Cell<Option<GiveUp>>,
}

// SAFETY: the statements and the `Connection` are `Send`; the boxes are reached only through
// SQLite's callbacks, which run on the thread that uses the connection.
// `Patience + Send` is in there by type.
unsafe impl Send for ReadConnection {}

impl ReadConnection {
    /// Takes a connection that was opened read-only.
    pub(super) fn new(connection: Connection) -> rusqlite::Result<Self> {
        // BEGIN IMMEDIATE on a file opened read-only takes the snapshot at once
        // (`sqlite3BeginTransaction`), for nothing: the first statement has it
        // no longer to do. `query_only` would refuse that because of the empty
        // temporary database. The file being opened read-only and the guard
        // below refuse all that `query_only` does.
        connection.pragma_update(None, "query_only", false)?;
        let this = Self {
            begin: Control::prepare(&connection, c"BEGIN IMMEDIATE")?,
            commit: Control::prepare(&connection, c"COMMIT")?,
            connection,
            guard: Box::new(Guard {
                ours: Cell::new(false),
                reads: RefCell::new(None),
            }),
            watch: RefCell::new(None),
            refusing: Cell::new(false),
            lease: Lease::default(),
        };
        // SAFETY: the handle is open; the guard is on the heap, and `drop` takes
        // the authorizer away before the guard goes.
        let refused = unsafe {
            ffi::sqlite3_set_authorizer(
                this.handle(),
                Some(authorize),
                ptr::from_ref::<Guard>(&this.guard).cast_mut().cast(),
            )
        };
        match refused {
            ffi::SQLITE_OK => Ok(this),
            code => Err(this.failure(code)),
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// To end its transaction from elsewhere.
    pub(super) fn remote(&self) -> Remote {
        Remote {
            commit: self.commit.at(),
            guard: NonNull::from(&*self.guard),
        }
    }

    /// What its transaction sees, and where to look for later commits.
    pub(super) fn sees(&self) -> (Option<Mark>, Option<CommitMark>) {
        let commits = self.lease.commits.get().copied().flatten();
        (self.lease.sees.get(), commits)
    }

    pub(super) fn is_refusing(&self) -> bool {
        self.refusing.get()
    }

    /// Refuses every statement from now on, also those that were prepared before.
    #[cold]
    pub(super) fn refuse_all(&self) {
        if !self.refusing.replace(true) {
            // SAFETY: the handle is open; `refuse` looks at nothing.
            unsafe {
                ffi::sqlite3_progress_handler(self.handle(), 1, Some(refuse), ptr::null_mut());
            }
        }
    }

    /// Says that statements go to foreign hands.
    #[inline]
    pub(super) fn lend(&self) -> &Connection {
        self.lease.loose.set(true);
        &self.connection
    }

    fn handle(&self) -> *mut ffi::sqlite3 {
        // SAFETY: only ever passed to calls that do not close it.
        unsafe { self.connection.handle() }
    }

    /// Starts a transaction and pins its snapshot.
    pub(super) fn begin(&self) -> rusqlite::Result<()> {
        self.lease.loose.set(false);
        self.run(&self.begin)
    }

    /// Goes on with the transaction that was left open, if it sees the present
    /// state and began in this round; ends it if not.
    #[inline]
    pub(super) fn resume(&self, round: u32) -> bool {
        if !self.lease.open.replace(false) {
            return false;
        }
        let current = self.lease.round.get() == round
            && self.lease.mark.get() == self.mark_now()
            // SQLite itself ends it after some errors.
            && !self.connection.is_autocommit();
        if current {
            self.lease.loose.set(false);
        } else {
            self.end();
        }
        current
    }

    /// Starts a transaction that may be left open at its end.
    pub(super) fn begin_lease(&self, round: u32) -> rusqlite::Result<()> {
        let mut before = self.mark_now();
        self.begin()?;
        if self.lease.commits.get().is_none() {
            let _ = self.lease.commits.set(CommitMark::of(&self.connection));
            // Once more, now that it is known where to look before it.
            self.end();
            before = self.mark_now();
            self.begin()?;
        }
        // A commit between the two looks may or may not be in the snapshot.
        let after = self.mark_now();
        self.lease.mark.set(after.filter(|_| before == after));
        self.lease.sees.set(before);
        self.lease.round.set(round);
        Ok(())
    }

    /// Whether nothing was committed since this was asked last.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        if self.lease.commits.get().is_none() {
            return true; // nothing is known: begin, and find out
        }
        let now = self.mark_now();
        now.is_some() && self.lease.mark.replace(now) == now
    }

    /// Leaves the transaction open for the next read, if that is likely to find
    /// it useful and nothing is running in it.
    #[inline]
    pub(super) fn leave_open(&self) -> bool {
        let mark = self.lease.mark.get();
        let useful = mark.is_some()
            && mark == self.mark_now()
            && !(self.lease.loose.get() && self.is_busy());
        self.lease.open.set(useful);
        useful
    }

    /// Ends a transaction that was left open.
    pub(super) fn rest(&self) {
        if self.lease.open.replace(false) {
            self.end();
        }
    }

    #[inline]
    fn mark_now(&self) -> Option<Mark> {
        let commits = self.lease.commits.get()?.as_ref()?;
        Some(commits.now())
    }

    /// Whether a statement is running.
    #[cold]
    fn is_busy(&self) -> bool {
        // SAFETY: the handle is open and the statements come from it.
        unsafe {
            let mut statement = ffi::sqlite3_next_stmt(self.handle(), ptr::null_mut());
            while !statement.is_null() {
                if ffi::sqlite3_stmt_busy(statement) != 0 {
                    return true;
                }
                statement = ffi::sqlite3_next_stmt(self.handle(), statement);
            }
        }
        false
    }

    /// Ends the transaction and whatever still holds on to its snapshot. Says
    /// whether the connection is fit for the next one.
    pub(super) fn end(&self) -> bool {
        if self.refusing.get() {
            self.unwatch(); // COMMIT is a statement, too
        }
        // For a transaction that wrote nothing, COMMIT and ROLLBACK are one.
        let ended = self.run(&self.commit).is_ok();
        if ended && !self.is_reading() {
            return true;
        }
        self.reset_all();
        // Somebody else may have ended it (through `connection()`).
        self.connection.is_autocommit() && !self.is_reading()
    }

    /// Whether a snapshot is pinned.
    pub(super) fn is_reading(&self) -> bool {
        // SAFETY: the handle is open; a null schema means all of them.
        let state = unsafe { ffi::sqlite3_txn_state(self.handle(), ptr::null()) };
        state != ffi::SQLITE_TXN_NONE
    }

    fn run(&self, statement: &Control) -> rusqlite::Result<()> {
        self.guard.ours.set(true);
        let code = statement.run();
        self.guard.ours.set(false);
        match code {
            ffi::SQLITE_OK => Ok(()),
            code => Err(self.failure(code)),
        }
    }

    #[cold]
    fn failure(&self, code: c_int) -> rusqlite::Error {
        failure(&self.connection, code)
    }

    /// Resets statements that were left running. A forgotten
    /// [`rusqlite::Rows`] would otherwise pin its snapshot for ever.
    #[cold]
    fn reset_all(&self) {
        // SAFETY: nobody borrows a statement now: the access they could be
        // borrowed from has ended.
        unsafe { reset_unfinished(&self.connection, |_| ()) };
        if !self.connection.is_autocommit() {
            let _ = self.run(&self.commit);
        }
    }

    /// Which tables `sql` reads: what the authorizer is asked while it is compiled.
    pub(super) fn tables_of(&self, sql: &str) -> rusqlite::Result<Vec<String>> {
        *self.guard.reads.borrow_mut() = Some(Vec::new());
        let compiled = self.connection.prepare(sql).map(drop);
        let reads = self.guard.reads.borrow_mut().take();
        compiled.map(|()| reads.unwrap_or_default())
    }

    /// Runs `run`; which tables the statements read that it compiled, which is all
    /// that it ran.
    pub(super) fn noting_tables<T>(&self, run: impl FnOnce() -> T) -> (T, Vec<String>) {
        self.connection.flush_prepared_statement_cache();
        *self.guard.reads.borrow_mut() = Some(Vec::new());
        let noting = Noting(&self.guard);
        let answer = run();
        let reads = noting.0.reads.borrow_mut().take();
        (answer, reads.unwrap_or_default())
    }

    /// Interrupts what runs from now on as soon as `patience` is exhausted.
    pub(super) fn watch(&self, patience: Box<dyn Patience + Send>, since: Instant) {
        let watch = Box::new(Watch {
            patience,
            since,
            gave_up: Cell::new(None),
        });
        let context = ptr::from_ref::<Watch>(&watch).cast_mut().cast();
        let before = self.watch.replace(Some(watch));
        // SAFETY: the handle is open. The context is on the heap, kept in
        // `self.watch` until the handler is replaced (here) or taken away
        // (`unwatch`, `drop`).
        unsafe {
            ffi::sqlite3_progress_handler(self.handle(), INSTRUCTIONS, Some(look), context);
        }
        drop(before);
    }

    /// No limits from now on.
    pub(super) fn unwatch(&self) {
        let watch = self.watch.take();
        if self.refusing.replace(false) || watch.is_some() {
            // SAFETY: the handle is open; this takes the handler away.
            unsafe { ffi::sqlite3_progress_handler(self.handle(), 0, None, ptr::null_mut()) };
        }
    }

    /// What `error`, met by a reader, means to its caller.
    #[cold]
    pub(super) fn explain(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Sqlite {
            return error;
        }
        let code = error.sqlite_code().unwrap_or(ffi::SQLITE_OK);
        if let Some(why) = crate::connection::why_unreadable(code) {
            return error.restated(ErrorKind::Sqlite, why);
        }
        match code & 0xff {
            ffi::SQLITE_INTERRUPT => match self.gave_up() {
                Some((why, how_long)) => interrupted(why, how_long),
                None => error,
            },
            ffi::SQLITE_READONLY | ffi::SQLITE_AUTH => {
                error.restated(ErrorKind::NotAllowed, NOT_ALLOWED)
            }
            _ => error,
        }
    }

    fn gave_up(&self) -> Option<(GiveUp, Duration)> {
        let watch = self.watch.borrow();
        let watch = watch.as_ref()?;
        Some((watch.gave_up.get()?, watch.since.elapsed()))
    }
}

const NOT_ALLOWED: &str = "a read cannot write, attach, change settings or control its \
                           transaction; use `write` or `exclusively`";

/// The answer to a query that ran out of patience.
pub(super) fn interrupted(why: GiveUp, how_long: Duration) -> Error {
    let error = match why {
        GiveUp::Deadline => Error::new(
            ErrorKind::DeadlineExceeded,
            "the query ran longer than its deadline allowed and was stopped",
        ),
        GiveUp::Cancelled | GiveUp::NobodyWaits => {
            Error::new(ErrorKind::Cancelled, "the query was cancelled and stopped")
        }
    };
    error.with_waited(Waited::new(WaitedFor::Query, how_long))
}

impl Drop for ReadConnection {
    fn drop(&mut self) {
        // Our two statements are finalised after this, and only these: virtual
        // tables have statements of their own on the same connection. So one whose
        // owner was forgotten (`mem::forget`) keeps SQLite from closing: that is a
        // leak.
        // SAFETY: the handle is open until after this.
        unsafe {
            ffi::sqlite3_progress_handler(self.handle(), 0, None, ptr::null_mut());
            ffi::sqlite3_set_authorizer(self.handle(), None, ptr::null_mut());
        }
    }
}

/// A progress handler that interrupts.
unsafe extern "C" fn refuse(_: *mut c_void) -> c_int {
    1
}

/// SQLite's progress handler: anything but 0 interrupts.
unsafe extern "C" fn look(context: *mut c_void) -> c_int {
    // SAFETY: `watch` registered this with a `Watch` that lives as long as the
    // registration, and SQLite calls on the thread that uses the connection.
    let watch = unsafe { &*context.cast::<Watch>() };
    let Some(why) = watch.patience.exhausted() else {
        return 0;
    };
    watch.gave_up.set(Some(why));
    1
}

/// SQLite's authorizer, called while a statement is compiled.
unsafe extern "C" fn authorize(
    context: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    schema: *const c_char,
    _within: *const c_char,
) -> c_int {
    // SAFETY: `new` registered this with a `Guard` that outlives the connection.
    let guard = unsafe { &*context.cast::<Guard>() };
    // SAFETY: SQLite passes either null or a text that lives during the call.
    let text =
        |text: *const c_char| unsafe { (!text.is_null()).then(|| CStr::from_ptr(text).to_bytes()) };
    if action == ffi::SQLITE_READ
        && let Some(reads) = &mut *guard.reads.borrow_mut()
        && let Some(table) = text(first)
    {
        let table = String::from_utf8_lossy(table);
        reads.push(match text(schema) {
            None | Some(b"main") => table.into_owned(),
            Some(schema) => format!("{}.{table}", String::from_utf8_lossy(schema)),
        });
    }
    let allowed = match action {
        ffi::SQLITE_TRANSACTION => guard.ours.get(),
        ffi::SQLITE_SAVEPOINT | ffi::SQLITE_ATTACH | ffi::SQLITE_DETACH => false,
        ffi::SQLITE_PRAGMA => text(first).is_some_and(|name| may_ask(name, text(second).is_some())),
        // The file is read-only; the temporary database is not, and what is put
        // there would be met by whoever has this connection next.
        ffi::SQLITE_INSERT | ffi::SQLITE_UPDATE | ffi::SQLITE_DELETE => {
            text(schema) != Some(b"temp")
        }
        _ => true,
    };
    if allowed {
        ffi::SQLITE_OK
    } else {
        ffi::SQLITE_DENY
    }
}

/// Pragmas that only tell something, whether or not they are given a name.
const ASKING: [&[u8]; 17] = [
    b"collation_list",
    b"compile_options",
    b"data_version",
    b"database_list",
    b"foreign_key_check",
    b"foreign_key_list",
    b"function_list",
    b"index_info",
    b"index_list",
    b"index_xinfo",
    b"integrity_check",
    b"module_list",
    b"pragma_list",
    b"quick_check",
    b"table_info",
    b"table_list",
    b"table_xinfo",
];

/// Pragmas that tell without an argument, and would set something with one.
const SETTINGS: [&[u8]; 19] = [
    b"application_id",
    b"auto_vacuum",
    b"busy_timeout",
    b"cache_size",
    b"encoding",
    b"foreign_keys",
    b"freelist_count",
    b"journal_mode",
    b"journal_size_limit",
    b"locking_mode",
    b"max_page_count",
    b"mmap_size",
    b"page_count",
    b"page_size",
    b"query_only",
    b"schema_version",
    b"synchronous",
    b"temp_store",
    b"user_version",
];

fn may_ask(pragma: &[u8], with_argument: bool) -> bool {
    let among = |names: &[&[u8]]| names.iter().any(|name| name.eq_ignore_ascii_case(pragma));
    among(&ASKING) || (!with_argument && among(&SETTINGS))
}
