//! One thread that owns the writing connection; everybody else sends it their
//! transactions through a queue and waits for the answer. Each is committed by
//! itself, as most programs of this shape do.

use std::sync::mpsc;
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::sqlite::{BUSY_TIMEOUT, Begin, connect, run_part};
use super::{Client, Opened, Setup, Way};
use crate::bench::sql::Fault;
use crate::bench::workloads::{Job, Variables};

type Answer = Result<Variables, Fault>;

struct Request {
    job: Job,
    part: usize,
    variables: Variables,
    answer: mpsc::SyncSender<Answer>,
}

/// Starts the thread.
pub fn open(setup: &Setup) -> Result<Opened, Fault> {
    let connection = connect(setup, BUSY_TIMEOUT)?;
    let (queue, requests) = mpsc::channel::<Request>();
    let thread = std::thread::Builder::new()
        .name("writer".to_owned())
        .spawn(move || {
            for request in requests {
                let answer = run_part(
                    &connection,
                    Begin::Immediate,
                    &request.job,
                    request.part,
                    &request.variables,
                );
                // A client that has gone wants no answer.
                let _ = request.answer.send(answer);
            }
        })
        .map_err(|error| Fault::Workload(format!("the writer thread did not start: {error}")))?;
    Ok(Opened::Threads(Box::new(WriterThread {
        setup: setup.clone(),
        queue: Some(queue),
        thread: Some(thread),
    })))
}

struct WriterThread {
    setup: Setup,
    queue: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        // The last sender gone is the thread's sign to end.
        self.queue = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Way for WriterThread {
    fn client(&self) -> Result<Box<dyn Client + '_>, Fault> {
        let queue = self.queue.clone().expect("the queue is there until drop");
        let (answer, answers) = mpsc::sync_channel(1);
        Ok(Box::new(Sender {
            connection: connect(&self.setup, BUSY_TIMEOUT)?,
            queue,
            answer,
            answers,
        }))
    }
}

struct Sender {
    connection: Connection,
    queue: mpsc::Sender<Request>,
    answer: mpsc::SyncSender<Answer>,
    answers: mpsc::Receiver<Answer>,
}

impl Client for Sender {
    fn run(&mut self, job: &Job) -> Result<(), Fault> {
        let mut variables = Variables::new();
        for part in 0..job.work().parts() {
            variables = if job.work().part(part).writes() {
                self.write(job, part, variables)?
            } else {
                run_part(&self.connection, Begin::Deferred, job, part, &variables)?
            };
        }
        Ok(())
    }
}

impl Sender {
    fn write(&self, job: &Job, part: usize, variables: Variables) -> Answer {
        let gone = || Fault::Workload("the writer thread is gone".to_owned());
        self.queue
            .send(Request {
                job: job.clone(),
                part,
                variables,
                answer: self.answer.clone(),
            })
            .map_err(|_| gone())?;
        self.answers.recv().map_err(|_| gone())?
    }
}
