//! An opened database: its file below, and what the machine needs to know of it.

use std::cell::Cell;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::ptr::{null, null_mut};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::guard::guard;
use crate::kinds::Kind;
use crate::promotion::{Action, Answer, Call, Machine, Stage, Told, Will};
use crate::sqlite::{self, Db, File, IoMethods, Vfs};
use crate::turns::Turns;
use crate::vfs::{Served, served};
use crate::waiting;

/// So long a transaction waits for its turn of which it is not known that it writes.
const PERHAPS_WAITS: Duration = Duration::from_millis(250);

/// So long a transaction may take from its first read to its first write in its turn
/// before others go on: if it is known to write, and if not.
const READS: Duration = Duration::from_secs(1);
const PERHAPS_READS: Duration = Duration::from_millis(100);

/// A log of so many frames is copied back after the commit, unless the program says
/// otherwise (`SQLITE_DEFAULT_WAL_AUTOCHECKPOINT`).
const CHECKPOINT_AT: u32 = 1000;

/// Words of the wal-index header that are compared (`WalIndexHdr`, 48 bytes).
type Header = [u64; 6];

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
    /// Where SQLite keeps the connection that uses the file now.
    db: Cell<*mut *mut Db>,
    first_db: Cell<*mut Db>,
    busy: Cell<Option<Busy>>,
    /// The first region of the wal-index, while it is mapped.
    index: Cell<*const u64>,
    remembered: Cell<Option<Header>>,
    at_write: Cell<Option<Header>>,
    kind: Cell<Option<Kind>>,
    commits: Cell<u64>,
    checkpoint_at: Cell<u32>,
    committed: Cell<bool>,
    /// The transaction that was foreseen is known to write.
    known: Cell<bool>,
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
    // SAFETY: SQLite gives as many bytes as our `file_size` says, and this is where
    // those of a `Wrapped` end.
    let below = unsafe { wrapped.add(1) }.cast::<File>();
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
        let off = |name| parameter(name).is_some_and(|value| is_off(&value));
        let promote = parameter(c"onepen_promote")
            .and_then(|value| Promote::of(&value))
            .unwrap_or_else(Promote::of_process);
        let through = off(c"onepen")
            || flags & sqlite::OPEN_READONLY != 0
            || parameter(c"cache").is_some_and(|cache| cache == b"shared");
        Self {
            methods: methods(model),
            served,
            below,
            turns: Arc::new(Turns::new(OsStr::from_bytes(path.to_bytes()).into())),
            machine: Cell::default(),
            db: Cell::new(null_mut()),
            first_db: Cell::new(null_mut()),
            busy: Cell::new(None),
            index: Cell::new(null()),
            remembered: Cell::new(None),
            at_write: Cell::new(None),
            kind: Cell::new(None),
            commits: Cell::new(0),
            checkpoint_at: Cell::new(CHECKPOINT_AT),
            committed: Cell::new(false),
            known: Cell::new(false),
            lock: Cell::new(sqlite::LOCK_NONE),
            again: Cell::new(false),
            promote: Cell::new(promote),
            through: Cell::new(through),
        }
    }

    /// The connection that uses the file now; null when none is known.
    fn db(&self) -> *mut Db {
        let place = self.db.get();
        if place.is_null() {
            return null_mut();
        }
        // SAFETY: a field of the B-tree that owns this file, as SQLite told.
        unsafe { *place }
    }

    /// A second connection uses the same cache: leave both alone.
    fn is_shared(&self) -> bool {
        let db = self.db();
        if self.first_db.get().is_null() {
            self.first_db.set(db);
        }
        db != self.first_db.get()
    }

    fn real_shm_lock(&self, offset: c_int, n: c_int, flags: c_int) -> c_int {
        // SAFETY: the file below is open, and has the method, or SQLite would not
        // have found it among ours.
        unsafe {
            match (*(*self.below).methods).shm_lock {
                Some(shm_lock) => shm_lock(self.below, offset, n, flags),
                None => sqlite::IOERR,
            }
        }
    }

    fn real_write(&self, flags: c_int) -> c_int {
        self.real_shm_lock(sqlite::SLOT_WRITE, 1, flags | sqlite::SHM_EXCLUSIVE)
    }

    fn shm_lock(&self, offset: c_int, n: c_int, flags: c_int) -> c_int {
        waiting::asked(&self.turns);
        let lock = flags & sqlite::SHM_LOCK != 0;
        let exclusive = flags & sqlite::SHM_EXCLUSIVE != 0;
        let call = match (offset, n, exclusive, lock) {
            _ if self.through.get() => None,
            (sqlite::SLOT_READ..sqlite::SLOTS, 1, false, true) => Some(Call::LockRead),
            (sqlite::SLOT_READ..sqlite::SLOTS, 1, false, false) => Some(Call::UnlockRead),
            (sqlite::SLOT_WRITE, 1, true, true) => Some(Call::LockWrite),
            (sqlite::SLOT_WRITE, 1, true, false) => Some(Call::UnlockWrite),
            (sqlite::SLOT_CHECKPOINT, 1, true, true) => Some(Call::LockCheckpoint),
            (sqlite::SLOT_CHECKPOINT, 1, true, false) => Some(Call::UnlockCheckpoint),
            _ => None,
        };
        match call {
            Some(call) => self.drive(call, || self.real_shm_lock(offset, n, flags)),
            None => self.real_shm_lock(offset, n, flags),
        }
    }

    /// The same for calls of which nothing follows but that they are passed on, as in
    /// a program that is alone nearly all are; `None` for the others. Nothing in it can
    /// panic.
    #[inline]
    fn short_shm_lock(&self, offset: c_int, n: c_int, flags: c_int) -> Option<c_int> {
        if offset < sqlite::SLOT_READ || n != 1 || waiting::does_anybody_remember() {
            return None;
        }
        let pass = || self.real_shm_lock(offset, n, flags);
        if flags & sqlite::SHM_EXCLUSIVE != 0 || self.through.get() {
            return Some(pass()); // a reader's mark
        }
        if flags & sqlite::SHM_LOCK != 0 {
            self.reads_at_once().then(|| {
                let rc = pass();
                self.committed.set(false);
                self.change(|machine| machine.short_lock_read(rc == sqlite::OK));
                rc
            })
        } else {
            (self.machine.get().may_end_at_once() && !self.turns.has_turn()).then(|| {
                let rc = pass();
                // There is no turn to pass on.
                if self.change(Machine::short_unlock_read) {
                    self.commits.set(0);
                }
                rc
            })
        }
    }

    #[inline]
    fn change<T>(&self, with: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machine = self.machine.get();
        let answer = with(&mut machine);
        self.machine.set(machine);
        answer
    }

    /// Whether nothing is to be done for the read lock that is asked for but to pass it
    /// on: a single statement reads, or writes and takes the write lock by itself.
    fn reads_at_once(&self) -> bool {
        // A connection without a place at the gate takes it the long way.
        if !self.machine.get().may_read_at_once() || !self.turns.is_seated() || self.is_shared() {
            return false;
        }
        let db = self.db();
        // SAFETY: the connection is in the middle of using this file.
        let alone = !db.is_null() && unsafe { (self.served.host.get_autocommit)(db) } != 0;
        if alone {
            self.kind.set(None);
        }
        alone
    }

    /// Does what the machine says, until it has an answer.
    fn drive(&self, call: Call, pass: impl Fn() -> c_int) -> c_int {
        let mut machine = self.machine.get();
        if call == Call::LockRead && machine.stage() == Stage::Idle && self.is_shared() {
            self.turns.leave();
            self.through.set(true);
            return pass();
        }
        let mut action = machine.ask(call);
        let mut rc = sqlite::OK;
        let mut waits = None;
        let mut upgrades = false;
        loop {
            let told = match action {
                Action::Answer(answer) => {
                    self.machine.set(machine);
                    return match answer {
                        Answer::Ok => sqlite::OK,
                        Answer::AsReal => rc,
                        Answer::NotYourTurn => {
                            waiting::refused(&self.turns);
                            sqlite::BUSY
                        }
                    };
                }
                Action::Foresee => {
                    // A place at the gate also says that this process is no stranger.
                    self.turns.seat();
                    Told::Foreseen(self.foresee())
                }
                Action::RememberHeader => {
                    self.remembered.set(self.header());
                    Told::Yes
                }
                Action::HeaderIsSame => (self.header() == self.remembered.get()).into(),
                Action::TryTurn => {
                    let yes = if upgrades {
                        self.turns.try_take()
                    } else {
                        self.turns.try_take_or_poll()
                    };
                    if yes && call == Call::LockRead {
                        self.reads_first();
                    }
                    yes.into()
                }
                Action::Wait(_) => {
                    let since = *waits.get_or_insert_with(Instant::now);
                    self.machine.set(machine);
                    self.wait(rc, since).into()
                }
                Action::BeginsTransaction => {
                    let begins = self.begins();
                    upgrades = !begins;
                    begins.into()
                }
                Action::Retries => self.retries().into(),
                Action::Pass => {
                    rc = pass();
                    self.passed(call, rc);
                    (rc == sqlite::OK).into()
                }
                Action::RealLockWrite => {
                    rc = self.real_write(sqlite::SHM_LOCK);
                    if rc == sqlite::OK {
                        self.turns.locked();
                        self.at_write.set(self.header());
                    } else {
                        waiting::refused(&self.turns);
                    }
                    (rc == sqlite::OK).into()
                }
                Action::RealUnlockWrite => {
                    self.real_write(sqlite::SHM_UNLOCK);
                    Told::Yes
                }
                Action::ExpectsCheckpoint => self.expects_checkpoint().into(),
                Action::NoCheckpointCame => {
                    self.checkpoint_at.set(u32::MAX);
                    Told::Yes
                }
                Action::Learn(wrote) => {
                    if let Some(kind) = self.kind.take() {
                        kind.learn(wrote);
                    }
                    Told::Yes
                }
                Action::PassOn => {
                    self.turns.pass_on(self.commits.take());
                    Told::Yes
                }
            };
            action = machine.told(told);
        }
    }

    /// What a call that was passed on says beside its answer.
    fn passed(&self, call: Call, rc: c_int) {
        match call {
            Call::LockCheckpoint if rc == sqlite::OK => {
                // It comes at less than expected, or was not expected any more.
                if self.committed.take()
                    && let Some(frames) = self.frames()
                {
                    self.checkpoint_at.set(self.checkpoint_at.get().min(frames));
                }
            }
            Call::LockRead => self.committed.set(false),
            _ => {}
        }
    }

    /// Whether the transaction that begins to read will write.
    fn foresee(&self) -> Will {
        let db = self.db();
        if self.promote.get() == Promote::Off || db.is_null() {
            return Will::Read;
        }
        // SAFETY: the connection is in the middle of using this file.
        if unsafe { (self.served.host.get_autocommit)(db) } != 0 {
            self.kind.set(None);
            return Will::Read; // a single statement takes the write lock at once
        }
        match self.foresee_by_statement() {
            Will::Write if self.promote.get() == Promote::Lock => Will::Write,
            Will::Write => Will::Turn,
            will => will,
        }
    }

    /// What is known of the transaction by the statement that runs.
    fn foresee_by_statement(&self) -> Will {
        let mut kind = None;
        let mut writes = false;
        self.running(|statement| {
            // SAFETY: a statement of this connection, which is inside of SQLite.
            writes = unsafe { (self.served.host.stmt_readonly)(statement) } == 0;
            kind = kind.or_else(|| Some(self.kind_of(statement)));
            writes
        });
        let will = match kind {
            _ if writes => Will::Write,
            Some(kind) => kind.will(),
            None => Will::Read, // SQLite reads the schema
        };
        self.kind.set(kind.filter(|_| !writes));
        self.known.set(will == Will::Write);
        will
    }

    /// The turn is taken for a transaction that reads first.
    fn reads_first(&self) {
        let time = if self.known.get() {
            READS
        } else {
            PERHAPS_READS
        };
        self.turns.reads_first(time);
    }

    fn text(&self, statement: *mut sqlite::Stmt) -> &[u8] {
        // SAFETY: a statement of this connection.
        let text = unsafe { (self.served.host.sql)(statement) };
        if text.is_null() {
            return b"";
        }
        // SAFETY: SQLite's string lives as long as the statement, which is running.
        unsafe { CStr::from_ptr(text) }.to_bytes()
    }

    fn kind_of(&self, statement: *mut sqlite::Stmt) -> Kind {
        Kind::of(self.text(statement))
    }

    /// Calls `with` for each running statement until it says `true`.
    fn running(&self, mut with: impl FnMut(*mut sqlite::Stmt) -> bool) {
        let db = self.db();
        let host = &self.served.host;
        let mut statement = null_mut();
        loop {
            // SAFETY: the connection's mutex is this thread's while SQLite calls us,
            // so no statement comes or goes.
            unsafe {
                statement = (host.next_stmt)(db, statement);
                if statement.is_null() {
                    return;
                }
                if (host.stmt_busy)(statement) == 0 {
                    continue;
                }
            }
            if with(statement) {
                return;
            }
        }
    }

    /// Whether the transaction whose read lock is let go only begins again.
    fn retries(&self) -> bool {
        let db = self.db();
        // SAFETY: as in `foresee`.
        if db.is_null() || unsafe { (self.served.host.get_autocommit)(db) } != 0 {
            return false;
        }
        let Some(kind) = self.kind.get() else {
            return false;
        };
        let mut same = false;
        let mut ends = false;
        self.running(|statement| {
            let text = self.text(statement).trim_ascii_start();
            let word = &text[..text.len().min(8)];
            ends |= word.eq_ignore_ascii_case(b"rollback") || !begins_with_read(word);
            same |= self.kind_of(statement) == kind;
            false
        });
        same && !ends
    }

    /// Whether no transaction is open on this file yet.
    fn begins(&self) -> bool {
        let db = self.db();
        if db.is_null() {
            return true;
        }
        let host = &self.served.host;
        // SAFETY: the connection is in the middle of using this file.
        if unsafe { (host.txn_state)(db, null()) } == sqlite::TXN_NONE {
            return true;
        }
        // One is open somewhere. Here?
        for index in 0.. {
            // SAFETY: as above.
            let name = unsafe { (host.db_name)(db, index) };
            if name.is_null() {
                break;
            }
            let mut file: *mut File = null_mut();
            // SAFETY: this file control stores a pointer.
            unsafe {
                (host.file_control)(
                    db,
                    name,
                    sqlite::FCNTL_FILE_POINTER,
                    (&raw mut file).cast::<c_void>(),
                );
            }
            let ours = !file.is_null() && {
                // SAFETY: a file of the connection, which is open.
                let methods = unsafe { (*file).methods };
                std::ptr::eq(methods, &raw const self.methods)
            };
            if ours {
                // SAFETY: as above.
                return unsafe { (host.txn_state)(db, name) } == sqlite::TXN_NONE;
            }
        }
        false
    }

    /// Calls the connection's busy handler, as SQLite does when a lock is refused.
    fn wait(&self, rc: c_int, since: Instant) -> bool {
        let patient = matches!(rc & 0xff, sqlite::OK | sqlite::BUSY)
            && (self.known.get() || since.elapsed() < PERHAPS_WAITS)
            && self.has_no_other_transaction();
        let again = patient
            && self.busy.get().is_some_and(|busy| {
                waiting::refused(&self.turns);
                // SAFETY: SQLite said that this may be called so.
                unsafe { (busy.handler)(busy.argument) != 0 }
            });
        if !again {
            self.turns.leave();
            waiting::over();
        }
        again
    }

    /// Who has another database's lock must not stand in line for this one's: the
    /// next could do it the other way round.
    fn has_no_other_transaction(&self) -> bool {
        let db = self.db();
        // SAFETY: as in `begins`.
        !db.is_null() && unsafe { (self.served.host.txn_state)(db, null()) } == sqlite::TXN_NONE
    }

    /// The header of the wal-index, while it is mapped.
    fn header(&self) -> Option<Header> {
        let index = self.index.get();
        if index.is_null() {
            return None;
        }
        // SAFETY: the first region is mapped until `xShmUnmap`, is larger than this
        // and aligned to a page. Others write to it, so it is read word by word and
        // without assumptions; what is torn compares as different.
        Some(std::array::from_fn(|word| unsafe {
            index.add(word).read_volatile()
        }))
    }

    /// Frames in the log.
    fn frames(&self) -> Option<u32> {
        let header = self.header()?;
        let bytes = header[2].to_ne_bytes();
        Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Whether SQLite is going to copy the log back after this commit.
    fn expects_checkpoint(&self) -> bool {
        let now = self.header();
        let committed = now != self.at_write.take();
        self.committed.set(committed);
        self.commits.set(u64::from(committed));
        let frames = self.frames().unwrap_or(0);
        committed && frames >= self.checkpoint_at.get()
    }

    /// A lock on the database file itself: those of a rollback journal's readers and
    /// writers. Nothing is ever locked here that the core did not ask for: a lock of
    /// our own would hide a hot journal from it (`hasHotJournal`).
    fn lock(&self, level: c_int) -> c_int {
        waiting::asked(&self.turns);
        let from = self.lock.get();
        let begins = from == sqlite::LOCK_NONE && level == sqlite::LOCK_SHARED;
        let reserves = from == sqlite::LOCK_SHARED && level == sqlite::LOCK_RESERVED;
        if self.through.get() || !(begins || reserves) {
            return self.real_lock(level);
        }
        let mut writes = reserves;
        if begins {
            self.again.set(false);
            if self.is_shared() {
                self.through.set(true);
                return self.real_lock(level);
            }
            writes = self.take_turn_to_begin();
        } else if !self.begins() {
            self.turns.try_take_by_the_way();
        } else if !self.turns.try_take_or_poll() {
            waiting::refused(&self.turns);
            return sqlite::BUSY;
        }
        let rc = self.real_lock(level);
        if rc == sqlite::OK {
            if reserves {
                self.turns.locked();
            }
        } else if writes {
            // Whoever writes waits in line, also for a reader's lock.
            self.again.set(true);
            waiting::refused(&self.turns);
        }
        rc
    }

    /// Before a transaction's first lock on the database file: waits for the turn if
    /// it will write. Says whether it will.
    fn take_turn_to_begin(&self) -> bool {
        let db = self.db();
        if db.is_null() {
            return false;
        }
        // SAFETY: the connection is in the middle of using this file.
        let alone = unsafe { (self.served.host.get_autocommit)(db) } != 0;
        let will = self.foresee_by_statement();
        if alone || self.promote.get() == Promote::Off {
            // What it will do later does not matter, only what it does now.
            let reads = self.kind.take().is_some();
            if reads || will == Will::Read {
                return false;
            }
        } else if will == Will::Read {
            return false;
        }
        self.turns.seat();
        let since = Instant::now();
        while !self.turns.try_take_or_poll() {
            if !self.wait(sqlite::OK, since) {
                return self.known.get();
            }
        }
        self.reads_first();
        true
    }

    fn real_lock(&self, level: c_int) -> c_int {
        // SAFETY: the file below is open.
        let rc = unsafe {
            match (*(*self.below).methods).lock {
                Some(lock) => lock(self.below, level),
                None => sqlite::OK,
            }
        };
        if rc == sqlite::OK {
            self.lock.set(self.lock.get().max(level));
        }
        rc
    }

    fn unlock(&self, level: c_int) -> c_int {
        // SAFETY: the file below is open.
        let rc = unsafe {
            match (*(*self.below).methods).unlock {
                Some(unlock) => unlock(self.below, level),
                None => sqlite::OK,
            }
        };
        let from = self.lock.get();
        self.lock.set(level.min(from));
        let wrote = from >= sqlite::LOCK_RESERVED && level < sqlite::LOCK_RESERVED;
        let ends = from > sqlite::LOCK_NONE && level == sqlite::LOCK_NONE;
        if (wrote || ends)
            && let Some(kind) = self.kind.take()
        {
            kind.learn(wrote);
        }
        if wrote || ends && !self.again.get() {
            self.turns.pass_on(u64::from(wrote));
        }
        rc
    }

    /// `PRAGMA onepen` and `PRAGMA onepen_promote`: the answer, or `None` for another.
    fn pragma(&self, name: &[u8], value: Option<&[u8]>) -> Option<&'static CStr> {
        if name.eq_ignore_ascii_case(b"onepen") {
            return Some(if self.through.get() {
                c"off"
            } else if self.turns.seat().is_some() {
                c"on"
            } else {
                c"no place at the gate"
            });
        }
        if !name.eq_ignore_ascii_case(b"onepen_promote") {
            return None;
        }
        if let Some(promote) = value.and_then(Promote::of) {
            self.promote.set(promote);
            if promote != Promote::Lock && !self.through.get() {
                self.drive(Call::Demote, || sqlite::OK);
            }
        }
        Some(self.promote.get().name())
    }

    fn end(&self) {
        if !self.through.get() {
            self.drive(Call::Close, || sqlite::OK);
        }
        waiting::over();
        self.index.set(null());
    }
}

/// Whether the text may be a statement that reads: not one that ends a transaction.
fn begins_with_read(word: &[u8]) -> bool {
    let is =
        |start: &[u8]| word.len() >= start.len() && word[..start.len()].eq_ignore_ascii_case(start);
    !is(b"commit") && !is(b"end") && !is(b"release")
}

/// What is done for transactions that read first and write later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promote {
    /// Nothing: they begin as they do without us.
    Off,
    /// They get the turn at their first read.
    Turn,
    /// They get the write lock as well, once they are known to write.
    Lock,
}

impl Promote {
    fn of(value: &[u8]) -> Option<Self> {
        if is_off(value) {
            Some(Self::Off)
        } else if value.eq_ignore_ascii_case(b"lock") {
            Some(Self::Lock)
        } else if [&b"turn"[..], b"on", b"1", b"yes", b"true"]
            .iter()
            .any(|on| value.eq_ignore_ascii_case(on))
        {
            Some(Self::Turn)
        } else {
            None
        }
    }

    /// Where nothing is said of the connection.
    fn of_process() -> Self {
        static SAID: OnceLock<Promote> = OnceLock::new();
        *SAID.get_or_init(|| {
            std::env::var_os("ONEPEN_PROMOTE")
                .and_then(|value| Self::of(value.as_bytes()))
                .unwrap_or(Self::Turn)
        })
    }

    fn name(self) -> &'static CStr {
        match self {
            Self::Off => c"off",
            Self::Turn => c"turn",
            Self::Lock => c"lock",
        }
    }
}

/// As SQLite reads a boolean of a URI.
fn is_off(value: &[u8]) -> bool {
    [&b"0"[..], b"off", b"no", b"false"]
        .iter()
        .any(|off| value.eq_ignore_ascii_case(off))
}

/// Our methods over those of a file below: of the same version, with the same ones
/// missing, because SQLite asks for what is there.
fn methods(model: &IoMethods) -> IoMethods {
    let two = model.version >= 2;
    let three = model.version >= 3;
    IoMethods {
        version: model.version.clamp(1, 3),
        close: Some(close),
        read: Some(read),
        write: Some(write),
        truncate: Some(truncate),
        sync: Some(sync),
        file_size: Some(file_size),
        lock: Some(lock),
        unlock: Some(unlock),
        check_reserved_lock: Some(check_reserved_lock),
        file_control: Some(file_control),
        sector_size: model.sector_size.and(Some(sector_size)),
        device_characteristics: model
            .device_characteristics
            .and(Some(device_characteristics)),
        shm_map: if two {
            model.shm_map.and(Some(shm_map))
        } else {
            None
        },
        shm_lock: if two {
            model.shm_lock.and(Some(shm_lock))
        } else {
            None
        },
        shm_barrier: if two {
            model.shm_barrier.and(Some(shm_barrier))
        } else {
            None
        },
        shm_unmap: if two {
            model.shm_unmap.and(Some(shm_unmap))
        } else {
            None
        },
        fetch: if three {
            model.fetch.and(Some(fetch))
        } else {
            None
        },
        unfetch: if three {
            model.unfetch.and(Some(unfetch))
        } else {
            None
        },
    }
}

/// A call of the file below with the same arguments.
macro_rules! below {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $answer:ty, $none:expr)?;)*) => {$(
        unsafe extern "C" fn $name(file: *mut File, $($argument: $type),*) $(-> $answer)? {
            // SAFETY: SQLite calls it with a file of ours that is open and with
            // arguments for this very method, which the file below takes as well.
            unsafe {
                let below = parts(file).below;
                match (*(*below).methods).$name {
                    Some(method) => method(below, $($argument),*),
                    None => { $($none)? }
                }
            }
        }
    )*};
}

below! {
    read(into: *mut c_void, bytes: c_int, offset: i64) -> c_int, sqlite::IOERR;
    write(from: *const c_void, bytes: c_int, offset: i64) -> c_int, sqlite::IOERR;
    truncate(bytes: i64) -> c_int, sqlite::IOERR;
    sync(flags: c_int) -> c_int, sqlite::IOERR;
    file_size(bytes: *mut i64) -> c_int, sqlite::IOERR;
    check_reserved_lock(found: *mut c_int) -> c_int, sqlite::IOERR;
    sector_size() -> c_int, 0;
    device_characteristics() -> c_int, 0;
    shm_barrier();
    fetch(offset: i64, bytes: c_int, at: *mut *mut c_void) -> c_int, sqlite::IOERR;
    unfetch(offset: i64, at: *mut c_void) -> c_int, sqlite::IOERR;
}

unsafe extern "C" fn close(file: *mut File) -> c_int {
    let wrapped = file.cast::<Wrapped>();
    // SAFETY: SQLite closes an open file once; after that it does not touch it.
    let open = unsafe { Box::from_raw((*wrapped).open) };
    guard((), || open.end());
    // SAFETY: the file below is open, and is closed here once.
    let rc = unsafe {
        let close = (*(*open.below).methods).close;
        (*wrapped).file.methods = null();
        close.map_or(sqlite::OK, |close| close(open.below))
    };
    // The seat's drop passes a turn on.
    let mut open = ManuallyDrop::new(open);
    guard((), || {
        // SAFETY: it is dropped here and nowhere else.
        unsafe { ManuallyDrop::drop(&mut open) };
    });
    rc
}

unsafe extern "C" fn shm_lock(file: *mut File, offset: c_int, n: c_int, flags: c_int) -> c_int {
    // SAFETY: SQLite calls it with a file of ours that is open.
    let open = unsafe { parts(file) };
    match open.short_shm_lock(offset, n, flags) {
        Some(rc) => rc,
        None => guarded_shm_lock(open, offset, n, flags),
    }
}

/// Apart, because it would weigh down the short way.
#[inline(never)]
fn guarded_shm_lock(open: &Open, offset: c_int, n: c_int, flags: c_int) -> c_int {
    guard(sqlite::IOERR, || open.shm_lock(offset, n, flags))
}

unsafe extern "C" fn shm_map(
    file: *mut File,
    region: c_int,
    size: c_int,
    extend: c_int,
    at: *mut *mut c_void,
) -> c_int {
    // SAFETY: as above; the arguments are SQLite's.
    unsafe {
        let open = parts(file);
        let Some(shm_map) = (*(*open.below).methods).shm_map else {
            return sqlite::IOERR;
        };
        let rc = shm_map(open.below, region, size, extend, at);
        if region == 0 && rc == sqlite::OK && !at.is_null() {
            open.index.set((*at).cast::<u64>().cast_const());
        }
        rc
    }
}

unsafe extern "C" fn shm_unmap(file: *mut File, delete: c_int) -> c_int {
    // SAFETY: as above.
    let open = unsafe { parts(file) };
    guard((), || open.end());
    // SAFETY: as above.
    unsafe {
        let shm_unmap = (*(*open.below).methods).shm_unmap;
        shm_unmap.map_or(sqlite::OK, |shm_unmap| shm_unmap(open.below, delete))
    }
}

unsafe extern "C" fn lock(file: *mut File, level: c_int) -> c_int {
    // SAFETY: as above.
    let open = unsafe { parts(file) };
    guard(sqlite::IOERR, || open.lock(level))
}

unsafe extern "C" fn unlock(file: *mut File, level: c_int) -> c_int {
    // SAFETY: as above.
    let open = unsafe { parts(file) };
    guard(sqlite::IOERR, || open.unlock(level))
}

unsafe extern "C" fn file_control(file: *mut File, code: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: as above.
    let open = unsafe { parts(file) };
    match code {
        sqlite::FCNTL_PDB if !argument.is_null() => open.db.set(argument.cast::<*mut Db>()),
        sqlite::FCNTL_BUSYHANDLER if !argument.is_null() => {
            // SAFETY: for this code the argument is an array of two pointers, a
            // function and what it takes, to be used for as long as the file is open.
            open.busy.set(unsafe {
                let pair = argument.cast::<*mut c_void>();
                let handler = pair.read();
                (!handler.is_null()).then(|| Busy {
                    handler: std::mem::transmute::<
                        *mut c_void,
                        unsafe extern "C" fn(*mut c_void) -> c_int,
                    >(handler),
                    argument: pair.add(1).read(),
                })
            });
        }
        sqlite::FCNTL_PRAGMA if !argument.is_null() => {
            // SAFETY: for this code the argument is an array of three strings: where
            // the answer goes, the name, and the value or null.
            let [name, value] = unsafe {
                let strings = argument.cast::<*const c_char>();
                [strings.add(1).read(), strings.add(2).read()]
            };
            if !name.is_null() {
                // SAFETY: not null, so strings of SQLite's.
                let name = unsafe { CStr::from_ptr(name) }.to_bytes();
                // SAFETY: as above.
                let value = (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes());
                if let Some(answer) = guard(None, || open.pragma(name, value)) {
                    let answer = answer.to_bytes_with_nul();
                    // SAFETY: SQLite frees the answer as its own memory; it is
                    // copied into as much as was asked for.
                    unsafe {
                        let copy = (open.served.host.malloc)(answer.len() as c_int);
                        if copy.is_null() {
                            return sqlite::NOMEM;
                        }
                        std::ptr::copy_nonoverlapping(answer.as_ptr(), copy.cast(), answer.len());
                        argument.cast::<*mut c_void>().write(copy);
                    }
                    return sqlite::OK;
                }
            }
        }
        // Where SQLite would block in a lock itself it would do so out of turn.
        sqlite::FCNTL_LOCK_TIMEOUT if !open.through.get() => return sqlite::NOTFOUND,
        _ => {}
    }
    // SAFETY: as above.
    unsafe {
        let file_control = (*(*open.below).methods).file_control;
        file_control.map_or(sqlite::NOTFOUND, |file_control| {
            file_control(open.below, code, argument)
        })
    }
}
