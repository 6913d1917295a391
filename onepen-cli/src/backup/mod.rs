//! `onepen backup` and what `onepen restore` has in common with it.
//!
//! Guarantees: the result goes to standard output, everything else to standard
//! error; nothing moves unless that is a terminal; ctrl-C ends it and leaves the
//! target as it was.

mod args;
mod show;

use std::process::ExitCode;

use onepen::backup::Transfer;
use onepen::{CancelToken, ErrorKind, Options};

use crate::words::complain;
pub use args::{Args, How};
use show::Show;
pub use show::print;

/// The copy is in its place.
const DONE: u8 = 0;
/// It was begun and did not come to its end; the target is as it was.
const FAILED: u8 = 1;
/// It was not begun: wrong usage, or the target is not fit for it.
const REFUSED: u8 = 2;
/// What a program that was ended by SIGINT answers.
const INTERRUPTED: u8 = 130;

/// Runs `onepen backup`.
pub fn run(args: &Args) -> ExitCode {
    let was_clean = !beside(&args.database, "-wal").exists();
    let opened = Options::new().read_only(true).open(&args.database);
    let code = match opened {
        Ok(database) => {
            let code = make("backup", &args.how, database.backup_to(&args.target), args);
            database.close();
            code
        }
        Err(error) => {
            args.how.failed("backup", &error);
            REFUSED
        }
    };
    if was_clean {
        tidy(args);
    }
    ExitCode::from(code)
}

/// What is copied, and to where, as it is shown.
pub trait Ends {
    /// From where.
    fn from(&self) -> String;
    /// To where.
    fn to(&self) -> String;
}

impl Ends for Args {
    fn from(&self) -> String {
        self.database.display().to_string()
    }

    fn to(&self) -> String {
        self.target.display().to_string()
    }
}

/// Makes one copy and tells what became of it.
pub fn make(verb: &str, how: &How, transfer: Transfer<'_>, ends: &dyn Ends) -> u8 {
    let token = CancelToken::new();
    let ended = token.clone();
    if let Err(error) = ctrlc::set_handler(move || ended.cancel()) {
        complain(verb, format!("cannot listen for ctrl-C: {error}"));
        return REFUSED;
    }
    let show = Show::new(how.is_quiet());
    let mut begun = false;
    let made = how
        .apply(transfer)
        .cancel_with(&token)
        .progress(|done| {
            begun = true;
            show.progress(done);
        })
        .run();
    show.end();
    match made {
        Ok(copied) => {
            how.done(ends, &copied);
            DONE
        }
        Err(error) => {
            how.failed(verb, &error);
            match error.kind() {
                ErrorKind::Refused => REFUSED,
                ErrorKind::Io if !begun && is_no_place(&error) => REFUSED,
                ErrorKind::Cancelled => INTERRUPTED,
                _ => FAILED,
            }
        }
    }
}

/// Whether there is nothing to copy, or nowhere to put it.
fn is_no_place(error: &onepen::Error) -> bool {
    use std::io::ErrorKind::{
        NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem as ReadOnly,
    };
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|source| {
            matches!(
                source.kind(),
                NotFound | NotADirectory | PermissionDenied | ReadOnly
            )
        })
}

/// Who only reads a database in write-ahead mode that nobody has open leaves an
/// empty log beside it. SQLite takes it away when somebody who may write is the
/// last to close it.
fn tidy(args: &Args) {
    use rusqlite::{Connection, OpenFlags};
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if beside(&args.database, "-wal").exists()
        && let Ok(connection) = Connection::open_with_flags(&args.database, flags)
    {
        // Who may not write, or is not alone, leaves it; it does no harm.
        let _ = connection.query_row("PRAGMA schema_version", (), |_| Ok(()));
    }
}

fn beside(path: &std::path::Path, ending: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
