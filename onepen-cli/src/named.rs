//! What the user named as a database: is it there, and can it be one?
//!
//! Guarantees: nothing is opened, so that a pipe is not waited for; and what is said
//! of a file that is none is the same in all commands.

use std::fs::{self, FileType, Metadata};
use std::io;
use std::path::Path;

use crate::words::name;

/// What the system tells of the file to which the path leads.
///
/// # Errors
/// When there is none, or no regular one.
pub fn regular(path: &Path) -> Result<Metadata, String> {
    let found = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{}: there is no such database", name(path)),
        _ => format!("{}: {error}", name(path)),
    })?;
    match what_else(found.file_type()) {
        None => Ok(found),
        Some(what) => Err(format!("{}: {what}", name(path))),
    }
}

fn what_else(kind: FileType) -> Option<&'static str> {
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("is a directory; name a file in it"),
        () if is_pipe(kind) => Some("is a pipe, not a database"),
        () => Some("is no regular file"),
    }
}

#[cfg(unix)]
fn is_pipe(kind: FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&kind)
}

#[cfg(not(unix))]
fn is_pipe(_kind: FileType) -> bool {
    false
}
