//! Who has a file open, whether it holds a lock or not.
//!
//! In write-ahead mode SQLite shows with a lock that it has a database open; over
//! a rollback journal only a transaction shows, and a connection that rests does
//! not. Linux lists the descriptors of every process that this user may look at;
//! those of others are not seen.
//!
//! Guarantee: no file is opened by it.

use std::path::Path;

/// The processes that have `path` open, this one included, as far as this user
/// may see. Empty where the system does not tell.
#[cfg(target_os = "linux")]
pub(super) fn of(path: &Path) -> Vec<u32> {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    let Ok(wanted) = fs::metadata(path) else {
        return Vec::new();
    };
    let name = path.file_name();
    let has_it = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
        descriptors.into_iter().flatten().flatten().any(|entry| {
            let link = entry.path();
            // By the name first: asking a descriptor itself can take long, if it
            // leads to a server that does not answer.
            let named = fs::read_link(&link).is_ok_and(|to| to.file_name() == name);
            named
                && fs::metadata(&link)
                    .is_ok_and(|meta| (meta.dev(), meta.ino()) == (wanted.dev(), wanted.ino()))
        })
    };
    onepen_lock::holders::processes().filter(has_it).collect()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn of(_path: &Path) -> Vec<u32> {
    Vec::new()
}

/// What a process is called.
pub(super) fn name(pid: u32) -> String {
    match onepen_lock::holders::Process::look(pid) {
        Ok(process) => process.to_string(),
        Err(_) => format!("process {pid}"),
    }
}
