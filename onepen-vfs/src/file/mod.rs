//! One opened database: its life, and what is known of it between two of SQLite's calls.
//!
//! [`open`] puts a file of ours over one of the VFS below, and `close` takes both away.
//! What SQLite calls in between is in rooms of its own:
//!
//! | room | subject |
//! |---|---|
//! | `methods` | the table of methods that SQLite calls, and what it tells by file controls |
//! | `shm` | locks of write-ahead mode: drives the machine of [`crate::promotion`] |
//! | `journal` | locks of a rollback journal |
//! | `others` | several databases in one transaction |
//! | `foresee` | which transaction begins, by the statement that runs |
//! | `wal_index` | what the header of the wal-index says |
//! | `switches` | URI parameters, PRAGMAs and environment |

mod foresee;
mod journal;
mod methods;
mod others;
mod shm;
mod switches;
mod wal_index;

use std::cell::Cell;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::time::Instant;

use crate::guard::guard;
use crate::kinds::{Kind, Lately};
use crate::promotion::{Call, Machine, Will};
use crate::sqlite::{self, Db, File, IoMethods, Vfs};
use crate::turns::Turns;
use crate::vfs::{Served, served};
use crate::waiting;
use switches::Promote;
use wal_index::Header;

/// A log of so many frames is copied back after the commit, unless the program says
/// otherwise (`SQLITE_DEFAULT_WAL_AUTOCHECKPOINT`).
const CHECKPOINT_AT: u32 = 1000;

/// `sqlite3_file`, as SQLite sees it. The file below follows it in memory.
#[repr(C, align(8))]
struct Wrapped {
    file: File,
    open: *mut Open,
}

/// One open database. Used by one thread at a time, as SQLite uses its files.
struct Open {
    methods: IoMethods,
    served: &'static Served,
    below: *mut File,
    turns: Arc<Turns>,
    machine: Cell<Machine>,
    /// Of the next call for a read lock, if that has nothing to do but to pass it on: its
    /// flags. See [`shm`].
    short: Cell<c_int>,
    /// Where SQLite keeps the connection that uses the file now.
    db: Cell<*mut *mut Db>,
    first_db: Cell<*mut Db>,
    busy: Cell<Option<Busy>>,
    /// The first region of the wal-index, while it is mapped.
    index: Cell<*const u64>,
    remembered: Cell<Option<Header>>,
    at_write: Cell<Option<u64>>,
    kind: Cell<Option<Kind>>,
    kinds: Cell<Lately>,
    /// What was foreseen on the short way, which was none.
    foreseen: Cell<Option<Will>>,
    /// The kind of the explicit transaction that begins, whether it writes at once or not.
    first_kind: Cell<Option<Kind>>,
    /// The same, from its first read to its end, on a connection with several databases.
    several: Cell<Option<Kind>>,
    /// It went on to another one.
    went_on: Cell<bool>,
    /// When the transaction that reads first got its turn.
    reads_since: Cell<Option<Instant>>,
    /// When it was foreseen, if that was asked for.
    foreseen_at: Cell<Option<Instant>>,
    commits: Cell<u64>,
    checkpoint_at: Cell<u32>,
    committed: Cell<bool>,
    /// The transaction that was foreseen is known to write.
    known: Cell<bool>,
    /// When it is time to look for strangers again.
    look_at: Cell<Option<Instant>>,
    /// The level of the lock on the database file.
    lock: Cell<c_int>,
    /// The turn is kept while that is let go: the core comes again.
    again: Cell<bool>,
    promote: Cell<Promote>,
    /// Everything is passed on as it comes.
    through: Cell<bool>,
}

#[derive(Clone, Copy)]
struct Busy {
    handler: unsafe extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
}

/// Bytes of a file of ours over one of `below` bytes.
pub fn size(below: c_int) -> c_int {
    size_of::<Wrapped>() as c_int + below
}

/// # Safety
/// `file` has to be one that [`open`] opened and nobody closed.
unsafe fn parts<'a>(file: *mut File) -> &'a Open {
    // SAFETY: it is the first field of a `Wrapped`, whose `open` lives until close.
    unsafe { &*(*file.cast::<Wrapped>()).open }
}

/// The file below a file of ours: it follows it in memory.
///
/// # Safety
/// `file` has to be one that SQLite gave to [`open`].
#[inline]
unsafe fn below(file: *mut File) -> *mut File {
    // SAFETY: SQLite gives as many bytes as our `file_size` says, and this is where
    // those of a `Wrapped` end.
    unsafe { file.cast::<Wrapped>().add(1).cast() }
}

/// `xOpen`.
pub unsafe extern "C" fn open(
    vfs: *mut Vfs,
    name: *const c_char,
    file: *mut File,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls it with our VFS.
    let served = unsafe { served(vfs) };
    // SAFETY: the VFS below is one of SQLite's.
    let Some(open_below) = (unsafe { (*served.below).open }) else {
        return sqlite::ERROR;
    };
    if flags & sqlite::OPEN_MAIN_DB == 0 || name.is_null() {
        // SAFETY: the memory is large enough for a file of the VFS below.
        return unsafe { open_below(served.below, name, file, flags, out_flags) };
    }
    let wrapped = file.cast::<Wrapped>();
    // SAFETY: it is.
    let below = unsafe { below(file) };
    // SAFETY: as above.
    unsafe {
        (*file).methods = null();
        (*below).methods = null();
    }
    let mut found = 0;
    // SAFETY: the arguments are SQLite's.
    let rc = unsafe { open_below(served.below, name, below, flags, &raw mut found) };
    if !out_flags.is_null() {
        // SAFETY: SQLite's variable.
        unsafe { *out_flags = found };
    }
    // SAFETY: the VFS below leaves null or its methods there.
    let methods = unsafe { (*below).methods };
    if methods.is_null() {
        return if rc == sqlite::OK { sqlite::ERROR } else { rc };
    }
    // SAFETY: not null, so methods of the VFS below.
    let model = unsafe { &*methods };
    let made = (rc == sqlite::OK)
        .then(|| guard(None, || Some(Open::new(served, below, name, found, model))))
        .flatten();
    let Some(made) = made else {
        // SAFETY: whoever has methods has to be closed.
        unsafe { model.close.map(|close| close(below)) };
        return if rc == sqlite::OK { sqlite::NOMEM } else { rc };
    };
    let made = Box::into_raw(Box::new(made));
    // SAFETY: the memory is ours, and `made` lives until `close`.
    unsafe {
        (*wrapped).open = made;
        (*wrapped).file.methods = &raw const (*made).methods;
    }
    sqlite::OK
}

impl Open {
    fn new(
        served: &'static Served,
        below: *mut File,
        name: *const c_char,
        flags: c_int,
        model: &IoMethods,
    ) -> Self {
        // SAFETY: a name given to `xOpen` ends in 0.
        let path = unsafe { CStr::from_ptr(name) };
        let parameter = |parameter: &CStr| {
            // SAFETY: the name of a main database may be asked for its parameters.
            let value = unsafe { (served.host.uri_parameter)(name, parameter.as_ptr()) };
            // SAFETY: not null, so a string of SQLite's.
            (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes().to_vec())
        };
        let off = |name| parameter(name).is_some_and(|value| switches::is_off(&value));
        let promote = parameter(c"onepen_promote")
            .and_then(|value| Promote::of(&value))
            .unwrap_or_else(Promote::of_process);
        let through = off(c"onepen")
            || flags & sqlite::OPEN_READONLY != 0
            || parameter(c"cache").is_some_and(|cache| cache == b"shared");
        Self {
            methods: methods::methods(model),
            served,
            below,
            turns: Arc::new(Turns::new(OsStr::from_bytes(path.to_bytes()).into())),
            machine: Cell::default(),
            short: Cell::new(shm::NEITHER),
            db: Cell::new(null_mut()),
            first_db: Cell::new(null_mut()),
            busy: Cell::new(None),
            index: Cell::new(null()),
            remembered: Cell::new(None),
            at_write: Cell::new(None),
            kind: Cell::new(None),
            kinds: Cell::default(),
            foreseen: Cell::new(None),
            first_kind: Cell::new(None),
            several: Cell::new(None),
            went_on: Cell::new(false),
            reads_since: Cell::new(None),
            foreseen_at: Cell::new(None),
            commits: Cell::new(0),
            checkpoint_at: Cell::new(CHECKPOINT_AT),
            committed: Cell::new(false),
            known: Cell::new(false),
            look_at: Cell::new(None),
            lock: Cell::new(sqlite::LOCK_NONE),
            again: Cell::new(false),
            promote: Cell::new(promote),
            through: Cell::new(through),
        }
    }

    /// The connection that uses the file now; null when none is known.
    #[inline]
    fn db(&self) -> *mut Db {
        let place = self.db.get();
        if place.is_null() {
            return null_mut();
        }
        // SAFETY: a field of the B-tree that owns this file, as SQLite told.
        unsafe { *place }
    }

    /// A second connection uses the same cache: leave both alone.
    #[inline]
    fn is_shared(&self) -> bool {
        let db = self.db();
        if self.first_db.get().is_null() {
            self.first_db.set(db);
        }
        db != self.first_db.get()
    }

    /// `with` has to be one of the machine's own methods, which come back to nothing here.
    #[inline(always)]
    fn change<T>(&self, with: impl FnOnce(&mut Machine) -> T) -> T {
        // In place: to copy bytes that were just written one by one, the processor has to
        // wait for them.
        // SAFETY: the file is used by one thread at a time, and nothing else gets at the
        // machine while `with` runs.
        with(unsafe { &mut *self.machine.as_ptr() })
    }

    /// The same for what changes nothing.
    #[inline(always)]
    fn ask<T>(&self, with: impl FnOnce(&Machine) -> T) -> T {
        self.change(|machine| with(machine))
    }

    fn end(&self) {
        if !self.through.get() {
            self.drive(Call::Close, || sqlite::OK);
        }
        waiting::over();
        self.short.set(shm::NEITHER);
        self.index.set(null());
    }
}
