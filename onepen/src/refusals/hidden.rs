//! Copies of SQLite that show no symbols: linked into a driver or an interpreter,
//! with everything but the driver's own functions hidden.
//!
//! Every SQLite has the line by which its authors know it, in memory that nobody
//! writes: `2026-01-31 12:34:56` and 64 hexadecimal digits, the last four of which
//! are other letters where somebody changed its sources
//! (<https://www.sqlite.org/c3ref/libversion.html>). This looks for the line in
//! what the loader mapped, and opens no file.
//!
//! An object that has the line without the library (made with SQLite's header, and
//! keeping its constant) is taken for a copy; whoever knows better has
//! [`Options::any_sqlite`](crate::Options::any_sqlite).

use std::ffi::{CStr, OsStr, c_int, c_void};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::Library;

/// An object of this process with a SQLite in it.
pub(super) struct Copy {
    /// Where the object is mapped.
    memory: Vec<Range<usize>>,
    /// Empty for the program itself.
    path: PathBuf,
    /// The day its SQLite was made.
    day: String,
}

impl Copy {
    /// Whether this address is in that object.
    pub(super) fn contains(&self, address: usize) -> bool {
        self.memory.iter().any(|part| part.contains(&address))
    }

    pub(super) fn into_library(self) -> Library {
        let path = if self.path.as_os_str().is_empty() {
            std::env::current_exe().unwrap_or_else(|_| PathBuf::from("this program"))
        } else {
            self.path
        };
        let version = format!("of {}", self.day);
        Library { path, version }
    }
}

/// All objects with a SQLite in them.
pub(super) fn copies() -> Vec<Copy> {
    unsafe extern "C" fn each(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        found: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader's structure, valid during this call, and the vector
        // that was passed in; to run out of memory ends the process and does not
        // unwind, and nothing else here can panic: all slices are asked for.
        unsafe {
            let found = &mut *found.cast::<Vec<Copy>>();
            found.extend(in_object(&*info));
        }
        0
    }
    let mut found: Vec<Copy> = Vec::new();
    // SAFETY: `each` gets the vector, during this call alone.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut found).cast()) };
    found
}

/// # Safety
/// `info` is the loader's, during its callback: what it lists as readable is
/// mapped, and the loader lets nobody unmap it meanwhile.
unsafe fn in_object(info: &libc::dl_phdr_info) -> Option<Copy> {
    let mut memory = Vec::new();
    let mut day = None;
    // SAFETY: as the caller promises. Only segments that nobody may write are
    // looked at, so nothing changes below the slice.
    unsafe {
        let parts = if info.dlpi_phnum == 0 {
            &[]
        } else {
            std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum))
        };
        for part in parts.iter().filter(|part| part.p_type == libc::PT_LOAD) {
            let from = (info.dlpi_addr as usize).wrapping_add(part.p_vaddr as usize);
            let length = part.p_memsz as usize;
            memory.push(from..from.wrapping_add(length));
            let readable = part.p_flags & libc::PF_R != 0 && part.p_flags & libc::PF_W == 0;
            if readable && length > 0 && day.is_none() {
                day = source_line(std::slice::from_raw_parts(from as *const u8, length));
            }
        }
    }
    let path = if info.dlpi_name.is_null() {
        PathBuf::new()
    } else {
        // SAFETY: the loader's string.
        let name = unsafe { CStr::from_ptr(info.dlpi_name) };
        PathBuf::from(OsStr::from_bytes(name.to_bytes()))
    };
    day.map(|day| Copy { memory, path, day })
}

/// The date of the first such line. Looks at one byte of 60 until it meets digits.
fn source_line(text: &[u8]) -> Option<String> {
    const DIGITS: usize = 60;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if is_digit(byte) {
            let before = text[..at].iter().rev().take_while(|b| is_digit(b)).count();
            let start = at - before;
            let length = text[start..].iter().take_while(|b| is_digit(b)).count();
            let date = start.checked_sub(20).map(|from| &text[from..start]);
            if (DIGITS..=64).contains(&length)
                && let Some(date) = date.filter(|date| is_date(date))
            {
                return Some(String::from_utf8_lossy(&date[..10]).into_owned());
            }
            at = start + length;
        }
        at += DIGITS;
    }
    None
}

/// `2026-01-31 12:34:56 `
fn is_date(text: &[u8]) -> bool {
    text.iter()
        .zip(b"0000-00-00 00:00:00 ")
        .all(|(is, like)| match like {
            b'0' => is.is_ascii_digit(),
            mark => is == mark,
        })
}

#[cfg(test)]
mod tests {
    use super::source_line;

    const ID: &str =
        "2025-01-14 11:05:00 d2fe6b05f38d9d7cd78c5d252e99ac59f1aea071d669830c1ffe4e8966e84010";

    #[test]
    fn the_line_is_found_wherever_it_stands() {
        for before in 0..200 {
            let text = format!("{}{ID}\0and more", "x".repeat(before));
            let found = source_line(text.as_bytes());
            assert_eq!(found.as_deref(), Some("2025-01-14"), "{before}");
        }
        let changed = format!("{}alt1", &ID[..80]);
        assert_eq!(
            source_line(changed.as_bytes()).as_deref(),
            Some("2025-01-14")
        );
    }

    #[test]
    fn other_digits_are_not_it() {
        let hash = &ID[20..];
        let long = format!("{ID}00");
        let commit = format!("commit 12345678901234 {hash}");
        for text in [hash, &long, &commit, &ID[..70], "", "2025-01-14 11:05:00 "] {
            assert_eq!(source_line(text.as_bytes()), None, "{text}");
        }
    }
}
