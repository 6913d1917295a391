//! Two threads that write to one place without an order: ThreadSanitizer has to
//! say so, or it sees nothing else either.

static mut PLACE: u64 = 0;

fn main() {
    let write = || {
        // SAFETY: none. That is the point.
        unsafe { PLACE += 1 }
    };
    let threads = [std::thread::spawn(write), std::thread::spawn(write)];
    for thread in threads {
        thread.join().unwrap();
    }
}
