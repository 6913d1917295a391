//! What the raw contenders and onepen's share: the raw connection, the table
//! of the reading contenders, and what a connection says about itself.

pub mod allocated;

use peer_harness::{Args, BUSY_TIMEOUT_MS, COUNT, CREATE_TABLE, Durability, Report};
use rusqlite::{Connection, Result};

/// Where everything may fail at start and end of a contender.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A writing connection as onepen's users would open one by hand: WAL,
/// `synchronous` as asked, a busy timeout, and the page cache that onepen's
/// connections have (SQLite's own default of 2 MiB would be a handicap).
/// Everything else is SQLite's default, automatic checkpoints every 1,000
/// pages among it.
pub fn raw_writer(args: &Args) -> Result<Connection> {
    let connection = Connection::open(args.database())?;
    connection.execute_batch(&format!(
        "PRAGMA busy_timeout={BUSY_TIMEOUT_MS};
         PRAGMA cache_size=-8192;
         PRAGMA journal_mode=WAL;
         PRAGMA synchronous={};",
        args.durability.pragma()
    ))?;
    Ok(connection)
}

/// Opens the file through onepen, with its defaults but for the durability.
pub fn open_onepen(args: &Args) -> onepen::Result<onepen::Database> {
    let durability = match args.durability {
        Durability::Full => onepen::Durability::Full,
        Durability::Normal => onepen::Durability::Normal,
    };
    onepen::Options::new()
        .durability(durability)
        .open(args.database())
}

/// Closes what onepen had open and adds to a report what its own connection
/// said, and how many rows another connection finds in the file afterwards.
pub fn close_onepen(
    report: Report,
    database: &onepen::Database,
    args: &Args,
) -> std::result::Result<Report, Failure> {
    let (mode, synchronous) = database.exclusively(|connection| {
        let mode: String = connection.query_row("PRAGMA journal_mode", (), |row| row.get(0))?;
        let synchronous = connection.query_row("PRAGMA synchronous", (), |row| row.get(0))?;
        Ok((mode, synchronous))
    })?;
    let stats = database.stats();
    database.close();
    let rows = Connection::open(args.database())?.query_row(COUNT, (), |row| row.get(0))?;
    Ok(report
        .with("groups", stats.groups)
        .with("largest_group", stats.largest_group)
        .with("longest_queue", stats.longest_queue)
        .with("wal_frames_max", stats.wal_frames_max)
        .checked(rows, rusqlite::version(), &mode, synchronous))
}

/// Creates the contenders' table.
pub fn create_table(connection: &Connection) -> Result<()> {
    connection.execute_batch(CREATE_TABLE)
}

/// Adds to a report what the connection says: rows, version, settings.
pub fn checked(report: Report, connection: &Connection) -> Result<Report> {
    let ask = |sql: &str| connection.query_row(sql, (), |row| row.get(0));
    let mode: String = connection.query_row("PRAGMA journal_mode", (), |row| row.get(0))?;
    let (rows, synchronous) = (ask(COUNT)?, ask("PRAGMA synchronous")?);
    Ok(report.checked(rows, rusqlite::version(), &mode, synchronous))
}

/// How many rows the reading contenders choose from. They fit into SQLite's
/// page cache, so that the way to the row is measured, not the copying of pages.
pub const READ_ROWS: i64 = 10_000;

/// The one statement of the reading contenders.
pub const SELECT: &str = "SELECT n FROM t WHERE id = ?1";

/// What [`SELECT`] must answer for this key.
pub fn value_of(id: i64) -> i64 {
    id * 3
}

/// Fills the file of the reading contenders, and leaves nothing in its WAL.
pub fn fill(args: &Args) -> Result<()> {
    let mut connection = raw_writer(args)?;
    create_table(&connection)?;
    let transaction = connection.transaction()?;
    for id in 1..=READ_ROWS {
        transaction
            .prepare_cached("INSERT INTO t(id, client, n, payload) VALUES (?1, 0, ?2, ?3)")?
            .execute((id, value_of(id), peer_harness::payload(0)))?;
    }
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
}

/// Keys in an order that no cache foresees, different for every client.
pub struct Keys(u64);

impl Keys {
    /// The keys of one client.
    pub fn new(client: usize) -> Self {
        Self(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(client as u64 + 1))
    }

    /// The next key, from 1 to [`READ_ROWS`].
    pub fn draw(&mut self) -> i64 {
        // xorshift64: three instructions, so that drawing costs nothing
        // beside a read.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % READ_ROWS as u64) as i64 + 1
    }
}

/// Whether a read brought the row it asked for.
pub fn judge(id: i64, read: Result<i64, String>) -> Result<(), String> {
    match read {
        Ok(value) if value == value_of(id) => Ok(()),
        Ok(_) => Err("wrong row".to_owned()),
        Err(class) => Err(class),
    }
}
