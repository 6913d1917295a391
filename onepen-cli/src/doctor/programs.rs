//! The processes that have the database open, and the SQLite in them.
//!
//! Guarantees: everything is read from `/proc` and from the programs' own files,
//! nothing of the processes is touched or stopped; what could not be looked at
//! is said.
//!
//! Which SQLite a process uses is *inferred*: every build of the library has its
//! source id in it (a date, a time, and a hash), so the files that are mapped
//! for execution are searched for one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onepen_lock::holders::{self, Process, beside};

use crate::files::{Files, open};

/// A process that has the database open.
#[derive(Clone, Debug)]
pub struct User {
    pub process: Process,
    /// Descriptors of the database, and of its `-shm` file.
    pub descriptors: usize,
    pub of_shared_memory: usize,
    /// Files of the database that it has open and that have no name any more.
    pub deleted: Vec<String>,
    /// `cache=shared` stands in its arguments or its environment.
    pub shared_cache: bool,
    /// Every copy of SQLite in it; `None` when that could not be seen.
    pub libraries: Option<Vec<Library>>,
}

/// A copy of SQLite.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Library {
    /// The file it is in.
    pub file: String,
    /// The day its source was checked in, from the source id.
    pub day: String,
    /// Its version, if the file names just one that it can be.
    pub version: Option<String>,
}

impl Library {
    /// Whether it can corrupt a log that two connections write and checkpoint at
    /// the same moment: 3.7.0 to 3.51.2. The fix is of 2026-03-03, and was taken
    /// into older series later than that
    /// (<https://www.sqlite.org/wal.html#walresetbug>).
    pub fn has_wal_reset_bug(&self) -> bool {
        ("2010-07-21".."2026-03-03").contains(&self.day.as_str())
    }

    pub fn name(&self) -> String {
        match &self.version {
            Some(version) => format!("SQLite {version} ({})", self.file),
            None => format!("SQLite of {} ({})", self.day, self.file),
        }
    }
}

/// Who has it open, and what could not be seen of that.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    pub users: Vec<User>,
    pub unseen: Vec<String>,
}

/// Searching all libraries of all users takes no longer.
const BUDGET: Duration = Duration::from_secs(1);
/// Nor is more read of one of them.
const LARGEST: u64 = 512 << 20;

/// Looks through all processes; `holders` are those known to have a lock.
pub fn look(files: &Files, holders: &BTreeSet<u32>) -> Programs {
    let mut programs = Programs::default();
    let mut search = Search::new();
    let mut refused = 0;
    let names = Names::of(files);
    let this = std::process::id();
    for pid in holders::processes().filter(|pid| *pid != this) {
        let open = match names.open_in(pid) {
            Ok(open) => open,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                refused += 1;
                if !holders.contains(&pid) {
                    continue;
                }
                Open::default()
            }
            Err(_) => continue, // it has ended
        };
        if open.is_nothing() && !holders.contains(&pid) {
            continue;
        }
        let Ok(process) = Process::look(pid) else {
            continue;
        };
        let libraries = search.libraries(pid).map_err(|error| {
            programs
                .unseen
                .push(format!("which SQLite is in {process} ({error})"));
        });
        programs.users.push(User {
            shared_cache: asks_for_shared_cache(pid),
            process,
            descriptors: open.database,
            of_shared_memory: open.shared_memory,
            deleted: open.deleted.into_iter().collect(),
            libraries: libraries.ok(),
        });
    }
    if refused > 0 {
        programs.unseen.push(format!(
            "which files {refused} processes of other users have open (run as root to see them)"
        ));
    }
    if search.skipped > 0 {
        programs.unseen.push(format!(
            "whether there is SQLite in {} more files: time was over",
            search.skipped
        ));
    }
    programs
}

impl Programs {
    /// Looks again at what may have been passing: SQLite removes the `-shm` file
    /// and the log an instant before it closes them.
    pub fn look_again(&mut self, files: &Files) {
        let names = Names::of(files);
        for user in &mut self.users {
            if let Ok(open) = names.open_in(user.process.pid) {
                user.deleted.retain(|file| open.deleted.contains(file));
                user.of_shared_memory = user.of_shared_memory.min(open.shared_memory);
                user.descriptors = user.descriptors.min(open.database);
            }
        }
    }
}

/// The files of the database by which descriptors are known.
struct Names {
    database: PathBuf,
    by_inode: HashMap<(u64, u64), usize>,
    endings: [(&'static str, PathBuf); 3],
}

#[derive(Default)]
struct Open {
    database: usize,
    shared_memory: usize,
    deleted: BTreeSet<String>,
}

impl Open {
    fn is_nothing(&self) -> bool {
        self.database == 0 && self.shared_memory == 0 && self.deleted.is_empty()
    }
}

impl Names {
    fn of(files: &Files) -> Self {
        let known = [Some(files.database), files.wal, files.shared_memory];
        Self {
            database: files.path.clone(),
            by_inode: known
                .iter()
                .enumerate()
                .filter_map(|(at, facts)| facts.map(|it| ((it.device, it.inode), at)))
                .collect(),
            endings: ["", "-wal", "-shm"].map(|ending| (ending, beside(&files.path, ending))),
        }
    }

    /// # Errors
    /// When its descriptors may not be looked at.
    fn open_in(&self, pid: u32) -> io::Result<Open> {
        let mut open = Open::default();
        let name = self.database.file_name().unwrap_or_default().as_bytes();
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let entry = entry?.path();
            let Ok(target) = fs::read_link(&entry) else {
                continue; // closed meanwhile
            };
            // Only what is called like it is looked at closer: `stat` may hang
            // on other files.
            let last = target.file_name().unwrap_or_default().as_bytes();
            if !last.starts_with(name) {
                continue;
            }
            if let Some(there) = target.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
                let gone = |(_, path): &&(_, PathBuf)| path.as_os_str().as_bytes() == there;
                if let Some((_, path)) = self.endings.iter().find(gone) {
                    open.deleted.insert(path.display().to_string());
                }
                continue;
            }
            let Ok(meta) = fs::metadata(&entry) else {
                continue;
            };
            match self.by_inode.get(&(meta.dev(), meta.ino())) {
                Some(0) => open.database += 1,
                Some(2) => open.shared_memory += 1,
                _ => {}
            }
        }
        Ok(open)
    }
}

/// Whether a process was told to share its cache: by an address in its
/// arguments or its environment. What its code says is not seen.
fn asks_for_shared_cache(pid: u32) -> bool {
    ["cmdline", "environ"].iter().any(|file| {
        fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|text| {
            text.windows(b"cache=shared".len())
                .any(|part| part == b"cache=shared")
        })
    })
}

/// Finds SQLite in files, each file once.
struct Search {
    began: Instant,
    known: BTreeMap<(u64, u64), Option<Library>>,
    skipped: usize,
}

impl Search {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            known: BTreeMap::new(),
            skipped: 0,
        }
    }

    fn libraries(&mut self, pid: u32) -> io::Result<Vec<Library>> {
        let maps = fs::read(format!("/proc/{pid}/maps"))?;
        let maps = String::from_utf8_lossy(&maps);
        let mut mapped: Vec<Mapped> = mapped_programs(&maps);
        // The likely first: time may be over before the others.
        mapped.sort_by_key(|file| !file.path.contains("sqlite"));
        let mut found = BTreeSet::new();
        for file in mapped {
            if let Some(known) = self.known.get(&file.id()) {
                found.extend(known.clone());
                continue;
            }
            if self.began.elapsed() > BUDGET {
                self.skipped += 1;
                continue;
            }
            let found_in = source_in(|| file.open(pid)).ok().flatten();
            let library = found_in.map(|(day, version)| Library {
                file: file.path.clone(),
                day,
                version,
            });
            found.extend(library.clone());
            self.known.insert(file.id(), library);
        }
        Ok(found.into_iter().collect())
    }
}

/// A file whose code a process can run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mapped {
    device: u64,
    inode: u64,
    path: String,
}

impl Mapped {
    fn id(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// The file as the process sees it, if it still is the same one.
    fn open(&self, pid: u32) -> io::Result<impl Read + use<>> {
        let there = PathBuf::from(format!("/proc/{pid}/root{}", self.path));
        let file = open(&there).or_else(|_| open(Path::new(&self.path)))?;
        match file.metadata()?.ino() == self.inode {
            true => Ok(file.take(LARGEST)),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// The files in the text of `/proc/PID/maps` that are mapped for execution
/// (`man 5 proc_pid_maps`).
fn mapped_programs(maps: &str) -> Vec<Mapped> {
    let programs: BTreeSet<Mapped> = maps
        .lines()
        .filter_map(|line| {
            let mut words = line.splitn(6, ' ');
            let permissions = words.nth(1)?;
            let (major, minor) = words.nth(1)?.split_once(':')?;
            let hex = |text| u64::from_str_radix(text, 16).ok();
            let device = hex(major)? << 32 | hex(minor)?;
            let inode = words.next()?.parse().ok()?;
            let path = words.next()?.trim_start();
            (permissions.contains('x') && path.starts_with('/')).then(|| Mapped {
                device,
                inode,
                path: path.to_owned(),
            })
        })
        .collect();
    programs.into_iter().collect()
}

/// The day of the SQLite in a program, and its version if that is clear.
fn source_in<R: Read>(
    open: impl Fn() -> io::Result<R>,
) -> io::Result<Option<(String, Option<String>)>> {
    let mut day = None;
    in_pieces(open()?, |piece| {
        day = source_id(piece).map(|id| String::from_utf8_lossy(&id[..10]).into_owned());
        day.is_none()
    })?;
    let Some(day) = day else {
        return Ok(None);
    };
    // Its own version stands alone between two zeros. Once two are found it is
    // not clear which of them that is.
    let mut versions = BTreeSet::new();
    in_pieces(open()?, |piece| {
        let mut words: Vec<&[u8]> = piece.split(|byte| *byte == 0).skip(1).collect();
        words.pop(); // it may go on in the next piece
        versions.extend(words.into_iter().filter_map(version));
        versions.len() < 2
    })?;
    let version = match versions.len() {
        1 => versions.pop_first(),
        _ => None,
    };
    Ok(Some((day, version)))
}

/// Reads a file piece by piece for as long as `look` wants more. Each piece begins
/// with the end of the one before, so that nothing shorter than that is missed.
fn in_pieces(mut file: impl Read, mut look: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    const OVERLAP: usize = 128;
    let mut piece = vec![0; 1 << 20];
    let mut kept = 0;
    loop {
        let more = match file.read(&mut piece[kept..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            more => more?,
        };
        let filled = kept + more;
        if more == 0 || !look(&piece[..filled]) {
            return Ok(());
        }
        kept = filled.min(OVERLAP);
        piece.copy_within(filled - kept..filled, 0);
    }
}

/// `2022-12-28 14:03:47 df5c253c…`; distributions that change the source put
/// `alt1` at the end of the hash.
const SOURCE_ID: &[u8] = b"0000-00-00 00:00:00 ";
const HASH: usize = 36;

/// Finds one by looking at few bytes: it is a long run of few characters.
fn source_id(bytes: &[u8]) -> Option<&[u8]> {
    const LENGTH: usize = SOURCE_ID.len() + HASH;
    let fits = |byte: &&u8| byte.is_ascii_hexdigit() || b" -:".contains(byte);
    (0..bytes.len()).step_by(LENGTH / 2).find_map(|at| {
        let before = bytes[..at]
            .iter()
            .rev()
            .take_while(fits)
            .take(LENGTH)
            .count();
        let after = bytes[at..].iter().take_while(fits).take(LENGTH).count();
        bytes[at - before..at + after]
            .windows(LENGTH)
            .find(|part| is_source_id(part))
    })
}

fn is_source_id(part: &[u8]) -> bool {
    part[4] == b'-'
        && part[13] == b':'
        && part.starts_with(b"20")
        && part.iter().zip(SOURCE_ID).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        })
        && part[SOURCE_ID.len()..].iter().all(u8::is_ascii_hexdigit)
}

fn version(text: &[u8]) -> Option<String> {
    if !(5..=8).contains(&text.len()) || !text.starts_with(b"3.") {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let parts: Vec<u32> = text
        .split('.')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    (parts.len() == 3 && parts[1] >= 7).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &[u8] =
        b"2022-12-28 14:03:47 df5c253c0b3dd24916e4ec7cf77d3db5294cc9fd45ae7b9c5e82ad8197f3alt1";

    fn find(bytes: &[u8]) -> Option<(String, Option<String>)> {
        source_in(|| Ok(bytes)).unwrap()
    }

    /// Gives out a few bytes at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let some = buffer.len().min(7);
            self.0.read(&mut buffer[..some])
        }
    }

    #[test]
    fn a_program_is_searched_in_pieces_wherever_they_end() {
        for before in [0, 1, 13, 200, (1 << 20) - 40, 1 << 20] {
            let mut bytes = vec![0xcc; before];
            bytes.extend(program(&[b"", b"3.40.1", ID, b"end"]));
            let wanted = Some(("2022-12-28".to_owned(), Some("3.40.1".to_owned())));
            assert_eq!(find(&bytes), wanted, "{before}");
            if before < 1000 {
                assert_eq!(source_in(|| Ok(Slow(&bytes))).unwrap(), wanted, "{before}");
            }
        }
    }

    fn program(parts: &[&[u8]]) -> Vec<u8> {
        parts.join(&b"\0"[..])
    }

    #[test]
    fn sqlite_is_found_by_its_source_id() {
        let bytes = program(&[b"\x7fELF", b"10.3.40", b"3.40.1", ID, b"3.40.1", b"end"]);
        let found = find(&bytes).unwrap();
        assert_eq!(found, ("2022-12-28".to_owned(), Some("3.40.1".to_owned())));
        let two = program(&[b"3.40.1", ID, b"3.11.7"]);
        assert_eq!(find(&two).unwrap().1, None, "which of them is not known");
        for nothing in [
            &b""[..],
            b"2022-12-28 14:03:47 no hash",
            b"3.40.1",
            &ID[..40],
        ] {
            assert_eq!(find(nothing), None);
        }
    }

    #[test]
    fn the_wal_reset_bug_is_known_by_the_day_so_that_later_fixes_of_old_series_count() {
        let bug = |day: &str| {
            Library {
                file: String::new(),
                day: day.to_owned(),
                version: None,
            }
            .has_wal_reset_bug()
        };
        assert!(bug("2022-12-28") && bug("2026-01-09"));
        assert!(!bug("2026-03-13") && !bug("2026-10-16") && !bug("2009-01-01"));
    }

    #[test]
    fn programs_are_told_from_data_in_the_list_of_mappings() {
        let maps = "\
5605 r--p 00000000 fe:00 5936 /usr/bin/python3.11
5606 r-xp 00001000 fe:00 5936                           /usr/bin/python3.11
7f00 r-xp 00000000 fe:00 77   /tmp/a b (deleted)
7f01 rw-p 00000000 00:00 0    [heap]
7f02 r-xp 00000000 00:00 0    [vdso]
7f03 r-xp
\u{1F512}
";
        let found: Vec<String> = mapped_programs(maps)
            .into_iter()
            .map(|it| it.path)
            .collect();
        assert_eq!(found, ["/tmp/a b (deleted)", "/usr/bin/python3.11"]);
    }
}
