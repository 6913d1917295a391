//! The pen in somebody's hand: who has it, and what happens when it is let go.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::{Pen, State};
pub(crate) use crate::blocks::inside::Inside;
use crate::engine::Engine;
use crate::error::{self, Error, ErrorKind, Result};
use crate::sync::Arc;

/// Who has the pen: for the errors of those who wait in vain.
#[derive(Clone, Default)]
pub(crate) struct Holder {
    pub(crate) since: Option<Instant>,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) thread: Option<std::thread::ThreadId>,
}

impl Holder {
    pub(super) fn describe(&self) -> Option<error::Holder> {
        let since = self.since?;
        let thread = match self.thread {
            Some(thread) => format!("{thread:?}").into(),
            None => "the writer thread".into(),
        };
        Some(error::Holder {
            pid: Some(std::process::id()),
            thread: Some(thread),
            label: self.label.clone(),
            since: Some(since.elapsed()),
            ..error::Holder::default()
        })
    }
}

/// The pen in hand; dropping it gives it back. While it lives, a write of this
/// thread is refused: it would wait for itself.
pub(crate) struct Held<'a, E: Engine> {
    pub(crate) pen: &'a Arc<Pen<E>>,
    pub(crate) engine: Option<Box<E>>,
    _inside: Inside,
}

impl<'a, E: Engine> Held<'a, E> {
    pub(super) fn new(pen: &'a Arc<Pen<E>>, engine: Box<E>) -> Self {
        Self {
            pen,
            engine: Some(engine),
            _inside: pen.enter(),
        }
    }

    /// After a bug of ours: the next to hold the pen must not find a
    /// transaction of the last.
    pub(super) fn clean_up(&mut self) {
        if let Some(engine) = &mut self.engine {
            let _ = catch_unwind(AssertUnwindSafe(|| engine.rollback()));
        }
    }
}

impl<E: Engine> Drop for Held<'_, E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.clean_up();
        }
        if let Some(engine) = self.engine.take() {
            self.pen.put_back(engine);
        }
    }
}

/// An engine that nobody needs any more. To be dropped outside the lock.
pub(super) struct Retired<E> {
    before: Option<Box<dyn FnOnce() + Send>>,
    _engine: Box<E>,
}

impl<E> Drop for Retired<E> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            before();
        }
    }
}

impl<E> State<E> {
    pub(super) fn retire(&mut self, engine: Box<E>) -> Retired<E> {
        Retired {
            before: self.before_engine.take(),
            _engine: engine,
        }
    }
}

impl<E: Engine> Pen<E> {
    /// Who has the pen now, if anybody has.
    #[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "only told"))]
    pub(crate) fn holder(&self) -> Option<error::Holder> {
        crate::sync::lock(&self.state).holder.describe()
    }

    /// Whether this thread holds this pen, or is its writer thread.
    pub(crate) fn is_inside(&self) -> bool {
        Inside::is_in(self.id)
    }

    pub(super) fn enter(&self) -> Inside {
        Inside::enter(self.id)
    }

    /// Whether a write that this thread waited for would wait for this thread.
    pub(crate) fn is_in_its_way(&self) -> bool {
        self.is_inside() || self.is_bystander() || self.is_permitted_here()
    }

    fn is_bystander(&self) -> bool {
        self.bystanders.get().is_some_and(|them| them.are_here())
    }

    pub(super) fn readers_are_awaited(&self) -> bool {
        self.bystanders.get().is_some_and(|them| them.are_awaited())
    }

    pub(crate) fn refuse_reentry(&self) -> Result<()> {
        if self.is_bystander() {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "a write was started inside a read closure of the same database; over a rollback \
                 journal a COMMIT waits until nobody reads, so it would wait for itself: write \
                 after the read has ended, or use `submit` and wait for it there",
            ));
        }
        if self.is_permitted_here() && !self.is_inside() {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "a write was started by a thread that has the write permit of the same file, where \
                 it would wait for itself; give the permit back first",
            ));
        }
        if self.is_inside() {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "a write was started inside a write closure of the same database, where it would \
                 wait for itself; use the transaction the closure was given, or `submit`",
            ));
        }
        Ok(())
    }
}
