//! Can a program be traced? The dynamic loader has to load a library into it.
//!
//! Guarantees: only reads, and takes any bytes for a program.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// As much of a file as is looked at: program headers come right after the first.
const START: u64 = 64 * 1024;
/// Scripts that name scripts.
const SCRIPTS: u32 = 4;

/// Where the shell would find it.
pub fn find(command: &OsStr) -> Option<PathBuf> {
    if command.as_bytes().contains(&b'/') {
        return Path::new(command).exists().then(|| command.into());
    }
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    env::split_paths(&path)
        .map(|directory| directory.join(command))
        .find(|path| path.is_file() && is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|is| is.permissions().mode() & 0o111 != 0)
}

/// Why no library can be loaded into it; nothing when it can, or when nobody knows.
pub fn why_not(path: &Path) -> Option<String> {
    let mut path = path.to_owned();
    for _ in 0..SCRIPTS {
        let mut start = Vec::new();
        File::open(&path)
            .ok()?
            .take(START)
            .read_to_end(&mut start)
            .ok()?;
        let is = fs::metadata(&path).ok()?;
        let other_user = is.mode() & 0o4000 != 0 && is.uid() != rustix::process::geteuid().as_raw();
        if other_user || is.mode() & 0o2000 != 0 {
            return Some(format!(
                "{} runs with another user's or group's rights (set-id), and such programs load no \
                 library they are given",
                path.display()
            ));
        }
        match interpreter(&start) {
            Some(next) => path = next,
            None => return elf(&start).map(|why| format!("{} {why}", path.display())),
        }
    }
    None
}

/// Of a script.
fn interpreter(start: &[u8]) -> Option<PathBuf> {
    let line = start
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let first = Path::new(OsStr::from_bytes(words.next()?)).to_owned();
    if first.file_name() != Some(OsStr::new("env")) {
        return Some(first);
    }
    let mut named = words.filter(|word| !word.starts_with(b"-") && !word.contains(&b'='));
    find(OsStr::from_bytes(named.next()?))
}

/// Why the loader would not load a library of ours into it.
fn elf(start: &[u8]) -> Option<String> {
    const WIDTH: u8 = if cfg!(target_pointer_width = "64") {
        2
    } else {
        1
    };
    const ORDER: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };
    if !start.starts_with(b"\x7fELF") || *start.get(5)? != ORDER {
        return None;
    }
    if *start.get(4)? != WIDTH {
        return Some("is a program for another width of address than onepen".to_owned());
    }
    let u16_at = |at: usize| Some(u16::from_ne_bytes(start.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_ne_bytes(start.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| {
        Some(u64::from_ne_bytes(
            start.get(at..at.checked_add(8)?)?.try_into().ok()?,
        ))
    };
    let headers = usize::try_from(u64_at(32)?).ok()?;
    let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    const LOADER: u32 = 3; // PT_INTERP
    for n in 0..count {
        let at = headers.checked_add(n * size)?;
        if at >= start.len() {
            return None; // beyond what was read
        }
        if u32_at(at)? == LOADER {
            let from = usize::try_from(u64_at(at + 8)?).ok()?;
            let len = usize::try_from(u64_at(at + 32)?).ok()?;
            let name = start.get(from..from.checked_add(len)?)?;
            let is_musl = name.windows(7).any(|part| part == b"ld-musl");
            return (is_musl != cfg!(target_env = "musl")).then(|| {
                "uses another C library than onepen was built for, and can load no library of ours"
                    .to_owned()
            });
        }
    }
    Some(
        "is linked statically: it has no dynamic loader that could load a library into it, so its \
         locks cannot be seen from inside (`onepen doctor` and `onepen top` look from outside)"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_taken_for_a_program() {
        assert_eq!(elf(b""), None);
        for len in 0..64 {
            let mut start = b"\x7fELF\x02\x01".to_vec();
            start.resize(6 + len, 0xff);
            let _ = elf(&start);
        }
        assert_eq!(interpreter(b"#!"), None);
        assert_eq!(interpreter(b"#! /bin/sh -e\nx"), Some("/bin/sh".into()));
        assert_eq!(
            interpreter(b"#!/usr/bin/env -S PATH=x sh\n"),
            find(OsStr::new("sh"))
        );
    }

    #[test]
    fn a_program_with_a_loader_can_be_traced() {
        let this = env::current_exe().expect("it has a name");
        assert_eq!(why_not(&this), None);
    }

    #[test]
    fn a_program_without_a_loader_is_known() {
        // The smallest: a header, and one program header that loads it.
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64; // where the program headers are
        bytes[54] = 56; // their size
        bytes[56] = 1; // how many
        bytes[64] = 1; // PT_LOAD
        assert!(elf(&bytes).expect("it is static").contains("statically"));
        bytes[64] = 3;
        assert_eq!(elf(&bytes), cfg!(target_env = "musl").then(String::new));
    }
}
