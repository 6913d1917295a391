//! No database at all: the most that blocked callers can get from this machine.
//!
//! Each client puts its number into a list and sleeps on a futex. One thread takes
//! the list, writes a page for every 32 of them to a file, flushes it, and has a
//! second thread wake them, while it takes those who came meanwhile. That is a
//! write-ahead log without SQL, locks, checksums, answers, deadlines or errors; a
//! client is put to sleep and woken once for each of its "transactions", as every
//! thread must be that waits for a flush. What a library reaches beside it, it
//! reaches of what there is.

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("sleepers: only on Linux, whose futexes it measures");
    std::process::exit(2);
}

#[cfg(target_os = "linux")]
fn main() -> Result<(), peer_onepen::Failure> {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
    use std::sync::{Mutex, PoisonError};

    use peer_harness::{Args, Race};
    use peer_onepen::Failure;
    use rustix::thread::futex;

    const PAGE: usize = 4096;
    /// The file is written round and round, as a log is.
    const PAGES: usize = 1000;
    const WORDS: usize = 32;

    #[derive(Default)]
    struct Word(AtomicU32);

    impl Word {
        fn now(&self) -> u32 {
            self.0.load(SeqCst)
        }

        fn sleep(&self, seen: u32) {
            let _ = futex::wait(&self.0, futex::Flags::PRIVATE, seen, None);
        }

        fn wake(&self) {
            self.0.fetch_add(1, SeqCst);
            let _ = futex::wake(&self.0, futex::Flags::PRIVATE, i32::MAX as u32);
        }
    }

    #[derive(Default)]
    struct Queue {
        clients: Vec<usize>,
        /// The word on which the next to come will sleep.
        word: usize,
    }

    #[derive(Default)]
    struct Shared {
        queue: Mutex<Queue>,
        words: [Word; WORDS],
        done: Vec<AtomicBool>,
        work: Word,
        to_wake: AtomicU32,
        waking: Word,
        over: AtomicBool,
    }

    impl Shared {
        fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
            self.queue.lock().unwrap_or_else(PoisonError::into_inner)
        }

        fn client(&self, client: usize) {
            self.done[client].store(false, SeqCst);
            let (word, first, mut seen) = {
                let mut queue = self.queue();
                queue.clients.push(client);
                let word = &self.words[queue.word];
                (word, queue.clients.len() == 1, word.now())
            };
            if first {
                self.work.wake();
            }
            while !self.done[client].load(SeqCst) {
                word.sleep(seen);
                seen = word.now();
            }
        }

        /// Until it is over; how many were answered.
        fn write(&self, file: &File) -> std::io::Result<u64> {
            let mut answered = 0;
            let page = [7u8; PAGE * 16];
            let mut group = Vec::new();
            let mut at = 0;
            loop {
                let seen = self.work.now();
                let word = {
                    let mut queue = self.queue();
                    std::mem::swap(&mut group, &mut queue.clients);
                    let word = queue.word;
                    if !group.is_empty() {
                        queue.word = (word + 1) % WORDS;
                    }
                    word
                };
                if group.is_empty() {
                    if self.over.load(SeqCst) {
                        return Ok(answered);
                    }
                    self.work.sleep(seen);
                    continue;
                }
                let pages = (group.len() / 32 + 1).min(16);
                file.write_all_at(&page[..pages * PAGE], (at * PAGE) as u64)?;
                file.sync_data()?;
                at = (at + pages) % PAGES;
                answered += group.len() as u64;
                for client in group.drain(..) {
                    self.done[client].store(true, SeqCst);
                }
                self.to_wake.fetch_or(1 << word, SeqCst);
                self.waking.wake();
            }
        }

        fn wake(&self) {
            loop {
                let seen = self.waking.now();
                let words = self.to_wake.swap(0, SeqCst);
                for (number, word) in self.words.iter().enumerate() {
                    if words & (1 << number) != 0 {
                        word.wake();
                    }
                }
                if words == 0 {
                    if self.over.load(SeqCst) {
                        return;
                    }
                    self.waking.sleep(seen);
                }
            }
        }
    }

    pub fn main() -> Result<(), Failure> {
        let args = Args::parse();
        let race = Race::new(&args);
        let file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(args.dir.join("sleepers.log"))?;
        file.write_all_at(&vec![0; PAGE * (PAGES + 16)], 0)?;
        file.sync_all()?;
        let shared = Shared {
            done: (0..args.clients).map(|_| AtomicBool::new(false)).collect(),
            ..Shared::default()
        };
        let written = std::thread::scope(|scope| {
            let writer = scope.spawn(|| shared.write(&file));
            scope.spawn(|| shared.wake());
            let clients: Vec<_> = (0..args.clients)
                .map(|client| {
                    let (shared, race) = (&shared, &race);
                    scope.spawn(move || {
                        let mut lap = race.enter();
                        while lap.next().is_some() {
                            shared.client(client);
                            lap.finished(Ok(()));
                        }
                    })
                })
                .collect();
            for client in clients {
                let _ = client.join();
            }
            shared.over.store(true, SeqCst);
            shared.work.wake();
            let written = writer.join().expect("the writer does not panic");
            shared.waking.wake();
            written
        });
        race.report("no database").with("rows", written?).print();
        Ok(())
    }
}
