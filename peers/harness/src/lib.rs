//! What every contender of `cargo xtask compare` shares, so that the only
//! difference between two of them is the way they reach SQLite: the same
//! arguments, the same start gate, the same latencies, the same one line of
//! JSON. There is no SQLite in here (`links = "sqlite3"` allows one per
//! program, and each contender brings its own).
//!
//! A contender is this:
//!
//! ```no_run
//! # fn insert(client: usize, n: i64) -> Result<(), String> { Ok(()) }
//! let args = peer_harness::Args::parse();
//! // … create the table, open the pool …
//! let race = peer_harness::Race::new(&args);
//! std::thread::scope(|scope| {
//!     for client in 0..args.clients {
//!         let race = &race;
//!         scope.spawn(move || {
//!             let mut lap = race.enter();
//!             while let Some(n) = lap.next() {
//!                 lap.finished(insert(client, n));
//!             }
//!         });
//!     }
//! });
//! let report = race.report("a name");
//! // … count the rows, add what the connection says about itself …
//! report.print();
//! ```

mod args;
mod race;
mod report;

pub use args::{Args, Durability};
pub use race::{Lap, Race};
pub use report::{Report, class_of};

/// The table every contender writes to. The key is given by SQLite.
pub const CREATE_TABLE: &str =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, client INTEGER, n INTEGER, payload TEXT)";

/// The one statement that every writing contender repeats.
pub const INSERT: &str = "INSERT INTO t(client, n, payload) VALUES (?1, ?2, ?3)";

/// How many rows were acknowledged, according to the file.
pub const COUNT: &str = "SELECT count(*) FROM t";

/// How long a contender's SQLite may wait for a lock, in milliseconds. It is
/// also rusqlite's and sqlx's default.
pub const BUSY_TIMEOUT_MS: u32 = 5_000;

/// The text a client writes: thirty bytes, different for every client.
pub fn payload(client: usize) -> String {
    format!("client {client:0>5} has written this.")
}

#[cfg(test)]
mod tests {
    use super::payload;

    #[test]
    fn a_payload_has_thirty_bytes() {
        assert_eq!(payload(7).len(), 30);
        assert_eq!(payload(10_000).len(), 30);
    }
}
