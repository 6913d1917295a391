//! What listeners are told of commits, and when.
//!
//! Guarantees: a commit is told of after it has succeeded, with the tables it
//! changed, or with "any" where that is not known; what strangers committed before
//! it is told of first; and a token is settled by the COMMIT it waits for, never
//! by another's. Without a listener it costs a look at a few words.

use onepen_lock::gate::{Note, Stamp};

use super::SqliteEngine;
use super::live::Live;
use crate::changes::Tables;
use crate::changes::hub::Hub;
use crate::changes::recorder::Recorder;
use crate::error::Outcome;
use crate::options::Journal;

impl SqliteEngine {
    /// A transaction has begun, and with it SQLite's write lock.
    #[inline]
    pub(super) fn follow(&self) {
        let (Some(hub), Some(live)) = (&self.hub, &self.live) else {
            return;
        };
        let recorder = &live.guards.recorder;
        self.before.set(None);
        self.written.set(self.wal.written());
        if hub.notes().is_some() && live.commits.get().is_none() {
            live.stamp(); // a closure that takes a token may not ask for it
        }
        if hub.is_listening() || hub.others_listen() || recorder.is_on() {
            self.follow_on(hub, live, recorder);
        } else if self.connector.options.journal == Journal::Rollback {
            self.version.set(data_version(live));
        }
    }

    fn follow_on(&self, hub: &Hub, live: &Live, recorder: &Recorder) {
        let (listening, others) = (hub.is_listening(), hub.others_listen());
        let wanted = listening || others;
        if recorder.is_on() != wanted {
            recorder.turn(&live.connection, wanted);
        }
        recorder.forget_transaction();
        self.before.set(live.stamp());
        if listening {
            self.compare(hub, live);
        }
    }

    /// Whether strangers have committed; with their lock in our hands, or with
    /// nothing in it.
    fn compare(&self, hub: &Hub, live: &Live) {
        if self.connector.options.journal == Journal::Rollback {
            let version = data_version(live);
            if self.version.replace(version) != version {
                hub.elsewhere(None);
            }
        } else if let Some(now) = live.stamp() {
            hub.compare(now);
        }
    }

    /// Looks for what strangers have committed, without a transaction.
    pub(crate) fn look_out(&self) {
        let (Some(hub), Some(live)) = (&self.hub, &self.live) else {
            return;
        };
        if !hub.is_listening() {
            return;
        }
        self.compare(hub, live);
    }

    /// COMMIT has succeeded.
    #[inline]
    pub(super) fn announce(&self, live: &Live) {
        let Some(hub) = &self.hub else {
            return self.tokens.borrow_mut().settle(Outcome::Committed);
        };
        let before = self.before.take();
        if before.is_none() && !hub.is_listening() {
            self.tokens.borrow_mut().settle(Outcome::Committed);
            hub.committed();
            return;
        }
        self.announce_to(hub, live, before);
    }

    fn announce_to(&self, hub: &Hub, live: &Live, before: Option<Stamp>) {
        // Somebody who came after BEGIN: what ran before is not known.
        let tables = if live.guards.recorder.is_on() && before.is_some() {
            live.guards.recorder.take()
        } else {
            Tables::ANY
        };
        self.tell_of(hub, live, before, tables);
    }

    /// The same, of these tables.
    pub(super) fn tell_of(&self, hub: &Hub, live: &Live, before: Option<Stamp>, tables: Tables) {
        // A COMMIT of nothing is none for SQLite, and what it counts next is
        // somebody else's.
        let wrote = self.wal.written() != self.written.get();
        let now = live.stamp();
        let (tokens, all_tokens) = self.tokens.borrow().ids();
        let wanted = !tokens.is_empty() || !all_tokens || hub.others_listen();
        if let (Some(before), Some(now), true) = (before, now, wrote && wanted)
            && now.commits == before.commits.wrapping_add(1)
        {
            let changed = (!tables.is_any()).then(|| tables.names().map(Into::into).collect());
            hub.note(&Note {
                before,
                after: now,
                changed,
                tokens,
                all_tokens,
            });
        }
        self.tokens.borrow_mut().settle(Outcome::Committed);
        let commit = hub.committed();
        if hub.is_listening() {
            let after = match (before, now) {
                // Somebody else may have committed since, who is to be told as well:
                // no checksum fits 0.
                (Some(before), Some(now)) => wrote.then(|| {
                    let commits = before.commits.wrapping_add(1);
                    let is_ours = now.commits == commits;
                    let checksum = if is_ours { now.checksum } else { 0 };
                    Stamp { commits, checksum }
                }),
                // What is told is "any table", which covers them.
                _ => now,
            };
            hub.tell(commit, tables, after);
        }
    }

    /// Foreign code had a connection to itself, and may have committed anything.
    pub(super) fn exclusive_was_told(&self) {
        let Some(hub) = &self.hub else { return };
        let commit = hub.committed();
        if self.connector.options.journal == Journal::Rollback {
            self.version.set(self.live.as_ref().and_then(data_version));
        }
        if hub.is_listening() {
            // What others have committed since is told with it.
            let now = self.live.as_ref().and_then(Live::stamp);
            hub.tell(commit, Tables::ANY, now);
        }
    }
}

/// A number that changes when another connection commits.
fn data_version(live: &Live) -> Option<i64> {
    let sql = "PRAGMA data_version";
    live.connection.query_row(sql, (), |row| row.get(0)).ok()
}
