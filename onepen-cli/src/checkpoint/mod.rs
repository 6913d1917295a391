//! `onepen checkpoint`: moves the write-ahead log into the database, and tells
//! what became of it.
//!
//! Guarantees: no writer waits for it longer than SQLite needs to look whether
//! anybody reads; it is not in the way of a program that checkpoints itself; what
//! it says of the log is what SQLite answered
//! (<https://www.sqlite.org/pragma.html#pragma_wal_checkpoint>), and who is in the
//! way is what the system says.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use onepen_lock::holders;
use rusqlite::{Connection, OpenFlags, ffi};
use serde_json::{Value, json};

use crate::named::regular;
use crate::words::{complain, name, time};

/// `onepen checkpoint`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The database, in use or not
    database: PathBuf,

    /// Try again for so long while somebody is in the way
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    wait: Duration,

    /// Give the log's file back to the file system, if all of it could be moved
    #[arg(long)]
    truncate: bool,

    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,

    /// Say nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

/// Between two tries.
const POLL: Duration = Duration::from_millis(10);

/// What became of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All of it is in the database, and the next write begins at its start.
    Reset,
    /// All of it is in the database, but somebody reads it, so that the next write
    /// goes behind it.
    Pinned,
    /// A part of it is in the database; the rest is newer than what somebody reads.
    Partly,
    /// Somebody else is moving it just now.
    Elsewhere,
    /// There is no log: the database has a rollback journal.
    None,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Pinned => "pinned",
            Self::Partly => "partly",
            Self::Elsewhere => "elsewhere",
            Self::None => "none",
        }
    }

    /// 0: the log is short. 1: it is not. 2, from elsewhere: it could not be tried.
    fn code(self) -> u8 {
        match self {
            Self::Reset | Self::None => 0,
            Self::Pinned | Self::Partly | Self::Elsewhere => 1,
        }
    }
}

/// The name and version of the form of `--json`.
const SCHEMA: &str = "onepen-checkpoint/1";

/// One try.
#[derive(Clone, Copy)]
struct Tried {
    outcome: Outcome,
    /// Frames (pages) in the log, and how many of them are in the database.
    frames: i64,
    moved: i64,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let code = checkpoint(args).unwrap_or_else(|why| {
        if args.json {
            crate::backup::print(
                &json!({"schema": SCHEMA, "error": "NotTried", "message": why}).to_string(),
            );
        }
        complain("checkpoint", why);
        2
    });
    ExitCode::from(code)
}

fn checkpoint(args: &Args) -> Result<u8, String> {
    let database = name(&args.database);
    let text = |error: rusqlite::Error| format!("{database}: {error}");
    regular(&args.database)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
    let path =
        std::path::absolute(&args.database).map_err(|error| format!("{database}: {error}"))?;
    let connection = Connection::open_with_flags(&path, flags).map_err(text)?;
    // Where SQLite would wait, it would wait with the write lock in its hands.
    connection.busy_timeout(Duration::ZERO).map_err(text)?;
    let since = Instant::now();
    let tried = loop {
        let tried = attempt(&connection, args.truncate);
        let again = match &tried {
            Ok(tried) => tried.outcome.code() != 0,
            Err(error) => is_busy(error),
        };
        if !again || since.elapsed() >= args.wait {
            break tried;
        }
        std::thread::sleep(POLL);
    };
    let tried = tried.map_err(|error| match who(&path, Tell::All) {
        names if is_busy(&error) && !names.is_empty() => {
            format!("{database}: {error}; it is in use by {}", names.join(", "))
        }
        _ => text(error),
    })?;
    let tell = match tried.outcome {
        Outcome::Pinned | Outcome::Partly => Tell::Readers,
        Outcome::Elsewhere => Tell::Checkpointers,
        Outcome::Reset | Outcome::None => Tell::Nobody,
    };
    let holders = who(&path, tell);
    if args.json {
        crate::backup::print(&report(args, tried, &holders).to_string());
    } else if !args.quiet {
        crate::backup::print(&sentence(&args.database, tried, &holders));
    }
    Ok(tried.outcome.code())
}

/// First without being in anybody's way; then, only if everything is moved, the
/// reset, which needs SQLite's write lock for a moment.
fn attempt(connection: &Connection, truncate: bool) -> rusqlite::Result<Tried> {
    let (busy, frames, moved) = ask(connection, "PASSIVE")?;
    let tried = |outcome| Tried {
        outcome,
        frames,
        moved,
    };
    if frames < 0 {
        return Ok(tried(if busy {
            Outcome::Elsewhere
        } else {
            Outcome::None
        }));
    }
    if moved < frames {
        return Ok(tried(Outcome::Partly));
    }
    let mode = if truncate { "TRUNCATE" } else { "RESTART" };
    let (busy, after, _) = ask(connection, mode)?;
    if !busy {
        return Ok(tried(Outcome::Reset));
    }
    // What was written in between is not moved yet, by whomever the reset was
    // refused for.
    if after > frames {
        return Ok(Tried {
            outcome: Outcome::Partly,
            frames: after,
            moved,
        });
    }
    Ok(tried(Outcome::Pinned))
}

fn ask(connection: &Connection, mode: &str) -> rusqlite::Result<(bool, i64, i64)> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), (), |row| {
        Ok((row.get::<_, i64>(0)? != 0, row.get(1)?, row.get(2)?))
    })
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|error| error.extended_code & 0xff == ffi::SQLITE_BUSY)
}

/// Which of those who have the database open are of interest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tell {
    Nobody,
    Readers,
    Checkpointers,
    All,
}

fn who(path: &Path, tell: Tell) -> Vec<String> {
    if tell == Tell::Nobody {
        return Vec::new();
    }
    let Ok(look) = holders::look(path) else {
        return Vec::new();
    };
    look.holders
        .iter()
        .filter(|holder| !holder.is_this_process())
        .filter(|holder| match tell {
            Tell::Readers => holder.held.reads() || holder.held.writes(),
            Tell::Checkpointers => holder.held.checkpoints() || holder.held.writes(),
            Tell::All | Tell::Nobody => true,
        })
        .map(ToString::to_string)
        .collect()
}

fn sentence(database: &Path, tried: Tried, holders: &[String]) -> String {
    let (name, frames, moved) = (name(database), tried.frames, tried.moved);
    let whom = match holders {
        [] => "somebody who has gone since or cannot be seen".to_owned(),
        holders => holders.join(", "),
    };
    match tried.outcome {
        Outcome::Reset => {
            format!("{name}: all of the log ({frames} pages) is moved, and it starts over")
        }
        Outcome::Pinned => format!(
            "{name}: all of the log ({frames} pages) is moved, but it cannot start over while it \
             is read: {whom}"
        ),
        Outcome::Partly => format!(
            "{name}: {moved} of {frames} pages of the log are moved; the others are newer than \
             what is being read or were written just now: {whom}"
        ),
        Outcome::Elsewhere => format!("{name}: somebody else is moving the log just now: {whom}"),
        Outcome::None => format!("{name}: has no write-ahead log"),
    }
}

fn report(args: &Args, tried: Tried, holders: &[String]) -> Value {
    json!({
        "schema": SCHEMA,
        "database": args.database.display().to_string(),
        "outcome": tried.outcome.name(),
        "frames": tried.frames.max(0),
        "moved": tried.moved.max(0),
        "holders": holders,
    })
}
