//! Copying through the write connection: a millisecond of the pen at a time.
//!
//! Guarantee: between two steps nothing is held, neither the pen nor a lock nor the
//! log, and what this process writes meanwhile is put into the copy as it is
//! written ([`crate::sqlite`], `copies`). So the copy is the state of the moment of
//! its last step, and nothing that this process writes makes it begin anew.
//!
//! What others commit does, another process above all, and so does a transaction
//! that SQLite itself rolled back. After [`MOST_RESTARTS`] such times it ends here, and it is
//! the caller's choice how to go on.

use std::time::{Duration, Instant};

use super::Phase;
use super::copy::{MOST_RESTARTS, STEP, Size, UNFLUSHED, target, written};
use super::pace::{Halt, Pace};
use super::place::Part;
use crate::connection::POLL;
use crate::database::Database;
use crate::error::{ErrorKind, Result};
use crate::pen::Pen;
use crate::pen::future::Pending;
use crate::pen::job::{Kind, Priority, Ticket};
use crate::sqlite::SqliteEngine;
use crate::sqlite::copying::{State, Step, Wanted};
use crate::sync::Arc;

/// So long a writer waits for a step.
const TURN: Duration = Duration::from_millis(1);

/// How it ended.
pub(super) enum Ended {
    Whole(Size),
    /// It cannot be made in this way: somebody else wrote too often, or had the
    /// database to himself, or the pen did not come in time. Whoever has the pen now
    /// may write to the part once more, so nobody else can use it.
    InVain,
}

/// A copy that has begun. Dropping it ends it, as soon as the pen is free.
struct Through<'a> {
    pen: &'a Arc<Pen<SqliteEngine>>,
    copy: Option<Wanted>,
}

impl Drop for Through<'_> {
    fn drop(&mut self) {
        drop(self.copy.take());
        // Whoever has the pen next would do it too; but that may be long.
        let pen = Arc::clone(self.pen);
        let call = |engine: &mut SqliteEngine| {
            engine.forget_unwanted_copies();
            Ok(())
        };
        let ticket = ticket(None, None);
        if let Ok(mut ending) = Pending::enqueue(pen, &ticket, Kind::Maintenance, call, None) {
            ending.detach();
        }
    }
}

fn ticket(patience: Option<Duration>, cancel: Option<crate::cancel::CancelToken>) -> Ticket {
    Ticket {
        // A step that stood in the middle of the queue would split a group.
        priority: Priority::High,
        label: Some("backup".into()),
        patience,
        cancel,
        ..Ticket::default()
    }
}

/// The pen of a database through which it can be copied: open for writing, and
/// not held by this very thread.
pub(super) fn pen(database: &Database) -> Option<&Arc<Pen<SqliteEngine>>> {
    let pen = database.shared.pen().ok()?;
    (!pen.is_in_its_way()).then_some(pen)
}

pub(super) fn copy(
    pen: &Arc<Pen<SqliteEngine>>,
    part: &Part,
    pace: &mut Pace<'_, '_>,
    patience: Duration,
) -> std::result::Result<Ended, Halt> {
    let mut through = Through { pen, copy: None };
    let (mut flushed, mut room, mut lost, mut done, mut of) = (0, 0, 0, 0, 0);
    let mut busy: Option<Instant> = None;
    loop {
        let now = ticket(
            Some(
                pace.until
                    .deadline
                    .map_or(patience, |at| at.saturating_duration_since(Instant::now())),
            ),
            pace.until.cancel.cloned(),
        );
        let mut began = Instant::now();
        let stepped = through.step(&now, part, &mut began);
        pace.work_began(began);
        let step = match stepped {
            Ok(Some(step)) => step,
            // The connection was opened anew: so has the copy to be.
            Ok(None) => {
                part.clear()?;
                (flushed, room, lost) = (0, 0, lost + 1);
                pace.started_over += 1;
                if lost > MOST_RESTARTS {
                    return Ok(Ended::InVain);
                }
                continue;
            }
            Err(error) => {
                // The copy's own deadline, or its token.
                pace.go_on(Phase::Copying, done, of)?;
                return match error.kind() {
                    // Whoever has the pen keeps it.
                    ErrorKind::DeadlineExceeded => Ok(Ended::InVain),
                    _ => Err(written(part, error).into()),
                };
            }
        };
        let bytes_of = |pages: u32| u64::from(pages) * u64::from(step.page_size);
        of = bytes_of(step.of);
        let bytes = bytes_of(step.pages).min(of);
        done = bytes;
        if step.began_anew {
            lost += 1;
            pace.started_over += 1;
            flushed = 0;
        }
        let pause = pace.pause(bytes);
        if bytes.saturating_sub(flushed) >= UNFLUSHED {
            part.flush()?;
            flushed = bytes;
        }
        pace.look(Phase::Copying, bytes, of)?;
        match step.state {
            State::Done => {
                if room > of {
                    part.end_at(of)?;
                }
                return Ok(Ended::Whole(Size {
                    bytes: part.length(),
                    page_size: step.page_size,
                }));
            }
            State::More if lost > MOST_RESTARTS => return Ok(Ended::InVain),
            State::More => {
                busy = None;
                // Nobody writes there: what is put into the copy between two steps is
                // a page that is copied.
                let next = of.min(bytes + STEP);
                if next > room {
                    part.make_room(bytes.max(room), next)?;
                    room = next;
                }
                pace.rest(pause, bytes, of)?;
            }
            State::Busy => {
                let since = *busy.get_or_insert_with(Instant::now);
                if since.elapsed() > patience {
                    return Ok(Ended::InVain);
                }
                pace.rest(pause.max(POLL), bytes, of)?;
            }
        }
    }
}

impl Through<'_> {
    /// The next step. `None`: what was copied is lost, and it is to be begun anew.
    fn step(&mut self, ticket: &Ticket, part: &Part, began: &mut Instant) -> Result<Option<Step>> {
        let mut new = match self.copy {
            Some(_) => None,
            None => Some(target(&part.path)?),
        };
        let copy = &mut self.copy;
        let stepped = self.pen.write(ticket, Kind::Maintenance, |engine| {
            *began = Instant::now(); // to wait for the pen is no work
            if let Some(new) = new.take() {
                *copy = Some(engine.copy_into(new)?);
            }
            let step = copy
                .as_ref()
                .and_then(|copy| engine.copy_on(copy, STEP, TURN));
            Ok(step.transpose()?)
        });
        if !matches!(stepped, Ok(Some(_))) {
            self.copy = None;
        }
        stepped
    }
}
