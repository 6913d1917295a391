//! A recording in which several processes take part: what each hears of the others
//! before it does anything, and tells them after it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{Event, Inner, Recording, Watched};
use crate::journal::Journal;

impl Inner {
    /// Hears what other processes did, who wait from here on.
    pub(super) fn catch_up(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        for event in journal.lock().expect("the journal of the recording") {
            match &event {
                Event::Named(name, inode) => {
                    self.names.insert(name.clone(), *inode);
                    self.lengths.entry(*inode).or_insert(0);
                }
                Event::Unnamed(name, inode) if self.names.get(name) == Some(inode) => {
                    self.names.remove(name);
                }
                Event::Renamed { from, to, inode } => {
                    self.names.remove(from);
                    self.names.insert(to.clone(), *inode);
                }
                Event::Write { inode, at, bytes } => {
                    let length = self.lengths.entry(*inode).or_insert(0);
                    *length = (*length).max(at + bytes.len() as u64);
                }
                Event::Truncate { inode, length } => {
                    self.lengths.insert(*inode, *length);
                }
                _ => {}
            }
            self.log.events.push(event);
        }
        self.shared = self.log.events.len();
    }

    /// Tells them what was done here, and lets them go on.
    pub(super) fn share(&mut self) {
        let shared = std::mem::replace(&mut self.shared, self.log.events.len());
        if let Some(journal) = &mut self.journal {
            let new = &self.log.events[shared..];
            journal.unlock(new).expect("the journal of the recording");
        }
    }
}

impl Recording {
    /// The same with other processes, which [join](Self::join) it with this journal:
    /// a file that is in another directory.
    pub fn with_others(directory: &Path, journal: &Path) -> Self {
        let this = Self::with_volatile(directory);
        let mut inner = this.0.lock();
        let mut journal = Journal::open(journal).unwrap();
        assert!(journal.lock().unwrap().is_empty(), "a journal of its own");
        inner.journal = Some(journal);
        inner.shared = 0;
        drop(inner);
        this
    }

    /// Takes part in the recording of another process. Before this process opens a
    /// database in the directory.
    pub fn join(directory: &Path, journal: &Path) -> Self {
        let directory = directory.canonicalize().unwrap();
        let meta = directory.metadata().unwrap();
        let inner = Inner {
            journal: Some(Journal::open(journal).unwrap()),
            keep_volatile: true,
            ..Inner::default()
        };
        Self::activate(Arc::new(Watched {
            device: meta.dev(),
            inode: meta.ino(),
            directory,
            inner: Mutex::new(inner),
        }))
    }

    /// Leaves the recording of another process.
    ///
    /// # Panics
    /// When a call was not understood.
    pub fn leave(self) {
        assert_eq!(
            self.0.lock().confused,
            None,
            "a call that is not understood"
        );
    }

    /// Kills this process: while no thread of it is between a call and its line.
    pub fn die(&self) -> ! {
        let _nobody_else = self.0.inner.lock();
        // SAFETY: the number of this process, and a signal that ends it.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        unreachable!("killed")
    }
}
