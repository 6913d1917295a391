//! When a copy rests, and when it has to end.
//!
//! Guarantees: copying takes no more than its share of the time and no more than
//! its rate; a pause ends when the caller's patience does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::place::length;
use super::{Phase, Progress, WhenLogFull};
use crate::engine::{GiveUp, Patience, Until};
use crate::error::{Error, ErrorKind, Result};

/// No pause is longer without a look at deadline and cancel token.
const LOOK: Duration = Duration::from_millis(10);

/// What the caller asked for.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Bytes per second.
    pub(super) rate: Option<u64>,
    /// The part of the time that may be spent working: above 0, at most 1.
    pub(super) share: Option<f64>,
    pub(super) log: u64,
    pub(super) when_log_full: WhenLogFull,
}

/// Why copying is not to go on.
pub(super) enum Halt {
    Error(Error),
    /// The log is to be reset, and then copying begins anew.
    StartOver,
}

pub(super) struct Pace<'r, 'a> {
    pub(super) limits: Limits,
    pub(super) until: Until<'r>,
    pub(super) progress: Option<&'r mut (dyn FnMut(&Progress) + Send + 'a)>,
    pub(super) log: PathBuf,
    /// The part of the time that may be spent working while somebody writes: above
    /// 0, at most 1. The caller's own holds whether or not somebody does.
    share: f64,
    /// How many writes were made, of those that the work could be in the way of.
    writes: Option<&'r dyn Fn() -> u64>,
    /// As many as there were at the last look.
    seen: u64,
    /// The log cannot be reset because of us.
    pub(super) pins_log: bool,
    /// The length of the log at the beginning of this try: a file that is long
    /// already need not grow.
    log_was: u64,
    pub(super) log_max: u64,
    pub(super) started_over: u32,
    began: Instant,
    /// Work begun at this moment has not had its pause yet.
    working_since: Instant,
    /// Where this try began.
    try_began: Instant,
    /// Of work that goes on by itself: how long, and how long with its rests.
    work: Duration,
    all: Duration,
    resting: bool,
    hurry: bool,
}

impl<'r, 'a> Pace<'r, 'a> {
    pub(super) fn new(
        limits: Limits,
        until: Until<'r>,
        progress: Option<&'r mut (dyn FnMut(&Progress) + Send + 'a)>,
        log: PathBuf,
    ) -> Self {
        let now = Instant::now();
        let log_was = length(&log);
        Self {
            limits,
            until,
            progress,
            log,
            share: 1.0,
            writes: None,
            seen: 0,
            pins_log: true,
            log_was,
            log_max: log_was,
            started_over: 0,
            began: now,
            working_since: now,
            try_began: now,
            work: Duration::ZERO,
            all: Duration::ZERO,
            resting: false,
            hurry: false,
        }
    }

    /// A try begins.
    pub(super) fn begin(&mut self) {
        self.log_was = length(&self.log);
        self.log_max = self.log_max.max(self.log_was);
        self.try_began = Instant::now();
        self.hurry = false;
        self.work_begins();
    }

    /// What is done from now on counts.
    pub(super) fn work_begins(&mut self) {
        self.working_since = Instant::now();
        (self.work, self.all, self.resting) = (Duration::ZERO, Duration::ZERO, false);
    }

    /// Whose writes it may be in the way of.
    pub(super) fn beside(&mut self, writes: &'r dyn Fn() -> u64) {
        self.writes = Some(writes);
        self.seen = writes();
    }

    /// From here on, `usual` if the caller did not say.
    pub(super) fn take_share(&mut self, usual: f64) {
        self.share = self.limits.share.unwrap_or(usual);
    }

    /// The share now: all of it when nobody has written since the last look.
    fn share(&mut self) -> f64 {
        let Some(writes) = self.writes.filter(|_| self.limits.share.is_none()) else {
            return self.share;
        };
        let now = writes();
        if std::mem::replace(&mut self.seen, now) == now {
            1.0
        } else {
            self.share
        }
    }

    /// The piece of work that is being looked at began at this moment.
    pub(super) fn work_began(&mut self, at: Instant) {
        self.working_since = at;
    }

    /// After each piece of work: tells how far it is, and looks whether it may go
    /// on.
    pub(super) fn look(
        &mut self,
        phase: Phase,
        bytes: u64,
        of: u64,
    ) -> std::result::Result<(), Halt> {
        let log = length(&self.log);
        self.log_max = self.log_max.max(log);
        if let Some(progress) = &mut self.progress {
            progress(&Progress {
                phase,
                bytes,
                of,
                log,
                started_over: self.started_over,
                elapsed: self.began.elapsed(),
            });
        }
        self.go_on(phase, bytes, of).map_err(Halt::Error)?;
        if phase == Phase::Copying && self.pins_log && log > self.limits.log.max(self.log_was) {
            self.log_is_full(log, bytes, of)?;
        }
        Ok(())
    }

    /// How long to rest after the work that was done since the last rest, and
    /// `bytes` in all.
    pub(super) fn pause(&mut self, bytes: u64) -> Duration {
        if self.hurry {
            return Duration::ZERO;
        }
        let worked = self.working_since.elapsed();
        let for_share = worked.mul_f64(1.0 / self.share() - 1.0);
        for_share.max(self.too_early(bytes))
    }

    /// How long it is until so many bytes are due.
    fn too_early(&self, bytes: u64) -> Duration {
        let Some(rate) = self.limits.rate else {
            return Duration::ZERO;
        };
        let due = Duration::try_from_secs_f64(bytes as f64 / rate as f64);
        due.unwrap_or(Duration::MAX)
            .saturating_sub(self.try_began.elapsed())
    }

    /// The same for work that goes on by itself: whether it is to rest until this
    /// is asked again.
    pub(super) fn is_to_rest(&mut self, phase: Phase, bytes: u64) -> bool {
        let passed = self.working_since.elapsed();
        self.working_since = Instant::now();
        self.all += passed;
        if !self.resting {
            self.work += passed;
        }
        let share = self.share();
        let too_much = self.work > self.all.mul_f64(share);
        let too_early = phase == Phase::Copying && !self.too_early(bytes).is_zero();
        self.resting = !self.hurry && (too_much || too_early);
        self.resting
    }

    /// Rests.
    pub(super) fn rest(&mut self, pause: Duration, bytes: u64, of: u64) -> Result<()> {
        let since = Instant::now();
        loop {
            let left = pause.saturating_sub(since.elapsed());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(LOOK));
            self.go_on(Phase::Copying, bytes, of)?;
        }
        self.working_since = Instant::now();
        Ok(())
    }

    /// Whether deadline or cancel token have ended it.
    pub(super) fn go_on(&self, phase: Phase, bytes: u64, of: u64) -> Result<()> {
        let (kind, why) = match self.until.exhausted() {
            None => return Ok(()),
            Some(GiveUp::Cancelled) => (ErrorKind::Cancelled, "it was cancelled"),
            Some(_) => (ErrorKind::DeadlineExceeded, "the deadline passed"),
        };
        let what = match phase {
            Phase::Copying => format!("after {bytes} of {of} bytes were copied"),
            Phase::Checking => "while the copy was being checked".to_owned(),
            Phase::Finishing => "before the copy was in its place".to_owned(),
        };
        Err(Error::new(
            kind,
            format!("{why} {what}; the target is as it was before"),
        ))
    }

    fn log_is_full(&mut self, log: u64, bytes: u64, of: u64) -> std::result::Result<(), Halt> {
        match self.limits.when_log_full {
            WhenLogFull::GoOn => Ok(()),
            WhenLogFull::Hurry => {
                self.hurry = true;
                Ok(())
            }
            WhenLogFull::StartOver(times) if self.started_over < times => {
                self.started_over += 1;
                Err(Halt::StartOver)
            }
            WhenLogFull::StartOver(_) | WhenLogFull::Stop => Err(Halt::Error(Error::new(
                ErrorKind::LogLimit,
                format!(
                    "the write-ahead log has grown to {log} bytes, over the limit of {} bytes, \
                     when {bytes} of {of} bytes were copied (started over {} times); the target is \
                     as it was before; allow a longer log, copy faster, or copy while less is \
                     written",
                    self.limits.log, self.started_over
                ),
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn limits(share: Option<f64>) -> Limits {
        Limits {
            rate: None,
            share,
            log: 0,
            when_log_full: WhenLogFull::Stop,
        }
    }

    fn pace(share: Option<f64>) -> Pace<'static, 'static> {
        let until = Until {
            deadline: None,
            cancel: None,
        };
        let mut pace = Pace::new(limits(share), until, None, PathBuf::from("no such log"));
        pace.take_share(0.01);
        pace
    }

    /// As if it had worked for a second.
    fn pause(pace: &mut Pace<'_, '_>) -> Duration {
        let second = Duration::from_secs(1);
        pace.work_began(Instant::now().checked_sub(second).unwrap());
        pace.pause(0)
    }

    #[test]
    fn a_copy_rests_only_when_somebody_writes_unless_the_caller_gave_it_a_share() {
        let made = Cell::new(0);
        let writes = || made.get();
        for share in [None, Some(0.01)] {
            let mut pace = pace(share);
            pace.beside(&writes);
            assert_eq!(pause(&mut pace).is_zero(), share.is_none(), "nobody wrote");
            made.set(made.get() + 1);
            assert!(pause(&mut pace) >= Duration::from_secs(90), "somebody did");
            assert_eq!(pause(&mut pace).is_zero(), share.is_none(), "and no more");
        }
        // Nobody can tell whether somebody writes.
        assert!(pause(&mut pace(None)) >= Duration::from_secs(90));
    }

    #[test]
    fn one_that_hurries_does_not_rest() {
        let mut pace = pace(Some(0.01));
        pace.hurry = true;
        assert!(pause(&mut pace).is_zero());
        assert!(!pace.is_to_rest(Phase::Copying, 0));
    }

    #[test]
    fn work_that_goes_on_by_itself_rests_until_its_share_is_right_again() {
        let mut pace = pace(Some(0.5));
        let second = |pace: &mut Pace<'_, '_>| {
            pace.work_began(Instant::now().checked_sub(Duration::from_secs(1)).unwrap());
            pace.is_to_rest(Phase::Checking, 0)
        };
        assert!(second(&mut pace), "after a second of work");
        assert!(
            second(&mut pace) || second(&mut pace),
            "for a second or two"
        );
        assert!(!second(&mut pace));
    }
}
