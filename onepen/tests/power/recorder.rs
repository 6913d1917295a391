//! What happened to the files of one directory, in the order in which it did.
//!
//! Guarantees: every write, truncation and flush of a file in the directory that
//! goes through the C library is in the recording, with the file it was about (a
//! file is its inode: a journal that was removed and its successor of the same
//! name are two); every name that came or went is, at the first moment at which it
//! could be noticed, whichever way it was done; what the test said
//! ([`Recording::say`]) stands between what was done before and after it. When the
//! recording ends, what it says is compared with the files themselves, byte by
//! byte ([`Recording::finish`]). Other processes may take part: see `journal`.
//!
//! The `-shm` file and the gate's are not recorded: they live in mapped memory and
//! promise nothing to anybody after a crash. What they held on the way may be kept,
//! so that an image can have an old one.

mod others;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fs::File;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::disk::Disk;
use crate::journal::Journal;
use crate::told::Word;

pub type Inode = u64;
pub type Name = Arc<str>;

/// One entry of a recording.
#[derive(Clone, Debug)]
pub enum Event {
    /// A name leads to this file now.
    Named(Name, Inode),
    /// It does no more.
    Unnamed(Name, Inode),
    /// In one step.
    Renamed {
        from: Name,
        to: Name,
        inode: Inode,
    },
    Write {
        inode: Inode,
        at: u64,
        bytes: Arc<[u8]>,
    },
    Truncate {
        inode: Inode,
        length: u64,
    },
    Sync(Inode),
    /// It was tried, and the system said that it failed.
    FailedSync(Inode),
    SyncDirectory,
    Said(Word),
    /// What a file that is not recorded held at this moment.
    Volatile(Name, Arc<[u8]>),
}

/// What a call did to a file.
pub enum Change {
    Write(u64, Arc<[u8]>),
    Truncate(u64),
    /// It is at least so long now.
    Extend(u64),
    Sync,
    /// Nobody here knows what that does.
    Unknown(String),
}

impl Change {
    pub fn write(at: u64, bytes: &[u8]) -> Self {
        Self::Write(at, bytes.into())
    }
}

/// Everything that happened, and how it was before.
#[derive(Default)]
pub struct Log {
    pub events: Vec<Event>,
    /// The events from here on are the recording; those before say how it was
    /// when it began.
    pub began: usize,
}

#[derive(Default)]
struct Inner {
    log: Log,
    names: BTreeMap<Name, Inode>,
    /// Also of files that have no name any more.
    lengths: BTreeMap<Inode, u64>,
    keep_volatile: bool,
    said: usize,
    /// Ending of a name, calls that succeed first, calls that fail then.
    failing: Option<(&'static str, usize, usize)>,
    failed: usize,
    confused: Option<String>,
    /// Where other processes read it, and how much of it is there.
    journal: Option<Journal>,
    shared: usize,
}

/// What is known, for one thread of one process.
struct Open<'a> {
    inner: MutexGuard<'a, Inner>,
    _inside: Option<Inside>,
}

impl std::ops::Deref for Open<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl std::ops::DerefMut for Open<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.inner.share();
    }
}

struct Watched {
    directory: PathBuf,
    device: u64,
    inode: Inode,
    inner: Mutex<Inner>,
}

/// A recording that goes on until it is finished or dropped.
pub struct Recording(Arc<Watched>);

static ACTIVE: RwLock<Vec<Arc<Watched>>> = RwLock::new(Vec::new());
/// How many: everybody else's calls look at nothing more.
static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The recorder's own calls are not recorded.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

struct Inside;

impl Inside {
    fn enter() -> Option<Self> {
        if INSIDE.replace(true) {
            return None; // and no `Self` that would end it when it is dropped
        }
        Some(Self)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// The names that say of a file that it is in mapped memory.
fn is_volatile(name: &str) -> bool {
    name.ends_with("-shm") || name.ends_with("-gate")
}

fn watched() -> Vec<Arc<Watched>> {
    ACTIVE
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// Makes `call`, which is about `names`, and notes what names there are then.
pub fn names(names: &[&[u8]], call: impl FnOnce() -> c_int) -> c_int {
    if COUNT.load(Ordering::Acquire) == 0 {
        return call();
    }
    let Some(_inside) = Inside::enter() else {
        return call();
    };
    let is_about = |watched: &Arc<Watched>| {
        let directory = watched.directory.as_os_str().as_bytes();
        names.iter().any(|name| name.starts_with(directory))
    };
    let watched: Vec<_> = watched().into_iter().filter(is_about).collect();
    let mut locked: Vec<_> = watched
        .iter()
        .map(|watched| (watched, watched.lock()))
        .collect();
    for (watched, inner) in &mut locked {
        watched.look(inner);
    }
    TRUNCATED.set(None);
    let result = call();
    // The caller may look at it.
    let errno = std::io::Error::last_os_error();
    for (watched, inner) in &mut locked {
        watched.look(inner);
    }
    drop(locked);
    restore(&errno);
    result
}

fn restore(error: &std::io::Error) {
    // SAFETY: the address of this thread's own `errno`.
    unsafe { *libc::__errno_location() = error.raw_os_error().unwrap_or(0) };
}

/// An `open` emptied the file. Called inside of [`names`], by the call itself.
pub fn truncated_by_open(descriptor: c_int) {
    if COUNT.load(Ordering::Acquire) == 0 {
        return;
    }
    // `names` holds the lock; the next look finds this.
    TRUNCATED.set(identity(descriptor).map(|(_, inode)| inode));
}

thread_local! {
    static TRUNCATED: Cell<Option<Inode>> = const { Cell::new(None) };
}

/// Makes `call`, which changes the file behind `descriptor`, and notes the change
/// unless it failed, which it says with a negative number.
pub fn change(
    descriptor: c_int,
    call: impl FnOnce() -> isize,
    changed: impl FnOnce(isize) -> Change,
) -> isize {
    if COUNT.load(Ordering::Acquire) == 0 {
        return call();
    }
    let Some(_inside) = Inside::enter() else {
        return call();
    };
    let Some((watched, inode)) = whose(descriptor) else {
        return call();
    };
    let mut inner = watched.lock();
    watched.look(&mut inner);
    let result = call();
    let errno = std::io::Error::last_os_error();
    if result >= 0 {
        inner.note(&watched, inode, changed(result));
    }
    drop(inner);
    restore(&errno);
    result
}

/// Whether a flush of this descriptor is to fail.
pub fn fails(descriptor: c_int) -> bool {
    if COUNT.load(Ordering::Acquire) == 0 {
        return false;
    }
    let Some(_inside) = Inside::enter() else {
        return false;
    };
    let Some((watched, inode)) = whose(descriptor) else {
        return false;
    };
    let mut inner = watched.lock();
    let Some((ending, spare, left)) = inner.failing else {
        return false;
    };
    let is_meant = inner
        .names
        .iter()
        .any(|(name, of)| *of == inode && name.ends_with(ending));
    if !is_meant || left == 0 {
        return false;
    }
    if spare > 0 {
        inner.failing = Some((ending, spare - 1, left));
        return false;
    }
    inner.failing = Some((ending, 0, left - 1));
    inner.failed += 1;
    inner.log.events.push(Event::FailedSync(inode));
    true
}

fn identity(descriptor: c_int) -> Option<(u64, Inode)> {
    // SAFETY: a `stat` is made of integers, for which zeros are valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a question about a descriptor, and a place for the answer.
    let code = unsafe { libc::fstat(descriptor, &raw mut stat) };
    (code == 0).then_some((stat.st_dev, stat.st_ino))
}

/// Whose file that is, and which.
fn whose(descriptor: c_int) -> Option<(Arc<Watched>, Inode)> {
    let (device, inode) = identity(descriptor)?;
    watched().into_iter().find_map(|watched| {
        if watched.device != device {
            return None;
        }
        let knows = watched.inode == inode || {
            let mut inner = watched.lock();
            inner.lengths.contains_key(&inode) || {
                // It may have been named by a call that does not come by here.
                watched.look(&mut inner);
                inner.lengths.contains_key(&inode)
            }
        };
        knows.then_some((watched, inode))
    })
}

impl Watched {
    fn lock(&self) -> Open<'_> {
        let inside = Inside::enter();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.catch_up();
        Open {
            inner,
            _inside: inside,
        }
    }

    /// Which names there are now, and what has changed since the last look.
    fn look(&self, inner: &mut Inner) {
        let mut now = BTreeMap::new();
        match std::fs::read_dir(&self.directory) {
            Ok(entries) => {
                for entry in entries.flatten() {
                    let name = entry.file_name();
                    let name: &str = &name.to_string_lossy();
                    if !is_volatile(name) {
                        now.insert(Name::from(name), entry.ino());
                    }
                }
            }
            Err(error) => inner.confused = Some(format!("the directory: {error}")),
        }
        if let Some(inode) = TRUNCATED.take()
            && let Some(length) = inner.lengths.get_mut(&inode)
            && std::mem::take(length) > 0
        {
            inner.log.events.push(Event::Truncate { inode, length: 0 });
        }
        if now == inner.names {
            return;
        }
        let before = std::mem::take(&mut inner.names);
        let gone = |name: &Name| now.get(name) != before.get(name);
        let mut moved = Vec::new();
        for (to, &inode) in now.iter().filter(|(name, _)| gone(name)) {
            let from = before
                .iter()
                .find(|(from, was)| **was == inode && !now.contains_key(*from));
            if let Some((from, _)) = from {
                moved.push(from.clone());
                let (from, to) = (from.clone(), to.clone());
                inner.log.events.push(Event::Renamed { from, to, inode });
            } else {
                if let Some(was) = before.get(to) {
                    let unnamed = Event::Unnamed(to.clone(), *was);
                    inner.log.events.push(unnamed);
                }
                inner.log.events.push(Event::Named(to.clone(), inode));
                inner.lengths.entry(inode).or_insert(0);
            }
        }
        for (name, &inode) in &before {
            if !now.contains_key(name) && !moved.contains(name) {
                inner.log.events.push(Event::Unnamed(name.clone(), inode));
            }
        }
        inner.names = now;
    }
}

impl Inner {
    fn note(&mut self, watched: &Watched, inode: Inode, change: Change) {
        if inode == watched.inode {
            if matches!(change, Change::Sync) {
                self.log.events.push(Event::SyncDirectory);
            }
            return;
        }
        let length = self.lengths.entry(inode).or_insert(0);
        let event = match change {
            Change::Write(_, bytes) if bytes.is_empty() => return,
            Change::Write(at, bytes) => {
                *length = (*length).max(at + bytes.len() as u64);
                Event::Write { inode, at, bytes }
            }
            Change::Truncate(to) => {
                *length = to;
                Event::Truncate { inode, length: to }
            }
            Change::Extend(to) if to > *length => {
                *length = to;
                Event::Truncate { inode, length: to }
            }
            Change::Extend(_) => return,
            Change::Sync => Event::Sync(inode),
            Change::Unknown(what) => {
                self.confused = Some(what);
                return;
            }
        };
        self.log.events.push(event);
    }

    /// What the files in mapped memory hold now, read where they are mapped: to
    /// close a descriptor of one would drop the locks that SQLite has on it.
    fn copy_volatile(&mut self, directory: &Path) {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let memory = File::open("/proc/self/mem").unwrap();
        for line in maps.lines() {
            let Some((path, range)) = mapped(line) else {
                continue;
            };
            let name = path.file_name().map(|name| name.to_string_lossy());
            if path.parent() != Some(directory) || !name.as_deref().is_some_and(is_volatile) {
                continue;
            }
            let mut bytes = vec![0; (range.end - range.start).min(64 << 10) as usize];
            if let Ok(length) = memory.read_at(&mut bytes, range.start) {
                bytes.truncate(length);
                let name = Name::from(&*name.unwrap());
                self.log.events.push(Event::Volatile(name, bytes.into()));
            }
        }
    }
}

/// The file that a line of `/proc/self/maps` is about, and where its beginning is.
fn mapped(line: &str) -> Option<(&Path, Range<u64>)> {
    let path = line.find('/')?;
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let offset = words.nth(1)?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let is_beginning = number(offset)? == 0;
    is_beginning.then_some((Path::new(&line[path..]), number(from)?..number(to)?))
}

impl Recording {
    /// From now on, and with what there is. No database in the directory may be
    /// open: files are read here, and closing one drops the locks of this process.
    pub fn start(directory: &Path) -> Self {
        Self::start_with(directory, false)
    }

    /// The same; and what the files in mapped memory hold is kept now and then, when
    /// the test says something.
    pub fn with_volatile(directory: &Path) -> Self {
        Self::start_with(directory, true)
    }

    fn start_with(directory: &Path, keep_volatile: bool) -> Self {
        let directory = directory.canonicalize().unwrap();
        let meta = directory.metadata().unwrap();
        let watched = Arc::new(Watched {
            device: meta.dev(),
            inode: meta.ino(),
            directory,
            inner: Mutex::default(),
        });
        let mut inner = watched.lock();
        watched.look(&mut inner);
        for (name, inode) in inner.names.clone() {
            let bytes = std::fs::read(watched.directory.join(&*name)).unwrap();
            inner.lengths.insert(inode, bytes.len() as u64);
            let write = Event::Write {
                inode,
                at: 0,
                bytes: bytes.into(),
            };
            inner.log.events.extend([write, Event::Sync(inode)]);
        }
        inner.log.events.push(Event::SyncDirectory);
        inner.log.began = inner.log.events.len();
        inner.keep_volatile = keep_volatile;
        drop(inner);
        Self::activate(watched)
    }

    fn activate(watched: Arc<Watched>) -> Self {
        let mut active = ACTIVE.write().unwrap_or_else(PoisonError::into_inner);
        active.push(Arc::clone(&watched));
        COUNT.store(active.len(), Ordering::Release);
        Self(watched)
    }

    /// The test learned something, just now.
    pub fn say(&self, word: Word) {
        let _inside = Inside::enter();
        let mut inner = self.0.lock();
        self.0.look(&mut inner);
        if inner.keep_volatile && inner.said.is_multiple_of(16) {
            inner.copy_volatile(&self.0.directory);
        }
        inner.said += 1;
        inner.log.events.push(Event::Said(word));
    }

    /// Keeps what the files in mapped memory hold now.
    pub fn keep_volatile(&self) {
        let _inside = Inside::enter();
        self.0.lock().copy_volatile(&self.0.directory);
    }

    /// The flush of a file whose name ends so fails, after `spare` that do not,
    /// `times` times.
    pub fn fail_sync(&self, ending: &'static str, spare: usize, times: usize) {
        self.0.lock().failing = Some((ending, spare, times));
    }

    /// How many have failed.
    pub fn failed(&self) -> usize {
        self.0.lock().failed
    }

    /// Ends it. No database in the directory may be open any more.
    ///
    /// # Panics
    /// When what was recorded is not what the files are: then something changes
    /// them that the recorder does not see, and what it says proves nothing.
    pub fn finish(self) -> Log {
        let _inside = Inside::enter();
        let mut inner = self.0.lock();
        self.0.look(&mut inner);
        assert_eq!(inner.confused, None, "a call that is not understood");
        if let Some(mut journal) = inner.journal.take() {
            journal.unlock(&[]).unwrap();
        }
        let log = std::mem::take(&mut inner.log);
        drop(inner);
        let mut disk = Disk::default();
        for event in &log.events {
            disk.apply(event);
        }
        let recorded = disk.cached().files;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.0.directory).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if !is_volatile(&name) {
                let bytes = std::fs::read(entry.path()).unwrap();
                assert!(
                    recorded
                        .iter()
                        .any(|(was, recorded)| **was == *name && *recorded == bytes),
                    "{name} was changed in a way that was not recorded"
                );
                found.push(name);
            }
        }
        assert_eq!(found.len(), recorded.len(), "names that were not recorded");
        log
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let mut active = ACTIVE.write().unwrap_or_else(PoisonError::into_inner);
        active.retain(|other| !Arc::ptr_eq(other, &self.0));
        COUNT.store(active.len(), Ordering::Release);
    }
}
