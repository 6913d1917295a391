//! Who is in the way outside this process's pen.
//!
//! Guarantees: nobody looks before a wait was too long, for its deadline or for
//! [`Options::log_waits`](crate::Options::log_waits); a crowd whose deadlines pass together causes
//! one look; and no file of the database is opened by it
//! ([`onepen_lock::holders`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onepen_lock::gate::{Member, Observer, Stand};
use onepen_lock::holders::{self, Look, Process};

use crate::cancel::CancelToken;
use crate::engine::{GiveUp, Patience, Witness};
use crate::error::{Holder, WaitedFor};
use crate::sync::{AtomicBool, Mutex, Ordering, lock};
use crate::trace::event;

/// A look that is younger tells whoever asks next.
const FRESH: Duration = Duration::from_millis(20);

/// What is known of those who use one database without its pen.
pub(crate) struct Strangers {
    path: PathBuf,
    #[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "said in events"))]
    name: Arc<str>,
    log_after: Option<Duration>,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    look: Option<(Instant, Arc<Look>)>,
    /// Who writes, as pid and time of birth, and since when every look has found
    /// it at that.
    writer: Option<((u32, u64), Instant)>,
    /// What the look was found to say: for a crowd it is found out once.
    answers: Vec<(WaitedFor, Option<Holder>)>,
}

/// Thread, label, and how long.
type Turn = (Option<Arc<str>>, Option<Arc<str>>, Option<Duration>);

impl Strangers {
    pub(crate) fn new(path: &Path, name: &Arc<str>, log_after: Option<Duration>) -> Self {
        Self {
            path: path.to_owned(),
            name: Arc::clone(name),
            log_after,
            last: Mutex::new(Last::default()),
        }
    }

    /// What was waited for was had: whoever is in the way next is in it anew.
    #[cold]
    pub(crate) fn gone(&self) {
        *lock(&self.last) = Last::default();
    }

    /// `patience`, and an event when it has lasted for too long.
    pub(crate) fn notice<'a>(
        &'a self,
        patience: &'a dyn Patience,
        what: WaitedFor,
        since: Instant,
    ) -> Noticing<'a> {
        Noticing {
            strangers: self,
            patience,
            what,
            since,
            said: AtomicBool::new(!cfg!(feature = "tracing")),
        }
    }

    /// What a process with onepen says of its turn: the thread, the label, and for
    /// how long it has had it.
    fn at_gate(&self, process: &Process) -> Option<Turn> {
        let view = Observer::open(&self.path).ok()??.look().ok()?;
        let is_it = |member: &&Member| {
            member.alive && (member.pid, member.started) == (process.pid, process.started)
        };
        match &view.members.iter().find(is_it)?.stand {
            Stand::Turn {
                since,
                thread,
                purpose,
                ..
            } => Some((
                (*thread != 0).then(|| format!("thread {thread}").into()),
                purpose.as_deref().map(Arc::from),
                Some(*since),
            )),
            _ => None,
        }
    }

    fn look(&self) -> Option<(Arc<Look>, Option<Instant>)> {
        // Held while looking: the others of a crowd wait for it and share it.
        let mut last = lock(&self.last);
        let now = Instant::now();
        if let Some((at, look)) = &last.look
            && now.saturating_duration_since(*at) < FRESH
        {
            return Some((Arc::clone(look), last.writer.map(|(_, since)| since)));
        }
        let look = Arc::new(holders::look(&self.path).ok()?);
        let writer = look.writer().and_then(|writer| {
            let process = writer.process.as_ref()?;
            Some((process.pid, process.started))
        });
        last.writer = match (last.writer, writer) {
            (Some((known, since)), Some(found)) if known == found => Some((found, since)),
            (_, found) => found.map(|found| (found, now)),
        };
        last.look = Some((now, Arc::clone(&look)));
        last.answers.clear();
        Some((look, last.writer.map(|(_, since)| since)))
    }
}

impl Strangers {
    /// Every process that has locks on the database now or stands at its gate, and
    /// what is known of it, in words that hold no path.
    pub(crate) fn everybody(&self) -> Vec<(String, String)> {
        let look = match holders::look(&self.path) {
            Ok(look) => look,
            Err(cannot) => return vec![("processes".into(), format!("not seen: {cannot}"))],
        };
        let at_gate = Observer::open(&self.path).ok().flatten();
        let view = at_gate.and_then(|observer| observer.look().ok());
        let stand = |process: &Process| {
            let members = &view.as_ref()?.members;
            let is_it =
                |it: &&Member| (it.pid, it.started) == (process.pid, process.started) && it.alive;
            Some(&members.iter().find(is_it)?.stand)
        };
        let told = |holder: &holders::Holder| {
            let Some(process) = &holder.process else {
                return ("a process".into(), format!("not seen, has {}", holder.held));
            };
            let who = match process.pid == std::process::id() {
                true => format!("this process, {}", process.pid),
                false => format!("process {}", process.pid),
            };
            let command = words_without_paths(&process.command);
            let mut text = format!("{command} ({}), has {}", process.activity, holder.held);
            match stand(process) {
                Some(Stand::Turn {
                    since,
                    thread,
                    purpose,
                    ..
                }) => {
                    text += &format!(", has had the turn for {since:.1?}");
                    if *thread != 0 {
                        text += &format!(" (thread {thread})");
                    }
                    if let Some(purpose) = purpose {
                        text += &format!(" for `{purpose}`");
                    }
                }
                Some(Stand::Waiting { .. }) => text += ", waits for its turn",
                _ => {}
            }
            (who, text)
        };
        let mut told: Vec<_> = look.holders.iter().map(told).collect();
        told.extend(
            look.unseen
                .iter()
                .map(|unseen| ("not seen".into(), words_without_paths(&unseen.to_string()))),
        );
        told
    }
}

/// Of every word that is a path its last part.
fn words_without_paths(text: &str) -> String {
    let words = text
        .split(' ')
        .map(|word| word.rsplit('/').next().unwrap_or(word));
    words.collect::<Vec<_>>().join(" ")
}

impl Witness for Strangers {
    fn who(&self, what: WaitedFor) -> Option<Holder> {
        let (look, since) = self.look()?;
        if let Some((_, known)) = lock(&self.last).answers.iter().find(|(it, _)| *it == what) {
            return known.clone();
        }
        let answer = self.judge(what, &look, since);
        lock(&self.last).answers.push((what, answer.clone()));
        answer
    }

    fn is_long(&self, wait: Duration) -> bool {
        self.log_after.is_some_and(|long| wait >= long)
    }
}

impl Strangers {
    fn judge(&self, what: WaitedFor, look: &Look, since: Option<Instant>) -> Option<Holder> {
        let held = |test: &dyn Fn(&holders::Held) -> bool| {
            let there = look.holders.iter().filter(|holder| test(&holder.held));
            // Ourselves last: in a wait for readers the lock we wait with is ours.
            let (ours, others): (Vec<_>, Vec<_>) =
                there.partition(|holder| holder.is_this_process());
            others.into_iter().chain(ours).next()
        };
        let (found, since) = match what {
            WaitedFor::WriteLock => (held(&|held| held.writes()), since),
            WaitedFor::Readers => (held(&|held| held.reads()), None),
            WaitedFor::Opening => (
                held(&|held| held.writes() || held.checkpoints())
                    .or_else(|| held(&|held| held.state > holders::State::Unlocked)),
                None,
            ),
            _ => return None,
        };
        let found = found?;
        let process = found.process.as_ref();
        let ours = found.is_this_process();
        if ours && what != WaitedFor::WriteLock {
            // It has locks in any case: it has the database open, or the lock the
            // wait was made with, and what else it has is hidden by those.
            return None;
        }
        // Of ourselves it says that the turn is ours: we wait within it.
        let others = process.filter(|_| !ours);
        let said = others.and_then(|process| self.at_gate(process));
        let (thread, label, turn) = said.unwrap_or_default();
        Some(Holder {
            thread,
            label,
            pid: process.map(|process| process.pid),
            command: process
                .filter(|process| !ours && !process.command.is_empty())
                .map(|process| process.command.as_str().into()),
            activity: process.map(|process| process.activity),
            // Of this process they are partly those the wait was made with.
            locks: (!ours).then(|| found.held.to_string().into()),
            since: turn.or_else(|| Some(since?.elapsed()).filter(|since| *since >= FRESH)),
        })
    }
}

/// A patience that says so, once, when it has lasted for too long.
pub(crate) struct Noticing<'a> {
    strangers: &'a Strangers,
    patience: &'a dyn Patience,
    what: WaitedFor,
    since: Instant,
    said: AtomicBool,
}

impl Patience for Noticing<'_> {
    fn exhausted(&self) -> Option<GiveUp> {
        if !self.said.load(Ordering::Relaxed) && self.strangers.is_long(self.since.elapsed()) {
            self.said.store(true, Ordering::Relaxed);
            self.say();
        }
        self.patience.exhausted()
    }

    fn token(&self) -> Option<&CancelToken> {
        self.patience.token()
    }

    fn deadline(&self) -> Option<Instant> {
        self.patience.deadline()
    }

    fn rest(&self, pause: Duration) {
        self.patience.rest(pause);
    }
}

impl Noticing<'_> {
    #[cold]
    fn say(&self) {
        let holder = self.strangers.who(self.what);
        let pid = holder.as_ref().and_then(|holder| holder.pid);
        let holder = holder.map_or_else(|| "not seen".to_owned(), |holder| holder.to_string());
        event!(
            WARN,
            "a wait is long",
            database = &*self.strangers.name,
            waits = tracing::field::display(self.what), // for …
            waited_ms = self.since.elapsed().as_millis() as u64,
            holder = holder.as_str(),
            pid = pid,
        );
        let _ = (pid, holder);
    }
}
