//! Lends a closure that borrows from its caller's stack to the pen.
//!
//! This is the one place of the pen that needs `unsafe`. A blocked caller's
//! closure and answer are not `'static`; the queue is. The promise that makes
//! the difference: `with_job` does not return while anybody may still run the
//! closure or store an answer.

use std::time::Instant;

use super::job::{Answer, Job, Kind, Member, Ticket};
use super::queue::Queued;
use crate::error::Result;
use crate::sync::Arc;

/// A job whose closure lives on the stack of the thread that waits for it.
pub(crate) struct Lent<'a, E, T> {
    member: Queued<E>,
    answer: Arc<dyn Answer<T> + 'a>,
}

impl<'a, E, T> Lent<'a, E, T> {
    pub(crate) fn member(&self) -> &Queued<E> {
        &self.member
    }

    pub(crate) fn answer(&self) -> &(dyn Answer<T> + 'a) {
        &*self.answer
    }
}

/// Makes a job of `call` for as long as `wait` runs.
///
/// `wait` must return only when it took the job's answer, or when the job was
/// never queued. Should it panic, the process aborts rather than leave a
/// dangling closure in the queue.
pub(crate) fn with_job<E, C, T, R>(
    ticket: &Ticket,
    kind: Kind,
    mut call: C,
    wait: impl FnOnce(&Lent<'_, E, T>) -> R,
) -> R
where
    E: 'static,
    C: FnMut(&mut E) -> Result<T> + Send,
    T: Send,
{
    // By reference, so that dropping the job drops nothing of the caller's.
    let job = Arc::new(Job::new(ticket, kind, Instant::now(), &mut call));
    let member: Arc<dyn Member<E> + '_> = Arc::clone(&job) as _;
    // SAFETY: only the lifetime changes. What borrows from the caller inside
    // `job` is a reference to the closure, and the answer.
    // - The pen runs the closure and stores an answer of it only while the
    //   job's phase is CLAIMED. `Answer::take` yields something only when the
    //   phase is DONE, which is final, and `wait` returns only after that or
    //   when the job never was in the queue.
    // - Whoever holds the `Arc` longer (a cancelled job keeps its place in the
    //   queue for a while; a cancel token holds a `Weak`) reads the header,
    //   which borrows nothing, and drops the job in the end. By then the answer
    //   was taken or is an `Error`, and dropping a reference does nothing.
    let member: Queued<E> = unsafe {
        std::mem::transmute::<Arc<dyn Member<E> + '_>, Arc<dyn Member<E> + 'static>>(member)
    };
    let no_unwind = AbortOnUnwind;
    let lent = Lent {
        member,
        answer: job as _,
    };
    let result = wait(&lent);
    std::mem::forget(no_unwind);
    result
}

struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

#[cfg(all(test, unix, not(any(miri, onepen_loom, onepen_shuttle))))]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_panic_while_a_closure_is_lent_ends_the_process() {
        const IN_THE_CHILD: &str = "ONEPEN_PANICS_WHILE_A_CLOSURE_IS_LENT";
        if std::env::var_os(IN_THE_CHILD).is_some() {
            let call = |_: &mut ()| Ok(());
            with_job(&Ticket::default(), Kind::Grouped, call, |_| {
                panic!("with the closure still in the queue, perhaps")
            })
        }
        let status = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "pen::borrowed::tests::a_panic_while_a_closure_is_lent_ends_the_process",
            ])
            .env(IN_THE_CHILD, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
    }
}
