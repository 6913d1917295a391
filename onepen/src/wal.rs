//! How full the write-ahead log is: written by the writer's commit, read by the
//! checkpointer and by `stats`.

use std::sync::OnceLock;

use onepen_lock::gate::Gate;

use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, WaitWord};

pub(crate) struct WalLevel {
    /// Frames in the log after the last commit of ours.
    frames: AtomicU32,
    /// How many commits of ours wrote to it.
    written: AtomicU64,
    max: AtomicU32,
    resets: AtomicU64,
    /// The checkpointer wants to know when this many frames are reached.
    threshold: AtomicU32,
    rung: AtomicBool,
    bell: WaitWord,
    kept: AtomicBool,
    /// Where other processes say that it is to be kept.
    gate: OnceLock<Gate>,
}

impl WalLevel {
    pub(crate) fn new(threshold: u32) -> Self {
        Self {
            frames: AtomicU32::new(0),
            written: AtomicU64::new(0),
            max: AtomicU32::new(0),
            resets: AtomicU64::new(0),
            threshold: AtomicU32::new(threshold),
            rung: AtomicBool::new(false),
            bell: WaitWord::new(),
            kept: AtomicBool::new(false),
            gate: OnceLock::new(),
        }
    }

    /// Other processes may want it kept, and are told if we do.
    pub(crate) fn share(&self, gate: &Gate) {
        let _ = self.gate.set(gate.clone());
    }

    /// The log is the only place from which what is in it can be had for certain:
    /// nothing here copies it back, resets it or removes it any more, nor does
    /// another process that takes part in the gate.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::SeqCst);
        if let Some(gate) = self.gate.get() {
            gate.keep_log();
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::SeqCst) || self.gate.get().is_some_and(Gate::log_is_kept)
    }

    /// After a commit, in the writer's thread.
    ///
    /// Sequentially consistent, as is `ring_at`: either we see the new threshold
    /// and that it has not rung, or the checkpointer, which looks at `frames`
    /// after `ring_at` and before it sleeps, sees ours.
    pub(crate) fn committed(&self, frames: u32) {
        let written = self.written.load(Ordering::Relaxed);
        self.written.store(written + 1, Ordering::Relaxed);
        self.frames.store(frames, Ordering::SeqCst);
        if frames > self.max.load(Ordering::SeqCst) {
            self.max.store(frames, Ordering::SeqCst);
        }
        if frames >= self.threshold.load(Ordering::SeqCst)
            && !self.rung.swap(true, Ordering::SeqCst)
        {
            self.bell.advance();
        }
    }

    /// A checkpoint reset the log: the next commit starts at its beginning.
    pub(crate) fn restarted(&self) {
        self.frames.store(0, Ordering::SeqCst);
        self.resets.fetch_add(1, Ordering::SeqCst);
    }

    /// The log has so many frames: another process reset it.
    pub(crate) fn found(&self, frames: u32) {
        self.frames.store(frames, Ordering::SeqCst);
    }

    /// Rings when a commit reaches this many frames, once.
    pub(crate) fn ring_at(&self, frames: u32) {
        self.threshold.store(frames, Ordering::SeqCst);
        self.rung.store(false, Ordering::SeqCst);
    }

    pub(crate) fn bell(&self) -> &WaitWord {
        &self.bell
    }

    pub(crate) fn frames(&self) -> u32 {
        self.frames.load(Ordering::SeqCst)
    }

    /// Whether a COMMIT wrote anything: it is another number then. For the writer.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(crate) fn max(&self) -> u32 {
        self.max.load(Ordering::SeqCst)
    }

    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Ordering::SeqCst)
    }
}
